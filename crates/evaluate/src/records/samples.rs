//! One line a sample and budget: what a later run is compared with, pair by pair.

use crate::{EvaluateError, McNemar, Paired, records::record_file::read_lines};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, path::Path};

/// The file in a run folder.
pub(crate) const FILE: &str = "samples.jsonl";

/// How one sample fared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SampleLine {
    /// The model, as the plan spells it.
    pub model: String,
    /// The data source.
    pub dataset: String,
    /// The defence.
    pub defence: String,
    /// Norm of the budget.
    pub norm: String,
    /// Its radius.
    pub eps: Option<f64>,
    /// Key of the sample.
    pub sample: String,
    /// True class.
    pub label: usize,
    /// Answer to the unchanged picture.
    pub pred: Option<usize>,
    /// Whether that is right.
    pub clean: bool,
    /// Whether it is right after every attack.
    pub robust: bool,
}

impl SampleLine {
    /// What two runs have in common when they are about the same thing. The model's name is left
    /// out, because that is what changes; of several models of a run it is the number.
    fn place(&self, models: &[&str]) -> Place {
        let number = models.iter().position(|model| *model == self.model).unwrap_or(0);
        let eps = self.eps.map(f64::to_bits);
        (number, self.dataset.clone(), self.defence.clone(), self.norm.clone(), eps)
    }
}

/// Number of the model, data, defence, norm and radius.
type Place = (usize, String, String, String, Option<u64>);

/// The models of a run in the order in which they come first.
fn models(lines: &[SampleLine]) -> Vec<&str> {
    let mut models: Vec<&str> = Vec::new();
    for line in lines {
        if !models.contains(&line.model.as_str()) {
            models.push(&line.model);
        }
    }
    models
}

/// Lines as JSON lines.
pub(crate) fn text(lines: &[SampleLine]) -> String {
    lines.iter().map(|line| serde_json::to_string(line).unwrap_or_default() + "\n").collect()
}

/// Reads the lines of a run: its folder, or the file itself.
pub fn read_samples(path: &Path) -> Result<Vec<SampleLine>, EvaluateError> {
    let file = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
    let lines: Vec<SampleLine> = read_lines(&file)?;
    if lines.iter().any(|line| line.sample.is_empty()) {
        let reason = format!("no outcome of samples; expected the `{FILE}` of a run");
        return Err(EvaluateError::File { path: file, reason });
    }
    Ok(lines)
}

/// A defence under a budget, in two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Regression {
    /// Data, defence and budget, in words.
    pub what: String,
    /// Before against now, on the samples that both have.
    pub pair: Paired,
    /// McNemar's exact two-sided p-value.
    pub p: f64,
}

impl Regression {
    /// Whether it got significantly worse.
    pub fn is_worse(&self) -> bool {
        self.pair.only_a > self.pair.only_b && self.p < 0.05
    }
}

/// Compares two runs in all that both measured, sample by sample.
pub fn regressions(before: &[SampleLine], now: &[SampleLine]) -> Vec<Regression> {
    let (old_models, models) = (models(before), models(now));
    let old: HashMap<_, bool> = before
        .iter()
        .map(|line| ((line.place(&old_models), line.sample.as_str()), line.robust))
        .collect();
    let mut order: Vec<Place> = Vec::new();
    let mut both: HashMap<Place, (Vec<bool>, Vec<bool>)> = HashMap::new();
    for line in now {
        let place = line.place(&models);
        if !both.contains_key(&place) {
            order.push(place.clone());
        }
        let (a, b) = both.entry(place.clone()).or_default();
        if let Some(earlier) = old.get(&(place, line.sample.as_str())) {
            a.push(*earlier);
            b.push(line.robust);
        }
    }
    let mut found = Vec::new();
    for place in order {
        let pair = both.get(&place).and_then(|(a, b)| Paired::of(a, b));
        let Some(pair) = pair.filter(|pair| pair.n > 0) else { continue };
        let (number, dataset, defence, norm, eps) = &place;
        let model = match models.len() {
            0 | 1 => String::new(),
            _ => format!("{}, ", models[*number]),
        };
        let eps = eps.map_or(String::new(), |bits| format!(" {:.5}", f64::from_bits(bits)));
        let p = McNemar::new(pair.only_a, pair.only_b).exact;
        let what = format!("{model}{dataset}, defence {defence}, {norm}{eps}");
        found.push(Regression { what, pair, p });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(robust: &[bool]) -> Vec<SampleLine> {
        let line = |(i, robust): (usize, &bool)| SampleLine {
            sample: format!("{i}"),
            robust: *robust,
            eps: Some(0.1),
            norm: "linf".into(),
            ..SampleLine::default()
        };
        robust.iter().enumerate().map(line).collect()
    }

    #[test]
    fn a_fall_is_told_from_noise_on_the_samples_both_have() {
        let before = lines(&[true; 20]);
        let mut now = [true; 20];
        now[..3].fill(false);
        let found = regressions(&before, &lines(&now));
        assert_eq!(found[0].pair, Paired { only_a: 3, only_b: 0, n: 20 });
        assert!(!found[0].is_worse(), "three of twenty may be chance: {}", found[0].p);
        now[..8].fill(false);
        assert!(regressions(&before, &lines(&now))[0].is_worse());
        assert!(!regressions(&lines(&now), &before)[0].is_worse(), "better is no regression");
        assert_eq!(regressions(&before, &lines(&now)[..5])[0].pair.n, 5);
        let other = SampleLine { eps: Some(0.2), ..lines(&[true])[0].clone() };
        assert!(regressions(&before, &[other]).is_empty());
    }

    #[test]
    fn the_second_model_is_compared_with_the_second_one() {
        let of = |model: &str, robust: &[bool]| {
            let named = lines(robust).into_iter();
            let named = named.map(|line| SampleLine { model: model.to_owned(), ..line });
            named.collect::<Vec<_>>()
        };
        let before = [of("a", &[true; 10]), of("b", &[false; 10])].concat();
        let now = [of("c", &[true; 10]), of("d", &[false; 10])].concat();
        let found = regressions(&before, &now);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|one| one.pair == Paired { only_a: 0, only_b: 0, n: 10 }));
        assert!(found[1].what.starts_with("d, "), "{}", found[1].what);
    }
}
