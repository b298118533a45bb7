//! The recipe of a run: every number that has an influence, complete, as TOML.

use crate::{Jitter, TrainError, objective::objectives};
use clipguard_data::{
    augment::{self, Augmentation},
    spelling::{number, written},
    text::{self, Rewording},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{path::Path, sync::Arc};

/// Everything that fixes a training run. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// What is minimised; `clipguard methods` lists the objectives.
    pub objective: String,
    /// Where to start: a model to fine-tune, the name of an architecture, or an open_clip
    /// configuration (`.json`) for training from scratch.
    pub model: String,
    /// Data source.
    pub data: String,
    /// Optimiser steps.
    pub steps: u64,
    /// Pairs in a batch.
    pub batch: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Steps of linear warm-up; then a half cosine to zero.
    pub warmup: u64,
    /// AdamW's decay, not applied to vectors, norms and biases.
    pub weight_decay: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Largest global norm of the gradient; 0 means no clipping.
    pub clip_norm: f64,
    /// Seed of weights, order and augmentation.
    pub seed: u64,
    /// Steps between saved states.
    pub save_every: u64,
    /// Steps between lines of `metrics.jsonl`.
    pub log_every: u64,
    /// Template that captions a picture which has a label and no caption.
    pub template: String,
    /// Decay of the average of the weights that becomes the finished model; 0 means none.
    #[serde(skip_serializing_if = "is_zero")]
    pub ema: f64,
    /// Random view of every training picture, such as `simclr:flip=0` (`clipguard methods` lists
    /// the augmentations); `none` takes it as it is.
    #[serde(skip_serializing_if = "is_none")]
    pub augment: String,
    /// Random rewording of every caption, such as `eda`; `none` takes it as it is.
    #[serde(skip_serializing_if = "is_none")]
    pub captions: String,
    /// Colour and place jitter of training pictures.
    pub jitter: Jitter,
    /// The inner attack of `tecoa` and `fare`.
    pub adversarial: Option<Adversarial>,
    /// The noise of `noise`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<NoiseRecipe>,
    /// The network and the noise of `diffusion-prior`.
    pub prior: Option<PriorRecipe>,
}

/// How adversarial fine-tuning attacks, and what it weighs. Lengths are in pixel units of [0, 1],
/// written as a number or as a fraction such as "2/255".
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adversarial {
    /// Radius of the Linf budget.
    #[serde(serialize_with = "write_length", deserialize_with = "read_length")]
    pub eps: f32,
    /// Length of a step.
    #[serde(serialize_with = "write_length", deserialize_with = "read_length")]
    pub step: f32,
    /// Steps of the attack.
    pub steps: usize,
    /// Weight of earlier signs in a step's direction.
    pub momentum: f32,
    /// Share of the loss on clean pictures, in [0, 1).
    pub clean_weight: f64,
    /// `fare`: attacked embeddings go to the clean ones of the same model, not of the original.
    pub trades: bool,
}

impl Default for Adversarial {
    fn default() -> Self {
        Self {
            eps: 2.0 / 255.0,
            step: 1.0 / 255.0,
            steps: 10,
            momentum: 0.9,
            clean_weight: 0.0,
            trades: false,
        }
    }
}

impl Adversarial {
    fn check(&self) -> Result<(), String> {
        let at = |key: &str, value: String, right: &str| {
            Err(format!("adversarial.{key} = {value}: {right}"))
        };
        if !(0.0..=1.0).contains(&self.eps) {
            return at("eps", self.eps.to_string(), "a number in [0, 1]");
        }
        if !(self.step > 0.0 && self.step <= 1.0) {
            return at("step", self.step.to_string(), "a number above 0, up to 1");
        }
        if self.steps == 0 {
            return at("steps", "0".to_owned(), "at least one");
        }
        if !(self.momentum >= 0.0 && self.momentum.is_finite()) {
            return at("momentum", self.momentum.to_string(), "a number of at least 0");
        }
        if !(0.0..1.0).contains(&self.clean_weight) {
            return at("clean_weight", self.clean_weight.to_string(), "a number in [0, 1)");
        }
        Ok(())
    }
}

/// What noise-augmented fine-tuning adds to pictures, and what it weighs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NoiseRecipe {
    /// Standard deviations in pixel units of [0, 1]; each picture draws one at every step.
    pub sigma: Vec<f64>,
    /// Weight of the divergence between the answers for two noises of a picture; 0 for none.
    pub consistency: f64,
    /// Weight of the entropy of their mean answer; counts only beside `consistency`.
    pub entropy: f64,
}

impl Default for NoiseRecipe {
    fn default() -> Self {
        Self { sigma: vec![0.1], consistency: 0.0, entropy: 0.5 }
    }
}

impl NoiseRecipe {
    /// Noisy copies of a picture in a step.
    pub fn copies(&self) -> usize {
        if self.consistency > 0.0 { 2 } else { 1 }
    }

    fn check(&self) -> Result<(), String> {
        if self.sigma.is_empty() || !self.sigma.iter().all(|s| (0.0..=4.0).contains(s)) {
            return Err(format!(
                "noise.sigma = {:?}: deviations from 0 to 4, at least one",
                self.sigma
            ));
        }
        for (key, value) in [("consistency", self.consistency), ("entropy", self.entropy)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(format!("noise.{key} = {value}: a number of at least 0"));
            }
        }
        Ok(())
    }
}

/// Size of a diffusion prior and what is hidden from it in training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PriorRecipe {
    /// Layers.
    pub depth: usize,
    /// Query heads.
    pub heads: usize,
    /// Width of a head, even.
    pub head_width: usize,
    /// Inner width of the feed-forward, as a multiple of the embedding's.
    pub widening: usize,
    /// Times of the noise schedule.
    pub times: usize,
    /// Probability with which the caption is hidden; 1 trains a prior that knows no text.
    pub hide_text: f32,
    /// Probability with which the noised embedding is hidden.
    pub hide_image: f32,
}

