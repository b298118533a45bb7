//! Projected gradient descent (Madry et al. 2018) and its momentum variants.

use burn::tensor::Tensor;
use clipguard_data::{
    Stream, parameters,
    spelling::{Parameters, Spelling, SpellingError},
};
use clipguard_model::victim::Victim;
use serde::{Deserialize, Serialize};

use crate::{
    Attack, Attacked, Batch, Flag, Keep, Loss, Norm, Scale, Start, Target, Terms,
    descent::{Bookkeeping, Descent, Rule, View},
    norm::nonzero,
    tensors::indices,
    transfer,
};

/// How the gradients of earlier steps count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Momentum {
    /// Not at all.
    #[default]
    None,
    /// `m = decay m + g / mean|g|`, step along `m` (MI-FGSM, Dong et al. 2018).
    Mi,
    /// `v = sign(decay v + sign(g))`, step along `v` (training attack of FARE and TeCoA in
    /// Schlarmann et al. 2024).
    SignMomentum,
}

parameters! {
    /// `x <- P(x + alpha * steepest(gradient of the loss))`, from a random start.
    pub struct Pgd {
        /// Norm of the budget: linf, l2 or l1.
        norm: Norm = Norm::Linf,
        /// Radius of the budget in pixel units of [0, 1], such as 8/255; 0 changes nothing.
        eps: f32 = 8.0 / 255.0,
        /// Step length in pixel units; none: 2.5 * eps / steps.
        alpha: Option<f32> = None,
        /// Steps in a restart, at least 1.
        steps: usize = 10,
        /// Independent descents, at least 1.
        restarts: usize = 1,
        /// Random start: none, ball (uniform), radial (uniform radius) or sphere.
        start: Start = Start::Ball,
        /// none, mi or sign-momentum.
        momentum: Momentum = Momentum::None,
        /// Weight of earlier gradients in [0, inf); none: 1 for mi, 0.9 for sign-momentum.
        decay: Option<f32> = None,
        /// Probability with which a picture is shrunk by up to a tenth and padded at random before a
        /// gradient, in [0, 1], so that it transfers better (DI, Xie et al. 2019); 0: never.
        diversity: f32 = 0.0,
        /// Side of the window over which gradients are smoothed, odd, so that they transfer better
        /// (TI, Dong et al. 2019); 1: not at all.
        smoothing: usize = 1,
        /// What is raised: ce, margin or dlr.
        loss: Loss = Loss::Ce,
        /// Divides the logits of a cross-entropy: model (by nothing), auto or a positive number.
        scale: Scale = Scale::Model,
        /// Class to reach: none, next, likely, least, random or the number of a class.
        target: Option<Target> = None,
        /// Point handed back: best, found, last or loss.
        keep: Keep = Keep::Best,
        /// Whether a sample stops once it is clearly broken (only with keep=best or found). Switch it off
        /// for random victims, which may have erred by chance.
        early_exit: bool = true,
        /// Gradients averaged at each point, for random victims; at least 1.
        eot: usize = 1,
        /// Whether misclassified samples are attacked, too.
        everyone: bool = false,
    }
}

impl Pgd {
    /// The attack a spelling such as `pgd:eps=4/255,steps=40` asks for.
    ///
    /// # Errors
    /// Unknown settings and values out of range.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        let pgd: Self = spelling.read()?;
        let positive = |value: Option<f32>| value.is_none_or(|value| value > 0.0);
        spelling.demand([
            ("eps", pgd.eps >= 0.0, "a radius is not negative"),
            ("alpha", positive(pgd.alpha), "a step length is positive"),
            ("steps", pgd.steps > 0, "at least one step"),
            ("restarts", pgd.restarts > 0, "at least one"),
            ("decay", pgd.decay.is_none_or(|decay| decay >= 0.0), "a weight is not negative"),
            ("eot", pgd.eot > 0, "at least one"),
            ("diversity", (0.0..=1.0).contains(&pgd.diversity), "a probability lies in [0, 1]"),
            ("smoothing", pgd.smoothing % 2 == 1, "a window with a middle has an odd side"),
        ])?;
        Ok(pgd)
    }

    /// Step length in pixel units.
    pub fn step_length(&self) -> f32 {
        self.alpha.unwrap_or(2.5 * self.eps / self.steps.max(1) as f32)
    }

    /// The step rule, fresh for one restart.
    pub fn rule(&self) -> Steepest {
        let usual = if self.momentum == Momentum::SignMomentum { 0.9 } else { 1.0 };
        Steepest {
            norm: self.norm,
            eps: self.eps,
            alpha: self.step_length(),
            momentum: self.momentum,
            decay: self.decay.unwrap_or(usual),
            smoothing: self.smoothing,
            memory: None,
        }
    }
}

