//! LayerNorm over rows, and normalisation by given column statistics (BatchNorm) with ReLU.

use super::{dot, sum, vectorised};
use rayon::prelude::*;

/// Rows of one task; partial column sums are made per task and added in order.
const TASK_ROWS: usize = 512;

/// LayerNorm (biased variance) over rows of width `c`.
pub(crate) fn layer(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32) -> Vec<f32> {
    let c = gamma.len();
    let mut y = vec![0.0; x.len()];
    y.par_chunks_mut(TASK_ROWS * c).zip(x.par_chunks(TASK_ROWS * c)).for_each(|(y, x)| {
        vectorised(
            #[inline(always)]
            || {
                for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                    let (mean, inverse) = moments(x, eps);
                    for i in 0..c {
                        y[i] = (x[i] - mean) * inverse * gamma[i] + beta[i];
                    }
                }
            },
        );
    });
    y
}

#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(x) / n;
    let mut lanes = [0f32; 16];
    let chunks = x.chunks_exact(16);
    let tail: f32 = chunks.remainder().iter().map(|v| (v - mean) * (v - mean)).sum();
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] += (chunk[i] - mean) * (chunk[i] - mean);
        }
    }
    let variance = (lanes.iter().sum::<f32>() + tail) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// Gradients of [`layer`]: `(dx, dgamma, dbeta)`.
pub(crate) fn layer_backward(
    x: &[f32],
    gamma: &[f32],
    g: &[f32],
    eps: f32,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let c = gamma.len();
    let mut dx = vec![0.0; x.len()];
    let parts: Vec<(Vec<f32>, Vec<f32>)> = dx
        .par_chunks_mut(TASK_ROWS * c)
        .zip(x.par_chunks(TASK_ROWS * c).zip(g.par_chunks(TASK_ROWS * c)))
        .map(|(dx, (x, g))| {
            vectorised(
                #[inline(always)]
                || {
                    let (mut dgamma, mut dbeta) = (vec![0.0; c], vec![0.0; c]);
                    let (mut hat, mut scaled) = (vec![0.0; c], vec![0.0; c]);
                    let rows = dx.chunks_exact_mut(c).zip(x.chunks_exact(c).zip(g.chunks_exact(c)));
                    for (dx, (x, g)) in rows {
                        let (mean, inverse) = moments(x, eps);
                        for i in 0..c {
                            hat[i] = (x[i] - mean) * inverse;
                            scaled[i] = g[i] * gamma[i];
                            dgamma[i] += g[i] * hat[i];
                            dbeta[i] += g[i];
                        }
                        let along = dot(&scaled, &hat) / c as f32;
                        let mean = sum(&scaled) / c as f32;
                        for i in 0..c {
                            dx[i] = inverse * (scaled[i] - mean - hat[i] * along);
                        }
                    }
                    (dgamma, dbeta)
                },
            )
        })
        .collect();
    let (dgamma, dbeta) = add_parts(parts, c);
    (dx, dgamma, dbeta)
}

fn add_parts(parts: Vec<(Vec<f32>, Vec<f32>)>, c: usize) -> (Vec<f32>, Vec<f32>) {
    let mut total = (vec![0.0; c], vec![0.0; c]);
    for (a, b) in parts {
        total.0.iter_mut().zip(a).for_each(|(t, v)| *t += v);
        total.1.iter_mut().zip(b).for_each(|(t, v)| *t += v);
    }
    total
}

/// Mean and biased variance of every column of `[rows, c]`, in two passes.
pub(crate) fn column_moments(x: &[f32], c: usize) -> (Vec<f32>, Vec<f32>) {
    let rows = (x.len() / c) as f32;
    let reduce = |centre: Option<&[f32]>| {
        let parts: Vec<(Vec<f32>, Vec<f32>)> = x
            .par_chunks(TASK_ROWS * c)
            .map(|x| {
                vectorised(
                    #[inline(always)]
                    || {
                        let mut sums = vec![0.0f32; c];
                        for row in x.chunks_exact(c) {
                            match centre {
                                None => sums.iter_mut().zip(row).for_each(|(s, v)| *s += v),
                                Some(m) => sums
                                    .iter_mut()
                                    .zip(row.iter().zip(m))
                                    .for_each(|(s, (v, m))| *s += (v - m) * (v - m)),
                            }
                        }
                        (sums, Vec::new())
                    },
                )
            })
            .collect();
        let (mut total, _) = add_parts(parts, c);
        total.iter_mut().for_each(|t| *t /= rows);
        total
    };
    let mean = reduce(None);
    let variance = reduce(Some(&mean));
    (mean, variance)
}

