//! Stored embeddings: what purifiers make of them, without a model.
//!
//! Everything behind the encoder can be tried on embeddings that somebody computed elsewhere. They
//! come as untrusted files: shapes are checked against each other, and rows that are no direction are
//! refused by their number.

use crate::{
    EvaluateError, Interval,
    clean::metrics::argmax,
    studies::look::{angle, dot, unit},
};
use burn::tensor::{Device, Tensor, TensorData};
use clipguard_model::weights::parse_safetensors;
use clipguard_purify::Purifier;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Rows put through a purifier at once.
const ROWS: usize = 64;
/// Largest file that is read: a million rows of 1024 numbers and then some.
const MOST: u64 = 8 << 30;

/// Where a tensor lies: `FILE` or `FILE:TENSOR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The tensor; `None` for the usual one.
    pub tensor: Option<String>,
}

impl Place {
    /// Reads `text`; a colon belongs to the file's name where such a file is there.
    pub fn parse(text: &str) -> Self {
        match text.rsplit_once(':') {
            Some((path, tensor)) if !Path::new(text).exists() && !tensor.is_empty() => {
                Self { path: path.into(), tensor: Some(tensor.to_owned()) }
            }
            _ => Self { path: text.into(), tensor: None },
        }
    }
}

/// Unit rows of one width.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Numbers of a row.
    pub width: usize,
    /// All rows.
    pub values: Vec<f32>,
}

impl Rows {
    /// The tensor at `place` (`usual` where none is named) as unit rows.
    ///
    /// # Errors
    /// A file that cannot be read, a tensor that is not there or no list of rows, a row of zeros.
    pub fn read(place: &Place, usual: &str) -> Result<Self, EvaluateError> {
        let path = &place.path;
        let refuse = |reason: String| EvaluateError::File { path: path.clone(), reason };
        let name = place.tensor.as_deref().unwrap_or(usual);
        let (mut tensors, others) = parse_safetensors(&bytes(path)?, path)?;
        let names: Vec<String> = tensors.keys().chain(&others).cloned().collect();
        let array = tensors.remove(name).ok_or_else(|| {
            let names = names.join("`, `");
            refuse(format!(
                "no tensor `{name}` of floats in it, only `{names}`; name one as FILE:TENSOR"
            ))
        })?;
        let [rows, width] = array.shape[..] else {
            let shape = &array.shape;
            return Err(refuse(format!(
                "`{name}` has the shape {shape:?}, expected [rows, width]"
            )));
        };
        if rows == 0 || width == 0 {
            return Err(refuse(format!("`{name}` is empty: {:?}", array.shape)));
        }
        let mut values = array.data;
        for (row, numbers) in values.chunks_exact_mut(width).enumerate() {
            let length = numbers.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            if length == 0.0 {
                return Err(refuse(format!("row {row} of `{name}` is zero: it has no direction")));
            }
            numbers.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
        }
        Ok(Self { width, values })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Mean of the rows.
    pub fn mean(&self) -> Vec<f32> {
        let mut mean = vec![0f64; self.width];
        for row in self.iter() {
            mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v) / self.len() as f64);
        }
        mean.into_iter().map(|v| v as f32).collect()
    }

    fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width)
    }

    /// What a purifier makes of them; their keys are their numbers.
    pub fn purified(&self, purifier: &dyn Purifier, device: &Device) -> Self {
        let most = purifier.limit().map_or(ROWS, |limit| limit.rows.min(ROWS));
        let mut values = Vec::with_capacity(self.values.len());
        for start in (0..self.len()).step_by(most.max(1)) {
            let end = (start + most.max(1)).min(self.len());
            let part = self.values[start * self.width..end * self.width].to_vec();
            let z = Tensor::from_data(TensorData::new(part, [end - start, self.width]), device);
            let keys: Vec<String> = (start..end).map(|row| row.to_string()).collect();
            let z = purifier.embedding(z, &keys, 0);
            values.extend(z.into_data().iter::<f32>());
        }
        Self { width: self.width, values }
    }
}

