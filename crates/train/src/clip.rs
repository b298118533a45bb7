//! CLIP's contrastive objective.

use crate::{
    contrast::{self, Contrast},
    objective::{Objective, ObjectiveInfo, Step},
};
use burn::tensor::Tensor;
use clipguard_model::{Clip, ModelError, loss::clip_loss};

/// Symmetric cross-entropy over the batch (Radford et al. 2021, figure 3).
#[derive(Clone, Copy, Debug, Default)]
pub struct ClipObjective;

impl ClipObjective {
    /// Its entry in the catalogue.
    pub const INFO: ObjectiveInfo = ObjectiveInfo {
        name: "clip",
        summary: "symmetric contrastive loss over the pairs of a batch",
        source: "Radford et al. 2021, Learning Transferable Visual Models",
        complete: |_| {},
        build: |_| Ok(Box::new(Self)),
    };
}

impl Contrast for ClipObjective {
    fn of_embeddings(
        &self,
        clip: &Clip,
        image: Tensor<2>,
        text: Tensor<2>,
    ) -> Result<Tensor<1>, ModelError> {
        Ok(clip_loss(image, text, clip.logit_scale().exp()))
    }
}

impl Objective for ClipObjective {
    fn loss(&self, step: &Step<'_>) -> Result<Tensor<1>, ModelError> {
        contrast::whole(self, step)
    }

    fn contrast(&self) -> Option<&dyn Contrast> {
        Some(self)
    }
}
