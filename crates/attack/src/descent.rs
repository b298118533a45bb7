//! The one descent: start, loss, step rule and projection are its parts, and this is the rest.
//!
//! An iterative attack fills in a [`Descent`] and runs it. The skeleton owns what all attacks share
//! and most programs get wrong somewhere: whom to attack, what to keep, when to stop, how to count
//! and how to judge (see the crate's opening page).

use burn::tensor::Tensor;
use clipguard_model::victim::{Query, Victim};
use serde::{Deserialize, Serialize};

use crate::{
    Batch, Norm,
    ledger::{Evaluation, Ledger},
    loss::{Aim, Target},
    outcome::{Attacked, Flag},
    tensors::{argmax, host, indices},
};

/// Which point of a descent is handed back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The most confidently wrong one, and the clean picture if none was wrong.
    #[default]
    Best,
    /// The last one of the last restart, successful or not (torchattacks, adversarial training).
    Last,
    /// The one of highest loss, successful or not.
    Loss,
}

/// Where a descent stands; all rows belong together.
#[derive(Debug)]
pub struct View<'a> {
    /// Clean pictures.
    pub clean: &'a Tensor<4>,
    /// The current points.
    pub point: &'a Tensor<4>,
    /// Gradient of the loss at the points, finite in every entry.
    pub gradient: &'a Tensor<4>,
    /// Loss at the points.
    pub loss: &'a [f32],
}

/// A step rule, with whatever it remembers of one restart.
pub trait Rule {
    /// The next points, inside budget and box.
    fn step(&mut self, view: &View<'_>) -> Tensor<4>;

    /// Forgets all samples but those in `rows` (positions in the last view, rising).
    fn retain(&mut self, rows: &[usize]);
}

/// Loss of each row from logits `[rows, classes]`, to be maximised; `[rows]`.
pub type Objective<'a> = dyn Fn(Tensor<2>, &Aim<'_>) -> Tensor<1> + 'a;

/// Start points from clean pictures, their keys, and the number of the restart.
pub type Opening<'a> = dyn Fn(&Tensor<4>, &[String], usize) -> Tensor<4> + 'a;

/// An iterative attack, ready to run.
pub struct Descent<'a> {
    /// Norm of the budget.
    pub norm: Norm,
    /// Radius of the budget in pixel units; 0 gives back the clean pictures.
    pub eps: f32,
    /// Steps in a restart; `steps + 1` points are evaluated.
    pub steps: usize,
    /// Independent descents; broken samples leave after each unless `keep` is not `Best`.
    pub restarts: usize,
    /// Gradients averaged at each point, each over its own draw of a random victim.
    pub draws: usize,
    /// Which point is handed back.
    pub keep: Keep,
    /// Whether a sample stops once it is clearly broken; only with [`Keep::Best`].
    pub early_exit: bool,
    /// Attack misclassified samples, too.
    pub everyone: bool,
    /// The class to reach, if any.
    pub target: Option<Target>,
    /// What is raised.
    pub objective: &'a Objective<'a>,
    /// Where it begins.
    pub opening: &'a Opening<'a>,
    /// A fresh step rule for each restart.
    pub rule: &'a dyn Fn() -> Box<dyn Rule>,
}

/// Labels and targets of the whole batch.
struct Aims {
    labels: Vec<usize>,
    targets: Option<Vec<usize>>,
}

impl Aims {
    fn of(&self, samples: &[usize]) -> Self {
        let pick = |all: &[usize]| samples.iter().map(|&i| all[i]).collect();
        Self { labels: pick(&self.labels), targets: self.targets.as_deref().map(pick) }
    }

    fn view(&self) -> Aim<'_> {
        Aim { labels: &self.labels, targets: self.targets.as_deref() }
    }
}

