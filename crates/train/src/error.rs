//! What can go wrong in training.

use clipguard_data::DataError;
use clipguard_model::ModelError;
use std::path::PathBuf;

/// Why a run could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A recipe that makes no sense.
    #[error("{}: {reason}", path.display())]
    Recipe {
        /// The file, or `command line`.
        path: PathBuf,
        /// Key, value, and what would be right.
        reason: String,
    },
    /// A run folder that cannot be used.
    #[error("{}: {reason}", path.display())]
    Folder {
        /// The folder or a file in it.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The evaluation on the way.
    #[error("evaluation after step {step}: {source}; the state of step {saved} is kept")]
    Examination {
        /// The step.
        step: u64,
        /// The last saved step.
        saved: u64,
        /// Why it stopped.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The numbers left the ground.
    #[error(
        "step {step}: the loss is {loss}; lower `lr` or raise `warmup`, the state of step {saved} is kept"
    )]
    Diverged {
        /// The step.
        step: u64,
        /// Its loss.
        loss: f32,
        /// The last saved step.
        saved: u64,
    },
}
