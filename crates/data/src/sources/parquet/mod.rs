//! Parquet: tables whose rows hold pictures (their bytes, or names of files), captions, labels.
//!
//! Understood without being told: `image` as bytes or as the structure of bytes and path that
//! Hugging Face's `datasets` writes, `jpg`, `image_bytes` and others, with `caption`, `text` or
//! `label`; other names are given behind a `#` as for [`Table`](super::Table). Of a file the
//! footer is kept, and of its rows a few at a time: memory is that of one page a column. A row
//! group that is broken costs its own rows.

mod guard;
mod leaf;
mod rows;
mod schema;
mod thrift;

use super::columns::Wanted;
use crate::{DataError, Options, RawSample, Samples, Source, blob::Blob, contained::contained};
use leaf::{Leaf, Value};
use parquet::file::metadata::ParquetMetaData;
use rows::{Row, Rows};
use schema::Columns;
use std::{collections::BTreeSet, path::Path, sync::Arc};

/// Distinct labels at most.
const MOST_CLASSES: usize = 100_000;
/// Rows that are read at once where only labels are wanted.
const LABELS_AT_ONCE: usize = 1024;

/// Pictures in the rows of Parquet files.
pub struct Parquet(Arc<Inner>);

struct Inner {
    name: String,
    parts: Vec<Part>,
    classes: Option<Vec<String>>,
    most_bytes: u64,
}

/// One file.
struct Part {
    blob: Blob,
    meta: ParquetMetaData,
    columns: Columns,
    /// Its name without extensions, in front of keys where there are several files.
    stem: Option<String>,
    /// Position of its first row.
    first: u64,
    /// Rows before each row group, and in the end all of them.
    starts: Vec<u64>,
}

impl Parquet {
    /// Whether a path is spelled like a Parquet file, `#` and columns aside.
    pub(super) fn is_one(spelling: &str) -> bool {
        let path = spelling.split_once('#').map_or(spelling, |(path, _)| path);
        let extension = Path::new(path).extension().map(|e| e.to_string_lossy().to_lowercase());
        extension.is_some_and(|e| e == "parquet" || e == "pq")
    }

    /// Opens the files `paths` (paths or URLs), in this order.
    pub(super) fn open(
        spelling: &str,
        paths: &[String],
        wanted: &Wanted,
        options: &Options,
    ) -> Result<Self, DataError> {
        let mut parts: Vec<Part> = Vec::with_capacity(paths.len());
        for path in paths {
            let first = parts.last().map_or(0, |part| part.first + part.rows());
            let stem = (paths.len() > 1).then(|| stem(path));
            parts.push(Part::open(path, wanted, first, stem)?);
        }
        let mut inner =
            Inner { name: spelling.into(), parts, classes: None, most_bytes: options.limits.bytes };
        inner.classes = inner.find_classes()?;
        Ok(Self(Arc::new(inner)))
    }
}

fn stem(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or_default().to_owned()
}

impl Part {
    fn open(
        path: &str,
        wanted: &Wanted,
        first: u64,
        stem: Option<String>,
    ) -> Result<Self, DataError> {
        let blob = match crate::remote::is_url(path) {
            true => Blob::open(path)?,
            false => Blob::on_disk(Path::new(path)).map_err(|error| match error {
                DataError::Missing { path, .. } => {
                    super::missing(&path, std::io::ErrorKind::NotFound.into())
                }
                other => other,
            })?,
        };
        let refuse = |reason: String| DataError::refused(blob.path(), reason);
        let meta = contained(|| guard::footer(&blob))
            .unwrap_or_else(|| Err("its footer made the decoder give up (it panicked)".to_owned()));
        let meta = meta.map_err(refuse)?;
        let columns = Columns::find(blob.path(), &meta, wanted)?;
        let mut starts = vec![0u64];
        let mut rows = 0u64;
        for group in meta.row_groups() {
            // A picture takes a byte at least, so this many rows can be believed.
            rows = u64::try_from(group.num_rows())
                .ok()
                .and_then(|n| rows.checked_add(n))
                .filter(|rows| *rows <= blob.len())
                .ok_or_else(|| {
                    let claim = group.num_rows();
                    refuse(format!("claims {claim} rows in {} bytes", blob.len()))
                })?;
            starts.push(rows);
        }
        Ok(Self { blob, meta, columns, stem, first, starts })
    }

