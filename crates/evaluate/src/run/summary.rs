//! From the units of a run folder to its records. Needs neither model nor data.
//!
//! A sample is right in the worst case if it was right at the start and after every unit of the
//! budget. A unit that is not there (the time was up) is left out and named: what is missing can
//! only lower a number, never raise it.

use crate::{
    EvaluateError, Plan, Record, Threat,
    checks::{self, CATALOGUE, Case, Row},
    classifier::mode_name,
    clean::captions,
    records::against,
    records::record::{Check, Digests, HONEST, NO_ATTACK, PUBLISHED, WORST_CASE},
    records::record_file::{write_atomic, write_records},
    records::samples::{self, SampleLine},
    run::evidence::{Part, evidence},
    run::handout::hand_out,
    run::schedule::{Group, Kind, StageHead, Task, Work, schedule},
    run::unit_file::{Line, Totals, UnitFile},
};
use clipguard_attack::Flag;
use clipguard_model::{GradientMode, checkpoint::hex};
use sha2::{Digest, Sha256};
use std::path::Path;

/// What a run folder holds.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) records: Vec<Record>,
    pub(crate) samples: Vec<SampleLine>,
    /// Units that are not there.
    pub(crate) missing: Vec<String>,
}

/// Reads the units of a run and writes `records.jsonl` and `samples.jsonl`.
pub(crate) fn tell(plan: &Plan, folder: &Path) -> Result<Told, EvaluateError> {
    let mut told = Told::default();
    for (number, _) in plan.models.iter().enumerate() {
        for place in 0..plan.data.len() {
            let stage = number * plan.data.len() + place;
            match StageHead::read(folder, stage)? {
                Some(head) => Teller::new(stage, plan, folder, &head).stage(&mut told)?,
                None => told.missing.push(format!("all of {}", plan.data[place])),
            }
        }
        for (place, (_, spelling)) in captions::of_plan(plan).into_iter().enumerate() {
            let bytes = std::fs::read(captions::path(folder, number, place)).ok();
            match bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
                Some(record) => told.records.push(record),
                None => told.missing.push(spelling.to_owned()),
            }
        }
    }
    if !told.missing.is_empty() {
        let missing = serde_json::json!(told.missing);
        for record in told.records.iter_mut().filter(|r| r.attack == WORST_CASE) {
            record.extra.insert("missing".to_owned(), missing.clone());
        }
    }
    against::annotate(plan, &mut told.records, &told.samples);
    write_records(&folder.join("records.jsonl"), &told.records)?;
    write_atomic(&folder.join(samples::FILE), samples::text(&told.samples).as_bytes())?;
    Ok(told)
}

/// The complete outcome of a unit.
pub(crate) struct Unit {
    pub(crate) lines: Vec<Line>,
    pub(crate) totals: Totals,
}

impl Unit {
    fn right(&self) -> Vec<bool> {
        self.lines.iter().map(|line| line.right).collect()
    }

    fn zero_gradients(&self) -> f64 {
        self.totals.zero_gradients as f64 / self.totals.backwards.max(1) as f64
    }
}

/// Tells one stage.
pub(crate) struct Teller<'a> {
    number: usize,
    pub(crate) plan: &'a Plan,
    plan_digest: String,
    folder: &'a Path,
    head: &'a StageHead,
}

impl<'a> Teller<'a> {
    fn new(number: usize, plan: &'a Plan, folder: &'a Path, head: &'a StageHead) -> Self {
        Self { number, plan, plan_digest: hex(&Sha256::digest(plan.to_toml())), folder, head }
    }

