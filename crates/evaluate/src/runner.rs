//! From a plan to records: every defence against every attack, and the worst case over them.
//!
//! The unit of work is one attack on one defence of one model on one data source. A finished unit
//! is kept in the run folder under the digest of all it depends on, so an interrupted run goes on
//! where it stopped and ends in the same records.

use crate::{
    Check, Checks, Classification, Classifier, Defence, Digests, EvaluateError, Example, Plan,
    Record, Subset, Threat, captions, checks,
    classifier::{mode_name, template_set},
    record::{HONEST, NO_ATTACK, PUBLISHED, WORST_CASE},
    record_file::write_atomic,
    units::Outcome,
};
use burn::tensor::{Device, Tensor};
use clipguard_attack::parse;
use clipguard_data::{Source, spelling::number};
use clipguard_model::{Checkpoint, ClassList, GradientMode, Victim, checkpoint::hex, prompts};
use sha2::{Digest, Sha256};
use std::{path::Path, sync::atomic::AtomicBool};

/// What an evaluation tells while it runs.
pub trait Follow {
    /// A unit begins: what it is, and how many of how many are done.
    fn unit(&mut self, what: &str, done: usize, total: usize);
    /// Something worth a line.
    fn note(&mut self, text: &str);
}

/// The outcome of a plan.
#[derive(Default)]
pub struct Evaluation {
    /// Records in the order of the plan.
    pub records: Vec<Record>,
    /// Pictures, chosen by the hash of their keys among those the first attack changed the answer
    /// to.
    pub examples: Vec<Example>,
    /// What the examples were attacked with.
    pub examples_of: String,
}

/// One model on one data source, with everything the units need.
pub(crate) struct Stage<'a> {
    pub(crate) plan: &'a Plan,
    plan_digest: String,
    pub(crate) folder: &'a Path,
    pub(crate) classifier: Classifier,
    pub(crate) subset: Subset,
    dataset: String,
    pub(crate) stop: &'a AtomicBool,
}

/// Runs a plan in `folder`; finished units found there are not run again.
pub fn run(
    plan: &Plan,
    folder: &Path,
    device: &Device,
    threads: usize,
    follow: &mut dyn Follow,
    stop: &AtomicBool,
) -> Result<Evaluation, EvaluateError> {
    let text = plan.to_toml();
    let kept = folder.join("plan.toml");
    match std::fs::read_to_string(&kept) {
        Ok(old) if old != text => {
            return Err(EvaluateError::Folder {
                path: folder.to_owned(),
                reason: "holds the run of another plan; choose another folder".to_owned(),
            });
        }
        _ => write_atomic(&kept, text.as_bytes())?,
    }
    let mut result = Evaluation::default();
    let (mut done, total) = (0, plan.units());
    for model in &plan.models {
        let checkpoint = Checkpoint::open(model)?;
        checkpoint.warnings.iter().for_each(|w| follow.note(&format!("{model}: {w}")));
        for spelling in &plan.data {
            let source = clipguard_data::open(spelling, &clipguard_data::Options::default())?;
            let classes = class_names(plan, source.as_ref())?;
            let templates = template_set(&plan.templates)?;
            let stage = Stage {
                plan,
                plan_digest: hex(&Sha256::digest(&text)),
                folder,
                classifier: Classifier::new(&checkpoint, &classes, &templates, device)?,
                subset: Subset::of(
                    source.as_ref(),
                    plan.samples,
                    &checkpoint.preprocess,
                    device,
                    threads,
                )?,
                dataset: spelling.clone(),
                stop,
            };
            stage.check_labels()?;
            for (key, reason) in &stage.subset.skipped.first {
                follow.note(&format!("skipped {key}: {reason}"));
            }
            for defence in &plan.defence {
                stage.defence(defence, &mut result, &mut |what| {
                    follow.unit(what, done, total);
                    done += 1;
                })?;
            }
        }
        type Measure =
            fn(&Checkpoint, &str, &Plan, &Device, usize) -> Result<Record, EvaluateError>;
        let kinds: [(&[String], Measure); 2] =
            [(&plan.retrieval, captions::retrieval), (&plan.relations, captions::relations)];
        for (spellings, measure) in kinds {
            for spelling in spellings {
                follow.unit(spelling, done, total);
                done += 1;
                result.records.push(measure(&checkpoint, spelling, plan, device, threads)?);
            }
        }
    }
    crate::write_records(&folder.join("records.jsonl"), &result.records)?;
    Ok(result)
}

