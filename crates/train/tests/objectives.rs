//! What the objectives beside `clip` do: the loss falls, what is frozen keeps its bits, and what
//! cannot be trained on is refused. One of them is not in the catalogue.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use burn::tensor::{Device, Tensor};
use clipguard_data::{Options, Source, Stream};
use clipguard_model::{
    Checkpoint, Clip, ModelError, Parameters, Prior, Weights, loss::clip_loss, normalise,
    prior::Draw,
};
use clipguard_train::{
    Adversarial, Beginning, Contrast, NoiseRecipe, Objective, Outcome, PRIOR, PriorRecipe, Recipe,
    Run, Start, Step, TrainError, Watch, contrast,
};
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

fn open(spelling: &str) -> Result<Arc<dyn Source>, TrainError> {
    Ok(clipguard_data::open(spelling, &Options::default())?)
}

fn recipe(folder: &Path, objective: &str) -> Recipe {
    let model = folder.join("vit.json");
    fs::write(&model, VIT).unwrap();
    Recipe {
        objective: objective.to_owned(),
        model: model.to_str().unwrap().to_owned(),
        data: "scenes:32:side=32,part=instyle".to_owned(),
        steps: 24,
        batch: 8,
        lr: 3e-3,
        warmup: 3,
        log_every: 1,
        adversarial: Some(Adversarial {
            eps: 8.0 / 255.0,
            step: 4.0 / 255.0,
            steps: 2,
            ..Adversarial::default()
        }),
        prior: Some(PriorRecipe { depth: 1, heads: 2, head_width: 8, ..PriorRecipe::default() }),
        ..Recipe::default()
    }
}

struct Quiet;

impl Watch for Quiet {
    fn step(&mut self, _done: u64, _total: u64, _loss: f32) {}
    fn skipped(&mut self, key: &str, reason: &str) {
        panic!("{key}: {reason}");
    }
}

/// Trains in `folder/run`; the losses of all steps.
fn losses(folder: &Path, recipe: &Recipe) -> (PathBuf, Vec<f64>) {
    let run = folder.join("run");
    let mut training = Run::start(recipe.clone(), open(&recipe.data).unwrap(), &run).unwrap();
    let outcome = training.train(&mut Quiet, &AtomicBool::new(false)).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let loss = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap()
    };
    let all = metrics.lines().map(loss).collect();
    (run, all)
}

fn mean(part: &[f64]) -> f64 {
    part.iter().sum::<f64>() / part.len() as f64
}

/// The picture tower's arrays that changed, and whether any other did.
fn changed(before: &Weights, after: &Weights) -> (usize, bool) {
    assert!(before.keys().eq(after.keys()));
    let differs = |name: &&String| before[*name] != after[*name];
    let (tower, others): (Vec<&String>, Vec<&String>) =
        before.keys().filter(differs).partition(|name| name.starts_with("visual."));
    (tower.len(), !others.is_empty())
}

#[test]
fn adversarial_fine_tuning_lowers_its_loss_and_leaves_the_text_tower_alone() {
    for (objective, clean_weight) in [("tecoa", 0.0), ("fare", 0.0), ("fare", 0.5)] {
        let folder = tempfile::tempdir().unwrap();
        let mut recipe = recipe(folder.path(), objective);
        recipe.adversarial.as_mut().unwrap().clean_weight = clean_weight;
        if objective == "fare" {
            // It begins where the clean embeddings are right, so that long steps only do harm.
            (recipe.lr, recipe.steps) = (5e-4, 48);
        }
        let start = Start::of(&recipe).unwrap();
        let (run, losses) = losses(folder.path(), &recipe);
        let (first, last) = (mean(&losses[..5]), mean(&losses[losses.len() - 5..]));
        println!("{objective} {clean_weight}: {losses:?}");
        assert!(losses[0] > 0.0, "{objective}: nothing to learn from: the attack did not move");
        assert!(last < 0.9 * first, "{objective} {clean_weight}: from {first} to {last}");
        let tuned = Checkpoint::open(run.join("checkpoint").to_str().unwrap()).unwrap();
        let (tower, others) = changed(&start.weights, &tuned.weights);
        assert!(tower > 5 && !others, "{objective}: {tower} arrays of the tower changed");
    }
}

