//! Pictures, captions and where they come from: sources, decoding, resizing, the scene corpus.

pub mod picture;
pub mod random;
pub mod sample;
pub mod spelling;

pub use picture::{Picture, PictureError};
pub use random::Stream;
pub use sample::{RawPicture, RawSample, Sample, Samples, Source};

/// What went wrong while reading data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A picture that cannot be decoded.
    #[error("{key}: {source}")]
    Picture {
        /// Key of the sample.
        key: String,
        /// The reason.
        source: PictureError,
    },
}

impl DataError {
    /// Whether nothing can follow (the source itself is broken), as opposed to one bad sample.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Picture { .. } => false,
        }
    }
}
