//! The one descent: start, loss, step rule and projection are its parts, and this is the rest.
//!
//! An iterative attack fills in a [`Descent`] and runs it. What it shares with attacks of another
//! shape (whom to attack, what to keep, how to count and how to judge) is in the trial.

use burn::tensor::Tensor;
use clipguard_model::victim::{Answer, Victim};
use serde::{Deserialize, Serialize};

use crate::{
    Batch,
    ledger::Seen,
    loss::{Aim, Target},
    outcome::{Attacked, Flag},
    tensors::host,
    trial::{Group, Terms, Trial, select},
};

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

    /// Forgets all samples but those in `rows` (positions in the last view, or before the first one
    /// among the samples it was made for; rising).
    fn retain(&mut self, rows: &[usize]);
}

/// Loss of each row from logits `[rows, classes]`, to be maximised; `[rows]`.
pub type Objective<'a> = dyn Fn(Tensor<2>, &Aim<'_>) -> Tensor<1> + 'a;

/// Start points from clean pictures, their keys, and the number of the restart.
pub type Opening<'a> = dyn Fn(&Tensor<4>, &[String], usize) -> Tensor<4> + 'a;

/// What the gradient is taken through in place of the point itself: pictures, their keys, and the
/// number of the draw. Differentiable.
pub type Through<'a> = dyn Fn(Tensor<4>, &[String], u64) -> Tensor<4> + 'a;

/// A step rule from the keys of its samples and the number of the restart.
pub type MakeRule<'a> = dyn Fn(&[String], usize) -> Box<dyn Rule> + 'a;

/// What counts at a point where a random victim was asked several times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bookkeeping {
    /// The mean of its losses and logits.
    #[default]
    Mean,
    /// Its last answer, as in AutoAttack: a lucky draw is taken for a success.
    Last,
}

/// An iterative attack, ready to run.
pub struct Descent<'a> {
    /// Budget, goal and which point is handed back.
    pub terms: Terms,
    /// Steps in a restart; `steps + 1` points are evaluated.
    pub steps: usize,
    /// Independent descents; broken samples leave after each where only successes are kept.
    pub restarts: usize,
    /// Points at the beginning of each restart that may lie outside the budget and do not count.
    pub scouting: usize,
    /// Classes to steer towards in turn, with all restarts for each, while every error counts;
    /// empty for none. Without effect if there is a target.
    pub towards: &'a [Target],
    /// Gradients averaged at each point, each over its own draw of a random victim.
    pub draws: usize,
    /// What counts of several draws.
    pub bookkeeping: Bookkeeping,
    /// Whether a sample stops once it is clearly broken; only where successes are kept.
    pub early_exit: bool,
    /// Whether samples without a gradient at their first start point are flagged.
    pub flag_zero_starts: bool,
    /// What is raised.
    pub objective: &'a Objective<'a>,
    /// A random change of the picture before each gradient, if any; what is booked and judged is the
    /// point itself, at the cost of a forward pass more.
    pub through: Option<&'a Through<'a>>,
    /// Where it begins.
    pub opening: &'a Opening<'a>,
    /// A fresh step rule for each restart, from the keys of its samples and its number.
    pub rule: &'a MakeRule<'a>,
}

