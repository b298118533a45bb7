//! From the values of a torch file to its tensors.

use super::{
    MAX_TENSORS, Refusal, check_name, elements,
    pickle::{Callable, Id, Tree, Value},
    storage::{Dtype, Entry, Layout},
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A storage as a pickle refers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) key: String,
    pub(super) dtype: Dtype,
    /// Elements it claims to have.
    pub(super) elements: u64,
    /// First element, for a view of another storage (former formats).
    pub(super) first: u64,
}

/// A tensor as a pickle describes it.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) storage: Reference,
    pub(super) entry: Entry,
    /// In elements of the storage; its number is filled in later.
    pub(super) layout: Layout,
}

/// Tensors by name, and what should be known about them.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) tensors: BTreeMap<String, Described>,
    pub(super) warnings: Vec<String>,
}

/// Reads what a persistent reference means: the formats differ.
pub(super) trait Resolve {
    /// The tensor a value stands for, `None` if it is something else.
    fn tensor(&self, tree: &Tree, id: Id, name: &str) -> Result<Option<Described>, Refusal>;
}

/// Entries of a checkpoint that hold its weights, the usual one first.
const CANDIDATES: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// Finds the state dictionary of a saved object.
pub(super) fn state_dict(tree: &Tree, resolve: &dyn Resolve, file: &str) -> Result<Found, Refusal> {
    let refuse = |what: &str| {
        let reason = format!("`{file}` holds no state dictionary: {what}");
        Refusal::new("not_a_state_dict", reason)
    };
    if tree.dict(tree.root).is_none() {
        return Err(refuse("its top is no dictionary"));
    }
    let inside: Vec<(&str, Id)> = CANDIDATES
        .into_iter()
        .filter_map(|key| Some((key, tree.lookup(tree.root, key)?)))
        .filter(|(_, id)| tree.dict(*id).is_some())
        .collect();
    let found = match inside.as_slice() {
        [] => collect(tree, tree.root, resolve)?,
        [(key, id), others @ ..] => {
            let found = collect(tree, *id, resolve)?;
            if found.tensors.is_empty() {
                return Err(refuse(&format!("`{key}` has no tensors")));
            }
            for (other, id) in others {
                if !collect(tree, *id, resolve)?.tensors.is_empty() {
                    let reason = format!(
                        "`{file}` has tensors under `{key}` and under `{other}`: which are meant?"
                    );
                    return Err(Refusal::new("ambiguous_state_dict", reason));
                }
            }
            found
        }
    };
    if found.tensors.is_empty() {
        return Err(refuse("it has no tensors"));
    }
    Ok(without_prefix(found))
}

/// The tensors of one dictionary.
fn collect(tree: &Tree, dict: Id, resolve: &dyn Resolve) -> Result<Found, Refusal> {
    let mut found = Found::default();
    for (key, value) in tree.dict(dict).unwrap_or_default() {
        let name = match tree.get(*key) {
            Value::Text(text) => text.to_string(),
            Value::Int(number) => number.to_string(),
            _ => continue,
        };
        if let Some(tensor) = resolve.tensor(tree, *value, &name)? {
            if tree.text(*key).is_none() {
                let reason = format!("a tensor stands under the key {name}, which is no text");
                return Err(Refusal::new("not_a_state_dict", reason));
            }
            add(&mut found, name, tensor)?;
        }
    }
    Ok(found)
}

fn add(found: &mut Found, name: String, tensor: Described) -> Result<(), Refusal> {
    check_name(&name)?;
    let shown = clipguard_data::shown(&name);
    if found.tensors.len() == MAX_TENSORS {
        return Err(Refusal::new("too_large", format!("more than {MAX_TENSORS} tensors")));
    }
    if tensor.layout.overlaps() {
        found
            .warnings
            .push(format!("elements of `{shown}` share memory: no saver of weights does that"));
    }
    match found.tensors.insert(name, tensor) {
        None => Ok(()),
        Some(_) => {
            Err(Refusal::new("duplicate_key", format!("`{shown}` stands twice in the file")))
        }
    }
}

