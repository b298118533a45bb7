//! From a plan to records: what is to be computed, the computing, and what its outcome comes to.
//!
//! `schedule` turns a plan into units of work, [`runner`] completes them (batch by batch, so that it
//! can stop anywhere), `unit_file` keeps them, [`merge`] gathers those of several machines, and
//! `summary` makes records of what is there. None of them knows what another did but by the files.

pub mod adversarial;
pub(crate) mod cost;
pub(crate) mod estimate;
pub(crate) mod evidence;
pub mod examples;
pub(crate) mod handout;
pub mod merge;
pub mod progress;
pub mod runner;
pub(crate) mod schedule;
pub(crate) mod shard;
pub mod subset;
pub(crate) mod summary;
pub(crate) mod unit_file;
pub(crate) mod units;
