//! The recipe of a run: every number that has an influence, complete, as TOML.

mod sections;

use crate::{Jitter, Part, TrainError, objective::objectives};
use clipguard_data::{
    augment::{self, Augmentation},
    text::{self, Rewording},
};
use clipguard_model::Precision;
use serde::{Deserialize, Serialize};
use std::{path::Path, sync::Arc};

pub use sections::{
    Adversarial, CleanClipRecipe, EvaluationRecipe, NoiseRecipe, PriorRecipe, SiglipRecipe,
};

/// Everything that fixes a training run. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// What is minimised; `clipguard methods` lists the objectives.
    pub objective: String,
    /// Where to start: a model to fine-tune, the name of an architecture, or an open_clip
    /// configuration (`.json`) for training from scratch.
    pub model: String,
    /// Side of the pictures, where it is not that of the model to fine-tune; 0 means the model's.
    #[serde(skip_serializing_if = "is_default")]
    pub image_size: usize,
    /// Data source.
    pub data: String,
    /// Where to compute: `cpu`, or a card such as `vulkan` or `cuda:1`. Bits differ from device to device.
    #[serde(skip_serializing_if = "is_cpu")]
    pub device: String,
    /// Optimiser steps.
    pub steps: u64,
    /// Pairs in a batch.
    pub batch: usize,
    /// Pairs that are in the towers at once, with the gradient of the whole batch; 0 means all.
    /// Second views count.
    #[serde(skip_serializing_if = "is_default")]
    pub micro_batch: usize,
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
    #[serde(skip_serializing_if = "is_default")]
    pub ema: f64,
    /// Random view of every training picture, such as `simclr:flip=0` (`clipguard methods` lists
    /// the augmentations); `none` takes it as it is. Objectives that compare a picture with a second
    /// view of itself take it as it is and this view beside it.
    #[serde(skip_serializing_if = "is_none")]
    pub augment: String,
    /// Random rewording of every caption, such as `eda`; `none` takes it as it is. As for pictures, it
    /// may be a second one beside the first.
    #[serde(skip_serializing_if = "is_none")]
    pub captions: String,
    /// The part of the model that is trained: `all`, `image`, `text` or `head`.
    #[serde(skip_serializing_if = "is_default")]
    pub train: Part,
    /// Patterns of parameters that are not trained, such as `visual.*`.
    #[serde(skip_serializing_if = "is_default")]
    pub freeze: Vec<String>,
    /// Precision of the finished model's file; training computes in 32 bits whatever it is.
    #[serde(skip_serializing_if = "is_default")]
    pub precision: Precision,
    /// Steps between evaluations as the section `[evaluation]` says; 0 means none.
    #[serde(skip_serializing_if = "is_default")]
    pub evaluate_every: u64,
    /// Whether the metrics are also written for TensorBoard.
    #[serde(skip_serializing_if = "is_default")]
    pub tensorboard: bool,
    /// Colour and place jitter of training pictures.
    pub jitter: Jitter,
    /// The inner attack of `tecoa` and `fare`.
    pub adversarial: Option<Adversarial>,
    /// The noise of `noise`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<NoiseRecipe>,
    /// The network and the noise of `diffusion-prior`.
    pub prior: Option<PriorRecipe>,
    /// The beginning of `siglip`.
    pub siglip: Option<SiglipRecipe>,
    /// The weights of `cleanclip`.
    pub cleanclip: Option<CleanClipRecipe>,
    /// What is measured on the way.
    pub evaluation: Option<EvaluationRecipe>,
}

/// The spelling of what is left out.
pub(crate) const NONE: &str = "none";

/// The device of plans that name none.
const CPU: &str = "cpu";

fn is_cpu(device: &str) -> bool {
    device == CPU
}

/// Plans of earlier versions do not have these keys, and a state belongs to the text of its plan.
fn is_none(spelling: &str) -> bool {
    spelling == NONE
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            objective: "clip".to_owned(),
            model: "ViT-B-32".to_owned(),
            image_size: 0,
            data: "scenes:100000".to_owned(),
            device: CPU.to_owned(),
            steps: 1000,
            batch: 128,
            micro_batch: 0,
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
            train: Part::All,
            freeze: Vec::new(),
            precision: Precision::F32,
            evaluate_every: 0,
            tensorboard: false,
            jitter: Jitter::default(),
            adversarial: None,
            noise: None,
            prior: None,
            siglip: None,
            cleanclip: None,
            evaluation: None,
        }
    }
}

impl Recipe {
    /// Reads a recipe from TOML text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TrainError> {
        let recipe = Self::read(text, path)?;
        let refuse = |reason: String| TrainError::Recipe { path: path.to_owned(), reason };
        recipe.check().map_err(refuse)?;
        Ok(recipe)
    }

    /// As [`Recipe::parse`], without a look at the values.
    pub(crate) fn read(text: &str, path: &Path) -> Result<Self, TrainError> {
        let refuse = |reason: String| TrainError::Recipe { path: path.to_owned(), reason };
        toml::from_str(text).map_err(|e| refuse(e.to_string()))
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
        self.check_values()
    }

    /// As [`Recipe::check`], of everything but the name of the objective.
    pub(crate) fn check_values(&self) -> Result<(), String> {
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
        let measured = self.evaluation.as_ref();
        if self.evaluate_every > 0
            && measured.is_none_or(|e| e.data.is_empty() && e.retrieval.is_empty())
        {
            return Err(format!(
                "evaluate_every = {}: `data` or `retrieval` in `[evaluation]` is needed",
                self.evaluate_every
            ));
        }
        self.adversarial.unwrap_or_default().check()?;
        self.noise.clone().unwrap_or_default().check()?;
        self.prior.unwrap_or_default().check()?;
        self.augmentation()?;
        self.rewording()?;
        self.siglip.unwrap_or_default().check()?;
        self.cleanclip.unwrap_or_default().check()?;
        self.jitter.check()
    }
}
