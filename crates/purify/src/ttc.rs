//! TTC: a test-time counterattack (Xing, Zhao and Sebe, CVPR 2025).
//!
//! An attacked picture lies in a flat place: noise hardly moves its embedding. So each picture is
//! pushed away from its own embedding, by sign steps from a random start; pictures that noise moves
//! enough keep the noise alone. The published test attacks the undefended model; one that knows the
//! defence passes through it, because the push is a sum of signs and thus a constant for the
//! derivative almost everywhere.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use clipguard_data::{
    Stream, parameters,
    spelling::{Parameters, Spelling},
};
use clipguard_model::Clip;

use crate::{Purifier, PurifyError, catalogue::Material};

const NAME: &str = "ttc";

parameters! {
    /// How TTC pushes.
    pub struct Settings {
        /// Radius of the push in pixel units (Linf).
        eps: f32 = 4.0 / 255.0,
        /// Length of a step in pixel units.
        alpha: f32 = 1.0 / 255.0,
        /// Number of steps.
        steps: usize = 2,
        /// How much later steps count: the push is the mean of all, weighted by exp(beta * step).
        beta: f32 = 2.0,
        /// Pictures whose embedding noise moves by at least this share of its length keep the
        /// noise alone.
        threshold: f32 = 0.2,
        /// Seed of the noise.
        seed: u64 = 0,
    }
}

/// TTC with the encoder it asks.
#[derive(Clone, Debug)]
pub struct Ttc {
    settings: Settings,
    clip: Arc<Clip>,
}

impl Ttc {
    /// The purifier of a spelling such as `ttc:steps=2`.
    ///
    /// # Errors
    /// Unknown settings, values out of range, no model.
    pub fn from_spelling(spelling: &Spelling, material: &Material) -> Result<Self, PurifyError> {
        let settings: Settings = spelling.read()?;
        spelling.demand([
            ("eps", settings.eps > 0.0, "a radius above 0"),
            ("alpha", settings.alpha > 0.0, "a step length above 0"),
            ("beta", settings.beta.is_finite(), "a finite number"),
            ("threshold", settings.threshold >= 0.0, "a share is not negative"),
        ])?;
        let what = "the model it defends";
        let clip = material.clip.clone();
        let clip = clip.ok_or(PurifyError::Material { purifier: NAME, what })?;
        Ok(Self { settings, clip })
    }

    /// The push of each picture, a constant.
    fn push(&self, pixels: &Tensor<4>, keys: &[String], draw: u64) -> Tensor<4> {
        let Settings { eps, alpha, steps, beta, threshold, seed } = self.settings;
        let inside = |delta: Tensor<4>| {
            (pixels.clone() + delta.clamp(-eps, eps)).clamp(0.0, 1.0) - pixels.clone()
        };
        let original = self.clip.encode_image(pixels.clone());
        let mut delta = inside(noise(pixels, eps, seed, keys, draw));
        let first = delta.clone();
        let moved = self.clip.encode_image(pixels.clone() + first.clone()) - original.clone();
        let length = |z: Tensor<2>| z.square().sum_dim(1).sqrt();
        let ratio = length(moved) / length(original.clone()).clamp_min(1e-12);
        let weight = |step: usize| (beta * (step as f32 - steps as f32)).exp();
        let total: f32 = (0..=steps).map(weight).sum();
        let mut sum = delta.clone() * (weight(0) / total);
        for step in 1..=steps {
            let leaf = (pixels.clone() + delta.clone()).autodiff().require_grad();
            let away = (self.clip.encode_image(leaf.clone()) - original.clone()).square().sum();
            let Some(gradient) = leaf.grad_remove(&mut away.backward()) else { break };
            delta = inside(delta + gradient.sign() * alpha);
            sum = sum + delta.clone() * (weight(step) / total);
        }
        let rows = pixels.dims()[0];
        let stable = ratio.lower_elem(threshold).reshape([rows, 1, 1, 1]).expand(pixels.dims());
        first.mask_where(stable, sum)
    }
}

