//! What an attack has found so far, one entry a sample of the batch.

use burn::tensor::Tensor;

use crate::{
    loss::Aim,
    outcome::{Attacked, Flag},
    tensors::{argmax, row},
    trial::Keep,
};

/// A lead that another batch size cannot take back by rounding: a sample with it may leave early.
pub(crate) const SAFE_LEAD: f32 = 1e-3;

/// The state of the whole batch, indexed by sample.
pub(crate) struct Ledger {
    keep: Keep,
    /// The picture kept, `[1, channels, height, width]`, and how good it is.
    kept: Vec<Option<(Tensor<4>, f32)>>,
    safe: Vec<bool>,
    pub(crate) first_success: Vec<Option<usize>>,
    pub(crate) loss: Vec<Vec<f32>>,
    pub(crate) best_loss: Vec<Option<f32>>,
    /// Size of the smallest error found, inside the budget or not, where it was looked for.
    pub(crate) nearest: Vec<Option<f64>>,
    pub(crate) forwards: usize,
    pub(crate) backwards: usize,
    pub(crate) zero_gradients: usize,
    /// Samples without a gradient at their first start point.
    pub(crate) zero_starts: usize,
    pub(crate) broken_gradients: usize,
    pub(crate) broken_logits: usize,
}

/// What one forward pass over some samples showed.
pub(crate) struct Seen<'a> {
    /// Their pictures.
    pub(crate) points: &'a Tensor<4>,
    /// Their logits, row by row.
    pub(crate) logits: &'a [f32],
    /// Their losses.
    pub(crate) loss: &'a [f32],
    /// Whether the pictures may be handed back; false where they may lie outside the budget.
    pub(crate) counts: bool,
    /// Whether nothing follows in this restart.
    pub(crate) is_last: bool,
}

impl Ledger {
    pub(crate) fn new(samples: usize, keep: Keep) -> Self {
        Self {
            keep,
            kept: vec![None; samples],
            safe: vec![false; samples],
            first_success: vec![None; samples],
            loss: vec![Vec::new(); samples],
            best_loss: vec![None; samples],
            nearest: vec![None; samples],
            forwards: 0,
            backwards: 0,
            zero_gradients: 0,
            zero_starts: 0,
            broken_gradients: 0,
            broken_logits: 0,
        }
    }

    /// Books one evaluation of `samples`: traces, first successes, and the points worth keeping.
    pub(crate) fn book(&mut self, samples: &[usize], aim: &Aim<'_>, seen: &Seen<'_>) {
        let classes = seen.logits.len() / samples.len().max(1);
        for (i, &sample) in samples.iter().enumerate() {
            let logits = &seen.logits[i * classes..(i + 1) * classes];
            let class = argmax(logits);
            self.broken_logits += usize::from(class.is_none());
            let loss = seen.loss[i];
            let count = self.loss[sample].len();
            self.loss[sample].push(loss);
            if !seen.counts {
                continue;
            }
            let best = self.best_loss[sample].map_or(loss, |best| best.max(loss));
            self.best_loss[sample] = Some(best);
            let succeeds = class.is_some_and(|class| aim.is_met(i, class));
            let lead = aim.lead(i, logits);
            if succeeds {
                self.first_success[sample].get_or_insert(count);
                self.safe[sample] |= lead >= SAFE_LEAD;
            }
            let worth = match self.keep {
                Keep::Best => succeeds.then_some(lead),
                Keep::Found => succeeds.then_some(f32::INFINITY),
                Keep::Last => seen.is_last.then_some(f32::INFINITY),
                Keep::Loss => (!loss.is_nan()).then_some(loss),
            };
            if let Some(worth) = worth {
                self.offer(sample, worth, || row(seen.points, i));
            }
        }
    }

    /// Counts the point of `sample` that was booked last as a success inside the budget.
    pub(crate) fn credit(
        &mut self,
        sample: usize,
        lead: f32,
        worth: f32,
        picture: impl FnOnce() -> Tensor<4>,
    ) {
        let count = self.loss[sample].len().saturating_sub(1);
        self.first_success[sample].get_or_insert(count);
        self.safe[sample] |= lead >= SAFE_LEAD;
        let best = self.best_loss[sample].map_or(lead, |best| best.max(lead));
        self.best_loss[sample] = Some(best);
        self.offer(sample, worth, picture);
    }

    /// Notes that `sample` errs at this distance.
    pub(crate) fn found(&mut self, sample: usize, size: f64) {
        let nearest = &mut self.nearest[sample];
        *nearest = Some(nearest.map_or(size, |known| known.min(size)));
    }

    /// Appends what an attack of an ensemble did to `samples`. Its losses are not comparable with
    /// those of the others: there is no best one.
    pub(crate) fn absorb(&mut self, samples: &[usize], part: Attacked) {
        for ((&sample, losses), i) in samples.iter().zip(part.loss).zip(0..) {
            let before = self.loss[sample].len();
            if part.success[i] && self.first_success[sample].is_none() {
                self.first_success[sample] = part.first_success[i].map(|count| before + count);
            }
            self.loss[sample].extend(losses);
            if let Some(size) = part.nearest[i] {
                self.found(sample, size.into());
            }
        }
        self.forwards += part.forwards;
        self.backwards += part.backwards;
        self.zero_gradients += (part.zero_gradients * part.backwards as f32).round() as usize;
    }

    /// Keeps a picture if it is worth more than the one kept; an infinite worth always is.
    pub(crate) fn offer(&mut self, sample: usize, worth: f32, picture: impl FnOnce() -> Tensor<4>) {
        let known = self.kept[sample].as_ref().map(|(_, worth)| *worth);
        if worth == f32::INFINITY || known.is_none_or(|known| worth > known) {
            self.kept[sample] = Some((picture(), worth));
        }
    }

    /// Whether a success of this sample is beyond doubt.
    pub(crate) fn is_safe(&self, sample: usize) -> bool {
        self.safe[sample]
    }

    /// The pictures to judge: what was kept, else the clean ones.
    pub(crate) fn pictures(&self, clean: &Tensor<4>) -> Tensor<4> {
        let pick = |(i, kept): (usize, &Option<(Tensor<4>, f32)>)| match kept {
            Some((picture, _)) => picture.clone(),
            None => row(clean, i),
        };
        Tensor::cat(self.kept.iter().enumerate().map(pick).collect(), 0)
    }

    /// What went wrong during the run.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let counts = [
            (self.broken_gradients, Flag::BrokenGradient(self.broken_gradients)),
            (self.broken_logits, Flag::BrokenLogits(self.broken_logits)),
        ];
        counts.into_iter().filter(|(n, _)| *n > 0).map(|(_, flag)| flag).collect()
    }
}
