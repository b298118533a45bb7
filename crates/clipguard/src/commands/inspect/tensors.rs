//! Safetensors files that say of no architecture they belong to.

use super::{Section, bytes, model};
use crate::{failure::Failure, tensor_file::Header};
use clipguard_evaluate::report::{Cell, Table};
use clipguard_model::{Architecture, config::architecture_names};
use serde_json::{Value, json};
use std::path::Path;

/// Tensors that are shown, the largest first.
const SHOWN: usize = 8;
/// Metadata is shown up to so many characters a key.
const LONGEST: usize = 60;

/// What the header tells; the numbers are not read.
pub(super) fn section(path: &Path) -> Result<Section, Failure> {
    let header = Header::read(path)?;
    let mut section = Section::new("safetensors file");
    section.told("bytes", header.size, bytes(header.size));
    section.fact("tensors", header.tensors.len() as u64);
    section.fact("numbers", header.tensors.iter().map(|t| t.count()).sum::<u64>());
    model::dtypes(&mut section, &header);
    metadata(&mut section, &header);
    let fitting: Vec<String> = architecture_names()
        .into_iter()
        .filter(|name| Architecture::named(name).is_ok_and(|a| model::fits(&header, &a).is_ok()))
        .collect();
    if let Some(first) = fitting.first() {
        let text = format!("{}; open it as `{first}@{}`", fitting.join(", "), path.display());
        section.told("fits", json!(fitting), text);
    }
    let mut largest: Vec<_> = header.tensors.iter().collect();
    largest.sort_by_key(|tensor| std::cmp::Reverse(tensor.count()));
    let mut table = Table::new("", &["largest tensors", "dtype", "shape"]);
    let mut rows = Vec::new();
    for tensor in largest.into_iter().take(SHOWN) {
        let sizes: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
        let shape = if sizes.is_empty() { "one number".to_owned() } else { sizes.join(" x ") };
        let name = clipguard_data::shown(&tensor.name);
        table.row([name, tensor.dtype.clone(), shape].map(Cell::Text).into());
        rows.push(json!({ "name": tensor.name, "dtype": tensor.dtype, "shape": tensor.shape }));
    }
    section.table = Some(("largest", table, json!(rows)));
    Ok(section)
}

fn metadata(section: &mut Section, header: &Header) {
    let cut = |text: &str| match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    let pairs: Vec<String> = header
        .metadata
        .iter()
        .map(|(key, value)| format!("{key} = {}", cut(value.as_str().unwrap_or("?"))))
        .collect();
    if !pairs.is_empty() {
        // Programs get everything but what would drown the rest.
        let keys: Vec<&String> = header.metadata.keys().collect();
        section.told("metadata", json!(keys), pairs.join(", "));
    }
    let own = header.metadata.get("clipguard").and_then(Value::as_str);
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
