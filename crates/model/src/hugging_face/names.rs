//! Hugging Face's names of the parameters, and how its arrays become open_clip's.

use crate::{Array, ModelError, Weights};
use std::path::Path;

/// How one of Hugging Face's arrays belongs into open_clip's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// Stored as a linear layer, used from the other side.
    Transposed,
    /// Rows of query, key or value in one array.
    Third(usize),
}

/// Whether these are Hugging Face's names.
pub(crate) fn is_layout<'a>(mut names: impl Iterator<Item = &'a String>) -> bool {
    names.any(|n| n.starts_with("vision_model.") || n.starts_with("text_model."))
}

fn rename(name: &str) -> Option<(String, Part)> {
    let whole = |name: String| Some((name, Part::Whole));
    match name {
        "logit_scale" => return whole(name.to_owned()),
        "visual_projection.weight" => return Some(("visual.proj".to_owned(), Part::Transposed)),
        "text_projection.weight" => return Some(("text_projection".to_owned(), Part::Transposed)),
        _ => {}
    }
    let (prefix, rest) = match name.split_once('.')? {
        ("vision_model", rest) => ("visual.", rest),
        ("text_model", rest) => ("", rest),
        _ => return None,
    };
    if let Some(layer) = rest.strip_prefix("encoder.layers.") {
        let (number, rest) = layer.split_once('.')?;
        let (rest, part) = block(rest)?;
        return Some((format!("{prefix}transformer.resblocks.{number}.{rest}"), part));
    }
    let rest = match rest {
        "embeddings.class_embedding" => "class_embedding",
        "embeddings.position_embedding.weight" => "positional_embedding",
        "embeddings.patch_embedding.weight" => "conv1.weight",
        "embeddings.token_embedding.weight" => "token_embedding.weight",
        "pre_layrnorm.weight" => "ln_pre.weight",
        "pre_layrnorm.bias" => "ln_pre.bias",
        "post_layernorm.weight" => "ln_post.weight",
        "post_layernorm.bias" => "ln_post.bias",
        "final_layer_norm.weight" => "ln_final.weight",
        "final_layer_norm.bias" => "ln_final.bias",
        _ => return None,
    };
    whole(format!("{prefix}{rest}"))
}

fn block(rest: &str) -> Option<(String, Part)> {
    let (layer, kind) = rest.rsplit_once('.')?;
    let third = |i| Some((format!("attn.in_proj_{kind}"), Part::Third(i)));
    let name = match layer {
        "self_attn.q_proj" => return third(0),
        "self_attn.k_proj" => return third(1),
        "self_attn.v_proj" => return third(2),
        "self_attn.out_proj" => "attn.out_proj",
        "layer_norm1" => "ln_1",
        "layer_norm2" => "ln_2",
        "mlp.fc1" => "mlp.c_fc",
        "mlp.fc2" => "mlp.c_proj",
        _ => return None,
    };
    Some((format!("{name}.{kind}"), Part::Whole))
}

/// Brings weights from Hugging Face's layout to open_clip's; names it does not know stay.
pub(crate) fn to_open_clip(weights: Weights, at: &Path) -> Result<Weights, ModelError> {
    let refuse = |reason: String| ModelError::File { path: at.to_owned(), reason };
    for (tower, what) in [("vision_model.", "picture"), ("text_model.", "text")] {
        if !weights.keys().any(|name| name.starts_with(tower)) {
            return Err(refuse(format!("the {what} tower is missing (`{tower}*`): half a model")));
        }
    }
    let mut result = Weights::new();
    let mut thirds: std::collections::BTreeMap<String, [Option<Array>; 3]> = Default::default();
    for (name, array) in weights {
        match rename(&name) {
            None => drop(result.insert(name, array)),
            Some((new, Part::Whole)) => drop(result.insert(new, array)),
            Some((new, Part::Transposed)) => {
                let [rows, columns] = array.shape[..] else {
                    let shape = &array.shape;
                    return Err(refuse(format!(
                        "tensor `{name}` has shape {shape:?}, not a matrix"
                    )));
                };
                result
                    .insert(new, Array::new(vec![columns, rows], transposed(&array.data, columns)));
            }
            Some((new, Part::Third(i))) => thirds.entry(new).or_default()[i] = Some(array),
        }
    }
    for (name, parts) in thirds {
        let [Some(q), Some(k), Some(v)] = parts else {
            return Err(refuse(format!("one of query, key and value of `{name}` is missing")));
        };
        if q.shape != k.shape || q.shape != v.shape || q.shape.is_empty() {
            return Err(refuse(format!("query, key and value of `{name}` differ in shape")));
        }
        let mut shape = q.shape;
        shape[0] *= 3;
        let mut data = q.data;
        data.extend(k.data);
        data.extend(v.data);
        result.insert(name, Array::new(shape, data));
    }
    Ok(result)
}

