//! Architectures as data: open_clip's JSON, checked.
//!
//! Every key of the format is either understood, known to be harmless, or refused by name: a key
//! that is silently ignored is a model that silently computes something else.

use crate::ModelError;
use clipguard_ops::Activation;
use serde_json::{Map, Value, json};
use std::path::Path;

/// How a tower pools its tokens into one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Vision: the class token. Text (`first`): position 0.
    First,
    /// Vision: mean of the patch tokens.
    Average,
    /// Text: the first position of the largest id, which is CLIP's end token.
    ArgMax,
    /// Text: the last position.
    Last,
    /// Text: the first position equal to this id.
    Eos(u32),
}

/// A transformer stack.
#[derive(Clone, Debug, PartialEq)]
pub struct Transformer {
    /// Width of the residual stream.
    pub width: usize,
    /// Residual blocks.
    pub layers: usize,
    /// Attention heads; divides `width`.
    pub heads: usize,
    /// Hidden width of the MLP.
    pub mlp: usize,
    /// Activation of the MLP.
    pub activation: Activation,
    /// Initial value of the layer scale, when blocks have one.
    pub layer_scale: Option<f32>,
    /// Epsilon of every LayerNorm.
    pub eps: f32,
}

/// The picture tower.
#[derive(Clone, Debug, PartialEq)]
pub enum Vision {
    /// A vision transformer.
    Vit {
        /// Side of the (square) input in pixels.
        image_size: usize,
        /// Side of a patch in pixels.
        patch: usize,
        /// The blocks.
        transformer: Transformer,
        /// Whether a LayerNorm precedes the blocks.
        ln_pre: bool,
        /// Token pooling, `First` or `Average`.
        pool: Pool,
        /// Pool first, then normalise.
        final_ln_after_pool: bool,
    },
    /// OpenAI's ModifiedResNet with attention pooling.
    ResNet {
        /// Side of the (square) input in pixels, a multiple of 32.
        image_size: usize,
        /// Blocks of the four stages.
        layers: [usize; 4],
        /// Planes of the first stage.
        width: usize,
        /// Heads of the attention pool.
        heads: usize,
    },
}

impl Vision {
    /// Side of the input in pixels.
    pub fn image_size(&self) -> usize {
        match self {
            Self::Vit { image_size, .. } | Self::ResNet { image_size, .. } => *image_size,
        }
    }
}

/// The text tower.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// Positions.
    pub context: usize,
    /// Token ids.
    pub vocabulary: usize,
    /// The blocks.
    pub transformer: Transformer,
    /// Whether position `i` sees `j <= i` only.
    pub causal: bool,
    /// Token pooling.
    pub pool: Pool,
    /// Whether there is a projection to the embedding.
    pub projection: bool,
    /// Whether the projection has a bias.
    pub projection_bias: bool,
}

/// A CLIP architecture: everything but the weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Dimension of the shared embedding.
    pub embed_dim: usize,
    /// Picture tower.
    pub vision: Vision,
    /// Text tower.
    pub text: Text,
    /// Text keys carry the prefix `text.`.
    pub custom_text: bool,
    /// Initial logarithm of the logit scale.
    pub init_logit_scale: f32,
    /// Initial logit bias (SigLIP), when the model has one.
    pub init_logit_bias: Option<f32>,
    /// The JSON it was read from, written back unchanged.
    pub source: Value,
}

pub(crate) const MAX_IMAGE: usize = 2048;
const MAX_WIDTH: usize = 16_384;
const MAX_LAYERS: usize = 256;
pub(crate) const MAX_CONTEXT: usize = 4096;
const MAX_VOCABULARY: usize = 1_000_000;

/// Names and configurations that are built in.
const BUILT_IN: &str = include_str!("architectures.json");

/// Names of the built-in architectures, in the order of open_clip's table.
pub fn architecture_names() -> Vec<String> {
    let table: Map<String, Value> = serde_json::from_str(BUILT_IN).unwrap_or_default();
    table.keys().cloned().collect()
}

impl Architecture {
    /// A built-in architecture by open_clip's name; `NAME-quickgelu` is the same with QuickGELU.
    pub fn named(name: &str) -> Result<Self, ModelError> {
        let table: Map<String, Value> = serde_json::from_str(BUILT_IN).unwrap_or_default();
        let (base, quick) = match name.strip_suffix("-quickgelu") {
            Some(base) => (base, true),
            None => (name, false),
        };
        let normal = base.replace('/', "-");
        let Some(config) = table.get(&normal) else {
            return Err(ModelError::UnknownArchitecture {
                name: name.to_owned(),
                suggestion: suggestion(&normal, table.keys()),
            });
        };
        let mut config = config.clone();
        if quick {
            config["quick_gelu"] = json!(true);
        }
        Self::from_json(&config, Path::new(name))
    }

