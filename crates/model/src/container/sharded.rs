//! Shards: several files and an index that says which tensor is where.

use super::{Container, Format, Refusal, strict};
use crate::ModelError;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

pub(super) fn open(path: &Path) -> Result<Container, ModelError> {
    let refuse = |code, reason: String| Refusal::new(code, reason).at(path);
    let bytes =
        std::fs::read(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
    let index = strict(&bytes, "the index").map_err(|r| r.at(path))?;
    let Some(Value::Object(map)) = index.get("weight_map") else {
        return Err(refuse("bad_json", "the index has no `weight_map`".to_owned()));
    };
    let mut shards: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, file) in map {
        let file = file.as_str().unwrap_or_default();
        let shown = clipguard_data::shown(file);
        let plain = !file.is_empty() && !file.contains(['/', '\\', '\0', ':']) && file != "..";
        if !plain {
            let reason = format!("a shard called `{shown}`: shards lie beside their index");
            return Err(refuse("bad_name", reason));
        }
        shards.entry(file.to_owned()).or_default().insert(name.clone());
    }
    let mut whole = Container {
        path: path.to_owned(),
        format: Format::Sharded,
        entries: BTreeMap::new(),
        warnings: Vec::new(),
        metadata: BTreeMap::new(),
        parts: Vec::new(),
    };
    for (file, names) in shards {
        let place = path.with_file_name(&file);
        if !place.is_file() {
            let reason = format!("the shard `{}` is not there", clipguard_data::shown(&file));
            return Err(refuse("missing_file", reason));
        }
        let shard = Container::open(&place)?;
        if let Some(name) = names.iter().find(|name| !shard.entries.contains_key(*name)) {
            let name = clipguard_data::shown(name);
            let reason = format!("`{name}` should be in `{file}` and is not");
            return Err(refuse("missing_key", reason));
        }
        for (name, entry) in shard.entries {
            if !names.contains(&name) {
                let shown = clipguard_data::shown(&name);
                let (code, reason) = match map.contains_key(&name) {
                    true => ("duplicate_key", format!("`{shown}` stands in two shards")),
                    false => {
                        ("unexpected_key", format!("`{shown}` in `{file}` is not in the index"))
                    }
                };
                return Err(refuse(code, reason));
            }
            whole.entries.insert(name, entry);
        }
        whole.warnings.extend(shard.warnings);
        whole.parts.extend(shard.parts);
    }
    Ok(whole)
}
