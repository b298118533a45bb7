//! JSON in which every key stands once.
//!
//! Most readers take the last of two equal keys, some the first: a file that means one thing to
//! this program and another to the next is refused.

use super::Refusal;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use std::fmt;

/// Reads JSON; `what` is how messages call it.
pub(crate) fn strict(bytes: &[u8], what: &str) -> Result<Value, Refusal> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Refusal::new("bad_json", format!("{what} is not UTF-8")))?;
    match serde_json::from_str::<Strict>(text) {
        Ok(Strict(value)) => Ok(value),
        Err(e) => {
            let message = e.to_string();
            let code = match () {
                () if message.starts_with("recursion limit") => "nesting_too_deep",
                () if message.starts_with("duplicate key") => "duplicate_key",
                () => "bad_json",
            };
            Err(Refusal::new(code, format!("{what}: not valid JSON: {message}")))
        }
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree).map(Self)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = items.next_key::<String>()? {
            if map.contains_key(&key) {
                let shown = clipguard_data::shown(&key);
                return Err(A::Error::custom(format!("duplicate key `{shown}`")));
            }
            let Strict(value) = items.next_value()?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
