//! Plausibility checks: the symptoms of an attack that was too weak (Athalye, Carlini and Wagner
//! 2018; Carlini et al. 2019; Croce et al. 2020; Zimmermann et al. 2022).
//!
//! The decision behind this folder: **a check is a measurement of one picture and a judgement over
//! all of them.** The measurement needs the victim and costs time; it is a row of numbers that is
//! kept like the outcome of an attack, so it can be interrupted and shared out. The judgement is a
//! pure function from rows to a verdict. [`CATALOGUE`] lists what costs something; what follows
//! from the attacks of the plan alone is in [`cheap`].
//!
//! A check looks at the attack, not at the defence: a real defence passes all of them. What cannot
//! be run here is said to be not run, with the reason, and never counted as passed.

mod bench;
mod black_box;
pub mod cheap;
mod finding;
mod gradient;
mod output;
mod planted;
mod radius;
mod separator;
mod steps;

pub(crate) use bench::values;
pub use bench::{Bench, Effort, Subject};
pub use cheap::{gradient_modes, transfer, zero_gradients};
pub(crate) use finding::{About, missing};
pub(crate) use planted::{PLANTED, inner_points};

use crate::{
    clean::metrics::argmax,
    records::record::{Check, Verdict},
};
use burn::tensor::Tensor;
use clipguard_attack::{Batch, parse};

/// What a check measured on one picture; without numbers the picture was not looked at.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Row {
    /// The measurements, as the check's own file defines them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<f64>,
    /// Why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Rows of the pictures of a batch, or why the check cannot be run here.
pub(crate) type Measured = Result<Vec<Vec<f64>>, String>;

/// What a judgement knows beside the rows.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// Classes of the victim.
    pub classes: usize,
    /// The attacks whose number is in question.
    pub attacks: Vec<String>,
}

impl Case {
    /// Whether any attack of the plan has a setting `key` for which `holds`.
    fn any(&self, key: &str, holds: impl Fn(&str) -> bool) -> bool {
        let full = self.attacks.iter().filter_map(|text| parse(text).ok());
        full.into_iter().any(|attack| attack.spelling().get(key).is_some_and(&holds))
    }

    /// Whether every attack follows the gradient of a cross-entropy on unscaled logits.
    fn raises_cross_entropy_only(&self) -> bool {
        let full = self.attacks.iter().filter_map(|text| parse(text).ok()).map(|a| a.spelling());
        full.into_iter().all(|s| {
            s.get("loss") == Some("ce") && s.get("scale").is_none_or(|scale| scale == "model")
        })
    }
}

/// A check that needs the victim.
pub struct Probe {
    /// Id, name, and what it means.
    pub(crate) about: About,
    measure: fn(&Bench<'_>, &Batch<'_>) -> Measured,
    judge: fn(&About, &Case, &[&[f64]]) -> Check,
}

/// Every check that needs the victim, in the order of their ids.
pub static CATALOGUE: &[Probe] = &[
    steps::ONE_STEP,
    black_box::BLACK_BOX,
    radius::UNBOUNDED,
    radius::CURVE,
    black_box::RANDOM,
    steps::CONVERGENCE,
    gradient::ZERO,
    gradient::DIRECTION,
    steps::RISING,
    output::RANDOMNESS,
    black_box::TRANSFER,
    steps::MODES,
    output::SCALE,
    PLANTED,
    radius::CONFIDENCE,
    gradient::LINEARITY,
    gradient::DECLARED,
    output::PROBABILITIES,
];