impl Descent<'_> {
    /// Attacks the batch. See [`Attack::run`](crate::Attack::run) for the contract.
    pub fn run(&self, victim: &dyn Victim, batch: &Batch<'_>, seed: u64) -> Attacked {
        let mut trial = Trial::begin(self.terms, victim, batch, seed);
        for restart in 0..self.towards.len().max(1) * self.restarts {
            let open = trial.open();
            if open.is_empty() {
                break;
            }
            let towards = self.towards.get(restart / self.restarts.max(1)).copied();
            let group = trial.group(open, towards);
            self.descend(&mut trial, group, restart);
        }
        let stuck = trial.ledger.zero_starts;
        let mut attacked = trial.close();
        if stuck > 0 && self.flag_zero_starts {
            attacked.flags.push(Flag::ZeroStart(stuck));
        }
        attacked
    }

    /// One restart over the samples that are still open.
    fn descend(&self, trial: &mut Trial<'_>, mut group: Group, restart: usize) {
        let mut point = (self.opening)(&group.clean, &group.keys, restart);
        let mut rule = (self.rule)(&group.keys, restart);
        for step in 0..=self.steps {
            let is_last = step == self.steps;
            let zeros = trial.ledger.zero_gradients;
            let Probe { logits, mut loss, gradient } =
                self.probe(trial, &group, &point, restart * (self.steps + 1) + step, is_last);
            if restart == 0 && step == 0 {
                trial.ledger.zero_starts =
                    (trial.ledger.zero_gradients - zeros).div_ceil(self.draws);
            }
            let counts = step >= self.scouting;
            let points = &point;
            trial.book(&group, &Seen { points, logits: &logits, loss: &loss, counts, is_last });
            let Some(mut gradient) = gradient else { return };
            if self.early_exit && self.terms.keep.is_by_success() {
                let rows = trial.open_rows(&group);
                if rows.is_empty() {
                    return;
                }
                if rows.len() < group.len() {
                    group.retain(&rows);
                    [point, gradient] = [point, gradient].map(|tensor| select(&tensor, &rows));
                    loss = rows.iter().map(|&i| loss[i]).collect();
                    rule.retain(&rows);
                }
            }
            let view =
                View { clean: &group.clean, point: &point, gradient: &gradient, loss: &loss };
            point = rule.step(&view);
        }
    }

    /// Logits, losses and (unless it is the last point) the gradient; `count` points of these
    /// samples were evaluated before.
    fn probe(
        &self,
        trial: &mut Trial<'_>,
        group: &Group,
        point: &Tensor<4>,
        count: usize,
        is_last: bool,
    ) -> Probe {
        let mut sum = Probe { logits: Vec::new(), loss: Vec::new(), gradient: None };
        for repeat in 0..self.draws {
            // Draw 0 of a random victim is left for judging.
            let draw = (1 + count * self.draws + repeat) as u64;
            let tracked = || point.clone().autodiff().require_grad();
            let pixels = match self.through {
                None if !is_last => tracked(),
                _ => point.clone(),
            };
            let answer = trial.answer(group, pixels.clone(), draw);
            let mut loss = self.loss(&answer, group);
            self.add(&mut sum.logits, host(answer.logits));
            self.add(&mut sum.loss, host(loss.clone()));
            if !is_last {
                let pixels = match self.through {
                    None => pixels,
                    Some(through) => {
                        let pixels = tracked();
                        let seen = through(pixels.clone(), &group.keys, draw);
                        loss = self.loss(&trial.answer(group, seen, draw), group);
                        pixels
                    }
                };
                let gradient = trial.gradient(loss, &pixels);
                let gradient =
                    if self.draws == 1 { gradient } else { gradient / self.draws as f32 };
                sum.gradient = Some(match sum.gradient {
                    Some(before) => before + gradient,
                    None => gradient,
                });
            }
        }
        sum
    }

    /// What is raised: the objective, and what the victim adds to it.
    fn loss(&self, answer: &Answer, group: &Group) -> Tensor<1> {
        let loss = (self.objective)(answer.logits.clone(), &group.aim());
        match &answer.bonus {
            Some(bonus) => loss + bonus.clone(),
            None => loss,
        }
    }

    /// Counts the numbers of one draw.
    fn add(&self, sum: &mut Vec<f32>, numbers: Vec<f32>) {
        match self.bookkeeping {
            _ if self.draws == 1 => *sum = numbers,
            Bookkeeping::Last => *sum = numbers,
            Bookkeeping::Mean => {
                sum.resize(numbers.len(), 0.0);
                let share = 1.0 / self.draws as f32;
                sum.iter_mut().zip(numbers).for_each(|(sum, v)| *sum += v * share);
            }
        }
    }
}

struct Probe {
    logits: Vec<f32>,
    loss: Vec<f32>,
    gradient: Option<Tensor<4>>,
}
