//! IDX files, as MNIST has them: pictures and labels in one input, cut where its first byte says.
#![no_main]

use clipguard_fuzz::{samples, with_files};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, rest)) = bytes.split_first() else { return };
    let (labels, pictures) = rest.split_at(usize::from(*cut).min(rest.len()));
    let files = [("t10k-images-idx3-ubyte", pictures), ("t10k-labels-idx1-ubyte", labels)];
    with_files(&files, |folder| samples(&format!("mnist:{folder}")));
});
