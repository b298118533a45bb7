//! Where to compute: what is refused, and that another device answers as the processor does.

use crate::{clipguard, text, tiny_model};
use std::fs;

#[test]
fn a_device_that_cannot_be_had_is_refused_with_what_would_be_right() {
    clipguard(&["classify", "--device", "abacus", "scenes:1"])
        .ended(2, &["device abacus", "expected cpu, wgpu, vulkan, metal or cuda"]);
    if cfg!(not(feature = "cuda")) {
        clipguard(&["classify", "--device", "cuda:1", "scenes:1"])
            .ended(2, &["device cuda:1", "--features cuda"]);
    }
    // A recipe says it too, and nothing is left behind.
    let folder = tempfile::tempdir().unwrap();
    let (recipe, run) = (folder.path().join("recipe.toml"), folder.path().join("run"));
    let settings = format!(
        "model = {:?}\ndata = \"scenes:16:side=32\"\nsteps = 2\nbatch = 4\nwarmup = 1\n",
        tiny_model()
    );
    fs::write(&recipe, format!("{settings}device = \"abacus\"\n")).unwrap();
    clipguard(&["train", text(&recipe), "--out", text(&run)]).ended(2, &["device abacus"]);
    assert!(!run.exists());
    fs::write(&recipe, settings).unwrap();
    clipguard(&["train", text(&recipe), "--device", "cpu", "--out", text(&run)]).ended(0, &[]);
    assert!(!fs::read_to_string(run.join("plan.toml")).unwrap().contains("device"));
}

#[test]
fn products_in_bf16_answer_nearly_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let rows = |precision: &str| -> Vec<Vec<f32>> {
        let out = folder.path().join(format!("{precision}.safetensors"));
        let embed =
            ["embed", "--images", "embedded", "--precision", precision, "--out", text(&out)];
        clipguard(&embed).ended(0, &[]);
        let bytes = fs::read(&out).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let image = file.tensor("image").unwrap();
        let (values, _) = image.data().as_chunks();
        let values: Vec<f32> = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        values.chunks_exact(image.shape()[1]).map(<[f32]>::to_vec).collect()
    };
    let (plain, rounded) = (rows("f32"), rows("bf16"));
    assert_ne!(plain, rounded);
    for (a, b) in plain.iter().zip(&rounded) {
        let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        assert!(cosine >= 0.9995, "{cosine}");
    }
    let classify = ["classify", "--precision", "bf16", "--purify", "clipure-cos", "scenes:2"];
    clipguard(&classify).ended(0, &[]);
    clipguard(&["embed", "--images", "embedded", "--precision", "f16", "--out", "x.safetensors"])
        .ended(2, &["possible values: f32, bf16"]);
}

/// Runs only where `$CLIPGUARD_DEVICE` names a device of this build.
#[test]
fn another_device_answers_as_the_processor_does() {
    let Ok(device) = std::env::var("CLIPGUARD_DEVICE") else { return };
    let probability = |device: &str| -> f64 {
        let classify = ["classify", "--model", tiny_model(), "--classes", "cat,dog", "--json"];
        let told = clipguard(&[&classify[..], &["--device", device, "scenes:1:side=32"]].concat());
        told.ended(0, &[]).json()["top"][0]["probability"].as_f64().unwrap()
    };
    let (there, here) = (probability(&device), probability("cpu"));
    assert!((there - here).abs() < 1e-4, "{there} and {here}");

    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let train = ["train", "--model", tiny_model(), "--data", "scenes:16:side=32", "--steps", "4"];
    let out = ["--batch", "4", "--device", &device, "--out", text(&run)];
    clipguard(&[&train[..], &out].concat()).ended(0, &[]);
    let plan = fs::read_to_string(run.join("plan.toml")).unwrap();
    assert!(plan.contains(&format!("device = {device:?}")), "{plan}");
    clipguard(&["train", "--resume", text(&run), "--device", "cpu"])
        .ended(2, &["computes on", "has to go on there"]);
    clipguard(&["train", "--resume", text(&run)]).ended(0, &[]);
}
