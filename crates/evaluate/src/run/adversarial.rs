//! Adversarial pictures in files: saved exactly, read back with distrust, judged again.
//!
//! A number that somebody else can check needs the pictures behind it, and whoever found better
//! ones must be able to hand them in. A file of pictures can only lower a number: it counts what
//! it breaks, within the budget and the box, and nothing that it does not.

use crate::{EvaluateError, records::record_file::write_atomic};
use burn::tensor::{Device, Tensor, TensorData};
use clipguard_attack::Budget;
use clipguard_model::weights::{Array, Precision, Weights, parse_safetensors, to_safetensors};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, path::Path};

/// The name of the tensor.
const TENSOR: &str = "adversarial";

/// What the metadata entry `clipguard` says about the rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// Key of the sample of each row; without keys the rows are the samples of a plan in order.
    pub keys: Vec<String>,
    /// What made them.
    pub attack: String,
    /// SHA-256 of the weights they were made against.
    pub model: String,
    /// Seed of the run.
    pub seed: u64,
}

/// Pictures read from a file.
#[derive(Debug)]
pub struct Adversarial {
    /// What is known about them.
    pub origin: Origin,
    rows: Vec<f32>,
    shape: [usize; 4],
}

/// Writes pictures `[n, 3, height, width]` as one safetensors file with the tensor `adversarial`.
pub fn save(path: &Path, pixels: &Tensor<4>, origin: &Origin) -> Result<(), EvaluateError> {
    let shape = pixels.dims().to_vec();
    let data = pixels.clone().into_data().try_to_vec::<f32>().unwrap_or_default();
    let weights = Weights::from([(TENSOR.to_owned(), Array::new(shape, data))]);
    let about = serde_json::to_string(origin).unwrap_or_default();
    let bytes = to_safetensors(&weights, Precision::F32, Some(("clipguard", &about)))?;
    Ok(write_atomic(path, &bytes)?)
}

/// Reads what [`save`] wrote, or a file of another program with a tensor `adversarial`.
pub fn read(path: &Path) -> Result<Adversarial, EvaluateError> {
    let refuse = |reason: String| EvaluateError::File { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|e| refuse(e.to_string()))?;
    let (mut tensors, _) = parse_safetensors(&bytes, path)?;
    let names: Vec<String> = tensors.keys().cloned().collect();
    let array = tensors.remove(TENSOR).ok_or_else(|| {
        let names = names.join("`, `");
        refuse(format!("no tensor `{TENSOR}` of floats in it, only `{names}`"))
    })?;
    let shape: [usize; 4] = array.shape.as_slice().try_into().map_err(|_| {
        let expected = "[pictures, 3, height, width]";
        refuse(format!("`{TENSOR}` has the shape {:?}, expected {expected}", array.shape))
    })?;
    let metadata = SafeTensors::read_metadata(&bytes)
        .ok()
        .and_then(|(_, header)| header.metadata().as_ref()?.get("clipguard").cloned());
    let origin: Origin = match metadata {
        None => Origin::default(),
        Some(text) => {
            serde_json::from_str(&text).map_err(|e| refuse(format!("metadata `clipguard`: {e}")))?
        }
    };
    if !origin.keys.is_empty() && origin.keys.len() != shape[0] {
        let keys = origin.keys.len();
        return Err(refuse(format!("{keys} keys for {} pictures", shape[0])));
    }
    Ok(Adversarial { origin, rows: array.data, shape })
}

