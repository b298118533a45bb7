//! ET3: energy-guided test-time transformation (Mirza et al., CVPR 2026).
//!
//! Two steps down the energy `-logsumexp` of the logits, of fixed L2 length, within a small Linf
//! ball: the picture becomes one that the classifier is surer of. Meant for robust encoders, where a
//! step towards certainty is one towards the class; on others certainty is what an attack has made.
//!
//! The step is the gradient divided by its length, and unlike a sign it is no constant for the
//! derivative: the exact gradient of this defence needs the second derivative of the encoder, which
//! the framework does not have. So the push is passed as a constant, in effect straight through. That
//! is an approximation, and the transfer attack has to stand beside it.

use std::sync::Arc;

use burn::tensor::Tensor;
use clipguard_data::{
    parameters,
    spelling::{Parameters, Spelling},
};
use clipguard_model::{Clip, normalise};

use crate::{Purifier, PurifyError, catalogue::Material};

const NAME: &str = "et3";

parameters! {
    /// How ET3 moves.
    pub struct Settings {
        /// Number of steps.
        steps: usize = 2,
        /// L2 length of a step in pixel units.
        length: f32 = 2.5,
        /// Radius (Linf) in pixel units within which it stays.
        eps: f32 = 5.0 / 255.0,
    }
}

/// ET3 with the classifier whose energy it lowers.
#[derive(Clone, Debug)]
pub struct Et3 {
    settings: Settings,
    clip: Arc<Clip>,
    /// `[dimensions, classes]`, unit columns.
    head: Tensor<2>,
}

impl Et3 {
    /// The purifier of a spelling such as `et3:steps=2`.
    ///
    /// # Errors
    /// Unknown settings, values out of range, no model or no head.
    pub fn from_spelling(spelling: &Spelling, material: &Material) -> Result<Self, PurifyError> {
        let settings: Settings = spelling.read()?;
        spelling.demand([
            ("length", settings.length > 0.0, "a step length above 0"),
            ("eps", settings.eps > 0.0, "a radius above 0"),
        ])?;
        let need = |what| PurifyError::Material { purifier: NAME, what };
        let clip = material.clip.clone().ok_or(need("the model it defends"))?;
        let head = material.head.clone().ok_or(need("the head with the class names"))?;
        Ok(Self { settings, clip, head })
    }

    /// The summed energies of pictures.
    fn energy(&self, pixels: Tensor<4>) -> Tensor<1> {
        let z = normalise(self.clip.encode_image(pixels));
        let logits = z.matmul(self.head.clone()) * self.clip.scale();
        // Against overflow the largest logit is taken out; as a constant, it changes no gradient.
        let largest = logits.clone().detach().max_dim(1);
        let sum = (logits - largest.clone()).exp().sum_dim(1).log() + largest;
        sum.neg().sum()
    }

    /// The transformed pictures, constants.
    fn moved(&self, pixels: &Tensor<4>) -> Tensor<4> {
        let Settings { steps, length, eps } = self.settings;
        let (low, high) = (pixels.clone() - eps, pixels.clone() + eps);
        let [rows, ..] = pixels.dims();
        let mut now = pixels.clone();
        for _ in 0..steps {
            let leaf = now.clone().autodiff().require_grad();
            let energy = self.energy(leaf.clone());
            let Some(gradient) = leaf.grad_remove(&mut energy.backward()) else { break };
            let size = gradient.clone().square().reshape([rows as i32, -1]).sum_dim(1).sqrt();
            let size = size.clamp_min(1e-12).reshape([rows, 1, 1, 1]);
            let step = now - gradient / size * length;
            now = step.max_pair(low.clone()).min_pair(high.clone()).clamp(0.0, 1.0);
        }
        now
    }
}

impl Purifier for Et3 {
    fn pixels(&self, pixels: Tensor<4>, _keys: &[String], _draw: u64) -> Tensor<4> {
        let fixed = pixels.clone().inner();
        let push = self.moved(&fixed) - fixed;
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
mod tests {
    use super::*;
    use crate::ttc::tests::{pictures, tiny};

    fn purifier() -> Et3 {
        let clip = Arc::new(tiny());
        let head = normalise(clip.encode_image(pictures(4))).transpose();
        Et3 { settings: Settings::default(), clip, head }
    }

    fn largest(x: Tensor<4>) -> f32 {
        x.abs().max().into_scalar::<f32>()
    }

    #[test]
    fn pictures_get_surer_stay_near_and_do_not_touch_each_other() {
        let et3 = purifier();
        let mut stream = clipguard_data::Stream::counted(9, "et3", 0);
        let values: Vec<f32> = (0..3 * 3 * 32 * 32).map(|_| stream.uniform()).collect();
        let data = burn::tensor::TensorData::new(values, [3, 3, 32, 32]);
        let pixels = Tensor::<4>::from_data(data, et3.clip.device());
        let keys = ["a", "b", "c"].map(str::to_owned);
        let moved = et3.pixels(pixels.clone(), &keys, 0);
        let change = largest(moved.clone() - pixels.clone());
        assert!(change > 1e-3 && change <= 5.0 / 255.0 + 1e-6, "{change}");
        assert!(largest(moved.clone() - 0.5) <= 0.5 + 1e-6);
        let energy = |x: &Tensor<4>| et3.energy(x.clone()).into_scalar::<f32>();
        assert!(energy(&moved) < energy(&pixels));
        let alone = et3.pixels(pixels.clone().narrow(0, 1, 1), &keys[1..2], 0);
        assert!(largest(alone - moved.narrow(0, 1, 1)) < 1e-6);
        // The push is passed as a constant.
        let leaf = pixels.autodiff().require_grad();
        let sum = et3.pixels(leaf.clone(), &keys, 0).sum();
        let gradient = leaf.grad_remove(&mut sum.backward()).unwrap();
        assert_eq!(largest(gradient - 1.0), 0.0);
    }

    #[test]
    fn the_energy_is_minus_the_logarithm_of_the_sum() {
        let et3 = purifier();
        let pixels = pictures(1);
        let z = normalise(et3.clip.encode_image(pixels.clone()));
        let logits = z.matmul(et3.head.clone()) * et3.clip.scale();
        let sum: f64 = logits.into_data().iter::<f64>().map(f64::exp).sum();
        let energy = f64::from(et3.energy(pixels).into_scalar::<f32>());
        assert!((energy + sum.ln()).abs() < 1e-4, "{energy}");
    }
}
