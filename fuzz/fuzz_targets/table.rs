//! Tables of pictures and captions: CSV and TSV.
#![no_main]

use clipguard_fuzz::{samples, with_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    with_file("a.csv", bytes, |path| samples(path));
    with_file("a.tsv", bytes, |path| samples(path));
});
