//! One step of denoising at a moderate noise: what a prior makes of a noised embedding.
//!
//! At times in the middle of the schedule the network still sees the embedding, so that its
//! prediction keeps the class and draws towards embeddings as they are in the data. The mean of a
//! few draws, normalised, takes the embedding's place. It is random: evaluate it with gradients
//! averaged over draws (`eot`), and with the exact gradient, which passes through the network.

use std::sync::Arc;

use burn::tensor::Tensor;
use clipguard_data::{
    Stream, parameters,
    spelling::{Parameters, Spelling},
};
use clipguard_model::{
    normalise,
    prior::{Draw, Prior, Text},
    victim::GradientMode,
};

use crate::{
    Purifier, PurifyError,
    catalogue::Material,
    clipure_diff::{fitting, still},
};

const NAME: &str = "prior-denoise";

parameters! {
    /// How an embedding is noised and restored.
    pub struct Settings {
        /// File of the prior (safetensors), made for the model that is defended.
        prior: String = String::new(),
        /// Smallest time that is drawn.
        first: usize = 200,
        /// Largest time that is drawn.
        last: usize = 600,
        /// Draws of time and noise whose predictions are averaged, at least 1.
        draws: usize = 8,
        /// exact, detached (no gradient at all) or straight-through.
        gradient: GradientMode = GradientMode::Exact,
        /// Seed of the draws.
        seed: u64 = 0,
    }
}

/// The restored embedding with the prior that restores it.
#[derive(Clone, Debug)]
pub struct Denoise {
    settings: Settings,
    prior: Arc<Prior>,
    text: Text,
    none: Text,
}

impl Denoise {
    /// The purifier of a spelling such as `prior-denoise:prior=prior.safetensors,draws=16`.
    ///
    /// # Errors
    /// Unknown settings, values out of range, a missing or unfitting prior.
    pub fn from_spelling(spelling: &Spelling, material: &Material) -> Result<Self, PurifyError> {
        let settings: Settings = spelling.read()?;
        spelling.demand([
            ("prior", !settings.prior.is_empty(), "the path of a prior's file is needed"),
            ("first", settings.first <= settings.last, "a time not beyond `last`"),
            ("draws", settings.draws > 0, "at least one"),
        ])?;
        let what = "the embedding of the blank prompt";
        let blank = material.blank.clone();
        let blank = blank.ok_or(PurifyError::Material { purifier: NAME, what })?;
        let prior = fitting(&settings.prior, settings.last, &blank)?;
        let text = prior.text(blank.unsqueeze(), None);
        Ok(Self { settings, text, none: prior.no_text(), prior })
    }

    fn restored(&self, embedding: Tensor<2>, keys: &[String], draw: u64) -> Tensor<2> {
        let Settings { first, last, draws, seed, .. } = self.settings;
        let like = embedding.clone().detach();
        let clean = embedding * self.prior.scale();
        let one = |repeat: usize| {
            let purpose = format!("{NAME}/{draw}/{repeat}");
            let streams = keys.iter().map(|key| Stream::keyed(seed, &purpose, key));
            let noise = Draw::new(streams, (first, last), (0.0, 0.0), &like);
            self.prior.restore(clean.clone(), &noise, &self.text, &self.none).clean
        };
        let sum = (0..draws).map(one).reduce(|sum, restored| sum + restored);
        normalise(sum.unwrap_or(clean))
    }
}

impl Purifier for Denoise {
    /// # Panics
    /// When there are not as many keys as rows.
    fn embedding(&self, embedding: Tensor<2>, keys: &[String], draw: u64) -> Tensor<2> {
        let [rows, width] = embedding.dims();
        assert_eq!(keys.len(), rows, "one key a row");
        let still = still(&embedding).expand([rows, width]);
        let constant = Tensor::ones([rows, width], (&embedding.device(), embedding.dtype()));
        let usable = embedding.clone().mask_where(still.clone(), constant);
        let purified = match self.settings.gradient {
            GradientMode::Exact => self.restored(usable, keys, draw),
            GradientMode::Detached => self.restored(usable.detach(), keys, draw),
            GradientMode::StraightThrough => {
                let fixed = usable.clone().detach();
                usable + (self.restored(fixed.clone(), keys, draw) - fixed)
            }
        };
        purified.mask_where(still, embedding)
    }

    fn spelling(&self) -> Spelling {
        self.settings.spelled(NAME)
    }

    fn digest(&self) -> Option<&str> {
        Some(self.prior.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};
    use clipguard_model::{Parameters, prior::Layout};

    fn purifier(gradient: GradientMode) -> Denoise {
        let layout = Layout {
            dim: 16,
            depth: 2,
            heads: 2,
            head_width: 8,
            inner: 32,
            text: 0,
            steps: 1000,
            normformer: true,
        };
        let weights = layout.initial_weights(3);
        let parameters = Parameters::constant(&weights, &Device::flex());
        let prior = Arc::new(Prior::new(layout, &parameters).unwrap());
        let settings = Settings { draws: 3, gradient, ..Settings::default() };
        Denoise { settings, text: prior.no_text(), none: prior.no_text(), prior }
    }

    fn host(x: Tensor<2>) -> Vec<f32> {
        x.into_data().iter::<f32>().collect()
    }

    #[test]
    fn rows_are_unit_depend_on_their_key_alone_and_stay_when_they_are_nothing() {
        let mut stream = Stream::counted(1, "z", 0);
        let mut values: Vec<f32> = (0..48).map(|_| stream.normal()).collect();
        values[32..].fill(f32::NAN);
        let z = Tensor::<2>::from_data(TensorData::new(values, [3, 16]), &Device::flex());
        let keys = ["a", "b", "c"].map(str::to_owned);
        let denoise = purifier(GradientMode::Exact);
        let all = host(denoise.embedding(z.clone(), &keys, 0));
        let length = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>().sqrt();
        assert!((length(&all[..16]) - 1.0).abs() < 1e-6 && all[32..].iter().all(|v| v.is_nan()));
        let alone = host(denoise.embedding(z.clone().narrow(0, 1, 1), &keys[1..2], 0));
        assert_eq!(alone, all[16..32]);
        assert_ne!(host(denoise.embedding(z.clone(), &keys, 1))[..16], all[..16]);
        let gradient = |mode| {
            let leaf = z.clone().narrow(0, 0, 1).autodiff().require_grad();
            let weight = z.clone().narrow(0, 1, 1);
            let out = purifier(mode).embedding(leaf.clone(), &keys[..1], 0);
            let loss = (out * weight).sum();
            leaf.grad_remove(&mut loss.backward()).map_or_else(|| vec![0.0; 16], host)
        };
        assert!(length(&gradient(GradientMode::Exact)) > 1e-4);
        assert!(gradient(GradientMode::Detached).iter().all(|v| *v == 0.0));
        assert_eq!(gradient(GradientMode::StraightThrough), host(z.narrow(0, 1, 1)));
    }
}
