//! One trainer; one file an objective.
//!
//! The decision behind this crate: a training run is a function of its recipe. What happens in
//! step `s` depends on the recipe, the weights and moments after step `s - 1`, and `s` itself;
//! the order of the samples, the augmentation of each and the learning rate are computed from
//! `s`, never carried along. So the state to be saved is three sets of arrays and two counters, and
//! a run that was killed and resumed ends in the same bytes as one that was not.
//!
//! An [`Objective`] says what is minimised on a batch: one of the catalogue ([`Run::start`]), or
//! the caller's own ([`Run::start_with`]). Everything else exists once, here: the order of samples,
//! decoding ahead of the step, the optimiser, clipping, schedules, BatchNorm's running statistics,
//! checkpoints, metrics.
//!
//! Not chosen: the framework's optimisers and records (their state is keyed by random parameter
//! identifiers and is dropped without a word when they do not match).

mod adversarial;
mod augment;
mod batches;
mod clean_clip;
mod clip;
pub mod contrast;
mod diffusion_prior;
mod error;
mod examine;
mod fare;
mod gradients;
mod names;
mod noise;
mod objective;
mod optimiser;
mod recipe;
mod run;
mod selection;
mod siglip;
mod start;
mod state;
mod tecoa;
mod tensorboard;

#[cfg(test)]
#[path = "../../../tests/golden/reader.rs"]
mod reader;

pub use augment::Jitter;
pub use batches::{Batch, Batches, Needs};
pub use clean_clip::CleanClip;
pub use clip::ClipObjective;
pub use contrast::Contrast;
pub use diffusion_prior::{DiffusionPrior, PRIOR};
pub use error::TrainError;
pub use examine::{Examine, Figure};
pub use fare::Fare;
pub use noise::Noise;
pub use objective::{Beginning, Build, Objective, ObjectiveInfo, Step, objective, objectives};
pub use optimiser::{AdamW, decays, learning_rate};
pub use recipe::{
    Adversarial, CleanClipRecipe, EvaluationRecipe, NoiseRecipe, PriorRecipe, Recipe, SiglipRecipe,
};
pub use run::{Outcome, Run, Watch};
pub use selection::Part;
pub use siglip::Siglip;
pub use start::Start;
pub use state::State;
pub use tecoa::Tecoa;
