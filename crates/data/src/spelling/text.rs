//! Between texts and values: serde over the settings of a [`Spelling`](super::Spelling).

use std::fmt;

use serde::{
    Deserializer, Serialize,
    de::{
        self, DeserializeOwned, IntoDeserializer,
        value::{MapDeserializer, SeqDeserializer, StrDeserializer},
    },
    forward_to_deserialize_any,
};

/// A finite number, or a fraction of two such as `8/255`, evaluated in f64.
pub fn number(text: &str) -> Option<f64> {
    let plain = |text: &str| text.trim().parse::<f64>().ok();
    let value = match text.split_once('/') {
        Some((over, under)) => plain(over)? / plain(under)?,
        None => plain(text)?,
    };
    value.is_finite().then_some(value)
}

/// The shortest text that [`number`] reads as `value`, as a fraction of 255 where it is one.
pub fn written(value: f32) -> String {
    fraction(f64::from(value), &value.to_string())
}

fn fraction(value: f64, text: &str) -> String {
    let count = (value * 255.0).round();
    let exact = count / 255.0;
    let is_fraction = exact == value || (exact as f32).to_string() == text;
    // 0.2 is 51/255, but nobody writes it so.
    match is_fraction && text.len() > 6 && count.abs() < 255.0 {
        true => format!("{count}/255"),
        false => text.strip_suffix(".0").unwrap_or(text).to_owned(),
    }
}

/// Key and text of every field of a parameter struct, in order.
pub(super) fn settings(parameters: &impl Serialize) -> Vec<(String, String)> {
    // Through text, because JSON text keeps the shortest form of an f32 and a JSON value does not.
    let json = serde_json::to_string(parameters).unwrap_or_default();
    let map: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&json).unwrap_or_default();
    map.into_iter().map(|(key, value)| (key, spell(&value))).collect()
}

fn spell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "none".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(items) => items.iter().map(spell).collect::<Vec<_>>().join("+"),
        serde_json::Value::Number(n) if n.is_f64() => {
            fraction(n.as_f64().unwrap_or_default(), &n.to_string())
        }
        other => other.to_string(),
    }
}

/// A value that does not fit its key.
#[derive(Debug, Default)]
pub(super) struct Mismatch {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) reason: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}: {}", self.key, self.value, self.reason)
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self { reason: reason.to_string(), ..Self::default() }
    }
}

/// A parameter struct from its settings.
pub(super) fn read<P: DeserializeOwned>(settings: &[(String, String)]) -> Result<P, Mismatch> {
    let pairs = settings.iter().map(|(key, value)| (key.as_str(), Text { key, value }));
    P::deserialize(MapDeserializer::new(pairs))
}

/// The text of one value, read as whatever type the struct asks for.
#[derive(Clone, Copy)]
struct Text<'a> {
    key: &'a str,
    value: &'a str,
}

impl<'a> Text<'a> {
    /// Adds key and value to a reason that came without them.
    fn at(&self, error: Mismatch) -> Mismatch {
        match error.key.is_empty() {
            true => Mismatch { key: self.key.into(), value: self.value.into(), ..error },
            false => error,
        }
    }

    fn parse<T>(&self, read: impl FnOnce(&str) -> Option<T>, want: &str) -> Result<T, Mismatch> {
        read(self.value).ok_or_else(|| self.at(de::Error::custom(format!("expected {want}"))))
    }

    fn is_absent(&self) -> bool {
        matches!(self.value, "none" | "auto")
    }
}

impl<'de> IntoDeserializer<'de, Mismatch> for Text<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! whole {
    ($($name:ident $visit:ident $kind:ty;)*) => {
        $(fn $name<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            let value = self.parse(|text| text.parse::<$kind>().ok(), "a whole number in range")?;
            visitor.$visit(value).map_err(|e| self.at(e))
        })*
    };
}

impl<'de> Deserializer<'de> for Text<'de> {
    type Error = Mismatch;

    fn deserialize_any<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_borrowed_str(self.value).map_err(|e| self.at(e))
    }

    fn deserialize_bool<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_bool(self.parse(|text| text.parse().ok(), "true or false")?)
    }

    fn deserialize_f64<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_f64(self.parse(number, "a number such as 0.5 or 8/255")?)
    }

    fn deserialize_f32<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_f64(visitor)
    }

    whole! {
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
    }

    fn deserialize_option<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.is_absent() {
            true => visitor.visit_none(),
            false => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let items = self.value.split('+').map(|value| Text { key: self.key, value: value.trim() });
        visitor.visit_seq(SeqDeserializer::new(items)).map_err(|e| self.at(e))
    }

    fn deserialize_enum<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let text: StrDeserializer<'de, Mismatch> = self.value.into_deserializer();
        text.deserialize_enum(name, variants, visitor).map_err(|e| self.at(e))
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct map struct identifier ignored_any
    }
}
