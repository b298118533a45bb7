//! Noise-augmented fine-tuning: a classifier that can be smoothed.

use crate::{
    Objective, ObjectiveInfo, Step,
    adversarial::is_tuned,
    batches::Needs,
    names::{Names, surprise},
    recipe::NoiseRecipe,
};
use burn::tensor::Tensor;
use clipguard_data::Stream;
use clipguard_model::{ModelError, noise::noisy};

/// The cross-entropy of the zero-shot classifier on noisy pictures (Cohen et al. 2019), and with
/// a weight also how far the answers for two noises of one picture lie apart (Jeong & Shin 2020).
///
/// A smoothed classifier answers what the model most often answers under noise, so the model has to
/// be right there; one that never saw noise is not. As in `tecoa` the texts are frozen and only the
/// picture tower is trained.
pub struct Noise {
    names: Names,
    settings: NoiseRecipe,
}

impl Noise {
    /// Its entry in the catalogue.
    pub const INFO: ObjectiveInfo = ObjectiveInfo {
        name: "noise",
        summary: "noise-augmented fine-tuning: noisy pictures of a class stay with its name",
        source: "Cohen et al. 2019, Certified Robustness via Randomized Smoothing",
        complete: |recipe| {
            recipe.noise.get_or_insert_default();
        },
        build: |beginning| {
            let settings = beginning.recipe.noise.clone().unwrap_or_default();
            Ok(Box::new(Self { names: Names::new(beginning, "noise")?, settings }))
        },
    };

    /// One noisy copy of every picture. Its deviation is drawn for each picture and step, and all
    /// copies of a picture have the same.
    fn copy(&self, step: &Step<'_>, pixels: &Tensor<4>, copy: usize) -> Tensor<4> {
        let rows = step.batch.keys.iter().enumerate().map(|(row, key)| {
            let purpose = format!("noise-size/{}", step.step);
            let mut stream = Stream::keyed(step.seed, &purpose, key);
            let sigma = self.settings.sigma[stream.below(self.settings.sigma.len())];
            let purpose = format!("noise/{}/{copy}", step.step);
            let own = pixels.clone().narrow(0, row, 1);
            noisy(&own, sigma, step.seed, &purpose, std::slice::from_ref(key))
        });
        Tensor::cat(rows.collect(), 0)
    }
}

impl Objective for Noise {
    fn loss(&self, step: &Step<'_>) -> Result<Tensor<1>, ModelError> {
        let clip = step.clip()?;
        let pixels = step.batch.pixels(&clip).inner();
        let copies = self.settings.copies();
        let noisy = (0..copies).map(|copy| self.copy(step, &pixels, copy)).collect();
        // In one pass, so that statistics of the batch are those of all copies.
        let all = clip.encode_image_in(Tensor::cat(noisy, 0).autodiff(), step.pass);
        let log = self.names.log_probabilities(all);
        let rows = step.batch.labels.len();
        let parts: Vec<Tensor<2>> =
            (0..copies).map(|copy| log.clone().narrow(0, copy * rows, rows)).collect();
        let mean = |sum: Option<Tensor<1>>| sum.map(|sum| sum.mean() / copies as f64);
        let own = parts.iter().map(|part| surprise(part.clone(), &step.batch.labels));
        let loss = mean(own.reduce(|a, b| a + b));
        let loss = loss.unwrap_or_else(|| Tensor::zeros([1], &log.device()));
        let NoiseRecipe { consistency, entropy, .. } = self.settings;
        if consistency > 0.0 {
            return Ok(loss + discord(&parts, entropy / consistency) * consistency);
        }
        Ok(loss)
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

/// `mean_i KL(p || p_i) + entropy * H(p)` with `p` the mean of the answers `p_i`, averaged over the
/// rows (Jeong & Shin 2020, equation 6); from logarithms of probabilities.
fn discord(parts: &[Tensor<2>], entropy: f64) -> Tensor<1> {
    let count = parts.len().max(1) as f64;
    let sum = |all: Vec<Tensor<2>>| all.into_iter().reduce(|a, b| a + b);
    let Some(mean) = sum(parts.iter().map(|log| log.clone().exp()).collect()) else {
        return Tensor::zeros([1], &burn::tensor::Device::flex());
    };
    let mean = mean / count;
    // A probability that underflows has no logarithm and adds nothing.
    let log = mean.clone().clamp_min(1e-30).log();
    let apart = parts.iter().map(|part| log.clone() - part.clone()).collect();
    let apart = sum(apart).map(|all| all / count).unwrap_or_else(|| log.zeros_like());
    let divergence = (mean.clone() * apart).sum_dim(1).mean();
    divergence - (mean * log).sum_dim(1).mean() * entropy
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn answers_that_agree_have_no_discord_but_an_entropy() {
        let log = |rows: [[f32; 2]; 1]| Tensor::<2>::from_data(rows, &Device::flex()).log();
        let value = |x: Tensor<1>| x.into_scalar::<f32>();
        let (sure, even) = (log([[0.9, 0.1]]), log([[0.5, 0.5]]));
        assert!(value(discord(&[sure.clone(), sure.clone()], 0.0)).abs() < 1e-6);
        let entropy = value(discord(&[even.clone(), even.clone()], 1.0));
        assert!((entropy - 2f32.ln()).abs() < 1e-6);
        // KL of the mean (0.7, 0.3) from both, by hand.
        let kl = |q: [f32; 2]| 0.7 * (0.7 / q[0]).ln() + 0.3 * (0.3 / q[1]).ln();
        let want = 0.5 * (kl([0.9, 0.1]) + kl([0.5, 0.5]));
        assert!((value(discord(&[sure, even], 0.0)) - want).abs() < 1e-5);
    }
}
