//! What the targets share: files that hold an input, and a walk over a data source.

use clipguard_data::{Limits, Options, contained, open};
use std::{fs, path::PathBuf, sync::Once};

/// Largest input that is tried, in bytes; beyond it nothing new happens, slowly.
const MOST: usize = 1 << 16;

/// Calls `then` with the path of a file `name` that holds `bytes`.
pub fn with_file(name: &str, bytes: &[u8], then: impl FnOnce(&str)) {
    with_files(&[(name, bytes)], |folder| then(&format!("{folder}/{name}")));
}

/// Calls `then` with the path of a folder that holds these files.
pub fn with_files(files: &[(&str, &[u8])], then: impl FnOnce(&str)) {
    if files.iter().any(|(_, bytes)| bytes.len() > MOST) {
        return;
    }
    // In memory where the system has such a place: a disk would be the bottleneck.
    let memory = PathBuf::from("/dev/shm");
    let room = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let folder = tempfile::tempdir_in(room).expect("a folder for the input");
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).expect("the input as a file");
    }
    then(folder.path().to_str().expect("a path of plain characters"));
}

/// Lets panics pass that the program catches: those of decoders of other people. Called in front of every
/// input, because the fuzzer sets its own hook first.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(contained::quiet);
}

/// Opens a data source and decodes its first samples.
pub fn samples(spelling: &str) {
    prepare();
    let limits = Limits { pixels: 1 << 18, side: 4096, bytes: 1 << 20 };
    let Ok(source) = open(spelling, &Options { limits, ..Options::default() }) else { return };
    let Ok(samples) = source.open(0) else { return };
    for sample in samples.take(32).flatten() {
        drop(sample.decode(&limits));
    }
}
