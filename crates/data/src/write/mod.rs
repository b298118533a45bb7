//! Data out: any source as WebDataset shards, as Parquet files, or as a folder of PNG.
//!
//! A source is cut by positions: shard `k` holds what is good among the positions from `k * n` to
//! `(k + 1) * n`. So a shard depends on nothing but its part of the source, an export that was
//! interrupted goes on with the shard it was at, and the same source gives the same bytes. A shard
//! appears under its name when it is whole. Pictures that come as files stay the files they are;
//! those that come as pixels become PNG.

mod parquet;
mod png;
mod webdataset;

pub use parquet::{Column, write_columns};

use crate::{
    Area, DataError, Interpolation, Limits, Loader, LoaderOptions, Picture, RawSample, Skipped,
    Source, resize,
};
use image::{
    ExtendedColorType, ImageEncoder,
    codecs::png::{CompressionType, FilterType, PngEncoder},
};
use serde::{Deserialize, Serialize};
use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// The file in which an export keeps how far it is.
const STATE: &str = "export.json";

/// What an export writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Tar archives of `KEY.jpg`, `KEY.txt`, `KEY.cls`, `KEY.json`.
    WebDataset,
    /// Parquet files with the columns `key`, `image`, `caption`, `label`, in the layout of Hugging
    /// Face's `datasets`.
    Parquet,
    /// PNG files with a text file beside each, in a folder for each class.
    Png,
}

/// How an export is made.
#[derive(Clone, Debug)]
pub struct Export {
    /// What to write.
    pub format: Format,
    /// Positions of the source in a shard, at least 1.
    pub per_shard: u64,
    /// Shrink pictures to this shorter side, at least 1, and keep their shape; all become PNG.
    pub side: Option<u32>,
    /// What one picture may cost.
    pub limits: Limits,
    /// Threads; 0 means all cores.
    pub threads: usize,
    /// Fail at the first bad sample instead of leaving it out.
    pub strict: bool,
}

/// What an export did, this time and before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Samples written in all.
    pub samples: u64,
    /// Shards that hold them; for PNG, steps.
    pub shards: u64,
    /// Samples left out this time.
    pub skipped: Skipped,
    /// Whether nothing is left to do.
    pub finished: bool,
}

/// How far an export is, and what it was told to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    source: String,
    format: Format,
    per_shard: u64,
    side: Option<u32>,
    /// Shards behind us, empty ones too.
    done: u64,
    written: u64,
    samples: u64,
    finished: bool,
}

/// A sample on its way into a file.
struct Entry {
    position: u64,
    key: String,
    /// An encoded picture.
    picture: Vec<u8>,
    /// What it is encoded as.
    extension: &'static str,
    caption: Option<String>,
    label: Option<usize>,
}

/// What the writers of the formats know of the source.
struct About<'a> {
    classes: Option<&'a [String]>,
    captions: bool,
    labels: bool,
}

/// A shard that is being written.
trait Shard {
    fn push(&mut self, entry: Entry) -> Result<(), DataError>;

    /// Gives the shard its name.
    fn finish(self: Box<Self>) -> Result<(), DataError>;
}

impl Export {
    /// Writes `source` into `folder`, or goes on with what was begun there. Ends early when `stop`
    /// is set; `progress` is called for every sample that is written, `on_skip` for every one left out.
    ///
    /// # Errors
    /// A folder that holds another export, and whatever keeps from reading or writing.
    pub fn run(
        &self,
        source: &dyn Source,
        folder: &Path,
        stop: &AtomicBool,
        mut progress: impl FnMut(),
        on_skip: impl FnMut(&DataError) + Send + 'static,
    ) -> Result<Exported, DataError> {
        std::fs::create_dir_all(folder).map_err(|e| DataError::write(folder, e))?;
        let mut state = self.state(source, folder)?;
        if state.finished {
            return Ok(state.told(Skipped::default()));
        }
        if let Some(classes) = source.classes().filter(|_| self.format == Format::WebDataset) {
            write_whole(&folder.join("classes.txt"), &class_list(classes))?;
        }
        let first = source.open(0)?.find_map(Result::ok);
        let about = About {
            classes: source.classes(),
            captions: first.as_ref().is_some_and(|sample| sample.caption.is_some()),
            labels: source.classes().is_some()
                || first.as_ref().is_some_and(|sample| sample.label.is_some()),
        };
        let options = LoaderOptions {
            threads: self.threads,
            strict: self.strict,
            start: state.done * self.per_shard,
            ..LoaderOptions::default()
        };
        let own = self.clone();
        let loader = Loader::new(source, options, move |raw| own.entry(raw))?;
        let mut loader = loader.on_skip(on_skip);
        let mut open: Option<Box<dyn Shard>> = None;
        let (mut number, mut count) = (state.done, 0);
        while !stop.load(Ordering::Relaxed) {
            let entry = loader.next().transpose()?;
            let here = entry.as_ref().map(|entry| entry.position / self.per_shard);
            if here != Some(number) {
                state.written += u64::from(open.is_some());
                open.take().map_or(Ok(()), Shard::finish)?;
                state.samples += count;
                state.done = here.unwrap_or(number + 1);
                state.finished = here.is_none();
                state.save(folder)?;
                count = 0;
            }
            let Some(entry) = entry else { break };
            number = entry.position / self.per_shard;
            let shard = match &mut open {
                Some(shard) => shard,
                None => open.insert(self.shard(folder, number, &about)?),
            };
            shard.push(entry)?;
            count += 1;
            progress();
        }
        Ok(state.told(loader.skipped().clone()))
    }