/// Names without what wrappers put before all of them.
fn without_prefix(mut found: Found) -> Found {
    for prefix in ["module.", "_orig_mod."] {
        if found.tensors.keys().all(|name| name.starts_with(prefix)) {
            let bare =
                |(name, tensor): (String, Described)| (name[prefix.len()..].to_owned(), tensor);
            found.tensors = found.tensors.into_iter().map(bare).collect();
        }
    }
    found
}

/// Walks the objects of a TorchScript archive; the path of an attribute is its name.
pub(super) fn script(tree: &Tree, resolve: &dyn Resolve, file: &str) -> Result<Found, Refusal> {
    let mut found = Found::default();
    let mut open = vec![(tree.root, String::new())];
    let mut seen = HashSet::new();
    while let Some((id, path)) = open.pop() {
        if let Value::Call { callable: Callable::Script, state: Some(state), .. } = tree.get(id) {
            if !seen.insert(id) {
                continue;
            }
            for (key, value) in tree.dict(*state).unwrap_or_default() {
                let Some(key) = tree.text(*key) else { continue };
                let dot = if path.is_empty() { "" } else { "." };
                open.push((*value, format!("{path}{dot}{key}")));
            }
        } else if let Some(tensor) = resolve.tensor(tree, id, &path)? {
            add(&mut found, path, tensor)?;
        }
    }
    if found.tensors.is_empty() {
        let reason = format!("`{file}` holds no module with tensors");
        return Err(Refusal::new("not_a_state_dict", reason));
    }
    Ok(found)
}

/// `("storage", type, key, location, elements[, view])`, where it lies aside.
fn reference(tree: &Tree, id: Id, name: &str) -> Result<Reference, Refusal> {
    let bad = |what: &str| Refusal::new("bad_pickle", format!("tensor `{name}`: {what}"));
    let Value::Persistent(key) = tree.get(id) else { return Err(bad("it has no storage")) };
    let items = tree.items(*key).unwrap_or_default();
    let [kind, class, key, _location, count, view @ ..] = items else {
        return Err(bad("its storage is not described by five values"));
    };
    if tree.text(*kind) != Some("storage") {
        let kind = clipguard_data::shown(tree.text(*kind).unwrap_or("?"));
        return Err(bad(&format!("it refers to a `{kind}`, not to a storage")));
    }
    let dtype = match tree.get(*class) {
        Value::Global(Callable::Storage(Some(dtype))) => *dtype,
        Value::Global(Callable::Storage(None)) => {
            let reason = format!("tensor `{name}`: its storage has no type of elements");
            return Err(Refusal::new("unsupported_dtype", reason));
        }
        _ => return Err(bad("the type of its storage is no type")),
    };
    let elements = positive(tree, *count, name, "elements of the storage")?;
    let key = match tree.get(*key) {
        Value::Text(text) => text.to_string(),
        Value::Int(number) => number.to_string(),
        _ => return Err(bad("the key of its storage is no text")),
    };
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_digit()) {
        let key = clipguard_data::shown(&key);
        let reason = format!("tensor `{name}`: a storage called `{key}`; keys are numbers");
        return Err(Refusal::new("bad_name", reason));
    }
    let mut storage = Reference { key, dtype, elements, first: 0 };
    if let Some([root, first, count]) = view.first().and_then(|id| tree.items(*id)) {
        storage.key = tree.text(*root).unwrap_or_default().to_owned();
        storage.first = positive(tree, *first, name, "offset of the view")?;
        storage.elements = positive(tree, *count, name, "elements of the view")?;
    }
    Ok(storage)
}

/// The types of all storages a pickle refers to, those that no weight lies in among them.
pub(super) fn storage_types(tree: &Tree) -> HashMap<String, Dtype> {
    tree.ids()
        .filter(|id| matches!(tree.get(*id), Value::Persistent(_)))
        .filter_map(|id| reference(tree, id, "?").ok())
        .map(|storage| (storage.key, storage.dtype))
        .collect()
}

