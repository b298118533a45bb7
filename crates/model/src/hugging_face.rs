//! Hugging Face's layout of CLIP: `config.json`, its own names of the parameters, and
//! `preprocessor_config.json`.

mod names;

pub(crate) use names::{from_open_clip, is_layout, to_open_clip};

use crate::{Architecture, ModelError, Preprocess, config::Pool};
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
