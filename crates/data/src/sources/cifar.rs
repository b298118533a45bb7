//! CIFAR-10 in its binary form: records of one label byte and 32x32 pixels as planes R, G, B.
//! (Krizhevsky 2009; the layout is described on the data set's page.)

use super::tar::{Input, TarReader};
use crate::{DataError, Picture, RawPicture, RawSample, Samples, Source};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const RECORD: usize = 1 + 3 * PLANE;

/// The training half has 50,000 records; an archive that holds more is not CIFAR-10.
const MOST_BYTES: u64 = 60_000 * RECORD as u64;

const CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Which half of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Split {
    /// `data_batch_*.bin` or `train_batch.bin`.
    Train,
    /// `test_batch.bin`.
    #[default]
    Test,
}

impl Split {
    fn has(self, file: &str) -> bool {
        match self {
            Self::Train => {
                (file.starts_with("data_batch_") && file.ends_with(".bin"))
                    || file == "train_batch.bin"
            }
            Self::Test => file == "test_batch.bin",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

/// CIFAR-10.
pub struct Cifar(Arc<Inner>);

struct Inner {
    name: String,
    split: Split,
    batches: Vec<Batch>,
    classes: Vec<String>,
}

struct Batch {
    records: u64,
    place: Place,
}

enum Place {
    File(PathBuf),
    Memory(Vec<u8>),
}

impl Cifar {
    /// Opens a folder with the files of the binary version, or an archive of it.
    pub fn open(name: &str, path: &Path, split: Split) -> Result<Self, DataError> {
        let facts = std::fs::metadata(path).map_err(|error| super::missing(path, error))?;
        let mut found = if facts.is_dir() { in_folder(path)? } else { in_archive(path, split)? };
        found.batches.retain(|(file, _)| split.has(file));
        found.batches.sort_by(|a, b| a.0.cmp(&b.0));
        if found.batches.is_empty() {
            let wanted = match split {
                Split::Train => "data_batch_1.bin .. data_batch_5.bin or train_batch.bin",
                Split::Test => "test_batch.bin",
            };
            let reason = format!("holds no CIFAR-10 {} files, expected {wanted}", split.name());
            return Err(DataError::refused(path, reason));
        }
        let mut batches = Vec::new();
        for (file, place) in found.batches {
            let bytes = match &place {
                Place::File(path) => {
                    std::fs::metadata(path).map_err(|error| DataError::io(path, error))?.len()
                }
                Place::Memory(bytes) => bytes.len() as u64,
            };
            if bytes % RECORD as u64 != 0 || bytes == 0 {
                let reason = format!("{file} has {bytes} bytes, expected a multiple of {RECORD}");
                return Err(DataError::refused(path, reason));
            }
            batches.push(Batch { records: bytes / RECORD as u64, place });
        }
        let classes =
            found.classes.unwrap_or_else(|| CLASSES.iter().map(|&name| name.into()).collect());
        Ok(Self(Arc::new(Inner { name: name.into(), split, batches, classes })))
    }
}

#[derive(Default)]
struct Found {
    batches: Vec<(String, Place)>,
    classes: Option<Vec<String>>,
}

impl Found {
    fn names(&mut self, text: &[u8]) {
        let names: Vec<String> = String::from_utf8_lossy(text)
            .lines()
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect();
        self.classes = (names.len() == CLASSES.len()).then_some(names);
    }
}

fn in_folder(folder: &Path) -> Result<Found, DataError> {
    let mut found = Found::default();
    // The archive unpacks into a folder of its own; take the one above as well.
    let inner = folder.join("cifar-10-batches-bin");
    let folder = if inner.is_dir() { &inner } else { folder };
    let io = |error| DataError::io(folder, error);
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if file == "batches.meta.txt" {
            let mut text = Vec::new();
            File::open(&path)
                .and_then(|file| file.take(1 << 16).read_to_end(&mut text))
                .map_err(|error| DataError::io(&path, error))?;
            found.names(&text);
        } else if path.is_file() {
            found.batches.push((file, Place::File(path)));
        }
    }
    Ok(found)
}

/// Reads the wanted half into memory: packed archives have no random access, and all of CIFAR-10
/// is smaller than one batch of photographs.
fn in_archive(path: &Path, split: Split) -> Result<Found, DataError> {
    let mut tar = TarReader::new(Input::open(&crate::blob::Blob::on_disk(path)?)?);
    let damaged = |damage: super::tar::Damage| DataError::Refused {
        path: path.into(),
        reason: format!("{} (at byte {})", damage.reason, damage.position),
    };
    let mut found = Found::default();
    let mut total = 0u64;
    loop {
        let entry = match tar.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(found),
            Err(damage) => return Err(damaged(damage)),
        };
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        let file = name.rsplit('/').next().unwrap_or_default().to_owned();
        if !entry.is_file {
            continue;
        }
        if file == "batches.meta.txt" && entry.size < 1 << 16 {
            found.names(&tar.read_body(entry.size).map_err(damaged)?);
        } else if split.has(&file) {
            total = total.saturating_add(entry.size);
            if total > MOST_BYTES {
                let reason =
                    format!("holds {total} bytes of records, CIFAR-10 at most {MOST_BYTES}");
                return Err(DataError::refused(path, reason));
            }
            let body = tar.read_body(entry.size).map_err(damaged)?;
            found.batches.push((file, Place::Memory(body)));
        }
    }
}

impl Source for Cifar {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn len(&self) -> Option<u64> {
        Some(self.0.batches.iter().map(|batch| batch.records).sum())
    }

