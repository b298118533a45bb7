//! Safetensors files that are written without being held.
//!
//! A file is eight bytes (length of the header), the header (JSON: name, dtype, shape and place of
//! every tensor) and the numbers: two tensors of a million rows are written with one in memory.

use crate::failure::Failure;
use serde_json::{Map, Value, json};
use std::{
    fs::File,
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Longest header that readers of the format accept.
pub(crate) const MAX_HEADER: u64 = 100_000_000;

/// Rows of numbers in a file without a name, which disappears with the process however it ends.
pub(crate) struct Spool {
    file: BufWriter<File>,
    columns: usize,
    values: u64,
    /// For messages.
    path: PathBuf,
}

impl Spool {
    /// An empty one in the folder where `out` will lie, so that a full disk shows early.
    pub(crate) fn beside(out: &Path, columns: usize) -> Result<Self, Failure> {
        let file = tempfile::tempfile_in(folder_of(out)).map_err(|e| Failure::writing(out, &e))?;
        Ok(Self { file: BufWriter::new(file), columns, values: 0, path: out.to_owned() })
    }

    /// Appends rows.
    pub(crate) fn push(&mut self, values: &[f32]) -> Result<(), Failure> {
        self.values += values.len() as u64;
        let mut write = || values.iter().try_for_each(|v| self.file.write_all(&v.to_le_bytes()));
        write().map_err(|error| Failure::writing(&self.path, &error))
    }

    /// The numbers as bytes, from the first on.
    pub(crate) fn rewind(self) -> io::Result<File> {
        let mut rows = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        rows.seek(SeekFrom::Start(0))?;
        Ok(rows)
    }

    /// Number of rows so far.
    pub(crate) fn rows(&self) -> u64 {
        self.values / self.columns.max(1) as u64
    }
}

/// Writes spools as the tensors of one safetensors file, which appears complete or not at all.
pub(crate) fn assemble(
    out: &Path,
    metadata: &str,
    tensors: Vec<(&str, Spool)>,
) -> Result<(), Failure> {
    let mut header = Map::new();
    // One entry: readers that keep a hash map could not write several in a fixed order.
    header.insert("__metadata__".to_owned(), json!({ "clipguard": metadata }));
    let mut end = 0;
    for (name, spool) in &tensors {
        let (start, shape) = (end, [spool.rows(), spool.columns as u64]);
        end += 4 * spool.values;
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] });
        header.insert((*name).to_owned(), entry);
    }
    let mut text = Value::Object(header).to_string();
    // The numbers begin at a multiple of eight bytes.
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    let write = || -> io::Result<()> {
        let builder = tempfile::Builder::new().prefix(".part-").tempfile_in(folder_of(out))?;
        let mut file = BufWriter::new(builder);
        file.write_all(&(text.len() as u64).to_le_bytes())?;
        file.write_all(text.as_bytes())?;
        for (_, spool) in tensors {
            io::copy(&mut spool.rewind()?, &mut file)?;
        }
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        file.persist(out).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error| Failure::writing(out, &error))
}

/// The folder a path lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
