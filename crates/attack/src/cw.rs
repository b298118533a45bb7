//! The L2 attack of Carlini and Wagner (2017): a small change and a wrong answer, weighed against
//! each other, with a search for the weight.

use burn::tensor::Tensor;
use clipguard_data::{
    parameters,
    spelling::{Parameters, Spelling, SpellingError},
};
use clipguard_model::victim::Victim;

use crate::{
    Attack, Attacked, Batch, Keep, Loss, Norm, Target, Terms,
    adam::Adam,
    nearest::{Hunt, Row, rows as rows_of},
    tensors::{batch_of, column, host, retain_rows},
    trial::{Group, Trial, select},
};

/// A loss has to fall to this share of what it was a tenth of the steps before.
const PROGRESS: f32 = 0.9999;

/// The largest weight that is tried.
const MOST: f32 = 1e10;

/// Pictures are drawn this much away from 0 and 1, where the change of variable is infinite.
const INSIDE: f32 = 0.999_999;

parameters! {
    /// `min |d|^2 + c max(z_y - max other + kappa, 0)` by Adam over `x + d = (1 + tanh(w)) / 2`; the
    /// weight `c` is raised tenfold until a picture errs, then the interval is halved. What lies
    /// within the radius counts.
    pub struct Cw {
        /// Norm that is made small: only l2.
        norm: Norm = Norm::L2,
        /// Radius of the budget in pixel units of [0, 1]; 0 changes nothing.
        eps: f32 = 0.5,
        /// Steps for each weight, at least 1.
        steps: usize = 1000,
        /// Weights that are tried, at least 1.
        searches: usize = 9,
        /// Step length of Adam in the space of w.
        lr: f32 = 0.01,
        /// The first weight.
        c: f32 = 1e-3,
        /// By how much the logit of a wrong class has to lead, at least 0.
        kappa: f32 = 0.0,
        /// Class to reach: none, next, likely, likely-2, least, random or the number of a class.
        target: Option<Target> = None,
        /// Whether the steps for a weight end where the loss no longer falls, looked at after every
        /// tenth of them.
        abort_early: bool = true,
        /// Whether a sample stops at the first error inside the budget, not at the smallest.
        early_exit: bool = false,
    }
}

/// Which rows make no progress, from their losses now and at the last look.
pub type Stall<'a> = dyn Fn(&[f32], &[f32]) -> Vec<bool> + 'a;

/// The search for the weight of one row.
#[derive(Clone, Copy)]
struct Weight {
    c: f32,
    low: f32,
    high: f32,
}

impl Weight {
    /// The next weight to try, after this one led to an error or not.
    fn next(&mut self, has_erred: bool) {
        match has_erred {
            true => self.high = self.c,
            false => self.low = self.c,
        }
        self.c = match self.high.is_finite() {
            true => 0.5 * (self.low + self.high),
            false => (self.c * 10.0).min(MOST),
        };
    }
}

/// The steps for one weight; all rows belong together.
struct Descent {
    group: Group,
    /// Places of the rows among all.
    places: Vec<usize>,
    /// The variable of each row.
    w: Tensor<4>,
    c: Tensor<4>,
    adam: Adam,
    /// Losses at the last look.
    before: Vec<f32>,
}

impl Descent {
    fn retain(&mut self, kept: &[usize]) {
        self.group.retain(kept);
        self.w = select(&self.w, kept);
        self.c = select(&self.c, kept);
        self.adam.retain(kept);
        retain_rows(&mut self.places, kept);
        retain_rows(&mut self.before, kept);
    }
}

