//! Smoothing: the mean embedding of noisy copies of a picture.
//!
//! The same perturbation cannot steer the embedding of every noisy copy, if the encoder was trained
//! to see through noise (`clipguard train --objective noise`); one that was not is destroyed by it.
//! It is random: a gradient of one draw attacks that draw, so attack it with gradients averaged over
//! draws (`eot=16,early-exit=false`). What votes under such noise *prove* is another matter and
//! belongs to an evaluation (`[[certify]]` in a plan).

use burn::tensor::Tensor;
use clipguard_data::{
    parameters,
    spelling::{Parameters, Spelling, SpellingError},
};
use clipguard_model::{noise::noisy, normalise};

use crate::{Encode, Purifier};

const NAME: &str = "smooth";

parameters! {
    /// How many copies with how much noise.
    pub struct Settings {
        /// Standard deviation of the noise in pixel units of [0, 1].
        sigma: f64 = 0.1,
        /// Noisy copies, at least 1; each costs one encoding.
        copies: usize = 16,
        /// Seed of the noise.
        seed: u64 = 0,
    }
}

/// The mean embedding over noise.
#[derive(Clone, Debug)]
pub struct Smooth {
    settings: Settings,
}

impl Smooth {
    /// The purifier of a spelling such as `smooth:sigma=0.1,copies=32`.
    ///
    /// # Errors
    /// Unknown settings and values out of range.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        let settings: Settings = spelling.read()?;
        spelling.demand([
            (
                "sigma",
                (0.0..=4.0).contains(&settings.sigma),
                "a deviation is not negative, up to 4",
            ),
            ("copies", settings.copies > 0, "at least one"),
        ])?;
        Ok(Self { settings })
    }
}

impl Purifier for Smooth {
    fn encode(
        &self,
        pixels: Tensor<4>,
        keys: &[String],
        draw: u64,
        encoder: &Encode<'_>,
    ) -> Tensor<2> {
        let Settings { sigma, copies, seed } = self.settings;
        let one = |copy: usize| {
            encoder(noisy(&pixels, sigma, seed, &format!("{NAME}/{draw}/{copy}"), keys))
        };
        let sum = (1..copies).fold(one(0), |sum, copy| sum + one(copy));
        normalise(sum)
    }

    fn needs_pictures(&self) -> bool {
        true
    }

    fn spelling(&self) -> Spelling {
        self.settings.spelled(NAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Defended, parse,
        ttc::tests::{pictures, tiny},
    };
    use clipguard_model::{Query, Victim};
    use std::sync::Arc;

    fn victim(purifiers: &[&str]) -> impl Victim {
        let clip = Arc::new(tiny());
        let head = Tensor::<2>::eye(16, &clip.device().clone());
        purifiers.iter().fold(Defended::new(clip, head, 10.0), |victim, text| {
            victim.with(parse(text, &crate::Material::default()).unwrap())
        })
    }

    fn logits(victim: &impl Victim, pixels: Tensor<4>, keys: &[String], draw: u64) -> Vec<f32> {
        let query = Query { pixels, keys, draw };
        victim.logits(query).into_data().try_to_vec::<f32>().unwrap()
    }

    #[test]
    fn the_answer_is_the_mean_over_copies_and_belongs_to_picture_and_draw() {
        let (pixels, keys) = (pictures(3), ["a", "b", "c"].map(str::to_owned));
        let smooth = victim(&["smooth:sigma=0.2,copies=3"]);
        let all = logits(&smooth, pixels.clone(), &keys, 0);
        let alone = logits(&smooth, pixels.clone().narrow(0, 1, 1), &keys[1..2], 0);
        assert_eq!(alone, all[16..32]);
        assert_ne!(logits(&smooth, pixels.clone(), &keys, 1), all);
        // Without noise it is the identity, up to rounding of the mean.
        let bare = logits(&victim(&[]), pixels.clone(), &keys, 0);
        let still = logits(&victim(&["smooth:sigma=0,copies=4"]), pixels.clone(), &keys, 0);
        assert!(bare.iter().zip(&still).all(|(a, b)| (a - b).abs() < 1e-4));
        // The mean of the copies' unit embeddings, by hand.
        let clip = tiny();
        let copy = |copy: usize| {
            let noisy = noisy(&pixels, 0.2, 0, &format!("smooth/0/{copy}"), &keys);
            normalise(clip.encode_image(noisy))
        };
        let mean = normalise(copy(0) + copy(1) + copy(2)) * 10.0;
        let mean = mean.into_data().try_to_vec::<f32>().unwrap();
        assert!(mean.iter().zip(&all).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn gradients_pass_every_copy_and_two_of_them_nest() {
        let (pixels, keys) = (pictures(1), ["a".to_owned()]);
        let nested = victim(&["smooth:sigma=0.1,copies=2", "smooth:sigma=0.1,copies=2,seed=1"]);
        let leaf = pixels.autodiff().require_grad();
        let query = Query { pixels: leaf.clone(), keys: &keys, draw: 0 };
        let top = nested.logits(query).narrow(1, 0, 1).sum();
        let gradient = leaf.grad_remove(&mut top.backward()).unwrap();
        assert!(gradient.abs().max().into_scalar::<f32>() > 0.0);
    }
}
