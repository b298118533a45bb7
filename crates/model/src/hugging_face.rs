//! Hugging Face's layout of CLIP: `config.json`, its own names of the parameters, and
//! `preprocessor_config.json`.

use crate::{Architecture, Array, ModelError, Preprocess, Weights, config::Pool};
use clipguard_ops::Activation;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Name of the configuration file.
pub const CONFIG: &str = "config.json";

/// Reads `config.json`; missing keys have the defaults of the `transformers` library, which writes
/// differences only.
pub(crate) fn architecture(config: &Value, at: &Path) -> Result<Architecture, ModelError> {
    let refuse = |reason: String| ModelError::Config { path: at.to_owned(), reason };
    match config.get("model_type").and_then(Value::as_str) {
        Some("clip") | None => {}
        Some(other) => {
            let other = clipguard_data::shown(other);
            return Err(refuse(format!("model_type `{other}` is not supported (`clip` is)")));
        }
    }
    if config.get("text_config").is_none() && config.get("vision_config").is_none() {
        let reason = "neither `text_config` nor `vision_config`: not the configuration of a CLIP";
        return Err(refuse(reason.to_owned()));
    }
    let text = Section::of(config, "text_config", at);
    let vision = Section::of(config, "vision_config", at);
    let activations = [vision.activation()?, text.activation()?];
    let quick = activations.contains(&Activation::QuickGelu);
    let (heads, width) = (text.number("num_attention_heads", 8), text.number("hidden_size", 512));
    let source = json!({
        "embed_dim": config.get("projection_dim").cloned().unwrap_or(json!(512)),
        "quick_gelu": quick,
        "init_logit_scale": config.get("logit_scale_init_value").cloned().unwrap_or(json!(2.6592)),
        "vision_cfg": vision.tower(json!({
            "image_size": vision.number("image_size", 224),
            "patch_size": vision.number("patch_size", 32),
            "layers": vision.number("num_hidden_layers", 12),
            "width": vision.number("hidden_size", 768),
            "head_width": vision.head_width(768, 12)?,
            "mlp_ratio": vision.ratio(768, 3072)?,
        }), activations[0]),
        "text_cfg": text.tower(json!({
            "context_length": text.number("max_position_embeddings", 77),
            "vocab_size": text.number("vocab_size", 49_408),
            "width": width,
            "heads": heads,
            "layers": text.number("num_hidden_layers", 12),
            "mlp_ratio": text.ratio(512, 2048)?,
        }), activations[1]),
    });
    if vision.number("num_channels", 3) != json!(3) {
        return Err(refuse("`num_channels` is not 3".to_owned()));
    }
    let mut architecture = Architecture::from_json(&source, at)?;
    architecture.text.pool = match text.number("eos_token_id", 49_407).as_u64() {
        // Files from before the end token was configurable say 2 and mean the largest id.
        Some(2) => Pool::ArgMax,
        Some(id) if id < architecture.text.vocabulary as u64 => Pool::Eos(id as u32),
        _ => return Err(refuse("`eos_token_id` is no token of the vocabulary".to_owned())),
    };
    if let (Pool::Eos(id), Some(config)) =
        (architecture.text.pool, architecture.source["text_cfg"].as_object_mut())
    {
        config.insert("pool_type".to_owned(), json!("eos"));
        config.insert("eos_id".to_owned(), json!(id));
    }
    if activations[0] != activations[1] {
        let crate::config::Vision::Vit { transformer, .. } = &mut architecture.vision else {
            return Err(refuse("the picture tower is no transformer".to_owned()));
        };
        transformer.activation = activations[0];
        architecture.text.transformer.activation = activations[1];
        // open_clip has one switch for both towers.
        architecture.source = Value::Null;
    }
    Ok(architecture)
}

/// One tower's section, with the former `..._dict` laid over it.
struct Section<'a> {
    keys: Map<String, Value>,
    name: &'static str,
    at: &'a Path,
}

impl<'a> Section<'a> {
    fn of(config: &Value, name: &'static str, at: &'a Path) -> Self {
        let object = |key: &str| config.get(key).and_then(Value::as_object).cloned();
        let mut keys = object(name).unwrap_or_default();
        keys.extend(object(&format!("{name}_dict")).unwrap_or_default());
        Self { keys, name, at }
    }

    fn error(&self, reason: &str) -> ModelError {
        let reason = format!("in `{}`: {reason}", self.name);
        ModelError::Config { path: self.at.to_owned(), reason }
    }

    fn number(&self, key: &str, default: u64) -> Value {
        self.keys.get(key).filter(|v| !v.is_null()).cloned().unwrap_or(json!(default))
    }

    fn activation(&self) -> Result<Activation, ModelError> {
        match self.keys.get("hidden_act").and_then(Value::as_str).unwrap_or("quick_gelu") {
            "quick_gelu" => Ok(Activation::QuickGelu),
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            other => {
                let other = clipguard_data::shown(other);
                Err(self.error(&format!(
                    "`hidden_act` = `{other}` (quick_gelu, gelu, gelu_new and gelu_pytorch_tanh \
                     are supported)"
                )))
            }
        }
    }

    fn positive(&self, key: &str, default: u64) -> Result<u64, ModelError> {
        let value = self.number(key, default);
        value
            .as_u64()
            .filter(|n| *n > 0)
            .ok_or_else(|| self.error(&format!("`{key}` = {value}: a whole number is needed")))
    }

