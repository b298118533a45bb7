//! Files of tensors: whatever a checkpoint comes in, read without executing anything.
//!
//! A file is opened in two steps. [`Container::open`] looks at its content (never its name), reads
//! the index (a safetensors header, or the pickle of a torch file as a tree of plain values) and
//! checks everything that can be checked without the data: names, shapes, offsets, overlaps. So a
//! file of gigabytes is described in milliseconds. [`Container::read`] then reads the tensors, one
//! storage after the other, and widens them to f32.
//!
//! A pickle is a program for a small machine that can call any function of Python. This reader has
//! the machine and none of the functions: a call becomes a value, and a name outside of a closed
//! list is refused wherever it stands, also where a loader would not look.

mod archive;
mod input;
mod json;
mod legacy;
mod pickle;
mod safetensors;
mod sharded;
mod sniff;
mod storage;
mod tar_file;
mod torch;
mod zip;

pub use sniff::Format;
pub use storage::{Dtype, Entry};

pub(crate) use json::strict;

use crate::{Array, ModelError, Weights};
use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};
use storage::{Layout, Storage};

/// Largest tensor, 8 GB as f32.
const MAX_ELEMENTS: u64 = 2 << 30;
/// Most tensors in a file.
const MAX_TENSORS: usize = 100_000;
/// Longest name of a tensor.
const MAX_NAME: usize = 512;
/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;

/// A refusal before it knows its file: a stable code and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    fn at(self, path: &Path) -> ModelError {
        ModelError::Container { path: path.to_owned(), code: self.code, reason: self.reason }
    }
}

/// A file of tensors whose index has been read and checked.
#[derive(Debug)]
pub struct Container {
    /// The file, or the index of a sharded one.
    pub path: PathBuf,
    /// What it is.
    pub format: Format,
    /// Its tensors by name.
    pub entries: BTreeMap<String, Entry>,
    /// What should be known about it.
    pub warnings: Vec<String>,
    /// Strings that a safetensors file carries beside its tensors.
    pub metadata: BTreeMap<String, String>,
    /// Shards with the names they hold; a single file is its own only one.
    parts: Vec<Part>,
}

/// One file, and where its tensors lie in it.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    storages: Vec<Storage>,
    layouts: BTreeMap<String, Layout>,
}

/// What the readers of the formats find out.
struct Index {
    storages: Vec<Storage>,
    tensors: BTreeMap<String, (Entry, Layout)>,
    warnings: Vec<String>,
    metadata: BTreeMap<String, String>,
}

