//! How a finding is written down.

use crate::records::record::{Check, Verdict};

/// What is the same for every outcome of a check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    /// Short stable name.
    pub(crate) id: &'static str,
    /// What should hold, in a few words.
    pub(crate) name: &'static str,
    /// Why it matters.
    pub(crate) explanation: &'static str,
    /// What to do when it does not hold.
    pub(crate) remedy: &'static str,
}

impl About {
    /// The finding with these numbers.
    pub(crate) fn found(&self, value: f64, threshold: f64, verdict: Verdict) -> Check {
        Check {
            id: self.id.to_owned(),
            name: self.name.to_owned(),
            value: Some(value),
            threshold: Some(threshold),
            verdict,
            explanation: self.explanation.to_owned(),
            remedy: self.remedy.to_owned(),
            ..Check::default()
        }
    }
}

/// A check that was not run, and why.
pub(crate) fn missing(about: &About, reason: impl Into<String>) -> Check {
    Check {
        id: about.id.to_owned(),
        name: about.name.to_owned(),
        verdict: Verdict::NotRun,
        explanation: reason.into(),
        remedy: about.remedy.to_owned(),
        ..Check::default()
    }
}

/// Share of rows for which `holds`; 0 for no rows.
pub(crate) fn share(rows: &[&[f64]], holds: impl Fn(&[f64]) -> bool) -> f64 {
    rows.iter().filter(|row| holds(row)).count() as f64 / rows.len().max(1) as f64
}

/// Number of rows for which `holds`.
pub(crate) fn count(rows: &[&[f64]], holds: impl Fn(&[f64]) -> bool) -> usize {
    rows.iter().filter(|row| holds(row)).count()
}

/// The middle value; 0 for none. Of two middle ones the upper.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// 1 for true, as rows keep it.
pub(crate) fn flag(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

/// Rows side by side: entry `i` of every list becomes row `i`.
pub(crate) fn beside(columns: &[Vec<bool>]) -> Vec<Vec<f64>> {
    let rows = columns.first().map_or(0, Vec::len);
    (0..rows).map(|i| columns.iter().map(|column| flag(column[i])).collect()).collect()
}
