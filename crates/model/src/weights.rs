//! Weights: named arrays, in and out of safetensors, checked before they are believed.

use crate::ModelError;
use half::{bf16, f16};
use safetensors::{
    Dtype, SafeTensorError, SafeTensors,
    tensor::{TensorView, View},
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    io::Write,
    path::Path,
};
use tempfile::NamedTempFile;

/// One array, widened to f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Dimensions; empty for a scalar.
    pub shape: Vec<usize>,
    /// Elements in row-major order.
    pub data: Vec<f32>,
}

impl Array {
    /// An array of the given shape.
    ///
    /// # Panics
    /// When the number of elements disagrees.
    pub fn new(shape: Vec<usize>, data: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "shape and data disagree");
        Self { shape, data }
    }
}

/// Named arrays in the order of their names.
pub type Weights = BTreeMap<String, Array>;

/// The precision weights are stored in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit.
    #[default]
    F32,
    /// 16-bit, IEEE: 11 bits of precision, up to 65504.
    F16,
    /// 16-bit, the upper half of an `F32`: 8 bits of precision, the same range.
    Bf16,
}

impl Precision {
    /// Bytes of a number.
    fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Whether a finite number stays finite.
    fn holds(self, value: f32) -> bool {
        match self {
            Self::F32 => true,
            Self::F16 => f16::from_f32(value).is_finite(),
            Self::Bf16 => bf16::from_f32(value).is_finite(),
        }
    }

    /// `values` as little-endian bytes, each rounded to the nearest (ties to even).
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        }
    }
}

/// Largest file this reader maps, 64 GB: beyond every CLIP, below every surprise.
const MAX_FILE: u64 = 64 << 30;

/// Reads every float array of a safetensors file in memory, widened to f32; integer and boolean
/// entries are returned by name. For bytes of this program's own making: files of others are read
/// by [`Container`](crate::Container). `path` is for messages.
pub fn parse_safetensors(bytes: &[u8], path: &Path) -> Result<(Weights, Vec<String>), ModelError> {
    let refuse = |reason: String| ModelError::File { path: path.to_owned(), reason };
    let file = SafeTensors::deserialize(bytes)
        .map_err(|e| refuse(format!("not a valid safetensors file: {e}")))?;
    let (mut weights, mut others) = (Weights::new(), Vec::new());
    for (name, view) in file.tensors() {
        match widen(&view) {
            Some(data) => {
                if let Some(at) = data.iter().position(|v| !v.is_finite()) {
                    return Err(refuse(format!(
                        "tensor `{}` holds {} at index {at}: a model with such weights computes nothing",
                        name.escape_debug(),
                        data[at]
                    )));
                }
                weights.insert(name, Array::new(view.shape().to_vec(), data));
            }
            None => others.push(name),
        }
    }
    Ok((weights, others))
}

/// A file as bytes: read in one go, so that it cannot change underneath (a mapping could).
pub(crate) fn map_file(path: &Path) -> Result<Vec<u8>, ModelError> {
    let at = |e: std::io::Error| ModelError::Io { path: path.to_owned(), source: e };
    let size = std::fs::metadata(path).map_err(at)?.len();
    if size > MAX_FILE {
        return Err(ModelError::File {
            path: path.to_owned(),
            reason: format!("{size} bytes exceed the limit of {MAX_FILE}"),
        });
    }
    std::fs::read(path).map_err(at)
}

fn widen(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    Some(match view.dtype() {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => {
            bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
        }
        _ => return None,
    })
}

/// An array on its way into a file; it is encoded when its turn comes.
struct Stored<'a> {
    array: &'a Array,
    precision: Precision,
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        match self.precision {
            Precision::F32 => Dtype::F32,
            Precision::F16 => Dtype::F16,
            Precision::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.array.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.precision.encode(&self.array.data).into()
    }

    fn data_len(&self) -> usize {
        self.array.data.len() * self.precision.size()
    }
}

/// The tensors of a file, and the strings beside them.
type Contents<'a> = (Vec<(&'a String, Stored<'a>)>, Option<HashMap<String, String>>);

