//! Checkpoints in and out: open_clip folders and weight files.

use crate::{
    Architecture, Clip, ModelError, Preprocess, Weights,
    config::{architecture_names, suggestion},
    parameters::conform,
    weights::{Precision, map_file, read_safetensors, to_safetensors, write_atomically},
};
use burn::tensor::Device;
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// open_clip's name of the configuration file.
pub const CONFIG: &str = "open_clip_config.json";
/// open_clip's name of the weight file.
pub const WEIGHTS: &str = "open_clip_model.safetensors";

/// A checkpoint in memory: everything needed to build the model or to train on.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// What it was opened by, for records.
    pub name: String,
    /// Its architecture.
    pub architecture: Architecture,
    /// How pictures are prepared for it.
    pub preprocess: Preprocess,
    /// Weights that conform to the architecture.
    pub weights: Weights,
    /// SHA-256 of the weight file, in hex.
    pub digest: String,
    /// Everything that should be known about the file.
    pub warnings: Vec<String>,
}

/// The embedded model: an open_clip folder, the weights gzipped.
const EMBEDDED_CONFIG: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../assets/model/open_clip_config.json"
));
const EMBEDDED_WEIGHTS: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../assets/model/open_clip_model.safetensors.gz"
));

impl Checkpoint {
    /// Opens a model by its spelling: `embedded`, a folder, or `ARCH@FILE`.
    pub fn open(spelling: &str) -> Result<Self, ModelError> {
        if spelling == "embedded" {
            return Self::embedded();
        }
        let Outline { architecture, preprocess, weights } = Outline::read(spelling)?;
        Self::assemble(spelling, architecture, preprocess, &weights)
    }

    /// The model that travels with the program (see `assets/model/README.md`).
    pub fn embedded() -> Result<Self, ModelError> {
        let at = Path::new("embedded");
        let mut bytes = Vec::new();
        GzDecoder::new(EMBEDDED_WEIGHTS)
            .read_to_end(&mut bytes)
            .map_err(|source| ModelError::Io { path: at.to_owned(), source })?;
        let (architecture, preprocess) = read_config(EMBEDDED_CONFIG, at)?;
        let (weights, others) = crate::weights::parse_safetensors(&bytes, at)?;
        let (weights, warnings) = conform(weights, &others, &architecture, at)?;
        Ok(Self {
            name: "embedded".to_owned(),
            architecture,
            preprocess,
            weights,
            digest: hex(&Sha256::digest(&bytes)),
            warnings,
        })
    }

    fn assemble(
        name: &str,
        architecture: Architecture,
        preprocess: Preprocess,
        file: &Path,
    ) -> Result<Self, ModelError> {
        let digest = hex(&Sha256::digest(map_file(file)?));
        let (weights, others) = read_safetensors(file)?;
        let (weights, mut warnings) = conform(weights, &others, &architecture, file)?;
        warnings.extend(suspicious(&weights));
        Ok(Self { name: name.to_owned(), architecture, preprocess, weights, digest, warnings })
    }

    /// Builds the model on a device.
    pub fn build(&self, device: &Device) -> Result<Clip, ModelError> {
        Clip::new(&self.architecture, &self.preprocess, &self.weights, device)
    }

    /// Writes an open_clip folder; files appear under their final names when complete.
    pub fn save(&self, folder: &Path, precision: Precision) -> Result<(), ModelError> {
        let at = |source| ModelError::Io { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(at)?;
        let config = json!({
            "model_cfg": self.architecture.source,
            "preprocess_cfg": self.preprocess.to_json(),
        });
        let text = format!("{config:#}\n");
        let bytes = to_safetensors(&self.weights, precision, Some(("format", "pt")))?;
        write_atomically(&folder.join(WEIGHTS), &bytes)?;
        write_atomically(&folder.join(CONFIG), text.as_bytes())
    }
}

/// What a spelling names, before any weight is read.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The architecture.
    pub architecture: Architecture,
    /// How pictures are prepared.
    pub preprocess: Preprocess,
    /// The file that should hold the weights.
    pub weights: PathBuf,
}

impl Outline {
    /// Reads the configuration of an open_clip folder, or of `ARCH@FILE` (the embedded model has
    /// no file).
    pub fn read(spelling: &str) -> Result<Self, ModelError> {
        let path = Path::new(spelling);
        if path.is_dir() {
            return Self::of_folder(path);
        }
        if let Some((name, file)) = spelling.split_once('@') {
            let architecture = Architecture::named(name)?;
            let preprocess = Preprocess::openai(architecture.vision.image_size());
            return Ok(Self { architecture, preprocess, weights: PathBuf::from(file) });
        }
        let name = spelling.strip_suffix("-quickgelu").unwrap_or(spelling);
        let reason = match suggestion(name, architecture_names().iter()) {
            _ if path.is_file() => {
                "a weight file needs its architecture: `ARCH@FILE` (for example \
                                    `ViT-B-32@weights.safetensors`)"
                    .to_owned()
            }
            Some(known) if known == name => {
                format!("an architecture has no weights; give them as `{known}@FILE`")
            }
            Some(near) => format!("no such model; did you mean the architecture `{near}`?"),
            None => {
                "no such model; expected `embedded`, an open_clip folder, or `ARCH@FILE`".to_owned()
            }
        };
        Err(ModelError::Spelling { spelling: spelling.to_owned(), reason })
    }

    fn of_folder(folder: &Path) -> Result<Self, ModelError> {
        let config = folder.join(CONFIG);
        if !config.is_file() {
            return Err(ModelError::File {
                path: folder.to_owned(),
                reason: format!("no `{CONFIG}` in this folder"),
            });
        }
        let (architecture, preprocess) = read_config(&map_file(&config)?, &config)?;
        let weights = [
            "open_clip_model.safetensors",
            "open_clip_pytorch_model.safetensors",
            "model.safetensors",
        ]
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| ModelError::File {
            path: folder.to_owned(),
            reason: format!("no weights in this folder; expected `{WEIGHTS}`"),
        })?;
        Ok(Self { architecture, preprocess, weights })
    }
}

fn read_config(bytes: &[u8], at: &Path) -> Result<(Architecture, Preprocess), ModelError> {
    let refuse = |reason: String| ModelError::Config { path: at.to_owned(), reason };
    let value: Value =
        serde_json::from_slice(bytes).map_err(|e| refuse(format!("not valid JSON: {e}")))?;
    let architecture = Architecture::from_json(&value["model_cfg"], at)?;
    let size = architecture.vision.image_size();
    let preprocess = Preprocess::from_json(&value["preprocess_cfg"], size)
        .map_err(|reason| refuse(format!("in `preprocess_cfg`: {reason}")))?;
    Ok((architecture, preprocess))
}

/// Weights that load but make every result meaningless.
fn suspicious(weights: &Weights) -> Vec<String> {
    let mut warnings = Vec::new();
    for name in ["visual.proj", "text_projection", "text.text_projection"] {
        if weights.get(name).is_some_and(|a| a.data.iter().all(|v| *v == 0.0)) {
            warnings.push(format!("`{name}` is all zero: every embedding is zero"));
        }
    }
    if let Some(scale) = weights.get("logit_scale").and_then(|a| a.data.first())
        && *scale > 100f32.ln() + 1e-3
    {
        warnings.push(format!("logit_scale {scale} exceeds ln 100, CLIP's clamp"));
    }
    warnings
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
