//! The sections of a plan that name one of its defences: baselines, certificates, detectors.

use super::Plan;
use crate::{records::record::NO_DEFENCE, studies::persistent};
use clipguard_data::spelling::{Spelling, find};
use clipguard_purify::SCORES;
use serde::{Deserialize, Serialize};

/// A system that the others are compared with on the same pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Baseline {
    /// The model, as the plan spells it; empty for the plan's first.
    pub model: String,
    /// The defence, by its name.
    pub defence: String,
}

impl Default for Baseline {
    fn default() -> Self {
        Self { model: String::new(), defence: NO_DEFENCE.to_owned() }
    }
}

impl Baseline {
    /// The model's spelling.
    pub(crate) fn model<'a>(&'a self, plan: &'a Plan) -> &'a str {
        match self.model.as_str() {
            "" => plan.models.first().map_or("", String::as_str),
            own => own,
        }
    }

    pub(super) fn check(&self, plan: &Plan, defences: &[&str]) -> Result<(), String> {
        known("baseline", &self.defence, defences)?;
        let model = self.model(plan);
        let models: Vec<&str> = plan.models.iter().map(String::as_str).collect();
        if !models.contains(&model) {
            let all = models.join("`, `");
            return Err(format!("baseline: no model of the plan is `{model}`; there are `{all}`"));
        }
        match plan.defences_of(model).any(|defence| defence.name == self.defence) {
            true => Ok(()),
            false => Err(format!("baseline: defence `{}` leaves `{model}` out", self.defence)),
        }
    }
}

/// Certification by randomised smoothing (Cohen et al. 2019): the classifier that answers what a
/// defence most often answers under Gaussian noise, and the L2 radius within which nothing changes
/// its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Certify {
    /// The defence that is smoothed, by its name.
    pub defence: String,
    /// Standard deviation of the noise, in pixel units.
    pub sigma: f64,
    /// Votes that choose the answer.
    pub n0: usize,
    /// Votes that bound its probability.
    pub n: usize,
    /// Probability with which one certificate may be wrong.
    pub alpha: f64,
    /// Radii that get a record each.
    pub radii: Vec<f64>,
}

/// A score as a detector, against attacks that raise it beside their loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Detect {
    /// The score's spelling.
    pub score: String,
    /// The defence whose embeddings are watched, by its name.
    pub defence: String,
    /// The attack; empty for the plan's first.
    pub attack: String,
    /// Weights of the score in what the attack raises; 0 is an attack that does not know of it.
    pub weights: Vec<f64>,
}

impl Default for Detect {
    fn default() -> Self {
        Self {
            score: "blank-cosine".to_owned(),
            defence: NO_DEFENCE.to_owned(),
            attack: String::new(),
            weights: vec![0.0, 0.1, 1.0, 10.0],
        }
    }
}

impl Detect {
    /// The attack's spelling.
    pub(crate) fn attack<'a>(&'a self, plan: &'a Plan) -> &'a str {
        match self.attack.as_str() {
            "" => plan.attacks.first().map_or("", String::as_str),
            own => own,
        }
    }

    pub(super) fn check(&self, plan: &Plan, defences: &[&str]) -> Result<(), String> {
        known("detect", &self.defence, defences)?;
        let spelling: Spelling = self.score.parse().map_err(|e| format!("detect: {e}"))?;
        find("score", SCORES, spelling.name()).map_err(|e| format!("detect: {e}"))?;
        if self.attack(plan).is_empty() {
            return Err("detect: an attack is needed, here or in `attacks`".to_owned());
        }
        persistent(self.attack(plan)).map_err(|e| e.to_string())?;
        match self.weights.iter().find(|weight| !(**weight >= 0.0 && weight.is_finite())) {
            Some(weight) => Err(format!("detect: weights: {weight}: numbers of at least 0")),
            None if self.weights.is_empty() => Err("detect: weights: at least one".to_owned()),
            None => Ok(()),
        }
    }
}

/// Refuses the name of a defence that is not in the plan.
fn known(section: &str, name: &str, defences: &[&str]) -> Result<(), String> {
    match defences.contains(&name) {
        true => Ok(()),
        false => Err(format!(
            "{section}: no defence is called `{name}`; there are `{}`",
            defences.join("`, `")
        )),
    }
}

impl Default for Certify {
    fn default() -> Self {
        Self {
            defence: NO_DEFENCE.to_owned(),
            sigma: 0.1,
            n0: 100,
            n: 1000,
            alpha: 0.001,
            radii: vec![0.0, 0.1, 0.25, 0.5],
        }
    }
}

impl Certify {
    /// As a record names it.
    pub fn spelling(&self) -> String {
        let Self { sigma, n0, n, alpha, .. } = self;
        format!("smoothing:sigma={sigma},n0={n0},n={n},alpha={alpha}")
    }

    pub(super) fn check(&self, defences: &[&str]) -> Result<(), String> {
        known("certify", &self.defence, defences)?;
        let demands = [
            ("sigma", self.sigma, self.sigma > 0.0 && self.sigma <= 4.0, "above 0, up to 4"),
            ("n0", self.n0 as f64, self.n0 > 0, "at least 1"),
            ("n", self.n as f64, self.n > 0, "at least 1"),
            ("alpha", self.alpha, self.alpha > 0.0 && self.alpha < 0.5, "between 0 and 0.5"),
        ];
        if let Some((key, value, _, right)) = demands.iter().find(|demand| !demand.2) {
            return Err(format!("certify: {key} = {value}: a number {right}"));
        }
        match self.radii.iter().find(|radius| !(**radius >= 0.0 && radius.is_finite())) {
            Some(radius) => Err(format!("certify: radii: {radius} is no radius")),
            None => Ok(()),
        }
    }
}