impl Probe {
    /// Short stable name, such as `O3`.
    pub fn id(&self) -> &'static str {
        self.about.id
    }

    /// How many of `given` pictures it looks at, the first of them: some take thousands of passes
    /// for each.
    pub fn samples(&self, given: usize) -> usize {
        match COSTLY.contains(&self.id()) {
            true => given.min(COSTLY_MOST),
            false => given,
        }
    }

    /// Measures every picture of the batch that the victim classifies correctly.
    pub fn rows(&self, bench: &Bench<'_>, batch: &Batch<'_>) -> Vec<Row> {
        let mut rows = vec![Row::default(); batch.labels.len()];
        let correct: Vec<usize> = bench.correct(batch);
        if correct.is_empty() {
            return rows;
        }
        let keys: Vec<String> = correct.iter().map(|&i| batch.keys[i].clone()).collect();
        let labels: Vec<usize> = correct.iter().map(|&i| batch.labels[i]).collect();
        let parts = correct.iter().map(|&i| batch.pixels.clone().narrow(0, i, 1)).collect();
        let part = Batch { pixels: Tensor::cat(parts, 0), labels: &labels, keys: &keys };
        let random = bench.random || bench.answers_at_random(&part);
        let bench = Bench { random, modes: bench.modes.clone(), ..*bench };
        match (self.measure)(&bench, &part) {
            Ok(measured) => {
                for (&i, values) in correct.iter().zip(measured) {
                    rows[i].values = values.into_iter().map(finite).collect();
                }
            }
            Err(reason) => correct.iter().for_each(|&i| rows[i].reason = Some(reason.clone())),
        }
        rows
    }

    /// The verdict over the rows of all pictures.
    pub fn judge(&self, case: &Case, rows: &[Row]) -> Check {
        let measured: Vec<&[f64]> =
            rows.iter().map(|row| row.values.as_slice()).filter(|v| !v.is_empty()).collect();
        if measured.is_empty() {
            let reason = rows.iter().find_map(|row| row.reason.clone());
            let none = "no picture is classified correctly, so there was nothing to check";
            return missing(&self.about, reason.unwrap_or_else(|| none.to_owned()));
        }
        let mut check = (self.judge)(&self.about, case, &measured);
        check.n = Some(measured.len());
        let enough = self.samples(ENOUGH);
        if measured.len() < enough && check.verdict != Verdict::NotRun {
            check.explanation += &format!(
                " Looked at {} pictures only; {enough} are needed for a firm verdict.",
                measured.len()
            );
        }
        check
    }
}

/// Why no check is run on a patch.
pub const NO_BALL: &str =
    "the checks move every pixel a little; they are made for linf, l2 and l1, not for a patch";

/// Checks by thousands of queries, by planted adversarials, and by long attacks without bound.
const COSTLY: [&str; 3] = ["O2", "O14", "O15"];

/// Pictures they look at. What they say of so many comes with its interval; an attack that finds
/// four fifths of what was planted is still told from one that finds all 99 times in 100.
const COSTLY_MOST: usize = 32;

/// Pictures below which a verdict is not firm.
const ENOUGH: usize = 64;

/// Runs every check on `batch`, `size` pictures at once; `follow` hears the id of each before it
/// starts and may end the work by returning false.
pub fn examine(
    bench: &Bench<'_>,
    batch: &Batch<'_>,
    size: usize,
    follow: &mut dyn FnMut(&str) -> bool,
) -> Option<Vec<Check>> {
    let case = Case { classes: bench.subject().classes(), attacks: bench.attacks.to_vec() };
    let mut found = Vec::new();
    for probe in CATALOGUE {
        if !follow(probe.id()) {
            return None;
        }
        let mut rows = Vec::new();
        let count = probe.samples(batch.labels.len());
        for start in (0..count).step_by(size.max(1)) {
            let end = (start + size.max(1)).min(count);
            let part = Batch {
                pixels: batch.pixels.clone().narrow(0, start, end - start),
                labels: &batch.labels[start..end],
                keys: &batch.keys[start..end],
            };
            rows.extend(probe.rows(bench, &part));
        }
        found.push(probe.judge(&case, &rows));
    }
    Some(found)
}

/// Joins two lists of findings; of two with one id the worse verdict stays.
pub fn joined(mut first: Vec<Check>, second: Vec<Check>) -> Vec<Check> {
    let weight = |verdict| match verdict {
        Verdict::NotRun => 0,
        Verdict::Ok => 1,
        Verdict::Suspect => 2,
        Verdict::Fail => 3,
    };
    for check in second {
        match first.iter_mut().find(|known| known.id == check.id) {
            Some(known) if weight(check.verdict) > weight(known.verdict) => *known = check,
            Some(_) => {}
            None => first.push(check),
        }
    }
    first.sort_by_key(|check| {
        CATALOGUE.iter().position(|probe| probe.id() == check.id).unwrap_or(usize::MAX)
    });
    first
}

/// A number that JSON can hold: what is none counts as very large.
fn finite(value: f64) -> f64 {
    const LARGE: f64 = 1e300;
    if value.is_nan() { LARGE } else { value.clamp(-LARGE, LARGE) }
}

/// Whether each row of logits names its label.
pub(crate) fn right(logits: &[f32], labels: &[usize]) -> Vec<bool> {
    let classes = logits.len() / labels.len().max(1);
    let rows = logits.chunks_exact(classes.max(1));
    rows.zip(labels).map(|(row, label)| argmax(row) == Some(*label)).collect()
}
