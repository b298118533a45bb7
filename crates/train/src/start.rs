//! What a run starts from.

use crate::{Recipe, TrainError};
use clipguard_model::{
    Architecture, Checkpoint, ModelError, Preprocess, Weights, parameters::initial_weights,
    positions::Way,
};
use std::{fs, path::Path};

/// The CLIP model a run starts from.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its architecture.
    pub architecture: Architecture,
    /// How pictures are prepared for it.
    pub preprocess: Preprocess,
    /// Its weights.
    pub weights: Weights,
    /// SHA-256 of the weight file in hex; empty for weights that the recipe's seed draws.
    pub digest: String,
}

impl Start {
    /// What `recipe.model` names: a checkpoint, an architecture, or an open_clip configuration.
    ///
    /// # Errors
    /// When nothing of that name can be read, or what is read cannot be brought to the recipe's
    /// `image_size`.
    pub fn of(recipe: &Recipe) -> Result<Self, TrainError> {
        let (name, side) = (&recipe.model, recipe.image_size);
        let own = |what: &str| match side {
            0 => Ok(()),
            side => Err(ModelError::Resize {
                name: name.clone(),
                reason: format!("image_size = {side}: {what} says its own; it is for fine-tuning"),
            }),
        };
        let drawn = |architecture: Architecture, preprocess| Self {
            weights: initial_weights(&architecture, recipe.seed),
            digest: String::new(),
            architecture,
            preprocess,
        };
        let is_file = Path::new(name).is_file();
        if name.ends_with(".json") && (is_file || !name.contains('@')) {
            own("a configuration")?;
            let (architecture, preprocess) = read_model(Path::new(name))?;
            return Ok(drawn(architecture, preprocess));
        }
        let known = clipguard_model::config::architecture_names();
        let base = name.strip_suffix("-quickgelu").unwrap_or(name);
        if known.iter().any(|n| n == base) {
            own("an architecture")?;
            let architecture = Architecture::named(name)?;
            let preprocess = Preprocess::openai(architecture.vision.image_size());
            return Ok(drawn(architecture, preprocess));
        }
        let mut checkpoint = Checkpoint::open(name)?;
        if side > 0 {
            checkpoint = checkpoint.for_image_size(side, Way::OpenClip)?;
        }
        let Checkpoint { architecture, preprocess, weights, digest, .. } = checkpoint;
        Ok(Self { architecture, preprocess, weights, digest })
    }
}

/// Reads an open_clip configuration, with or without the outer `model_cfg`.
pub(crate) fn read_model(path: &Path) -> Result<(Architecture, Preprocess), TrainError> {
    let text = fs::read_to_string(path)
        .map_err(|source| TrainError::Io { path: path.to_owned(), source })?;
    let refuse = |reason: String| ModelError::Config { path: path.to_owned(), reason };
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| refuse(format!("not valid JSON: {e}")))?;
    let config = value.get("model_cfg").unwrap_or(&value);
    let architecture = Architecture::from_json(config, path)?;
    let size = architecture.vision.image_size();
    let preprocess = match value.get("preprocess_cfg") {
        Some(config) => Preprocess::from_json(config, size).map_err(refuse)?,
        None => Preprocess::openai(size),
    };
    Ok((architecture, preprocess))
}