#[test]
fn noisy_pictures_are_learnt_and_leave_the_text_tower_alone() {
    for consistency in [0.0, 5.0] {
        let folder = tempfile::tempdir().unwrap();
        let mut recipe = recipe(folder.path(), "noise");
        recipe.noise = Some(NoiseRecipe { sigma: vec![0.05, 0.1], consistency, entropy: 0.5 });
        let start = Start::of(&recipe).unwrap();
        let (run, losses) = losses(folder.path(), &recipe);
        let (first, last) = (mean(&losses[..5]), mean(&losses[losses.len() - 5..]));
        assert!(last < 0.9 * first, "{consistency}: from {first} to {last}: {losses:?}");
        let tuned = Checkpoint::open(run.join("checkpoint").to_str().unwrap()).unwrap();
        let (tower, others) = changed(&start.weights, &tuned.weights);
        assert!(tower > 5 && !others, "{tower} arrays of the tower changed");
        // The recipe says completely what was done.
        let plan = fs::read_to_string(run.join("plan.toml")).unwrap();
        assert!(plan.contains("[noise]") && plan.contains("entropy = 0.5"), "{plan}");
    }
}

/// Without noise and without an attack both objectives are the cross-entropy of clean pictures.
#[test]
fn without_noise_the_objective_is_the_cross_entropy_of_the_picture() {
    let loss = |objective: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut recipe = recipe(folder.path(), objective);
        (recipe.steps, recipe.warmup) = (3, 0);
        recipe.noise = Some(NoiseRecipe { sigma: vec![0.0], ..NoiseRecipe::default() });
        recipe.adversarial.as_mut().unwrap().eps = 0.0;
        losses(folder.path(), &recipe).1
    };
    assert_eq!(loss("noise"), loss("tecoa"));
}

#[test]
fn trades_moves_both_sides_and_belongs_to_fare() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = recipe(folder.path(), "fare");
    recipe.steps = 4;
    recipe.adversarial.as_mut().unwrap().trades = true;
    let (_, losses) = losses(folder.path(), &recipe);
    assert!(losses.iter().all(|loss| *loss > 0.0));
    recipe.objective = "tecoa".to_owned();
    let refused =
        Run::start(recipe, open("scenes:32:part=instyle").unwrap(), &folder.path().join("t"));
    assert!(refused.err().unwrap().to_string().contains("belongs to `fare`"));
}

/// The gradient of FARE's loss at the clean picture of the original model is exactly zero, so an
/// attack that started there would stay there.
#[test]
fn fare_has_no_gradient_at_the_clean_picture() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start::of(&recipe(folder.path(), "fare")).unwrap();
    let clip =
        Clip::new(&start.architecture, &start.preprocess, &start.weights, &Device::flex()).unwrap();
    let clean: Tensor<4> = Tensor::ones([2, 3, 32, 32], &Device::flex()) * 0.4;
    let original = clip.encode_image(clean.clone());
    let leaf = clean.autodiff().require_grad();
    let loss = (clip.encode_image(leaf.clone()) - original).square().sum();
    let gradient = leaf.grad_remove(&mut loss.backward()).unwrap();
    assert!(gradient.into_data().iter::<f32>().all(|v| v == 0.0));
}

