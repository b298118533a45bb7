//! SigLIP's sigmoid objective.

use crate::{
    contrast::{self, Contrast},
    objective::{Objective, ObjectiveInfo, Step},
    recipe::SiglipRecipe,
};
use burn::tensor::Tensor;
use clipguard_model::{Architecture, Array, Clip, ModelError, Weights, loss::siglip_loss};

/// Every pair of a picture and a caption of the batch is a yes-or-no question:
/// `sum_ij softplus(-t_ij (s x_i.y_j + b)) / n` (Zhai et al. 2023, algorithm 1). The bias `b` is
/// trained beside the scale `s`, because almost all answers are no.
///
/// A model that has a bias keeps it and its scale. One that has none begins with those of the
/// recipe: a softmax says nothing about a bias, and its scale would saturate the sigmoid.
pub struct Siglip {
    begin: SiglipRecipe,
}

impl Siglip {
    /// Its entry in the catalogue.
    pub const INFO: ObjectiveInfo = ObjectiveInfo {
        name: "siglip",
        summary: "a sigmoid for every pair of picture and caption, with a learned bias",
        source: "Zhai et al. 2023, Sigmoid Loss for Language Image Pre-Training",
        complete: |recipe| {
            recipe.siglip.get_or_insert_default();
        },
        build: |beginning| {
            Ok(Box::new(Self { begin: beginning.recipe.siglip.unwrap_or_default() }))
        },
    };
}

impl Contrast for Siglip {
    fn of_embeddings(
        &self,
        clip: &Clip,
        image: Tensor<2>,
        text: Tensor<2>,
    ) -> Result<Tensor<1>, ModelError> {
        let bias = clip
            .logit_bias()
            .ok_or_else(|| ModelError::Missing { name: "logit_bias".to_owned() })?;
        Ok(siglip_loss(image, text, clip.logit_scale().exp(), bias))
    }
}

impl Objective for Siglip {
    fn loss(&self, step: &Step<'_>) -> Result<Tensor<1>, ModelError> {
        contrast::whole(self, step)
    }

    fn contrast(&self) -> Option<&dyn Contrast> {
        Some(self)
    }

    fn architecture(&self, clip: Architecture) -> Architecture {
        clip.with_logit_bias(self.begin.bias)
    }

    fn weights(&self, mut clip: Weights) -> Weights {
        let scalar = |value: f32| Array::new(Vec::new(), vec![value]);
        if !clip.contains_key("logit_bias") {
            clip.insert("logit_bias".to_owned(), scalar(self.begin.bias));
            clip.insert("logit_scale".to_owned(), scalar(self.begin.scale.ln()));
        }
        clip
    }
}
