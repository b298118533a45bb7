//! `y = x w^T + b` with the weight as PyTorch stores it, `[out, in]`.

use super::matmul::{self, Mat, product};
use rayon::prelude::*;

/// Rows of the batch a task handles: small enough to feed two cores, large enough for the product.
const ROWS: usize = 256;
/// Rows of the weight gradient a task handles.
const OUT_ROWS: usize = 64;

pub(crate) fn forward(x: &[f32], w: &[f32], b: Option<&[f32]>, inputs: usize) -> Vec<f32> {
    let outputs = w.len() / inputs;
    let rows = x.len() / inputs;
    let mut y = vec![0.0; rows * outputs];
    y.par_chunks_mut(ROWS * outputs).zip(x.par_chunks(ROWS * inputs)).for_each(|(y, x)| {
        let rows = x.len() / inputs;
        if let Some(b) = b {
            y.chunks_exact_mut(outputs).for_each(|row| row.copy_from_slice(b));
        }
        let (x, w) = (Mat::new(x, rows, inputs), Mat::new(w, outputs, inputs).t());
        matmul::rows(y, outputs, x, w, b.is_some());
    });
    y
}

/// Gradient with respect to the input.
pub(crate) fn input_gradient(g: &[f32], w: &[f32], inputs: usize) -> Vec<f32> {
    let outputs = w.len() / inputs;
    let rows = g.len() / outputs;
    let mut dx = vec![0.0; rows * inputs];
    dx.par_chunks_mut(ROWS * inputs).zip(g.par_chunks(ROWS * outputs)).for_each(|(dx, g)| {
        let rows = g.len() / outputs;
        let (g, w) = (Mat::new(g, rows, outputs), Mat::new(w, outputs, inputs));
        matmul::rows(dx, inputs, g, w, false);
    });
    dx
}

/// Gradient with respect to the weight, `[out, in]`.
pub(crate) fn weight_gradient(g: &[f32], x: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    let rows = x.len() / inputs;
    let mut dw = vec![0.0; outputs * inputs];
    let x = Mat::new(x, rows, inputs);
    dw.par_chunks_mut(OUT_ROWS * inputs).enumerate().for_each(|(i, dw)| {
        let n = dw.len() / inputs;
        let columns = Mat::strided(&g[i * OUT_ROWS..], rows, n, outputs);
        product(dw, inputs, columns.t(), x, 1.0, false);
    });
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