/// What [`columns`] normalises with.
pub(crate) struct Columns<'a> {
    pub(crate) mean: &'a [f32],
    pub(crate) inverse: &'a [f32],
    pub(crate) gamma: &'a [f32],
    pub(crate) beta: &'a [f32],
    pub(crate) relu: bool,
}

/// `(x - mean) * inverse * gamma + beta` per column, then ReLU if asked.
pub(crate) fn columns(x: &[f32], s: &Columns<'_>) -> Vec<f32> {
    let c = s.gamma.len();
    let slope: Vec<f32> = s.gamma.iter().zip(s.inverse).map(|(g, i)| g * i).collect();
    let offset: Vec<f32> = (0..c).map(|i| s.beta[i] - s.mean[i] * slope[i]).collect();
    let mut y = vec![0.0; x.len()];
    y.par_chunks_mut(TASK_ROWS * c).zip(x.par_chunks(TASK_ROWS * c)).for_each(|(y, x)| {
        vectorised(
            #[inline(always)]
            || {
                for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                    for i in 0..c {
                        let v = x[i] * slope[i] + offset[i];
                        y[i] = if s.relu { v.max(0.0) } else { v };
                    }
                }
            },
        );
    });
    y
}

/// Gradients of [`columns`]: `(dx, dgamma, dbeta)`. With `batch` the mean and the (biased)
/// variance are those of `x` itself and the gradient passes through them.
pub(crate) fn columns_backward(
    x: &[f32],
    g: &[f32],
    s: &Columns<'_>,
    batch: bool,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let c = s.gamma.len();
    let slope: Vec<f32> = s.gamma.iter().zip(s.inverse).map(|(g, i)| g * i).collect();
    let offset: Vec<f32> = (0..c).map(|i| s.beta[i] - s.mean[i] * slope[i]).collect();
    let parts: Vec<(Vec<f32>, Vec<f32>)> = x
        .par_chunks(TASK_ROWS * c)
        .zip(g.par_chunks(TASK_ROWS * c))
        .map(|(x, g)| {
            vectorised(
                #[inline(always)]
                || {
                    let (mut dgamma, mut dbeta) = (vec![0.0f32; c], vec![0.0f32; c]);
                    for (x, g) in x.chunks_exact(c).zip(g.chunks_exact(c)) {
                        for i in 0..c {
                            let passes = !s.relu || x[i] * slope[i] + offset[i] > 0.0;
                            let g = if passes { g[i] } else { 0.0 };
                            dgamma[i] += g * ((x[i] - s.mean[i]) * s.inverse[i]);
                            dbeta[i] += g;
                        }
                    }
                    (dgamma, dbeta)
                },
            )
        })
        .collect();
    let (dgamma, dbeta) = add_parts(parts, c);
    let rows = (x.len() / c) as f32;
    let share = if batch { 1.0 / rows } else { 0.0 };
    let pull: Vec<f32> = dbeta.iter().map(|d| d * share).collect();
    let along: Vec<f32> = dgamma.iter().map(|d| d * share).collect();
    let mut dx = vec![0.0; x.len()];
    dx.par_chunks_mut(TASK_ROWS * c)
        .zip(x.par_chunks(TASK_ROWS * c).zip(g.par_chunks(TASK_ROWS * c)))
        .for_each(|(dx, (x, g))| {
            vectorised(
                #[inline(always)]
                || {
                    let rows = dx.chunks_exact_mut(c).zip(x.chunks_exact(c).zip(g.chunks_exact(c)));
                    for (dx, (x, g)) in rows {
                        for i in 0..c {
                            let passes = !s.relu || x[i] * slope[i] + offset[i] > 0.0;
                            let g = if passes { g[i] } else { 0.0 };
                            let hat = (x[i] - s.mean[i]) * s.inverse[i];
                            dx[i] = slope[i] * (g - pull[i] - hat * along[i]);
                        }
                    }
                },
            );
        });
    (dx, dgamma, dbeta)
}
