//! From a plan to records: every defence against every attack, and the worst case over them.
//!
//! The unit of work is one attack on one defence of one model on one data source. Its outcome is
//! kept in the run folder sample by sample, so an interrupted run goes on at the batch where it
//! stopped. Nothing is counted here: when all units are there, the summary reads them, be they
//! computed in one go, after interruptions, or in shards on several machines.

use crate::{
    Classifier, Defence, EvaluateError, Example, Plan, Record, Shard, Subset,
    classifier::template_set,
    clean::captions,
    records::record_file::write_atomic,
    run::estimate::expected,
    run::examples,
    run::progress::{Follow, State, Until},
    run::schedule::{StageHead, schedule},
    run::summary,
    run::units::Stage,
};
use burn::tensor::Device;
use clipguard_data::Source;
use clipguard_model::{Checkpoint, ClassList, prompts};
use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    path::Path,
};

/// The outcome of a plan.
#[derive(Default)]
pub struct Evaluation {
    /// Records in the order of the plan; none for a shard.
    pub records: Vec<Record>,
    /// Pictures, chosen by the hash of their keys among those the first attack changed the answer
    /// to.
    pub examples: Vec<Example>,
    /// What the examples were attacked with.
    pub examples_of: String,
    /// Whether the time was up before all was done.
    pub is_cut: bool,
    /// Units that are missing because of that.
    pub missing: Vec<String>,
}

/// Where and how far a plan is run.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The run folder.
    pub folder: &'a Path,
    /// Which samples.
    pub shard: Shard,
    /// Until when.
    pub until: Until<'a>,
    /// Where tensors live.
    pub device: &'a Device,
    /// Threads that decode pictures; 0 means all cores.
    pub threads: usize,
}

/// Runs a plan; what is finished in the folder is not run again.
///
/// When the time is up, the records of what is there are made all the same, and
/// [`Evaluation::missing`] names the rest.
pub fn run(
    plan: &Plan,
    run: &Run<'_>,
    follow: &mut dyn Follow,
) -> Result<Evaluation, EvaluateError> {
    let coupled = |d: &&Defence| d.published.as_ref().is_some_and(|p| p.batch > 1);
    if let Some(defence) = plan.defence.iter().find(coupled).filter(|_| !run.shard.is_whole()) {
        return Err(EvaluateError::Coupled(defence.name.clone()));
    }
    settle(plan, run.folder, run.shard)?;
    let _alone = alone(run.folder)?;
    for folder in ["units", "stages"].map(|name| run.folder.join(name)) {
        std::fs::create_dir_all(&folder)
            .map_err(|e| EvaluateError::Folder { path: folder.clone(), reason: e.to_string() })?;
    }
    let mut result = Evaluation::default();
    match complete(plan, run, &mut result, follow) {
        Err(EvaluateError::TimeUp) => result.is_cut = true,
        other => other?,
    }
    examples::keep(&result, run.folder)?;
    if run.shard.is_whole() {
        let told = summary::tell(plan, run.folder)?;
        (result.records, result.missing) = (told.records, told.missing);
    }
    Ok(result)
}

/// Completes every unit of the plan.
fn complete(
    plan: &Plan,
    run: &Run<'_>,
    result: &mut Evaluation,
    follow: &mut dyn Follow,
) -> Result<(), EvaluateError> {
    let mut pace = Progress { total: plan.units(), ..Progress::default() };
    for (model_number, model) in plan.models.iter().enumerate() {
        let checkpoint = Checkpoint::open(model)?;
        checkpoint.warnings.iter().for_each(|w| follow.note(&format!("{model}: {w}")));
        for (data_number, spelling) in plan.data.iter().enumerate() {
            let number = model_number * plan.data.len() + data_number;
            let stage = stage(plan, run, &checkpoint, spelling, number)?;
            for (_, key, reason) in &stage.head.skipped {
                follow.note(&format!("skipped {key}: {reason}"));
            }
            stage_units(&stage, &mut pace, follow)?;
            if result.examples.is_empty() && plan.pictures > 0 {
                stage.examples(result)?;
            }
        }
        // Captions are compared with each other, so they are not shared out.
        if run.shard.index == 0 {
            for (place, what) in captions::of_plan(plan).into_iter().enumerate() {
                follow.unit(what.1, pace.done, pace.total);
                pace.done += 1;
                captions::complete((model_number, place), what, &checkpoint, plan, run)?;
            }
        }
    }
    Ok(())
}

