//! The state of a run: weights, both moments, and what was counted so far.

use crate::TrainError;
use clipguard_model::{
    Array, ModelError, Precision, Weights,
    weights::{parse_safetensors, write_safetensors},
};
use serde_json::json;
use std::path::Path;

/// Name of the state file in a run folder.
pub(crate) const FILE: &str = "trainer.safetensors";

/// Everything that changes during training.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// Samples that were left out so far.
    pub skipped: u64,
    /// Weights and buffers.
    pub weights: Weights,
    /// First moments.
    pub first: Weights,
    /// Second moments.
    pub second: Weights,
    /// Averages of the trained weights; empty where the recipe has none.
    pub average: Weights,
}

impl State {
    /// Before the first step, for the weights that are `trained`; `averaged` keeps averages.
    pub fn new(weights: Weights, trained: impl Fn(&str) -> bool, averaged: bool) -> Self {
        let own = || weights.iter().filter(|(name, _)| trained(name));
        let zeros: Weights = own()
            .map(|(n, a)| (n.clone(), Array::new(a.shape.clone(), vec![0.0; a.data.len()])))
            .collect();
        let average = match averaged {
            true => own().map(|(n, a)| (n.clone(), a.clone())).collect(),
            false => Weights::new(),
        };
        Self { step: 0, skipped: 0, weights, first: zeros.clone(), second: zeros, average }
    }

    /// Moves the averages towards the weights: `a = d a + (1 - d) w`. The decay `d` is `limit`,
    /// less in the first steps, so that the beginning is forgotten.
    pub(crate) fn keep_average(&mut self, limit: f64) {
        let decay = limit.min((1.0 + self.step as f64) / (10.0 + self.step as f64)) as f32;
        for (name, average) in &mut self.average {
            let Some(weight) = self.weights.get(name) else { continue };
            for (a, w) in average.data.iter_mut().zip(&weight.data) {
                *a = decay * *a + (1.0 - decay) * w;
            }
        }
    }

    /// Saves to the run folder; `recipe` is the digest of the recipe, so that a state is never
    /// continued under another one.
    pub(crate) fn save(&self, folder: &Path, recipe: &str) -> Result<(), TrainError> {
        let mut all = Weights::new();
        for (prefix, part) in [
            ("weight", &self.weights),
            ("first", &self.first),
            ("second", &self.second),
            ("average", &self.average),
        ] {
            all.extend(part.iter().map(|(n, a)| (format!("{prefix}.{n}"), a.clone())));
        }
        let info =
            json!({ "step": self.step, "skipped": self.skipped, "recipe": recipe }).to_string();
        let about = Some(("clipguard", info.as_str()));
        Ok(write_safetensors(&folder.join(FILE), &all, Precision::F32, about)?)
    }

    /// Reads the state of a run folder in which the weights that are `trained` have moments.
    pub(crate) fn load(
        folder: &Path,
        recipe: &str,
        trained: impl Fn(&str) -> bool,
    ) -> Result<Self, TrainError> {
        let path = folder.join(FILE);
        let refuse =
            |reason: &str| TrainError::Folder { path: path.clone(), reason: reason.to_owned() };
        let bytes =
            std::fs::read(&path).map_err(|source| TrainError::Io { path: path.clone(), source })?;
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes)
            .map_err(|e| refuse(&format!("not a state of training: {e}")))?;
        let info = header.metadata().as_ref().and_then(|m| m.get("clipguard").cloned());
        let info: serde_json::Value = info
            .and_then(|text| serde_json::from_str(&text).ok())
            .ok_or_else(|| refuse("not a state of training: it does not say its step"))?;
        if info["recipe"] != recipe {
            return Err(refuse(
                "was made by another recipe; `plan.toml` or the model it names was changed",
            ));
        }
        let step = info["step"].as_u64().ok_or_else(|| refuse("does not say its step"))?;
        let (all, _) = parse_safetensors(&bytes, &path)?;
        let part = |prefix: &str| -> Weights {
            all.iter()
                .filter_map(|(n, a)| Some((n.strip_prefix(prefix)?.to_owned(), a.clone())))
                .collect()
        };
        let state = Self {
            step,
            // States of earlier versions do not say it.
            skipped: info["skipped"].as_u64().unwrap_or(0),
            weights: part("weight."),
            first: part("first."),
            second: part("second."),
            average: part("average."),
        };
        let complete = state.weights.keys().filter(|n| trained(n));
        if !complete.clone().eq(state.first.keys()) || !complete.eq(state.second.keys()) {
            return Err(
                ModelError::File { path, reason: "moments are incomplete".to_owned() }.into()
            );
        }
        Ok(state)
    }
}
