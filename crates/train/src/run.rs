//! The loop.

use crate::{
    AdamW, Batch, Batches, Beginning, Objective, Recipe, Start, State, Step, TrainError,
    batches::Preparation,
    learning_rate, objective,
    optimiser::{Gradients, global_norm},
    start::read_model,
};
use burn::tensor::Device;
use clipguard_data::{DataError, Source};
use clipguard_model::{
    Architecture, BatchStatistics, Checkpoint, Parameters, Pass, Preprocess, Template,
    checkpoint::hex, weights::write_atomically,
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
    /// A sample whose caption holds the literal spelling of a special token, which is read as
    /// text. Told every time it is met.
    fn special(&mut self, _key: &str) {}
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
        let run = Self::begin(recipe, source, folder)?;
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
            return Self::begin(recipe, source, folder);
        }
        let objective = built(&recipe, &source, folder, &|| Start::of(&recipe))?;
        let digest = digest(&recipe, objective.as_ref());
        let state = State::load(folder, &digest, |name| objective.trains(name))?;
        let (architecture, preprocess) = read_model(&folder.join("model.json"))?;
        let folder = folder.to_owned();
        let threads = 0;
        Ok(Self {
            folder,
            recipe,
            digest,
            architecture,
            preprocess,
            source,
            objective,
            state,
            threads,
        })
    }

    /// The run before its first step.
    fn begin(
        mut recipe: Recipe,
        source: Arc<dyn Source>,
        folder: &Path,
    ) -> Result<Self, TrainError> {
        if let Some(info) = objective(&recipe.objective) {
            (info.complete)(&mut recipe);
        }
        recipe.complete();
        let start = Start::of(&recipe)?;
        let objective = built(&recipe, &source, folder, &|| Ok(start.clone()))?;
        let Start { architecture, preprocess, weights, .. } = start;
        let weights = objective.weights(weights);
        Ok(Self {
            folder: folder.to_owned(),
            digest: digest(&recipe, objective.as_ref()),
            state: State::new(weights, |name| objective.trains(name), recipe.ema > 0.0),
            recipe,
            architecture,
            preprocess,
            source,
            objective,
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

    /// The model as it is now, with the averaged weights where the recipe averages them. Its
    /// weights are those the objective trains, which need not be CLIP's.
    pub fn checkpoint(&self) -> Checkpoint {
        let mut weights = self.state.weights.clone();
        weights.extend(self.state.average.iter().map(|(n, a)| (n.clone(), a.clone())));
        Checkpoint {
            name: self.folder.display().to_string(),
            architecture: self.architecture.clone(),
            preprocess: self.preprocess.clone(),
            weights,
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
            batch.special.iter().for_each(|key| watch.special(key));
            if batch.pictures.len() < 2 {
                return Err(self.starved(&batch));
            }
            let done = self.one_step(&batch)?;
            if !done.loss.is_finite() {
                return Err(TrainError::Diverged { step: self.state.step, loss: done.loss, saved });
            }
            let step = self.state.step;
            if step.is_multiple_of(self.recipe.log_every) || step == self.recipe.steps {
                lines.push(done.line(step, self.state.skipped));
            }
            watch.step(step, self.recipe.steps, done.loss);
            if step.is_multiple_of(self.recipe.save_every) && step < self.recipe.steps {
                self.save(&metrics, &lines)?;
                saved = step;
            }
        }
        self.save(&metrics, &lines)?;
        self.objective.save(&self.checkpoint(), &self.folder.join("checkpoint"))?;
        Ok(Outcome::Finished)
    }

    fn preparation(&self) -> Result<Preparation, TrainError> {
        let refuse =
            |reason: String| TrainError::Recipe { path: self.folder.join("plan.toml"), reason };
        Ok(Preparation {
            resize: self.preprocess.resize,
            context: self.architecture.text.context,
            augmentation: self.recipe.augmentation().map_err(refuse)?,
            rewording: self.recipe.rewording().map_err(refuse)?,
            jitter: self.recipe.jitter,
            template: Template::new(&self.recipe.template)
                .map_err(|e| refuse(format!("template: {e}")))?,
            needs: self.objective.needs(),
            seed: self.recipe.seed,
        })
    }

    fn one_step(&mut self, batch: &Batch) -> Result<Done, TrainError> {
        let lr =
            learning_rate(self.recipe.lr, self.state.step, self.recipe.warmup, self.recipe.steps);
        let device = Device::flex().autodiff();
        let parameters =
            Parameters::with(&self.state.weights, &device, |name| self.objective.trains(name));
        let seen = RefCell::new(BatchStatistics::new());
        let loss = self.objective.loss(&Step {
            parameters: &parameters,
            weights: &self.state.weights,
            architecture: &self.architecture,
            preprocess: &self.preprocess,
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
        drop(parameters);
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
        let decays = |name: &str, shape: &[usize]| self.objective.decays(name, shape);
        optimiser.update(&mut state.weights, moments, &gradients, lr, state.step, factor, &decays);
        state.keep_average(self.recipe.ema);
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

    /// The logit scale, kept in its range where it is trained; `None` when there is none.
    fn clamp_scale(&mut self) -> Option<f32> {
        let scale = self.state.weights.get_mut("logit_scale")?.data.first_mut()?;
        if self.objective.trains("logit_scale") {
            *scale = scale.clamp(0.0, MAX_LOGIT_SCALE);
        }
        Some(*scale)
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
                "{} of the {} pairs of step {} cannot be used{example}; a step needs at least 2",
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
    /// Of a CLIP model.
    scale: Option<f32>,
    norm: f64,
}

impl Done {
    /// A line of `metrics.jsonl`.
    fn line(&self, step: u64, skipped: u64) -> String {
        let mut line = json!({ "step": step, "loss": self.loss, "lr": self.lr });
        if let Some(scale) = self.scale {
            line["logit_scale"] = scale.into();
        }
        line["gradient_norm"] = self.norm.into();
        line["skipped"] = skipped.into();
        line.to_string()
    }
}

/// Of the recipe, and of the model that the objective keeps beside the trained one.
fn digest(recipe: &Recipe, objective: &dyn Objective) -> String {
    let kept = objective.keeps().unwrap_or_default();
    hex(&Sha256::digest(recipe.to_toml() + kept))
}

/// The recipe's objective; `start` gives the model that the run starts from.
fn built(
    recipe: &Recipe,
    source: &Arc<dyn Source>,
    folder: &Path,
    start: &dyn Fn() -> Result<Start, TrainError>,
) -> Result<Box<dyn Objective>, TrainError> {
    let path = folder.join("plan.toml");
    let refuse = |reason: String| TrainError::Recipe { path: path.clone(), reason };
    recipe.check().map_err(refuse)?;
    let info = objective(&recipe.objective)
        .ok_or_else(|| refuse(format!("objective `{}` is unknown", recipe.objective)))?;
    let path = &path;
    (info.build)(&Beginning { recipe, path, classes: source.classes(), start })
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

#[cfg(test)]
mod tests;
