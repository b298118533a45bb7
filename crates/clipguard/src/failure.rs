//! How a command ends when it does not end well: a message and an exit code.

use clipguard_data::{DataError, spelling::SpellingError};
use clipguard_evaluate::{EvaluateError, RecordError};
use clipguard_model::{ModelError, PromptError};
use clipguard_purify::PurifyError;
use clipguard_train::TrainError;
use std::{fmt, io, path::Path};

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Exit 1: failed on the way; state is kept, the message says how to go on.
    Failed(String),
    /// Exit 2: wrong usage.
    Usage(String),
    /// Exit 3: an input was refused; the message says which file, what, where.
    Refused(String),
    /// Exit 130: interrupted; state is kept, the message says how to go on.
    Interrupted(String),
}

impl Failure {
    /// The exit code of the process.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
            Self::Interrupted(_) => 130,
        }
    }

    /// A file of the user that cannot be read.
    pub(crate) fn reading(path: &Path, error: &io::Error) -> Self {
        Self::Refused(format!("{}: {error}", path.display()))
    }

    /// An output that cannot be written.
    pub(crate) fn writing(path: &Path, error: &io::Error) -> Self {
        Self::Failed(format!("{}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(text)
            | Self::Usage(text)
            | Self::Refused(text)
            | Self::Interrupted(text) => f.write_str(text),
        }
    }
}

/// Whether the system ran out of something or forbade writing, as opposed to a wrong input.
fn is_environment(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::WriteZero
            | io::ErrorKind::FileTooLarge
    )
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        let text = error.to_string();
        match error {
            ModelError::UnknownArchitecture { .. }
            | ModelError::Resize { .. }
            | ModelError::Device { .. } => Self::Usage(text),
            ModelError::Write { .. } | ModelError::Hub { code: "hub_unreachable", .. } => {
                Self::Failed(text)
            }
            ModelError::Io { source, .. } if is_environment(&source) => Self::Failed(text),
            _ => Self::Refused(text),
        }
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        let text = error.to_string();
        match error {
            DataError::Spelling { .. } => Self::Usage(text),
            DataError::Panic { .. } | DataError::Write { .. } => Self::Failed(text),
            _ => Self::Refused(text),
        }
    }
}

impl From<SpellingError> for Failure {
    fn from(error: SpellingError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<PurifyError> for Failure {
    fn from(error: PurifyError) -> Self {
        let text = error.to_string();
        match error {
            PurifyError::Prior { .. } => Self::Refused(text),
            _ => Self::Usage(text),
        }
    }
}

impl From<PromptError> for Failure {
    fn from(error: PromptError) -> Self {
        let text = error.to_string();
        match error {
            PromptError::Unknown { .. } => Self::Usage(text),
            _ => Self::Refused(text),
        }
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        let text = error.to_string();
        match error {
            TrainError::Model(error) => error.into(),
            TrainError::Data(error) => error.into(),
            TrainError::Diverged { .. } | TrainError::Examination { .. } => Self::Failed(text),
            TrainError::Io { source, .. } if is_environment(&source) => Self::Failed(text),
            TrainError::Recipe { .. } | TrainError::Folder { .. } | TrainError::Io { .. } => {
                Self::Refused(text)
            }
        }
    }
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        match &error {
            RecordError::Line { .. } => Self::Refused(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<EvaluateError> for Failure {
    fn from(error: EvaluateError) -> Self {
        let text = error.to_string();
        match error {
            EvaluateError::Model(error) => error.into(),
            EvaluateError::Data(error) => error.into(),
            EvaluateError::Prompts(error) => error.into(),
            EvaluateError::Spelling(error) => error.into(),
            EvaluateError::Purify(error) => error.into(),
            EvaluateError::Record(error) => error.into(),
            EvaluateError::Stopped | EvaluateError::TimeUp => Self::Interrupted(text),
            EvaluateError::Metric(_) => Self::Failed(text),
            EvaluateError::Plan { .. }
            | EvaluateError::File { .. }
            | EvaluateError::Coupled(_)
            | EvaluateError::Study(_)
            | EvaluateError::Folder { .. }
            | EvaluateError::NoLabels(_)
            | EvaluateError::TooFewClasses { .. }
            | EvaluateError::OtherSize { .. } => Self::Refused(text),
        }
    }
}
