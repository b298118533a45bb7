//! The reference values that tests compare with: recorded from the programs that papers use.

use safetensors::SafeTensors;
use serde_json::Value;
use std::path::PathBuf;

/// The folder of attack and metric references: `$CLIPGUARD_GOLDEN/attacks`, else the copy in the
/// repository.
fn folder() -> PathBuf {
    match std::env::var_os("CLIPGUARD_GOLDEN") {
        Some(root) => PathBuf::from(root).join("attacks"),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/attacks"),
    }
}

/// `metrics.json`; its bare NaN and Infinity, which are not JSON, become null.
pub(crate) fn json() -> Value {
    let text = std::fs::read_to_string(folder().join("metrics.json")).unwrap();
    let text = text.replace(": NaN", ": null").replace(": Infinity", ": null");
    serde_json::from_str(&text).unwrap()
}

/// A tensor of `metrics.safetensors` as its shape and numbers.
pub(crate) fn tensor(name: &str) -> (Vec<usize>, Vec<f64>) {
    let bytes = std::fs::read(folder().join("metrics.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    let numbers = match view.dtype() {
        safetensors::Dtype::F32 => view
            .data()
            .chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
            .collect(),
        safetensors::Dtype::I64 => view
            .data()
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64)
            .collect(),
        other => panic!("{name}: {other:?}"),
    };
    (view.shape().to_vec(), numbers)
}

/// A tensor's numbers as f32.
pub(crate) fn floats32(name: &str) -> Vec<f32> {
    tensor(name).1.iter().map(|&v| v as f32).collect()
}

/// A tensor's numbers as indices.
pub(crate) fn indices(name: &str) -> Vec<usize> {
    tensor(name).1.iter().map(|&v| v as usize).collect()
}

/// A list of numbers.
pub(crate) fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// A count.
pub(crate) fn count(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// Asserts that `ours` is the recorded value within an absolute tolerance.
pub(crate) fn close(ours: f64, theirs: &Value, tolerance: f64, what: &str) {
    let theirs = theirs.as_f64().unwrap();
    assert!((ours - theirs).abs() <= tolerance, "{what}: {ours} instead of {theirs}");
}
