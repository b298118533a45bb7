//! Evidence: plans, metrics, intervals, records, the report.
//!
//! The decision behind this crate: a number never stands alone. A [`Plan`] says completely what
//! is measured; the [`runner`] turns it into [`Record`]s that carry interval, base rate, threat
//! and plausibility checks with every figure; the [`Report`] shows the worst case first. A defence
//! is always met by attacks that know it, and where a publication measured otherwise its protocol
//! is run too and stands beside the honest one.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod adversarial;
mod benchmark_csv;
mod captions;
mod certified;
pub mod certify;
pub mod checks;
pub mod classifier;
pub mod compare;
mod cost;
mod detection;
mod error;
mod estimate;
mod evidence;
pub mod examples;
mod gaussian;
mod handout;
pub mod interval;
mod look;
pub mod merge;
pub mod metrics;
pub mod midway;
mod multi_label;
pub mod plan;
pub mod probe;
pub mod progress;
pub mod record;
pub mod record_file;
pub mod report;
pub mod retrieval;
pub mod robustbench;
pub mod runner;
pub mod samples;
mod schedule;
mod shard;
mod shift;
pub mod stored;
mod studies;
pub mod subset;
mod summary;
mod told;
mod unit_file;
mod units;
mod watch;

pub use benchmark_csv::export_clip_benchmark_csv;
pub use certified::{At, Certified};
pub use certify::{Certificate, certify, predict};
pub use classifier::Classifier;
pub use compare::{McNemar, Paired, holm};
pub use cost::of_checks as seconds_of_checks;
pub use detection::{Detection, Estimate};
pub use error::EvaluateError;
pub use evidence::{Alone, ClassAlive};
pub use examples::{Example, report_of_run};
pub use interval::{Interval, IntervalMethod, clopper_pearson_lower, normal_quantile};
pub use merge::{Merged, merge};
pub use metrics::{ClassScore, Classification, MetricError};
pub use midway::Midway;
pub use multi_label::MultiLabel;
pub use plan::{Certify, Checks, Defence, Detect, Plan, Published};
pub use probe::Probe;
pub use record::{Check, Digests, Metrics, Record, RecordError, Reliability, Threat, Verdict};
pub use record_file::{export_clip_benchmark, read_records, write_atomic, write_records};
pub use report::Report;
pub use retrieval::Retrieval;
pub use runner::Evaluation;
pub use shard::Shard;
pub use shift::{Curves, Shift, Shifts, Space};
pub use subset::Subset;

#[cfg(test)]
mod golden;
