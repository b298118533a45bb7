//! What stands behind a worst case: each attack alone, together and beyond the others; norms,
//! iterations, classes.

use crate::{run::schedule::StageHead, run::summary::Unit};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, path::PathBuf};

/// One attack of a worst case.
pub(crate) struct Part {
    /// As a record names it.
    pub(crate) name: String,
    /// Gradient mode, where there is a choice.
    pub(crate) gradient: Option<&'static str>,
    /// Whether it attacks the defence itself, not by transfer or by files.
    pub(crate) direct: bool,
    /// The unit that keeps its pictures.
    pub(crate) pictures: Option<PathBuf>,
}

/// How one attack of a worst case fared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Alone {
    /// Its name.
    pub attack: String,
    /// How the gradient passed the defence, where there is a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient: Option<String>,
    /// Samples that are right after this attack alone.
    pub alone: usize,
    /// Samples that are right after this attack and all before it.
    pub cumulative: usize,
    /// Samples that no other attack broke.
    pub unique: usize,
    /// For every sample it broke, the evaluation at which it first succeeded; sorted.
    pub first: Vec<usize>,
    /// Whether its evaluations are queries: it saw answers and no gradients.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub by_queries: bool,
    /// The most evaluations it made of one sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most: Option<usize>,
    /// Median over the samples that were right of the smallest error it saw, inside the budget or
    /// not; `None` where it looked for none or saw none for half of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<f32>,
}

/// How a class fared in the worst case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassAlive {
    /// Its name.
    pub class: String,
    /// Samples.
    pub n: usize,
    /// Samples right in the worst case.
    pub right: usize,
}

/// Pictures of one class that an attack made into another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flow {
    /// The true class.
    pub from: String,
    /// What the model says of the adversarial picture.
    pub to: String,
    /// How many pictures; each counts once, under the first attack that broke it.
    pub count: usize,
}

/// The keys that a worst-case record carries beside its number.
pub(crate) fn evidence(
    head: &StageHead,
    clean: &Unit,
    parts: &[(Part, Unit)],
) -> Map<String, Value> {
    let n = head.samples.len();
    let broken = |unit: &Unit, i: usize| clean.lines[i].right && !unit.lines[i].right;
    let times: Vec<usize> =
        (0..n).map(|i| parts.iter().filter(|(_, unit)| broken(unit, i)).count()).collect();
    let mut alive: Vec<bool> = clean.lines.iter().map(|line| line.right).collect();
    let mut attacks = Vec::new();
    for (part, unit) in parts {
        let kills: Vec<usize> = (0..n).filter(|&i| broken(unit, i)).collect();
        kills.iter().for_each(|&i| alive[i] = false);
        let mut first: Vec<usize> = kills.iter().filter_map(|&i| unit.lines[i].first).collect();
        first.sort_unstable();
        attacks.push(Alone {
            attack: part.name.clone(),
            gradient: part.gradient.map(str::to_owned),
            alone: unit.lines.iter().filter(|line| line.right).count(),
            cumulative: alive.iter().filter(|alive| **alive).count(),
            unique: kills.iter().filter(|&&i| times[i] == 1).count(),
            first,
            by_queries: part.direct && unit.totals.forwards > 0 && unit.totals.backwards == 0,
            most: unit.lines.iter().filter_map(|line| line.points).max(),
            nearest: median_nearest(clean, unit),
        });
    }
    let mut norms: Vec<f32> = (0..n)
        .filter_map(|i| {
            let found = parts.iter().filter(|(_, unit)| broken(unit, i));
            found.filter_map(|(_, unit)| unit.lines[i].norm).reduce(f32::min)
        })
        .collect();
    norms.sort_by(f32::total_cmp);
    let class = |(number, name): (usize, &String)| {
        let own = || (0..n).filter(move |&i| head.samples[i].label == number);
        ClassAlive {
            class: name.clone(),
            n: own().count(),
            right: own().filter(|&i| alive[i]).count(),
        }
    };
    let classes: Vec<ClassAlive> =
        head.classes.iter().enumerate().map(class).filter(|class| class.n > 0).collect();
    let pairs = [
        ("attacks", json!(attacks)),
        ("norms", json!(norms)),
        ("classes", json!(classes)),
        ("flows", json!(flows(head, clean, parts))),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Where the broken pictures went, the widest flow first.
fn flows(head: &StageHead, clean: &Unit, parts: &[(Part, Unit)]) -> Vec<Flow> {
    let mut counts: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for (i, sample) in head.samples.iter().enumerate().filter(|(i, _)| clean.lines[*i].right) {
        let broken = parts.iter().map(|(_, unit)| &unit.lines[i]).find(|line| !line.right);
        if let Some(said) = broken.and_then(|line| line.pred) {
            *counts.entry((sample.label, said)).or_default() += 1;
        }
    }
    let name = |class: usize| head.classes.get(class).cloned().unwrap_or_default();
    let flow = |((from, to), count)| Flow { from: name(from), to: name(to), count };
    let mut flows: Vec<Flow> = counts.into_iter().map(flow).collect();
    flows.sort_by_key(|flow| std::cmp::Reverse(flow.count));
    flows
}

/// The median smallest error over the samples that were right; none seen is larger than any.
fn median_nearest(clean: &Unit, unit: &Unit) -> Option<f32> {
    let right = clean.lines.iter().zip(&unit.lines).filter(|(clean, _)| clean.right);
    let mut sizes: Vec<f32> =
        right.map(|(_, line)| line.nearest.unwrap_or(f32::INFINITY)).collect();
    sizes.sort_by(f32::total_cmp);
    sizes.get(sizes.len() / 2).copied().filter(|size| size.is_finite())
}
