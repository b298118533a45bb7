//! A run is a function of its recipe: however often it is stopped or killed, with whatever number
//! of threads, it ends in the same bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use clipguard_data::{Options, Source};
use clipguard_train::{Adversarial, Jitter, Outcome, PriorRecipe, Recipe, Run, TrainError, Watch};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// ViT, one block a tower.
const VIT: &str = r#"{
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16
    },
    "text_cfg": {
        "context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1
    }
}"#;

/// A ResNet, for the running averages of BatchNorm.
const RESNET: &str = r#"{
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32, "layers": [1, 1, 1, 1], "width": 4, "head_width": 16, "patch_size": null
    },
    "text_cfg": {
        "context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1
    }
}"#;

struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn recipe(&self, model: &str) -> Recipe {
        let kind = if model == VIT { "vit" } else { "resnet" };
        let path = self.path(&format!("{kind}.json"));
        fs::write(&path, model).unwrap();
        Recipe {
            model: path.to_str().unwrap().to_owned(),
            data: "scenes:64:side=32".to_owned(),
            steps: 12,
            batch: 8,
            lr: 1e-3,
            warmup: 3,
            clip_norm: 1.0,
            seed: 3,
            save_every: 4,
            log_every: 3,
            jitter: Jitter { shift: 2, brightness: 0.2, offset: 10.0 },
            ..Recipe::default()
        }
    }
}

impl Room {
    /// A recipe of every objective and both kinds of tower.
    fn recipes(&self) -> Vec<Recipe> {
        let with = |objective: &str, recipe: Recipe| Recipe {
            objective: objective.to_owned(),
            data: "scenes:64:side=32,part=instyle".to_owned(),
            ..recipe
        };
        let adversarial =
            Some(Adversarial { steps: 2, clean_weight: 0.3, ..Adversarial::default() });
        let prior =
            Some(PriorRecipe { depth: 1, heads: 2, head_width: 8, ..PriorRecipe::default() });
        vec![
            self.recipe(VIT),
            Recipe { tensorboard: true, ..self.recipe(RESNET) },
            with("diffusion-prior", Recipe { prior, ema: 0.9, ..self.recipe(VIT) }),
            with("tecoa", Recipe { adversarial, ..self.recipe(RESNET) }),
            with("fare", Recipe { adversarial, ..self.recipe(VIT) }),
        ]
    }
}

fn open(spelling: &str) -> Result<Arc<dyn Source>, TrainError> {
    Ok(clipguard_data::open(spelling, &Options::default())?)
}

fn start(recipe: &Recipe, folder: &Path) -> Run {
    Run::start(recipe.clone(), open(&recipe.data).unwrap(), folder).unwrap()
}

/// Does something after a step.
struct After<F>(F);

impl<F: FnMut(u64)> Watch for After<F> {
    fn step(&mut self, done: u64, _total: u64, loss: f32) {
        assert!(loss.is_finite());
        (self.0)(done);
    }

    fn skipped(&mut self, _key: &str, _reason: &str) {}
}

fn finish(mut run: Run) {
    let outcome = run.train(&mut After(|_| {}), &AtomicBool::new(false)).unwrap();
    assert_eq!(outcome, Outcome::Finished);
}

fn resume(folder: &Path) {
    finish(Run::resume(folder, open).unwrap());
}

/// Every file of a folder by its path in it.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(here) = open.pop() {
        for entry in fs::read_dir(here).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let inside = path.strip_prefix(folder).unwrap().to_owned();
                found.insert(inside, fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for (name, bytes) in files(from) {
        let target = to.join(name);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, bytes).unwrap();
    }
}

#[track_caller]
fn same(what: &str, got: &Path, want: &Path) {
    let (got, want) = (files(got), files(want));
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in &want {
        assert!(got[name] == *bytes, "{what}: {} differs", name.display());
    }
}

/// The run in one go, in `whole`, with all the files it should leave.
fn whole(room: &Room, recipe: &Recipe) -> PathBuf {
    let folder = room.path("whole");
    finish(start(recipe, &folder));
    let names: Vec<String> =
        files(&folder).keys().map(|name| name.to_str().unwrap().to_owned()).collect();
    let finished: &[&str] = match recipe.objective.as_str() {
        "diffusion-prior" => &["checkpoint/prior.safetensors"],
        _ => &["checkpoint/open_clip_config.json", "checkpoint/open_clip_model.safetensors"],
    };
    let always = ["metrics.jsonl", "model.json", "plan.toml", "trainer.safetensors"];
    let events: &[&str] = match recipe.tensorboard {
        true => &["tensorboard/events.out.tfevents.0000000000.clipguard"],
        false => &[],
    };
    for name in finished.iter().chain(&always).chain(events).copied() {
        assert!(names.iter().any(|n| n == name), "{name} is missing: {names:?}");
    }
    folder
}

#[test]
fn a_stopped_and_resumed_run_ends_in_the_same_bytes() {
    for recipe in 0..5 {
        let room = Room::new();
        let recipe = room.recipes().swap_remove(recipe);
        let (want, folder) = (whole(&room, &recipe), room.path("stopped"));
        let stop = AtomicBool::new(false);
        let mut run = start(&recipe, &folder);
        let mut watch = After(|done| stop.store(done == 5, Ordering::Relaxed));
        assert_eq!(run.train(&mut watch, &stop).unwrap(), Outcome::Interrupted);
        assert_eq!(run.step(), 5);
        drop(run);
        assert!(!folder.join("checkpoint").exists());
        resume(&folder);
        same("stopped", &folder, &want);
        // Resuming a finished run changes nothing.
        resume(&folder);
        same("resumed when finished", &folder, &want);
    }
}

