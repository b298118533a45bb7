//! CLIP's contrastive objective.

use crate::objective::{Objective, ObjectiveInfo, Step};
use burn::tensor::Tensor;
use clipguard_model::{ModelError, loss::clip_loss, normalise};

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

impl Objective for ClipObjective {
    fn loss(&self, step: &Step<'_>) -> Result<Tensor<1>, ModelError> {
        let clip = step.clip()?;
        let pixels = step.batch.pixels(&clip);
        let x = normalise(clip.encode_image_in(pixels, step.pass));
        let y = normalise(clip.encode_text(&step.batch.tokens)?);
        Ok(clip_loss(x, y, clip.logit_scale().exp()))
    }
}
