//! PyTorch's former format: five pickles, then the storages one after the other.

use super::{
    Index, Refusal,
    input::Input,
    pickle::{self, Context, Tree, Value},
    storage::Storage,
    torch::{self, Calls, Reference},
};
use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
};

/// 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

pub(super) fn index(file: &mut File, size: u64) -> Result<Index, Refusal> {
    let mut reader = BufReader::new(file);
    let mut left = size;
    let mut next = |name| pickle_of(&mut reader, &mut left, name);
    let magic = next("the magic number")?;
    if !matches!(magic.get(magic.root), Value::Long(bytes) if **bytes == MAGIC) {
        let reason = "a pickle without the magic number of a torch file";
        return Err(Refusal::new("not_a_checkpoint", reason));
    }
    let version = next("the protocol version")?;
    if version.int(version.root) != Some(1001) {
        let reason = "the protocol version is not 1001";
        return Err(Refusal::new("unsupported_protocol", reason));
    }
    let system = next("the system information")?;
    let little = system.lookup(system.root, "little_endian");
    if little.and_then(|id| system.int(id)) != Some(1) {
        let reason = "written on a big-endian machine (`little_endian` is not true)";
        return Err(Refusal::new("byte_order", reason));
    }
    let object = next("the object")?;
    let keys = next("the list of storages")?;
    let found = torch::state_dict(&object, &Calls, "the object")?;
    let types = torch::storage_types(&object);
    let mut at = size - left;
    let mut places = HashMap::new();
    for id in keys.items(keys.root).unwrap_or_default() {
        let Some(key) = keys.text(*id) else {
            return Err(Refusal::new("bad_pickle", "the key of a storage is no text"));
        };
        let shown = clipguard_data::shown(key);
        let Some(dtype) = types.get(key) else {
            let reason = format!("storage `{shown}` belongs to nothing: its size is unknown");
            return Err(Refusal::new("bad_pickle", reason));
        };
        let count = count(&mut reader, &shown, &mut at, size)?;
        places.insert(key.to_owned(), (at, count));
        let end = count.checked_mul(dtype.size()).and_then(|bytes| at.checked_add(bytes));
        at = end.filter(|end| *end <= size).ok_or_else(|| {
            let reason =
                format!("storage `{shown}` announces {count} elements, the file ends before");
            Refusal::new("truncated", reason)
        })?;
        let broken = |e: std::io::Error| Refusal::new("truncated", e.to_string());
        reader.seek(SeekFrom::Start(at)).map_err(broken)?;
    }
    assemble(found, &places)
}

/// One of consecutive pickles.
pub(super) fn pickle_of<R: Read>(
    reader: &mut R,
    left: &mut u64,
    name: &'static str,
) -> Result<Tree, Refusal> {
    let mut input = Input::new(reader, *left, name);
    let tree = pickle::read(&mut input, Context::Saved);
    *left = input.left();
    tree
}

/// Reads the number of elements that stands before a storage.
fn count(reader: &mut impl Read, key: &str, at: &mut u64, size: u64) -> Result<u64, Refusal> {
    let mut bytes = [0; 8];
    if *at + 8 > size || reader.read_exact(&mut bytes).is_err() {
        return Err(Refusal::new("truncated", format!("storage `{key}` is missing")));
    }
    *at += 8;
    let count = i64::from_le_bytes(bytes);
    u64::try_from(count).map_err(|_| {
        Refusal::new("negative", format!("storage `{key}` announces {count} elements"))
    })
}

/// Gives every tensor the place of its storage: `places` holds start and elements by key.
pub(super) fn assemble(
    found: torch::Found,
    places: &HashMap<String, (u64, u64)>,
) -> Result<Index, Refusal> {
    let (mut numbers, mut storages) = (HashMap::new(), Vec::new());
    let mut tensors = std::collections::BTreeMap::new();
    for (name, mut tensor) in found.tensors {
        let Reference { key, dtype, elements, first } = tensor.storage;
        let shown = clipguard_data::shown(&name);
        let Some((start, count)) = places.get(&key).copied() else {
            let reason = format!("tensor `{shown}` lies in storage `{key}`, which is missing");
            return Err(Refusal::new("missing_record", reason));
        };
        if first.checked_add(elements).is_none_or(|end| end > count) {
            let reason = format!(
                "tensor `{shown}`: its storage claims {elements} elements, `{key}` has {count}"
            );
            return Err(Refusal::new("short_storage", reason));
        }
        tensor.layout.storage = *numbers.entry((key.clone(), dtype)).or_insert_with(|| {
            storages.push(Storage { name: key, dtype, start, elements: count, checksum: None });
            storages.len() - 1
        });
        tensors.insert(name, (tensor.entry, tensor.layout));
    }
    Ok(Index { storages, tensors, warnings: found.warnings, metadata: Default::default() })
}