#[test]
fn a_killed_and_resumed_run_ends_in_the_same_bytes() {
    for recipe in [0, 2] {
        killed_and_resumed(recipe);
    }
}

fn killed_and_resumed(recipe: usize) {
    let room = Room::new();
    let recipe = room.recipes().swap_remove(recipe);
    let want = whole(&room, &recipe);
    // What a kill after each step would have left: a copy of the folder as it lay there.
    let folder = room.path("killed");
    let left = |done: u64| room.path(&format!("left-{done}"));
    let mut watch = After(|done| copy(&folder, &left(done)));
    start(&recipe, &folder).train(&mut watch, &AtomicBool::new(false)).unwrap();
    for done in [2, 7, 12] {
        resume(&left(done));
        same(&format!("killed after step {done}"), &left(done), &want);
    }
    // Between the two files of a save: the metrics of the second beside the state of the first.
    fs::copy(left(9).join("metrics.jsonl"), left(5).join("metrics.jsonl")).unwrap();
    resume(&left(5));
    same("metrics ahead of the state", &left(5), &want);
}

/// Views and rewordings of the later epochs too: the 64 samples are seen one and a half times.
#[test]
fn an_augmented_run_ends_in_the_same_bytes() {
    for (augment, captions) in [("simclr", "eda"), ("autoaugment", "eda:fixed=true")] {
        let room = Room::new();
        let recipe = Recipe {
            augment: augment.to_owned(),
            captions: captions.to_owned(),
            ..room.recipe(VIT)
        };
        let want = whole(&room, &recipe);
        let (stop, folder) = (AtomicBool::new(false), room.path("stopped"));
        let mut watch = After(|done| stop.store(done == 9, Ordering::Relaxed));
        start(&recipe, &folder).with_threads(1).train(&mut watch, &stop).unwrap();
        finish(Run::resume(&folder, open).unwrap().with_threads(3));
        same(augment, &folder, &want);
        let plain = room.path("plain");
        finish(start(&room.recipe(VIT), &plain));
        assert_ne!(
            files(&plain)[Path::new("metrics.jsonl")],
            files(&want)[Path::new("metrics.jsonl")]
        );
    }
}

#[test]
fn bytes_do_not_depend_on_threads() {
    for recipe in 0..5 {
        let room = Room::new();
        let recipe = room.recipes().swap_remove(recipe);
        let want = whole(&room, &recipe);
        for (computing, loading) in [(1, 3), (2, 1)] {
            let folder = room.path(&format!("{computing}-{loading}"));
            let run = start(&recipe, &folder).with_threads(loading);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(computing).build().unwrap();
            pool.install(|| finish(run));
            same(&format!("{computing} and {loading} threads"), &folder, &want);
        }
    }
}

/// Labelled pictures, one of which is broken: what is skipped is counted across a resume.
#[test]
fn skipped_samples_are_counted_across_a_resume() {
    let room = Room::new();
    let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/clip"));
    for (class, picture) in [
        ("cat", "pictures/exact_32.png"),
        ("cat", "pictures/rgb_odd.png"),
        ("cat", "pictures/gray_L.png"),
        ("dog", "pictures/rgb_wide.png"),
        ("dog", "refuse/pictures/truncated.jpg"),
    ] {
        let to = room.path("pictures").join(class);
        fs::create_dir_all(&to).unwrap();
        let from = golden.join(picture);
        fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
    }
    let recipe = Recipe {
        data: room.path("pictures").to_str().unwrap().to_owned(),
        batch: 5,
        ..room.recipe(VIT)
    };
    let want = whole(&room, &recipe);
    let metrics = fs::read_to_string(want.join("metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert_eq!((last["step"].as_u64(), last["skipped"].as_u64()), (Some(12), Some(12)), "{last}");

    let (stop, folder) = (AtomicBool::new(false), room.path("stopped"));
    let mut watch = After(|done| stop.store(done == 5, Ordering::Relaxed));
    start(&recipe, &folder).train(&mut watch, &stop).unwrap();
    resume(&folder);
    same("stopped", &folder, &want);
}

#[test]
fn a_state_is_not_continued_under_another_recipe() {
    let room = Room::new();
    let folder = whole(&room, &room.recipe(VIT));
    let plan = folder.join("plan.toml");
    let text = fs::read_to_string(&plan).unwrap();
    fs::write(&plan, text.replace("seed = 3", "seed = 4")).unwrap();
    let refusal = Run::resume(&folder, open).err().unwrap().to_string();
    assert!(refusal.contains("another recipe"), "{refusal}");
    let again = Run::start(room.recipe(VIT), open("scenes:8").unwrap(), &folder);
    assert!(again.err().unwrap().to_string().contains("holds a run already"));
}

#[test]
fn training_learns_and_leaves_a_loadable_checkpoint() {
    let room = Room::new();
    let recipe = Recipe { steps: 60, lr: 3e-3, log_every: 1, ..room.recipe(VIT) };
    let folder = whole(&room, &recipe);
    let metrics = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let loss = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap()
    };
    let losses: Vec<f64> = metrics.lines().map(loss).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (before, after) = (mean(&losses[..5]), mean(&losses[losses.len() - 5..]));
    assert!(after < 0.85 * before, "loss from {before} to {after}");
    let checkpoint = folder.join("checkpoint");
    clipguard_model::Checkpoint::open(checkpoint.to_str().unwrap()).unwrap();
}
