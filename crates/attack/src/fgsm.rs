//! The fast gradient sign method (Goodfellow et al. 2015) and its L2 and L1 versions.

use clipguard_data::{
    parameters,
    spelling::{Parameters, Spelling, SpellingError},
};
use clipguard_model::victim::Victim;

use crate::{Attack, Attacked, Batch, Keep, Loss, Norm, Pgd, Scale, Start, Target};

parameters! {
    /// One step of length eps from the clean picture: `P(x + eps * steepest(gradient))`.
    pub struct Fgsm {
        /// Norm of the budget: linf, l2 or l1.
        norm: Norm = Norm::Linf,
        /// Radius of the budget in pixel units of [0, 1], such as 8/255; 0 changes nothing.
        eps: f32 = 8.0 / 255.0,
        /// What is raised: ce, margin or dlr.
        loss: Loss = Loss::Ce,
        /// Divides the logits of a cross-entropy: model (by nothing), auto or a positive number.
        scale: Scale = Scale::Model,
        /// Class to reach: none, next, likely, least, random or the number of a class.
        target: Option<Target> = None,
        /// Point handed back: best (the clean picture if the step fails), last or loss.
        keep: Keep = Keep::Best,
        /// Whether misclassified samples are attacked, too.
        everyone: bool = false,
    }
}

impl Fgsm {
    /// The attack a spelling such as `fgsm:eps=4/255` asks for.
    ///
    /// # Errors
    /// Unknown settings and values out of range.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        let fgsm: Self = spelling.read()?;
        match fgsm.eps >= 0.0 {
            true => Ok(fgsm),
            false => Err(spelling.refuse("eps", "a radius is not negative")),
        }
    }
}

impl Attack for Fgsm {
    fn run(&self, victim: &dyn Victim, batch: &Batch<'_>, seed: u64) -> Attacked {
        let one_step = Pgd {
            norm: self.norm,
            eps: self.eps,
            alpha: Some(self.eps),
            steps: 1,
            start: Start::None,
            loss: self.loss,
            scale: self.scale,
            target: self.target,
            keep: self.keep,
            everyone: self.everyone,
            ..Pgd::default()
        };
        one_step.run(victim, batch, seed)
    }

    fn spelling(&self) -> Spelling {
        self.spelled("fgsm")
    }
}
