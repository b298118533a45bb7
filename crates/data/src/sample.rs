//! What a source yields: samples, undecoded until a worker thread gets to them.

use crate::{DataError, Decoded, Limits, Picture, PictureError, Pixels};
use sha2::{Digest, Sha256};
use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

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

/// Fetches the bytes of an encoded file.
pub type Fetch = Arc<dyn Fn(&Limits) -> Result<Vec<u8>, PictureError> + Send + Sync>;

/// A picture before decoding.
#[derive(Clone)]
pub enum RawPicture {
    /// The bytes of an encoded file (JPEG, PNG, ...).
    Encoded(Vec<u8>),
    /// A file still to be read.
    File(PathBuf),
    /// The bytes of an encoded file, still to be fetched.
    Fetched(Fetch),
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
            Self::Fetched(_) => write!(f, "Fetched"),
            Self::Pixels(picture) => write!(f, "Pixels({}x{})", picture.width, picture.height),
            Self::Drawn(_) => write!(f, "Drawn"),
        }
    }
}

impl RawPicture {
    /// The picture in the mode of its file. Reads the file if it has not been read.
    pub fn decode(&self, limits: &Limits) -> Result<Decoded, PictureError> {
        let picture = match self {
            Self::Encoded(bytes) => return Picture::decode(bytes, limits),
            Self::File(path) => return Picture::decode(&read(path, limits)?, limits),
            Self::Fetched(fetch) => return Picture::decode(&fetch(limits)?, limits),
            Self::Pixels(picture) => picture.clone(),
            Self::Drawn(draw) => draw()?,
        };
        let Picture { width, height, rgb } = picture;
        Ok(Decoded { width, height, pixels: Pixels::Rgb(rgb), notes: Vec::new() })
    }

    /// The bytes of the encoded file, if there is one; a file is read, a distant one fetched.
    pub(crate) fn encoded(&self, limits: &Limits) -> Result<Option<Vec<u8>>, PictureError> {
        match self {
            Self::Encoded(bytes) => Ok(Some(bytes.clone())),
            Self::File(path) => read(path, limits).map(Some),
            Self::Fetched(fetch) => fetch(limits).map(Some),
            Self::Pixels(_) | Self::Drawn(_) => Ok(None),
        }
    }
}

/// Reads a picture file, unless it is larger than it may be or not a file at all (a pipe would
/// never end).
fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>, PictureError> {
    let io = |source| PictureError::Io { path: path.into(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    let facts = file.metadata().map_err(io)?;
    if !facts.is_file() {
        return Err(PictureError::NotAPicture("a folder, pipe or device".into()));
    }
    limits.check_bytes(facts.len())?;
    let mut bytes = Vec::with_capacity(facts.len() as usize);
    // A file that grows meanwhile is cut one byte behind the limit, and then refused.
    file.take(limits.bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

impl RawSample {
    /// The picture in the mode of its file; the error names the sample.
    pub fn decode_picture(&self, limits: &Limits) -> Result<Decoded, DataError> {
        self.picture
            .decode(limits)
            .map_err(|source| DataError::Picture { key: self.key.clone(), source })
    }

    /// The sample with its picture in RGB.
    pub fn decode(self, limits: &Limits) -> Result<Sample, DataError> {
        let picture = match self.picture {
            RawPicture::Pixels(picture) => picture,
            _ => self.decode_picture(limits)?.into_picture(),
        };
        Ok(Sample { key: self.key, picture, caption: self.caption, label: self.label })
    }
}

/// A plain file name (no extension) for whatever is written about the sample `key`.
///
/// Keys come from untrusted archives. The name holds letters, digits, `-`, `_` and inner dots
/// only, is never empty nor longer than 100 bytes, and different keys get different names: where
/// characters were replaced, a digest of the key is appended.
pub fn file_name(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = (1..=64).contains(&key.len()) && key.chars().all(plain);
    // The marks keep a plain key from looking like another one with its digest.
    if fits && !key.starts_with('.') && !key.ends_with('.') && !key.contains("--") {
        return key.into();
    }
    let replaced: String = key
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .skip_while(|&c| c == '.' || c == '_')
        .take(64)
        .collect();
    let digest = Sha256::digest(key.as_bytes());
    let tail: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{replaced}--{tail}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_file_names_that_stay_where_they_are_put() {
        assert_eq!(file_name("000123"), "000123");
        assert_eq!(file_name("a.b-c_d"), "a.b-c_d");
        for key in ["../../etc/passwd", "/etc/passwd", "a/b", "..", ".", "", "a\0b", "C:\\x", "ä"]
        {
            let name = file_name(key);
            assert!(!name.contains(['/', '\\', '\0', ':']) && !name.starts_with('.'), "{name}");
            assert!(name.len() <= 100 && name.len() >= 18, "{name}");
        }
        assert_ne!(file_name("a/b"), file_name("a_b"));
        assert_ne!(file_name("a/b"), file_name("a\\b"));
        // Not even by guessing the digest.
        assert_ne!(file_name(&file_name("a/b")), file_name("a/b"));
    }

    #[test]
    fn files_are_read_within_limits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        std::fs::write(&path, [0; 100]).unwrap();
        let decode = |path: &Path, bytes| {
            let limits = Limits { bytes, ..Limits::default() };
            RawPicture::File(path.into()).decode(&limits).unwrap_err().to_string()
        };
        assert!(decode(&path, 99).contains("100 bytes"));
        assert!(decode(&path, 100).contains("not a picture"));
        assert!(decode(&folder.path().join("b.png"), 9).contains("b.png"));
        assert!(decode(folder.path(), 9).contains("folder"));
    }
}
