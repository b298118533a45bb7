//! Archives of CIFAR-10.
#![no_main]

use clipguard_fuzz::{samples, with_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for name in ["a.tar", "a.tar.gz", "a.tar.xz"] {
        with_file(name, bytes, |path| samples(&format!("cifar10:{path}")));
    }
});
