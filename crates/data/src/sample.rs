//! What a source yields: samples, undecoded until a worker thread gets to them.

use crate::{DataError, Picture, PictureError};
use std::{path::PathBuf, sync::Arc};

/// One sample, decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Unique within its source and stable between runs; random streams are keyed by it.
    pub key: String,
    /// The picture in its own size.
    pub picture: Picture,
    /// What the picture shows, in words.
    pub caption: Option<String>,
    /// Index into [`Source::classes`].
    pub label: Option<usize>,
}

/// One sample as a source hands it out: the picture is still to be decoded (on a worker thread).
#[derive(Clone, Debug)]
pub struct RawSample {
    /// Position in the source's fixed order.
    pub index: u64,
    /// See [`Sample::key`].
    pub key: String,
    /// The picture, in whatever form the source keeps it.
    pub picture: RawPicture,
    /// See [`Sample::caption`].
    pub caption: Option<String>,
    /// See [`Sample::label`].
    pub label: Option<usize>,
}

/// A picture before decoding.
#[derive(Clone)]
pub enum RawPicture {
    /// The bytes of an encoded file (JPEG, PNG, ...).
    Encoded(Vec<u8>),
    /// A file still to be read.
    File(PathBuf),
    /// Already pixels.
    Pixels(Picture),
    /// Drawn on demand (the scene corpus).
    Drawn(Arc<dyn Fn() -> Result<Picture, PictureError> + Send + Sync>),
}

impl std::fmt::Debug for RawPicture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Encoded(bytes) => write!(f, "Encoded({} bytes)", bytes.len()),
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Pixels(picture) => write!(f, "Pixels({}x{})", picture.width, picture.height),
            Self::Drawn(_) => write!(f, "Drawn"),
        }
    }
}

/// What [`Source::open`] returns: samples in the source's fixed order. A sample that cannot be
/// had is an `Err` that names it; iteration goes on behind it. Only an error for which
/// [`DataError::is_fatal`] holds ends the iteration.
pub type Samples = Box<dyn Iterator<Item = Result<RawSample, DataError>> + Send>;

/// Where samples come from.
///
/// The order of a source is fixed: the same source yields the same samples at the same positions
/// every time, so that a position is all that has to be remembered to go on later.
pub trait Source: Send + Sync {
    /// The spelling it was opened by, for messages and records.
    fn name(&self) -> &str;

    /// Number of samples, when it is known without reading everything.
    fn len(&self) -> Option<u64>;

    /// Whether the source is known to have no samples.
    fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Class names, when samples carry labels.
    fn classes(&self) -> Option<&[String]> {
        None
    }

    /// The samples from position `start` on.
    fn open(&self, start: u64) -> Result<Samples, DataError>;

    /// The sample at `index`, for sources that can be asked in any order; `None` for streams.
    fn get(&self, _index: u64) -> Option<Result<RawSample, DataError>> {
        None
    }
}