    fn rows(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    fn groups(&self) -> usize {
        self.starts.len() - 1
    }
}

impl Inner {
    fn len(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.first + part.rows())
    }

    /// The names a file tells, or all labels there are: numbers in their order, texts in theirs.
    fn find_classes(&self) -> Result<Option<Vec<String>>, DataError> {
        if self.parts.iter().all(|part| part.columns.label.is_none()) {
            return Ok(None);
        }
        if let Some(names) = self.parts.iter().find_map(|part| part.columns.classes.clone()) {
            return Ok(Some(names));
        }
        let (mut numbers, mut texts) = (BTreeSet::new(), BTreeSet::new());
        for part in &self.parts {
            let Some(label) = part.columns.label else { continue };
            for group in 0..part.groups() {
                let mut left = (part.starts[group + 1] - part.starts[group]) as usize;
                // A broken row group has no classes; its rows say what is wrong with it.
                let Ok(mut leaf) = Leaf::open(&part.blob, part.meta.row_group(group), label) else {
                    continue;
                };
                while left > 0 {
                    let count = left.min(LABELS_AT_ONCE);
                    left -= count;
                    let Ok(values) = leaf.read(count) else { break };
                    for value in values.into_iter().flatten() {
                        match value {
                            Value::Number(n) => drop(numbers.insert(n)),
                            Value::Bytes(text) => drop(texts.insert(text)),
                        }
                    }
                    if numbers.len() + texts.len() > MOST_CLASSES {
                        let reason = format!("has more than {MOST_CLASSES} different labels");
                        return Err(DataError::refused(part.blob.path(), reason));
                    }
                }
            }
        }
        let texts = texts.into_iter().map(|text| String::from_utf8_lossy(&text).into_owned());
        let classes: Vec<String> =
            numbers.into_iter().map(|n| n.to_string()).chain(texts).collect();
        Ok((!classes.is_empty()).then_some(classes))
    }

    /// Index of a label.
    fn label(&self, part: &Part, value: &Value) -> Result<usize, String> {
        let classes = self.classes.as_deref().unwrap_or_default();
        let text = match value {
            Value::Number(n) if part.columns.classes.is_some() => {
                let index = usize::try_from(*n).ok().filter(|n| *n < classes.len());
                return index.ok_or_else(|| {
                    format!("label {n}, but there are only {} classes", classes.len())
                });
            }
            Value::Number(n) => n.to_string(),
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        };
        let index = classes.iter().position(|class| *class == text);
        index.ok_or_else(|| format!("label \"{}\" is no class", crate::shown(&text)))
    }

    /// The part and row group that hold a position.
    fn place(&self, position: u64) -> Option<(usize, usize)> {
        let part = self.parts.partition_point(|part| part.first + part.rows() <= position);
        let found = self.parts.get(part)?;
        let row = position - found.first;
        Some((part, found.starts.partition_point(|start| *start <= row) - 1))
    }
}

impl Source for Parquet {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn len(&self) -> Option<u64> {
        Some(self.0.len())
    }

    fn classes(&self) -> Option<&[String]> {
        self.0.classes.as_deref()
    }

    fn open(&self, start: u64) -> Result<Samples, DataError> {
        Ok(Box::new(Rows::new(self.0.clone(), start)))
    }

    fn get(&self, index: u64) -> Option<Result<RawSample, DataError>> {
        let (part, group) = self.0.place(index)?;
        let found = &self.0.parts[part];
        // A page is fetched for every row: only where that is cheap.
        if found.blob.is_remote() {
            return None;
        }
        let row = Row::alone(found, group, index - found.first)
            .and_then(|row| row.into_sample(&self.0, found, index));
        Some(row)
    }
}
