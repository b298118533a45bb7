//! CSR: contrastive spectral rectification (Nie et al. 2026).
//!
//! The embedding of an attacked picture moves far when its high frequencies are taken away. Where
//! it does, the picture takes a few sign steps that bring its embedding nearer to that of the
//! smoothed picture and away from its own. The push is a sum of signs and thus a constant for the
//! derivative almost everywhere, so the exact gradient is that of the rest.

use std::{f64::consts::TAU, sync::Arc};

use burn::tensor::{Bool, Device, Tensor, TensorData};
use clipguard_data::{
    parameters,
    spelling::{Parameters, Spelling},
};
use clipguard_model::{Clip, normalise};

use crate::{Purifier, PurifyError, catalogue::Material};

const NAME: &str = "csr";

parameters! {
    /// How CSR flags and mends.
    pub struct Settings {
        /// Width of the Gaussian that is kept of the spectrum, in frequencies of the whole picture.
        width: f32 = 40.0,
        /// Pictures whose embedding has a cosine below this with that of the smoothed picture are
        /// mended.
        threshold: f32 = 0.85,
        /// Radius of the push in pixel units (Linf).
        eps: f32 = 4.0 / 255.0,
        /// Length of a step in pixel units.
        alpha: f32 = 2.0 / 255.0,
        /// Number of steps; the best point is kept.
        steps: usize = 3,
    }
}

/// CSR with the encoder it asks.
#[derive(Clone, Debug)]
pub struct Csr {
    settings: Settings,
    clip: Arc<Clip>,
}

impl Csr {
    /// The purifier of a spelling such as `csr:threshold=0.9`.
    ///
    /// # Errors
    /// Unknown settings, values out of range, no model.
    pub fn from_spelling(spelling: &Spelling, material: &Material) -> Result<Self, PurifyError> {
        let settings: Settings = spelling.read()?;
        spelling.demand([
            ("width", settings.width > 0.0, "a width above 0"),
            ("threshold", settings.threshold.is_finite(), "a finite number"),
            ("eps", settings.eps > 0.0, "a radius above 0"),
            ("alpha", settings.alpha > 0.0, "a step length above 0"),
        ])?;
        let what = "the model it defends";
        let clip = material.clip.clone();
        let clip = clip.ok_or(PurifyError::Material { purifier: NAME, what })?;
        Ok(Self { settings, clip })
    }

    fn unit(&self, pixels: Tensor<4>) -> Tensor<2> {
        normalise(self.clip.encode_image(pixels))
    }

    /// The push of each picture, a constant; 0 where it is not flagged.
    fn push(&self, pixels: &Tensor<4>) -> Tensor<4> {
        let Settings { width, threshold, eps, alpha, steps } = self.settings;
        let own = self.unit(pixels.clone());
        let smooth = self.unit(smoothed(pixels.clone(), f64::from(width)));
        let cosine = |a: Tensor<2>, b: &Tensor<2>| (a * b.clone()).sum_dim(1);
        let gain = |z: Tensor<2>| cosine(z.clone(), &smooth) - cosine(z, &own);
        let [rows, ..] = pixels.dims();
        let whole = |flags: Tensor<2, Bool>| flags.reshape([rows, 1, 1, 1]).expand(pixels.dims());
        let (mut delta, mut best) = (pixels.zeros_like(), pixels.zeros_like());
        let mut highest = gain(own.clone());
        for _ in 0..steps {
            let leaf = (pixels.clone() + delta.clone()).autodiff().require_grad();
            let raised = gain(self.unit(leaf.clone())).sum();
            let Some(gradient) = leaf.grad_remove(&mut raised.backward()) else { break };
            let moved = (delta + gradient.sign() * alpha).clamp(-eps, eps);
            delta = (pixels.clone() + moved).clamp(0.0, 1.0) - pixels.clone();
            let found = gain(self.unit(pixels.clone() + delta.clone()));
            let better = found.clone().greater(highest.clone());
            best = best.mask_where(whole(better.clone()), delta.clone());
            highest = highest.mask_where(better, found);
        }
        let calm = cosine(own.clone(), &smooth).lower_elem(threshold).bool_not();
        best.mask_fill(whole(calm), 0.0)
    }
}

