//! Files of earlier runs: records, samples, adversarial pictures.
#![no_main]

use clipguard_evaluate::{read_records, records::samples::read_samples, run::adversarial};
use clipguard_fuzz::with_file;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    with_file("records.jsonl", bytes, |path| {
        let path = Path::new(path);
        if let Ok(records) = read_records(path) {
            let page = clipguard_evaluate::Report::from_records("fuzz", &records).render();
            assert!(!page.contains("<script"));
        }
        drop(read_samples(path));
        drop(adversarial::read(path));
    });
});
