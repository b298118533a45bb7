//! One attack on one batch: whom to attack, what was found, and the verdict.
//!
//! Every attack of the crate runs inside a trial, whatever its shape, so that the contract of
//! [`Attack::run`](crate::Attack::run) is written here and nowhere else.

use burn::tensor::Tensor;
use clipguard_model::victim::{Answer, Query, Victim};
use serde::{Deserialize, Serialize};

use crate::{
    Batch, Budget, Norm,
    ledger::{Ledger, Seen},
    loss::{Aim, Target},
    outcome::{Attacked, Flag},
    tensors::{argmax, host, indices},
};

/// Which point of a run is handed back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The most confidently wrong one, and the clean picture if none was wrong.
    #[default]
    Best,
    /// The last wrong one, and the clean picture if none was wrong (AutoAttack).
    Found,
    /// The last one of the last restart, successful or not (torchattacks, adversarial training).
    Last,
    /// The one of highest loss, successful or not.
    Loss,
}

impl Keep {
    /// Whether only successes are kept, so that a broken sample needs no more work.
    pub(crate) fn is_by_success(self) -> bool {
        matches!(self, Self::Best | Self::Found)
    }
}

/// What an attack may do, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// What may be changed; a limit of 0 gives back the clean pictures.
    pub budget: Budget,
    /// Which point is handed back.
    pub keep: Keep,
    /// Attack misclassified samples, too.
    pub everyone: bool,
    /// The class to reach, if any.
    pub target: Option<Target>,
}

impl Terms {
    /// A ball as budget, and only samples that are classified correctly.
    pub fn ball(norm: Norm, eps: f32, keep: Keep, target: Option<Target>) -> Self {
        Self { budget: Budget::Ball { norm, eps }, keep, everyone: false, target }
    }
}

/// The running state of one attack on one batch.
pub(crate) struct Trial<'a> {
    terms: Terms,
    victim: &'a dyn Victim,
    batch: &'a Batch<'a>,
    seed: u64,
    clean: Vec<f32>,
    correct: Vec<bool>,
    targets: Option<Vec<usize>>,
    pub(crate) ledger: Ledger,
}

/// The samples at work; all rows belong together.
#[derive(Clone)]
pub(crate) struct Group {
    /// Their places in the batch, rising.
    pub(crate) samples: Vec<usize>,
    pub(crate) keys: Vec<String>,
    pub(crate) clean: Tensor<4>,
    labels: Vec<usize>,
    targets: Option<Vec<usize>>,
    /// Whether the targets only steer the loss and every error counts.
    any_error: bool,
}

impl Group {
    pub(crate) fn len(&self) -> usize {
        self.samples.len()
    }

    pub(crate) fn aim(&self) -> Aim<'_> {
        let Self { labels, any_error, .. } = self;
        Aim { labels, targets: self.targets.as_deref(), any_error: *any_error }
    }

    /// Its first row so many times: several pictures of one sample at once.
    pub(crate) fn repeated(&self, count: usize) -> Self {
        let first = |all: &[usize]| vec![all[0]; count];
        Self {
            samples: first(&self.samples),
            keys: vec![self.keys[0].clone(); count],
            clean: self.clean.clone().narrow(0, 0, 1).repeat_dim(0, count),
            labels: first(&self.labels),
            targets: self.targets.as_deref().map(first),
            any_error: self.any_error,
        }
    }

    /// Forgets all rows but these (rising).
    pub(crate) fn retain(&mut self, rows: &[usize]) {
        self.clean = select(&self.clean, rows);
        self.keys = rows.iter().map(|&i| self.keys[i].clone()).collect();
        let pick = |all: &[usize]| rows.iter().map(|&i| all[i]).collect::<Vec<usize>>();
        self.samples = pick(&self.samples);
        self.labels = pick(&self.labels);
        self.targets = self.targets.as_deref().map(pick);
    }
}

