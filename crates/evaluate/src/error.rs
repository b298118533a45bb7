//! Why an evaluation could not be made.

use crate::{MetricError, RecordError};
use clipguard_data::{DataError, spelling::SpellingError};
use clipguard_model::{ModelError, PromptError};
use clipguard_purify::PurifyError;
use std::path::PathBuf;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// A model to transfer from that takes pictures of another size.
    #[error(
        "transfer-from: {model} takes pictures of {theirs} pixels, the model of the plan of {ours}; \
         both must take the same"
    )]
    OtherSize {
        /// The model.
        model: String,
        /// Its input side.
        theirs: u32,
        /// The side of the model under attack.
        ours: u32,
    },
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Class names or templates.
    #[error(transparent)]
    Prompts(#[from] PromptError),
    /// The spelling of a method.
    #[error(transparent)]
    Spelling(#[from] SpellingError),
    /// A purifier.
    #[error(transparent)]
    Purify(#[from] PurifyError),
    /// Records.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Scores and labels that do not fit together.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// A plan that makes no sense.
    #[error("{}: {reason}", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// Key, value, and what would be right.
        reason: String,
    },
    /// A file that is not what it should be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was found and what would be right.
        reason: String,
    },
    /// A run folder that cannot be used.
    #[error("{}: {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A source without labels or names for them.
    #[error("{0}: no labelled samples; class folders, `.cls` members or a labelled set are needed")]
    NoLabels(String),
    /// Labels and class names that do not fit.
    #[error("{data}: labels go up to {label}, but there are {classes} class names")]
    TooFewClasses {
        /// The source.
        data: String,
        /// Largest label.
        label: usize,
        /// Number of names.
        classes: usize,
    },
    /// A plan whose result would depend on the shards.
    #[error(
        "defence `{0}`: its published protocol couples the pictures of a batch, and shards make other batches; run it whole, or take `published` out of the plan"
    )]
    Coupled(String),
    /// A detector that cannot be evaluated as the plan asks.
    #[error("detect: {0}")]
    Study(String),
    /// The time that was given is over.
    #[error("the time is up; finished parts are kept")]
    TimeUp,
    /// Somebody asked to stop.
    #[error("stopped; finished parts are kept")]
    Stopped,
}