fn contents<'a>(
    weights: &'a Weights,
    precision: Precision,
    metadata: Option<(&str, &str)>,
) -> Result<Contents<'a>, ModelError> {
    for (name, array) in weights {
        let beyond = |v: &f32| v.is_finite() && !precision.holds(*v);
        if let Some(at) = array.data.iter().position(beyond) {
            let (name, value) = (name.escape_debug(), array.data[at]);
            return Err(ModelError::Write {
                reason: format!(
                    "tensor `{name}` holds {value} at index {at}, which this precision cannot hold"
                ),
            });
        }
    }
    let stored = weights.iter().map(|(name, array)| (name, Stored { array, precision }));
    // One entry at most: the writer keeps them in a hash map, whose order is random.
    let info = metadata.map(|(k, v)| HashMap::from([(k.to_owned(), v.to_owned())]));
    Ok((stored.collect(), info))
}

/// Serialises weights as safetensors in the order of their names (the same bytes every time).
///
/// # Errors
/// A number that is beyond the precision's range: it would be read back as infinite.
pub fn to_safetensors(
    weights: &Weights,
    precision: Precision,
    metadata: Option<(&str, &str)>,
) -> Result<Vec<u8>, ModelError> {
    let (stored, info) = contents(weights, precision, metadata)?;
    safetensors::serialize(stored, info).map_err(|e| ModelError::Write { reason: e.to_string() })
}

/// Writes what [`to_safetensors`] gives into a file, one tensor in memory at a time. The file
/// appears complete or not at all.
///
/// # Errors
/// As [`to_safetensors`], and those of the disk.
pub fn write_safetensors(
    path: &Path,
    weights: &Weights,
    precision: Precision,
    metadata: Option<(&str, &str)>,
) -> Result<(), ModelError> {
    let (stored, info) = contents(weights, precision, metadata)?;
    replace(path, |file| {
        safetensors::serialize_to_file(stored, info, file.path()).map_err(|error| match error {
            SafeTensorError::IoError(source) => ModelError::Io { path: path.to_owned(), source },
            other => ModelError::Write { reason: other.to_string() },
        })
    })
}

/// Writes `bytes` under a temporary name beside `path`, flushes and renames: a partial file never
/// lies under its final name.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    replace(path, |file| {
        file.write_all(bytes).map_err(|source| ModelError::Io { path: path.to_owned(), source })
    })
}

/// Lets `write` fill a temporary file beside `path`, flushes it and renames it.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut NamedTempFile) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let at = |e: std::io::Error| ModelError::Io { path: path.to_owned(), source: e };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".part-");
    // Temporary files are private by default; this one becomes a file like any other.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(at)?;
    write(&mut file)?;
    file.as_file().sync_all().map_err(at)?;
    file.persist(path).map_err(|e| at(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(values: &[f32]) -> Weights {
        Weights::from([("w".to_owned(), Array::new(vec![values.len()], values.to_vec()))])
    }

    #[test]
    fn sixteen_bits_are_rounded_to_the_nearest_with_ties_to_even() {
        // Halfway between two neighbours of bf16, which are 2^-7 apart here.
        let values = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -3.0e38, 1e-40, 65_504.0];
        let read = |precision| {
            let bytes = to_safetensors(&one(&values), precision, None).unwrap();
            parse_safetensors(&bytes, Path::new("w")).unwrap().0["w"].data.clone()
        };
        assert_eq!(read(Precision::F32), values);
        let bf16 = read(Precision::Bf16);
        assert_eq!(bf16[..2], [1.0, 1.0 + 4.0 / 256.0]);
        assert!((bf16[2] / values[2] - 1.0).abs() < 1.0 / 256.0);
        assert!(bf16.iter().all(|v| v.to_bits() & 0xffff == 0));
    }

    #[test]
    fn numbers_beyond_the_range_are_refused_with_their_place() {
        for (values, precision, is_written) in [
            ([1.0, 65_504.0], Precision::F16, true),
            ([1.0, 65_536.0], Precision::F16, false),
            ([1.0, 65_536.0], Precision::Bf16, true),
            ([1.0, f32::MAX], Precision::Bf16, false),
            ([1.0, f32::MAX], Precision::F32, true),
        ] {
            let written = to_safetensors(&one(&values), precision, None);
            assert_eq!(written.is_ok(), is_written, "{precision:?} {values:?}");
            if let Err(error) = written {
                let text = error.to_string();
                assert!(text.contains("`w`") && text.contains("index 1"), "{text}");
            }
        }
    }
}
