//! Shards of one plan become the run they are parts of.
//!
//! Nothing is believed: every folder must hold the same plan, model, prompts and choice of
//! samples, every sample must be there exactly once, and every unit must be finished. What comes
//! out is the folder that one machine would have left.

use crate::{
    EvaluateError, Plan, Record, Shard,
    clean::captions,
    run::examples,
    run::runner::settle,
    run::schedule::{StageHead, Task, schedule},
    run::summary,
    run::unit_file::{Totals, UnitFile},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// What a merge made.
pub struct Merged {
    /// The plan of all shards.
    pub plan: Plan,
    /// Records of the whole.
    pub records: Vec<Record>,
    /// Samples of all data sources together.
    pub samples: usize,
}

/// Merges the run folders of all shards of a plan into `out`.
pub fn merge(folders: &[PathBuf], out: &Path) -> Result<Merged, EvaluateError> {
    let plan = common_plan(folders)?;
    let stages = plan.models.len() * plan.data.len();
    let mut heads = Vec::new();
    for number in 0..stages {
        heads.push(common_head(folders, number)?);
    }
    settle(&plan, out, Shard::default())?;
    for name in ["units", "stages"] {
        let folder = out.join(name);
        std::fs::create_dir_all(&folder).map_err(|e| refuse(&folder, e.to_string()))?;
    }
    let mut samples = 0;
    for (number, (whole, parts)) in heads.iter().enumerate() {
        whole.keep(out, number)?;
        samples += whole.samples.len();
        let works = schedule(&plan, whole)?;
        let mut done = BTreeSet::new();
        for (what, task) in works.iter().flat_map(|work| work.tasks()) {
            let id = task.id(whole, plan.seed);
            if done.insert(id) {
                join(&plan, folders, (whole, parts), (&what, task), out)?;
            }
        }
    }
    carry_captions(&plan, folders, out)?;
    examples::merge(folders, plan.pictures, out)?;
    let told = summary::tell(&plan, out)?;
    Ok(Merged { plan, records: told.records, samples })
}

fn refuse(path: &Path, reason: impl Into<String>) -> EvaluateError {
    EvaluateError::Folder { path: path.to_owned(), reason: reason.into() }
}

/// The plan that all folders share.
fn common_plan(folders: &[PathBuf]) -> Result<Plan, EvaluateError> {
    let read = |folder: &PathBuf| {
        let path = folder.join("plan.toml");
        let text = std::fs::read_to_string(&path)
            .map_err(|_| refuse(folder, "not a run folder (no `plan.toml` in it)"))?;
        Plan::parse(&text, &path)
    };
    let Some((first, others)) = folders.split_first() else {
        return Err(refuse(Path::new("."), "no folders to merge"));
    };
    let plan = read(first)?;
    for folder in others {
        if let Some(field) = read(folder)?.difference(&plan) {
            let first = first.display();
            return Err(refuse(folder, format!("another plan than {first}: {field}")));
        }
    }
    Ok(plan)
}

/// The whole of one stage, and its parts in the order of the folders.
fn common_head(
    folders: &[PathBuf],
    number: usize,
) -> Result<(StageHead, Vec<StageHead>), EvaluateError> {
    let mut parts = Vec::new();
    for folder in folders {
        let head = StageHead::read(folder, number)?;
        let unfinished = "this shard has not come so far; run its command again";
        parts.push(head.ok_or_else(|| refuse(folder, unfinished))?);
    }
    let first = &parts[0];
    let mut seen: BTreeMap<u64, &PathBuf> = BTreeMap::new();
    for (part, folder) in parts.iter().zip(folders) {
        // Samples and shard are what may differ.
        let alike =
            StageHead { samples: first.samples.clone(), shard: first.shard, ..part.clone() };
        if let Some(what) = alike.difference(first) {
            let reason = format!("another {what} than {}", folders[0].display());
            return Err(refuse(folder, reason));
        }
        if part.shard.of != first.shard.of {
            let (own, other) = (part.shard, first.shard);
            return Err(refuse(
                folder,
                format!("shard {own}, but {} is {other}", folders[0].display()),
            ));
        }
        if let Some(other) = seen.insert(part.shard.index, folder) {
            let reason = format!("shard {} a second time, after {}", part.shard, other.display());
            return Err(refuse(folder, reason));
        }
    }
    let of = first.shard.of;
    let missing: Vec<String> = (0..of)
        .filter(|index| !seen.contains_key(index))
        .map(|index| Shard { index, of }.to_string())
        .collect();
    if !missing.is_empty() {
        let reason = format!("missing with it: shard {}", missing.join(", shard "));
        return Err(refuse(&folders[0], reason));
    }
    Ok((covered(&parts, &folders[0])?, parts))
}

/// Proves that the parts hold every place of the subset exactly once, and joins them in order.
fn covered(parts: &[StageHead], folder: &Path) -> Result<StageHead, EvaluateError> {
    let mut keys: BTreeMap<usize, &String> = BTreeMap::new();
    for part in parts {
        let read = part.samples.iter().map(|sample| (sample.position, &sample.key));
        let skipped = part.skipped.iter().map(|(position, key, _)| (*position, key));
        for (position, key) in read.chain(skipped) {
            if keys.insert(position, key).is_some() {
                let reason = format!("sample {key} (place {position}) is in two shards");
                return Err(refuse(folder, reason));
            }
        }
    }
    let first = &parts[0];
    let whole = keys.len() == first.chosen
        && crate::run::subset::digest_of(keys.values().copied()) == first.chosen_digest;
    if !whole {
        let reason = format!("the shards hold {} of {} samples", keys.len(), first.chosen);
        return Err(refuse(folder, reason));
    }
    let mut head = StageHead {
        shard: Shard::default(),
        samples: parts.iter().flat_map(|part| part.samples.clone()).collect(),
        skipped: parts.iter().flat_map(|part| part.skipped.clone()).collect(),
        ..first.clone()
    };
    head.samples.sort_by_key(|sample| sample.position);
    head.skipped.sort();
    Ok(head)
}

/// One unit of all shards as one unit, in the order of the subset.
fn join(
    plan: &Plan,
    folders: &[PathBuf],
    (whole, parts): (&StageHead, &[StageHead]),
    (what, task): (&str, &Task),
    out: &Path,
) -> Result<(), EvaluateError> {
    let size = task.picture(whole);
    let mut files = Vec::new();
    let mut places: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    let mut totals = Totals::default();
    for (number, (folder, part)) in folders.iter().zip(parts).enumerate() {
        let file = UnitFile::open(&task.stem(folder, part, plan.seed), size)?;
        let count = task.count(part, plan);
        if file.lines.len() != count {
            let there = file.lines.len();
            let reason = format!(
                "`{what}` is not finished ({there} of {count} samples); run the command of this shard again"
            );
            return Err(refuse(folder, reason));
        }
        for (row, (line, sample)) in file.lines.iter().zip(&part.samples).enumerate() {
            if line.sample != sample.key {
                let (found, wanted) = (&line.sample, &sample.key);
                let reason = format!("`{what}` has {found} where {wanted} belongs");
                return Err(refuse(folder, reason));
            }
            places.insert(sample.position, (number, row));
        }
        totals.add(&file.totals);
        files.push(file);
    }
    let mut joined = UnitFile::open(&task.stem(out, whole, plan.seed), size)?;
    if !joined.lines.is_empty() {
        return Ok(());
    }
    let order: Vec<(usize, usize)> = places.into_values().collect();
    let last = order.len().div_ceil(plan.batch.max(1)).saturating_sub(1);
    for (number, chunk) in order.chunks(plan.batch.max(1)).enumerate() {
        let mut pictures = Vec::new();
        for &(file, row) in chunk.iter().filter(|_| size > 0) {
            pictures.extend(files[file].pictures(row..row + 1)?);
        }
        let lines = chunk.iter().map(|&(file, row)| files[file].lines[row].clone()).collect();
        let sums = if number == last { totals.clone() } else { Totals::default() };
        joined.append(lines, &sums, &pictures)?;
    }
    Ok(())
}

/// Records of captions, which the first shard measured.
fn carry_captions(plan: &Plan, folders: &[PathBuf], out: &Path) -> Result<(), EvaluateError> {
    for model in 0..plan.models.len() {
        for (place, (_, spelling)) in captions::of_plan(plan).into_iter().enumerate() {
            let made = folders.iter().map(|folder| captions::path(folder, model, place));
            let found = made.into_iter().find(|path| path.is_file());
            let absent = format!("no shard has measured {spelling}; shard 0 does");
            let found = found.ok_or_else(|| refuse(&folders[0], absent))?;
            let bytes = std::fs::read(&found).map_err(|e| refuse(&found, e.to_string()))?;
            crate::write_atomic(&captions::path(out, model, place), &bytes)?;
        }
    }
    Ok(())
}
