//! The configuration files of open_clip's and Hugging Face's folders.
#![no_main]

use clipguard_fuzz::with_files;
use clipguard_model::outline::Outline;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let weights = *b"\x02\0\0\0\0\0\0\0{}";
    let open_clip =
        [("open_clip_config.json", bytes), ("open_clip_model.safetensors", &weights[..])];
    with_files(&open_clip, |folder| drop(Outline::read(folder).map(|outline| outline.check())));
    let theirs = [
        ("config.json", bytes),
        ("preprocessor_config.json", bytes),
        ("model.safetensors", &weights[..]),
    ];
    with_files(&theirs, |folder| drop(Outline::read(folder).map(|outline| outline.check())));
});
