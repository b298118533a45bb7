//! A fixed subset of a labelled source, prepared for a model.

use crate::{EvaluateError, Shard, run::schedule::SampleHead};
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
    /// The samples without their pictures.
    pub(crate) samples: Vec<SampleHead>,
    /// Samples of all shards, and the digest of their keys.
    pub(crate) chosen: usize,
    pub(crate) chosen_digest: String,
    /// Place, key and reason of what could not be read.
    pub(crate) missing: Vec<(usize, String, String)>,
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
        Self::part_of(source, n, Shard::default(), preprocess, device, threads)
    }

    /// As [`Subset::of`], of those samples that belong to a shard.
    pub fn part_of(
        source: &dyn Source,
        n: usize,
        shard: Shard,
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
        let (count, chosen_digest) = (chosen.len(), digest_of(chosen.values().map(|raw| &raw.key)));
        // From here on a sample is known by its place in the whole subset.
        let placed = (0u64..).zip(chosen.into_values());
        let own: Vec<RawSample> = placed
            .filter(|(_, raw)| shard.has(&raw.key))
            .map(|(index, raw)| RawSample { index, ..raw })
            .collect();
        let mut missing: BTreeMap<usize, String> =
            own.iter().map(|raw| (raw.index as usize, raw.key.clone())).collect();
        let resize = preprocess.resize;
        let options = LoaderOptions { threads, ..LoaderOptions::default() };
        let mut loader = Loader::from_samples(own.into_iter().map(Ok), options, move |raw| {
            let position = raw.index as usize;
            let sample = raw.decode(&Limits::default())?;
            let picture = resize.picture(&sample.picture);
            Ok((position, sample.key, sample.label.unwrap_or_default(), picture.rgb))
        })?;
        let (mut samples, mut pictures) = (Vec::new(), Vec::new());
        for sample in loader.by_ref() {
            let (position, key, label, picture) = sample?;
            missing.remove(&position);
            let mut hash = Sha256::new();
            hash.update(&key);
            hash.update((label as u64).to_le_bytes());
            hash.update(&picture);
            samples.push(SampleHead { key, position, label, digest: hex(&hash.finalize()) });
            pictures.push(picture);
        }
        let skipped = loader.skipped().clone();
        let reason = |key: &str| {
            let known = skipped.first.iter().find(|(known, _)| known == key);
            known.map_or("could not be read".to_owned(), |(_, reason)| reason.to_string())
        };
        let missing =
            missing.into_iter().map(|(place, key)| (place, reason(&key), key)).collect::<Vec<_>>();
        let views: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
        Ok(Self {
            pixels: preprocess.stack(&views, device),
            labels: samples.iter().map(|sample| sample.label).collect(),
            keys: samples.iter().map(|sample| sample.key.clone()).collect(),
            digest: digest_of(samples.iter().map(|sample| &sample.digest)),
            missing: missing.into_iter().map(|(place, reason, key)| (place, key, reason)).collect(),
            samples,
            chosen: count,
            chosen_digest,
            skipped,
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

/// SHA-256 over texts, each on its own line.
pub(crate) fn digest_of<'a>(texts: impl Iterator<Item = &'a String>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text);
        hash.update("\n");
    }
    hex(&hash.finalize())
}
