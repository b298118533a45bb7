//! The CLIP family: towers, checkpoints, tokenizer, preprocessing, zero-shot heads.
//!
//! The decision behind this crate: a model is a pure function of named arrays. [`Weights`] are
//! the arrays under open_clip's checkpoint keys; [`Clip`] is built from them and never changed.
//! Training builds it anew each step from the updated arrays, an attack builds it once as a
//! constant, and saving is writing the map. There is no second registry of parameters, no mode
//! flag inside a layer, no name that differs from the checkpoint's.
//!
//! Not chosen: the framework's module system (its parameters are identified by random numbers and
//! created lazily, which makes exact resume a matter of luck) and architectures as code (they are
//! open_clip's JSON, see [`config`]).

pub mod checkpoint;
mod clip;
pub mod config;
pub mod container;
mod device;
mod error;
pub mod head;
mod hub;
pub mod hugging_face;
mod infer;
mod layers;
pub mod loss;
pub mod noise;
pub mod outline;
pub mod parameters;
pub mod positions;
mod preprocess;
pub mod prior;
pub mod prompts;
mod resnet;
mod text;
pub mod tokenizer;
mod tower;
pub mod victim;
mod vit;
pub mod weights;

pub use checkpoint::Checkpoint;
pub use clip::{Clip, normalise};
pub use config::Architecture;
pub use container::Container;
pub use device::device;
pub use error::ModelError;
pub use head::Head;
pub use parameters::{Arithmetic, Parameters};
pub use preprocess::{OPENAI_MEAN, OPENAI_STD, Preprocess};
pub use prior::Prior;
pub use prompts::{ClassList, PromptError, Template, TemplateSet};
pub use resnet::{BatchStatistics, Pass};
pub use tokenizer::{Tokenizer, TokenizerOptions};
pub use victim::{Encoder, GradientMode, Query, Victim};
pub use weights::{Array, Precision, Weights};
