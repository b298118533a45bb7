//! Every container gives the same tensors, and every hostile file is refused by name.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use clipguard_model::{Checkpoint, Container, ModelError, Precision, Weights, weights::Array};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

fn golden() -> PathBuf {
    std::env::var_os("CLIPGUARD_GOLDEN")
        .map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")),
            PathBuf::from,
        )
        .join("clip")
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden().join(name)).unwrap()).unwrap()
}

/// A weight file, or the index in a folder.
fn open(path: &Path) -> Result<Container, ModelError> {
    let index = ["model.safetensors.index.json", "pytorch_model.bin.index.json"];
    match index.iter().map(|name| path.join(name)).find(|p| p.is_file()) {
        Some(index) => Container::open(&index),
        None => Container::open(path),
    }
}

/// Bits by name, without the values that are no floats and with one prefix for the text tower.
fn bits(weights: &Weights) -> BTreeMap<String, (Vec<usize>, Vec<u32>)> {
    let bare = |name: &str| name.strip_prefix("text.").unwrap_or(name).to_owned();
    let pair = |(name, Array { shape, data }): (&String, &Array)| {
        (bare(name), (shape.clone(), data.iter().map(|v| v.to_bits()).collect()))
    };
    weights.iter().map(pair).collect()
}

#[test]
fn every_container_gives_the_same_bits() {
    let folder = golden().join("containers");
    let read = |name: &str| open(&folder.join(name)).and_then(|c| c.read());
    let files = json("models.json")["containers"]["files"].as_object().unwrap().clone();
    assert!(files.len() >= 17);
    for (name, about) in files {
        let values = about["values"].as_str().unwrap().split(' ').next().unwrap().to_owned();
        let want = bits(&read(&format!("plain_{values}.safetensors")).unwrap());
        let name = name.trim_end_matches('/');
        if name.starts_with("hf_") {
            // Other names: compared as models.
            let got = Checkpoint::open(folder.join(name).to_str().unwrap()).unwrap();
            let got = bits(&got.weights);
            for (key, value) in &want {
                let found = got.get(key).unwrap_or_else(|| panic!("{name}: {key}"));
                assert_eq!(found.1, value.1, "{name}: {key}");
            }
            continue;
        }
        let container = open(&folder.join(name)).unwrap_or_else(|e| panic!("{e}"));
        let mut got = bits(&container.read().unwrap());
        got.retain(|key, _| want.contains_key(key));
        assert_eq!(got, want, "{name}");
        assert_eq!(container.entries.len(), container.read().unwrap().len(), "{name}");
    }
}

struct Case {
    file: String,
    level: String,
    expect: String,
    reason: String,
    must_name: Vec<String>,
}

fn cases() -> Vec<Case> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let case = |value: &Value| Case {
        file: text(&value["file"]),
        level: text(&value["level"]),
        expect: text(&value["expect"]),
        reason: text(&value["reason"]),
        must_name: value["must_name"].as_array().unwrap().iter().map(text).collect(),
    };
    json("refuse.json")["cases"].as_array().unwrap().iter().map(case).collect()
}

/// Warnings of a file that is read as far as its level says.
fn load(case: &Case) -> Result<Vec<String>, ModelError> {
    let path = golden().join("refuse").join(&case.file);
    match case.level.as_str() {
        "container" => {
            let container = open(&path)?;
            container.read()?;
            Ok(container.warnings)
        }
        "tensors" => {
            // The check of values belongs to the model: any architecture will do to get there.
            let spelling = format!("RN50@{}", path.display());
            Checkpoint::open(&spelling).map(|c| c.warnings)
        }
        _ => Checkpoint::open(path.to_str().unwrap()).map(|c| c.warnings),
    }
}

#[test]
fn hostile_files_are_refused_and_say_why() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for case in cases().iter().filter(|case| case.level != "picture") {
        count += 1;
        let start = Instant::now();
        let result = load(case);
        let quick = start.elapsed() < Duration::from_secs(2);
        let (text, code) = match &result {
            Err(ModelError::Container { code, .. }) => {
                (result.as_ref().unwrap_err().to_string(), *code)
            }
            Err(error) => (error.to_string(), ""),
            Ok(warnings) => (warnings.join("\n"), ""),
        };
        let names = case.must_name.iter().all(|name| text.contains(name.as_str()));
        let right = match case.expect.as_str() {
            "refuse" => result.is_err() && names,
            "warn" => result.as_ref().is_ok_and(|warnings| warnings.len() == 1) && names,
            "load" => result.as_ref().is_ok_and(Vec::is_empty),
            _ => true,
        };
        let coded = case.expect != "refuse" || case.level != "container" || code == case.reason;
        if !right || !coded || !quick {
            wrong.push(format!(
                "{} should {} ({}) naming {:?}: {code} {text}",
                case.file, case.expect, case.reason, case.must_name
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 130, "{count}");
    let mut place = golden();
    while place.pop() {
        assert!(!place.join("CLIPGUARD_PAYLOAD_RAN").exists(), "something ran");
    }
}

#[test]
fn hugging_face_folders_come_back_as_they_went() {
    let folder = golden().join("models/hf");
    let first = Checkpoint::open(folder.to_str().unwrap()).unwrap();
    let out = tempfile::tempdir().unwrap();
    first.save_hugging_face(out.path(), Precision::F32).unwrap();
    let second = Checkpoint::open(out.path().to_str().unwrap()).unwrap();
    assert_eq!(first.weights, second.weights);
    assert_eq!(first.preprocess, second.preprocess);
    let plain = |c: &Checkpoint| (c.architecture.vision.clone(), c.architecture.text.clone());
    assert_eq!(plain(&first), plain(&second));
    // One tower has another activation than the other: open_clip has no words for that.
    let error = first.save(out.path(), Precision::F32).unwrap_err().to_string();
    assert!(error.contains("two activations"), "{error}");
}
