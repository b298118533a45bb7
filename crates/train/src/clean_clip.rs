//! CleanCLIP: fine-tuning that breaks the link between a trigger and its caption.

use crate::{
    contrast::{self, Contrast},
    objective::{Objective, ObjectiveInfo, Step},
    recipe::{CleanClipRecipe, NONE},
};
use burn::tensor::Tensor;
use clipguard_model::{
    Clip, ModelError,
    loss::{clip_loss, in_modal_loss},
};

/// CLIP's loss, and with it that every picture and every caption is near a second view of itself
/// (Bansal et al. 2023, equations 2 to 4): `multimodal * L_clip + in_modal * L_ss`.
///
/// A backdoor is something a picture and a caption have only together. What a modality learns from
/// its own content alone pulls the two apart. All four terms share the model's logit scale; nothing
/// is frozen; both views go through a tower in one pass, so that statistics of the batch are those
/// of both.
pub struct CleanClip {
    weights: CleanClipRecipe,
}

impl CleanClip {
    /// Its entry in the catalogue.
    pub const INFO: ObjectiveInfo = ObjectiveInfo {
        name: "cleanclip",
        summary: "CLIP's loss and, for each modality alone, nearness to a second view of itself",
        source: "Bansal et al. 2023, CleanCLIP",
        complete: |recipe| {
            recipe.cleanclip.get_or_insert_default();
            // Without a second view that differs there is nothing to learn from it.
            for (method, usual) in
                [(&mut recipe.augment, "autoaugment"), (&mut recipe.captions, "eda")]
            {
                if method == NONE {
                    usual.clone_into(method);
                }
            }
        },
        build: |beginning| {
            Ok(Box::new(Self { weights: beginning.recipe.cleanclip.unwrap_or_default() }))
        },
    };

    /// The loss `[1]` of unit rows `[2 n, dim]`, second views in the second half, at `scale [1]`.
    fn of_rows(&self, image: Tensor<2>, text: Tensor<2>, scale: Tensor<1>) -> Tensor<1> {
        let [image, text] = [image, text].map(|rows| {
            let half = rows.dims()[0] / 2;
            [rows.clone().narrow(0, 0, half), rows.narrow(0, half, half)]
        });
        let pairs = clip_loss(image[0].clone(), text[0].clone(), scale.clone());
        let views = in_modal_loss(image, text, scale);
        pairs * self.weights.multimodal + views * self.weights.in_modal
    }
}

impl Contrast for CleanClip {
    fn of_embeddings(
        &self,
        clip: &Clip,
        image: Tensor<2>,
        text: Tensor<2>,
    ) -> Result<Tensor<1>, ModelError> {
        Ok(self.of_rows(image, text, clip.logit_scale().exp()))
    }
}

impl Objective for CleanClip {
    fn loss(&self, step: &Step<'_>) -> Result<Tensor<1>, ModelError> {
        contrast::whole(self, step)
    }

    fn contrast(&self) -> Option<&dyn Contrast> {
        Some(self)
    }

    fn second_views(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::{self, Golden, distance, numbers};
    use burn::tensor::{DType, TensorData};
    use clipguard_model::normalise;

    #[test]
    fn loss_and_gradients_equal_the_reference() {
        let golden = Golden::open("cleaners", "losses");
        let facts = reader::text("cleaners/values.json");
        let facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
        let facts = &facts["losses"];
        let names = ["image", "image_aug", "text", "text_aug"];
        for (name, in_modal) in [("cleanclip_w1_1", 1.0), ("cleanclip_w1_4", 4.0)] {
            let leaves = names.map(|part| {
                golden
                    .tensor::<2>(&format!("cleanclip.raw_{part}"), DType::F64)
                    .autodiff()
                    .require_grad()
            });
            let log_scale = vec![facts["log_scale"].as_f64().unwrap()];
            let log_scale: Tensor<1> = Tensor::from_data(
                TensorData::new(log_scale, [1]),
                (&crate::reader::device(), DType::F64),
            );
            let log_scale = log_scale.autodiff().require_grad();
            let [image, image_view, text, text_view] =
                leaves.each_ref().map(|raw| normalise(raw.clone()));
            let objective = CleanClip { weights: CleanClipRecipe { multimodal: 1.0, in_modal } };
            let loss = objective.of_rows(
                Tensor::cat(vec![image, image_view], 0),
                Tensor::cat(vec![text, text_view], 0),
                log_scale.clone().exp(),
            );
            let want = |key: &str| facts[name][key].as_f64().unwrap();
            let off = (numbers(loss.clone().inner())[0] - want("total")).abs();
            assert!(off < 1e-6, "{name}: loss off by {off:e}");
            let mut gradients = loss.backward();
            for (part, leaf) in names.iter().zip(leaves) {
                let got = numbers(leaf.grad_remove(&mut gradients).unwrap());
                let want = golden.flat(&format!("{name}.grad_{part}_f64"));
                let off = distance(&got, &want);
                assert!(off < 1e-7, "{name}, {part}: off by {off:e}");
            }
            let got = numbers(log_scale.grad_remove(&mut gradients).unwrap())[0];
            let off = (got - want("grad_log_scale")).abs();
            assert!(off < 1e-7, "{name}, scale: off by {off:e}");
        }
    }
}
