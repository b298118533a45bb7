//! LayerNorm over rows, and normalisation by given column statistics (BatchNorm) with ReLU.

use super::{dot, fresh::in_tasks, sum, vectorised};
use rayon::prelude::*;

/// Rows of one task; partial column sums are made per task and added in order.
const TASK_ROWS: usize = 512;

/// LayerNorm (biased variance) over rows of width `c`.
pub(crate) fn layer(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32) -> Vec<f32> {
    let c = gamma.len();
    let task = TASK_ROWS * c;
    in_tasks(x.len(), task, |i, y| {
        let x = &x[i * task..][..y.len()];
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
    })
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

/// Values a loop should run over at least.
const LONG: usize = 64;

/// `v` again and again, so that a few short rows can be handled as one long one: a loop over eight
/// channels costs more around than inside.
fn repeated(v: &[f32]) -> Vec<f32> {
    v.repeat((LONG / v.len().max(1)).max(1))
}

/// The sums of columns from those of repeated columns.
fn folded(sums: &[f32], c: usize) -> Vec<f32> {
    let mut total = vec![0.0; c];
    for row in sums.chunks_exact(c) {
        total.iter_mut().zip(row).for_each(|(t, v)| *t += v);
    }
    total
}

/// Mean and biased variance of every column of `[rows, c]`, in two passes.
pub(crate) fn column_moments(x: &[f32], c: usize) -> (Vec<f32>, Vec<f32>) {
    let mean = column_means::<false>(x, &vec![0.0; c]);
    let variance = column_means::<true>(x, &mean);
    (mean, variance)
}

/// Means over the rows of `x - centre` or, with `SQUARED`, of its square.
fn column_means<const SQUARED: bool>(x: &[f32], centre: &[f32]) -> Vec<f32> {
    let c = centre.len();
    let centre = repeated(centre);
    let parts: Vec<(Vec<f32>, Vec<f32>)> = x
        .par_chunks(TASK_ROWS * c)
        .map(|x| {
            vectorised(
                #[inline(always)]
                || {
                    let mut sums = vec![0.0f32; centre.len()];
                    for x in x.chunks(centre.len()) {
                        for ((s, x), m) in sums.iter_mut().zip(x).zip(&centre) {
                            let d = x - m;
                            *s += if SQUARED { d * d } else { d };
                        }
                    }
                    (folded(&sums, c), Vec::new())
                },
            )
        })
        .collect();
    let (mut means, _) = add_parts(parts, c);
    let rows = (x.len() / c) as f32;
    means.iter_mut().for_each(|m| *m /= rows);
    means
}

/// What [`columns`] normalises with.
pub(crate) struct Columns<'a> {
    pub(crate) mean: &'a [f32],
    pub(crate) inverse: &'a [f32],
    pub(crate) gamma: &'a [f32],
    pub(crate) beta: &'a [f32],
    pub(crate) relu: bool,
}

/// The parameters of [`Columns`] as one multiplication and one addition, repeated.
struct Line {
    slope: Vec<f32>,
    offset: Vec<f32>,
}

impl Columns<'_> {
    fn line(&self) -> Line {
        let slope: Vec<f32> = self.gamma.iter().zip(self.inverse).map(|(g, i)| g * i).collect();
        let offset = self.beta.iter().zip(self.mean.iter().zip(&slope));
        let offset: Vec<f32> = offset.map(|(b, (m, s))| b - m * s).collect();
        Line { slope: repeated(&slope), offset: repeated(&offset) }
    }
}

/// `(x - mean) * inverse * gamma + beta` per column, then ReLU if asked.
pub(crate) fn columns(x: &[f32], s: &Columns<'_>) -> Vec<f32> {
    let task = TASK_ROWS * s.gamma.len();
    let line = s.line();
    in_tasks(x.len(), task, |i, y| {
        let x = &x[i * task..][..y.len()];
        match s.relu {
            true => line.apply(x, y, |v| v.max(0.0)),
            false => line.apply(x, y, |v| v),
        }
    })
}