impl Plan {
    /// Units of work, for a progress bar.
    pub fn units(&self) -> usize {
        let of = |d: &Defence| {
            let published = usize::from(d.published.is_some()) * self.attacks.len();
            let checks = match self.checks {
                Checks::All if !self.attacks.is_empty() => checks::CATALOGUE.len(),
                _ => 0,
            };
            1 + d.gradients.len() * self.attacks.len() + published + checks
        };
        let defences: usize = self.defence.iter().map(of).sum();
        let captions = self.retrieval.len() + self.relations.len();
        self.models.len() * (self.data.len() * defences + captions)
    }
}

/// The source's class names, or those the plan names.
fn class_names(plan: &Plan, source: &dyn Source) -> Result<Vec<String>, EvaluateError> {
    if plan.classes.is_empty() {
        return match source.classes() {
            Some(classes) => Ok(classes.to_vec()),
            None => Err(EvaluateError::NoLabels(source.name().to_owned())),
        };
    }
    let path = Path::new(&plan.classes);
    let list = if path.is_file() {
        ClassList::read(path)?
    } else {
        prompts::class_names(&plan.classes)?.clone()
    };
    Ok(list.names().to_vec())
}

impl Stage<'_> {
    fn check_labels(&self) -> Result<(), EvaluateError> {
        let (label, classes) =
            (self.subset.labels.iter().max().copied(), self.classifier.head.classes.len());
        match label {
            Some(label) if label >= classes => {
                Err(EvaluateError::TooFewClasses { data: self.dataset.clone(), label, classes })
            }
            _ => Ok(()),
        }
    }

    /// All records of one defence.
    fn defence(
        &self,
        defence: &Defence,
        result: &mut Evaluation,
        begin: &mut dyn FnMut(&str),
    ) -> Result<(), EvaluateError> {
        begin(&format!("{} · clean", defence.name));
        let clean = self.classify(&self.victim(&defence.purify, None)?, &self.subset.pixels)?;
        let record = self.record(defence, NO_ATTACK, None, clean.correct);
        let base = record.share();
        result.records.push(with_metrics(record, &clean));
        for attack in &self.plan.attacks {
            self.attacked(defence, attack, base, result, begin)?;
        }
        Ok(())
    }

    /// One attack on one defence, in every way, and the worst case.
    fn attacked(
        &self,
        defence: &Defence,
        attack: &str,
        base: Option<f64>,
        result: &mut Evaluation,
        begin: &mut dyn FnMut(&str),
    ) -> Result<(), EvaluateError> {
        let undefended = defence.purify.is_empty();
        let mut worst = vec![true; self.subset.len()];
        let (mut parts, mut direct) = (Vec::new(), vec![true; self.subset.len()]);
        let (mut exact, mut others) = (None, vec![true; self.subset.len()]);
        let mut zero = 0f32;
        let transferred = match defence.transfer && !undefended {
            true => Some(self.unit(&[], None, attack, None)?.1),
            false => None,
        };
        for mode in &defence.gradients {
            begin(&format!("{} · {attack} · {}", defence.name, mode_name(*mode)));
            let is_exact = *mode == GradientMode::Exact;
            let mode = (!undefended).then_some(*mode);
            let (outcome, _) = self.unit(&defence.purify, mode, attack, None)?;
            match is_exact {
                true => exact = Some(broken(&outcome.right)),
                false => narrow(&mut others, &outcome.right),
            }
            narrow(&mut direct, &outcome.right);
            zero = zero.max(outcome.zero_gradients);
            parts.push((mode.map(mode_name), attack.to_owned(), outcome));
        }
        narrow(&mut worst, &direct);
        let mut found = vec![checks::zero_gradients(f64::from(zero))];
        if let Some(exact) = exact.filter(|_| !undefended && defence.gradients.len() > 1) {
            found.push(checks::gradient_modes(&exact, &broken(&others)));
        }
        if let Some(pixels) = &transferred {
            let victim = self.victim(&defence.purify, None)?;
            let right = self.classify(&victim, pixels)?.right(&self.subset.labels);
            found.push(checks::transfer(&broken(&direct), &broken(&right)));
            narrow(&mut worst, &right);
            let outcome = Outcome { right, zero_gradients: 0.0, flags: Vec::new(), seconds: 0.0 };
            parts.push((None, format!("transfer of {attack}"), outcome));
        }
        for (gradient, name, outcome) in &parts {
            let mut record = self.record(defence, name, *gradient, count(&outcome.right));
            record.threat = Some(threat(attack));
            (record.base, record.seconds) = (base, Some(outcome.seconds));
            if !outcome.flags.is_empty() {
                record.extra.insert("flags".to_owned(), outcome.flags.clone().into());
            }
            result.records.push(record);
        }
        // The costly checks look at the number the plan is about: its first radius.
        if self.plan.checks == Checks::All && self.plan.attacks.first().is_some_and(|a| a == attack)
        {
            let costly = self.examined(defence, std::slice::from_ref(&attack.to_owned()), begin)?;
            found = checks::joined(found, costly);
        }
        let mut record = self.record(defence, WORST_CASE, None, count(&worst)).judged(found);
        record.threat = Some(threat(attack));
        record.base = base;
        result.records.push(record);
        if let Some(published) = &defence.published {
            begin(&format!("{} · {attack} · published protocol", defence.name));
            let record = self.published(defence, published, attack, transferred.as_ref())?;
            result.records.push(Record { base, ..record });
        }
        if result.examples.is_empty() && self.plan.pictures > 0 {
            self.examples(defence, attack, result)?;
        }
        Ok(())
    }

    fn published(
        &self,
        defence: &Defence,
        published: &crate::Published,
        attack: &str,
        transferred: Option<&Tensor<4>>,
    ) -> Result<Record, EvaluateError> {
        let (mode, batch) = (Some(published.gradient), Some(published.batch));
        let (outcome, _) = self.unit(&published.purify, mode, attack, batch)?;
        let mut found: Vec<Check> = vec![checks::zero_gradients(f64::from(outcome.zero_gradients))];
        if let Some(pixels) = transferred {
            let victim = self.victim(&published.purify, None)?;
            let right = self.classify_by(&victim, pixels, published.batch)?;
            let right = right.right(&self.subset.labels);
            found.push(checks::transfer(&broken(&outcome.right), &broken(&right)));
        }
        let gradient = Some(mode_name(published.gradient));
        let mut record = self.record(defence, attack, gradient, count(&outcome.right));
        record.threat = Some(threat(attack));
        record.protocol = PUBLISHED.to_owned();
        record.seconds = Some(outcome.seconds);
        Ok(record.judged(found))
    }

    pub(crate) fn victim(
        &self,
        purify: &[String],
        gradient: Option<GradientMode>,
    ) -> Result<impl Victim + use<>, EvaluateError> {
        self.classifier.defended(purify, gradient)
    }

    pub(crate) fn classify(
        &self,
        victim: &dyn Victim,
        pixels: &Tensor<4>,
    ) -> Result<Classification, EvaluateError> {
        self.classify_by(victim, pixels, self.plan.batch)
    }

    fn classify_by(
        &self,
        victim: &dyn Victim,
        pixels: &Tensor<4>,
        batch: usize,
    ) -> Result<Classification, EvaluateError> {
        let logits = self.classifier.logits(victim, pixels, &self.subset.keys, batch);
        Ok(Classification::new(&logits, victim.classes(), &self.subset.labels)?)
    }

    fn record(
        &self,
        defence: &Defence,
        attack: &str,
        gradient: Option<&str>,
        correct: usize,
    ) -> Record {
        Record {
            dataset: self.dataset.clone(),
            model: self.classifier.name.clone(),
            pretrained: self.classifier.digest.chars().take(12).collect(),
            defence: defence.name.clone(),
            attack: attack.to_owned(),
            protocol: HONEST.to_owned(),
            gradient: gradient.map(str::to_owned),
            digests: Digests {
                model: Some(self.classifier.digest.clone()),
                data: Some(self.subset.digest.clone()),
                head: Some(self.classifier.head_digest.clone()),
                plan: Some(self.plan_digest.clone()),
            },
            seed: Some(self.plan.seed),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Record::default()
        }
        .counted(correct, self.subset.len())
    }
}

fn with_metrics(mut record: Record, clean: &Classification) -> Record {
    record.metrics.set("acc1", clean.acc1);
    record.metrics.set("acc5", clean.acc5);
    record.metrics.set("mean_per_class_recall", clean.mean_per_class_recall);
    record
}

/// The norm and radius of an attack's spelling.
pub(crate) fn threat(attack: &str) -> Threat {
    let full = parse(attack).map(|a| a.spelling());
    let get = |key: &str| full.as_ref().ok().and_then(|s| s.get(key).map(str::to_owned));
    Threat {
        norm: get("norm").unwrap_or_else(|| "linf".to_owned()),
        eps: get("eps").and_then(|text| number(&text)),
        space: "pixels".to_owned(),
    }
}

fn narrow(alive: &mut [bool], right: &[bool]) {
    alive.iter_mut().zip(right).for_each(|(a, r)| *a &= r);
}

fn broken(right: &[bool]) -> Vec<bool> {
    right.iter().map(|r| !r).collect()
}

fn count(right: &[bool]) -> usize {
    right.iter().filter(|r| **r).count()
}