impl Attack for Pgd {
    fn run(&self, victim: &dyn Victim, batch: &Batch<'_>, seed: u64) -> Attacked {
        let classes = victim.classes();
        let loss = self.loss.possible(classes, self.target.is_some());
        let scale = if loss == Loss::Ce { self.scale } else { Scale::Model };
        let opening = |clean: &Tensor<4>, keys: &[String], restart: usize| {
            let purpose = format!("attack-start/pgd/{restart}");
            let mut streams: Vec<Stream> =
                keys.iter().map(|key| Stream::keyed(seed, &purpose, key)).collect();
            self.start.points(self.norm, clean, self.eps, &mut streams)
        };
        let through = |pixels: Tensor<4>, keys: &[String], draw: u64| {
            let purpose = format!("attack/pgd/diversity/{draw}");
            let mut streams: Vec<Stream> =
                keys.iter().map(|key| Stream::keyed(seed, &purpose, key)).collect();
            transfer::diverse(pixels, self.diversity, &mut streams)
        };
        let descent = Descent {
            terms: Terms {
                everyone: self.everyone,
                ..Terms::ball(self.norm, self.eps, self.keep, self.target)
            },
            steps: self.steps,
            restarts: self.restarts,
            scouting: 0,
            towards: &[],
            draws: self.eot.max(1),
            bookkeeping: Bookkeeping::Mean,
            early_exit: self.early_exit,
            flag_zero_starts: false,
            objective: &move |logits, aim| loss.rows(scale.apply(logits), aim),
            through: (self.diversity > 0.0).then_some(&through),
            opening: &opening,
            rule: &|_, _| Box::new(self.rule()),
        };
        let mut attacked = descent.run(victim, batch, seed);
        if loss != self.loss {
            attacked.flags.push(Flag::MarginInstead { classes });
        }
        attacked
    }

    fn spelling(&self) -> Spelling {
        self.spelled("pgd")
    }
}

/// A step of fixed length along the steepest direction, with or without momentum.
#[derive(Clone, Debug)]
pub struct Steepest {
    norm: Norm,
    eps: f32,
    alpha: f32,
    momentum: Momentum,
    decay: f32,
    smoothing: usize,
    memory: Option<Tensor<4>>,
}

impl Steepest {
    /// Earlier gradients, faded, plus the present one.
    fn accumulate(&self, present: Tensor<4>) -> Tensor<4> {
        match &self.memory {
            Some(memory) => memory.clone() * self.decay + present,
            None => present,
        }
    }

    fn direction(&mut self, gradient: &Tensor<4>) -> Tensor<4> {
        let gradient = transfer::smoothed(gradient.clone(), self.smoothing);
        match self.momentum {
            Momentum::None => self.norm.steepest(gradient),
            Momentum::Mi => {
                let entries = gradient.dims()[1..].iter().product::<usize>() as f32;
                let mean = Norm::L1.size(gradient.clone()) / entries;
                let memory = self.accumulate(gradient / nonzero(mean));
                self.memory = Some(memory.clone());
                self.norm.steepest(memory)
            }
            Momentum::SignMomentum => {
                let memory = self.accumulate(gradient.sign()).sign();
                self.memory = Some(memory.clone());
                self.norm.steepest(memory)
            }
        }
    }
}

impl Rule for Steepest {
    fn step(&mut self, view: &View<'_>) -> Tensor<4> {
        let moved = view.point.clone() + self.direction(view.gradient) * self.alpha;
        self.norm.confine(view.clean, moved, self.eps)
    }

    fn retain(&mut self, rows: &[usize]) {
        self.memory = self
            .memory
            .take()
            .map(|memory| memory.clone().select(0, indices(rows, &memory.device())));
    }
}
