//! What a run leaves: one record a number, one line a sample, and the same in the forms of other programs.

pub(crate) mod against;
pub(crate) mod benchmark_csv;
pub mod record;
pub mod record_file;
pub mod robustbench;
pub mod samples;