fn transposed(data: &[f32], columns: usize) -> Vec<f32> {
    let rows = data.len() / columns.max(1);
    (0..data.len()).map(|i| data[i % rows.max(1) * columns + i / rows.max(1)]).collect()
}

/// Brings weights from open_clip's layout to Hugging Face's.
pub(crate) fn from_open_clip(weights: &Weights) -> Result<Weights, ModelError> {
    let mut result = Weights::new();
    for (name, array) in weights {
        let cannot = || ModelError::Write {
            reason: format!("Hugging Face's layout of CLIP has no place for `{name}`"),
        };
        if let Some(prefix) = name
            .strip_suffix("attn.in_proj_weight")
            .map(|p| (p, "weight"))
            .or_else(|| name.strip_suffix("attn.in_proj_bias").map(|p| (p, "bias")))
        {
            let (prefix, kind) = prefix;
            let (mut shape, third) = (array.shape.clone(), array.data.len() / 3);
            shape[0] /= 3;
            for (i, part) in ["q_proj", "k_proj", "v_proj"].iter().enumerate() {
                let data = array.data[i * third..(i + 1) * third].to_vec();
                let old = format!("{prefix}self_attn.{part}.{kind}");
                result.insert(restore(&old).ok_or_else(cannot)?, Array::new(shape.clone(), data));
            }
        } else if name == "visual.proj" || name == "text_projection" {
            let [rows, columns] = array.shape[..] else { return Err(cannot()) };
            let new = if name == "visual.proj" { "visual_projection" } else { "text_projection" };
            let data = transposed(&array.data, columns);
            result.insert(format!("{new}.weight"), Array::new(vec![columns, rows], data));
        } else {
            result.insert(restore(name).ok_or_else(cannot)?, array.clone());
        }
    }
    Ok(result)
}

/// The inverse of [`rename`] for names that stand for whole arrays.
fn restore(name: &str) -> Option<String> {
    if name == "logit_scale" {
        return Some(name.to_owned());
    }
    let (tower, rest) = match name.strip_prefix("visual.") {
        Some(rest) => ("vision_model", rest),
        None => ("text_model", name),
    };
    if let Some(layer) = rest.strip_prefix("transformer.resblocks.") {
        let (number, rest) = layer.split_once('.')?;
        let (layer, kind) = rest.rsplit_once('.')?;
        let layer = match layer {
            "attn.out_proj" => "self_attn.out_proj",
            "ln_1" => "layer_norm1",
            "ln_2" => "layer_norm2",
            "mlp.c_fc" => "mlp.fc1",
            "mlp.c_proj" => "mlp.fc2",
            own if own.starts_with("self_attn.") => own,
            _ => return None,
        };
        return Some(format!("{tower}.encoder.layers.{number}.{layer}.{kind}"));
    }
    let rest = match (tower, rest) {
        ("vision_model", "class_embedding") => "embeddings.class_embedding",
        ("vision_model", "conv1.weight") => "embeddings.patch_embedding.weight",
        ("text_model", "token_embedding.weight") => "embeddings.token_embedding.weight",
        (_, "positional_embedding") => "embeddings.position_embedding.weight",
        ("vision_model", "ln_pre.weight") => "pre_layrnorm.weight",
        ("vision_model", "ln_pre.bias") => "pre_layrnorm.bias",
        ("vision_model", "ln_post.weight") => "post_layernorm.weight",
        ("vision_model", "ln_post.bias") => "post_layernorm.bias",
        ("text_model", "ln_final.weight") => "final_layer_norm.weight",
        ("text_model", "ln_final.bias") => "final_layer_norm.bias",
        _ => return None,
    };
    Some(format!("{tower}.{rest}"))
}