    /// Reads open_clip's `model_cfg`. `at` names the file in messages.
    pub fn from_json(config: &Value, at: &Path) -> Result<Self, ModelError> {
        let mut top = Keys::new(config, "model_cfg", at)?;
        let embed_dim = top.size("embed_dim", None, MAX_WIDTH)?;
        let quick_gelu = top.flag("quick_gelu")?;
        let custom_text = top.flag("custom_text")?;
        let init_logit_scale = top.number("init_logit_scale", (1.0f64 / 0.07).ln())? as f32;
        let init_logit_bias = top.optional_number("init_logit_bias")?.map(|v| v as f32);
        top.flag("nonscalar_logit_scale")?;
        top.refuse("multimodal_cfg", "CoCa models")?;
        top.refuse("audio_cfg", "audio models")?;
        top.refuse("genlip_cfg", "generative models")?;
        top.refuse("genlap_cfg", "generative models")?;
        let (vision, text) = (top.take("vision_cfg"), top.take("text_cfg"));
        top.finish()?;
        let vision = vision.ok_or_else(|| top.error("`vision_cfg` is missing"))?;
        let text = text.ok_or_else(|| top.error("`text_cfg` is missing"))?;
        Ok(Self {
            embed_dim,
            vision: read_vision(&vision, quick_gelu, at)?,
            text: read_text(&text, quick_gelu, at)?,
            custom_text,
            init_logit_scale,
            init_logit_bias,
            source: config.clone(),
        })
    }

    /// The same with a logit bias that starts at `bias`; unchanged when there is one already.
    pub fn with_logit_bias(mut self, bias: f32) -> Self {
        if self.init_logit_bias.is_none() {
            self.init_logit_bias = Some(bias);
            if let Value::Object(source) = &mut self.source {
                source.insert("init_logit_bias".to_owned(), json!(bias));
            }
        }
        self
    }

    /// The activation of both towers' transformers, in open_clip's words.
    pub fn activation_name(&self) -> &'static str {
        match self.text.transformer.activation {
            Activation::QuickGelu => "QuickGELU",
            Activation::Gelu => "GELU",
            Activation::GeluTanh => "GELU (tanh)",
        }
    }
}

/// The nearest of `names` to `name`, when it is near.
pub fn suggestion<'a>(name: &str, names: impl Iterator<Item = &'a String>) -> Option<String> {
    let near = |n: &&String| strsim::jaro_winkler(&name.to_lowercase(), &n.to_lowercase());
    let mut names: Vec<(f64, &String)> = names.map(|n| (near(&n), n)).collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    names.first().filter(|(score, _)| *score > 0.75).map(|(_, n)| (*n).clone())
}

fn read_vision(config: &Value, quick_gelu: bool, at: &Path) -> Result<Vision, ModelError> {
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

fn read_text(config: &Value, quick_gelu: bool, at: &Path) -> Result<Text, ModelError> {
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

/// The keys of one JSON object, taken out one by one so that what is left is unknown.
struct Keys<'a> {
    left: Map<String, Value>,
    section: &'static str,
    at: &'a Path,
}

impl<'a> Keys<'a> {
    fn new(value: &Value, section: &'static str, at: &'a Path) -> Result<Self, ModelError> {
        match value {
            Value::Object(map) => Ok(Self { left: map.clone(), section, at }),
            _ => Err(ModelError::Config {
                path: at.to_owned(),
                reason: format!("`{section}` is not an object"),
            }),
        }
    }

    fn error(&self, reason: &str) -> ModelError {
        ModelError::Config {
            path: self.at.to_owned(),
            reason: format!("in `{}`: {reason}", self.section),
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.left.get(key)
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.left.shift_remove(key).filter(|v| !v.is_null())
    }

    fn ignore_prefix(&mut self, prefix: &str) {
        self.left.retain(|key, _| !key.starts_with(prefix));
    }

    fn refuse(&mut self, key: &str, family: &str) -> Result<(), ModelError> {
        match self.take(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(value) => {
                Err(self.error(&format!("`{key}` = {value}: {family} are not supported")))
            }
        }
    }

    fn size(&mut self, key: &str, default: Option<usize>, max: usize) -> Result<usize, ModelError> {
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
    fn layers(&mut self) -> Result<usize, ModelError> {
        match self.get("layers").and_then(Value::as_u64) {
            Some(0) => Ok(self.take("layers").map_or(0, |_| 0)),
            _ => self.size("layers", Some(12), MAX_LAYERS),
        }
    }

    fn flag(&mut self, key: &str) -> Result<bool, ModelError> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(b)) => Ok(b),
            Some(v) => Err(self.error(&format!("`{key}` = {v}: true or false is needed"))),
        }
    }

    fn optional_number(&mut self, key: &str) -> Result<Option<f64>, ModelError> {
        match self.take(key) {
            None => Ok(None),
            Some(v) => match v.as_f64() {
                Some(n) if n.is_finite() => Ok(Some(n)),
                _ => Err(self.error(&format!("`{key}` = {v}: a number is needed"))),
            },
        }
    }

    fn number(&mut self, key: &str, default: f64) -> Result<f64, ModelError> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    fn word(&mut self, key: &str, default: &str) -> Result<String, ModelError> {
        match self.take(key) {
            None => Ok(default.to_owned()),
            Some(Value::String(s)) => Ok(s),
            Some(v) => Err(self.error(&format!("`{key}` = {v}: a word is needed"))),
        }
    }

    fn image_size(&mut self) -> Result<usize, ModelError> {
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

    fn stages(&mut self) -> Result<[usize; 4], ModelError> {
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

    fn heads(&self, width: usize, head_width: usize) -> Result<usize, ModelError> {
        if !width.is_multiple_of(head_width) {
            return Err(self.error(&format!("head_width {head_width} does not divide {width}")));
        }
        Ok(width / head_width)
    }

    fn transformer(
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

    fn finish(&self) -> Result<(), ModelError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(key) => Err(self.error(&format!("unknown key `{}`", key.escape_debug()))),
        }
    }
}