/// Keeps other processes out of a run folder as long as the file is held: two that complete each
/// other's units would each see half of them. Where the system has no locks, everybody may enter.
fn alone(folder: &Path) -> Result<Option<File>, EvaluateError> {
    let path = folder.join("plan.toml");
    let refuse = |reason: String| EvaluateError::Folder { path: folder.to_owned(), reason };
    let file = File::open(&path).map_err(|e| refuse(e.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            Err(refuse("another process is at work in it; wait, or choose another".to_owned()))
        }
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Claims the folder for this plan and shard, or says in what the one it holds differs.
pub(crate) fn settle(plan: &Plan, folder: &Path, shard: Shard) -> Result<(), EvaluateError> {
    let refuse = |reason: String| EvaluateError::Folder { path: folder.to_owned(), reason };
    std::fs::create_dir_all(folder).map_err(|e| refuse(e.to_string()))?;
    let kept = folder.join("plan.toml");
    match std::fs::read_to_string(&kept) {
        Ok(text) => {
            let old = Plan::parse(&text, &kept)?;
            if let Some(field) = plan.difference(&old) {
                return Err(refuse(format!(
                    "holds the run of another plan ({field}); choose another folder"
                )));
            }
        }
        Err(_) => write_atomic(&kept, plan.to_toml().as_bytes())?,
    }
    let path = folder.join("shard");
    match std::fs::read_to_string(&path) {
        Ok(old) if old.trim() != shard.to_string() => {
            Err(refuse(format!("holds shard {}, not {shard}; choose another folder", old.trim())))
        }
        Ok(_) => Ok(()),
        Err(_) => Ok(write_atomic(&path, format!("{shard}\n").as_bytes())?),
    }
}

fn stage<'a>(
    plan: &'a Plan,
    run: &Run<'a>,
    checkpoint: &Checkpoint,
    spelling: &str,
    number: usize,
) -> Result<Stage<'a>, EvaluateError> {
    let source = clipguard_data::open(spelling, &clipguard_data::Options::default())?;
    let classes = class_names(plan, source.as_ref())?;
    let templates = template_set(&plan.templates)?;
    let classifier = Classifier::new(checkpoint, &classes, &templates, run.device)?;
    let subset = Subset::part_of(
        source.as_ref(),
        plan.samples,
        run.shard,
        &checkpoint.preprocess,
        run.device,
        run.threads,
    )?;
    check_labels(&subset, &classes, spelling)?;
    let surrogates = surrogates(plan, checkpoint, &classes, run.device)?;
    let [_, c, h, w] = subset.pixels.dims();
    let head = StageHead {
        model: classifier.name.clone(),
        dataset: spelling.to_owned(),
        weights: classifier.digest.clone(),
        prompts: classifier.head_digest.clone(),
        purifiers: purifier_files(plan, &classifier)?,
        surrogates: surrogates.iter().map(|(name, c)| (name.clone(), c.digest.clone())).collect(),
        classes,
        shape: [c, h, w],
        shard: run.shard,
        chosen: subset.chosen,
        chosen_digest: subset.chosen_digest.clone(),
        samples: subset.samples.clone(),
        skipped: subset.missing.clone(),
    };
    head.keep(run.folder, number)?;
    let (folder, until) = (run.folder, run.until);
    Ok(Stage { plan, folder, classifier, surrogates, subset, head, until })
}

/// The models that pictures are transferred from, with the same classes. Pictures are exchanged as
/// the models get them, so their sizes have to agree.
fn surrogates(
    plan: &Plan,
    own: &Checkpoint,
    classes: &[String],
    device: &Device,
) -> Result<BTreeMap<String, Classifier>, EvaluateError> {
    let templates = template_set(&plan.templates)?;
    let build = |model: &String| {
        let other = Checkpoint::open(model)?;
        let [theirs, ours] = [&other, own].map(|c| c.preprocess.resize.size);
        if theirs != ours {
            return Err(EvaluateError::OtherSize { model: model.clone(), theirs, ours });
        }
        Ok((model.clone(), Classifier::new(&other, classes, &templates, device)?))
    };
    plan.transfer_from.iter().map(build).collect()
}

