//! Weight files that say of no architecture they belong to, in any container.

use super::{Section, bytes, model};
use crate::failure::Failure;
use clipguard_evaluate::report::{Cell, Table};
use clipguard_model::{
    Architecture, Container,
    config::architecture_names,
    container::{Entry, Format},
};
use serde_json::{Value, json};
use std::path::Path;

/// Tensors that are shown, the largest first.
const SHOWN: usize = 8;
/// Metadata is shown up to so many characters a key.
const LONGEST: usize = 60;

/// What the index tells; the numbers are not read.
pub(super) fn section(path: &Path) -> Result<Section, Failure> {
    let container = Container::open(path)?;
    let mut section = Section::new(match container.format {
        Format::Safetensors => "safetensors file".to_owned(),
        format => format.to_string(),
    });
    let size = model::size(&container)?;
    let count = |entry: &Entry| entry.shape.iter().map(|n| *n as u64).product::<u64>();
    section.told("bytes", size, bytes(size));
    section.fact("tensors", container.entries.len() as u64);
    section.fact("numbers", container.entries.values().map(count).sum::<u64>());
    model::dtypes(&mut section, &container);
    metadata(&mut section, &container);
    section.warnings.clone_from(&container.warnings);
    let fitting: Vec<String> = architecture_names()
        .into_iter()
        .filter(|name| Architecture::named(name).is_ok_and(|a| container.fits(&a).is_ok()))
        .collect();
    if let Some(first) = fitting.first() {
        let text = format!("{}; open it as `{first}@{}`", fitting.join(", "), path.display());
        section.told("fits", json!(fitting), text);
    }
    let mut largest: Vec<_> = container.entries.iter().collect();
    largest.sort_by_key(|(_, entry)| std::cmp::Reverse(count(entry)));
    let mut table = Table::new("", &["largest tensors", "dtype", "shape"]);
    let mut rows = Vec::new();
    for (name, entry) in largest.into_iter().take(SHOWN) {
        let sizes: Vec<String> = entry.shape.iter().map(usize::to_string).collect();
        let shape = if sizes.is_empty() { "one number".to_owned() } else { sizes.join(" x ") };
        let dtype = entry.dtype.name().to_owned();
        table.row([clipguard_data::shown(name), dtype.clone(), shape].map(Cell::Text).into());
        rows.push(json!({ "name": name, "dtype": dtype, "shape": entry.shape }));
    }
    section.table = Some(("largest", table, json!(rows)));
    Ok(section)
}

fn metadata(section: &mut Section, container: &Container) {
    let cut = |text: &str| match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    let pairs: Vec<String> =
        container.metadata.iter().map(|(key, value)| format!("{key} = {}", cut(value))).collect();
    if !pairs.is_empty() {
        // Programs get everything but what would drown the rest.
        let keys: Vec<&String> = container.metadata.keys().collect();
        section.told("metadata", json!(keys), pairs.join(", "));
    }
    let own = container.metadata.get("clipguard");
    let own: Option<Value> = own.and_then(|text| serde_json::from_str(text).ok());
    let Some(own) = own else { return };
    if let Some(keys) = own["keys"].as_array() {
        section.kind = "embeddings".to_owned();
        section.fact("model", own["model"].as_str().unwrap_or("?"));
        section.fact("model sha256", own["digest"].as_str().unwrap_or("?"));
        section.fact("pictures", keys.len() as u64);
        section.fact("texts", own["texts"].as_array().map_or(0, Vec::len) as u64);
        section.fact("skipped", own["skipped"]["count"].as_u64().unwrap_or(0));
    } else if let Some(step) = own["step"].as_u64() {
        section.kind = "state of a training run".to_owned();
        section.fact("steps done", step);
    }
}
