//! The outcome of a unit in the run folder: a line a sample, a line at the end of each batch, and
//! the pictures in a file beside it.
//!
//! Pictures are appended and flushed first, then the lines of the batch in one piece. After a
//! crash at any byte the batches whose last line is there, and whose pictures are there, are kept
//! and everything behind them is cut off; so a run that goes on begins at the batch that was under
//! way and writes what it would have written.

use crate::{EvaluateError, records::record::RecordError, records::record_file::write_atomic};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// What came out for one sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Line {
    /// Key of the sample.
    pub(crate) sample: String,
    /// Whether the picture, as it is stored, is classified correctly.
    pub(crate) right: bool,
    /// The class that was answered; `None` when the answer holds a NaN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pred: Option<usize>,
    /// How many classes stand before the true one (unchanged pictures only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rank: Option<usize>,
    /// Size of the change, in the attack's norm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) norm: Option<f32>,
    /// Size of the smallest error seen, where small ones were looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nearest: Option<f32>,
    /// Evaluation at which the first success was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first: Option<usize>,
    /// Evaluations of the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) points: Option<usize>,
    /// What a plausibility check measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) row: Vec<f64>,
    /// Why it measured nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// What a batch cost and met; adds up over batches and shards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Totals {
    /// Pictures put through the victim.
    pub(crate) forwards: u64,
    /// Pictures differentiated.
    pub(crate) backwards: u64,
    /// Of those, with a gradient of exactly zero.
    pub(crate) zero_gradients: u64,
    /// What the attack reported, as it is kept in JSON.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) flags: Vec<Value>,
}

impl Totals {
    /// Adds what another batch met. Counts of one flag are summed; other flags are kept once.
    pub(crate) fn add(&mut self, other: &Self) {
        self.forwards += other.forwards;
        self.backwards += other.backwards;
        self.zero_gradients += other.zero_gradients;
        for flag in &other.flags {
            add_flag(&mut self.flags, flag);
        }
    }
}

/// A flag is a name, or an object of one name with a number or more facts.
fn add_flag(flags: &mut Vec<Value>, flag: &Value) {
    let counted = |value: &Value| {
        let (name, count) = value.as_object()?.iter().next()?;
        Some((name.clone(), count.as_u64()?))
    };
    if let Some((name, count)) = counted(flag) {
        for known in flags.iter_mut() {
            if let Some((same, before)) = counted(known).filter(|(n, _)| *n == name) {
                *known = serde_json::json!({ same: before + count });
                return;
            }
        }
    }
    if !flags.contains(flag) {
        flags.push(flag.clone());
        flags.sort_by_key(ToString::to_string);
    }
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    Batch { batch: Totals },
    Sample(Line),
}

/// A unit's lines, open for more.
pub(crate) struct UnitFile {
    lines_path: PathBuf,
    pictures_path: PathBuf,
    /// Bytes of one picture; 0 where none are kept.
    size: usize,
    /// What is there.
    pub(crate) lines: Vec<Line>,
    /// Sums over the batches that are there.
    pub(crate) totals: Totals,
}

/// Lines and totals of whole batches, and where the last of them ends.
struct Whole {
    lines: Vec<Line>,
    totals: Totals,
    end: usize,
}

impl UnitFile {
    /// Opens the unit `stem` (a path without extension), keeping whole batches and cutting off
    /// what a crash left behind them. `size`: numbers of one picture, 0 where none are kept.
    pub(crate) fn open(stem: &Path, size: usize) -> Result<Self, EvaluateError> {
        let lines_path = stem.with_extension("jsonl");
        let pictures_path = stem.with_extension("f32");
        let size = 4 * size;
        let bytes = read_or_empty(&lines_path)?;
        let pictures = match std::fs::metadata(&pictures_path) {
            Ok(facts) => facts.len(),
            Err(_) => 0,
        };
        let fitting = (size > 0).then(|| (pictures / size as u64) as usize);
        let whole = whole_batches(&bytes, fitting);
        if whole.end < bytes.len() {
            write_atomic(&lines_path, &bytes[..whole.end])?;
        }
        let wanted = (whole.lines.len() * size) as u64;
        if pictures > wanted {
            let cut = OpenOptions::new().write(true).open(&pictures_path);
            cut.and_then(|file| file.set_len(wanted)).map_err(RecordError::io(&pictures_path))?;
        }
        let Whole { lines, totals, .. } = whole;
        Ok(Self { lines_path, pictures_path, size, lines, totals })
    }

