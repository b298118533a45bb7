//! Evidence: plans, metrics, intervals, records, the report.
//!
//! The decision behind this crate: a number never stands alone. A [`Plan`] says completely what
//! is measured; [`run`] turns it into [`Record`]s that carry interval, base rate, threat
//! and plausibility checks with every figure; the [`Report`] shows the worst case first. A defence
//! is always met by attacks that know it, and where a publication measured otherwise its protocol
//! is run too and stands beside the honest one.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod checks;
pub mod classifier;
pub mod clean;
mod error;
pub mod plan;
pub mod records;
pub mod report;
pub mod run;
pub mod statistics;
pub mod studies;

pub use classifier::Classifier;
pub use clean::{
    metrics::{ClassScore, Classification, MetricError, argmax},
    midway::Midway,
    multi_label::MultiLabel,
    probe::Probe,
    retrieval::Retrieval,
};
pub use error::EvaluateError;
pub use plan::{Baseline, Certify, Checks, Defence, Detect, Plan, Published};
pub use records::{
    against::Against,
    benchmark_csv::export_clip_benchmark_csv,
    record::{Check, Digests, Metrics, Record, RecordError, Reliability, Threat, Verdict},
    record_file::{export_clip_benchmark, read_records, write_atomic, write_records},
};
pub use report::Report;
pub use run::{
    cost::of_checks as seconds_of_checks,
    evidence::{Alone, ClassAlive, Flow},
    examples::{Example, report_of_run},
    merge::{Merged, merge},
    runner::Evaluation,
    shard::Shard,
    subset::Subset,
};
pub use statistics::{
    compare::{McNemar, Paired, holm},
    interval::{Interval, IntervalMethod, clopper_pearson_lower, normal_quantile},
};
pub use studies::{
    certified::{At, Certified},
    certify::{Certificate, certify, predict},
    detection::{Detection, Estimate},
    shift::{Curves, Shift, Shifts, Space},
};

#[cfg(test)]
mod golden;
