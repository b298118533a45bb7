//! Run folders.

use super::Section;
use crate::failure::Failure;
use clipguard_evaluate::read_records;
use clipguard_model::Container;
use clipguard_train::Recipe;
use serde_json::{Value, json};
use std::{
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// The end of a metrics file in which its last line lies.
const TAIL: u64 = 64 << 10;

/// A training run, or an evaluation.
pub(super) fn section(folder: &Path) -> Result<Section, Failure> {
    let records = folder.join("records.jsonl");
    if records.is_file() {
        let mut section = Section::new("evaluation run");
        let records =
            read_records(&records).map_err(|error| Failure::Refused(error.to_string()))?;
        section.fact("records", records.len() as u64);
        return Ok(section);
    }
    // An evaluation that is under way, or a shard, which has no records of its own.
    if let Ok(shard) = std::fs::read_to_string(folder.join("shard")) {
        let mut section = Section::new("evaluation run, not finished or a part");
        section.fact("shard", shard.trim());
        return Ok(section);
    }
    let plan = folder.join("plan.toml");
    let text = std::fs::read_to_string(&plan).map_err(|error| Failure::reading(&plan, &error))?;
    let recipe = Recipe::parse(&text, &plan)?;
    let mut section = Section::new("training run");
    section.fact("objective", recipe.objective.as_str());
    section.fact("model", recipe.model.as_str());
    section.fact("data", recipe.data.as_str());
    let state = folder.join("trainer.safetensors");
    let done = if state.is_file() { steps(&state)? } else { 0 };
    section.told(
        "steps",
        json!({ "done": done, "of": recipe.steps }),
        format!("{done} of {}, {} pairs each", recipe.steps, recipe.batch),
    );
    if let Some(last) = last_line(&folder.join("metrics.jsonl"))? {
        let map = last.as_object().cloned().unwrap_or_default();
        let words: Vec<String> = map.iter().map(|(key, value)| format!("{key} {value}")).collect();
        section.told("last metrics", last, words.join(", "));
    }
    let checkpoint = folder.join("checkpoint");
    let (finished, text) = match checkpoint.is_dir() {
        true => (true, format!("yes; the model is `{}`", checkpoint.display())),
        false => (false, format!("no; `clipguard train --resume {}` goes on", folder.display())),
    };
    section.told("finished", finished, text);
    Ok(section)
}

/// Steps done, from the state's header.
fn steps(state: &Path) -> Result<u64, Failure> {
    let state_file = Container::open(state)?;
    let info = state_file.metadata.get("clipguard");
    let info: Option<Value> = info.and_then(|text| serde_json::from_str(text).ok());
    info.and_then(|info| info["step"].as_u64()).ok_or_else(|| {
        let reason = "is no state of training: it does not say its step";
        Failure::Refused(format!("{}: {reason}", state.display()))
    })
}

/// The last line of a file of JSON lines, if there is one.
fn last_line(path: &Path) -> Result<Option<Value>, Failure> {
    if !path.is_file() {
        return Ok(None);
    }
    let io = |error: std::io::Error| Failure::reading(path, &error);
    let mut file = std::fs::File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL))).map_err(io)?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).map_err(io)?;
    let text = String::from_utf8_lossy(&tail);
    Ok(text.lines().rev().find_map(|line| serde_json::from_str(line).ok()))
}
