//! Position tables for another size against the reference, and what a resized model can do.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use burn::tensor::{Device, Tensor};
use clipguard_model::{
    Array, Checkpoint, Precision,
    positions::{Way, resize_grid, resize_line},
};

#[path = "../../../tests/golden/reader.rs"]
mod reader;
use reader::{Golden, distance, numbers};

fn array(golden: &Golden, name: &str) -> Array {
    let (shape, values) = golden.numbers(name);
    Array::new(shape, values.into_iter().map(|v| v as f32).collect())
}

#[track_caller]
fn close(what: &str, got: &Array, golden: &Golden, key: &str) {
    let (shape, want) = golden.numbers(key);
    assert_eq!(got.shape, shape, "{what}");
    let got: Vec<f64> = got.data.iter().map(|v| f64::from(*v)).collect();
    let top = want.iter().fold(0f64, |m, v| m.max(v.abs()));
    let off = distance(&got, &want);
    assert!(off <= 1e-6 * top + 1e-7, "{what}: off by {off:e}, largest {top:e}");
}

#[test]
fn resized_tables_equal_both_references() {
    let golden = Golden::open("clip", "misc_expect");
    for (name, from, to) in [
        ("4x4_to_3x3", [4, 4], [3, 3]),
        ("4x4_to_5x3", [4, 4], [5, 3]),
        ("4x4_to_6x6", [4, 4], [6, 6]),
        ("7x7_to_8x8", [7, 7], [8, 8]),
    ] {
        let table = array(&golden, &format!("posembed.{name}.in"));
        for (way, of) in
            [(Way::OpenClip, "open_clip"), (Way::HuggingFace, "hf_interpolate_pos_encoding")]
        {
            let got = resize_grid(&table, from, to, way);
            close(&format!("{name} {of}"), &got, &golden, &format!("posembed.{name}.{of}"));
        }
        assert_eq!(resize_grid(&table, from, from, Way::OpenClip), table);
    }
    let table = array(&golden, "posembed.text_9.in");
    for (to, key) in [(12, "posembed.text_9_to_12"), (6, "posembed.text_9_to_6")] {
        close(key, &resize_line(&table, to), &golden, key);
    }
    assert_eq!(resize_line(&table, 9), table);
}

fn golden_model(name: &str) -> Checkpoint {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/clip/models");
    Checkpoint::open(&format!("{root}/{name}")).unwrap()
}

#[test]
fn a_resized_model_takes_its_size_and_survives_saving() {
    let device = Device::flex();
    for name in ["vit_quickgelu", "vit_avg_siglip_loss", "hf"] {
        let before = golden_model(name);
        let (side, context) =
            (before.architecture.vision.image_size(), before.architecture.text.context);
        let larger = before
            .clone()
            .for_image_size(2 * side, Way::OpenClip)
            .unwrap()
            .for_context(2 * context);
        let larger = larger.unwrap();
        assert_ne!(larger.digest, before.digest);
        assert!(larger.warnings.iter().any(|w| w.contains(&format!("({} px)", 2 * side))));
        let folder = tempfile::tempdir().unwrap();
        match name {
            "hf" => larger.save_hugging_face(folder.path(), Precision::F32).unwrap(),
            _ => larger.save(folder.path(), Precision::F32).unwrap(),
        }
        let again = Checkpoint::open(folder.path().to_str().unwrap()).unwrap();
        assert_eq!(again.weights, larger.weights, "{name}");
        assert_eq!(again.preprocess, larger.preprocess, "{name}");
        let clip = again.build(&device).unwrap();
        assert_eq!(clip.architecture().text.context, 2 * context);
        let pixels = Tensor::<4>::ones([1, 3, 2 * side, 2 * side], &device) * 0.5;
        let row: Vec<u32> = (0..2 * context as u32).map(|t| t % 7 + 1).collect();
        let (x, y) = (clip.encode_image(pixels), clip.encode_text(&[row]).unwrap());
        assert!(numbers(x).iter().chain(&numbers(y)).all(|v| v.is_finite()), "{name}");
    }
}

#[test]
fn the_same_size_changes_nothing_and_what_cannot_be_is_refused() {
    let before = golden_model("vit_quickgelu");
    let side = before.architecture.vision.image_size();
    let same = before.clone().for_image_size(side, Way::HuggingFace).unwrap();
    assert_eq!((&same.weights, &same.digest), (&before.weights, &before.digest));
    for (model, side, words) in
        [("vit_quickgelu", 1, "from"), ("vit_quickgelu", 5000, "to 2048"), ("resnet", 96, "ResNet")]
    {
        let refused = golden_model(model).for_image_size(side, Way::OpenClip).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains(words) && text.contains(model), "{text}");
    }
    assert!(before.for_context(2).unwrap_err().to_string().contains("context 2"));
}