#[test]
fn data_without_labels_and_settings_out_of_range_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let golden =
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/clip/pictures"));
    let plain = folder.path().join("plain");
    fs::create_dir_all(&plain).unwrap();
    for name in ["exact_32.png", "rgb_odd.png"] {
        fs::copy(golden.join(name), plain.join(name)).unwrap();
    }
    let data = plain.to_str().unwrap().to_owned();
    let recipe = Recipe { data: data.clone(), ..recipe(folder.path(), "tecoa") };
    let refused = Run::start(recipe.clone(), open(&data).unwrap(), &folder.path().join("run"));
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("needs labels of two classes") && text.contains(&data), "{text}");
    for (text, words) in [
        ("[adversarial]\neps = 2", "adversarial.eps = 2: a number in [0, 1]"),
        ("[adversarial]\nstep = 0", "adversarial.step = 0"),
        ("[adversarial]\nsteps = 0", "at least one"),
        ("[adversarial]\nclean_weight = 1.0", "in [0, 1)"),
        ("[adversarial]\neps = \"two\"", "no number and no fraction"),
        ("[noise]\nsigma = []", "at least one"),
        ("[noise]\nsigma = [-0.1]", "from 0 to 4"),
        ("[noise]\nconsistency = -1.0", "at least 0"),
        ("[prior]\nhead_width = 7", "an even number"),
        ("[prior]\ndepth = 0", "from 1 to 64"),
        ("[prior]\nhide_text = 2.0", "a probability"),
        ("[cleanclip]\nin_modal = -1.0", "cleanclip.in_modal = -1"),
        ("[cleanclip]\nin_modal = 0.0\nmultimodal = 0.0", "must be above 0"),
        ("ema = 1.0", "ema = 1"),
    ] {
        let error = Recipe::parse(text, Path::new("r.toml")).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("r.toml"), "{error}");
    }
    let parsed = Recipe::parse("[adversarial]\neps = \"4/255\"", Path::new("r.toml")).unwrap();
    assert_eq!(parsed.adversarial.unwrap().eps, 4.0 / 255.0);
    let text = parsed.to_toml();
    assert!(text.contains("eps = \"4/255\""), "{text}");
    assert_eq!(Recipe::parse(&text, Path::new("r.toml")).unwrap(), parsed);
}

/// Mean error of a prior on embeddings it was not trained on.
fn error(prior: &Prior, image: &Tensor<2>, text: &Tensor<2>) -> f64 {
    let streams = (0..image.dims()[0] as u64).map(|row| Stream::counted(9, "held out", row));
    let draw = Draw::new(streams, (0, 999), (0.0, 0.0), image);
    let (text, none) = (prior.text(text.clone(), None), prior.no_text());
    let rows = prior.errors(image.clone(), &draw, &text, &none);
    rows.mean().into_scalar::<f32>().into()
}

#[test]
fn a_trained_prior_restores_better_than_an_untrained_one() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe { steps: 120, ema: 0.9, ..recipe(folder.path(), "diffusion-prior") };
    let start = Start::of(&recipe).unwrap();
    let (run, losses) = losses(folder.path(), &recipe);
    assert!(mean(&losses[110..]) < 0.7 * mean(&losses[..10]), "{losses:?}");
    let file = run.join("checkpoint").join(PRIOR);
    let device = Device::flex();
    let trained = Prior::open(&file, &device).unwrap();
    let layout = *trained.layout();
    assert_eq!((layout.dim, layout.depth, layout.heads, layout.text), (16, 1, 2, 0));
    let initial = layout.initial_weights(recipe.seed);
    let untrained = Prior::new(layout, &Parameters::constant(&initial, &device)).unwrap();
    let clip = Clip::new(&start.architecture, &start.preprocess, &start.weights, &device).unwrap();
    let (image, text) = held_out(&clip, trained.scale());
    let (before, after) = (error(&untrained, &image, &text), error(&trained, &image, &text));
    assert!(after < 0.7 * before, "held out: {before} untrained, {after} trained");
    // The loss by bands of times: what is noised more is restored worse.
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let loss = |band: &str| line["batch"][format!("loss at times {band}")].as_f64().unwrap();
    assert!(loss("0 to 99") < loss("600 to 899") && loss("300 to 599") < loss("900 to 999"));
    assert!(line["batch"]["variance of the embeddings"].as_f64().unwrap() > 0.0);
    let plan = fs::read_to_string(run.join("plan.toml")).unwrap();
    assert!(plan.contains("[prior]") && plan.contains("hide_text = 0.1"), "{plan}");
}