    fn stage(&self, told: &mut Told) -> Result<(), EvaluateError> {
        for work in schedule(self.plan, self.head)? {
            for (what, task) in work.tasks() {
                if self.read(task)?.is_none() {
                    told.missing.push(what);
                }
            }
            let Some(clean) = self.read(&work.clean)? else { continue };
            let record = self.clean(&work, &clean);
            let base = record.share();
            told.records.push(record);
            let alive = |group| self.survivors(group, &clean);
            let alive: Vec<Vec<bool>> = work.groups.iter().map(alive).collect::<Result<_, _>>()?;
            for group in &work.groups {
                // What breaks a picture within a smaller radius does so within a larger one.
                let mut inside = clean.right();
                let smaller = work.groups.iter().zip(&alive);
                let smaller = smaller.filter(|(other, _)| other.threat.is_within(&group.threat));
                smaller.for_each(|(_, alive)| narrow(&mut inside, alive));
                self.group(&work, group, (&clean, &inside), base, told)?;
            }
            for of in &work.detect {
                told.records.extend(self.detected(&work, of)?);
            }
            if let Some(shifted) = &work.shift {
                told.records.extend(self.shifted(&work, shifted)?);
            }
            for (of, task) in &work.certify {
                if let Some(unit) = self.read(task)? {
                    told.records.extend(self.certified(&work, of, &unit, base));
                }
            }
        }
        Ok(())
    }

    /// A unit, if all of it is there.
    pub(crate) fn read(&self, task: &Task) -> Result<Option<Unit>, EvaluateError> {
        let stem = task.stem(self.folder, self.head, self.plan.seed);
        let file = UnitFile::open(&stem, task.picture(self.head))?;
        let whole = file.lines.len() == task.count(self.head, self.plan);
        Ok(whole.then_some(Unit { lines: file.lines, totals: file.totals }))
    }

    fn clean(&self, work: &Work<'_>, clean: &Unit) -> Record {
        let right = clean.right();
        let mut record = self.record(work, NO_ATTACK, None, count(&right));
        let n = right.len();
        let classes = self.head.classes.len();
        let five = clean.lines.iter().filter(|line| line.rank.is_some_and(|rank| rank < 5)).count();
        let acc5 = (classes >= 5 && n > 0).then(|| five as f64 / n as f64);
        let mut support = vec![(0usize, 0usize); classes];
        for (sample, right) in self.head.samples.iter().zip(&right) {
            support[sample.label].0 += 1;
            support[sample.label].1 += usize::from(*right);
        }
        let recalls: Vec<f64> = support
            .iter()
            .filter(|(all, _)| *all > 0)
            .map(|(all, hits)| *hits as f64 / *all as f64)
            .collect();
        let mean = recalls.iter().sum::<f64>() / recalls.len().max(1) as f64;
        record.metrics.set("acc5", acc5);
        record.metrics.set("mean_per_class_recall", (!recalls.is_empty()).then_some(mean));
        record
    }

    /// Which pictures are right after every attack of a budget.
    fn survivors(&self, group: &Group, clean: &Unit) -> Result<Vec<bool>, EvaluateError> {
        let mut alive = clean.right();
        for task in group.counted() {
            if let Some(unit) = self.read(task)? {
                narrow(&mut alive, &unit.right());
            }
        }
        Ok(alive)
    }

