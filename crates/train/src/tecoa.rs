//! TeCoA: text-guided adversarial fine-tuning.

use crate::{
    Beginning, Objective, ObjectiveInfo, Step, TrainError,
    adversarial::{attacked, is_tuned, outer},
    batches::Needs,
    names::Names,
    recipe::Adversarial,
};
use burn::tensor::Tensor;
use clipguard_model::ModelError;

/// `max over delta of CE(s z(x + delta) T^T, y)`: the cross-entropy of the zero-shot classifier
/// on attacked pictures (Mao et al. 2023). The texts, and so the head `T`, are frozen;
/// only the picture tower is trained. The scale `s` is the model's own, 100 for OpenAI's.
pub struct Tecoa {
    names: Names,
    settings: Adversarial,
}

impl Tecoa {
    /// Its entry in the catalogue.
    pub const INFO: ObjectiveInfo = ObjectiveInfo {
        name: "tecoa",
        summary: "adversarial fine-tuning: attacked pictures of a class stay with its name",
        source: "Mao et al. 2023, Understanding Zero-shot Adversarial Robustness",
        complete: |recipe| {
            recipe.adversarial.get_or_insert_default();
        },
        build: |beginning| Ok(Box::new(Self::new(beginning)?)),
    };

    fn new(beginning: &Beginning<'_>) -> Result<Self, TrainError> {
        let settings = beginning.recipe.adversarial.unwrap_or_default();
        if settings.trades {
            return Err(beginning.refuse(
                "adversarial.trades: `tecoa` compares with class names, not with an embedding; \
                 the option belongs to `fare`",
            ));
        }
        Ok(Self { names: Names::new(beginning, Self::INFO.name)?, settings })
    }
}

impl Objective for Tecoa {
    fn loss(&self, step: &Step<'_>) -> Result<Tensor<1>, ModelError> {
        let now = step.constant_clip()?;
        let clean = step.batch.pixels(&now);
        let labels = &step.batch.labels;
        let inner = |e: Tensor<2>| self.names.losses(e, labels).sum();
        let attacked = attacked(step, &now, &clean, &self.settings, inner);
        outer(
            step,
            &self.settings,
            [clean, attacked],
            |own| self.names.losses(own, labels).mean(),
            |e, _| self.names.losses(e, labels).mean(),
        )
    }

    fn trains(&self, name: &str) -> bool {
        is_tuned(name)
    }

    fn needs(&self) -> Needs {
        Needs::Label
    }

    fn keeps(&self) -> Option<&str> {
        Some(&self.names.digest)
    }
}