impl Adversarial {
    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.shape[0] == 0
    }

    /// The pictures for samples `keys`, whose clean pictures are `clean`; where the file has none
    /// the clean one. `positions` are the places of the samples in the plan, for files without
    /// keys, `total` their number.
    pub fn matched(
        &self,
        clean: &Tensor<4>,
        keys: &[String],
        positions: &[usize],
        total: usize,
    ) -> Result<Tensor<4>, String> {
        let shape = clean.dims();
        if self.shape[1..] != shape[1..] {
            return Err(format!(
                "pictures of {:?}, the model takes {:?}",
                &self.shape[1..],
                &shape[1..]
            ));
        }
        if self.origin.keys.is_empty() && self.shape[0] != total {
            return Err(format!(
                "{} pictures without keys; the plan has {total} samples, and without keys they \
                 must be all of them in order",
                self.shape[0]
            ));
        }
        let places: HashMap<&str, usize> =
            self.origin.keys.iter().map(String::as_str).zip(0..).collect();
        let width = shape[1..].iter().product::<usize>().max(1);
        let mut rows = clean.clone().into_data().try_to_vec::<f32>().unwrap_or_default();
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            let place = match self.origin.keys.is_empty() {
                true => positions.get(i).copied(),
                false => places.get(keys[i].as_str()).copied(),
            };
            if let Some(place) = place {
                row.copy_from_slice(&self.rows[place * width..(place + 1) * width]);
            }
        }
        Ok(Tensor::from_data(TensorData::new(rows, shape), &clean.device()))
    }

    /// All pictures.
    pub fn pixels(&self, device: &Device) -> Tensor<4> {
        Tensor::from_data(TensorData::new(self.rows.clone(), self.shape), device)
    }
}

/// Which pictures are within the budget around the clean ones and within `[0, 1]`.
pub fn within(clean: &Tensor<4>, pixels: &Tensor<4>, budget: Budget) -> Vec<bool> {
    let sizes = budget.measure(pixels.clone() - clean.clone());
    let numbers = pixels.clone().into_data().try_to_vec::<f32>().unwrap_or_default();
    let width = (numbers.len() / sizes.len().max(1)).max(1);
    let boxed = numbers.chunks(width).map(|row| row.iter().all(|v| (0.0..=1.0).contains(v)));
    sizes.iter().zip(boxed).map(|(size, boxed)| boxed && budget.holds(*size)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures(value: f32) -> Tensor<4> {
        Tensor::full([2, 3, 2, 2], value, &Device::flex())
    }

    #[test]
    fn what_is_saved_comes_back_to_the_bit_and_finds_its_sample() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let keys = vec!["b".to_owned(), "a".to_owned()];
        let pixels =
            Tensor::cat(vec![pictures(0.1).narrow(0, 0, 1), pictures(0.3).narrow(0, 0, 1)], 0);
        let origin = Origin { keys, attack: "pgd".into(), ..Origin::default() };
        save(&path, &pixels, &origin).unwrap();
        let read = read(&path).unwrap();
        assert_eq!((read.len(), &read.origin), (2, &origin));
        let keys = ["a".to_owned(), "c".to_owned()];
        let matched = read.matched(&pictures(0.5), &keys, &[0, 1], 2).unwrap();
        let numbers = matched.into_data().try_to_vec::<f32>().unwrap();
        assert_eq!((numbers[0], numbers[12]), (0.3, 0.5));
        let small = Tensor::<4>::zeros([1, 3, 1, 1], &Device::flex());
        assert!(read.matched(&small, &keys[..1], &[0], 1).unwrap_err().contains("[3, 2, 2]"));
    }

    #[test]
    fn files_without_keys_must_be_whole_and_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        save(&path, &pictures(0.2), &Origin::default()).unwrap();
        let plain = read(&path).unwrap();
        let keys = ["x".to_owned(), "y".to_owned()];
        assert!(plain.matched(&pictures(0.5), &keys, &[0, 1], 2).is_ok());
        assert!(plain.matched(&pictures(0.5), &keys, &[0, 1], 3).unwrap_err().contains("in order"));
        std::fs::write(&path, b"nonsense").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("a.safetensors"), "{error}");
    }

    #[test]
    fn budget_and_box_are_both_needed() {
        let clean = pictures(0.99);
        let linf = |eps| Budget::Ball { norm: clipguard_attack::Norm::Linf, eps };
        assert_eq!(within(&clean, &pictures(0.97), linf(0.0201)), [true; 2]);
        assert_eq!(within(&clean, &pictures(0.97), linf(0.0199)), [false; 2]);
        assert_eq!(within(&clean, &pictures(1.0001), linf(0.1)), [false; 2]);
        assert_eq!(within(&clean, &pictures(f32::NAN), linf(0.1)), [false; 2]);
    }
}
