//! Gzipped WebDataset shards.
#![no_main]

use clipguard_fuzz::{samples, with_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| with_file("a.tar.gz", bytes, |path| samples(path)));
