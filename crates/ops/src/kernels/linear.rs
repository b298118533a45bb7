//! `y = x w^T + b` with the weight as PyTorch stores it, `[out, in]`.

use super::matmul::{self, Mat};

pub(crate) fn forward(x: &[f32], w: &[f32], b: Option<&[f32]>, inputs: usize) -> Vec<f32> {
    let outputs = w.len() / inputs;
    let rows = x.len() / inputs;
    let mut y = match b {
        Some(b) => b.repeat(rows),
        None => vec![0.0; rows * outputs],
    };
    let (x, w) = (Mat::new(x, rows, inputs), Mat::new(w, outputs, inputs).t());
    matmul::rows_together(&mut y, outputs, x, w, b.is_some());
    y
}

/// Gradient with respect to the input.
pub(crate) fn input_gradient(g: &[f32], w: &[f32], inputs: usize) -> Vec<f32> {
    let outputs = w.len() / inputs;
    let rows = g.len() / outputs;
    let mut dx = vec![0.0; rows * inputs];
    let (g, w) = (Mat::new(g, rows, outputs), Mat::new(w, outputs, inputs));
    matmul::rows_together(&mut dx, inputs, g, w, false);
    dx
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
