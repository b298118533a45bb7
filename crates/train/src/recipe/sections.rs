//! The sections of a recipe that belong to one objective or to one feature.

use clipguard_data::spelling::{number, written};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

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
    pub(super) fn check(&self) -> Result<(), String> {
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

/// What CleanCLIP weighs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CleanClipRecipe {
    /// Weight of CLIP's loss between pictures and captions.
    pub multimodal: f64,
    /// Weight of the loss of each modality alone; 0 is plain fine-tuning.
    pub in_modal: f64,
}

impl Default for CleanClipRecipe {
    fn default() -> Self {
        Self { multimodal: 1.0, in_modal: 1.0 }
    }
}

impl CleanClipRecipe {
    pub(super) fn check(&self) -> Result<(), String> {
        for (key, weight) in [("multimodal", self.multimodal), ("in_modal", self.in_modal)] {
            if !(weight >= 0.0 && weight.is_finite()) {
                return Err(format!("cleanclip.{key} = {weight}: a number of at least 0"));
            }
        }
        if self.multimodal + self.in_modal == 0.0 {
            return Err("cleanclip: one of multimodal and in_modal must be above 0".to_owned());
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

    pub(super) fn check(&self) -> Result<(), String> {
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
    pub(super) fn check(&self) -> Result<(), String> {
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

/// Where `siglip` begins with a model that has no logit bias.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SiglipRecipe {
    /// The logit scale itself, not its logarithm.
    pub scale: f32,
    /// The logit bias.
    pub bias: f32,
}

impl Default for SiglipRecipe {
    fn default() -> Self {
        Self { scale: 10.0, bias: -10.0 }
    }
}

impl SiglipRecipe {
    pub(super) fn check(&self) -> Result<(), String> {
        if !(1.0..=100.0).contains(&self.scale) {
            return Err(format!("siglip.scale = {}: a number from 1 to 100", self.scale));
        }
        match self.bias.is_finite() {
            true => Ok(()),
            false => Err(format!("siglip.bias = {}: a finite number", self.bias)),
        }
    }
}

/// What is measured on the way, on pictures and texts that are not trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationRecipe {
    /// Labelled pictures for zero-shot accuracy; empty for none.
    pub data: String,
    /// Picture-caption pairs for retrieval; empty for none.
    pub retrieval: String,
    /// Samples of each, chosen by the hash of their keys (pairs: the first); 0 means all.
    pub samples: usize,
    /// Class names: empty for the source's own, else a built-in list or a file.
    pub classes: String,
    /// A built-in template set or a file.
    pub templates: String,
}

impl Default for EvaluationRecipe {
    fn default() -> Self {
        Self {
            data: String::new(),
            retrieval: String::new(),
            samples: 256,
            classes: String::new(),
            templates: "simple".to_owned(),
        }
    }
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
