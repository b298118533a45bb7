//! PyTorch's first format: a tar file with the members `pickle`, `tensors` and `storages`.

use super::{
    Index, Refusal,
    input::Input,
    legacy::{assemble, pickle_of},
    pickle::{self, Callable, Context, Id, Tree, Value},
    storage::Dtype,
    torch::{self, Described, Reference, Resolve},
};
use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
};

/// Most storages or tensors.
const MAX_ENTRIES: i64 = 100_000;

fn truncated(e: impl std::fmt::Display) -> Refusal {
    Refusal::new("truncated", format!("the tar file is cut: {e}"))
}

pub(super) fn index(file: &mut File, _size: u64) -> Result<Index, Refusal> {
    let members = members(file)?;
    let storages = storages(file, member(&members, "storages")?)?;
    let tensors = tensors(file, member(&members, "tensors")?, &storages)?;
    let (start, size) = member(&members, "pickle")?;
    file.seek(SeekFrom::Start(start)).map_err(truncated)?;
    let mut input = Input::new(&mut *file, size, "pickle");
    let tree = pickle::read(&mut input, Context::Saved)?;
    let found = torch::state_dict(&tree, &Named(tensors), "pickle")?;
    assemble(found, &storages.into_iter().map(|(key, s)| (key, (s.start, s.elements))).collect())
}

type Members = HashMap<String, (u64, u64)>;

fn members(file: &mut File) -> Result<Members, Refusal> {
    file.seek(SeekFrom::Start(0)).map_err(truncated)?;
    let mut archive = tar::Archive::new(file);
    let mut members = Members::new();
    for entry in archive.entries_with_seek().map_err(truncated)? {
        let entry = entry.map_err(truncated)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        let climbs = name.split('/').any(|part| part == "..") || name.starts_with('/');
        if climbs || !(kind.is_file() || kind.is_dir()) {
            let what = if climbs { "climbs out of the archive" } else { "is no plain file" };
            let reason = format!("member `{}` {what}", clipguard_data::shown(&name));
            return Err(Refusal::new("bad_name", reason));
        }
        let name = name.trim_start_matches("./").to_owned();
        if members.insert(name.clone(), (entry.raw_file_position(), entry.size())).is_some() {
            let reason = format!("two members are called `{}`", clipguard_data::shown(&name));
            return Err(Refusal::new("duplicate_record", reason));
        }
    }
    Ok(members)
}

fn member(members: &Members, name: &str) -> Result<(u64, u64), Refusal> {
    members.get(name).copied().ok_or_else(|| {
        Refusal::new("not_a_checkpoint", format!("a tar file without the member `{name}`"))
    })
}

/// A storage: where its elements begin, and what they are.
struct Place {
    dtype: Dtype,
    start: u64,
    elements: u64,
}

/// A member that is read from front to back.
struct Cursor<'a> {
    file: &'a mut File,
    at: u64,
    end: u64,
}

impl<'a> Cursor<'a> {
    fn new(file: &'a mut File, (start, size): (u64, u64)) -> Result<Self, Refusal> {
        file.seek(SeekFrom::Start(start)).map_err(truncated)?;
        Ok(Self { file, at: start, end: start + size })
    }

    fn pickle(&mut self, name: &'static str) -> Result<Tree, Refusal> {
        let mut left = self.end - self.at;
        let tree = pickle_of(self.file, &mut left, name);
        self.at = self.end - left;
        tree
    }

    fn count(&mut self, name: &'static str) -> Result<i64, Refusal> {
        let tree = self.pickle(name)?;
        tree.int(tree.root).filter(|n| (0..=MAX_ENTRIES).contains(n)).ok_or_else(|| {
            Refusal::new("too_large", format!("`{name}` announces no possible number of entries"))
        })
    }

    fn long(&mut self) -> Result<u64, Refusal> {
        let mut bytes = [0; 8];
        if self.at + 8 > self.end {
            return Err(truncated("a number is missing"));
        }
        self.file.read_exact(&mut bytes).map_err(truncated)?;
        self.at += 8;
        let number = i64::from_le_bytes(bytes);
        u64::try_from(number)
            .map_err(|_| Refusal::new("negative", format!("a size or offset is {number}")))
    }

    fn skip(&mut self, bytes: Option<u64>) -> Result<(), Refusal> {
        let end = bytes.and_then(|b| self.at.checked_add(b)).filter(|end| *end <= self.end);
        self.at = end.ok_or_else(|| truncated("the data ends before its announced length"))?;
        self.file.seek(SeekFrom::Start(self.at)).map(drop).map_err(truncated)
    }
}

