//! What a recipe may leave out: pairs from the towers (`micro_batch`) and parameters from training
//! (`train`, `freeze`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use clipguard_data::{Options, Source};
use clipguard_model::{Checkpoint, Precision, Weights};
use clipguard_train::{Outcome, Part, Recipe, Run, Start, TrainError, Watch};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

const VIT: &str = r#"{
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16
    },
    "text_cfg": {
        "context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1
    }
}"#;

const RESNET: &str = r#"{
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32, "layers": [1, 1, 1, 1], "width": 4, "head_width": 16, "patch_size": null
    },
    "text_cfg": {
        "context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1
    }
}"#;

fn open(spelling: &str) -> Result<Arc<dyn Source>, TrainError> {
    Ok(clipguard_data::open(spelling, &Options::default())?)
}

fn recipe(folder: &Path, model: &str) -> Recipe {
    let path = folder.join("model.json");
    fs::write(&path, model).unwrap();
    Recipe {
        model: path.to_str().unwrap().to_owned(),
        data: "scenes:64:side=32".to_owned(),
        steps: 6,
        batch: 8,
        lr: 1e-3,
        warmup: 2,
        clip_norm: 1.0,
        save_every: 2,
        log_every: 1,
        ..Recipe::default()
    }
}

struct Stop<'a>(u64, &'a AtomicBool);

impl Watch for Stop<'_> {
    fn step(&mut self, done: u64, _total: u64, loss: f32) {
        assert!(loss.is_finite());
        self.1.store(done == self.0, Ordering::Relaxed);
    }

    fn skipped(&mut self, key: &str, reason: &str) {
        panic!("{key}: {reason}");
    }
}

/// Trains in `folder`, stopped and resumed after `stop` steps (0: not at all).
fn trained(recipe: &Recipe, folder: &Path, stop: u64) {
    let never = AtomicBool::new(false);
    let mut run = Run::start(recipe.clone(), open(&recipe.data).unwrap(), folder).unwrap();
    if run.train(&mut Stop(stop, &never), &never).unwrap() == Outcome::Interrupted {
        let mut run = Run::resume(folder, open).unwrap();
        assert_eq!(run.step(), stop);
        let go = AtomicBool::new(false);
        assert_eq!(run.train(&mut Stop(0, &go), &go).unwrap(), Outcome::Finished);
    }
}

fn weights(run: &Path) -> Weights {
    Checkpoint::open(run.join("checkpoint").to_str().unwrap()).unwrap().weights
}

fn bytes(run: &Path) -> [Vec<u8>; 3] {
    ["trainer.safetensors", "metrics.jsonl", "checkpoint/open_clip_model.safetensors"]
        .map(|name| fs::read(run.join(name)).unwrap())
}

fn losses(run: &Path) -> Vec<f64> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let loss = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap()
    };
    text.lines().map(loss).collect()
}

#[test]
fn small_parts_train_as_the_whole_batch_and_resume_to_the_same_bytes() {
    for objective in ["clip", "siglip", "cleanclip"] {
        let room = tempfile::tempdir().unwrap();
        let at = |name: &str| -> PathBuf { room.path().join(name) };
        let whole = Recipe { objective: objective.to_owned(), ..recipe(room.path(), VIT) };
        let parts = Recipe { micro_batch: 3, ..whole.clone() };
        trained(&whole, &at("whole"), 0);
        trained(&parts, &at("parts"), 0);
        trained(&parts, &at("stopped"), 3);
        assert!(bytes(&at("stopped")) == bytes(&at("parts")), "{objective}");
        let (whole, parts) = (losses(&at("whole")), losses(&at("parts")));
        assert_eq!(whole[0], parts[0], "{objective}: the first loss has the same bits");
        for (a, b) in whole.iter().zip(&parts) {
            assert!((a / b - 1.0).abs() < 1e-4, "{objective}: {whole:?} against {parts:?}");
        }
    }
}

#[test]
fn parts_do_not_depend_on_threads() {
    let room = tempfile::tempdir().unwrap();
    let recipe = Recipe { micro_batch: 3, ..recipe(room.path(), RESNET) };
    let folders = [1, 2].map(|threads| {
        let folder = room.path().join(threads.to_string());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| trained(&recipe, &folder, 0));
        folder
    });
    assert!(bytes(&folders[0]) == bytes(&folders[1]));
}