impl Container {
    /// Opens a weight file or the index of a sharded one.
    ///
    /// # Errors
    /// [`ModelError::Container`] with a stable code for everything that is wrong with the file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name.ends_with(".index.json") {
            return sharded::open(path);
        }
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let refuse = |refusal: Refusal| refusal.at(path);
        let format = sniff::format(&mut file, size, path).map_err(refuse)?;
        let index = match format {
            Format::Safetensors => safetensors::index(&mut file, size),
            Format::TorchZip | Format::TorchScript => archive::index(&mut file, size),
            Format::Legacy => legacy::index(&mut file, size),
            Format::LegacyTar => tar_file::index(&mut file, size),
            Format::Sharded => Err(Refusal::new("not_a_checkpoint", "an index without shards")),
        };
        let mut index = index.map_err(refuse)?;
        let format = match format {
            Format::TorchZip if index.metadata.remove("torchscript").is_some() => {
                Format::TorchScript
            }
            format => format,
        };
        if let Some(warning) = sniff::disagreement(path, format) {
            index.warnings.insert(0, warning);
        }
        Ok(Self::of(path, format, index))
    }

    fn of(path: &Path, format: Format, index: Index) -> Self {
        let mut entries = BTreeMap::new();
        let mut layouts = BTreeMap::new();
        for (name, (entry, layout)) in index.tensors {
            entries.insert(name.clone(), entry);
            layouts.insert(name, layout);
        }
        Self {
            path: path.to_owned(),
            format,
            entries,
            warnings: index.warnings,
            metadata: index.metadata,
            parts: vec![Part { path: path.to_owned(), storages: index.storages, layouts }],
        }
    }

    /// Whether a file looks like one of the formats, by its first bytes or its name.
    pub fn looks_like_one(path: &Path) -> bool {
        let named = [".safetensors", ".index.json", ".pt", ".pth", ".ckpt", ".bin"];
        if path.file_name().is_some_and(|n| named.iter().any(|e| n.to_string_lossy().ends_with(e)))
        {
            return true;
        }
        let size = |file: &File| Some(file.metadata().ok()?.len());
        File::open(path).ok().is_some_and(|mut file| {
            let found = size(&file).and_then(|size| sniff::format(&mut file, size, path).ok());
            // A tar file is more often a data set than a model of 2016.
            found.is_some_and(|format| format != Format::LegacyTar)
        })
    }

    /// Whether it has every parameter of an architecture in its shape and nothing else.
    ///
    /// # Errors
    /// The first tensor that is missing, unknown or of another shape.
    pub fn fits(&self, architecture: &crate::Architecture) -> Result<(), ModelError> {
        crate::parameters::fits(&self.entries, architecture, &self.path)
    }

    /// The files that hold the data, in the order in which they are read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().map(|part| part.path.as_path())
    }

    /// Reads every tensor, widened to f32. Holds one storage beside what it returns.
    ///
    /// # Errors
    /// Data that is shorter than the index says, or whose checksum is wrong.
    pub fn read(&self) -> Result<Weights, ModelError> {
        let mut weights = Weights::new();
        for part in &self.parts {
            let io = |source| ModelError::Io { path: part.path.clone(), source };
            let mut file = File::open(&part.path).map_err(io)?;
            for (number, storage) in part.storages.iter().enumerate() {
                let inside: Vec<_> =
                    part.layouts.iter().filter(|(_, l)| l.storage == number).collect();
                if inside.is_empty() {
                    storage.check(&mut file).map_err(|r| r.at(&part.path))?;
                    continue;
                }
                let mut values = storage.read(&mut file).map_err(|r| r.at(&part.path))?;
                let last = inside.len() - 1;
                for (i, (name, layout)) in inside.into_iter().enumerate() {
                    let data = match i == last && layout.is_whole(values.len()) {
                        true => std::mem::take(&mut values),
                        false => layout.gather(&values),
                    };
                    weights.insert(name.clone(), Array::new(layout.shape.clone(), data));
                }
            }
        }
        Ok(weights)
    }
}

/// Checks a tensor's name.
fn check_name(name: &str) -> Result<(), Refusal> {
    let shown = clipguard_data::shown(name);
    if name.len() > MAX_NAME {
        let reason = format!("a key of {} bytes (at most {MAX_NAME}): {shown}", name.len());
        return Err(Refusal::new("bad_name", reason));
    }
    if name.chars().any(char::is_control) {
        let reason = format!("a key with control characters: {}", name.escape_unicode_controls());
        return Err(Refusal::new("bad_name", reason));
    }
    Ok(())
}

trait EscapeControls {
    fn escape_unicode_controls(&self) -> String;
}

impl EscapeControls for str {
    /// Control characters as `\u001b`, as JSON writes them; at most 80 characters.
    fn escape_unicode_controls(&self) -> String {
        let mut out = String::new();
        for c in self.chars().take(80) {
            match c.is_control() {
                true => out.push_str(&format!("\\u{:04x}", c as u32)),
                false => out.push(c),
            }
        }
        out
    }
}

/// Elements of a shape, if there are not too many.
fn elements(name: &str, shape: &[u64]) -> Result<u64, Refusal> {
    if shape.len() > MAX_RANK {
        let reason = format!("tensor `{name}` has {} dimensions, at most {MAX_RANK}", shape.len());
        return Err(Refusal::new("bad_shape", reason));
    }
    let zero = shape.contains(&0);
    shape
        .iter()
        .try_fold(1u64, |n, d| n.checked_mul(*d))
        .map(|n| if zero { 0 } else { n })
        .filter(|n| *n <= MAX_ELEMENTS)
        .ok_or_else(|| {
            let reason =
                format!("tensor `{name}` of shape {shape:?} has more than {MAX_ELEMENTS} elements");
            Refusal::new("too_large", reason)
        })
}
