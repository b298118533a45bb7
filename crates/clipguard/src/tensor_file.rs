//! Safetensors files by their header alone, and files that are written without being held.
//!
//! A file is eight bytes (length of the header), the header (JSON: name, dtype, shape and place of
//! every tensor) and the numbers. What a file is can be told from the header; two tensors of a
//! million rows can be written with one row in memory.

use crate::failure::Failure;
use serde_json::{Map, Value, json};
use std::{
    fs::File,
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Longest header that readers of the format accept.
pub(crate) const MAX_HEADER: u64 = 100_000_000;

/// What a header says about one tensor.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    /// First and last byte (exclusive) behind the header.
    place: (u64, u64),
}

impl Entry {
    /// Number of elements.
    pub(crate) fn count(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// The header of a safetensors file.
#[derive(Debug)]
pub(crate) struct Header {
    /// In the order of their places.
    pub(crate) tensors: Vec<Entry>,
    /// Free texts.
    pub(crate) metadata: Map<String, Value>,
    /// Size of the whole file in bytes.
    pub(crate) size: u64,
}

impl Header {
    /// Whether the file begins as a safetensors file does.
    pub(crate) fn looks_like_one(path: &Path) -> bool {
        let mut head = [0; 9];
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
        let (length, first) = (u64::from_le_bytes(*head.first_chunk().unwrap_or(&[0; 8])), head[8]);
        let named = path.extension().is_some_and(|e| e == "safetensors");
        named || (read.is_ok() && first == b'{' && (2..=MAX_HEADER).contains(&length))
    }

    /// Reads the header and checks that it describes exactly the bytes behind it.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let io = |error: io::Error| Failure::reading(path, &error);
        let refuse = |reason: String| {
            let reason = format!("not a valid safetensors file: {reason}");
            Failure::Refused(format!("{}: {reason}", path.display()))
        };
        let mut file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        if size < 10 {
            return Err(refuse(format!("{size} bytes cannot hold a header")));
        }
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER.min(size - 8) {
            return Err(refuse(format!(
                "its first 8 bytes promise a header of {length} bytes; the file has {size}, and a \
                 header at most {MAX_HEADER}"
            )));
        }
        let mut text = vec![0; length as usize];
        file.read_exact(&mut text).map_err(io)?;
        let json: Map<String, Value> = serde_json::from_slice(&text)
            .map_err(|error| refuse(format!("the header is no JSON object: {error}")))?;
        Self::check(json, size, size - 8 - length).map_err(refuse)
    }

    fn check(mut json: Map<String, Value>, size: u64, data: u64) -> Result<Self, String> {
        let metadata = match json.shift_remove("__metadata__") {
            None => Map::new(),
            Some(Value::Object(map)) => map,
            Some(_) => return Err("`__metadata__` is not an object".to_owned()),
        };
        let mut tensors =
            json.into_iter().map(|(name, v)| entry(name, &v)).collect::<Result<Vec<_>, _>>()?;
        tensors.sort_by_key(|tensor| tensor.place);
        let mut end = 0;
        for tensor in &tensors {
            if tensor.place.0 != end {
                let (name, at) = (tensor.name.escape_debug(), tensor.place.0);
                return Err(format!("tensor `{name}` begins at byte {at}, expected {end}"));
            }
            end = tensor.place.1;
        }
        match end == data {
            true => Ok(Self { tensors, metadata, size }),
            false => Err(format!("the header describes {end} bytes, the file holds {data}")),
        }
    }
}

fn entry(name: String, value: &Value) -> Result<Entry, String> {
    let shown = name.escape_debug().to_string();
    let wrong = |what: &str| format!("tensor `{shown}`: {what}");
    let numbers = |key: &str| -> Option<Vec<u64>> {
        value[key].as_array()?.iter().map(Value::as_u64).collect()
    };
    let dtype = value["dtype"].as_str().ok_or_else(|| wrong("`dtype` is missing"))?.to_owned();
    let shape = numbers("shape").ok_or_else(|| wrong("`shape` is no list of sizes"))?;
    let Some([from, to]) = numbers("data_offsets").and_then(|v| <[u64; 2]>::try_from(v).ok())
    else {
        return Err(wrong("`data_offsets` are not two numbers"));
    };
    let bits: u64 = match dtype.as_str() {
        "F64" | "I64" | "U64" | "C64" => 64,
        "F32" | "I32" | "U32" => 32,
        "F16" | "BF16" | "I16" | "U16" => 16,
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 8,
        "F4" => 4,
        _ => return Err(wrong(&format!("`dtype` is `{}`, unknown", dtype.escape_debug()))),
    };
    let bytes = shape.iter().try_fold(bits, |product, n| product.checked_mul(*n)).map(|b| b / 8);
    if bytes.is_none() || to.checked_sub(from) != bytes {
        return Err(wrong(&format!(
            "shape {shape:?} of {dtype} does not take the bytes {from} to {to} of `data_offsets`"
        )));
    }
    Ok(Entry { name, dtype, shape, place: (from, to) })
}

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

    /// Puts one row at its place; places may come in any order but must all come.
    pub(crate) fn put(&mut self, row: u64, values: &[f32]) -> Result<(), Failure> {
        let place = row * self.columns as u64;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let written = self.file.seek(SeekFrom::Start(4 * place));
        written
            .and_then(|_| self.file.write_all(&bytes))
            .map_err(|error| Failure::writing(&self.path, &error))?;
        self.values = self.values.max(place + self.columns as u64);
        Ok(())
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
            let mut rows = spool.file.into_inner().map_err(io::IntoInnerError::into_error)?;
            rows.seek(SeekFrom::Start(0))?;
            io::copy(&mut rows, &mut file)?;
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
