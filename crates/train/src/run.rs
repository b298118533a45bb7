//! The loop.

use crate::{
    AdamW, Batch, Batches, Objective, Recipe, State, Step, TrainError,
    batches::Preparation,
    learning_rate, objective,
    optimiser::{Gradients, global_norm},
};
use burn::tensor::Device;
use clipguard_data::{DataError, Source};
use clipguard_model::{
    Architecture, BatchStatistics, Checkpoint, Clip, ModelError, Parameters, Pass, Precision,
    Preprocess, Template,
    checkpoint::hex,
    parameters::{initial_weights, is_buffer},
    weights::write_atomically,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// The logit scale stays in `[0, ln 100]`.
const MAX_LOGIT_SCALE: f32 = 4.605_170_2;

/// What a run tells while it goes.
pub trait Watch {
    /// After every step: steps done, of how many, and the step's loss.
    fn step(&mut self, done: u64, total: u64, loss: f32);
    /// A sample that was left out.
    fn skipped(&mut self, key: &str, reason: &str);
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// Somebody asked to stop; the state is saved and can be resumed.
    Interrupted,
}

/// A training run in its folder.
pub struct Run {
    folder: PathBuf,
    recipe: Recipe,
    digest: String,
    architecture: Architecture,
    preprocess: Preprocess,
    source: Arc<dyn Source>,
    objective: Box<dyn Objective>,
    state: State,
    threads: usize,
}

impl Run {
    /// Starts a run in a new or empty folder.
    pub fn start(
        recipe: Recipe,
        source: Arc<dyn Source>,
        folder: &Path,
    ) -> Result<Self, TrainError> {
        let at = |source| TrainError::Io { path: folder.to_owned(), source };
        if folder.join("plan.toml").exists() {
            return Err(TrainError::Folder {
                path: folder.to_owned(),
                reason: "holds a run already; use `--resume` or another folder".to_owned(),
            });
        }
        let (architecture, preprocess, weights) = starting_point(&recipe)?;
        let run =
            Self::assemble(recipe, source, folder, architecture, preprocess, State::new(weights))?;
        fs::create_dir_all(folder).map_err(at)?;
        let config = json!({
            "model_cfg": run.architecture.source,
            "preprocess_cfg": run.preprocess.to_json(),
        });
        write_atomically(&folder.join("model.json"), format!("{config:#}\n").as_bytes())?;
        write_atomically(&folder.join("plan.toml"), run.recipe.to_toml().as_bytes())?;
        Ok(run)
    }

    /// Goes on with the run in `folder`; `open` opens its data source.
    pub fn resume(
        folder: &Path,
        open: impl FnOnce(&str) -> Result<Arc<dyn Source>, TrainError>,
    ) -> Result<Self, TrainError> {
        let plan = folder.join("plan.toml");
        let text = fs::read_to_string(&plan)
            .map_err(|source| TrainError::Io { path: plan.clone(), source })?;
        let recipe = Recipe::parse(&text, &plan)?;
        let source = open(&recipe.data)?;
        if !folder.join(crate::state::FILE).exists() {
            // Stopped before its first save: the beginning is in the recipe.
            let (architecture, preprocess, weights) = starting_point(&recipe)?;
            let state = State::new(weights);
            return Self::assemble(recipe, source, folder, architecture, preprocess, state);
        }
        let state = State::load(folder, &digest(&recipe))?;
        let (architecture, preprocess) = read_model(&folder.join("model.json"))?;
        Self::assemble(recipe, source, folder, architecture, preprocess, state)
    }

    fn assemble(
        recipe: Recipe,
        source: Arc<dyn Source>,
        folder: &Path,
        architecture: Architecture,
        preprocess: Preprocess,
        state: State,
    ) -> Result<Self, TrainError> {
        let refuse = |reason: String| TrainError::Recipe { path: folder.join("plan.toml"), reason };
        recipe.check().map_err(refuse)?;
        let objective = objective(&recipe.objective)
            .ok_or_else(|| refuse(format!("objective `{}` is unknown", recipe.objective)))?;
        Ok(Self {
            folder: folder.to_owned(),
            digest: digest(&recipe),
            recipe,
            architecture,
            preprocess,
            source,
            objective,
            state,
            threads: 0,
        })
    }

    /// Threads that prepare samples ahead of the step; 0 means as many as there are cores.
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Steps done so far.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Its recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The model as it is now.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            name: self.folder.display().to_string(),
            architecture: self.architecture.clone(),
            preprocess: self.preprocess.clone(),
            weights: self.state.weights.clone(),
            digest: String::new(),
            warnings: Vec::new(),
        }
    }

    /// Trains until the recipe's steps are done or `stop` is set.
    pub fn train(
        &mut self,
        watch: &mut dyn Watch,
        stop: &AtomicBool,
    ) -> Result<Outcome, TrainError> {
        let metrics = self.folder.join("metrics.jsonl");
        let mut lines = kept_lines(&metrics, self.state.step);
        let mut batches = Batches::new(
            &self.source,
            self.preparation()?,
            self.recipe.batch,
            self.state.step,
            self.threads,
        )?;
        let mut saved = self.state.step;
        while self.state.step < self.recipe.steps {
            if stop.load(Ordering::Relaxed) {
                self.save(&metrics, &lines)?;
                return Ok(Outcome::Interrupted);
            }
            let Some(batch) = batches.next() else { break };
            let batch = batch?;
            for (key, reason) in &batch.skipped {
                self.state.skipped += 1;
                watch.skipped(key, reason);
            }
            if batch.pictures.len() < 2 {
                return Err(self.starved(&batch));
            }
            let done = self.one_step(&batch)?;
            if !done.loss.is_finite() {
                return Err(TrainError::Diverged { step: self.state.step, loss: done.loss, saved });
            }
            let step = self.state.step;
            if step.is_multiple_of(self.recipe.log_every) || step == self.recipe.steps {
                lines.push(
                    json!({
                        "step": step,
                        "loss": done.loss,
                        "lr": done.lr,
                        "logit_scale": done.scale,
                        "gradient_norm": done.norm,
                        "skipped": self.state.skipped,
                    })
                    .to_string(),
                );
            }
            watch.step(step, self.recipe.steps, done.loss);
            if step.is_multiple_of(self.recipe.save_every) && step < self.recipe.steps {
                self.save(&metrics, &lines)?;
                saved = step;
            }
        }
        self.save(&metrics, &lines)?;
        self.checkpoint().save(&self.folder.join("checkpoint"), Precision::F32)?;
        Ok(Outcome::Finished)
    }

    fn preparation(&self) -> Result<Preparation, TrainError> {
        Ok(Preparation {
            resize: self.preprocess.resize,
            context: self.architecture.text.context,
            jitter: self.recipe.jitter,
            template: Template::new(&self.recipe.template).map_err(|e| TrainError::Recipe {
                path: self.folder.join("plan.toml"),
                reason: format!("template: {e}"),
            })?,
            seed: self.recipe.seed,
        })
    }

    fn one_step(&mut self, batch: &Batch) -> Result<Done, TrainError> {
        let lr =
            learning_rate(self.recipe.lr, self.state.step, self.recipe.warmup, self.recipe.steps);
        let device = Device::flex().autodiff();
        let parameters = Parameters::with(&self.state.weights, &device, |name| !is_buffer(name));
        let clip =
            Clip::from_parameters(&self.architecture, &self.preprocess, &parameters, &device)?;
        let seen = RefCell::new(BatchStatistics::new());
        let loss = self.objective.loss(&Step {
            clip: &clip,
            pass: Pass::Train(&seen),
            batch,
            step: self.state.step,
            seed: self.recipe.seed,
        })?;
        let value = loss.clone().into_scalar::<f32>();
        let mut grads = loss.backward();
        let gradients: Gradients = parameters
            .leaves()
            .filter_map(|(name, leaf)| {
                let gradient = leaf.grad_remove(&mut grads)?;
                Some((name.to_owned(), gradient.into_data().try_to_vec::<f32>().ok()?))
            })
            .collect();
        drop((clip, parameters));
        let norm = global_norm(&gradients);
        let limit = self.recipe.clip_norm;
        let factor = if limit > 0.0 && norm > limit { limit / (norm + 1e-6) } else { 1.0 };
        let optimiser = AdamW {
            beta1: self.recipe.beta1,
            beta2: self.recipe.beta2,
            epsilon: self.recipe.epsilon,
            weight_decay: self.recipe.weight_decay,
        };
        let state = &mut self.state;
        state.step += 1;
        let moments = (&mut state.first, &mut state.second);
        optimiser.update(&mut state.weights, moments, &gradients, lr, state.step, factor);
        self.keep_statistics(seen.into_inner());
        let scale = self.clamp_scale();
        Ok(Done { loss: value, lr, scale, norm })
    }

    /// BatchNorm's running averages: `r = 0.9 r + 0.1 s`, with the unbiased variance.
    fn keep_statistics(&mut self, seen: BatchStatistics) {
        for (name, statistics, rows) in seen {
            let unbiased = rows as f32 / (rows.max(2) - 1) as f32;
            let mut mix = |buffer: &str, values: Vec<f32>, factor: f32| {
                if let Some(array) = self.state.weights.get_mut(&format!("{name}.{buffer}")) {
                    for (r, s) in array.data.iter_mut().zip(values) {
                        *r = 0.9 * *r + 0.1 * s * factor;
                    }
                }
            };
            let values =
                |t: burn::tensor::Tensor<1>| t.into_data().try_to_vec::<f32>().unwrap_or_default();
            mix("running_mean", values(statistics.mean), 1.0);
            mix("running_var", values(statistics.variance), unbiased);
            let count = format!("{name}.num_batches_tracked");
            if let Some(array) = self.state.weights.get_mut(&count) {
                array.data.iter_mut().for_each(|n| *n += 1.0);
            }
        }
    }

    fn clamp_scale(&mut self) -> f32 {
        match self.state.weights.get_mut("logit_scale").and_then(|a| a.data.first_mut()) {
            Some(scale) => {
                *scale = scale.clamp(0.0, MAX_LOGIT_SCALE);
                *scale
            }
            None => 0.0,
        }
    }

    /// Metrics first, state second: whoever is killed in between resumes from the older state,
    /// and lines beyond it are cut and written again. The other way round they would be lost.
    fn save(&self, metrics: &Path, lines: &[String]) -> Result<(), TrainError> {
        let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        write_atomically(metrics, text.as_bytes())?;
        self.state.save(&self.folder, &self.digest)
    }

    /// The refusal of a batch of which fewer than two pairs are left.
    fn starved(&self, batch: &Batch) -> TrainError {
        let example = batch.skipped.first().map_or(String::new(), |(key, reason)| {
            format!(" (the first of them, {}: {reason})", clipguard_data::shown(key))
        });
        TrainError::Data(DataError::Spelling {
            spelling: self.source.name().to_owned(),
            reason: format!(
                "{} of the {} pairs of step {} cannot be used{example}; a contrastive loss needs at least 2",
                batch.skipped.len(),
                self.recipe.batch,
                self.state.step,
            ),
        })
    }
}