impl<'a> Trial<'a> {
    /// Classifies the clean pictures and chooses targets.
    pub(crate) fn begin(
        terms: Terms,
        victim: &'a dyn Victim,
        batch: &'a Batch<'a>,
        seed: u64,
    ) -> Self {
        let count = batch.pixels.dims()[0];
        assert_eq!(batch.labels.len(), count, "one label a picture");
        assert_eq!(batch.keys.len(), count, "one key a picture");
        let ledger = Ledger::new(count, terms.keep);
        let (clean, correct) = (Vec::new(), Vec::new());
        let mut trial = Self { terms, victim, batch, seed, clean, correct, targets: None, ledger };
        trial.clean = trial.predict(&batch.pixels);
        let is_correct = |i: usize| argmax(trial.logits_of(i)) == Some(batch.labels[i]);
        trial.correct = (0..count).map(is_correct).collect();
        trial.targets = terms.target.map(|goal| trial.choose(goal, 0..count));
        trial
    }

    /// Number of classes.
    pub(crate) fn classes(&self) -> usize {
        self.victim.classes()
    }

    /// Clean logits of one sample.
    fn logits_of(&self, sample: usize) -> &[f32] {
        let classes = self.victim.classes();
        &self.clean[sample * classes..(sample + 1) * classes]
    }

    fn choose(&self, goal: Target, samples: impl Iterator<Item = usize>) -> Vec<usize> {
        let Batch { labels, keys, .. } = self.batch;
        samples.map(|i| goal.choose(self.logits_of(i), labels[i], &keys[i], self.seed)).collect()
    }

    /// The class of each row that is `rank`-th likeliest besides the true one.
    pub(crate) fn rivals(&self, group: &Group, rank: usize) -> Vec<usize> {
        self.choose(Target::Ranked(rank), group.samples.iter().copied())
    }

    /// Clean logits of the whole batch, row by row.
    pub(crate) fn clean_logits(&self) -> &[f32] {
        &self.clean
    }

    /// Whether the target of this sample is its own class.
    fn is_pointless(&self, sample: usize) -> bool {
        let label = self.batch.labels[sample];
        self.targets.as_ref().is_some_and(|targets| targets[sample] == label)
    }

    /// The samples that still have to be attacked.
    pub(crate) fn open(&self) -> Vec<usize> {
        let Terms { budget, everyone, keep, .. } = self.terms;
        let is_open = |&i: &usize| {
            (everyone || self.correct[i])
                && !self.is_pointless(i)
                && !(keep.is_by_success() && self.ledger.is_safe(i))
        };
        let count = if budget.limit() > 0.0 { self.correct.len() } else { 0 };
        (0..count).filter(is_open).collect()
    }

    /// The rows of a group that still have to be attacked.
    pub(crate) fn open_rows(&self, group: &Group) -> Vec<usize> {
        (0..group.len()).filter(|&row| !self.ledger.is_safe(group.samples[row])).collect()
    }

    /// These samples, steered `towards` a class of each if the attack itself has no target.
    pub(crate) fn group(&self, samples: Vec<usize>, towards: Option<Target>) -> Group {
        let pick = |all: &[usize]| samples.iter().map(|&i| all[i]).collect::<Vec<usize>>();
        let any_error = self.targets.is_none();
        let targets = match (&self.targets, towards) {
            (Some(targets), _) => Some(pick(targets)),
            (None, towards) => towards.map(|goal| self.choose(goal, samples.iter().copied())),
        };
        Group {
            keys: samples.iter().map(|&i| self.batch.keys[i].clone()).collect(),
            clean: select(&self.batch.pixels, &samples),
            labels: pick(self.batch.labels),
            samples,
            targets,
            any_error,
        }
    }

    /// Logits of `pixels`, one picture a row of the group. Draw 0 is left for judging.
    pub(crate) fn logits(&mut self, group: &Group, pixels: Tensor<4>, draw: u64) -> Tensor<2> {
        self.ledger.forwards += group.len();
        self.victim.logits(Query { pixels, keys: &group.keys, draw })
    }

    /// As [`Trial::logits`], with what is raised beside the loss.
    pub(crate) fn answer(&mut self, group: &Group, pixels: Tensor<4>, draw: u64) -> Answer {
        self.ledger.forwards += group.len();
        self.victim.answer(Query { pixels, keys: &group.keys, draw })
    }

    /// Gradient of the summed `loss`, finite in every entry; 0 where it does not depend on the
    /// pixels.
    pub(crate) fn gradient(&mut self, loss: Tensor<1>, pixels: &Tensor<4>) -> Tensor<4> {
        self.ledger.backwards += pixels.dims()[0];
        let gradient = match loss.is_tracked() {
            true => pixels.grad_remove(&mut loss.sum().backward()),
            false => None,
        };
        let zero = || Tensor::zeros(pixels.shape(), &pixels.device());
        finite(gradient.unwrap_or_else(zero), &mut self.ledger)
    }

