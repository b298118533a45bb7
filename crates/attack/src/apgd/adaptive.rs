//! The step rule of APGD for Linf and L2 (Croce & Hein 2020, algorithm 1).

use burn::tensor::Tensor;

use super::Variant;
use crate::{
    Norm,
    descent::{Rule, View},
    tensors::{batch_of, host, retain_rows},
};

/// Weight of the new direction against the last movement, from the second step on.
const INERTIA: f32 = 0.75;

/// Momentum steps whose length is halved, with a return to the best point, when progress stalls.
#[derive(Clone, Debug)]
pub struct Adaptive {
    norm: Norm,
    eps: f32,
    variant: Variant,
    rho: f32,
    steps: usize,
    taken: usize,
    /// Steps between checks and since the last one.
    interval: usize,
    since: usize,
    rows: Vec<Row>,
}

/// What is remembered of one sample.
#[derive(Clone, Debug)]
struct Row {
    previous: Vec<f32>,
    best: Vec<f32>,
    best_gradient: Vec<f32>,
    best_loss: f32,
    /// `best_loss` at the last check.
    checked_loss: f32,
    step: f32,
    was_halved: bool,
    /// Losses since the last check, behind the one before.
    losses: Vec<f32>,
}

impl Adaptive {
    /// The rule of one restart of `steps` steps.
    pub fn new(norm: Norm, eps: f32, steps: usize, variant: Variant, rho: f32) -> Self {
        let interval = share(0.22, steps);
        Self { norm, eps, variant, rho, steps, taken: 0, interval, since: 0, rows: Vec::new() }
    }

    /// Length of the step taken last, one a row.
    pub fn step_sizes(&self) -> Vec<f32> {
        self.rows.iter().map(|row| row.step).collect()
    }

    fn first(&self, point: &[f32], gradient: &[f32], loss: f32) -> Row {
        // The original program keeps its losses in an array of zeros and reads entry -1, the last
        // one, where the loss of the start belongs.
        let before = if self.variant == Variant::Paper { loss } else { 0.0 };
        Row {
            previous: point.to_vec(),
            best: point.to_vec(),
            best_gradient: gradient.to_vec(),
            best_loss: loss,
            checked_loss: loss,
            step: 2.0 * self.eps,
            was_halved: true,
            losses: vec![before],
        }
    }

    /// Whether a row has to go back to its best point and halve its step (conditions 1 and 2).
    fn stalls(&self, row: &Row) -> bool {
        let rises = row.losses.windows(2).filter(|pair| pair[1] > pair[0]).count() as f32;
        let enough = self.rho * self.interval as f32;
        let few = match self.variant {
            Variant::Autoattack => rises <= enough,
            Variant::Paper => rises < enough,
        };
        few || (!row.was_halved && row.checked_loss >= row.best_loss)
    }

    /// The next point of one row from `point` along `gradient`, written to `next`.
    fn advance(&self, row: &Row, rows: [&[f32]; 3], next: &mut [f32]) {
        let [clean, point, gradient] = rows;
        let inertia = if self.taken == 0 { 1.0 } else { INERTIA };
        let eps = self.eps;
        let blend = |i: usize, aimed: f32| {
            let movement = point[i] - row.previous[i];
            point[i] + (aimed - point[i]) * inertia + movement * (1.0 - inertia)
        };
        if self.norm == Norm::Linf {
            let confine =
                |i: usize, v: f32| v.max(clean[i] - eps).min(clean[i] + eps).clamp(0.0, 1.0);
            for (i, next) in next.iter_mut().enumerate() {
                let aimed = confine(i, point[i] + row.step * sign(gradient[i]));
                *next = confine(i, blend(i, aimed));
            }
            return;
        }
        let largest = gradient.iter().fold(0.0, |a: f32, g| a.max(g.abs()));
        // Scaled by the largest entry first: squares of a gradient of 1e-22 are 0 in f32.
        let scaled = |i: usize| if largest > 0.0 { gradient[i] / largest } else { 0.0 };
        let length = (0..point.len()).map(|i| f64::from(scaled(i)).powi(2)).sum::<f64>().sqrt();
        let stride = row.step / (length as f32).max(f32::MIN_POSITIVE);
        next.iter_mut().enumerate().for_each(|(i, v)| *v = point[i] + stride * scaled(i));
        confine_l2(clean, next, eps);
        next.iter_mut().enumerate().for_each(|(i, v)| *v = blend(i, *v));
        confine_l2(clean, next, eps);
    }
}

impl Rule for Adaptive {
    fn step(&mut self, view: &View<'_>) -> Tensor<4> {
        let [clean, mut point, mut gradient] =
            [view.clean, view.point, view.gradient].map(|tensor| host(tensor.clone()));
        let width = point.len() / view.loss.len().max(1);
        let part = |i: usize| i * width..(i + 1) * width;
        if self.taken == 0 {
            let first =
                |(i, &loss): (usize, &f32)| self.first(&point[part(i)], &gradient[part(i)], loss);
            self.rows = view.loss.iter().enumerate().map(first).collect();
        } else {
            for (i, (row, &loss)) in self.rows.iter_mut().zip(view.loss).enumerate() {
                row.losses.push(loss);
                if loss > row.best_loss {
                    row.best_loss = loss;
                    row.best.copy_from_slice(&point[part(i)]);
                    row.best_gradient.copy_from_slice(&gradient[part(i)]);
                }
            }
            self.since += 1;
        }
        if self.since == self.interval {
            let stalled: Vec<bool> = self.rows.iter().map(|row| self.stalls(row)).collect();
            for (i, (row, stalled)) in self.rows.iter_mut().zip(stalled).enumerate() {
                row.was_halved = stalled;
                row.checked_loss = row.best_loss;
                row.losses.drain(..row.losses.len() - 1);
                if stalled {
                    row.step /= 2.0;
                    point[part(i)].copy_from_slice(&row.best);
                    gradient[part(i)].copy_from_slice(&row.best_gradient);
                }
            }
            self.since = 0;
            let shorter = self.interval.saturating_sub(share(0.03, self.steps));
            self.interval = shorter.max(share(0.06, self.steps));
        }
        let mut next = vec![0.0; point.len()];
        for (i, next) in next.chunks_mut(width.max(1)).enumerate() {
            let rows = [&clean, &point, &gradient].map(|all| &all[part(i)]);
            self.advance(&self.rows[i], rows, next);
            self.rows[i].previous.copy_from_slice(&point[part(i)]);
        }
        self.taken += 1;
        batch_of(next, view.clean)
    }

    fn retain(&mut self, rows: &[usize]) {
        retain_rows(&mut self.rows, rows);
    }
}

/// That share of the steps, at least one.
fn share(part: f64, steps: usize) -> usize {
    ((part * steps as f64) as usize).max(1)
}

/// The sign, with `sign(0) = 0`.
fn sign(v: f32) -> f32 {
    if v == 0.0 { 0.0 } else { v.signum() }
}

/// Scales into the ball around `clean`, then clamps to the box.
fn confine_l2(clean: &[f32], point: &mut [f32], eps: f32) {
    let squares = point.iter().zip(clean).map(|(p, c)| f64::from(p - c).powi(2));
    let size = squares.sum::<f64>().sqrt() as f32;
    let factor = (eps / size.max(1e-12)).min(1.0);
    for (p, &c) in point.iter_mut().zip(clean) {
        *p = (c + (*p - c) * factor).clamp(0.0, 1.0);
    }
}