/// Pictures whose spectrum is weighted by `exp(-|k|^2 / (2 width^2))`, `k` the frequency in cycles
/// over the picture, in [0, 1].
fn smoothed(pixels: Tensor<4>, width: f64) -> Tensor<4> {
    let [_, _, rows, columns] = pixels.dims();
    let device = pixels.device();
    // The weight is a product over both directions, and so is the filter.
    let down = filter(rows, width, &device).unsqueeze::<4>();
    let across = filter(columns, width, &device).unsqueeze::<4>();
    down.matmul(pixels).matmul(across).clamp(0.0, 1.0)
}

/// The filter along one direction of `n` pixels as a symmetric matrix `[n, n]`.
fn filter(n: usize, width: f64, device: &Device) -> Tensor<2> {
    let signed = |k: usize| if k <= (n - 1) / 2 { k as f64 } else { k as f64 - n as f64 };
    let weight = |k: usize| (-signed(k).powi(2) / (2.0 * width * width)).exp();
    let wave = |k: usize, offset: usize| (TAU * (k * offset % n) as f64 / n as f64).cos();
    let entry = |offset: usize| -> f64 {
        (0..n).map(|k| weight(k) * wave(k, offset)).sum::<f64>() / n as f64
    };
    let row: Vec<f64> = (0..n).map(entry).collect();
    let values = (0..n * n).map(|i| row[(n + i / n - i % n) % n]).collect();
    Tensor::from_data(TensorData::new(values, [n, n]), device)
}

impl Purifier for Csr {
    fn pixels(&self, pixels: Tensor<4>, _keys: &[String], _draw: u64) -> Tensor<4> {
        let push = self.push(&pixels.clone().inner());
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

    #[test]
    fn only_flagged_pictures_are_pushed_and_towards_their_smoothed_selves() {
        let clip = Arc::new(crate::ttc::tests::tiny());
        let pixels = crate::ttc::tests::pictures(3);
        let make = |threshold| Csr {
            settings: Settings { threshold, width: 3.0, ..Settings::default() },
            clip: clip.clone(),
        };
        let largest = |x: Tensor<4>| x.abs().max().into_scalar::<f32>();
        let keys = ["a", "b", "c"].map(str::to_owned);
        let calm = make(-2.0).pixels(pixels.clone(), &keys, 0);
        assert_eq!(largest(calm - pixels.clone()), 0.0);
        let csr = make(2.0);
        let moved = csr.pixels(pixels.clone(), &keys, 0);
        assert!(largest(moved.clone() - pixels.clone()) <= 4.0 / 255.0 + 1e-6);
        assert!(largest(moved.clone() - 0.5) <= 0.5 + 1e-6);
        let smooth = csr.unit(smoothed(pixels.clone(), 3.0));
        let likeness = |x: Tensor<4>| (csr.unit(x) * smooth.clone()).sum().into_scalar::<f32>();
        assert!(likeness(moved) > likeness(pixels));
    }

    #[test]
    fn the_filter_keeps_flat_pictures_and_takes_fine_ones() {
        let wave = |per: f64| {
            let values = (0..64).map(|i| 0.5 + 0.4 * (TAU * per * (i % 8) as f64 / 8.0).cos());
            let data = TensorData::new(values.collect::<Vec<f64>>(), [1, 1, 8, 8]);
            Tensor::<4>::from_data(data, &Device::flex())
        };
        let swing = |picture: Tensor<4>| {
            let values: Vec<f32> = picture.into_data().iter::<f32>().collect();
            let range = |a: (f32, f32), v: &f32| (a.0.min(*v), a.1.max(*v));
            let (low, high) = values.iter().fold((f32::MAX, f32::MIN), range);
            high - low
        };
        assert!(swing(smoothed(wave(0.0), 1.0)) < 1e-6);
        // exp(-k^2 / 2) of a wave of k cycles is left.
        for k in [1.0, 2.0] {
            let left = swing(smoothed(wave(k), 1.0)) / swing(wave(k));
            assert!((f64::from(left) - (-k * k / 2.0).exp()).abs() < 1e-5, "{k}: {left}");
        }
    }
}
