//! Weight files: safetensors, PyTorch in all its formats, TorchScript.
#![no_main]

use clipguard_fuzz::with_file;
use clipguard_model::Container;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    with_file("weights", bytes, |path| {
        let Ok(container) = Container::open(Path::new(path)) else { return };
        let numbers: u64 = container
            .entries
            .values()
            .map(|e| e.shape.iter().map(|n| *n as u64).product::<u64>())
            .sum();
        // What an index announces has to be in the file, or be refused before it is read; views may
        // share a storage, so some more is honest.
        if numbers > 1 << 24 {
            return;
        }
        if let Ok(weights) = container.read() {
            for (name, array) in &weights {
                assert_eq!(array.data.len(), array.shape.iter().product::<usize>(), "{name}");
            }
        }
    });
});