fn positive(tree: &Tree, id: Id, name: &str, what: &str) -> Result<u64, Refusal> {
    match tree.get(id) {
        Value::Long(_) => {
            Err(Refusal::new("too_large", format!("tensor `{name}`: {what} beyond 64 bits")))
        }
        _ => match tree.int(id) {
            Some(number) => u64::try_from(number).map_err(|_| {
                Refusal::new("negative", format!("tensor `{name}`: {what} is {number}"))
            }),
            None => {
                Err(Refusal::new("bad_pickle", format!("tensor `{name}`: {what} is no number")))
            }
        },
    }
}

fn numbers(tree: &Tree, id: Id, name: &str, what: &str) -> Result<Vec<u64>, Refusal> {
    let items = match tree.get(id) {
        // torch.Size(tuple)
        Value::Call { arguments, .. } => tree.items(*arguments).and_then(|items| items.first()),
        _ => Some(&id),
    };
    let items = items.and_then(|id| tree.items(*id));
    let missing = || Refusal::new("bad_pickle", format!("tensor `{name}`: no {what}"));
    items.ok_or_else(missing)?.iter().map(|id| positive(tree, *id, name, what)).collect()
}

/// Puts a tensor together and checks that it stays inside of its storage.
pub(super) fn describe(
    storage: Reference,
    offset: u64,
    (shape, strides): (Vec<u64>, Vec<u64>),
    name: &str,
) -> Result<Described, Refusal> {
    let name = clipguard_data::shown(name);
    if shape.len() != strides.len() {
        let reason =
            format!("tensor `{name}` has {} dimensions and {} strides", shape.len(), strides.len());
        return Err(Refusal::new("bad_shape", reason));
    }
    let count = elements(&name, &shape)?;
    let reach = shape.iter().zip(&strides).try_fold(offset, |at, (n, stride)| {
        at.checked_add(n.saturating_sub(1).checked_mul(*stride)?)
    });
    if count > 0 && reach.is_none_or(|last| last >= storage.elements) {
        let reason = format!(
            "tensor `{name}` of shape {shape:?}, strides {strides:?}, offset {offset} reaches beyond \
             its storage of {} elements",
            storage.elements
        );
        return Err(Refusal::new("out_of_bounds", reason));
    }
    let small = |list: Vec<u64>| list.into_iter().map(|n| n as usize).collect::<Vec<_>>();
    let shape = small(shape);
    let entry = Entry { dtype: storage.dtype, shape: shape.clone() };
    let layout = Layout {
        storage: 0,
        offset: (storage.first + offset) as usize,
        shape,
        strides: small(strides),
    };
    Ok(Described { storage, entry, layout })
}

/// The zip archive's and the former format's way: a call with a storage among its arguments.
pub(super) struct Calls;

impl Resolve for Calls {
    fn tensor(&self, tree: &Tree, id: Id, name: &str) -> Result<Option<Described>, Refusal> {
        let mut id = id;
        // A parameter around a tensor, at most a few times.
        for _ in 0..4 {
            let Value::Call { callable, arguments, .. } = tree.get(id) else { return Ok(None) };
            let arguments = tree.items(*arguments).unwrap_or_default();
            match (callable, arguments) {
                (Callable::Parameter, [inner, ..]) => id = *inner,
                (Callable::Tensor, [storage, offset, shape, strides, ..]) => {
                    let shown = clipguard_data::shown(name);
                    let storage = reference(tree, *storage, &shown)?;
                    let offset = positive(tree, *offset, &shown, "offset")?;
                    let shape = numbers(tree, *shape, &shown, "size")?;
                    let strides = numbers(tree, *strides, &shown, "stride")?;
                    return describe(storage, offset, (shape, strides), name).map(Some);
                }
                (Callable::Tensor | Callable::Parameter, _) => {
                    let reason = format!("tensor `{name}` is built from too few arguments");
                    return Err(Refusal::new("bad_pickle", reason));
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}
