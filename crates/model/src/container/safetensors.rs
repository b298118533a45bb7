//! safetensors: a JSON header, then the data without gap or overlap.

use super::{
    Index, MAX_TENSORS, Refusal, check_name, elements,
    json::strict,
    storage::{Dtype, Entry, Layout, Storage},
};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fs::File, io::Read};

/// Longest header, 100 MB.
const MAX_HEADER: u64 = 100 << 20;

pub(super) fn index(file: &mut File, size: u64) -> Result<Index, Refusal> {
    let broken = |e: std::io::Error| Refusal::new("truncated", e.to_string());
    let mut length = [0; 8];
    if size < 8 {
        let reason = format!("{size} bytes are fewer than the 8 of a header length");
        return Err(Refusal::new("truncated", reason));
    }
    file.read_exact(&mut length).map_err(broken)?;
    let length = u64::from_le_bytes(length);
    if length == 0 || length > MAX_HEADER || length > size - 8 {
        let reason = format!(
            "a header of {length} bytes is announced: between 1 and {} are possible",
            MAX_HEADER.min(size - 8)
        );
        return Err(Refusal::new("header_length", reason));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(broken)?;
    let Value::Object(header) = strict(&header, "the header")? else {
        return Err(Refusal::new("bad_json", "the header is not a JSON object"));
    };
    let mut metadata = BTreeMap::new();
    let mut found = Vec::new();
    for (name, value) in header {
        match name.as_str() {
            "__metadata__" => metadata = read_metadata(value)?,
            _ => found.push(read_entry(name, value, size - 8 - length)?),
        }
    }
    if found.len() > MAX_TENSORS {
        let reason = format!("{} tensors, at most {MAX_TENSORS}", found.len());
        return Err(Refusal::new("too_large", reason));
    }
    found.sort_by_key(|tensor| (tensor.begin, tensor.end));
    covers(&found, size - 8 - length)?;
    let (mut storages, mut tensors) = (Vec::new(), BTreeMap::new());
    for tensor in found {
        let layout = Layout::plain(storages.len(), &tensor.entry.shape);
        storages.push(Storage {
            name: tensor.name.clone(),
            dtype: tensor.entry.dtype,
            start: 8 + length + tensor.begin,
            elements: (tensor.end - tensor.begin) / tensor.entry.dtype.size(),
            checksum: None,
        });
        tensors.insert(tensor.name, (tensor.entry, layout));
    }
    Ok(Index { storages, tensors, warnings: Vec::new(), metadata })
}

struct Found {
    name: String,
    entry: Entry,
    begin: u64,
    end: u64,
}

fn read_metadata(value: Value) -> Result<BTreeMap<String, String>, Refusal> {
    let refuse = || Refusal::new("bad_metadata", "`__metadata__` is not a map of strings");
    let Value::Object(map) = value else { return Err(refuse()) };
    map.into_iter()
        .map(|(key, value)| match value {
            Value::String(text) => Ok((key, text)),
            _ => Err(refuse()),
        })
        .collect()
}

fn read_entry(name: String, value: Value, data: u64) -> Result<Found, Refusal> {
    check_name(&name)?;
    let shown = clipguard_data::shown(&name);
    let refuse = |code, reason: &str| Refusal::new(code, format!("tensor `{shown}`: {reason}"));
    let Value::Object(map) = value else {
        return Err(refuse("bad_json", "its entry in the header is not an object"));
    };
    if let Some(key) =
        map.keys().find(|k| !["dtype", "shape", "data_offsets"].contains(&k.as_str()))
    {
        let key = clipguard_data::shown(key);
        return Err(refuse("bad_json", &format!("unknown key `{key}` in the header")));
    }
    let dtype = match map.get("dtype") {
        Some(Value::String(text)) => dtype(text).ok_or_else(|| {
            let text = clipguard_data::shown(text);
            refuse("unsupported_dtype", &format!("dtype {text} is not read"))
        })?,
        _ => return Err(refuse("bad_json", "`dtype` is missing")),
    };
    let shape = numbers(&map, "shape", &refuse)?;
    let count = elements(&shown, &shape)?;
    let offsets = numbers(&map, "data_offsets", &refuse)?;
    let [begin, end] = offsets[..] else {
        return Err(refuse("bad_offsets", "`data_offsets` are not two numbers"));
    };
    if end < begin {
        return Err(refuse("bad_offsets", &format!("it ends ({end}) before it begins ({begin})")));
    }
    if end > data {
        let reason = format!("it ends at {end}, the data has {data} bytes");
        return Err(refuse("out_of_bounds", &reason));
    }
    if end - begin != count * dtype.size() {
        let need = count * dtype.size();
        let reason = format!("shape {shape:?} needs {need} bytes, it has {}", end - begin);
        return Err(refuse("bad_shape", &reason));
    }
    let shape = shape.into_iter().map(|d| d as usize).collect();
    Ok(Found { name, entry: Entry { dtype, shape }, begin, end })
}

fn dtype(text: &str) -> Option<Dtype> {
    use Dtype::{BF16, Bool, F16, F32, F64, I8, I16, I32, I64, U8};
    [F64, F32, F16, BF16, I64, I32, I16, I8, U8, Bool].into_iter().find(|d| d.name() == text)
}

/// A list of numbers that are whole and not negative.
fn numbers(
    map: &Map<String, Value>,
    key: &str,
    refuse: &dyn Fn(&'static str, &str) -> Refusal,
) -> Result<Vec<u64>, Refusal> {
    let Some(Value::Array(list)) = map.get(key) else {
        return Err(refuse("bad_json", &format!("`{key}` is missing or no list")));
    };
    list.iter()
        .map(|value| match value.as_u64() {
            Some(number) => Ok(number),
            None if value.as_f64().is_some_and(|v| v < 0.0) => {
                Err(refuse("negative", &format!("`{key}` holds {value}")))
            }
            None => Err(refuse("bad_shape", &format!("`{key}` holds {value}, not a whole number"))),
        })
        .collect()
}

/// Every byte of the data belongs to one tensor: bytes of nobody are a place to hide something.
fn covers(found: &[Found], data: u64) -> Result<(), Refusal> {
    let mut at = 0;
    for Found { name, begin, end, .. } in found {
        let shown = clipguard_data::shown(name);
        if *begin > at {
            let reason =
                format!("{} bytes before tensor `{shown}` belong to no tensor", begin - at);
            return Err(Refusal::new("hole", reason));
        }
        if *begin < at {
            let reason = format!("tensor `{shown}` shares bytes with another");
            return Err(Refusal::new("overlap", reason));
        }
        at = *end;
    }
    if at < data {
        let reason = format!("{} bytes after the last tensor belong to no tensor", data - at);
        return Err(Refusal::new("trailing_data", reason));
    }
    Ok(())
}