impl Descent<'_> {
    /// Attacks the batch. See [`Attack::run`](crate::Attack::run) for the contract.
    pub fn run(&self, victim: &dyn Victim, batch: &Batch<'_>, seed: u64) -> Attacked {
        let count = batch.pixels.dims()[0];
        assert_eq!(batch.labels.len(), count, "one label a picture");
        assert_eq!(batch.keys.len(), count, "one key a picture");
        let mut ledger = Ledger::new(count, self.keep);
        let clean = predict(victim, &batch.pixels, batch.keys, &mut ledger);
        let classes = victim.classes();
        let row = |i: usize| &clean[i * classes..(i + 1) * classes];
        let correct: Vec<bool> =
            (0..count).map(|i| argmax(row(i)) == Some(batch.labels[i])).collect();
        let choose = |goal: Target| {
            let choose = |i: usize| goal.choose(row(i), batch.labels[i], &batch.keys[i], seed);
            (0..count).map(choose).collect::<Vec<usize>>()
        };
        let aims = Aims { labels: batch.labels.to_vec(), targets: self.target.map(choose) };
        let pointless =
            |i: usize| aims.targets.as_ref().is_some_and(|targets| targets[i] == aims.labels[i]);
        let open: Vec<usize> =
            (0..count).filter(|&i| (self.everyone || correct[i]) && !pointless(i)).collect();
        if self.eps > 0.0 {
            self.restarts(victim, batch, &aims, open, &mut ledger);
        }
        let mut attacked = self.judge(victim, batch, &aims, &correct, ledger);
        let wasted = (0..count).filter(|&i| pointless(i)).count();
        if wasted > 0 {
            attacked.flags.push(Flag::TargetIsLabel(wasted));
        }
        attacked
    }

    fn restarts(
        &self,
        victim: &dyn Victim,
        batch: &Batch<'_>,
        aims: &Aims,
        mut open: Vec<usize>,
        ledger: &mut Ledger,
    ) {
        for restart in 0..self.restarts {
            if open.is_empty() {
                return;
            }
            self.descend(victim, batch, aims, &open, restart, ledger);
            if self.keep == Keep::Best {
                open.retain(|&sample| !ledger.is_safe(sample));
            }
        }
    }

    /// One restart over the samples that are still open.
    fn descend(
        &self,
        victim: &dyn Victim,
        batch: &Batch<'_>,
        aims: &Aims,
        open: &[usize],
        restart: usize,
        ledger: &mut Ledger,
    ) {
        let mut samples = open.to_vec();
        let mut clean = select(&batch.pixels, &samples);
        let mut keys = keys_of(batch, &samples);
        let mut aim = aims.of(&samples);
        let mut point = (self.opening)(&clean, &keys, restart);
        let mut rule = (self.rule)();
        for step in 0..=self.steps {
            let is_last = step == self.steps;
            let count = restart * (self.steps + 1) + step;
            let probe = self.probe(victim, &point, &keys, &aim.view(), count, is_last, ledger);
            ledger.book(&Evaluation {
                samples: &samples,
                points: &point,
                logits: &probe.logits,
                loss: &probe.loss,
                aim: aim.view(),
                count,
                is_last,
            });
            let Some(mut gradient) = probe.gradient else { return };
            let mut loss = probe.loss;
            if self.early_exit && self.keep == Keep::Best {
                let rows: Vec<usize> =
                    (0..samples.len()).filter(|&i| !ledger.is_safe(samples[i])).collect();
                if rows.is_empty() {
                    return;
                }
                if rows.len() < samples.len() {
                    samples = rows.iter().map(|&i| samples[i]).collect();
                    [clean, point, gradient] =
                        [clean, point, gradient].map(|tensor| select(&tensor, &rows));
                    loss = rows.iter().map(|&i| loss[i]).collect();
                    (keys, aim) = (keys_of(batch, &samples), aims.of(&samples));
                    if step > 0 {
                        rule.retain(&rows);
                    }
                }
            }
            let view = View { clean: &clean, point: &point, gradient: &gradient, loss: &loss };
            point = rule.step(&view);
        }
    }

    /// Logits, losses and (unless it is the last point) the gradient.
    ///
    /// With several draws, losses and gradients are means over them and the logits are those of
    /// the last. Draw 0 of a random victim is left for judging.
    #[allow(clippy::too_many_arguments, reason = "what a forward pass takes, and where to book it")]
    fn probe(
        &self,
        victim: &dyn Victim,
        point: &Tensor<4>,
        keys: &[String],
        aim: &Aim<'_>,
        count: usize,
        is_last: bool,
        ledger: &mut Ledger,
    ) -> Probe {
        let mut sum = Probe { logits: Vec::new(), loss: vec![0.0; keys.len()], gradient: None };
        for repeat in 0..self.draws {
            let draw = (1 + count * self.draws + repeat) as u64;
            let pixels = match is_last {
                true => point.clone(),
                false => point.clone().autodiff().require_grad(),
            };
            let logits = victim.logits(Query { pixels: pixels.clone(), keys, draw });
            ledger.forwards += keys.len();
            sum.logits = host(logits.clone());
            let loss = (self.objective)(logits, aim);
            let weight = 1.0 / self.draws as f32;
            sum.loss.iter_mut().zip(host(loss.clone())).for_each(|(s, l)| *s += l * weight);
            if !is_last {
                ledger.backwards += keys.len();
                let gradient = finite(gradient_of(loss, &pixels), ledger) * weight;
                sum.gradient = Some(match sum.gradient {
                    Some(before) => before + gradient,
                    None => gradient,
                });
            }
        }
        sum
    }

    /// Settles the pictures, puts them to the victim once more and fills in the verdict.
    fn judge(
        &self,
        victim: &dyn Victim,
        batch: &Batch<'_>,
        aims: &Aims,
        correct: &[bool],
        mut ledger: Ledger,
    ) -> Attacked {
        let pixels = match self.eps > 0.0 {
            true => self.norm.settle(&batch.pixels, ledger.pictures(&batch.pixels), self.eps),
            false => batch.pixels.clone(),
        };
        let logits = predict(victim, &pixels, batch.keys, &mut ledger);
        let classes = victim.classes();
        let aim = aims.view();
        let verdict = |i: usize| {
            let class = argmax(&logits[i * classes..(i + 1) * classes]);
            class.is_some_and(|class| aim.is_met(i, class))
                && aim.targets.is_none_or(|targets| targets[i] != aim.labels[i])
        };
        let success: Vec<bool> = (0..correct.len()).map(verdict).collect();
        let mut flags = ledger.flags();
        let lost = |i: &usize| self.keep == Keep::Best && ledger.first_success[*i].is_some();
        let unconfirmed = (0..correct.len()).filter(lost).filter(|&i| !success[i]).count();
        if unconfirmed > 0 {
            flags.push(Flag::Unconfirmed(unconfirmed));
        }
        let sizes = self.norm.measure(pixels.clone() - batch.pixels.clone());
        Attacked {
            pixels,
            success,
            correct: correct.to_vec(),
            norm: sizes.into_iter().map(|size| size as f32).collect(),
            first_success: ledger.first_success,
            loss: ledger.loss,
            forwards: ledger.forwards,
            backwards: ledger.backwards,
            zero_gradients: ledger.zero_gradients as f32 / ledger.backwards.max(1) as f32,
            flags,
        }
    }
}

