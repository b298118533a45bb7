//! `clipguard train`.

use crate::{failure::Failure, output::special_note, session::Session};
use clipguard_data::shown;
use clipguard_evaluate::{Midway, Report, clean::midway::Settings};
use clipguard_model::Checkpoint;
use clipguard_train::{EvaluationRecipe, Examine, Figure, Outcome, Recipe, Run, TrainError, Watch};
use indicatif::ProgressBar;
use std::{
    collections::BTreeSet,
    error::Error,
    path::{Path, PathBuf},
};

/// Train a model from scratch or from a checkpoint.
///
/// The recipe is a TOML file or given by options; the run folder keeps it complete, with the
/// metrics, the state for an exact resume, the finished checkpoint and a report.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    clipguard train experiments/embedded/recipe.toml --out runs/mine\n  \
    clipguard train --model embedded --data pairs/{00000..00009}.tar --steps 500 --lr 1e-4 --out runs/tuned\n  \
    clipguard train --objective fare --model embedded --data photos/ --lr 1e-5 --out runs/robust\n  \
    clipguard train --model embedded --data pairs.tar --augment simclr --captions eda --out runs/views\n  \
    clipguard train --objective diffusion-prior --model embedded --data pairs.tar --out runs/prior\n  \
    clipguard train --objective siglip --model ViT-B-32 --data pairs.tar --batch 4096 --micro-batch 64 --out runs/large\n  \
    clipguard train --model embedded --data pairs.tar --freeze \"visual.*\" --out runs/locked\n  \
    clipguard train --resume runs/mine")]
pub(crate) struct Args {
    /// Recipe (TOML); options given beside it win.
    recipe: Option<PathBuf>,
    /// Folder of the run.
    #[arg(long, required_unless_present = "resume")]
    out: Option<PathBuf>,
    /// Go on with the run in this folder; it ends in the same bytes as if never stopped.
    #[arg(long, conflicts_with_all = ["recipe", "out", "objective", "model", "data", "steps", "batch", "lr",
        "augment", "captions", "micro_batch", "freeze", "tensorboard"])]
    resume: Option<PathBuf>,
    /// What is minimised (`clipguard methods`).
    #[arg(long)]
    objective: Option<String>,
    /// A checkpoint to go on from, an architecture (`ViT-B-32`), or an open_clip JSON file.
    #[arg(long)]
    model: Option<String>,
    /// Picture-caption pairs, or labelled pictures (captioned by the recipe's template); `tecoa`
    /// needs labels, `fare` pictures alone.
    #[arg(long)]
    data: Option<String>,
    /// Optimiser steps.
    #[arg(long)]
    steps: Option<u64>,
    /// Pairs in a batch.
    #[arg(long)]
    batch: Option<usize>,
    /// Peak learning rate.
    #[arg(long)]
    lr: Option<f64>,
    /// Random views of the pictures: `simclr`, `autoaugment`, ... (`clipguard methods`); what they
    /// look like shows `clipguard inspect DATA --augment`.
    #[arg(long)]
    augment: Option<String>,
    /// Random rewordings of the captions: `eda` (`clipguard methods`).
    #[arg(long)]
    captions: Option<String>,
    /// Pairs in the towers at a time; the gradient is that of the whole batch.
    #[arg(long, value_name = "PAIRS")]
    micro_batch: Option<usize>,
    /// Parameters that are not trained, such as `visual.*`; may be given several times.
    #[arg(long, value_name = "PATTERN")]
    freeze: Vec<String>,
    /// Write the metrics for TensorBoard too (`tensorboard --logdir RUN`).
    #[arg(long)]
    tensorboard: bool,
}

impl Args {
    fn recipe(&self, session: &Session) -> Result<Recipe, Failure> {
        let mut recipe = match &self.recipe {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| Failure::reading(path, &e))?;
                Recipe::parse(&text, path)?
            }
            None => Recipe { seed: session.seed, ..Recipe::default() },
        };
        let set =
            |to: &mut String, from: &Option<String>| from.iter().for_each(|v| to.clone_from(v));
        set(&mut recipe.objective, &self.objective);
        set(&mut recipe.model, &self.model);
        set(&mut recipe.data, &self.data);
        set(&mut recipe.device, &session.place);
        set(&mut recipe.augment, &self.augment);
        set(&mut recipe.captions, &self.captions);
        recipe.steps = self.steps.unwrap_or(recipe.steps);
        recipe.batch = self.batch.unwrap_or(recipe.batch);
        recipe.lr = self.lr.unwrap_or(recipe.lr);
        recipe.micro_batch = self.micro_batch.unwrap_or(recipe.micro_batch);
        recipe.freeze.extend(self.freeze.iter().cloned());
        recipe.tensorboard |= self.tensorboard;
        recipe.warmup = recipe.warmup.min(recipe.steps);
        recipe.check().map_err(Failure::Usage)?;
        Ok(recipe)
    }
}

struct Progress<'a> {
    bar: ProgressBar,
    session: &'a Session,
    smooth: Option<f32>,
    /// Samples whose captions spell a special token.
    special: BTreeSet<String>,
}

/// Samples with special tokens that are remembered, and of these named without `-v`.
const SPECIAL: usize = 10_000;
const NAMED: usize = 5;

