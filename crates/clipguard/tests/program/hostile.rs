//! Hostile and broken checkpoints, put to every command that opens a model.

use crate::{clipguard, golden, text};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What the program is given: a file, a folder, or the index in one.
fn place(file: &str) -> PathBuf {
    let path = golden_root().join("refuse").join(file);
    let index = path.join("model.safetensors.index.json");
    if file.starts_with("sharded/") && index.is_file() { index } else { path }
}

fn golden_root() -> PathBuf {
    golden("vit_gelu").parent().and_then(Path::parent).unwrap().to_owned()
}

#[test]
fn hostile_checkpoints_are_refused_by_every_command() {
    let out = tempfile::tempdir().unwrap();
    let cases = std::fs::read(golden_root().join("refuse.json")).unwrap();
    let cases: Value = serde_json::from_slice(&cases).unwrap();
    let mut count = 0;
    for case in cases["cases"].as_array().unwrap() {
        let (level, file) = (case["level"].as_str().unwrap(), case["file"].as_str().unwrap());
        if case["expect"] != "refuse" || level == "picture" {
            continue;
        }
        count += 1;
        let path = place(file);
        let model = match level {
            "model" => text(&path).to_owned(),
            _ => format!("RN50@{}", path.display()),
        };
        let inspected = if level == "container" { text(&path) } else { model.as_str() };
        let words: Vec<&str> =
            case["must_name"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let (embedded, run) = (out.path().join("e.safetensors"), out.path().join("run"));
        let embed = ["embed", "--images", "scenes:2", "--out", text(&embedded), "--model", &model];
        let train = ["train", "--data", "scenes:8", "--steps", "1", "--model", &model, "--out"];
        let train = [&train[..], &[text(&run)]].concat();
        // Two flaws are told by the data alone, which `inspect` reads only when asked.
        for arguments in [&["inspect", "--deep", inspected][..], &embed, &train] {
            let ran = clipguard(arguments);
            let sure = level != "container" || arguments[0] != "inspect" || ran.code != 0;
            if sure {
                ran.ended(3, &words);
            }
        }
        assert!(!embedded.exists() && !run.exists(), "{file} left something behind");
    }
    assert!(count > 110, "{count}");
    let mut folder = std::env::current_dir().unwrap();
    loop {
        assert!(!folder.join("CLIPGUARD_PAYLOAD_RAN").exists(), "something ran");
        if !folder.pop() {
            break;
        }
    }
}

#[test]
fn models_are_converted_between_layouts() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let archive = golden("openai").join("tiny_torchscript.pt");
    let convert = |from: &Path, to: &str, out: &Path| {
        clipguard(&["convert", text(from), "--to", to, "--out", text(out)])
    };
    convert(&archive, "hugging-face", &at("hf")).ended(0, &[]);
    convert(&at("hf"), "open-clip", &at("oc")).ended(0, &[]);
    convert(&archive, "open-clip", &at("direct")).ended(0, &[]);
    let weights = |name: &str| std::fs::read(at(name).join("open_clip_model.safetensors")).unwrap();
    assert_eq!(weights("oc"), weights("direct"));
    convert(&archive, "open-clip", &at("oc")).ended(2, &["holds a model already"]);
    convert(&golden("resnet"), "hugging-face", &at("no")).ended(1, &["ResNet"]);
    let told = clipguard(&["inspect", "--json", text(&archive)]).ended(0, &[]).json();
    assert_eq!(told[0]["container"], "a TorchScript zip archive");
    assert!(told[0]["activation"].as_str().unwrap().contains("QuickGELU"));
    let told = clipguard(&["inspect", text(&at("hf"))]).ended(0, &[]).stdout;
    assert!(told.contains("config.json"), "{told}");
}
