//! The step rule of APGD for L1 (Croce & Hein 2021, algorithm 1).

use burn::tensor::Tensor;

use crate::{
    descent::{Rule, View},
    norm::{l1_box, sparse_signs},
    tensors::{batch_of, host, retain_rows},
};

/// Part of a run with a radius of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// Radius in pixel units.
    pub eps: f32,
    /// Steps; one more point is evaluated.
    pub steps: usize,
}

/// Steps on few entries, as many as the best perturbation has so far, and a return to the best
/// point whenever it got sparser.
///
/// With several stages the best point of one is projected and opens the next.
#[derive(Clone, Debug)]
pub struct Sparse {
    stages: Vec<Stage>,
    stage: usize,
    taken: usize,
    since: usize,
    rows: Vec<Row>,
}

/// What is remembered of one sample.
#[derive(Clone, Debug)]
struct Row {
    best: Vec<f32>,
    best_gradient: Vec<f32>,
    best_loss: f32,
    step: f32,
    /// Share of the entries that a step moves.
    share: f32,
    /// Entries that differed from the clean picture at the last check.
    changed: usize,
}

impl Sparse {
    /// The rule of one restart; `stages` is not empty.
    pub fn new(stages: Vec<Stage>) -> Self {
        Self { stages, stage: 0, taken: 0, since: 0, rows: Vec::new() }
    }

    /// Length of the step taken last, one a row.
    pub fn step_sizes(&self) -> Vec<f32> {
        self.rows.iter().map(|row| row.step).collect()
    }

    /// Share of the entries that the last step moved, one a row.
    pub fn shares(&self) -> Vec<f32> {
        self.rows.iter().map(|row| row.share).collect()
    }

    fn first(&self, clean: &[f32], point: &[f32], gradient: &[f32], loss: f32) -> Row {
        let changed = if self.stages.len() > 1 { differing(clean, point) } else { point.len() };
        let share = if self.stages.len() > 1 { share(changed, point.len()) } else { 0.2 };
        Row {
            best: point.to_vec(),
            best_gradient: gradient.to_vec(),
            best_loss: loss,
            step: self.stages[self.stage].eps,
            share,
            changed,
        }
    }
}

impl Row {
    /// Adapts sparsity and step length; true when the row goes back to its best point.
    fn check(&mut self, clean: &[f32], eps: f32) -> bool {
        let changed = differing(clean, &self.best);
        let is_sparser = (changed as f32 / self.changed as f32) < 0.95;
        self.share = share(changed, clean.len());
        self.step = if is_sparser { eps } else { (self.step / 1.5).clamp(eps / 10.0, eps) };
        self.changed = changed;
        is_sparser
    }
}

impl Rule for Sparse {
    fn step(&mut self, view: &View<'_>) -> Tensor<4> {
        let [clean, mut point, mut gradient] =
            [view.clean, view.point, view.gradient].map(|tensor| host(tensor.clone()));
        let width = point.len() / view.loss.len().max(1);
        let part = |i: usize| i * width..(i + 1) * width;
        let Stage { eps, steps } = self.stages[self.stage];
        if self.taken == 0 {
            let first = |(i, &loss): (usize, &f32)| {
                self.first(&clean[part(i)], &point[part(i)], &gradient[part(i)], loss)
            };
            self.rows = view.loss.iter().enumerate().map(first).collect();
        } else {
            for (i, (row, &loss)) in self.rows.iter_mut().zip(view.loss).enumerate() {
                if loss > row.best_loss {
                    row.best_loss = loss;
                    row.best.copy_from_slice(&point[part(i)]);
                    row.best_gradient.copy_from_slice(&gradient[part(i)]);
                }
            }
            self.since += 1;
        }
        if self.taken == steps && self.stage + 1 < self.stages.len() {
            self.stage += 1;
            (self.taken, self.since) = (0, 0);
            for (i, row) in self.rows.iter().enumerate() {
                point[part(i)].copy_from_slice(&row.best);
                confine_l1(&clean[part(i)], &mut point[part(i)], self.stages[self.stage].eps);
            }
            return batch_of(point, view.clean);
        }
        if self.since == ((0.04 * steps as f64) as usize).max(1) {
            self.since = 0;
            for (i, row) in self.rows.iter_mut().enumerate() {
                if row.check(&clean[part(i)], eps) {
                    point[part(i)].copy_from_slice(&row.best);
                    gradient[part(i)].copy_from_slice(&row.best_gradient);
                }
            }
        }
        for (i, row) in self.rows.iter().enumerate() {
            let (point, direction) = (&mut point[part(i)], &mut gradient[part(i)]);
            let place = (1.0 - row.share) * width as f32;
            sparse_signs(direction, place as usize);
            point.iter_mut().zip(direction).for_each(|(p, d)| *p += row.step * *d);
            confine_l1(&clean[part(i)], point, eps);
        }
        self.taken += 1;
        batch_of(point, view.clean)
    }

    fn retain(&mut self, rows: &[usize]) {
        retain_rows(&mut self.rows, rows);
    }
}

/// Entries that are not those of the clean picture.
fn differing(clean: &[f32], point: &[f32]) -> usize {
    clean.iter().zip(point).filter(|(c, p)| c != p).count()
}

/// The share to move next when that many of `entries` differ.
fn share(changed: usize, entries: usize) -> f32 {
    changed as f32 / entries as f32 / 1.5
}

/// Nearest point of ball and box.
fn confine_l1(clean: &[f32], point: &mut [f32], eps: f32) {
    point.iter_mut().zip(clean).for_each(|(p, c)| *p -= c);
    l1_box(clean, point, eps);
    point.iter_mut().zip(clean).for_each(|(p, c)| *p = (*p + c).clamp(0.0, 1.0));
}