fn key_of(tree: &Tree, id: Id) -> Option<String> {
    match tree.get(id) {
        Value::Text(text) => Some(text.to_string()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

fn dtype_of(tree: &Tree, id: Id) -> Option<Dtype> {
    match tree.get(id) {
        Value::Global(Callable::Storage(dtype)) => *dtype,
        _ => None,
    }
}

fn bad(what: &str) -> Refusal {
    Refusal::new("bad_pickle", format!("{what} is not described as the format wants"))
}

/// `storages`: a count, then (key, location, type), a length and the elements of each.
fn storages(file: &mut File, place: (u64, u64)) -> Result<HashMap<String, Place>, Refusal> {
    let mut cursor = Cursor::new(file, place)?;
    let mut storages = HashMap::new();
    for _ in 0..cursor.count("storages")? {
        let tree = cursor.pickle("storages")?;
        let Some([key, _location, class]) = tree.items(tree.root) else {
            return Err(bad("a storage"));
        };
        let (Some(key), Some(dtype)) = (key_of(&tree, *key), dtype_of(&tree, *class)) else {
            return Err(bad("a storage"));
        };
        let elements = cursor.long()?;
        storages.insert(key, Place { dtype, start: cursor.at, elements });
        cursor.skip(elements.checked_mul(dtype.size()))?;
    }
    let views = cursor.pickle("storages")?;
    match views.items(views.root) {
        Some([]) | None => Ok(storages),
        Some(_) => Err(Refusal::new("unsupported_storage", "storages that are views of others")),
    }
}

/// A tensor before it has a name: its storage, offset, shape and strides.
type Nameless = (Reference, u64, Vec<u64>, Vec<u64>);

/// `tensors`: a count, then (key, storage, type), rank, sizes, strides and offset of each.
fn tensors(
    file: &mut File,
    place: (u64, u64),
    storages: &HashMap<String, Place>,
) -> Result<HashMap<String, Nameless>, Refusal> {
    let mut cursor = Cursor::new(file, place)?;
    let mut tensors = HashMap::new();
    for _ in 0..cursor.count("tensors")? {
        let tree = cursor.pickle("tensors")?;
        let Some([key, storage, _class]) = tree.items(tree.root) else {
            return Err(bad("a tensor"));
        };
        let (Some(key), Some(storage)) = (key_of(&tree, *key), key_of(&tree, *storage)) else {
            return Err(bad("a tensor"));
        };
        // The rank has 32 bits; the other half of the word is padding.
        let rank = (cursor.long()? & 0xffff_ffff) as usize;
        if rank > super::MAX_RANK {
            let reason = format!("a tensor of {rank} dimensions, at most {}", super::MAX_RANK);
            return Err(Refusal::new("bad_shape", reason));
        }
        let mut list = || (0..rank).map(|_| cursor.long()).collect::<Result<Vec<_>, _>>();
        let (shape, strides) = (list()?, list()?);
        let offset = cursor.long()?;
        let Some(Place { dtype, elements, .. }) = storages.get(&storage) else {
            let storage = clipguard_data::shown(&storage);
            let reason = format!("a tensor lies in storage `{storage}`, which is missing");
            return Err(Refusal::new("missing_record", reason));
        };
        let reference = Reference { key: storage, dtype: *dtype, elements: *elements, first: 0 };
        tensors.insert(key, (reference, offset, shape, strides));
    }
    Ok(tensors)
}

/// In this format a tensor is a persistent reference to its key.
struct Named(HashMap<String, Nameless>);

impl Resolve for Named {
    fn tensor(&self, tree: &Tree, id: Id, name: &str) -> Result<Option<Described>, Refusal> {
        let inner = match tree.get(id) {
            Value::Persistent(key) => key,
            Value::Call { callable: Callable::Parameter, arguments, .. } => {
                match tree.items(*arguments).and_then(|items| items.first()) {
                    Some(inner) => return self.tensor(tree, *inner, name),
                    None => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        let Some(key) = key_of(tree, *inner) else { return Ok(None) };
        let Some((storage, offset, shape, strides)) = self.0.get(&key) else {
            let key = clipguard_data::shown(&key);
            let reason = format!("tensor `{name}` refers to `{key}`, which is missing");
            return Err(Refusal::new("missing_record", reason));
        };
        torch::describe(storage.clone(), *offset, (shape.clone(), strides.clone()), name).map(Some)
    }
}