    /// What was begun in a folder, or a beginning.
    fn state(&self, source: &dyn Source, folder: &Path) -> Result<State, DataError> {
        let fresh = State {
            source: source.name().to_owned(),
            format: self.format,
            per_shard: self.per_shard,
            side: self.side,
            done: 0,
            written: 0,
            samples: 0,
            finished: false,
        };
        let path = folder.join(STATE);
        let refuse = |reason: &str| DataError::refused(&path, reason);
        let Ok(bytes) = std::fs::read(&path) else {
            let mut entries = std::fs::read_dir(folder).map_err(|e| DataError::io(folder, e))?;
            // Temporary files of an export that was killed are no other data.
            let foreign = entries.any(|entry| {
                entry.is_ok_and(|e| !e.file_name().to_string_lossy().starts_with(".part-"))
            });
            return match foreign {
                true => Err(DataError::refused(folder, "is not empty; name a new folder")),
                false => Ok(fresh),
            };
        };
        let old: State = serde_json::from_slice(&bytes).map_err(|e| refuse(&e.to_string()))?;
        let same = State { done: 0, written: 0, samples: 0, finished: false, ..old.clone() };
        match same == fresh {
            true => Ok(old),
            false => Err(refuse(&format!(
                "belongs to another export (of {}); name a new folder",
                crate::shown(&old.source)
            ))),
        }
    }

    fn shard(
        &self,
        folder: &Path,
        number: u64,
        about: &About<'_>,
    ) -> Result<Box<dyn Shard>, DataError> {
        Ok(match self.format {
            Format::WebDataset => {
                Box::new(webdataset::Tar::create(folder.join(format!("{number:05}.tar")))?)
            }
            Format::Parquet => {
                let path = folder.join(format!("{number:05}.parquet"));
                Box::new(parquet::Table::create(path, about)?)
            }
            Format::Png => Box::new(png::Pictures::create(folder, about)),
        })
    }

    /// Reads and checks one sample, on a thread of the loader's.
    fn entry(&self, raw: RawSample) -> Result<Entry, DataError> {
        let bad = |source| DataError::Picture { key: raw.key.clone(), source };
        let decoded = raw.picture.decode(&self.limits).map_err(bad)?;
        let encoded = match (self.format, self.side) {
            (Format::Png, _) | (_, Some(_)) => None,
            _ => raw.picture.encoded(&self.limits).map_err(bad)?,
        };
        let (picture, extension) = match encoded {
            Some(bytes) => {
                let extension = extension(&bytes);
                (bytes, extension)
            }
            None => {
                let picture = decoded.into_picture();
                let picture = match self.side {
                    Some(side) => shrunk(picture, side),
                    None => picture,
                };
                (to_png(&picture, &raw.key)?, "png")
            }
        };
        let RawSample { index: position, key, caption, label, .. } = raw;
        Ok(Entry { position, key, picture, extension, caption, label })
    }
}

impl State {
    fn save(&self, folder: &Path) -> Result<(), DataError> {
        let path = folder.join(STATE);
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| DataError::write(&path, std::io::Error::other(e)))?;
        write_whole(&path, format!("{text}\n").as_bytes())
    }

    fn told(&self, skipped: Skipped) -> Exported {
        let Self { samples, written: shards, finished, .. } = *self;
        Exported { samples, shards, skipped, finished }
    }
}

/// What these bytes are, as a file's extension; they have been decoded.
fn extension(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x89, ..] => "png",
        [b'G', ..] => "gif",
        [b'R', ..] => "webp",
        [b'B', ..] => "bmp",
        _ => "jpg",
    }
}

/// A picture shrunk to a shorter side; a smaller one is left alone (a picture of one row would
/// otherwise swell to gigabytes).
fn shrunk(picture: Picture, side: u32) -> Picture {
    let Picture { width, height, .. } = picture;
    let shorter = width.min(height);
    if shorter <= side {
        return picture;
    }
    let scaled = |length: u32| {
        let scaled = u64::from(length) * u64::from(side) / u64::from(shorter.max(1));
        u32::try_from(scaled).unwrap_or(length)
    };
    let whole = Area::whole(&picture);
    resize(&picture, whole, scaled(width), scaled(height), Interpolation::Bicubic)
}

fn to_png(picture: &Picture, key: &str) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    let encoder =
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive);
    let (rgb, kind) = (&picture.rgb, ExtendedColorType::Rgb8);
    encoder.write_image(rgb, picture.width, picture.height, kind).map_err(|error| {
        DataError::Sample { key: key.to_owned(), reason: format!("cannot be encoded: {error}") }
    })?;
    Ok(bytes)
}

fn class_list(classes: &[String]) -> Vec<u8> {
    let line = |name: &String| format!("{}\n", name.replace(['\n', '\r'], " "));
    classes.iter().map(line).collect::<String>().into_bytes()
}

/// A file that gets its name when it is whole.
struct Unfinished {
    file: tempfile::NamedTempFile,
    path: PathBuf,
}

impl Unfinished {
    fn create(path: PathBuf) -> Result<Self, DataError> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        builder.prefix(".part-");
        // Temporary files are private by default; this one becomes a file like any other.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .map_err(|e| DataError::write(&path, e))?;
        Ok(Self { file, path })
    }

    fn finish(self) -> Result<(), DataError> {
        let sync = self.file.as_file().sync_all();
        sync.map_err(|e| DataError::write(&self.path, e))?;
        self.file.persist(&self.path).map_err(|e| DataError::write(&self.path, e.error))?;
        Ok(())
    }
}

/// Writes a file that appears whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let mut file = Unfinished::create(path.to_owned())?;
    file.file.write_all(bytes).map_err(|e| DataError::write(path, e))?;
    file.finish()
}