impl Cw {
    /// The attack a spelling such as `cw:eps=1,steps=100` asks for.
    ///
    /// # Errors
    /// Unknown settings and values out of range.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        let cw: Self = spelling.read()?;
        spelling.demand([
            ("norm", cw.norm == Norm::L2, "this attack is made for l2 alone"),
            ("eps", cw.eps >= 0.0, "a radius is not negative"),
            ("steps", cw.steps > 0, "at least one step"),
            ("searches", cw.searches > 0, "at least one"),
            ("lr", cw.lr > 0.0, "a step length is positive"),
            ("c", cw.c > 0.0, "a weight is positive"),
            ("kappa", cw.kappa >= 0.0, "a lead is not negative"),
        ])?;
        Ok(cw)
    }

    /// [`Attack::run`] with a rule of the caller's choice for when the steps of a row end; the
    /// original programs let one sum over the batch decide, so that their results depend on it.
    pub fn run_with(
        &self,
        stall: &Stall<'_>,
        victim: &dyn Victim,
        batch: &Batch<'_>,
        seed: u64,
    ) -> Attacked {
        let Self { norm, eps, target, .. } = *self;
        let terms = Terms::ball(norm, eps, Keep::Best, target);
        let mut trial = Trial::begin(terms, victim, batch, seed);
        let open = trial.open();
        if open.is_empty() || victim.classes() < 2 {
            return trial.close();
        }
        let group = trial.group(open, None);
        let mut rows = rows_of(&group);
        let first = Weight { c: self.c, low: 0.0, high: f32::INFINITY };
        let mut weights = vec![first; rows.len()];
        for search in 0..self.searches {
            let erred = self.descend(&mut trial, &group, &mut rows, &weights, (search, stall));
            weights.iter_mut().zip(erred).for_each(|(weight, erred)| weight.next(erred));
        }
        let draw = (1 + self.searches * self.steps) as u64;
        self.hunt().shrink(&mut trial, group, &mut rows, draw);
        trial.close()
    }

    fn hunt(&self) -> Hunt {
        Hunt { lead: self.kappa, ..Hunt::new(self.norm, self.eps) }
    }

    /// The steps for one weight of each row; whether any of its points erred.
    fn descend(
        &self,
        trial: &mut Trial<'_>,
        all: &Group,
        rows: &mut [Row],
        weights: &[Weight],
        (search, stall): (usize, &Stall<'_>),
    ) -> Vec<bool> {
        let mut erred = vec![false; rows.len()];
        let device = all.clean.device();
        let mut run = Descent {
            group: all.clone(),
            places: (0..rows.len()).collect(),
            w: unbounded(rows, &all.clean),
            c: column(weights.iter().map(|weight| weight.c).collect(), &device),
            adam: Adam::new(self.lr),
            before: vec![f32::INFINITY; rows.len()],
        };
        let look_every = self.steps.div_ceil(10);
        for step in 0..self.steps {
            if self.early_exit {
                let open = trial.open_rows(&run.group);
                if open.is_empty() {
                    break;
                }
                run.retain(&open);
            }
            // Draw 0 of a random victim is left for judging.
            let draw = (1 + search * self.steps + step) as u64;
            let loss = self.step(trial, &mut run, rows, &mut erred, draw);
            if !self.abort_early || step % look_every != 0 {
                continue;
            }
            let stalled = stall(&loss, &run.before);
            run.before = loss;
            let going: Vec<usize> = (0..stalled.len()).filter(|&i| !stalled[i]).collect();
            if going.is_empty() {
                break;
            }
            run.retain(&going);
        }
        erred
    }

    /// One step of Adam; the losses before it.
    fn step(
        &self,
        trial: &mut Trial<'_>,
        run: &mut Descent,
        rows: &mut [Row],
        erred: &mut [bool],
        draw: u64,
    ) -> Vec<f32> {
        let group = &run.group;
        let w = run.w.clone().autodiff().require_grad();
        let pixels = bounded(w.clone());
        let logits = trial.logits(group, pixels.clone(), draw);
        let numbers = host(logits.clone());
        let margin = Loss::Margin.rows(logits, &group.aim());
        let missing = (-margin + self.kappa).clamp_min(0.0);
        let count = group.len();
        let delta: Tensor<2> = (pixels.clone() - group.clean.clone()).flatten(1, 3);
        let size: Tensor<1> = delta.square().sum_dim(1).reshape([count]);
        let loss = missing * run.c.clone().reshape([count]) + size;
        let losses = host(loss.clone());
        let gradient = trial.gradient(loss, &w);
        let points = pixels.inner();
        let found = self.take(trial, run, rows, &points, &numbers);
        for (&place, found) in run.places.iter().zip(found) {
            erred[place] |= found;
        }
        run.w = run.w.clone() - run.adam.step(gradient);
        losses
    }

    /// Books the points; whether each errs with the lead that is asked for.
    fn take(
        &self,
        trial: &mut Trial<'_>,
        run: &Descent,
        rows: &mut [Row],
        points: &Tensor<4>,
        logits: &[f32],
    ) -> Vec<bool> {
        let numbers = host(points.clone());
        let width = (numbers.len() / run.places.len().max(1)).max(1);
        let mut own: Vec<&mut Row> = rows
            .iter_mut()
            .enumerate()
            .filter(|(place, _)| run.places.binary_search(place).is_ok())
            .map(|(_, row)| row)
            .collect();
        for (row, point) in own.iter_mut().zip(numbers.chunks(width)) {
            row.point.copy_from_slice(point);
        }
        let hunt = self.hunt();
        let leads = hunt.take(trial, &run.group, &mut own, points, logits);
        leads.into_iter().map(|lead| lead.is_some_and(|lead| hunt.counts(lead))).collect()
    }
}

/// The variable whose tangent is the picture, drawn a little into the box.
fn unbounded(rows: &[Row], like: &Tensor<4>) -> Tensor<4> {
    let entry = |x: &f32| f64::from((2.0 * x - 1.0) * INSIDE).atanh() as f32;
    batch_of(rows.iter().flat_map(|row| row.clean.iter().map(entry)).collect(), like)
}

/// The picture of a variable.
fn bounded(w: Tensor<4>) -> Tensor<4> {
    w.tanh() * 0.5 + 0.5
}

impl Attack for Cw {
    fn run(&self, victim: &dyn Victim, batch: &Batch<'_>, seed: u64) -> Attacked {
        // A loss that is no number makes no progress either.
        let is_stuck = |(now, before): (&f32, &f32)| now.is_nan() || *now > PROGRESS * before;
        let stall = |now: &[f32], before: &[f32]| now.iter().zip(before).map(is_stuck).collect();
        self.run_with(&stall, victim, batch, seed)
    }

    fn spelling(&self) -> Spelling {
        self.spelled("cw")
    }
}
