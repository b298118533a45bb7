//! Every system beside a baseline, on the same pictures.
//!
//! Two shares with overlapping intervals say nothing about a difference, and the best of twenty rows
//! is good by luck. So a plan names what the others have to beat (`[[baseline]]`): the pictures on
//! which the two disagree are counted, tested by McNemar, and the p-values are corrected for the
//! number of systems that were tried against the same baseline.

use crate::{
    Plan, Record, holm, records::record::WORST_CASE, records::samples::SampleLine,
    statistics::compare::Paired,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// The key in a worst-case record's extra fields.
pub(crate) const KEY: &str = "against";

/// Level of the interval of a difference.
const LEVEL: f64 = 0.95;

/// The worst case of a system beside that of a baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Against {
    /// The baseline's model.
    pub model: String,
    /// The baseline's defence.
    pub defence: String,
    /// Share right minus the baseline's.
    pub difference: f64,
    /// Interval of the difference, at 95 %.
    pub interval: (f64, f64),
    /// Pictures that only this system has right.
    pub only_here: usize,
    /// Pictures that only the baseline has right.
    pub only_there: usize,
    /// McNemar's exact two-sided p-value.
    pub p: f64,
    /// The same after Holm's correction for all systems beside this baseline, on the same data and
    /// radius.
    pub holm: f64,
}

/// Data, norm and radius.
type Case = (String, String, Option<u64>);

/// Whether each picture is right in a system's worst case.
type Answers<'a> = HashMap<&'a str, bool>;

/// Adds to every worst-case record how it stands beside the plan's baselines.
pub(crate) fn annotate(plan: &Plan, records: &mut [Record], samples: &[SampleLine]) {
    let case = |dataset: &str, norm: &str, eps: Option<f64>| -> Case {
        (dataset.to_owned(), norm.to_owned(), eps.map(f64::to_bits))
    };
    let mut systems: HashMap<(&str, &str, Case), Answers<'_>> = HashMap::new();
    for line in samples {
        let case = case(&line.dataset, &line.norm, line.eps);
        let system = systems.entry((&line.model, &line.defence, case)).or_default();
        system.insert(&line.sample, line.robust);
    }
    for baseline in &plan.baseline {
        let there = (baseline.model(plan), baseline.defence.as_str());
        let mut cases: BTreeMap<Case, Vec<(usize, Against)>> = BTreeMap::new();
        for (place, record) in records.iter().enumerate() {
            let here = (record.model.as_str(), record.defence.as_str());
            let worst = record.attack == WORST_CASE && here != there;
            let Some(threat) = record.threat.as_ref().filter(|_| worst) else { continue };
            let case = case(&record.dataset, &threat.norm, threat.eps);
            let of = |(model, defence)| systems.get(&(model, defence, case.clone()));
            let (Some(own), Some(base)) = (of(here), of(there)) else { continue };
            if let Some(pair) = paired(base, own) {
                cases.entry(case).or_default().push((place, Against::new(there, pair)));
            }
        }
        for found in cases.into_values() {
            let corrected = holm(&found.iter().map(|(_, one)| one.p).collect::<Vec<f64>>());
            for ((place, one), holm) in found.into_iter().zip(corrected) {
                let extra =
                    records[place].extra.entry(KEY).or_insert_with(|| serde_json::json!([]));
                if let Some(list) = extra.as_array_mut() {
                    list.push(serde_json::json!(Against { holm, ..one }));
                }
            }
        }
    }
}

/// On the pictures that both have.
fn paired(base: &Answers<'_>, own: &Answers<'_>) -> Option<Paired> {
    let both = own.iter().filter_map(|(key, right)| Some((*base.get(key)?, *right)));
    let (a, b): (Vec<bool>, Vec<bool>) = both.unzip();
    Paired::of(&a, &b).filter(|pair| pair.n > 0)
}

impl Against {
    /// `pair` counts the baseline as A; p is not corrected yet.
    fn new((model, defence): (&str, &str), pair: Paired) -> Self {
        let p = pair.mcnemar().exact;
        Self {
            model: model.to_owned(),
            defence: defence.to_owned(),
            difference: pair.difference(),
            interval: pair.agresti_min(LEVEL),
            only_here: pair.only_b,
            only_there: pair.only_a,
            p,
            holm: p,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Threat, plan::Baseline};

    fn system(model: &str, defence: &str, right: &[bool]) -> (Record, Vec<SampleLine>) {
        let threat = Threat { norm: "linf".into(), eps: Some(0.1), space: "pixels".into() };
        let record = Record {
            model: model.into(),
            defence: defence.into(),
            dataset: "d".into(),
            attack: WORST_CASE.into(),
            threat: Some(threat),
            ..Record::default()
        };
        let line = |(i, robust): (usize, &bool)| SampleLine {
            model: model.into(),
            defence: defence.into(),
            dataset: "d".into(),
            norm: "linf".into(),
            eps: Some(0.1),
            sample: format!("{i}"),
            robust: *robust,
            ..SampleLine::default()
        };
        (record, right.iter().enumerate().map(line).collect())
    }

    #[test]
    fn systems_are_compared_on_the_same_pictures_and_corrected_together() {
        let mut better = [false; 40];
        better[..12].fill(true);
        let (base, own) = system("m", "none", &[false; 40]);
        let (same, more) = system("m", "same", &[false; 40]);
        let (good, last) = system("n", "none", &better);
        let mut records = vec![base, same, good];
        let samples = [own, more, last].concat();
        let plan = Plan {
            models: vec!["m".into(), "n".into()],
            baseline: vec![Baseline::default()],
            ..Plan::default()
        };
        annotate(&plan, &mut records, &samples);
        assert!(!records[0].extra.contains_key(KEY));
        let of = |record: &Record| -> Vec<Against> {
            serde_json::from_value(record.extra[KEY].clone()).unwrap()
        };
        let same = &of(&records[1])[0];
        assert_eq!((same.difference, same.p, same.holm), (0.0, 1.0, 1.0));
        let good = &of(&records[2])[0];
        assert_eq!((good.only_here, good.only_there, good.difference), (12, 0, 0.3));
        let exact = 2.0 * 0.5_f64.powi(12);
        assert!((good.p - exact).abs() < 1e-12 && (good.holm - 2.0 * exact).abs() < 1e-12);
        assert!(good.interval.0 > 0.1 && good.interval.1 < 0.5, "{:?}", good.interval);
    }
}
