//! Evidence: plans, metrics, intervals, records, the report.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod certify;
pub mod compare;
pub mod interval;
pub mod metrics;
pub mod record;
pub mod record_file;
pub mod report;
pub mod retrieval;

pub use certify::{Certificate, certify, predict};
pub use compare::{McNemar, Paired, holm};
pub use interval::{Interval, IntervalMethod, clopper_pearson_lower, normal_quantile};
pub use metrics::{ClassScore, Classification, MetricError};
pub use record::{Check, Digests, Metrics, Record, RecordError, Reliability, Threat, Verdict};
pub use record_file::{export_clip_benchmark, read_records, write_atomic, write_records};
pub use report::Report;
pub use retrieval::Retrieval;

#[cfg(test)]
mod golden;
