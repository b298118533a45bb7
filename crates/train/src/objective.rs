//! What is minimised.

use crate::{
    Batch, CleanClip, ClipObjective, Contrast, DiffusionPrior, Fare, Figure, Needs, Noise, Recipe,
    Siglip, Start, Tecoa, TrainError, decays,
};
use burn::tensor::{Device, Tensor};
use clipguard_model::{
    Architecture, Checkpoint, Clip, ModelError, Parameters, Pass, Precision, Preprocess, Weights,
    parameters::is_buffer,
};
use std::path::Path;

/// The model and the batch of one step.
pub struct Step<'a> {
    /// This step's weights as tensors; trained parameters are leaves.
    pub parameters: &'a Parameters,
    /// The same weights as arrays.
    pub weights: &'a Weights,
    /// The architecture of the CLIP model the run starts from.
    pub architecture: &'a Architecture,
    /// How pictures are prepared for it.
    pub preprocess: &'a Preprocess,
    /// BatchNorm mode.
    pub pass: Pass<'a>,
    /// Where to compute.
    pub device: &'a Device,
    /// The pairs.
    pub batch: &'a Batch,
    /// Number of the step, from 0.
    pub step: u64,
    /// The recipe's seed.
    pub seed: u64,
}

impl Step<'_> {
    /// The CLIP model of the parameters, for objectives that train one.
    pub fn clip(&self) -> Result<Clip, ModelError> {
        let device = self.device.clone().autodiff();
        Clip::from_parameters(self.architecture, self.preprocess, self.parameters, &device)
    }

    /// The same model as a constant, for an attack on it.
    pub fn constant_clip(&self) -> Result<Clip, ModelError> {
        Clip::new(self.architecture, self.preprocess, self.weights, self.device)
    }
}

/// A training objective: a loss on a batch, and which weights it trains.
pub trait Objective: Send + Sync {
    /// The loss `[1]`, differentiable with respect to the trained parameters.
    fn loss(&self, step: &Step<'_>) -> Result<Tensor<1>, ModelError>;

    /// What else is to be told of a step whose metrics are written; must follow from the step
    /// alone.
    ///
    /// # Errors
    /// Whatever [`Objective::loss`] may fail with.
    fn figures(&self, step: &Step<'_>) -> Result<Vec<Figure>, ModelError> {
        let _ = step;
        Ok(Vec::new())
    }

    /// The loss as one on the embeddings of pairs, where it is: then a batch can be computed in
    /// parts (`micro_batch`) with the gradient of the whole.
    fn contrast(&self) -> Option<&dyn Contrast> {
        None
    }

    /// The architecture the run trains, from that of the CLIP model it starts from.
    fn architecture(&self, clip: Architecture) -> Architecture {
        clip
    }

    /// The weights of the run before its first step, from those of the CLIP model it starts from:
    /// these, or those of another model that is trained for it.
    fn weights(&self, clip: Weights) -> Weights {
        clip
    }

    /// Whether the parameter `name` is trained; all others keep their bits.
    fn trains(&self, name: &str) -> bool {
        !is_buffer(name)
    }

    /// Whether a parameter decays.
    fn decays(&self, name: &str, shape: &[usize]) -> bool {
        decays(name, shape)
    }

    /// What a sample must have; others are skipped.
    fn needs(&self) -> Needs {
        Needs::Caption
    }

    /// Whether a batch holds every pair twice: as it is in the first half of its rows, and in the
    /// second half, in the same order, as the recipe augments and rewords it.
    fn second_views(&self) -> bool {
        false
    }

    /// Digest of a model that the objective holds beside the trained weights. It is no part of the
    /// state, and a state is only continued beside the same one.
    fn keeps(&self) -> Option<&str> {
        None
    }

    /// Writes the finished model, whose weights are the trained ones, to a folder.
    fn save(
        &self,
        model: &Checkpoint,
        folder: &Path,
        precision: Precision,
    ) -> Result<(), ModelError> {
        model.save(folder, precision)
    }
}

/// What an objective is built of.
pub struct Beginning<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Its file, for messages.
    pub path: &'a Path,
    /// Where the run computes.
    pub device: &'a Device,
    /// Class names of the data, where it has any.
    pub classes: Option<&'a [String]>,
    /// The model the run starts from; asked for only by objectives that keep it.
    pub start: &'a dyn Fn() -> Result<Start, TrainError>,
}

impl Beginning<'_> {
    /// A refusal of the recipe.
    pub fn refuse(&self, reason: impl Into<String>) -> TrainError {
        TrainError::Recipe { path: self.path.to_owned(), reason: reason.into() }
    }
}

/// Makes the objective of a run; may hold settings, unlike an entry of the catalogue.
pub type Build<'a> = dyn Fn(&Beginning<'_>) -> Result<Box<dyn Objective>, TrainError> + 'a;

/// An entry of the catalogue.
#[derive(Clone, Copy)]
pub struct ObjectiveInfo {
    /// Name on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// Paper.
    pub source: &'static str,
    /// Writes the recipe's section for it out, where there is one and it is left out.
    pub complete: fn(&mut Recipe),
    /// Makes the objective.
    pub build: fn(&Beginning<'_>) -> Result<Box<dyn Objective>, TrainError>,
}

impl ObjectiveInfo {
    /// What a recipe has for it beside what all recipes have, with its defaults, as TOML.
    pub fn settings(&self) -> String {
        let mut own = Recipe::default();
        (self.complete)(&mut own);
        let table = |recipe: &Recipe| recipe.to_toml().parse::<toml::Table>().unwrap_or_default();
        let (mut own, all) = (table(&own), table(&Recipe::default()));
        own.retain(|key, value| all.get(key) != Some(value));
        own.to_string()
    }
}

/// All objectives.
pub fn objectives() -> &'static [ObjectiveInfo] {
    &[
        ClipObjective::INFO,
        Siglip::INFO,
        CleanClip::INFO,
        DiffusionPrior::INFO,
        Tecoa::INFO,
        Fare::INFO,
        Noise::INFO,
    ]
}

/// The objective `name`.
pub fn objective(name: &str) -> Option<&'static ObjectiveInfo> {
    objectives().iter().find(|info| info.name == name)
}