    /// Appends a batch and makes sure that it is on the disk.
    pub(crate) fn append(
        &mut self,
        lines: Vec<Line>,
        totals: &Totals,
        pictures: &[f32],
    ) -> Result<(), EvaluateError> {
        if self.size > 0 {
            let bytes: Vec<u8> = pictures.iter().flat_map(|v| v.to_le_bytes()).collect();
            append(&self.pictures_path, &bytes)?;
        }
        let mut text = String::new();
        for line in &lines {
            text += &serde_json::to_string(line).unwrap_or_default();
            text.push('\n');
        }
        let batch = Entry::Batch { batch: totals.clone() };
        text += &serde_json::to_string(&batch).unwrap_or_default();
        text.push('\n');
        append(&self.lines_path, text.as_bytes())?;
        self.lines.extend(lines);
        self.totals.add(totals);
        Ok(())
    }

    /// Pictures of the samples `range`.
    pub(crate) fn pictures(
        &self,
        range: std::ops::Range<usize>,
    ) -> Result<Vec<f32>, EvaluateError> {
        let mut bytes = vec![0; range.len() * self.size];
        let mut read = || -> std::io::Result<()> {
            let mut file = File::open(&self.pictures_path)?;
            file.seek(SeekFrom::Start((range.start * self.size) as u64))?;
            file.read_exact(&mut bytes)
        };
        read().map_err(RecordError::io(&self.pictures_path))?;
        Ok(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }
}

fn read_or_empty(path: &Path) -> Result<Vec<u8>, RecordError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(RecordError::io(path)(error)),
    }
}

fn append(path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(bytes)?;
        file.sync_data()
    };
    write().map_err(RecordError::io(path))
}

/// Reads whole batches, as long as there are pictures for them.
fn whole_batches(bytes: &[u8], pictures: Option<usize>) -> Whole {
    let mut whole = Whole { lines: Vec::new(), totals: Totals::default(), end: 0 };
    let mut waiting = Vec::new();
    let mut at = 0;
    while let Some(length) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let line = &bytes[at..at + length];
        at += length + 1;
        match serde_json::from_slice(line) {
            Ok(Entry::Sample(line)) => waiting.push(line),
            Ok(Entry::Batch { batch }) => {
                if pictures.is_some_and(|there| whole.lines.len() + waiting.len() > there) {
                    break;
                }
                whole.lines.append(&mut waiting);
                whole.totals.add(&batch);
                whole.end = at;
            }
            Err(_) => break,
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(sample: &str) -> Line {
        Line { sample: sample.to_owned(), right: true, pred: Some(3), ..Line::default() }
    }

    #[test]
    fn a_crash_at_any_byte_costs_at_most_one_batch() {
        let folder = tempfile::tempdir().unwrap();
        let stem = folder.path().join("unit");
        let totals = Totals { forwards: 2, ..Totals::default() };
        let mut unit = UnitFile::open(&stem, 3).unwrap();
        unit.append(vec![line("a"), line("b")], &totals, &[1.0; 6]).unwrap();
        let first = std::fs::read(stem.with_extension("jsonl")).unwrap().len();
        unit.append(vec![line("c")], &totals, &[2.0; 3]).unwrap();
        let [lines, pictures] =
            ["jsonl", "f32"].map(|e| std::fs::read(stem.with_extension(e)).unwrap());
        for cut in 0..=lines.len() {
            std::fs::write(stem.with_extension("jsonl"), &lines[..cut]).unwrap();
            std::fs::write(stem.with_extension("f32"), &pictures).unwrap();
            let mut unit = UnitFile::open(&stem, 3).unwrap();
            let kept = if cut == lines.len() {
                3
            } else if cut >= first {
                2
            } else {
                0
            };
            assert_eq!(unit.lines.len(), kept, "{cut} bytes");
            if kept == 2 {
                unit.append(vec![line("c")], &totals, &[2.0; 3]).unwrap();
                let again = std::fs::read(stem.with_extension("jsonl")).unwrap();
                assert_eq!(again, lines);
                assert_eq!(std::fs::read(stem.with_extension("f32")).unwrap(), pictures);
                assert_eq!(unit.pictures(1..3).unwrap(), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
            }
        }
        // Lines without their pictures are not whole either.
        std::fs::write(stem.with_extension("jsonl"), &lines).unwrap();
        std::fs::write(stem.with_extension("f32"), &pictures[..30]).unwrap();
        assert_eq!(UnitFile::open(&stem, 3).unwrap().lines.len(), 2);
    }

    #[test]
    fn flags_of_batches_add_up() {
        let with = |flags: Vec<Value>| Totals { flags, ..Totals::default() };
        let mut sum = with(vec![json!({"broken-gradient": 2})]);
        sum.add(&with(vec![
            json!({"broken-gradient": 3}),
            json!({"margin-instead": {"classes": 2}}),
        ]));
        sum.add(&with(vec![json!({"margin-instead": {"classes": 2}}), json!("odd")]));
        let all = vec![
            json!("odd"),
            json!({"broken-gradient": 5}),
            json!({"margin-instead": {"classes": 2}}),
        ];
        assert_eq!(sum.flags, all);
    }
}