impl Default for PriorRecipe {
    fn default() -> Self {
        Self {
            depth: 4,
            heads: 8,
            head_width: 64,
            widening: 4,
            times: 1000,
            hide_text: 0.1,
            hide_image: 0.1,
        }
    }
}

impl PriorRecipe {
    fn check(&self) -> Result<(), String> {
        let sizes = [
            ("depth", self.depth, 1..=64),
            ("heads", self.heads, 1..=128),
            ("head_width", self.head_width, 2..=256),
            ("widening", self.widening, 1..=16),
            ("times", self.times, 2..=100_000),
        ];
        for (key, value, range) in sizes {
            if !range.contains(&value) {
                let (low, high) = (range.start(), range.end());
                return Err(format!("prior.{key} = {value}: a number from {low} to {high}"));
            }
        }
        if self.head_width % 2 == 1 {
            return Err(format!("prior.head_width = {}: an even number", self.head_width));
        }
        for (key, value) in [("hide_text", self.hide_text), ("hide_image", self.hide_image)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(format!("prior.{key} = {value}: a probability"));
            }
        }
        Ok(())
    }
}

/// The spelling of what is left out.
const NONE: &str = "none";

/// Plans of earlier versions do not have these keys, and a state belongs to the text of its plan.
fn is_none(spelling: &str) -> bool {
    spelling == NONE
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn write_length<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&written(*value))
}

fn read_length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Length {
        Number(f64),
        Text(String),
    }
    match Length::deserialize(deserializer)? {
        Length::Number(value) => Ok(value as f32),
        Length::Text(text) => number(&text).map(|value| value as f32).ok_or_else(|| {
            D::Error::custom(format!("`{text}` is no number and no fraction such as 2/255"))
        }),
    }
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            objective: "clip".to_owned(),
            model: "ViT-B-32".to_owned(),
            data: "scenes:100000".to_owned(),
            steps: 1000,
            batch: 128,
            lr: 5e-4,
            warmup: 100,
            weight_decay: 0.2,
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-6,
            clip_norm: 0.0,
            seed: 0,
            save_every: 500,
            log_every: 10,
            template: "a photo of a {}".to_owned(),
            ema: 0.0,
            augment: NONE.to_owned(),
            captions: NONE.to_owned(),
            jitter: Jitter::default(),
            adversarial: None,
            noise: None,
            prior: None,
        }
    }
}

impl Recipe {
    /// Reads a recipe from TOML text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TrainError> {
        let refuse = |reason: String| TrainError::Recipe { path: path.to_owned(), reason };
        let recipe: Self = toml::from_str(text).map_err(|e| refuse(e.to_string()))?;
        recipe.check().map_err(refuse)?;
        Ok(recipe)
    }

    /// As TOML, complete.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_default()
    }

    /// How pictures are augmented, if they are.
    pub fn augmentation(&self) -> Result<Option<Arc<dyn Augmentation>>, String> {
        if is_none(&self.augment) {
            return Ok(None);
        }
        let found = augment::parse(&self.augment).map_err(|e| format!("augment: {e}"))?;
        Ok(Some(found.into()))
    }

    /// How captions are reworded, if they are.
    pub fn rewording(&self) -> Result<Option<Arc<dyn Rewording>>, String> {
        if is_none(&self.captions) {
            return Ok(None);
        }
        let found = text::parse(&self.captions).map_err(|e| format!("captions: {e}"))?;
        Ok(Some(found.into()))
    }

    /// Writes out the settings of methods that are left to their defaults.
    pub(crate) fn complete(&mut self) {
        if let Ok(Some(augmentation)) = self.augmentation() {
            self.augment = augmentation.spelling().to_string();
        }
        if let Ok(Some(rewording)) = self.rewording() {
            self.captions = rewording.spelling().to_string();
        }
    }

    /// Says which value makes no sense and what would be right.
    pub fn check(&self) -> Result<(), String> {
        if !objectives().iter().any(|o| o.name == self.objective) {
            let names: Vec<&str> = objectives().iter().map(|o| o.name).collect();
            return Err(format!(
                "objective `{}` is unknown; there are {}",
                self.objective,
                names.join(", ")
            ));
        }
        let positive = [
            ("steps", self.steps as f64),
            ("batch", self.batch as f64),
            ("lr", self.lr),
            ("epsilon", self.epsilon),
            ("save_every", self.save_every as f64),
            ("log_every", self.log_every as f64),
        ];
        for (name, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return Err(format!("{name} = {value}: a number above 0 is needed"));
            }
        }
        if self.batch < 2 {
            return Err("batch = 1: a contrastive loss needs at least 2 pairs".to_owned());
        }
        for (name, value) in [("beta1", self.beta1), ("beta2", self.beta2), ("ema", self.ema)] {
            if !(0.0..1.0).contains(&value) {
                return Err(format!("{name} = {value}: a number in [0, 1) is needed"));
            }
        }
        for (name, value) in [("weight_decay", self.weight_decay), ("clip_norm", self.clip_norm)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(format!("{name} = {value}: a number of at least 0 is needed"));
            }
        }
        if self.warmup > self.steps {
            return Err(format!("warmup = {} exceeds steps = {}", self.warmup, self.steps));
        }
        self.adversarial.unwrap_or_default().check()?;
        self.noise.clone().unwrap_or_default().check()?;
        self.prior.unwrap_or_default().check()?;
        self.augmentation()?;
        self.rewording()?;
        self.jitter.check()
    }
}