    /// Writes down what was seen at one point of each row of the group.
    pub(crate) fn book(&mut self, group: &Group, seen: &Seen<'_>) {
        self.ledger.book(&group.samples, &group.aim(), seen);
    }

    /// Logits of a picture a sample in draw 0, row by row.
    fn predict(&mut self, pixels: &Tensor<4>) -> Vec<f32> {
        self.ledger.forwards += self.batch.keys.len();
        let query = Query { pixels: pixels.clone(), keys: self.batch.keys, draw: 0 };
        host(self.victim.logits(query))
    }

    /// Settles the pictures, puts them to the victim once more and fills in the verdict.
    pub(crate) fn close(mut self) -> Attacked {
        let Terms { budget, keep, .. } = self.terms;
        let (clean, count) = (&self.batch.pixels, self.correct.len());
        let pixels = match budget.limit() > 0.0 {
            true => budget.settle(clean, self.ledger.pictures(clean)),
            false => clean.clone(),
        };
        let logits = self.predict(&pixels);
        let classes = self.victim.classes();
        let targets = self.targets.as_deref();
        let aim = Aim { labels: self.batch.labels, targets, any_error: targets.is_none() };
        let verdict = |i: usize| {
            let class = argmax(&logits[i * classes..(i + 1) * classes]);
            class.is_some_and(|class| aim.is_met(i, class)) && !self.is_pointless(i)
        };
        let success: Vec<bool> = (0..count).map(verdict).collect();
        let wasted = (0..count).filter(|&i| self.is_pointless(i)).count();
        let sizes = budget.measure(pixels.clone() - clean.clone());
        let mut ledger = self.ledger;
        for (i, size) in sizes.iter().enumerate().filter(|(i, _)| success[*i]) {
            // Of several attacks another one may have found a smaller error than the one that looks.
            if let Some(nearest) = &mut ledger.nearest[i] {
                *nearest = nearest.min(*size);
            }
        }
        let lost = |i: &usize| keep.is_by_success() && ledger.first_success[*i].is_some();
        let unconfirmed = (0..count).filter(lost).filter(|&i| !success[i]).count();
        let mut flags = ledger.flags();
        let found =
            [(unconfirmed, Flag::Unconfirmed(unconfirmed)), (wasted, Flag::TargetIsLabel(wasted))];
        flags.extend(found.into_iter().filter(|(n, _)| *n > 0).map(|(_, flag)| flag));
        Attacked {
            pixels,
            broken_by: vec![None; count],
            success,
            correct: self.correct,
            norm: sizes.into_iter().map(|size| size as f32).collect(),
            nearest: ledger.nearest.into_iter().map(|size| size.map(|s| s as f32)).collect(),
            first_success: ledger.first_success,
            best_loss: ledger.best_loss,
            loss: ledger.loss,
            forwards: ledger.forwards,
            backwards: ledger.backwards,
            zero_gradients: ledger.zero_gradients as f32 / ledger.backwards.max(1) as f32,
            flags,
        }
    }
}

/// The gradient with NaN and infinite entries set to 0; counts those pictures and the zero ones.
fn finite(gradient: Tensor<4>, ledger: &mut Ledger) -> Tensor<4> {
    // Any NaN or infinite entry shows in the sum; a largest entry may pass over NaN.
    let total = |gradient: &Tensor<4>| host(Norm::L1.size(gradient.clone()));
    let sums = total(&gradient);
    let broken = sums.iter().filter(|sum| !sum.is_finite()).count();
    if broken == 0 {
        ledger.zero_gradients += sums.iter().filter(|&&sum| sum == 0.0).count();
        return gradient;
    }
    let bad = gradient.clone().is_finite().bool_not();
    let gradient = gradient.mask_fill(bad, 0.0);
    ledger.broken_gradients += broken;
    ledger.zero_gradients += total(&gradient).iter().filter(|&&sum| sum == 0.0).count();
    gradient
}

/// Rows of a batch, in that order.
pub(crate) fn select(batch: &Tensor<4>, rows: &[usize]) -> Tensor<4> {
    match rows.len() == batch.dims()[0] {
        true => batch.clone(),
        false => batch.clone().select(0, indices(rows, &batch.device())),
    }
}
