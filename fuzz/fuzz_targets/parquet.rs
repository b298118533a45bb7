//! Parquet files.
#![no_main]

use clipguard_fuzz::{samples, with_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| with_file("a.parquet", bytes, |path| samples(path)));
