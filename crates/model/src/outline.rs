//! What a spelling names: architecture, preparation of pictures, and the index of the weights.

use crate::{
    Architecture, Arithmetic, Array, Checkpoint, Container, ModelError, Preprocess, Weights,
    checkpoint::{CONFIG, WEIGHT_FILES, WEIGHTS, hex},
    config::{architecture_names, suggestion},
    container::{Format, strict},
    hub, hugging_face, infer,
    parameters::{conform, is_harmless},
    weights::map_file,
};
use sha2::{Digest, Sha256};
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// What a spelling names, before any weight is read.
#[derive(Debug)]
pub struct Outline {
    /// The architecture.
    pub architecture: Architecture,
    /// How pictures are prepared.
    pub preprocess: Preprocess,
    /// Where the architecture was found, for people.
    pub origin: String,
    /// The weights, their index read and checked.
    pub container: Container,
}

impl Outline {
    /// Reads the configuration of a folder, of `ARCH@FILE`, of a TorchScript archive, or of a
    /// repository on the hub, which is fetched for it (the embedded model has no file).
    pub fn read(spelling: &str) -> Result<Self, ModelError> {
        let path = Path::new(spelling);
        if path.is_dir() {
            return Self::of_folder(path);
        }
        if path.is_file() {
            return Self::of_file(path);
        }
        if let Some(repository) = spelling.strip_prefix("hf:") {
            let (folder, warnings) = hub::fetch(repository)?;
            let mut outline = Self::of_folder(&folder)?;
            outline.container.warnings.splice(0..0, warnings);
            outline.origin.push_str(", from the hub");
            return Ok(outline);
        }
        if let Some((name, file)) = spelling.split_once('@') {
            let architecture = Architecture::named(name)?;
            let preprocess = Preprocess::openai(architecture.vision.image_size());
            let container = Container::open(Path::new(file))?;
            let origin = "the architecture's name".to_owned();
            return Ok(Self { architecture, preprocess, origin, container });
        }
        let name = spelling.strip_suffix("-quickgelu").unwrap_or(spelling);
        let reason = match suggestion(name, architecture_names().iter()) {
            Some(known) if known == name => {
                format!("an architecture has no weights; give them as `{known}@FILE`")
            }
            Some(near) => format!("no such model; did you mean the architecture `{near}`?"),
            None => "no such model; expected `embedded`, a folder of open_clip or Hugging Face, \
                     `ARCH@FILE`, a TorchScript archive, or `hf:ORG/NAME`"
                .to_owned(),
        };
        Err(ModelError::Spelling { spelling: spelling.to_owned(), reason })
    }

    /// A single file tells its architecture only if OpenAI published it.
    fn of_file(path: &Path) -> Result<Self, ModelError> {
        let container = Container::open(path)?;
        if container.format != Format::TorchScript {
            return Err(ModelError::Spelling {
                spelling: path.display().to_string(),
                reason: "a weight file needs its architecture, and with it its activation: \
                         `ARCH@FILE` (for example `ViT-B-32-quickgelu@weights.pt`)"
                    .to_owned(),
            });
        }
        let architecture = infer::architecture(&container.entries, true, path)?;
        let preprocess = Preprocess::openai(architecture.vision.image_size());
        let origin = "the shapes in a TorchScript archive, OpenAI's way, with its QuickGELU";
        Ok(Self { architecture, preprocess, origin: origin.to_owned(), container })
    }

    fn of_folder(folder: &Path) -> Result<Self, ModelError> {
        let (own, theirs) = (folder.join(CONFIG), folder.join(hugging_face::CONFIG));
        let (architecture, preprocess, origin) = if own.is_file() {
            let (architecture, preprocess) = read_config(&map_file(&own)?, &own)?;
            (architecture, preprocess, CONFIG)
        } else if theirs.is_file() {
            let (architecture, preprocess) = read_hugging_face(folder, &theirs)?;
            (architecture, preprocess, hugging_face::CONFIG)
        } else {
            return Err(ModelError::File {
                path: folder.to_owned(),
                reason: format!(
                    "neither `{CONFIG}` (open_clip) nor `{}` (Hugging Face) in this folder",
                    hugging_face::CONFIG
                ),
            });
        };
        let (file, warning) = weight_file(folder)?;
        let mut container = Container::open(&file)?;
        container.warnings.extend(warning);
        Ok(Self { architecture, preprocess, origin: origin.to_owned(), container })
    }

    /// The entries of the container under open_clip's names, without reading any weight.
    ///
    /// # Errors
    /// A tensor that is missing, unknown or of another shape.
    pub fn check(&self) -> Result<(), ModelError> {
        if hugging_face::is_layout(self.container.entries.keys()) {
            // Its names map one to one only together with the data.
            return Ok(());
        }
        self.container.fits(&self.architecture)
    }

