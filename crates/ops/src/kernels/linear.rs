//! `y = x w^T + b` with the weight as PyTorch stores it, `[out, in]`.

use super::{
    fresh::in_tasks,
    matmul::{self, Mat},
};

/// Rows from which a product is cut into tasks of rows. Of fewer rows every task would spend much of
/// its time on packing the weight.
const MANY: usize = 1024;
/// Rows of such a task.
const ROWS: usize = 256;

pub(crate) fn forward(x: &[f32], w: &[f32], b: Option<&[f32]>, inputs: usize) -> Vec<f32> {
    let outputs = w.len() / inputs;
    let rows = x.len() / inputs;
    let w = Mat::new(w, outputs, inputs).t();
    let mut y = in_tasks(rows * outputs, ROWS * outputs, |i, y| {
        if let Some(b) = b {
            y.chunks_exact_mut(outputs).for_each(|row| row.copy_from_slice(b));
        }
        if rows >= MANY {
            let x = part(x, i, y.len() / outputs, inputs);
            matmul::rows(y, outputs, x, w, b.is_some());
        }
    });
    if rows < MANY {
        matmul::rows_together(&mut y, outputs, Mat::new(x, rows, inputs), w, b.is_some());
    }
    y
}

/// The `rows` rows of task `i` of a matrix of `width` columns.
fn part(x: &[f32], i: usize, rows: usize, width: usize) -> Mat<'_> {
    Mat::new(&x[i * ROWS * width..], rows, width)
}

/// Gradient with respect to the input.
pub(crate) fn input_gradient(g: &[f32], w: &[f32], inputs: usize) -> Vec<f32> {
    let outputs = w.len() / inputs;
    let rows = g.len() / outputs;
    let w = Mat::new(w, outputs, inputs);
    if rows < MANY {
        let mut dx = vec![0.0; rows * inputs];
        matmul::rows_together(&mut dx, inputs, Mat::new(g, rows, outputs), w, false);
        return dx;
    }
    in_tasks(rows * inputs, ROWS * inputs, |i, dx| {
        let g = part(g, i, dx.len() / inputs, outputs);
        matmul::rows(dx, inputs, g, w, false);
    })
}

/// Gradient with respect to the weight, `[out, in]`.
pub(crate) fn weight_gradient(g: &[f32], x: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    let rows = x.len() / inputs;
    let mut dw = vec![0.0; outputs * inputs];
    let (g, x) = (Mat::new(g, rows, outputs), Mat::new(x, rows, inputs));
    matmul::product_together(&mut dw, inputs, g.t(), x);
    dw
}

/// Gradient with respect to the bias: column sums of `g`.
pub(crate) fn column_sums(g: &[f32], columns: usize) -> Vec<f32> {
    super::vectorised(
        #[inline(always)]
        || {
            let mut sums = vec![0.0f32; columns];
            for row in g.chunks_exact(columns) {
                sums.iter_mut().zip(row).for_each(|(s, g)| *s += g);
            }
            sums
        },
    )
}
