//! Evidence: plans, metrics, intervals, records, the report.
//!
//! The decision behind this crate: a number never stands alone. A [`Plan`] says completely what
//! is measured; the [`runner`] turns it into [`Record`]s that carry interval, base rate, threat
//! and plausibility checks with every figure; the [`Report`] shows the worst case first. A defence
//! is always met by attacks that know it, and where a publication measured otherwise its protocol
//! is run too and stands beside the honest one.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod adversarial;
mod captions;
pub mod certify;
pub mod checks;
pub mod classifier;
pub mod compare;
mod cost;
mod error;
mod estimate;
mod evidence;
pub mod examples;
mod handout;
pub mod interval;
pub mod merge;
pub mod metrics;
pub mod plan;
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
pub mod subset;
mod summary;
mod unit_file;
mod units;

pub use certify::{Certificate, certify, predict};
pub use classifier::Classifier;
pub use compare::{McNemar, Paired, holm};
pub use cost::of_checks as seconds_of_checks;
pub use error::EvaluateError;
pub use evidence::{Alone, ClassAlive};
pub use examples::{Example, report_of_run};
pub use interval::{Interval, IntervalMethod, clopper_pearson_lower, normal_quantile};
pub use merge::{Merged, merge};
pub use metrics::{ClassScore, Classification, MetricError};
pub use plan::{Checks, Defence, Plan, Published};
pub use record::{Check, Digests, Metrics, Record, RecordError, Reliability, Threat, Verdict};
pub use record_file::{export_clip_benchmark, read_records, write_atomic, write_records};
pub use report::Report;
pub use retrieval::Retrieval;
pub use runner::Evaluation;
pub use shard::Shard;
pub use subset::Subset;

#[cfg(test)]
mod golden;
