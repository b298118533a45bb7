//! Files of diffusion priors.
#![no_main]

use clipguard_fuzz::with_file;
use clipguard_model::Prior;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| with_file("prior", bytes, |path| drop(Prior::read(Path::new(path)))));
