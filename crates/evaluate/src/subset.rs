//! A fixed subset of a labelled source, prepared for a model.

use crate::EvaluateError;
use burn::tensor::{Device, Tensor};
use clipguard_data::{Limits, Loader, LoaderOptions, RawSample, Skipped, Source};
use clipguard_model::{Preprocess, checkpoint::hex};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The labelled samples of an evaluation.
pub struct Subset {
    /// Pixels `[n, 3, side, side]` in `[0, 1]`.
    pub pixels: Tensor<4>,
    /// True classes.
    pub labels: Vec<usize>,
    /// Sample keys.
    pub keys: Vec<String>,
    /// SHA-256 over keys, labels and prepared pictures.
    pub digest: String,
    /// What could not be read.
    pub skipped: Skipped,
}

impl Subset {
    /// The `n` labelled samples whose keys have the smallest hashes (all for 0): a subset that
    /// depends on nothing but the keys. Never "the first n" of a source sorted by class.
    pub fn of(
        source: &dyn Source,
        n: usize,
        preprocess: &Preprocess,
        device: &Device,
        threads: usize,
    ) -> Result<Self, EvaluateError> {
        let mut chosen: BTreeMap<([u8; 32], u64), RawSample> = BTreeMap::new();
        for sample in source.open(0)? {
            let sample = match sample {
                Ok(sample) if sample.label.is_some() => sample,
                Err(error) if error.is_fatal() => return Err(error.into()),
                _ => continue,
            };
            let hash: [u8; 32] = Sha256::digest(&sample.key).into();
            chosen.insert((hash, sample.index), sample);
            if n > 0 && chosen.len() > n {
                chosen.pop_last();
            }
        }
        if chosen.is_empty() {
            return Err(EvaluateError::NoLabels(source.name().to_owned()));
        }
        let resize = preprocess.resize;
        let options = LoaderOptions { threads, ..LoaderOptions::default() };
        let mut loader = Loader::from_samples(chosen.into_values().map(Ok), options, move |raw| {
            let sample = raw.decode(&Limits::default())?;
            let picture = resize.picture(&sample.picture);
            Ok((sample.key, sample.label.unwrap_or_default(), picture.rgb))
        })?;
        let (mut keys, mut labels, mut pictures) = (Vec::new(), Vec::new(), Vec::new());
        let mut hash = Sha256::new();
        for sample in loader.by_ref() {
            let (key, label, picture) = sample?;
            hash.update(&key);
            hash.update((label as u64).to_le_bytes());
            hash.update(&picture);
            keys.push(key);
            labels.push(label);
            pictures.push(picture);
        }
        let views: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
        Ok(Self {
            pixels: preprocess.stack(&views, device),
            labels,
            keys,
            digest: hex(&hash.finalize()),
            skipped: loader.skipped().clone(),
        })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether nothing could be read.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The pixels of the samples `range`.
    pub fn part(&self, range: std::ops::Range<usize>) -> Tensor<4> {
        let [_, c, h, w] = self.pixels.dims();
        self.pixels.clone().slice([range, 0..c, 0..h, 0..w])
    }
}
