//! Architectures as data: open_clip's JSON, checked.
//!
//! Every key of the format is either understood, known to be harmless, or refused by name: a key
//! that is silently ignored is a model that silently computes something else.

mod keys;
mod towers;

use self::keys::Keys;
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
            vision: towers::vision(&vision, quick_gelu, at)?,
            text: towers::text(&text, quick_gelu, at)?,
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
