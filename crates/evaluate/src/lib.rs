//! Evidence: plans, metrics, intervals, records, the report.

pub mod certify;
pub mod compare;
pub mod interval;
pub mod metrics;
pub mod retrieval;

pub use certify::{Certificate, certify, predict};
pub use compare::{McNemar, Paired, holm};
pub use interval::{Interval, IntervalMethod, clopper_pearson_lower, normal_quantile};
pub use metrics::{Classification, ClassScore, MetricError};
pub use retrieval::Retrieval;

#[cfg(test)]
mod golden;
