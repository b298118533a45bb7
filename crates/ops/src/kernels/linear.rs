//! `y = x w^T + b` with the weight as PyTorch stores it, `[out, in]`.

use super::{
    fresh::in_rooms,
    matmul::{self, Mat},
    task_rows,
};
use rayon::prelude::*;

/// Rows from which a product is cut into tasks of rows, not of columns. Of fewer rows every task would
/// spend much of its time on packing the weight.
const MANY: usize = 1024;
/// So few columns are not cut anyway.
const NARROW: usize = 384;
/// Rows of such a task at most: so many that packing the weight counts for little, and so few that a task's
/// result stays in the cache where the weight does as well.
const ROWS: [usize; 2] = [256, 1024];
/// Values of a weight that does not.
const LARGE: usize = 1 << 19;

pub(crate) fn forward(x: &[f32], w: &[f32], b: Option<&[f32]>, inputs: usize) -> Vec<f32> {
    product(x, Mat::new(w, w.len() / inputs, inputs).t(), b, inputs)
}

/// Gradient with respect to the input.
pub(crate) fn input_gradient(g: &[f32], w: &[f32], inputs: usize) -> Vec<f32> {
    let outputs = w.len() / inputs;
    product(g, Mat::new(w, outputs, inputs), None, outputs)
}

/// The rows of `x`, of `width` values each, times `w`, plus `b` in every row.
fn product(x: &[f32], w: Mat<'_>, b: Option<&[f32]>, width: usize) -> Vec<f32> {
    let (rows, columns) = (x.len() / width, w.columns_count());
    let most = ROWS[usize::from(width * columns >= LARGE)];
    let many = task_rows(rows, most, width * columns);
    let part = |i: usize, n: usize| Mat::new(&x[i * many * width..], n, width);
    let task = many * columns;
    let mut y = match b {
        _ if rows >= MANY || columns < NARROW => {
            return in_rooms(
                rows * columns,
                task,
                || (),
                |(), i, room| {
                    let x = part(i, room.len() / columns);
                    let Some(b) = b else { return matmul::rows_into(room, x, w) };
                    let y = room.rows_of(b);
                    matmul::rows(y, columns, x, w, true);
                    y
                },
            );
        }
        Some(b) => in_rooms(rows * columns, task, || (), |(), _, room| room.rows_of(b)),
        None => vec![0.0; rows * columns],
    };
    matmul::rows_together(&mut y, columns, part(0, rows), w, b.is_some());
    y
}

/// Rows of the gradient of a narrow weight that a task makes.
const FILTERS: usize = 64;

/// Gradient with respect to the weight, `[out, in]`.
pub(crate) fn weight_gradient(g: &[f32], x: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    let rows = x.len() / inputs;
    let mut dw = vec![0.0; outputs * inputs];
    let x = Mat::new(x, rows, inputs);
    if inputs < NARROW {
        dw.par_chunks_mut(FILTERS * inputs).enumerate().for_each(|(i, dw)| {
            let own = Mat::strided(&g[i * FILTERS..], rows, dw.len() / inputs, outputs);
            matmul::product(dw, inputs, own.t(), x, 1.0, false);
        });
        return dw;
    }
    matmul::product_together(&mut dw, inputs, Mat::new(g, rows, outputs).t(), x);
    dw
}

/// Gradient with respect to the bias: column sums of `g`.
pub(crate) fn column_sums(g: &[f32], columns: usize) -> Vec<f32> {
    let parts: Vec<Vec<f32>> = g.par_chunks(SUMMED * columns).map(|g| sums(g, columns)).collect();
    let mut total = vec![0.0f32; columns];
    for part in parts {
        total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
    }
    total
}

/// Rows of a partial sum of columns. Fixed, so that bits do not depend on threads.
const SUMMED: usize = 512;

fn sums(g: &[f32], columns: usize) -> Vec<f32> {
    super::vectorised(
        #[inline(always)]
        || {
            let mut sums = vec![0.0f32; columns];
            for row in g.chunks_exact(columns) {
                for (s, g) in sums.iter_mut().zip(row) {
                    *s += g;
                }
            }
            sums
        },
    )
}
