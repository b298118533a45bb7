//! A file, wherever it lies: on a disk, or behind an URL.

use crate::{
    DataError, Limits, PictureError, RawPicture,
    remote::{self, Object},
};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A file of known length. Cloning copies no data.
#[derive(Clone)]
pub(crate) struct Blob {
    /// Its path or URL, for messages.
    path: PathBuf,
    length: u64,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Disk,
    Remote(Arc<Object>),
}

impl Blob {
    /// Finds the file a path or an URL names.
    pub(crate) fn open(spelling: &str) -> Result<Self, DataError> {
        if !remote::is_url(spelling) {
            return Self::on_disk(Path::new(spelling));
        }
        let object = Object::find(spelling)?;
        let (path, length) = (spelling.into(), object.length());
        Ok(Self { path, length, place: Place::Remote(Arc::new(object)) })
    }

    /// Finds a file on a disk.
    pub(crate) fn on_disk(path: &Path) -> Result<Self, DataError> {
        let facts = std::fs::metadata(path).map_err(|error| DataError::io(path, error))?;
        if !facts.is_file() {
            return Err(DataError::refused(path, "is not a file"));
        }
        Ok(Self { path: path.into(), length: facts.len(), place: Place::Disk })
    }

    /// Its path or URL.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes, when it was found.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Whether reading it here and there is expensive.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.place, Place::Remote(_))
    }

    /// Reads from `start` on.
    pub(crate) fn reader(&self, start: u64) -> io::Result<Reader> {
        match &self.place {
            Place::Disk => {
                let mut file = File::open(&self.path)?;
                file.seek(SeekFrom::Start(start))?;
                Ok(Reader::Disk(file))
            }
            Place::Remote(object) => Ok(Reader::Remote(object.clone().reader(start))),
        }
    }

    /// `length` bytes from `start` on; `UnexpectedEof` if there are fewer.
    pub(crate) fn read_at(&self, start: u64, length: usize) -> io::Result<Vec<u8>> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &self.place {
            Place::Remote(object) => object.read_at(start, length),
            Place::Disk => {
                let mut bytes = vec![0; length];
                self.reader(start)?.read_exact(&mut bytes)?;
                Ok(bytes)
            }
        }
    }

    /// The picture that something in this file calls `name`, beside it or below.
    pub(crate) fn picture(&self, name: &str) -> RawPicture {
        let Place::Remote(_) = self.place else {
            let folder = self.path.parent().unwrap_or(Path::new(""));
            return RawPicture::File(folder.join(name));
        };
        let (own, name) = (self.path.to_string_lossy().into_owned(), name.to_owned());
        RawPicture::Fetched(Arc::new(move |limits: &Limits| fetch(&own, &name, limits)))
    }
}

/// A picture behind an URL that a table behind an URL names. What a stranger's table says must
/// not lead to other servers, nor to files of this machine.
fn fetch(table: &str, name: &str, limits: &Limits) -> Result<Vec<u8>, PictureError> {
    let path = PathBuf::from(name);
    let refuse = |reason: &str| PictureError::Io {
        path: path.clone(),
        source: io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned()),
    };
    let climbs = name.split(['/', '\\']).any(|part| part == "..");
    if climbs || name.starts_with('/') || name.contains(':') {
        return Err(refuse("a table behind an URL names pictures beside it or below"));
    }
    let folder = table.rsplit_once('/').map_or("", |(folder, _)| folder);
    let blob = Blob::open(&format!("{folder}/{name}")).map_err(|e| refuse(&e.to_string()))?;
    limits.check_bytes(blob.len())?;
    let length = usize::try_from(blob.len()).unwrap_or(usize::MAX);
    blob.read_at(0, length).map_err(|source| PictureError::Io { path: path.clone(), source })
}

/// Reads a [`Blob`] from front to back, and elsewhere when told to.
pub(crate) enum Reader {
    Disk(File),
    Remote(remote::Reader),
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Disk(file) => file.read(buffer),
            Self::Remote(reader) => reader.read(buffer),
        }
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::Disk(file) => file.seek(to),
            Self::Remote(reader) => reader.seek(to),
        }
    }
}
