//! What can be wrong with a model.

use std::path::PathBuf;

/// Why a model could not be read, built, used or written.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A container of tensors that is broken, hostile or of a kind that is not read.
    #[error("{}: {reason}", path.display())]
    Container {
        /// The file.
        path: PathBuf,
        /// A stable code for programs, such as `unsafe_callable`.
        code: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A repository of the hub that cannot be had or is not believed.
    #[error("hf:{repository}: {reason}")]
    Hub {
        /// `ORG/NAME`.
        repository: String,
        /// A stable code for programs, such as `hub_offline`.
        code: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A configuration that is not understood.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// An architecture nobody knows.
    #[error("unknown architecture `{name}`{}", hint(suggestion))]
    UnknownArchitecture {
        /// What was asked for.
        name: String,
        /// The nearest name.
        suggestion: Option<String>,
    },
    /// A spelling that names no model.
    #[error("{spelling}: {reason}")]
    Spelling {
        /// What was asked for.
        spelling: String,
        /// What would be right.
        reason: String,
    },
    /// A place to compute that cannot be had.
    #[error("device {spelling}: {reason}")]
    Device {
        /// What was asked for.
        spelling: String,
        /// What is wrong.
        reason: String,
    },
    /// Weights of another architecture.
    #[error("{}: the weights do not fit the architecture; missing: {missing}; unexpected: {extra}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// Up to ten names.
        missing: String,
        /// Up to ten names.
        extra: String,
    },
    /// A picture tower without a text tower.
    #[error(
        "{}: a picture tower without a text tower; class names need one: put it over the model it \
         was tuned from (`MODEL+FILE`)", path.display()
    )]
    NoTexts {
        /// The file.
        path: PathBuf,
    },
    /// A parameter that is asked for and not there.
    #[error("the weights lack `{name}`")]
    Missing {
        /// Its name.
        name: String,
    },
    /// Token ids that do not fit the text tower.
    #[error("tokens: {0}")]
    Tokens(String),
    /// A model that cannot be brought to another size.
    #[error("{name}: {reason}")]
    Resize {
        /// The model.
        name: String,
        /// What was asked for, and what would be possible.
        reason: String,
    },
    /// Class names or templates that make no head.
    #[error("zero-shot head: {0}")]
    Head(String),
    /// Weights could not be serialised.
    #[error("cannot serialise the weights: {reason}")]
    Write {
        /// The writer's reason.
        reason: String,
    },
}

fn hint(suggestion: &Option<String>) -> String {
    match suggestion {
        Some(name) => format!("; did you mean `{name}`?"),
        None => "; `clipguard inspect --architectures` lists the built-in ones".to_owned(),
    }
}