impl Line {
    fn apply(&self, x: &[f32], y: &mut [f32], then: impl Fn(f32) -> f32) {
        let long = self.slope.len();
        vectorised(
            #[inline(always)]
            || {
                for (y, x) in y.chunks_mut(long).zip(x.chunks(long)) {
                    let line = self.slope.iter().zip(&self.offset);
                    for ((y, x), (slope, offset)) in y.iter_mut().zip(x).zip(line) {
                        *y = then(x * slope + offset);
                    }
                }
            },
        );
    }
}

/// Gradients of [`columns`]: `(dx, dgamma, dbeta)`. With `batch` the mean and the (biased)
/// variance are those of `x` itself and the gradient passes through them.
pub(crate) fn columns_backward(
    x: &[f32],
    g: &[f32],
    s: &Columns<'_>,
    batch: bool,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    match s.relu {
        true => gradients(x, g, s, batch, |v| v > 0.0),
        false => gradients(x, g, s, batch, |_| true),
    }
}

/// As [`columns_backward`]; `passes` tells from its output whether a unit passes its gradient on.
fn gradients(
    x: &[f32],
    g: &[f32],
    s: &Columns<'_>,
    batch: bool,
    passes: impl Fn(f32) -> bool + Sync,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let c = s.gamma.len();
    let task = TASK_ROWS * c;
    let Line { slope, offset } = s.line();
    let (mean, long) = (repeated(s.mean), slope.len());
    let parts: Vec<(Vec<f32>, Vec<f32>)> = x
        .par_chunks(task)
        .zip(g.par_chunks(task))
        .map(|(x, g)| {
            vectorised(
                #[inline(always)]
                || {
                    let (mut along, mut straight) = (vec![0.0f32; long], vec![0.0f32; long]);
                    for (x, g) in x.chunks(long).zip(g.chunks(long)) {
                        let sums = along.iter_mut().zip(&mut straight);
                        let line = slope.iter().zip(offset.iter().zip(&mean));
                        let values = x.iter().zip(g).zip(line);
                        for ((a, b), ((x, g), (slope, (offset, mean)))) in sums.zip(values) {
                            let g = if passes(x * slope + offset) { *g } else { 0.0 };
                            *a += g * (x - mean);
                            *b += g;
                        }
                    }
                    (folded(&along, c), folded(&straight, c))
                },
            )
        })
        .collect();
    let (mut dgamma, dbeta) = add_parts(parts, c);
    dgamma.iter_mut().zip(s.inverse).for_each(|(d, i)| *d *= i);
    let share = if batch { c as f32 / x.len() as f32 } else { 0.0 };
    let pull = repeated(&dbeta.iter().map(|d| d * share).collect::<Vec<_>>());
    let along = dgamma.iter().zip(s.inverse).map(|(d, i)| d * i * share);
    let along = repeated(&along.collect::<Vec<_>>());
    let dx = in_tasks(x.len(), task, |i, dx| {
        let own = i * task..i * task + dx.len();
        let (x, g) = (&x[own.clone()], &g[own]);
        vectorised(
            #[inline(always)]
            || {
                for (dx, (x, g)) in dx.chunks_mut(long).zip(x.chunks(long).zip(g.chunks(long))) {
                    let line = slope.iter().zip(offset.iter().zip(&mean));
                    let line = line.zip(pull.iter().zip(&along));
                    let values = dx.iter_mut().zip(x.iter().zip(g));
                    for ((dx, (x, g)), ((slope, (offset, mean)), (pull, along))) in values.zip(line)
                    {
                        let g = if passes(x * slope + offset) { *g } else { 0.0 };
                        *dx = slope * (g - pull - (x - mean) * along);
                    }
                }
            },
        );
    });
    (dx, dgamma, dbeta)
}
