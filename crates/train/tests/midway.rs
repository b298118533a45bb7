//! Evaluation on the way: it is written where it belongs, and changes nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use clipguard_data::{Options, Source};
use clipguard_model::Checkpoint;
use clipguard_train::{EvaluationRecipe, Examine, Figure, Outcome, Recipe, Run, TrainError, Watch};
use std::{
    error::Error,
    fs,
    path::Path,
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

fn recipe(folder: &Path) -> Recipe {
    let model = folder.join("model.json");
    fs::write(&model, VIT).unwrap();
    Recipe {
        model: model.to_str().unwrap().to_owned(),
        data: "scenes:32:side=32".to_owned(),
        steps: 7,
        batch: 4,
        warmup: 2,
        save_every: 4,
        log_every: 5,
        ema: 0.5,
        tensorboard: true,
        ..Recipe::default()
    }
}

fn evaluated(recipe: Recipe) -> Recipe {
    let data = "scenes:8".to_owned();
    let evaluation = Some(EvaluationRecipe { data, ..EvaluationRecipe::default() });
    Recipe { evaluate_every: 3, evaluation, ..recipe }
}

/// Measures the scale, and breaks at the given call.
struct Scale(usize);

impl Examine for Scale {
    fn examine(&mut self, model: &Checkpoint) -> Result<Vec<Figure>, Box<dyn Error + Send + Sync>> {
        self.0 = self.0.checked_sub(1).ok_or("the disk is gone")?;
        let scale = f64::from(model.weights["logit_scale"].data[0]);
        Ok(vec![("acc1".to_owned(), Some(scale)), ("acc5".to_owned(), None)])
    }
}

struct Seen<'a> {
    stop: u64,
    flag: &'a AtomicBool,
    told: Vec<u64>,
}

impl<'a> Seen<'a> {
    fn new(stop: u64, flag: &'a AtomicBool) -> Self {
        Self { stop, flag, told: Vec::new() }
    }
}

impl Watch for Seen<'_> {
    fn step(&mut self, done: u64, _total: u64, _loss: f32) {
        self.flag.store(done == self.stop, Ordering::Relaxed);
    }
    fn skipped(&mut self, key: &str, reason: &str) {
        panic!("{key}: {reason}");
    }
    fn evaluated(&mut self, done: u64, figures: &[Figure]) {
        assert_eq!(figures.len(), 2);
        self.told.push(done);
    }
}

/// Trains with an examiner, stopped and resumed after `stop` steps; the steps that were evaluated.
fn trained(recipe: &Recipe, folder: &Path, stop: u64) -> Vec<u64> {
    let run = Run::start(recipe.clone(), open(&recipe.data).unwrap(), folder).unwrap();
    let flag = AtomicBool::new(false);
    let mut seen = Seen::new(stop, &flag);
    let mut run = run.with_examiner(Box::new(Scale(9)));
    if run.train(&mut seen, &flag).unwrap() == Outcome::Interrupted {
        flag.store(false, Ordering::Relaxed);
        seen.stop = 0;
        let mut run = Run::resume(folder, open).unwrap().with_examiner(Box::new(Scale(9)));
        assert_eq!(run.train(&mut seen, &flag).unwrap(), Outcome::Finished);
    }
    seen.told
}

fn lines(folder: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_is_measured_is_written_and_training_has_the_same_bits() {
    let room = tempfile::tempdir().unwrap();
    let at = |name: &str| room.path().join(name);
    let plain = recipe(room.path());
    assert_eq!(trained(&plain, &at("plain"), 0), [0; 0]);
    let measured = evaluated(plain);
    assert_eq!(trained(&measured, &at("measured"), 0), [3, 6, 7]);
    assert_eq!(trained(&measured, &at("stopped"), 5), [3, 6, 7]);

    let model = "checkpoint/open_clip_model.safetensors";
    let read = |run: &str, name: &str| fs::read(at(run).join(name)).unwrap();
    assert!(read("plain", model) == read("measured", model));
    let events = "tensorboard/events.out.tfevents.0000000000.clipguard";
    for name in ["metrics.jsonl", "trainer.safetensors", events] {
        assert!(read("stopped", name) == read("measured", name), "{name}");
    }

    let (plain, measured) = (lines(&at("plain")), lines(&at("measured")));
    let steps = |lines: &[serde_json::Value]| -> Vec<u64> {
        lines.iter().map(|line| line["step"].as_u64().unwrap()).collect()
    };
    assert_eq!((steps(&plain), steps(&measured)), (vec![5, 7], vec![3, 5, 6, 7]));
    assert_eq!(plain[0], measured[1]);
    let last = &measured[3];
    let model = Checkpoint::open(at("measured").join("checkpoint").to_str().unwrap()).unwrap();
    // The averaged weights, which are the finished model's.
    let scale = model.weights["logit_scale"].data[0];
    assert_eq!(last["evaluation"]["acc1"].as_f64().unwrap() as f32, scale);
    assert_ne!(last["logit_scale"].as_f64().unwrap() as f32, scale);
    assert!(last["evaluation"]["acc5"].is_null() && plain[1].get("evaluation").is_none());
    let bytes = read("measured", events);
    assert_eq!(bytes.windows(15).filter(|part| part == b"evaluation/acc1").count(), 3);
}

#[test]
fn an_evaluation_that_breaks_stops_the_run_and_nobody_to_evaluate_is_an_error() {
    let room = tempfile::tempdir().unwrap();
    let recipe = evaluated(recipe(room.path()));
    let start = |name: &str| {
        Run::start(recipe.clone(), open(&recipe.data).unwrap(), &room.path().join(name)).unwrap()
    };
    let go = AtomicBool::new(false);
    let mut watch = Seen::new(0, &go);
    let error = start("nobody").train(&mut watch, &go).unwrap_err().to_string();
    assert!(error.contains("evaluate_every = 3: nobody"), "{error}");
    let mut broken = start("broken").with_examiner(Box::new(Scale(1)));
    let error = broken.train(&mut watch, &go).unwrap_err().to_string();
    assert!(error.contains("after step 6: the disk is gone; the state of step 4"), "{error}");
    let text = "evaluate_every = 3";
    let error = Recipe::parse(text, Path::new("r.toml")).unwrap_err().to_string();
    assert!(error.contains("`data` or `retrieval` in `[evaluation]`"), "{error}");
}

/// The prior's weights are no CLIP model.
#[test]
fn an_objective_that_trains_something_else_is_not_evaluated() {
    let room = tempfile::tempdir().unwrap();
    let recipe =
        Recipe { objective: "diffusion-prior".to_owned(), ..evaluated(recipe(room.path())) };
    let refused = Run::start(recipe.clone(), open(&recipe.data).unwrap(), &room.path().join("run"));
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("trains no CLIP model"), "{text}");
}