/// Scaled embeddings of pictures of another style and unit embeddings of their captions.
fn held_out(clip: &Clip, scale: f64) -> (Tensor<2>, Tensor<2>) {
    let source = open("scenes:16:side=32,part=scene").unwrap();
    let resize = clip.preprocess().resize;
    let (mut pictures, mut captions) = (Vec::new(), Vec::new());
    for sample in source.open(0).unwrap() {
        let sample = sample.unwrap().decode(&clipguard_data::Limits::default()).unwrap();
        pictures.push(resize.picture(&sample.picture).rgb);
        captions.push(sample.caption.unwrap());
    }
    let pictures: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
    let image = normalise(clip.encode_image(clip.preprocess().stack(&pictures, clip.device())));
    let texts: Vec<&str> = captions.iter().map(String::as_str).collect();
    let rows = clipguard_model::head::embed_texts(clip, &texts).unwrap();
    let data = burn::tensor::TensorData::new(rows, [texts.len(), 16]);
    (image * scale, Tensor::from_data(data, clip.device()))
}

/// A share of CLIP's loss: an objective with a setting that is not in the catalogue.
struct Share(f32);

impl Contrast for Share {
    fn of_embeddings(
        &self,
        clip: &Clip,
        image: Tensor<2>,
        text: Tensor<2>,
    ) -> Result<Tensor<1>, ModelError> {
        Ok(clip_loss(image, text, clip.logit_scale().exp()) * self.0)
    }
}

impl Objective for Share {
    fn loss(&self, step: &Step<'_>) -> Result<Tensor<1>, ModelError> {
        contrast::whole(self, step)
    }

    fn contrast(&self) -> Option<&dyn Contrast> {
        Some(self)
    }
}

fn share(beginning: &Beginning<'_>) -> Result<Box<dyn Objective>, TrainError> {
    let weight = beginning.recipe.objective.strip_prefix("share:weight=");
    match weight.and_then(|weight| weight.parse().ok()) {
        Some(weight) => Ok(Box::new(Share(weight))),
        None => Err(beginning.refuse("share: weight: a number is needed")),
    }
}

/// Asks to stop after a step.
struct StopAfter<'a>(u64, &'a AtomicBool);

impl Watch for StopAfter<'_> {
    fn step(&mut self, done: u64, _total: u64, _loss: f32) {
        self.1.store(done == self.0, Ordering::SeqCst);
    }

    fn skipped(&mut self, _key: &str, _reason: &str) {}
}

#[test]
fn an_objective_of_ones_own_is_trained_resumed_and_takes_no_known_name() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe { steps: 6, micro_batch: 3, ..recipe(folder.path(), "share:weight=0.5") };
    let begun = |objective: &str, name: &str| {
        let recipe = Recipe { objective: objective.to_owned(), ..recipe.clone() };
        let source = open(&recipe.data).unwrap();
        Run::start_with(recipe, source, &folder.path().join(name), &share)
    };
    let train = |mut run: Run, stop: u64| {
        let flag = AtomicBool::new(false);
        run.train(&mut StopAfter(stop, &flag), &flag).unwrap()
    };
    assert_eq!(train(begun("share:weight=0.5", "whole").unwrap(), 99), Outcome::Finished);
    assert_eq!(train(begun("share:weight=0.5", "parts").unwrap(), 3), Outcome::Interrupted);
    let parts = folder.path().join("parts");
    let refused = Run::resume(&parts, open).err().unwrap().to_string();
    assert!(refused.contains("`share:weight=0.5` is unknown"), "{refused}");
    assert_eq!(train(Run::resume_with(&parts, open, &share).unwrap(), 99), Outcome::Finished);
    for file in ["trainer.safetensors", "metrics.jsonl"] {
        let bytes = |name: &str| fs::read(folder.path().join(name).join(file)).unwrap();
        assert!(bytes("whole") == bytes("parts"), "{file} differs");
    }
    for (objective, words) in [("clip:weight=1", "one of the catalogue"), ("share", "a number")] {
        let refused = begun(objective, "refused").err().unwrap().to_string();
        assert!(refused.contains(words) && refused.contains("plan.toml"), "{refused}");
        assert!(!folder.path().join("refused").exists(), "{objective} left a folder");
    }
}