impl Watch for Progress<'_> {
    fn step(&mut self, done: u64, _total: u64, loss: f32) {
        let smooth = self.smooth.map_or(loss, |s| 0.95 * s + 0.05 * loss);
        self.smooth = Some(smooth);
        self.bar.set_position(done);
        self.bar.set_message(format!("loss {smooth:.3}"));
    }

    fn evaluated(&mut self, done: u64, figures: &[Figure]) {
        let figure = |(name, value): &Figure| value.map(|value| format!("{name} {value:.4}"));
        let text = figures.iter().filter_map(figure).collect::<Vec<_>>().join(", ");
        let session = self.session;
        self.bar.suspend(|| session.say(format!("step {done}: {text}")));
    }

    fn skipped(&mut self, key: &str, reason: &str) {
        let session = self.session;
        self.bar.suspend(|| session.say(format!("skipped {key}: {reason}")));
    }

    fn special(&mut self, key: &str) {
        if self.special.len() == SPECIAL || !self.special.insert(key.to_owned()) {
            return;
        }
        let session = self.session;
        if session.verbose || self.special.len() <= NAMED {
            let note = special_note(&format!("caption of {}", shown(key)));
            self.bar.suspend(|| session.say(format!("note: {note}")));
        }
    }
}

/// The evaluation of a run on the way.
struct Exam(Midway);

impl Examine for Exam {
    fn examine(&mut self, model: &Checkpoint) -> Result<Vec<Figure>, Box<dyn Error + Send + Sync>> {
        Ok(self.0.measure(model)?)
    }
}

/// The run with what its recipe measures on the way, read and checked before it starts.
fn examined(run: Run, session: &Session) -> Result<Run, Failure> {
    let Recipe { evaluate_every: 1.., evaluation: Some(recipe), .. } = run.recipe() else {
        return Ok(run);
    };
    let EvaluationRecipe { data, retrieval, samples, classes, templates } = recipe.clone();
    let settings = Settings { data, retrieval, samples, classes, templates };
    let midway = Midway::new(&settings, run.preprocess(), run.device(), session.threads)?;
    Ok(run.with_examiner(Box::new(Exam(midway))))
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let open = |spelling: &str| -> Result<_, TrainError> {
        Ok(clipguard_data::open(spelling, &clipguard_data::Options::default())?)
    };
    let (run, folder) = match (&args.resume, &args.out) {
        (Some(folder), _) => {
            let run = Run::resume(folder, open)?;
            if let Some(place) = session.place.as_ref().filter(|p| **p != run.recipe().device) {
                return Err(Failure::Usage(format!(
                    "--device {place}: the run in {} computes on {}, and to end in the same bytes it \
                     has to go on there",
                    folder.display(),
                    run.recipe().device
                )));
            }
            (examined(run, session)?, folder)
        }
        (None, Some(folder)) => {
            let recipe = args.recipe(session)?;
            let source = open(&recipe.data)?;
            (examined(Run::prepare(recipe, source, folder)?, session)?.claim()?, folder)
        }
        (None, None) => return Err(Failure::Usage("`--out RUN` is missing".to_owned())),
    };
    let mut run = run.with_threads(session.threads);
    let bar = session.bar(run.recipe().steps, "training");
    bar.set_position(run.step());
    bar.reset_eta();
    let mut progress = Progress { bar, session, smooth: None, special: BTreeSet::new() };
    let outcome = run.train(&mut progress, session.stop_flag()).map_err(|e| match e {
        e @ TrainError::Diverged { .. } => Failure::Failed(e.to_string()),
        e => e.into(),
    })?;
    progress.bar.finish_and_clear();
    if progress.special.len() > NAMED {
        let count = progress.special.len();
        let note = special_note(&format!("captions of {count} samples"));
        session.say(format!("note: {note}"));
    }
    if outcome == Outcome::Interrupted {
        return Err(Failure::Interrupted(format!(
            "stopped after step {}; go on with `clipguard train --resume {}`",
            run.step(),
            folder.display()
        )));
    }
    finish(&run, folder, session)
}

/// Summary, report and the closing line.
fn finish(run: &Run, folder: &Path, session: &Session) -> Result<(), Failure> {
    let recipe = run.recipe();
    let summary = serde_json::json!({
        "title": format!("Training {} with `{}`", recipe.model, recipe.objective),
        "kicker": recipe.data,
        "verdict": format!("{} steps of {} pairs", run.step(), recipe.batch),
        "command": format!("clipguard train {}", folder.join("plan.toml").display()),
        "seed": recipe.seed,
        "version": env!("CARGO_PKG_VERSION"),
        "checkpoint": folder.join("checkpoint"),
    });
    let path = folder.join("summary.json");
    std::fs::write(&path, format!("{summary:#}\n")).map_err(|e| Failure::writing(&path, &e))?;
    let report = Report::from_run(folder).map_err(|e| Failure::Failed(e.to_string()))?;
    let page = folder.join("report.html");
    std::fs::write(&page, report.render()).map_err(|e| Failure::writing(&page, &e))?;
    if session.json {
        println!("{summary:#}");
    } else {
        println!("checkpoint  {}", folder.join("checkpoint").display());
        println!("report      {}", page.display());
    }
    Ok(())
}
