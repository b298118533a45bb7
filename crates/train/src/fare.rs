//! FARE: embeddings of attacked pictures stay where those of clean ones were.

use crate::{
    Beginning, Objective, ObjectiveInfo, Step, TrainError,
    adversarial::{attacked, is_tuned, outer},
    batches::Needs,
    recipe::Adversarial,
};
use burn::tensor::Tensor;
use clipguard_model::{Clip, ModelError};

/// `max over delta of |e(x + delta) - e0(x)|^2`, summed over dimensions, not normalised, averaged
/// over the batch; `e0` is the frozen original (Schlarmann et al. 2024). Only the
/// picture tower is trained; neither labels nor captions are needed.
pub struct Fare {
    original: Clip,
    digest: String,
    settings: Adversarial,
}

impl Fare {
    /// Its entry in the catalogue.
    pub const INFO: ObjectiveInfo = ObjectiveInfo {
        name: "fare",
        summary: "adversarial fine-tuning: attacked embeddings stay at the original's clean ones",
        source: "Schlarmann et al. 2024, Robust CLIP",
        complete: |recipe| {
            recipe.adversarial.get_or_insert_default();
        },
        build: |beginning| Ok(Box::new(Self::new(beginning)?)),
    };

    fn new(beginning: &Beginning<'_>) -> Result<Self, TrainError> {
        let start = (beginning.start)()?;
        Ok(Self {
            original: Clip::new(
                &start.architecture,
                &start.preprocess,
                &start.weights,
                beginning.device,
            )?,
            digest: start.digest,
            settings: beginning.recipe.adversarial.unwrap_or_default(),
        })
    }
}

/// Squared distance of each row, `[batch]`.
fn distances(a: Tensor<2>, b: Tensor<2>) -> Tensor<1> {
    (a - b).square().sum_dim(1).flatten(0, 1)
}

impl Objective for Fare {
    fn loss(&self, step: &Step<'_>) -> Result<Tensor<1>, ModelError> {
        let now = step.constant_clip()?;
        let clean = step.batch.pixels(&now);
        let original = self.original.encode_image(clean.clone());
        let inner = |e: Tensor<2>| distances(e, original.clone()).sum();
        let attacked = attacked(step, &now, &clean, &self.settings, inner);
        outer(
            step,
            &self.settings,
            [clean, attacked],
            |own| distances(own, original.clone()).mean(),
            |e, trades| distances(e, trades.unwrap_or_else(|| original.clone())).mean(),
        )
    }

    fn trains(&self, name: &str) -> bool {
        is_tuned(name)
    }

    fn needs(&self) -> Needs {
        Needs::Picture
    }

    fn keeps(&self) -> Option<&str> {
        Some(&self.digest)
    }
}
