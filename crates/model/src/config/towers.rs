//! The sections of the two towers.

use super::{MAX_CONTEXT, MAX_IMAGE, MAX_VOCABULARY, MAX_WIDTH, Pool, Text, Vision, keys::Keys};
use crate::ModelError;
use serde_json::Value;
use std::path::Path;

pub(super) fn vision(config: &Value, quick_gelu: bool, at: &Path) -> Result<Vision, ModelError> {
    let mut keys = Keys::new(config, "vision_cfg", at)?;
    for (key, family) in [
        ("timm_model_name", "towers of the timm library"),
        ("attentional_pool", "CoCa's attentional pooling"),
        ("block_type", "blocks of another kind"),
        ("qk_norm", "query-key normalisation"),
        ("scaled_cosine_attn", "scaled cosine attention"),
        ("scale_heads", "scaled heads"),
        ("scale_attn_inner", "scaled attention"),
        ("scale_attn", "scaled attention"),
        ("scale_fc", "scaled MLPs"),
    ] {
        keys.refuse(key, family)?;
    }
    for key in ["output_tokens", "attn_pooler_queries", "attn_pooler_heads", "patch_dropout"] {
        keys.take(key);
    }
    keys.ignore_prefix("timm_");
    let image_size = keys.image_size()?;
    let head_width = keys.size("head_width", Some(64), MAX_WIDTH)?;
    let vision = if keys.get("layers").is_some_and(Value::is_array) {
        let layers = keys.stages()?;
        let width = keys.size("width", Some(64), MAX_WIDTH / 32)?;
        for key in ["patch_size", "mlp_ratio", "act_kwargs", "norm_kwargs"] {
            keys.take(key);
        }
        if image_size % 32 != 0 {
            return Err(keys.error(&format!("image_size {image_size} is not a multiple of 32")));
        }
        let heads = keys.heads(width * 32, head_width)?;
        Vision::ResNet { image_size, layers, width, heads }
    } else {
        let patch = keys.size("patch_size", Some(16), MAX_IMAGE)?;
        if patch > image_size {
            return Err(keys.error(&format!("patch_size {patch} exceeds image_size {image_size}")));
        }
        let width = keys.size("width", Some(768), MAX_WIDTH)?;
        let heads = keys.heads(width, head_width)?;
        let layers = keys.layers()?;
        let transformer = keys.transformer(width, layers, heads, quick_gelu)?;
        let pool = match keys.word("pool_type", "tok")?.as_str() {
            "tok" => Pool::First,
            "avg" => Pool::Average,
            other => {
                let text = format!("pool_type {other:?} is not supported (`tok` or `avg`)");
                return Err(keys.error(&text));
            }
        };
        match keys.word("pos_embed_type", "learnable")?.as_str() {
            "learnable" | "sin_cos_2d" => {}
            other => return Err(keys.error(&format!("pos_embed_type {other:?} is unknown"))),
        }
        Vision::Vit {
            image_size,
            patch,
            transformer,
            ln_pre: !keys.flag("no_ln_pre")?,
            pool,
            final_ln_after_pool: keys.flag("final_ln_after_pool")?,
        }
    };
    keys.finish()?;
    Ok(vision)
}

pub(super) fn text(config: &Value, quick_gelu: bool, at: &Path) -> Result<Text, ModelError> {
    let mut keys = Keys::new(config, "text_cfg", at)?;
    for (key, family) in [
        ("hf_model_name", "text towers of Hugging Face"),
        ("hf_tokenizer_name", "tokenizers of Hugging Face"),
        ("tokenizer_mode", "other tokenizers"),
        ("tokenizer_type", "other tokenizers"),
        ("embed_cls", "CoCa's class token"),
        ("variable_text", "variable text lengths"),
    ] {
        keys.refuse(key, family)?;
    }
    match keys.word("text_arch", "clip")?.as_str() {
        "clip" => {}
        other => return Err(keys.error(&format!("text_arch {other:?} is not supported"))),
    }
    for key in ["final_ln_after_pool", "pad_id", "bos_id", "output_tokens", "tokenizer_kwargs"] {
        keys.take(key);
    }
    let width = keys.size("width", Some(512), MAX_WIDTH)?;
    let heads = keys.size("heads", Some(8), MAX_WIDTH)?;
    if width % heads != 0 {
        return Err(keys.error(&format!("{heads} heads do not divide width {width}")));
    }
    let layers = keys.layers()?;
    let transformer = keys.transformer(width, layers, heads, quick_gelu)?;
    let eos = keys.take("eos_id").and_then(|v| v.as_u64());
    let pool = match (keys.word("pool_type", "argmax")?.as_str(), eos) {
        ("argmax", _) => Pool::ArgMax,
        ("first", _) => Pool::First,
        ("last", _) => Pool::Last,
        ("eos", Some(id)) => Pool::Eos(id as u32),
        (other, _) => {
            return Err(keys.error(&format!(
                "pool_type {other:?} is not supported (argmax, first, last, or eos with eos_id)"
            )));
        }
    };
    let projection = match keys.word("proj_type", "linear")?.as_str() {
        "linear" => true,
        "none" => false,
        other => return Err(keys.error(&format!("proj_type {other:?} is unknown"))),
    };
    let text = Text {
        context: keys.size("context_length", Some(77), MAX_CONTEXT)?,
        vocabulary: keys.size("vocab_size", Some(49_408), MAX_VOCABULARY)?,
        transformer,
        causal: !keys.flag("no_causal_mask")?,
        pool,
        projection,
        projection_bias: keys.flag("proj_bias")?,
    };
    keys.finish()?;
    Ok(text)
}
