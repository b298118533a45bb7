//! Regression mode: when a finished run still ends in a failure.

use crate::failure::Failure;
use clipguard_evaluate::{
    Record,
    records::samples::{SampleLine, read_samples, regressions},
    report::headline_record,
};
use std::path::Path;

/// What a number must not fall below.
pub(super) struct Limits {
    least: Option<f64>,
    before: Vec<SampleLine>,
}

impl Limits {
    /// Reads the baseline before anything is computed, so that a wrong path costs nothing.
    pub(super) fn read(least: Option<f64>, baseline: Option<&Path>) -> Result<Self, Failure> {
        if let Some(least) = least.filter(|least| !(0.0..=1.0).contains(least)) {
            let expected = "expected a share between 0 and 1, such as 0.3";
            return Err(Failure::Usage(format!("--min-robust {least}: {expected}")));
        }
        let before = baseline.map(read_samples).transpose()?.unwrap_or_default();
        Ok(Self { least, before })
    }

    /// Fails when a limit is broken, and says by how much.
    pub(super) fn check(&self, records: &[Record], folder: &Path) -> Result<(), Failure> {
        let mut broken = Vec::new();
        if let Some(least) = self.least {
            let share = headline_record(records).filter(|r| !r.is_clean()).and_then(Record::share);
            match share {
                Some(share) if share >= least => {}
                Some(share) => broken.push(format!(
                    "robust accuracy {:.1}% is below the limit of {:.1}%",
                    100.0 * share,
                    100.0 * least
                )),
                None => broken.push("--min-robust: the plan has no attack".to_owned()),
            }
        }
        if !self.before.is_empty() {
            let found = regressions(&self.before, &read_samples(folder)?);
            if found.is_empty() {
                let reason =
                    "the baseline has no sample, defence and radius in common with this run";
                return Err(Failure::Refused(reason.to_owned()));
            }
            for worse in found.iter().filter(|found| found.is_worse()) {
                broken.push(format!(
                    "{}: worse than the baseline by {:.1} points on {} samples (p = {:.3}; {} lost, \
                     {} won)",
                    worse.what,
                    -100.0 * worse.pair.difference(),
                    worse.pair.n,
                    worse.p,
                    worse.pair.only_a,
                    worse.pair.only_b
                ));
            }
        }
        match broken.is_empty() {
            true => Ok(()),
            false => Err(Failure::Failed(broken.join("\n"))),
        }
    }
}