#[test]
fn objectives_that_are_no_contrast_refuse_parts() {
    let room = tempfile::tempdir().unwrap();
    let recipe =
        Recipe { objective: "fare".to_owned(), micro_batch: 2, ..recipe(room.path(), VIT) };
    let refused = Run::start(recipe.clone(), open(&recipe.data).unwrap(), &room.path().join("run"));
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("micro_batch = 2: `fare`"), "{text}");
    assert!(!room.path().join("run").exists());
}

#[test]
fn what_is_frozen_keeps_its_bits_and_has_no_moments() {
    type Case<'a> = (&'a str, Part, &'a [&'a str], &'a dyn Fn(&str) -> bool);
    let image = |name: &str| name.starts_with("visual.");
    let cases: [Case<'_>; 5] = [
        (VIT, Part::All, &["visual.*", "logit_scale"], &|n| image(n) || n == "logit_scale"),
        (VIT, Part::Head, &[], &|n| {
            !["visual.proj", "text_projection", "logit_scale"].contains(&n)
        }),
        (RESNET, Part::Text, &[], &image),
        (RESNET, Part::Image, &["logit_*"], &|n| !image(n)),
        // One BatchNorm: its averages stay as well; the others go on.
        (RESNET, Part::All, &["visual.layer1.0.bn2.*"], &|n| n.starts_with("visual.layer1.0.bn2.")),
    ];
    for (model, train, freeze, frozen) in cases {
        let room = tempfile::tempdir().unwrap();
        let freeze: Vec<String> = freeze.iter().map(|s| (*s).to_owned()).collect();
        let what = format!("{train:?} {freeze:?}");
        let recipe = Recipe { train, freeze, ema: 0.5, ..recipe(room.path(), model) };
        let before = Start::of(&recipe).unwrap().weights;
        let folder = room.path().join("run");
        trained(&recipe, &folder, 3);
        let after = weights(&folder);
        assert!(before.keys().eq(after.keys()));
        for (name, array) in &before {
            let same = array == &after[name];
            // What is trained moves; but the gradient of a key's bias is zero, up to rounding.
            let moves = !name.ends_with("k_proj.bias");
            assert!(same == frozen(name) || (!moves && !frozen(name)), "{what}: {name}");
        }
        let state = fs::read(folder.join("trainer.safetensors")).unwrap();
        let state = safetensors::SafeTensors::deserialize(&state).unwrap();
        let moments: Vec<String> = state
            .names()
            .iter()
            .filter_map(|name| {
                ["first.", "second.", "average."].iter().find_map(|p| name.strip_prefix(p))
            })
            .map(str::to_owned)
            .collect();
        assert!(!moments.is_empty() && moments.iter().all(|name| !frozen(name)), "{what}");
    }
}

#[test]
fn a_pattern_without_a_match_is_refused_with_the_nearest() {
    let room = tempfile::tempdir().unwrap();
    let freeze = vec!["visual.trasformer.*".to_owned()];
    let recipe = Recipe { freeze, ..recipe(room.path(), VIT) };
    let refused = Run::start(recipe.clone(), open(&recipe.data).unwrap(), &room.path().join("run"));
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("did you mean `visual.transformer.*`?"), "{text}");
}

#[test]
fn the_finished_model_is_written_in_the_precision_asked_for() {
    let room = tempfile::tempdir().unwrap();
    let mut found = Vec::new();
    for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
        let recipe = Recipe { precision, ..recipe(room.path(), VIT) };
        let folder = room.path().join(format!("{precision:?}"));
        trained(&recipe, &folder, 3);
        let file = folder.join("checkpoint/open_clip_model.safetensors");
        found.push((fs::metadata(file), weights(&folder)));
    }
    let [(whole, exact), (half, f16), (short, bf16)] = found.try_into().unwrap();
    let sizes = [whole, half, short].map(|file| file.unwrap().len());
    assert!(sizes[1].abs_diff(sizes[2]) < 1024 && sizes[0] > 2 * sizes[1] - 16_384, "{sizes:?}");
    for (name, array) in &exact {
        for (i, value) in array.data.iter().enumerate() {
            let (f16, bf16) = (f16[name].data[i], bf16[name].data[i]);
            assert!((f16 - value).abs() <= value.abs() / 2048.0 + 3e-8, "{name}: {value} {f16}");
            assert!((bf16 - value).abs() <= value.abs() / 256.0, "{name}: {value} {bf16}");
            assert_eq!(bf16.to_bits() & 0xffff, 0, "{name}");
        }
    }
}