/// Digests of the files the plan's purifiers and scores are read from.
fn purifier_files(
    plan: &Plan,
    classifier: &Classifier,
) -> Result<BTreeMap<String, String>, EvaluateError> {
    let defences = || plan.defences_of(&classifier.name);
    let published = defences().filter_map(|d| d.published.as_ref()).map(|p| &p.purify);
    let mut files = BTreeMap::new();
    for text in defences().map(|d| &d.purify).chain(published).flatten() {
        if let Some(digest) = classifier.purifier_file(text)? {
            files.insert(text.clone(), digest);
        }
    }
    let scores = plan.detect.iter().map(|of| &of.score);
    for text in scores {
        if let Some(digest) = classifier.score(text)?.digest() {
            files.insert(text.clone(), digest.to_owned());
        }
    }
    Ok(files)
}

/// The source's class names, or those the plan names.
pub(crate) fn class_names(plan: &Plan, source: &dyn Source) -> Result<Vec<String>, EvaluateError> {
    if plan.classes.is_empty() {
        return match source.classes() {
            Some(classes) => Ok(classes.to_vec()),
            None => Err(EvaluateError::NoLabels(source.name().to_owned())),
        };
    }
    listed_classes(&plan.classes)
}

/// Class names of a file or a built-in list.
pub(crate) fn listed_classes(name: &str) -> Result<Vec<String>, EvaluateError> {
    let path = Path::new(name);
    let list =
        if path.is_file() { ClassList::read(path)? } else { prompts::class_names(name)?.clone() };
    Ok(list.names().to_vec())
}

pub(crate) fn check_labels(
    subset: &Subset,
    classes: &[String],
    data: &str,
) -> Result<(), EvaluateError> {
    match subset.labels.iter().max().copied() {
        Some(label) if label >= classes.len() => Err(EvaluateError::TooFewClasses {
            data: data.to_owned(),
            label,
            classes: classes.len(),
        }),
        _ => Ok(()),
    }
}

/// How fast a run goes, against what was expected.
#[derive(Default)]
struct Progress {
    done: usize,
    total: usize,
    /// Seconds expected of units that are done, and the seconds they took.
    expected: f64,
    taken: f64,
    /// Seconds expected of units that are not done.
    open: f64,
}

impl Progress {
    /// Seconds left, from how the expectation has held so far.
    fn left(&self) -> Option<f64> {
        let factor = if self.expected > 0.0 { self.taken / self.expected } else { 1.0 };
        (self.open > 0.0).then_some(self.open * factor)
    }
}

/// Hands batches on with the time that is left.
struct Timed<'a> {
    follow: &'a mut dyn Follow,
    left: Option<f64>,
}

impl Follow for Timed<'_> {
    fn unit(&mut self, what: &str, done: usize, total: usize) {
        self.follow.unit(what, done, total);
    }

    fn batch(&mut self, state: &State) {
        self.follow.batch(&State { left: self.left, ..*state });
    }

    fn note(&mut self, text: &str) {
        self.follow.note(text);
    }
}

/// Completes all units of a stage.
fn stage_units(
    stage: &Stage<'_>,
    pace: &mut Progress,
    follow: &mut dyn Follow,
) -> Result<(), EvaluateError> {
    let works = schedule(stage.plan, &stage.head)?;
    let seconds = expected(stage, &works, follow)?;
    pace.open = seconds.values().sum();
    for work in &works {
        let mut alive = vec![true; stage.head.samples.len()];
        // Pictures of the undefended model are made once and belong to no defence's survivors.
        let mut all = vec![true; stage.head.samples.len()];
        for (what, task) in work.tasks() {
            follow.unit(&what, pace.done, pace.total);
            let own =
                task.on.is_none() && task.purify == work.defence.purify && task.batch.is_none();
            let counted = if own { &mut alive } else { &mut all };
            let mut timed = Timed { follow: &mut *follow, left: pace.left() };
            let taken = stage.complete(task, counted, &mut timed)?;
            if let Some(seconds) = seconds.get(&task.id(&stage.head, stage.plan.seed)) {
                pace.expected += seconds;
                pace.taken += taken;
                pace.open -= seconds;
            }
            pace.done += 1;
        }
    }
    Ok(())
}
