//! Checkpoints in and out: folders of open_clip and Hugging Face, and single weight files.

use crate::{
    Architecture, Arithmetic, Clip, ModelError, Parameters, Preprocess, Weights, hugging_face,
    outline::{Outline, read_config},
    parameters::conform,
    tower,
    weights::{Precision, write_atomically, write_safetensors},
};
use burn::tensor::Device;
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{io::Read, path::Path};

/// open_clip's name of the configuration file.
pub const CONFIG: &str = "open_clip_config.json";
/// open_clip's name of the weight file.
pub const WEIGHTS: &str = "open_clip_model.safetensors";

/// Names of weight files in a folder, the first that is there is meant (open_clip's order).
pub(crate) const WEIGHT_FILES: [&str; 10] = [
    WEIGHTS,
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "pytorch_model.pth",
    "model.pth",
];

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
    /// SHA-256 of the weight file (of all shards, one after the other), in hex.
    pub digest: String,
    /// Everything that should be known about the file.
    pub warnings: Vec<String>,
    /// How models that are built from it multiply.
    pub arithmetic: Arithmetic,
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
    /// Opens a model by its spelling: `embedded`, a folder of open_clip's or Hugging Face's
    /// layout, `ARCH@FILE`, a TorchScript archive as OpenAI published them, or `hf:ORG/NAME`, such
    /// a folder on Hugging Face's hub. `MODEL+FILE` is such a model with the picture tower of a
    /// file: so robust encoders are published.
    pub fn open(spelling: &str) -> Result<Self, ModelError> {
        if spelling == "embedded" {
            return Self::embedded();
        }
        if let Some((base, file)) = tower::split(spelling) {
            return tower::open(base, file);
        }
        Outline::read(spelling)?.load(spelling)
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
            arithmetic: Arithmetic::F32,
        })
    }

    /// Builds the model on a device.
    pub fn build(&self, device: &Device) -> Result<Clip, ModelError> {
        let parameters = Parameters::constant(&self.weights, device).computing(self.arithmetic);
        Clip::from_parameters(&self.architecture, &self.preprocess, &parameters, device)
    }

    /// As [`Checkpoint::build`], giving the weights away: they lie in memory once.
    pub fn into_clip(self, device: &Device) -> Result<Clip, ModelError> {
        let parameters = Parameters::moved(self.weights, device).computing(self.arithmetic);
        Clip::from_parameters(&self.architecture, &self.preprocess, &parameters, device)
    }

    /// Writes an open_clip folder; files appear under their final names when complete.
    ///
    /// # Errors
    /// A tower pair that open_clip's configuration cannot describe (two activations).
    pub fn save(&self, folder: &Path, precision: Precision) -> Result<(), ModelError> {
        if self.architecture.source.is_null() {
            return Err(ModelError::Write {
                reason: "open_clip's configuration cannot describe towers of two activations"
                    .to_owned(),
            });
        }
        let config = json!({
            "model_cfg": self.architecture.source,
            "preprocess_cfg": self.preprocess.to_json(),
        });
        write_folder(folder, (WEIGHTS, &self.weights), precision, &[(CONFIG, config)])
    }

    /// Writes a folder of Hugging Face's layout.
    ///
    /// # Errors
    /// An architecture that this layout has no words for, such as a ResNet.
    pub fn save_hugging_face(&self, folder: &Path, precision: Precision) -> Result<(), ModelError> {
        let config = hugging_face::config(&self.architecture)?;
        let weights = hugging_face::from_open_clip(&self.weights)?;
        let preprocessor = hugging_face::preprocessor(&self.preprocess);
        let files = [("preprocessor_config.json", preprocessor), (hugging_face::CONFIG, config)];
        write_folder(folder, ("model.safetensors", &weights), precision, &files)
    }
}

/// Weights first, what makes the folder a model last.
fn write_folder(
    folder: &Path,
    (name, weights): (&str, &Weights),
    precision: Precision,
    files: &[(&str, Value)],
) -> Result<(), ModelError> {
    let at = |source| ModelError::Io { path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(at)?;
    write_safetensors(&folder.join(name), weights, precision, Some(("format", "pt")))?;
    for (name, config) in files {
        write_atomically(&folder.join(name), format!("{config:#}\n").as_bytes())?;
    }
    Ok(())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
