//! What is minimised.

use crate::{Batch, ClipObjective};
use burn::tensor::Tensor;
use clipguard_model::{Clip, ModelError, Pass};

/// The model and the batch of one step.
pub struct Step<'a> {
    /// Built from this step's weights; trained parameters are leaves.
    pub clip: &'a Clip,
    /// BatchNorm mode.
    pub pass: Pass<'a>,
    /// The pairs.
    pub batch: &'a Batch,
    /// Number of the step, from 0.
    pub step: u64,
    /// The recipe's seed.
    pub seed: u64,
}

/// A training objective: a loss on a batch.
pub trait Objective: Send + Sync {
    /// The loss `[1]`, differentiable with respect to the trained parameters.
    fn loss(&self, step: &Step<'_>) -> Result<Tensor<1>, ModelError>;
}

/// An entry of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct ObjectiveInfo {
    /// Name on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// Paper.
    pub source: &'static str,
}

/// All objectives.
pub fn objectives() -> &'static [ObjectiveInfo] {
    &[ClipObjective::INFO]
}

/// The objective `name`.
pub fn objective(name: &str) -> Option<Box<dyn Objective>> {
    match name {
        "clip" => Some(Box::new(ClipObjective)),
        _ => None,
    }
}
