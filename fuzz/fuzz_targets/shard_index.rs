//! The index of a sharded checkpoint.
#![no_main]

use clipguard_fuzz::with_files;
use clipguard_model::Container;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    // An empty safetensors file stands beside it for indices that name it.
    let shard = *b"\x02\0\0\0\0\0\0\0{}";
    let files = [("model.safetensors.index.json", bytes), ("a.safetensors", &shard[..])];
    with_files(&files, |folder| {
        let path = Path::new(folder).join("model.safetensors.index.json");
        if let Ok(container) = Container::open(&path) {
            let inside = |p: &Path| p.canonicalize().is_ok_and(|p| p.starts_with(folder));
            assert!(container.files().all(inside), "a shard outside the folder");
        }
    });
});