    fn classes(&self) -> Option<&[String]> {
        Some(&self.0.classes)
    }

    fn open(&self, start: u64) -> Result<Samples, DataError> {
        let inner = self.0.clone();
        let end = self.len().unwrap_or(0);
        let mut open = None;
        Ok(Box::new((start.min(end)..end).map(move |index| inner.sample(index, &mut open))))
    }

    fn get(&self, index: u64) -> Option<Result<RawSample, DataError>> {
        (Some(index) < self.len()).then(|| self.0.sample(index, &mut None))
    }
}

impl Inner {
    /// The record at `index`; `open` keeps the file from one call to the next.
    fn sample(&self, index: u64, open: &mut Option<(usize, File)>) -> Result<RawSample, DataError> {
        let (mut batch, mut at) = (0, index);
        while at >= self.batches[batch].records {
            at -= self.batches[batch].records;
            batch += 1;
        }
        let mut record = [0; RECORD];
        match &self.batches[batch].place {
            Place::Memory(bytes) => {
                let start = at as usize * RECORD;
                record.copy_from_slice(&bytes[start..start + RECORD]);
            }
            Place::File(path) => {
                let io = |error| DataError::io(path, error);
                if open.as_ref().is_none_or(|(number, _)| *number != batch) {
                    *open = Some((batch, File::open(path).map_err(io)?));
                }
                if let Some((_, file)) = open {
                    file.seek(SeekFrom::Start(at * RECORD as u64)).map_err(io)?;
                    file.read_exact(&mut record).map_err(io)?;
                }
            }
        }
        let key = format!("{}/{index:05}", self.split.name());
        let label = usize::from(record[0]);
        if label >= self.classes.len() {
            let reason = format!("label {label}, expected 0 to {}", self.classes.len() - 1);
            return Err(DataError::Sample { key, reason });
        }
        let planes = &record[1..];
        let rgb = (0..PLANE)
            .flat_map(|i| [planes[i], planes[PLANE + i], planes[2 * PLANE + i]])
            .collect();
        let picture = Picture { width: SIDE as u32, height: SIDE as u32, rgb };
        Ok(RawSample {
            index,
            key,
            picture: RawPicture::Pixels(picture),
            caption: None,
            label: Some(label),
        })
    }
}
