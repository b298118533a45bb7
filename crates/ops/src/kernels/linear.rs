//! `y = x w^T + b` with the weight as PyTorch stores it, `[out, in]`.

use super::{
    finish::Finish,
    matmul::{self, Mat},
    packed::{MANY, Packed, Source, product_of_few},
};
use rayon::prelude::*;
use std::ops::Range;

/// So few columns of a gradient are not cut.
const NARROW: usize = 384;

pub(crate) fn forward(x: &[f32], w: &[f32], b: Option<&[f32]>, inputs: usize) -> Vec<f32> {
    if x.len() / inputs < MANY {
        let pack = |own: Range<usize>| {
            Packed::<f32>::new(&w[own.start * inputs..own.end * inputs], inputs)
        };
        return product_of_few(x, [inputs, w.len() / inputs], pack, b);
    }
    Packed::<f32>::new(w, inputs).product(Source::Rows(x), b, Finish::default())
}

/// Gradient with respect to the input.
pub(crate) fn input_gradient(g: &[f32], w: &[f32], inputs: usize) -> Vec<f32> {
    let outputs = w.len() / inputs;
    if g.len() / outputs < MANY {
        let pack = |own| Packed::turned(w, inputs, own);
        return product_of_few(g, [outputs, inputs], pack, None);
    }
    Packed::turned(w, inputs, 0..inputs).product(Source::Rows(g), None, Finish::default())
}

/// Rows of the gradient of a narrow weight that a task makes.
const FILTERS: usize = 32;

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

#[cfg(test)]
mod tests {
    use super::{super::tests::numbers, *};

    #[test]
    fn few_rows_have_the_bits_of_many() {
        for (inputs, outputs) in [(1, 1), (7, 50), (300, 100), (40, 1_500)] {
            let (x, w) = (numbers((MANY + 90) * inputs, 1), numbers(outputs * inputs, 2));
            let b = numbers(outputs, 3);
            for b in [None, Some(&b[..])] {
                let all = forward(&x, &w, b, inputs);
                for rows in [0, 1, 2, 5, MANY - 1, MANY, MANY + 1] {
                    let few = forward(&x[..rows * inputs], &w, b, inputs);
                    assert!(few == all[..rows * outputs], "{rows} of {inputs} to {outputs}");
                }
            }
            let g = numbers((MANY + 90) * outputs, 4);
            let all = input_gradient(&g, &w, inputs);
            for rows in [0, 1, 5, MANY - 1, MANY] {
                let few = input_gradient(&g[..rows * outputs], &w, inputs);
                assert!(few == all[..rows * inputs], "{rows} of {outputs} back to {inputs}");
            }
        }
    }
}