/// Labels at `place` (`label` where none is named), one a row; `None` when the file has no such
/// tensor and none was named.
///
/// # Errors
/// A file that cannot be read, a tensor that is no list of whole numbers.
pub fn labels(place: &Place) -> Result<Option<Vec<usize>>, EvaluateError> {
    let path = &place.path;
    let refuse = |reason: String| EvaluateError::File { path: path.clone(), reason };
    let bytes = bytes(path)?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| refuse(format!("not a valid safetensors file: {e}")))?;
    let name = place.tensor.as_deref().unwrap_or("label");
    let view = match file.tensor(name) {
        Ok(view) => view,
        Err(_) if place.tensor.is_none() => return Ok(None),
        Err(_) => return Err(refuse(format!("no tensor `{name}` in it"))),
    };
    let size = match view.dtype() {
        Dtype::U8 | Dtype::I8 => 1,
        Dtype::U16 | Dtype::I16 => 2,
        Dtype::U32 | Dtype::I32 => 4,
        Dtype::U64 | Dtype::I64 => 8,
        other => return Err(refuse(format!("`{name}` holds {other:?}, expected whole numbers"))),
    };
    let whole = |bytes: &[u8]| {
        // A negative number reads as a large one, and no head has so many classes.
        bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)) as usize
    };
    Ok(Some(view.data().chunks_exact(size).map(whole).collect()))
}

fn bytes(path: &Path) -> Result<Vec<u8>, EvaluateError> {
    let refuse = |reason: String| EvaluateError::File { path: path.to_owned(), reason };
    let size = std::fs::metadata(path).map_err(|e| refuse(e.to_string()))?.len();
    if size > MOST {
        return Err(refuse(format!("{size} bytes exceed the limit of {MOST}")));
    }
    std::fs::read(path).map_err(|e| refuse(e.to_string()))
}

/// Embeddings with the classes they are compared with.
pub struct Stored {
    /// Pictures.
    pub rows: Rows,
    /// Classes.
    pub head: Rows,
    /// True class of each picture.
    pub labels: Vec<usize>,
    /// Direction of the blank prompt.
    pub blank: Vec<f32>,
}

/// What became of them under one purifier. Angles in degrees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// The purifier; `none` for the rows as they are.
    pub purifier: String,
    /// Rows.
    pub n: usize,
    /// Rows nearest to their own class.
    pub correct: usize,
    /// Interval of their share.
    pub interval: Option<Interval>,
    /// Rows whose nearest class changed.
    pub changed: usize,
    /// Quantiles 0.05, 0.5 and 0.95 of the angle to the blank prompt.
    pub angle: [f64; 3],
    /// The same of the angle by which purification turned a row.
    pub turn: [f64; 3],
    /// The same of the cosine with the right class minus the largest other.
    pub lead: [f64; 3],
    /// The same of the angle from a right row to the nearest border of its class on the sphere.
    pub border: [f64; 3],
}

impl Stored {
    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// Says which width, number or label does not fit.
    pub fn check(&self) -> Result<(), String> {
        let Self { rows, head, labels, blank } = self;
        if head.width != rows.width || blank.len() != rows.width {
            return Err(format!(
                "embeddings of width {}, classes of width {}, a blank prompt of width {}: they are \
                 not of one model",
                rows.width,
                head.width,
                blank.len()
            ));
        }
        if labels.len() != rows.len() {
            return Err(format!("{} labels for {} embeddings", labels.len(), rows.len()));
        }
        match labels.iter().find(|label| **label >= head.len()) {
            Some(label) => Err(format!("label {label}, but there are {} classes", head.len())),
            None => Ok(()),
        }
    }