/// Uniform noise in `[-eps, eps]`, row by row from the sample's own stream.
fn noise(pixels: &Tensor<4>, eps: f32, seed: u64, keys: &[String], draw: u64) -> Tensor<4> {
    let entries = pixels.dims()[1..].iter().product::<usize>();
    let purpose = format!("{NAME}/{draw}");
    let row = |key: &String| {
        let mut stream = Stream::keyed(seed, &purpose, key);
        (0..entries).map(|_| stream.within(-eps, eps)).collect::<Vec<f32>>()
    };
    let values: Vec<f32> = keys.iter().flat_map(row).collect();
    Tensor::from_data(TensorData::new(values, pixels.dims()), &pixels.device())
}

impl Purifier for Ttc {
    fn pixels(&self, pixels: Tensor<4>, keys: &[String], draw: u64) -> Tensor<4> {
        let push = self.push(&pixels.clone().inner(), keys, draw);
        // The push keeps the sum in [0, 1], so that there is nothing to clamp.
        pixels + push
    }

    fn needs_pictures(&self) -> bool {
        true
    }

    fn optimises(&self) -> bool {
        true
    }

    fn spelling(&self) -> Spelling {
        self.settings.spelled(NAME)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use burn::tensor::Device;
    use clipguard_model::{Architecture, Preprocess, parameters::initial_weights};
    use std::path::Path;

    /// An untrained model with one block a tower.
    pub(crate) fn tiny() -> Clip {
        let config = serde_json::json!({
            "embed_dim": 16,
            "vision_cfg": {
                "image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16
            },
            "text_cfg": {
                "context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1
            }
        });
        let architecture = Architecture::from_json(&config, Path::new("tiny")).unwrap();
        let weights = initial_weights(&architecture, 1);
        Clip::new(&architecture, &Preprocess::openai(32), &weights, &Device::flex()).unwrap()
    }

    /// Pictures of uniform noise.
    pub(crate) fn pictures(rows: usize) -> Tensor<4> {
        let mut stream = Stream::counted(2, "pictures", 0);
        let values: Vec<f32> = (0..rows * 3 * 32 * 32).map(|_| stream.uniform()).collect();
        Tensor::from_data(TensorData::new(values, [rows, 3, 32, 32]), &Device::flex())
    }

    fn largest(x: Tensor<4>) -> f32 {
        x.abs().max().into_scalar::<f32>()
    }

    #[test]
    fn the_push_stays_small_moves_away_and_belongs_to_the_picture() {
        let clip = Arc::new(tiny());
        let make = |threshold| Ttc {
            settings: Settings { threshold, ..Settings::default() },
            clip: clip.clone(),
        };
        let (pixels, keys) = (pictures(3), ["a", "b", "c"].map(str::to_owned));
        let (pushed, noised) = (make(1e9), make(0.0));
        let moved = pushed.pixels(pixels.clone(), &keys, 0);
        assert!(largest(moved.clone() - pixels.clone()) <= 4.0 / 255.0 + 1e-6);
        assert!(largest(moved.clone() - 0.5) <= 0.5 + 1e-6);
        let noise = noised.pixels(pixels.clone(), &keys, 0);
        let away = |x: Tensor<4>| {
            let offset = clip.encode_image(x) - clip.encode_image(pixels.clone());
            offset.square().sum().into_scalar::<f32>()
        };
        assert!(away(moved.clone()) > away(noise.clone()), "the push moves more than noise");
        let alone = pushed.pixels(pixels.clone().narrow(0, 1, 1), &keys[1..2], 0);
        assert_eq!(largest(alone - moved.clone().narrow(0, 1, 1)), 0.0);
        assert!(largest(pushed.pixels(pixels.clone(), &keys, 1) - moved) > 0.0);
        // The push is a constant for the derivative.
        let leaf = pixels.autodiff().require_grad();
        let sum = pushed.pixels(leaf.clone(), &keys, 0).sum();
        let gradient = leaf.grad_remove(&mut sum.backward()).unwrap();
        assert_eq!(largest(gradient - 1.0), 0.0);
    }
}