    /// Reads the weights.
    pub fn load(self, name: &str) -> Result<Checkpoint, ModelError> {
        let Self { architecture, preprocess, container, .. } = self;
        let path = container.path.clone();
        let (weights, digest) = read_weights(&container)?;
        let weights = match hugging_face::is_layout(weights.keys()) {
            true => hugging_face::to_open_clip(weights, &path)?,
            false => weights,
        };
        let mut warnings = container.warnings;
        if container.entries.values().any(|e| e.dtype == crate::container::Dtype::F64) {
            warnings.push("weights of 64 bits are narrowed to 32".to_owned());
        }
        let (weights, about) = conform(weights, &[], &architecture, &path)?;
        warnings.extend(about);
        warnings.extend(suspicious(&weights));
        Ok(Checkpoint {
            name: name.to_owned(),
            architecture,
            preprocess,
            weights,
            digest,
            warnings,
            arithmetic: Arithmetic::F32,
        })
    }
}

/// Reads and checks every tensor of a container; with its digest.
pub(crate) fn read_weights(container: &Container) -> Result<(Weights, String), ModelError> {
    let path = &container.path;
    let refuse = |code, reason: String| ModelError::Container { path: path.clone(), code, reason };
    for (name, entry) in &container.entries {
        let counts = name.ends_with("num_batches_tracked");
        if !entry.dtype.is_float() && !counts && !is_harmless(name) {
            let (name, dtype) = (clipguard_data::shown(name), entry.dtype.name());
            let reason = format!("tensor `{name}` holds {dtype}: weights are floats");
            return Err(refuse("unsupported_dtype", reason));
        }
    }
    let digest = digest(container)?;
    let weights = container.read()?;
    for (name, array) in &weights {
        believable(name, array).map_err(|(code, reason)| refuse(code, reason))?;
    }
    Ok((weights, digest))
}

/// The file in a folder that holds the weights, and a warning when it had to be guessed.
fn weight_file(folder: &Path) -> Result<(PathBuf, Option<String>), ModelError> {
    if let Some(known) = WEIGHT_FILES.iter().map(|n| folder.join(n)).find(|p| p.is_file()) {
        return Ok((known, None));
    }
    let io = |source| ModelError::Io { path: folder.to_owned(), source };
    let mut others: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(io)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .collect();
    others.sort();
    let with = |extensions: &[&str]| {
        let fits = |p: &&PathBuf| {
            p.extension().is_some_and(|e| extensions.iter().any(|x| e.eq_ignore_ascii_case(x)))
        };
        others.iter().find(fits).cloned()
    };
    match with(&["safetensors"]).or_else(|| with(&["bin", "pt", "pth", "ckpt"])) {
        Some(path) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let warning = format!("no weight file of a usual name: `{name}` is taken");
            Ok((path, Some(warning)))
        }
        None => Err(ModelError::Container {
            path: folder.to_owned(),
            code: "missing_file",
            reason: format!("no weights in this folder; expected `{WEIGHTS}`"),
        }),
    }
}

pub(crate) fn read_config(
    bytes: &[u8],
    at: &Path,
) -> Result<(Architecture, Preprocess), ModelError> {
    let refuse = |reason: String| ModelError::Config { path: at.to_owned(), reason };
    let value = strict(bytes, "the configuration").map_err(|r| refuse(r.reason))?;
    let architecture = Architecture::from_json(&value["model_cfg"], at)?;
    let size = architecture.vision.image_size();
    let preprocess = Preprocess::from_json(&value["preprocess_cfg"], size)
        .map_err(|reason| refuse(format!("in `preprocess_cfg`: {reason}")))?;
    Ok((architecture, preprocess))
}

fn read_hugging_face(
    folder: &Path,
    config: &Path,
) -> Result<(Architecture, Preprocess), ModelError> {
    let json = |path: &Path| {
        let refuse = |reason: String| ModelError::Config { path: path.to_owned(), reason };
        strict(&map_file(path)?, "the configuration").map_err(|r| refuse(r.reason))
    };
    let architecture = hugging_face::architecture(&json(config)?, config)?;
    let size = architecture.vision.image_size();
    let preprocessor = folder.join("preprocessor_config.json");
    if !preprocessor.is_file() {
        return Ok((architecture, Preprocess::openai(size)));
    }
    let preprocess = hugging_face::preprocess(&json(&preprocessor)?, size)
        .map_err(|reason| ModelError::Config { path: preprocessor, reason })?;
    Ok((architecture, preprocess))
}

/// SHA-256 over the files of a container, read piece by piece.
fn digest(container: &Container) -> Result<String, ModelError> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    for path in container.files() {
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let mut file = std::fs::File::open(path).map_err(io)?;
        loop {
            match file.read(&mut piece).map_err(io)? {
                0 => break,
                n => hash.update(&piece[..n]),
            }
        }
    }
    Ok(hex(&hash.finalize()))
}

/// Numbers that make a model compute nothing.
fn believable(name: &str, array: &Array) -> Result<(), (&'static str, String)> {
    let shown = clipguard_data::shown(name);
    if let Some(at) = array.data.iter().position(|v| !v.is_finite()) {
        let reason = format!(
            "tensor `{shown}` holds {} at index {at}: a model with such weights computes nothing",
            array.data[at]
        );
        return Err(("non_finite", reason));
    }
    if name.ends_with("running_var") && array.data.iter().any(|v| *v < 0.0) {
        return Err(("bad_value", format!("tensor `{shown}` holds a negative variance")));
    }
    Ok(())
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
