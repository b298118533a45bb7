//! A JSON object whose every key has to be understood.

use super::{MAX_IMAGE, MAX_LAYERS, MAX_WIDTH, Transformer};
use crate::ModelError;
use clipguard_ops::Activation;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The keys of one JSON object, taken out one by one so that what is left is unknown.
pub(super) struct Keys<'a> {
    left: Map<String, Value>,
    section: &'static str,
    at: &'a Path,
}

impl<'a> Keys<'a> {
    pub(super) fn new(
        value: &Value,
        section: &'static str,
        at: &'a Path,
    ) -> Result<Self, ModelError> {
        match value {
            Value::Object(map) => Ok(Self { left: map.clone(), section, at }),
            _ => Err(ModelError::Config {
                path: at.to_owned(),
                reason: format!("`{section}` is not an object"),
            }),
        }
    }

    pub(super) fn error(&self, reason: &str) -> ModelError {
        ModelError::Config {
            path: self.at.to_owned(),
            reason: format!("in `{}`: {reason}", self.section),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.left.get(key)
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.left.shift_remove(key).filter(|v| !v.is_null())
    }

    pub(super) fn ignore_prefix(&mut self, prefix: &str) {
        self.left.retain(|key, _| !key.starts_with(prefix));
    }

    pub(super) fn refuse(&mut self, key: &str, family: &str) -> Result<(), ModelError> {
        match self.take(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(value) => {
                Err(self.error(&format!("`{key}` = {value}: {family} are not supported")))
            }
        }
    }

    pub(super) fn size(
        &mut self,
        key: &str,
        default: Option<usize>,
        max: usize,
    ) -> Result<usize, ModelError> {
        let value = match (self.take(key), default) {
            (Some(value), _) => value,
            (None, Some(default)) => return Ok(default),
            (None, None) => return Err(self.error(&format!("`{key}` is missing"))),
        };
        match value.as_u64() {
            Some(n) if n >= 1 && n <= max as u64 => Ok(n as usize),
            _ => {
                Err(self
                    .error(&format!("`{key}` = {value}: a whole number in 1..={max} is needed")))
            }
        }
    }

    /// Blocks of a transformer; none at all is possible.
    pub(super) fn layers(&mut self) -> Result<usize, ModelError> {
        match self.get("layers").and_then(Value::as_u64) {
            Some(0) => Ok(self.take("layers").map_or(0, |_| 0)),
            _ => self.size("layers", Some(12), MAX_LAYERS),
        }
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<bool, ModelError> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(b)) => Ok(b),
            Some(v) => Err(self.error(&format!("`{key}` = {v}: true or false is needed"))),
        }
    }

    pub(super) fn optional_number(&mut self, key: &str) -> Result<Option<f64>, ModelError> {
        match self.take(key) {
            None => Ok(None),
            Some(v) => match v.as_f64() {
                Some(n) if n.is_finite() => Ok(Some(n)),
                _ => Err(self.error(&format!("`{key}` = {v}: a number is needed"))),
            },
        }
    }

    pub(super) fn number(&mut self, key: &str, default: f64) -> Result<f64, ModelError> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    pub(super) fn word(&mut self, key: &str, default: &str) -> Result<String, ModelError> {
        match self.take(key) {
            None => Ok(default.to_owned()),
            Some(Value::String(s)) => Ok(s),
            Some(v) => Err(self.error(&format!("`{key}` = {v}: a word is needed"))),
        }
    }

    pub(super) fn image_size(&mut self) -> Result<usize, ModelError> {
        if let Some(Value::Array(sides)) = self.get("image_size") {
            let sides: Vec<u64> = sides.iter().filter_map(Value::as_u64).collect();
            match sides[..] {
                [a, b] if a == b => {
                    self.left.insert("image_size".to_owned(), json!(a));
                }
                _ => return Err(self.error("only square pictures are supported: `image_size`")),
            }
        }
        self.size("image_size", Some(224), MAX_IMAGE)
    }

    pub(super) fn stages(&mut self) -> Result<[usize; 4], ModelError> {
        let value = self.take("layers").unwrap_or_default();
        let blocks: Option<Vec<usize>> = value
            .as_array()
            .map(|a| a.iter().filter_map(Value::as_u64).map(|n| n as usize).collect());
        match blocks.as_deref() {
            Some(&[a, b, c, d]) if [a, b, c, d].iter().all(|n| (1..=MAX_LAYERS).contains(n)) => {
                Ok([a, b, c, d])
            }
            _ => Err(self.error(&format!("`layers` = {value}: four block counts are needed"))),
        }
    }

    pub(super) fn heads(&self, width: usize, head_width: usize) -> Result<usize, ModelError> {
        if !width.is_multiple_of(head_width) {
            return Err(self.error(&format!("head_width {head_width} does not divide {width}")));
        }
        Ok(width / head_width)
    }

    pub(super) fn transformer(
        &mut self,
        width: usize,
        layers: usize,
        heads: usize,
        quick_gelu: bool,
    ) -> Result<Transformer, ModelError> {
        let ratio = self.number("mlp_ratio", 4.0)?;
        let mlp = width as f64 * ratio;
        if !(1.0..=(8 * MAX_WIDTH) as f64).contains(&mlp) {
            return Err(self.error(&format!("`mlp_ratio` = {ratio} is out of range")));
        }
        let layer_scale = self.optional_number("ls_init_value")?.map(|v| v as f32);
        let activation = match self.take("act_kwargs") {
            _ if quick_gelu => Activation::QuickGelu,
            None => Activation::Gelu,
            Some(v) if v["approximate"] == "tanh" => Activation::GeluTanh,
            Some(v) if v == json!({}) || v["approximate"] == "none" => Activation::Gelu,
            Some(v) => return Err(self.error(&format!("`act_kwargs` = {v} is not supported"))),
        };
        let eps = match self.take("norm_kwargs") {
            None => 1e-5,
            Some(v) => match v["eps"].as_f64() {
                Some(eps) if eps > 0.0 && eps < 1.0 => eps as f32,
                _ => return Err(self.error(&format!("`norm_kwargs` = {v}: only eps is supported"))),
            },
        };
        Ok(Transformer { width, layers, heads, mlp: mlp as usize, activation, layer_scale, eps })
    }

    pub(super) fn finish(&self) -> Result<(), ModelError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(key) => Err(self.error(&format!("unknown key `{}`", key.escape_debug()))),
        }
    }
}
