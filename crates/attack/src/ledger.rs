//! What a descent has found so far, one entry a sample of the batch.

use burn::tensor::Tensor;

use crate::{
    descent::Keep,
    loss::Aim,
    outcome::Flag,
    tensors::{argmax, row},
};

/// A lead that another batch size cannot take back by rounding: a sample with it may leave early.
const SAFE_LEAD: f32 = 1e-3;

/// The state of the whole batch. Indexed by sample; an evaluation brings a part of the samples.
pub(crate) struct Ledger {
    keep: Keep,
    /// The picture kept, `[1, channels, height, width]`, and how good it is.
    kept: Vec<Option<(Tensor<4>, f32)>>,
    safe: Vec<bool>,
    pub(crate) first_success: Vec<Option<usize>>,
    pub(crate) loss: Vec<Vec<f32>>,
    pub(crate) forwards: usize,
    pub(crate) backwards: usize,
    pub(crate) zero_gradients: usize,
    pub(crate) broken_gradients: usize,
    pub(crate) broken_logits: usize,
}

/// One forward pass over some samples.
pub(crate) struct Evaluation<'a> {
    /// The samples, by their place in the batch.
    pub(crate) samples: &'a [usize],
    /// Their pictures.
    pub(crate) points: &'a Tensor<4>,
    /// Their logits, row by row.
    pub(crate) logits: &'a [f32],
    /// Their losses.
    pub(crate) loss: &'a [f32],
    /// Their labels and targets.
    pub(crate) aim: Aim<'a>,
    /// How many evaluations of these samples came before, over all restarts.
    pub(crate) count: usize,
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
            forwards: 0,
            backwards: 0,
            zero_gradients: 0,
            broken_gradients: 0,
            broken_logits: 0,
        }
    }

    /// Books one evaluation: traces, first successes, and the points worth keeping.
    pub(crate) fn book(&mut self, evaluation: &Evaluation<'_>) {
        let Evaluation { samples, logits, loss, aim, .. } = evaluation;
        let classes = logits.len() / samples.len().max(1);
        for (i, &sample) in samples.iter().enumerate() {
            let logits = &logits[i * classes..(i + 1) * classes];
            let class = argmax(logits);
            self.broken_logits += usize::from(class.is_none());
            let succeeds = class.is_some_and(|class| aim.is_met(i, class));
            let lead = aim.lead(i, logits);
            if succeeds {
                self.first_success[sample].get_or_insert(evaluation.count);
                self.safe[sample] |= lead >= SAFE_LEAD;
            }
            self.loss[sample].push(loss[i]);
            let worth = match self.keep {
                Keep::Best => succeeds.then_some(lead),
                Keep::Last => evaluation.is_last.then_some(f32::INFINITY),
                Keep::Loss => (!loss[i].is_nan()).then_some(loss[i]),
            };
            let known = self.kept[sample].as_ref().map_or(f32::NEG_INFINITY, |(_, worth)| *worth);
            if let Some(worth) = worth
                && (worth > known || self.kept[sample].is_none() || self.keep == Keep::Last)
            {
                self.kept[sample] = Some((row(evaluation.points, i), worth));
            }
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
