//! PyTorch's zip archive: `TOP/data.pkl` and `TOP/data/KEY`.

use super::{
    Index, Refusal,
    input::Input,
    pickle::{self, Context},
    storage::Storage,
    torch::{self, Calls, Found},
    zip::{self, Directory, Member},
};
use std::{collections::HashMap, fs::File, io::Cursor};

/// Largest pickle of an archive, 512 MB.
const MAX_PICKLE: u64 = 512 << 20;

pub(super) fn index(file: &mut File, size: u64) -> Result<Index, Refusal> {
    let directory = zip::directory(file, size)?;
    let top = top_folder(&directory)?;
    for (name, member) in &directory {
        if let Some(key) = name.strip_prefix(&format!("{top}/data/")) {
            stored(&format!("data/{key}"), member)?;
        }
    }
    if let Some(order) = directory.get(&format!("{top}/byteorder")) {
        let name = format!("{top}/byteorder");
        let order = String::from_utf8_lossy(&record(file, &name, order)?).trim().to_owned();
        if order != "little" {
            let reason = format!("written on a {}-endian machine", clipguard_data::shown(&order));
            return Err(Refusal::new("byte_order", reason));
        }
    }
    let script = directory.contains_key(&format!("{top}/constants.pkl"))
        || directory.keys().any(|name| name.starts_with(&format!("{top}/code/")));
    let context = if script { Context::Script } else { Context::Saved };
    let mut warnings = Vec::new();
    let mut tree_of = |name: &'static str| {
        let path = format!("{top}/{name}");
        let Some(member) = directory.get(&path) else { return Ok(None) };
        let bytes = record(file, &path, member)?;
        let mut input = Input::new(Cursor::new(&bytes), bytes.len() as u64, name);
        let tree = pickle::read(&mut input, context)?;
        if input.left() > 0 {
            let left = input.left();
            warnings.push(format!("`{name}` goes on for {left} bytes after its end: not read"));
        }
        Ok(Some(tree))
    };
    // Read for what it refers to; nothing in it is needed.
    tree_of("constants.pkl")?;
    let Some(tree) = tree_of("data.pkl")? else { return Err(no_pickle()) };
    let found = match script {
        true => torch::script(&tree, &Calls, "data.pkl")?,
        false => torch::state_dict(&tree, &Calls, "data.pkl")?,
    };
    let mut index = place(found, &directory, &top)?;
    warnings.append(&mut index.warnings);
    index.warnings = warnings;
    if script {
        index.metadata.insert("torchscript".to_owned(), String::new());
    }
    Ok(index)
}

fn no_pickle() -> Refusal {
    Refusal::new("not_a_checkpoint", "a zip archive without `data.pkl`")
}

/// The one folder that holds `data.pkl`.
fn top_folder(directory: &Directory) -> Result<String, Refusal> {
    let mut tops = directory
        .keys()
        .filter_map(|name| name.strip_suffix("/data.pkl"))
        .filter(|top| !top.contains('/'));
    match (tops.next(), tops.next()) {
        (Some(top), None) => Ok(top.to_owned()),
        (None, _) => Err(no_pickle()),
        (Some(a), Some(b)) => {
            let [a, b] = [a, b].map(clipguard_data::shown);
            let reason = format!("`data.pkl` stands in two folders, `{a}` and `{b}`");
            Err(Refusal::new("ambiguous_archive", reason))
        }
    }
}

/// The bytes of a small record.
fn record(file: &mut File, name: &str, member: &Member) -> Result<Vec<u8>, Refusal> {
    stored(name, member)?;
    if member.size > MAX_PICKLE {
        let reason = format!("record `{name}` has {} bytes, at most {MAX_PICKLE}", member.size);
        return Err(Refusal::new("too_large", reason));
    }
    zip::content(file, name, member)
}

fn stored(name: &str, member: &Member) -> Result<(), Refusal> {
    if member.stored {
        return Ok(());
    }
    let name = clipguard_data::shown(name);
    let reason = format!("record `{name}` is compressed: torch stores, only a bomb is compressed");
    Err(Refusal::new("compressed_record", reason))
}

/// Gives every tensor the record its storage lies in.
fn place(found: Found, directory: &Directory, top: &str) -> Result<Index, Refusal> {
    let mut numbers = HashMap::new();
    let mut storages: Vec<Storage> = Vec::new();
    let mut tensors = std::collections::BTreeMap::new();
    for (name, mut tensor) in found.tensors {
        let shown = clipguard_data::shown(&name);
        let reference = tensor.storage;
        let record = format!("data/{}", reference.key);
        let member = directory.get(&format!("{top}/{record}")).ok_or_else(|| {
            let reason = format!("tensor `{shown}` lies in `{record}`, which the archive lacks");
            Refusal::new("missing_record", reason)
        })?;
        let needed = reference.elements.checked_mul(reference.dtype.size());
        if needed.is_none_or(|bytes| bytes > member.size) {
            let reason = format!(
                "tensor `{shown}`: its storage claims {} elements of {}, `{record}` has {} bytes",
                reference.elements,
                reference.dtype.name(),
                member.size
            );
            return Err(Refusal::new("short_storage", reason));
        }
        let key = (reference.key.clone(), reference.dtype);
        tensor.layout.storage = *numbers.entry(key).or_insert_with(|| {
            storages.push(Storage {
                name: record.clone(),
                dtype: reference.dtype,
                start: member.start,
                elements: member.size / reference.dtype.size(),
                checksum: Some((member.size, member.crc)),
            });
            storages.len() - 1
        });
        tensors.insert(name, (tensor.entry, tensor.layout));
    }
    let (warnings, metadata) = (found.warnings, Default::default());
    Ok(Index { storages, tensors, warnings, metadata })
}
