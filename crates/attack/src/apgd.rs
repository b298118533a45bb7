//! Auto-PGD: descent without a step length to tune (Croce & Hein 2020; for L1 Croce & Hein 2021).

mod adaptive;
mod sparse;

use burn::tensor::Tensor;
use clipguard_data::{
    Stream, parameters,
    spelling::{Parameters, Spelling, SpellingError},
};
use clipguard_model::victim::Victim;
use serde::{Deserialize, Serialize};

use crate::{
    Attack, Attacked, Batch, Flag, Keep, Loss, Norm, Scale, Start, Target, Terms,
    descent::{Bookkeeping, Descent, Opening, Rule},
};
pub use adaptive::Adaptive;
pub use sparse::{Sparse, Stage};

/// Where the publication and the program of its authors differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// As the auto-attack program: the first loss is compared with 0, and exactly `rho * k` rises
    /// count as too few.
    #[default]
    Autoattack,
    /// As printed: the first loss is compared with that of the start, and `rho * k` rises do.
    Paper,
}

parameters! {
    /// Momentum steps (L1: sparse steps) whose length adapts to the progress made.
    pub struct Apgd {
        /// Norm of the budget: linf, l2 or l1.
        norm: Norm = Norm::Linf,
        /// Radius of the budget in pixel units of [0, 1], such as 8/255; 0 changes nothing.
        eps: f32 = 8.0 / 255.0,
        /// Steps in a restart, at least 1.
        steps: usize = 100,
        /// Independent descents (for each target class), at least 1.
        restarts: usize = 1,
        /// What is raised: ce, margin or dlr.
        loss: Loss = Loss::Ce,
        /// Divides the logits of a cross-entropy: model (by nothing), auto or a positive number.
        scale: Scale = Scale::Model,
        /// Class to reach: none, next, likely, likely-2, least, random or the number of a class.
        target: Option<Target> = None,
        /// Wrong classes to steer towards in turn while every error counts, the likeliest first
        /// (APGD-T: 9); 0: none. Not together with a target.
        target_classes: usize = 0,
        /// Details of the rule: autoattack (as the program) or paper (as printed).
        variant: Variant = Variant::Autoattack,
        /// Share of the steps that have to raise the loss, in [0, 1].
        rho: f32 = 0.75,
        /// Only for l1: begin with radii of 3 and 2 eps, each for 30 percent of the steps.
        largereps: bool = false,
        /// Point handed back: best, found, last or loss.
        keep: Keep = Keep::Best,
        /// Whether a sample stops once it is clearly broken (only with keep=best or found). Switch
        /// it off for random victims, which may have erred by chance.
        early_exit: bool = true,
        /// Gradients averaged at each point, for random victims; at least 1.
        eot: usize = 1,
        /// What counts of several draws: mean, or last as in AutoAttack.
        bookkeeping: Bookkeeping = Bookkeeping::Mean,
        /// Whether misclassified samples are attacked, too.
        everyone: bool = false,
    }
}

impl Apgd {
    /// The attack a spelling such as `apgd:eps=4/255,loss=dlr` asks for.
    ///
    /// # Errors
    /// Unknown settings and values out of range.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        let apgd: Self = spelling.read()?;
        let steered = apgd.target_classes > 0;
        spelling.demand([
            ("eps", apgd.eps >= 0.0, "a radius is not negative"),
            ("steps", apgd.steps > 0, "at least one step"),
            ("restarts", apgd.restarts > 0, "at least one"),
            ("eot", apgd.eot > 0, "at least one"),
            ("rho", (0.0..=1.0).contains(&apgd.rho), "a share lies in [0, 1]"),
            ("largereps", !apgd.largereps || apgd.norm == Norm::L1, "only for norm=l1"),
            ("target-classes", !steered || apgd.target.is_none(), "0 where there is a target"),
        ])?;
        Ok(apgd)
    }

    /// Radii and steps of a restart.
    pub fn stages(&self) -> Vec<Stage> {
        let Self { eps, steps, .. } = *self;
        if !self.largereps || self.norm != Norm::L1 {
            return vec![Stage { eps, steps }];
        }
        let part = (0.3 * steps as f64).ceil() as usize;
        let radii = [3.0 * eps, 2.0 * eps, eps];
        let counts = [part, part, steps.saturating_sub(2 * part)];
        radii.into_iter().zip(counts).map(|(eps, steps)| Stage { eps, steps }).collect()
    }

    /// The step rule, fresh for one restart.
    pub fn rule(&self) -> Box<dyn Rule> {
        match self.norm {
            Norm::L1 => Box::new(Sparse::new(self.stages())),
            norm => Box::new(Adaptive::new(norm, self.eps, self.steps, self.variant, self.rho)),
        }
    }

    /// [`Attack::run`] from start points and with a step rule of the caller's choice.
    pub fn run_with(
        &self,
        opening: &Opening<'_>,
        rule: &dyn Fn() -> Box<dyn Rule>,
        victim: &dyn Victim,
        batch: &Batch<'_>,
        seed: u64,
    ) -> Attacked {
        let Self { norm, eps, keep, everyone, target, .. } = *self;
        let classes = victim.classes();
        let wanted = if target.is_some() { 0 } else { self.target_classes };
        let tried = wanted.min(classes.saturating_sub(1));
        let towards: Vec<Target> = (1..=tried).map(Target::Ranked).collect();
        let loss = self.loss.possible(classes, target.is_some() || tried > 0);
        let scale = if loss == Loss::Ce { self.scale } else { Scale::Model };
        let stages = self.stages();
        let points: usize = stages.iter().map(|stage| stage.steps + 1).sum();
        let descent = Descent {
            terms: Terms { everyone, ..Terms::ball(norm, eps, keep, target) },
            steps: points - 1,
            restarts: self.restarts,
            scouting: points - 1 - stages.last().map_or(0, |stage| stage.steps),
            towards: &towards,
            draws: self.eot.max(1),
            bookkeeping: self.bookkeeping,
            early_exit: self.early_exit,
            flag_zero_starts: loss == Loss::Dlr,
            objective: &move |logits, aim| loss.rows(scale.apply(logits), aim),
            through: None,
            opening,
            rule: &|_, _| rule(),
        };
        let mut attacked = descent.run(victim, batch, seed);
        let mut note = |holds: bool, flag| {
            if holds {
                attacked.flags.push(flag);
            }
        };
        note(loss != self.loss, Flag::MarginInstead { classes });
        note(tried < wanted, Flag::FewerTargets { wanted, possible: tried });
        attacked
    }
}

impl Attack for Apgd {
    fn run(&self, victim: &dyn Victim, batch: &Batch<'_>, seed: u64) -> Attacked {
        let radius = self.stages()[0].eps;
        let opening = |clean: &Tensor<4>, keys: &[String], restart: usize| {
            let purpose = format!("attack-start/apgd/{restart}");
            let mut streams: Vec<Stream> =
                keys.iter().map(|key| Stream::keyed(seed, &purpose, key)).collect();
            Start::Sphere.points(self.norm, clean, radius, &mut streams)
        };
        self.run_with(&opening, &|| self.rule(), victim, batch, seed)
    }

    fn spelling(&self) -> Spelling {
        self.spelled("apgd")
    }
}