struct Done {
    loss: f32,
    lr: f64,
    scale: f32,
    norm: f64,
}

fn digest(recipe: &Recipe) -> String {
    hex(&Sha256::digest(recipe.to_toml()))
}

/// Lines of a metrics file up to and including `step`.
fn kept_lines(path: &Path, step: u64) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter(|line| {
            serde_json::from_str::<serde_json::Value>(line)
                .is_ok_and(|v| v["step"].as_u64().is_some_and(|s| s <= step))
        })
        .map(str::to_owned)
        .collect()
}

/// The architecture, preprocessing and weights a recipe starts from.
fn starting_point(
    recipe: &Recipe,
) -> Result<(Architecture, Preprocess, clipguard_model::Weights), TrainError> {
    let name = &recipe.model;
    if name.ends_with(".json") {
        let (architecture, preprocess) = read_model(Path::new(name))?;
        let weights = initial_weights(&architecture, recipe.seed);
        return Ok((architecture, preprocess, weights));
    }
    let known = clipguard_model::config::architecture_names();
    let base = name.strip_suffix("-quickgelu").unwrap_or(name);
    if known.iter().any(|n| n == base) {
        let architecture = Architecture::named(name)?;
        let preprocess = Preprocess::openai(architecture.vision.image_size());
        let weights = initial_weights(&architecture, recipe.seed);
        return Ok((architecture, preprocess, weights));
    }
    let checkpoint = Checkpoint::open(name)?;
    Ok((checkpoint.architecture, checkpoint.preprocess, checkpoint.weights))
}

/// Reads an open_clip configuration, with or without the outer `model_cfg`.
fn read_model(path: &Path) -> Result<(Architecture, Preprocess), TrainError> {
    let text = fs::read_to_string(path)
        .map_err(|source| TrainError::Io { path: path.to_owned(), source })?;
    let refuse = |reason: String| ModelError::Config { path: path.to_owned(), reason };
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| refuse(format!("not valid JSON: {e}")))?;
    let config = value.get("model_cfg").unwrap_or(&value);
    let architecture = Architecture::from_json(config, path)?;
    let size = architecture.vision.image_size();
    let preprocess = match value.get("preprocess_cfg") {
        Some(config) => Preprocess::from_json(config, size).map_err(refuse)?,
        None => Preprocess::openai(size),
    };
    Ok((architecture, preprocess))
}

#[cfg(test)]
mod tests;