    /// All records of one budget on one defence; `inside` says which pictures smaller radii of the
    /// same norm have left.
    fn group(
        &self,
        work: &Work<'_>,
        group: &Group,
        (clean, inside): (&Unit, &[bool]),
        base: Option<f64>,
        told: &mut Told,
    ) -> Result<(), EvaluateError> {
        let mut parts: Vec<(Part, Unit)> = Vec::new();
        let n = self.head.samples.len();
        let (mut exact, mut others) = (vec![true; n], vec![true; n]);
        let mut transferred: Option<Vec<bool>> = None;
        for of in &group.attacks {
            for (mode, task) in &of.direct {
                let Some(unit) = self.read(task)? else { continue };
                let is_exact = mode.is_none_or(|mode| mode == GradientMode::Exact);
                narrow(if is_exact { &mut exact } else { &mut others }, &unit.right());
                let gradient = mode.map(mode_name);
                let pictures = Some(task.stem(self.folder, self.head, self.plan.seed));
                let name = of.attack.clone();
                parts.push((Part { name, gradient, direct: true, pictures }, unit));
            }
            if let Some(unit) =
                of.transfer.as_ref().map(|task| self.read(task)).transpose()?.flatten()
            {
                narrow(transferred.get_or_insert_with(|| vec![true; n]), &unit.right());
                let name = format!("transfer of {}", of.attack);
                let made = of.bare.as_ref();
                let pictures = made.map(|task| task.stem(self.folder, self.head, self.plan.seed));
                parts.push((Part { name, gradient: None, direct: false, pictures }, unit));
            }
        }
        for (attack, (model, made, task)) in group.surrogates() {
            let Some(unit) = self.read(task)? else { continue };
            narrow(transferred.get_or_insert_with(|| vec![true; n]), &unit.right());
            let name = format!("transfer of {attack} from {model}");
            let pictures = Some(made.stem(self.folder, self.head, self.plan.seed));
            parts.push((Part { name, gradient: None, direct: false, pictures }, unit));
        }
        for task in &group.foreign {
            let Some(unit) = self.read(task)? else { continue };
            if let Kind::Foreign { file } = &task.kind {
                let name = format!("handed in: {file}");
                parts.push((Part { name, gradient: None, direct: false, pictures: None }, unit));
            }
        }
        if parts.is_empty() {
            return Ok(());
        }
        for (part, unit) in &parts {
            let mut record = self.record(work, &part.name, part.gradient, count(&unit.right()));
            (record.threat, record.base) = (Some(group.threat.clone()), base);
            annotate(&mut record, &unit.totals);
            told.records.push(record);
        }
        let mut found = self.cheap(work, &parts, &exact, &others, transferred.as_deref());
        found = checks::joined(found, self.costly(group)?);
        let mut worst = clean.right();
        parts.iter().for_each(|(_, unit)| narrow(&mut worst, &unit.right()));
        let own = count(&worst);
        narrow(&mut worst, inside);
        let by_smaller = own - count(&worst);
        let mut record = self.record(work, WORST_CASE, None, count(&worst)).judged(found);
        (record.threat, record.base) = (Some(group.threat.clone()), base);
        record.extra.extend(evidence(self.head, clean, &parts));
        if by_smaller > 0 {
            record.extra.insert("broken_by_smaller_radii_alone".to_owned(), by_smaller.into());
        }
        told.samples.extend(self.samples(work, &group.threat, clean, &worst));
        if work.groups.first().is_some_and(|first| first.threat == group.threat) {
            let what = (self.number, work.defence.name.as_str(), self.plan.seed);
            hand_out(self.folder, what, self.head, clean, &parts)?;
        }
        told.records.push(record);
        for of in &group.attacks {
            if let Some((direct, transfer)) = &of.published
                && let Some(unit) = self.read(direct)?
            {
                let transfer = transfer.as_ref().map(|task| self.read(task)).transpose()?.flatten();
                let record = self.published(work, &of.attack, &unit, transfer.as_ref());
                told.records.push(Record { base, threat: Some(group.threat.clone()), ..record });
            }
        }
        Ok(())
    }

    /// The checks that follow from the units.
    fn cheap(
        &self,
        work: &Work<'_>,
        parts: &[(Part, Unit)],
        exact: &[bool],
        others: &[bool],
        transferred: Option<&[bool]>,
    ) -> Vec<Check> {
        let direct = || parts.iter().filter(|(part, _)| part.direct).map(|(_, unit)| unit);
        let mut found = Vec::new();
        if direct().any(|unit| unit.totals.backwards > 0) {
            let zero = direct().map(Unit::zero_gradients).fold(0.0, f64::max);
            found.push(checks::zero_gradients(zero));
        }
        let gradients = &work.defence.gradients;
        let several = gradients.len() > 1 && gradients.contains(&GradientMode::Exact);
        if several && !work.defence.purify.is_empty() {
            found.push(checks::gradient_modes(&inverse(exact), &inverse(others)));
        }
        if let Some(transferred) = transferred {
            let mut all = exact.to_vec();
            narrow(&mut all, others);
            found.push(checks::transfer(&inverse(&all), &inverse(transferred)));
        }
        found
    }

