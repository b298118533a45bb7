//! WebDataset shards: ustar archives without times and owners, so that the same samples are the
//! same bytes.

use super::{Entry, Shard, Unfinished};
use crate::DataError;
use serde_json::json;
use std::{
    collections::HashSet,
    io::{BufWriter, Write},
    path::PathBuf,
};

/// Longest name of a sample; with an extension it fits a plain header.
const LONGEST: usize = 80;

/// An archive that is being written.
pub(super) struct Tar {
    file: BufWriter<Unfinished>,
    names: HashSet<String>,
    path: PathBuf,
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Tar {
    pub(super) fn create(path: PathBuf) -> Result<Self, DataError> {
        let file = BufWriter::new(Unfinished::create(path.clone())?);
        Ok(Self { file, names: HashSet::new(), path })
    }

    /// A name for a sample: its key where readers take it as it is, else its position.
    fn name(&mut self, entry: &Entry) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let part =
            |part: &str| !part.is_empty() && !part.starts_with("__") && part.chars().all(plain);
        let key = without_extension(&entry.key);
        let fits = key.len() <= LONGEST && key.split('/').all(part) && !self.names.contains(key);
        let mut name = if fits { key.to_owned() } else { format!("{:09}", entry.position) };
        while self.names.contains(&name) {
            name.push('-');
        }
        self.names.insert(name.clone());
        name
    }

    fn member(&mut self, name: &str, body: &[u8]) -> Result<(), DataError> {
        let io = |e| DataError::write(&self.path, e);
        let header = header(name, body.len() as u64);
        self.file.write_all(&header).map_err(io)?;
        self.file.write_all(body).map_err(io)?;
        let padding = body.len().next_multiple_of(512) - body.len();
        self.file.write_all(&[0; 512][..padding]).map_err(io)
    }
}

impl Shard for Tar {
    fn push(&mut self, entry: Entry) -> Result<(), DataError> {
        let name = self.name(&entry);
        self.member(&format!("{name}.{}", entry.extension), &entry.picture)?;
        if let Some(caption) = &entry.caption {
            self.member(&format!("{name}.txt"), caption.as_bytes())?;
        }
        if let Some(label) = entry.label {
            self.member(&format!("{name}.cls"), label.to_string().as_bytes())?;
        }
        let facts = json!({ "key": entry.key, "position": entry.position });
        self.member(&format!("{name}.json"), facts.to_string().as_bytes())
    }

    fn finish(mut self: Box<Self>) -> Result<(), DataError> {
        let io = |e| DataError::write(&self.path, e);
        self.file.write_all(&[0; 1024]).map_err(io)?;
        let file =
            self.file.into_inner().map_err(|e| DataError::write(&self.path, e.into_error()))?;
        file.finish()
    }
}

/// A key without the extension of its picture file.
fn without_extension(key: &str) -> &str {
    match key.rsplit_once('.') {
        Some((stem, end)) if crate::sources::is_picture_extension(&end.to_ascii_lowercase()) => {
            stem
        }
        _ => key,
    }
}

/// The header of a file; `name` has at most 100 bytes.
fn header(name: &str, size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
