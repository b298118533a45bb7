//! Units of work: one attack on one victim, kept in the run folder when finished.

use crate::{EvaluateError, record_file::write_atomic, runner::Stage};
use burn::tensor::{Tensor, TensorData};
use clipguard_attack::{Batch, parse};
use clipguard_model::{GradientMode, checkpoint::hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Instant,
};

/// Which attack and defence a unit is about.
#[derive(Serialize)]
struct Unit<'a> {
    model: &'a str,
    head: &'a str,
    data: &'a str,
    purify: &'a [String],
    gradient: Option<GradientMode>,
    attack: &'a str,
    batch: Option<usize>,
    seed: u64,
    version: &'a str,
}

/// What is kept of a unit.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Per sample: right after the attack.
    pub(crate) right: Vec<bool>,
    /// Share of gradients that were zero.
    pub(crate) zero_gradients: f32,
    /// What the attack reported.
    pub(crate) flags: Vec<String>,
    /// Wall time.
    pub(crate) seconds: f64,
}

impl Stage<'_> {
    /// The outcome of one attack on one victim and the attacked pictures, from the folder or
    /// computed.
    pub(crate) fn unit(
        &self,
        purify: &[String],
        gradient: Option<GradientMode>,
        attack: &str,
        batch: Option<usize>,
    ) -> Result<(Outcome, Tensor<4>), EvaluateError> {
        let attack_ = parse(attack)?;
        let full = attack_.spelling().to_string();
        let unit = Unit {
            model: &self.classifier.digest,
            head: &self.classifier.head_digest,
            data: &self.subset.digest,
            purify,
            gradient,
            attack: &full,
            batch,
            seed: self.plan.seed,
            version: env!("CARGO_PKG_VERSION"),
        };
        let digest = hex(&Sha256::digest(serde_json::to_string(&unit).unwrap_or_default()));
        let path = self.folder.join("units").join(&digest[..24]);
        if let Some(kept) = self.kept(&path) {
            return Ok(kept);
        }
        let started = Instant::now();
        let victim = self.victim(purify, gradient)?;
        let size = batch.unwrap_or(self.plan.batch);
        let (mut right, mut parts, mut flags) = (Vec::new(), Vec::new(), Vec::new());
        let (mut zero, mut weight) = (0f32, 0f32);
        for start in (0..self.subset.len()).step_by(size) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(EvaluateError::Stopped);
            }
            let end = (start + size).min(self.subset.len());
            let labels = &self.subset.labels[start..end];
            let keys = &self.subset.keys[start..end];
            let batch = Batch { pixels: self.subset.part(start..end), labels, keys };
            let attacked = attack_.run(&victim, &batch, self.plan.seed);
            right.extend(attacked.success.iter().map(|broken| !broken));
            zero += attacked.zero_gradients * attacked.backwards as f32;
            weight += attacked.backwards as f32;
            flags.extend(attacked.flags.iter().map(ToString::to_string));
            parts.push(attacked.pixels);
        }
        flags.sort();
        flags.dedup();
        let zero_gradients = if weight > 0.0 { zero / weight } else { 0.0 };
        let seconds = started.elapsed().as_secs_f64();
        let outcome = Outcome { right, zero_gradients, flags, seconds };
        let pixels = Tensor::cat(parts, 0);
        self.keep(&path, &outcome, &pixels)?;
        Ok((outcome, pixels))
    }

    fn files(path: &Path) -> (PathBuf, PathBuf) {
        (path.with_extension("json"), path.with_extension("f32"))
    }

    fn kept(&self, path: &Path) -> Option<(Outcome, Tensor<4>)> {
        let (json, raw) = Self::files(path);
        let outcome: Outcome = serde_json::from_slice(&std::fs::read(json).ok()?).ok()?;
        let bytes = std::fs::read(raw).ok()?;
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let shape = self.subset.pixels.dims();
        let whole = values.len() == shape.iter().product::<usize>()
            && outcome.right.len() == self.subset.len();
        let pixels =
            || Tensor::from_data(TensorData::new(values, shape), &self.subset.pixels.device());
        whole.then(|| (outcome, pixels()))
    }

    /// Pictures first: a unit counts as finished by its JSON file.
    fn keep(
        &self,
        path: &Path,
        outcome: &Outcome,
        pixels: &Tensor<4>,
    ) -> Result<(), EvaluateError> {
        let (json, raw) = Self::files(path);
        let values = pixels.clone().into_data().try_to_vec::<f32>().unwrap_or_default();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        write_atomic(&raw, &bytes)?;
        let text = serde_json::to_vec(outcome).unwrap_or_default();
        Ok(write_atomic(&json, &text)?)
    }
}