struct Probe {
    logits: Vec<f32>,
    loss: Vec<f32>,
    gradient: Option<Tensor<4>>,
}

/// Logits of all pictures in draw 0, row by row.
fn predict(
    victim: &dyn Victim,
    pixels: &Tensor<4>,
    keys: &[String],
    ledger: &mut Ledger,
) -> Vec<f32> {
    ledger.forwards += keys.len();
    host(victim.logits(Query { pixels: pixels.clone(), keys, draw: 0 }))
}

/// Gradient of the summed loss; 0 where the loss does not depend on the pixels.
fn gradient_of(loss: Tensor<1>, pixels: &Tensor<4>) -> Tensor<4> {
    let gradient = match loss.is_tracked() {
        true => pixels.grad_remove(&mut loss.sum().backward()),
        false => None,
    };
    gradient.unwrap_or_else(|| Tensor::zeros(pixels.shape(), &pixels.device()))
}

/// The gradient with NaN and infinite entries set to 0; counts those pictures and the zero ones.
fn finite(gradient: Tensor<4>, ledger: &mut Ledger) -> Tensor<4> {
    // Any NaN or infinite entry shows in the sum; a largest entry may pass over NaN.
    let total = |gradient: &Tensor<4>| host(Norm::L1.size(gradient.clone()));
    let broken = total(&gradient).iter().filter(|sum| !sum.is_finite()).count();
    let gradient = match broken {
        0 => gradient,
        _ => {
            let bad = gradient.clone().is_finite().bool_not();
            ledger.broken_gradients += broken;
            gradient.mask_fill(bad, 0.0)
        }
    };
    ledger.zero_gradients +=
        host(Norm::Linf.size(gradient.clone())).iter().filter(|&&size| size == 0.0).count();
    gradient
}

fn select(batch: &Tensor<4>, rows: &[usize]) -> Tensor<4> {
    match rows.len() == batch.dims()[0] {
        true => batch.clone(),
        false => batch.clone().select(0, indices(rows, &batch.device())),
    }
}

fn keys_of(batch: &Batch<'_>, samples: &[usize]) -> Vec<String> {
    samples.iter().map(|&i| batch.keys[i].clone()).collect()
}
