//! Reads golden arrays; included by the golden tests of several crates with `#[path]`.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

/// A file of golden arrays.
pub(crate) struct Golden {
    name: String,
    bytes: Vec<u8>,
}

#[allow(dead_code, reason = "each including test uses a part of it")]
impl Golden {
    /// `<file>.safetensors` of `folder`, from `$CLIPGUARD_GOLDEN` if set, else from the repository.
    pub(crate) fn open(folder: &str, file: &str) -> Self {
        let path = root().join(folder).join(format!("{file}.safetensors"));
        Self { name: format!("{folder}/{file}"), bytes: read(&path) }
    }

    /// Names of all arrays.
    pub(crate) fn names(&self) -> Vec<String> {
        SafeTensors::deserialize(&self.bytes)
            .unwrap()
            .names()
            .iter()
            .map(|n| n.to_string())
            .collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.names().iter().any(|known| known == name)
    }

    /// Shape and numbers of an array of any type.
    pub(crate) fn numbers(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{}: {name}: {e}", self.name));
        let bytes = view.data();
        let numbers = match view.dtype() {
            Dtype::F32 => {
                bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect()
            }
            Dtype::F64 => {
                bytes.chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
            }
            Dtype::I32 => {
                bytes.chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()).into()).collect()
            }
            Dtype::I64 => {
                bytes.chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect()
            }
            Dtype::U8 => bytes.iter().map(|&b| b.into()).collect(),
            other => panic!("{}: {name}: {other:?}", self.name),
        };
        (view.shape().to_vec(), numbers)
    }

    pub(crate) fn flat(&self, name: &str) -> Vec<f64> {
        self.numbers(name).1
    }

    pub(crate) fn integers(&self, name: &str) -> Vec<usize> {
        self.flat(name).into_iter().map(|v| v as usize).collect()
    }

    /// An array as a tensor of that precision.
    pub(crate) fn tensor<const D: usize>(&self, name: &str, dtype: DType) -> Tensor<D> {
        let (shape, numbers) = self.numbers(name);
        Tensor::from_data(TensorData::new(numbers, shape), (&device(), dtype))
    }
}

/// Where tests compute: on `$CLIPGUARD_DEVICE` (see [`clipguard_model::device`]), else on the processor.
#[allow(dead_code, reason = "each including test uses a part of it")]
pub(crate) fn device() -> Device {
    let spelling = std::env::var("CLIPGUARD_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    clipguard_model::device(&spelling).unwrap_or_else(|e| panic!("{e}"))
}

fn root() -> PathBuf {
    std::env::var_os("CLIPGUARD_GOLDEN").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")),
        PathBuf::from,
    )
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The text of a golden file, such as `clip/misc.json`; from where [`Golden::open`] looks.
#[allow(dead_code, reason = "each including test uses a part of it")]
pub(crate) fn text(file: &str) -> String {
    String::from_utf8(read(&root().join(file))).unwrap()
}

/// The numbers of a tensor, without gradients.
#[allow(dead_code, reason = "each including test uses a part of it")]
pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// Largest absolute difference; NaN counts as infinite.
#[allow(dead_code, reason = "each including test uses a part of it")]
pub(crate) fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let gap = |(a, b): (&f64, &f64)| if (a - b).is_nan() { f64::INFINITY } else { (a - b).abs() };
    a.iter().zip(b).map(gap).fold(0.0, f64::max)
}

/// Euclidean length of the difference.
#[allow(dead_code, reason = "each including test uses a part of it")]
pub(crate) fn gap(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}