    fn head_width(&self, width: u64, heads: u64) -> Result<u64, ModelError> {
        let width = self.positive("hidden_size", width)?;
        let heads = self.positive("num_attention_heads", heads)?;
        match width.is_multiple_of(heads) {
            true => Ok(width / heads),
            false => Err(self.error(&format!("{heads} heads do not divide width {width}"))),
        }
    }

    fn ratio(&self, width: u64, inner: u64) -> Result<f64, ModelError> {
        let width = self.positive("hidden_size", width)? as f64;
        Ok(self.positive("intermediate_size", inner)? as f64 / width)
    }

    /// Adds what differs from open_clip's defaults.
    fn tower(&self, mut config: Value, activation: Activation) -> Value {
        if activation == Activation::GeluTanh {
            config["act_kwargs"] = json!({ "approximate": "tanh" });
        }
        if let Some(eps) = self.keys.get("layer_norm_eps").and_then(Value::as_f64)
            && eps != 1e-5
        {
            config["norm_kwargs"] = json!({ "eps": eps });
        }
        config
    }
}

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

/// Reads `preprocessor_config.json`.
pub(crate) fn preprocess(config: &Value, size: usize) -> Result<Preprocess, String> {
    let side = |value: &Value| {
        let keys = ["shortest_edge", "height", "width"];
        value.as_u64().or_else(|| keys.iter().find_map(|k| value.get(k)?.as_u64()))
    };
    let flag = |key: &str| config.get(key).and_then(Value::as_bool).unwrap_or(true);
    for key in ["do_resize", "do_center_crop", "do_normalize", "do_rescale"] {
        if !flag(key) {
            return Err(format!("`{key}` is false: pictures would not be prepared as CLIP's are"));
        }
    }
    let crop = config.get("crop_size").or_else(|| config.get("size")).and_then(side);
    let resize = config.get("size").and_then(side).or(crop);
    if resize != crop {
        return Err("`size` and `crop_size` differ: a margin is not supported".to_owned());
    }
    let mut own = json!({ "mode": "RGB", "resize_mode": "shortest" });
    own["size"] = json!(crop.unwrap_or(size as u64));
    own["interpolation"] = match config.get("resample").map(|v| v.as_u64()) {
        None | Some(Some(3)) => json!("bicubic"),
        Some(Some(2)) => json!("bilinear"),
        Some(_) => return Err("`resample` is neither 3 (bicubic) nor 2 (bilinear)".to_owned()),
    };
    for (theirs, ours) in [("image_mean", "mean"), ("image_std", "std")] {
        if let Some(value) = config.get(theirs) {
            own[ours] = value.clone();
        }
    }
    Preprocess::from_json(&own, size)
}

/// `config.json` of an architecture, or why this layout cannot describe it.
pub(crate) fn config(arch: &Architecture) -> Result<Value, ModelError> {
    let cannot = |what: &str| ModelError::Write {
        reason: format!("Hugging Face's layout of CLIP cannot describe {what}"),
    };
    let crate::config::Vision::Vit {
        image_size,
        patch,
        transformer,
        ln_pre,
        pool,
        final_ln_after_pool,
    } = &arch.vision
    else {
        return Err(cannot("a ResNet tower"));
    };
    if !ln_pre || *pool != Pool::First || *final_ln_after_pool {
        return Err(cannot("this picture tower (no first LayerNorm, or pooling by average)"));
    }
    if transformer.layer_scale.is_some() || arch.text.transformer.layer_scale.is_some() {
        return Err(cannot("layer scale"));
    }
    if arch.init_logit_bias.is_some() || !arch.text.projection || arch.text.projection_bias {
        return Err(cannot("a logit bias or another text projection"));
    }
    let eos = match arch.text.pool {
        Pool::ArgMax if arch.text.causal => 2,
        Pool::Eos(id) if arch.text.causal => id,
        _ => return Err(cannot("this text pooling")),
    };
    let word = |activation| match activation {
        Activation::QuickGelu => "quick_gelu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
    };
    let (v, t) = (transformer, &arch.text.transformer);
    let last = arch.text.vocabulary - 1;
    Ok(json!({
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": arch.embed_dim,
        "logit_scale_init_value": arch.init_logit_scale,
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": v.width,
            "intermediate_size": v.mlp,
            "projection_dim": arch.embed_dim,
            "num_hidden_layers": v.layers,
            "num_attention_heads": v.heads,
            "num_channels": 3,
            "image_size": image_size,
            "patch_size": patch,
            "hidden_act": word(v.activation),
            "layer_norm_eps": f64::from(v.eps),
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": arch.text.vocabulary,
            "hidden_size": t.width,
            "intermediate_size": t.mlp,
            "projection_dim": arch.embed_dim,
            "num_hidden_layers": t.layers,
            "num_attention_heads": t.heads,
            "max_position_embeddings": arch.text.context,
            "hidden_act": word(t.activation),
            "layer_norm_eps": f64::from(t.eps),
            "eos_token_id": eos,
            "bos_token_id": last.saturating_sub(1),
            "pad_token_id": if eos == 2 { 1 } else { last },
        },
    }))
}

/// `preprocessor_config.json`.
pub(crate) fn preprocessor(preprocess: &Preprocess) -> Value {
    use clipguard_data::Interpolation;
    let size = preprocess.resize.size;
    json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": true,
        "size": { "shortest_edge": size },
        "do_center_crop": true,
        "crop_size": { "height": size, "width": size },
        "resample": if preprocess.resize.interpolation == Interpolation::Bicubic { 3 } else { 2 },
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": preprocess.mean,
        "image_std": preprocess.std,
        "do_convert_rgb": true,
    })
}