    /// The checks that were measured.
    fn costly(&self, group: &Group) -> Result<Vec<Check>, EvaluateError> {
        let case = Case {
            classes: self.head.classes.len(),
            attacks: group.attacks.iter().map(|of| of.attack.clone()).collect(),
        };
        let mut found = Vec::new();
        for task in &group.checks {
            let Kind::Check { id, .. } = task.kind else { continue };
            let probe = CATALOGUE.iter().find(|probe| probe.id() == id);
            if let (Some(unit), Some(probe)) = (self.read(task)?, probe) {
                let row =
                    |line: &Line| Row { values: line.row.clone(), reason: line.reason.clone() };
                let rows: Vec<Row> = unit.lines.iter().map(row).collect();
                found.push(probe.judge(&case, &rows));
            }
        }
        Ok(found)
    }

    fn published(
        &self,
        work: &Work<'_>,
        attack: &str,
        unit: &Unit,
        transfer: Option<&Unit>,
    ) -> Record {
        let gradient = work.defence.published.as_ref().map(|p| mode_name(p.gradient));
        let mut found = vec![checks::zero_gradients(unit.zero_gradients())];
        if let Some(transfer) = transfer {
            found.push(checks::transfer(&inverse(&unit.right()), &inverse(&transfer.right())));
        }
        let mut record = self.record(work, attack, gradient, count(&unit.right()));
        record.protocol = PUBLISHED.to_owned();
        annotate(&mut record, &unit.totals);
        record.judged(found)
    }

    fn samples(
        &self,
        work: &Work<'_>,
        threat: &Threat,
        clean: &Unit,
        worst: &[bool],
    ) -> Vec<SampleLine> {
        let lines = self.head.samples.iter().zip(&clean.lines).zip(worst);
        lines
            .map(|((sample, clean), robust)| SampleLine {
                model: self.head.model.clone(),
                dataset: self.head.dataset.clone(),
                defence: work.defence.name.clone(),
                norm: threat.norm.clone(),
                eps: threat.eps,
                sample: sample.key.clone(),
                label: sample.label,
                pred: clean.pred,
                clean: clean.right,
                robust: *robust,
            })
            .collect()
    }

    pub(crate) fn record(
        &self,
        work: &Work<'_>,
        attack: &str,
        gradient: Option<&str>,
        correct: usize,
    ) -> Record {
        let head = self.head;
        Record {
            dataset: head.dataset.clone(),
            model: head.model.clone(),
            pretrained: head.weights.chars().take(12).collect(),
            defence: work.defence.name.clone(),
            attack: attack.to_owned(),
            protocol: HONEST.to_owned(),
            gradient: gradient.map(str::to_owned),
            digests: Digests {
                model: Some(head.weights.clone()),
                data: Some(head.data_digest()),
                head: Some(head.prompts.clone()),
                plan: Some(self.plan_digest.clone()),
            },
            seed: Some(self.plan.seed),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Record::default()
        }
        .counted(correct, head.samples.len())
    }
}

/// Cost and flags of a unit. Times are left out: they differ from run to run.
pub(crate) fn annotate(record: &mut Record, totals: &Totals) {
    record.extra.insert("forwards".to_owned(), totals.forwards.into());
    record.extra.insert("backwards".to_owned(), totals.backwards.into());
    if !totals.flags.is_empty() {
        let words = |flag: &serde_json::Value| {
            let known: Result<Flag, _> = serde_json::from_value(flag.clone());
            known.map_or_else(|_| flag.to_string(), |flag| flag.to_string())
        };
        let words: Vec<String> = totals.flags.iter().map(words).collect();
        record.extra.insert("flags".to_owned(), words.into());
    }
}

fn narrow(alive: &mut [bool], right: &[bool]) {
    alive.iter_mut().zip(right).for_each(|(a, r)| *a &= r);
}

fn inverse(right: &[bool]) -> Vec<bool> {
    right.iter().map(|right| !right).collect()
}

fn count(right: &[bool]) -> usize {
    right.iter().filter(|right| **right).count()
}