    /// What became of the rows, `after` purification.
    pub fn outcome(&self, purifier: &str, after: &Rows) -> Outcome {
        let wide = |row: &[f32]| unit(row.iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
        let head: Vec<Vec<f64>> = self.head.iter().map(wide).collect();
        let blank = wide(&self.blank);
        let mut out =
            Outcome { purifier: purifier.to_owned(), n: after.len(), ..Outcome::default() };
        let (mut angles, mut turns) = (Vec::new(), Vec::new());
        let (mut leads, mut borders) = (Vec::new(), Vec::new());
        for ((before, row), &label) in self.rows.iter().zip(after.iter()).zip(&self.labels) {
            let (before, row) = (wide(before), wide(row));
            let cosines = |z: &[f64]| head.iter().map(|class| dot(class, z)).collect::<Vec<f64>>();
            let (old, new) = (cosines(&before), cosines(&row));
            let best = |all: &[f64]| argmax(&all.iter().map(|v| *v as f32).collect::<Vec<_>>());
            let right = best(&new) == Some(label);
            out.correct += usize::from(right);
            out.changed += usize::from(best(&new) != best(&old));
            angles.push(angle(&row, &blank).to_degrees());
            turns.push(angle(&row, &before).to_degrees());
            let others = (0..head.len()).filter(|class| *class != label);
            let next = others.clone().map(|class| new[class]).fold(f64::NEG_INFINITY, f64::max);
            leads.push(new[label] - next);
            if right {
                // The border to another class is a great circle; its pole is the difference.
                let border = |class: usize| {
                    let pole: Vec<f64> =
                        head[label].iter().zip(&head[class]).map(|(a, b)| a - b).collect();
                    dot(&unit(&pole), &row).clamp(-1.0, 1.0).asin().to_degrees()
                };
                borders.push(others.map(border).fold(90.0, f64::min));
            }
        }
        out.interval = Some(Interval::wilson(out.correct, out.n, 0.95));
        (out.angle, out.turn) = (spread(angles), spread(turns));
        (out.lead, out.border) = (spread(leads), spread(borders));
        out
    }
}

/// Quantiles 0.05, 0.5 and 0.95; zeros of nothing.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    [0.05, 0.5, 0.95].map(|q| values.get((last * q).round() as usize).copied().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipguard_model::{
        Precision,
        weights::{Array, Weights, to_safetensors},
    };
    use clipguard_purify::{Material, parse};

    fn stored() -> Stored {
        // Two classes in a plane, the blank prompt across it.
        let rows = vec![0.8, 0.0, 0.6, 0.0, 0.8, 0.6, 0.6, 0.53, 0.6];
        Stored {
            rows: Rows { width: 3, values: rows },
            head: Rows { width: 3, values: vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0] },
            labels: vec![0, 1, 1],
            blank: vec![0.0, 0.0, 1.0],
        }
    }

    #[test]
    fn clipure_cos_with_even_steps_changes_nothing_and_with_odd_steps_everything() {
        let (stored, device) = (stored(), Device::flex());
        stored.check().unwrap();
        let blank = Tensor::<1>::from_floats(stored.blank.as_slice(), &device);
        let material = Material { blank: Some(blank), ..Material::default() };
        let under = |text: &str| {
            let purifier = parse(text, &material).unwrap();
            stored.outcome(text, &stored.rows.purified(&*purifier, &device))
        };
        let none = stored.outcome("none", &stored.rows);
        assert_eq!((none.n, none.correct, none.changed), (3, 2, 0));
        assert!((none.angle[1] - 53.13).abs() < 0.2 && none.turn[2] < 1e-6);
        // From (0.8, 0, 0.6) the border with the pole (1, -1, 0) is asin(0.8 / sqrt 2) away.
        assert!((none.border[1] - 34.45).abs() < 0.1, "{:?}", none.border);
        let even = under("clipure-cos");
        assert_eq!((even.correct, even.changed), (2, 0));
        assert!(even.turn[2] < 0.01, "{:?}", even.turn);
        let odd = under("clipure-cos:steps=9");
        assert_eq!((odd.correct, odd.changed), (1, 3));
    }

    #[test]
    fn files_are_read_with_distrust() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.safetensors");
        let write = |shape: Vec<usize>, data: Vec<f32>| {
            let weights = Weights::from([("image".to_owned(), Array::new(shape, data))]);
            let bytes = to_safetensors(&weights, Precision::F32, None).unwrap();
            std::fs::write(&path, bytes).unwrap();
        };
        let text = path.to_str().unwrap();
        let read = |text: &str| Rows::read(&Place::parse(text), "image");
        let said = |text: &str| read(text).unwrap_err().to_string();
        write(vec![2, 2], vec![3.0, 4.0, 0.0, 2.0]);
        assert_eq!(read(text).unwrap().values, [0.6, 0.8, 0.0, 1.0]);
        assert!(said(&format!("{text}:words")).contains("only `image`"));
        assert_eq!(labels(&Place::parse(text)).unwrap(), None);
        write(vec![2, 2], vec![3.0, 4.0, 0.0, 0.0]);
        assert!(said(text).contains("row 1 of `image` is zero"));
        write(vec![4], vec![1.0; 4]);
        assert!(said(text).contains("expected [rows, width]"));
        assert!(said("/nowhere/e.safetensors").contains("/nowhere/e.safetensors"));
        let mut wrong = stored();
        wrong.labels[2] = 2;
        assert!(wrong.check().unwrap_err().contains("label 2"));
        wrong.blank.pop();
        assert!(wrong.check().unwrap_err().contains("not of one model"));
    }
}
