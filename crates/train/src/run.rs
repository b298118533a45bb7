//! The loop.

use self::objective::{built, catalogued, vacant};
use crate::{
    Batch, Batches, Build, Examine, Figure, Objective, Recipe, Start, State, TrainError,
    batches::Preparation, selection::Selection, start::read_model, tensorboard,
};
use burn::tensor::Device;
use clipguard_data::{DataError, Source};
use clipguard_model::{
    Architecture, Arithmetic, Checkpoint, Preprocess, Template, Weights, checkpoint::hex,
    weights::write_atomically,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// What a run tells while it goes.
pub trait Watch {
    /// After every step: steps done, of how many, and the step's loss.
    fn step(&mut self, done: u64, total: u64, loss: f32);
    /// A sample that was left out.
    fn skipped(&mut self, key: &str, reason: &str);
    /// A sample whose caption holds the literal spelling of a special token, which is read as
    /// text. Told every time it is met.
    fn special(&mut self, _key: &str) {}
    /// What was measured after a step.
    fn evaluated(&mut self, _done: u64, _figures: &[Figure]) {}
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
    device: Device,
    objective: Box<dyn Objective>,
    selection: Selection,
    frozen_norms: BTreeSet<String>,
    state: State,
    threads: usize,
    examiner: Option<Box<dyn Examine>>,
}

impl Run {
    /// Starts a run in a new or empty folder.
    pub fn start(
        recipe: Recipe,
        source: Arc<dyn Source>,
        folder: &Path,
    ) -> Result<Self, TrainError> {
        Self::prepare(recipe, source, folder)?.claim()
    }

    /// A run before its first step, for a folder in which nothing is written yet: whatever the
    /// caller has to find out first can still be refused without a trace.
    pub fn prepare(
        recipe: Recipe,
        source: Arc<dyn Source>,
        folder: &Path,
    ) -> Result<Self, TrainError> {
        vacant(folder)?;
        Self::begin(recipe, source, folder)
    }

    /// Makes the folder that of this run.
    pub fn claim(self) -> Result<Self, TrainError> {
        let folder = &self.folder;
        let at = |source| TrainError::Io { path: folder.clone(), source };
        fs::create_dir_all(folder).map_err(at)?;
        let config = json!({
            "model_cfg": self.architecture.source,
            "preprocess_cfg": self.preprocess.to_json(),
        });
        write_atomically(&folder.join("model.json"), format!("{config:#}\n").as_bytes())?;
        write_atomically(&folder.join("plan.toml"), self.recipe.to_toml().as_bytes())?;
        Ok(self)
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
        let info = catalogued(&recipe, folder)?;
        Self::go_on(recipe, source, folder, &info.build)
    }

    /// The run after its last saved step.
    fn go_on(
        recipe: Recipe,
        source: Arc<dyn Source>,
        folder: &Path,
        build: &Build<'_>,
    ) -> Result<Self, TrainError> {
        let device = clipguard_model::device(&recipe.device)?;
        let objective = built(&recipe, &source, folder, &device, build, &|| Start::of(&recipe))?;
        let digest = digest(&recipe, objective.as_ref());
        let selection = Selection::of(&recipe);
        let trains = |name: &str| selection.trains(objective.as_ref(), name);
        let state = State::load(folder, &digest, trains)?;
        let (architecture, preprocess) = read_model(&folder.join("model.json"))?;
        let frozen_norms = selection.frozen_norms(&state.weights);
        Ok(Self {
            folder: folder.to_owned(),
            recipe,
            digest,
            architecture,
            preprocess,
            source,
            device,
            objective,
            selection,
            frozen_norms,
            state,
            threads: 0,
            examiner: None,
        })
    }

    /// The run before its first step.
    fn begin(
        mut recipe: Recipe,
        source: Arc<dyn Source>,
        folder: &Path,
    ) -> Result<Self, TrainError> {
        let info = catalogued(&recipe, folder)?;
        (info.complete)(&mut recipe);
        Self::begin_with(recipe, source, folder, &info.build)
    }

    /// As [`Run::begin`], with what makes the objective.
    fn begin_with(
        mut recipe: Recipe,
        source: Arc<dyn Source>,
        folder: &Path,
        build: &Build<'_>,
    ) -> Result<Self, TrainError> {
        recipe.complete();
        let start = Start::of(&recipe)?;
        let device = clipguard_model::device(&recipe.device)?;
        let objective = built(&recipe, &source, folder, &device, build, &|| Ok(start.clone()))?;
        let Start { architecture, preprocess, weights, .. } = start;
        let weights = objective.weights(weights);
        let selection = selected(&recipe, objective.as_ref(), &weights, folder)?;
        let frozen_norms = selection.frozen_norms(&weights);
        let trains = |name: &str| selection.trains(objective.as_ref(), name);
        Ok(Self {
            folder: folder.to_owned(),
            digest: digest(&recipe, objective.as_ref()),
            state: State::new(weights, trains, recipe.ema > 0.0),
            recipe,
            architecture: objective.architecture(architecture),
            preprocess,
            source,
            device,
            objective,
            selection,
            frozen_norms,
            threads: 0,
            examiner: None,
        })
    }

    /// Threads that prepare samples ahead of the step; 0 means as many as there are cores.
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// What measures the model on the way, where the recipe asks for it (`evaluate_every`).
    pub fn with_examiner(mut self, examiner: Box<dyn Examine>) -> Self {
        self.examiner = Some(examiner);
        self
    }

    /// Whether the parameter `name` is trained.
    fn trains(&self, name: &str) -> bool {
        self.selection.trains(self.objective.as_ref(), name)
    }

    /// Steps done so far.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Its recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How pictures are prepared for its model.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
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
            arithmetic: Arithmetic::F32,
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
            let rows = if self.objective.second_views() { 2 } else { 1 };
            if batch.pictures.len() < 2 * rows {
                return Err(self.starved(&batch));
            }
            let next = self.state.step + 1;
            let told = next.is_multiple_of(self.recipe.log_every) || next == self.recipe.steps;
            let done = self.one_step(&batch, told)?;
            if !done.loss.is_finite() {
                return Err(TrainError::Diverged { step: self.state.step, loss: done.loss, saved });
            }
            let step = self.state.step;
            let figures = self.examined(saved)?;
            if told || figures.is_some() {
                lines.push(done.line(step, self.state.skipped, figures.as_deref()).to_string());
            }
            watch.step(step, self.recipe.steps, done.loss);
            figures.iter().for_each(|figures| watch.evaluated(step, figures));
            if step.is_multiple_of(self.recipe.save_every) && step < self.recipe.steps {
                self.save(&metrics, &lines)?;
                saved = step;
            }
        }
        self.save(&metrics, &lines)?;
        let folder = self.folder.join("checkpoint");
        self.objective.save(&self.checkpoint(), &folder, self.recipe.precision)?;
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
            second_views: self.objective.second_views(),
            seed: self.recipe.seed,
        })
    }

    /// Metrics first, state second: whoever is killed in between resumes from the older state,
    /// and lines beyond it are cut and written again. The other way round they would be lost.
    fn save(&self, metrics: &Path, lines: &[String]) -> Result<(), TrainError> {
        let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        write_atomically(metrics, text.as_bytes())?;
        if self.recipe.tensorboard {
            tensorboard::write(&self.folder, lines)?;
        }
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

/// Of the recipe, and of the model that the objective keeps beside the trained one.
fn digest(recipe: &Recipe, objective: &dyn Objective) -> String {
    let kept = objective.keeps().unwrap_or_default();
    hex(&Sha256::digest(recipe.to_toml() + kept))
}

/// What the recipe freezes, if it can be.
fn selected(
    recipe: &Recipe,
    objective: &dyn Objective,
    weights: &Weights,
    folder: &Path,
) -> Result<Selection, TrainError> {
    let selection = Selection::of(recipe);
    let refuse = |reason| TrainError::Recipe { path: folder.join("plan.toml"), reason };
    selection.check(objective, weights).map_err(refuse)?;
    if recipe.evaluate_every > 0 && !weights.contains_key("logit_scale") {
        return Err(refuse(format!(
            "evaluate_every = {}: `{}` trains no CLIP model, there is nothing to evaluate",
            recipe.evaluate_every, recipe.objective
        )));
    }
    Ok(selection)
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

mod objective;
mod step;
#[cfg(test)]
mod tests;
