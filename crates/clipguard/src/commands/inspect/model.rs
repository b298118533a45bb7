//! Models: architecture, weights, preprocessing.

use super::{Section, bytes};
use crate::{
    failure::Failure,
    output::{WIDTH, print, print_json},
    session::Session,
};
use clipguard_data::{Fit, Interpolation};
use clipguard_evaluate::report::{Cell, Table};
use clipguard_model::{
    Architecture, Checkpoint, Container, Preprocess,
    config::{Vision, architecture_names},
    container::Format,
    outline::Outline,
    parameters::parameter_counts,
};
use serde_json::json;
use std::path::Path;

/// Weight files up to this size are read completely without being asked.
const SMALL: u64 = 256 << 20;

/// The model that travels with the program.
pub(super) fn embedded() -> Result<Section, Failure> {
    let checkpoint = Checkpoint::embedded()?;
    let mut section = Section::new("the embedded model");
    describe(&mut section, &checkpoint.architecture, &checkpoint.preprocess, "its configuration");
    read(&mut section, checkpoint);
    Ok(section)
}

/// Whether a file tells its architecture itself, as OpenAI's archives do.
pub(super) fn is_whole(path: &Path) -> bool {
    Container::open(path).is_ok_and(|container| container.format == Format::TorchScript)
}

/// A folder of open_clip or Hugging Face, `ARCH@FILE`, or a TorchScript archive.
pub(super) fn section(spelling: &str, deep: bool) -> Result<Section, Failure> {
    let outline = Outline::read(spelling)?;
    let kind = match spelling.split_once('@') {
        _ if Path::new(spelling).is_dir() => format!("CLIP model, folder with {}", outline.origin),
        _ if spelling.starts_with("hf:") => format!("CLIP model, {}", outline.origin),
        Some((name, _)) => format!("CLIP weights for the built-in architecture {name}"),
        None => "CLIP model in a single file".to_owned(),
    };
    let mut section = Section::new(kind);
    describe(&mut section, &outline.architecture, &outline.preprocess, &outline.origin);
    let container = &outline.container;
    let size = size(container)?;
    section.told("file", json!(container.path), container.path.display().to_string());
    section.fact("container", container.format.to_string());
    dtypes(&mut section, container);
    section.told("bytes", size, bytes(size));
    if deep || size <= SMALL {
        read(&mut section, outline.load(spelling)?);
    } else {
        outline.check()?;
        section.warnings = outline.container.warnings;
        let text = "not computed; `--deep` reads all weights, for it and for numbers not finite";
        section.told("sha256", serde_json::Value::Null, text);
    }
    Ok(section)
}

/// Bytes of all files of a container.
pub(super) fn size(container: &Container) -> Result<u64, Failure> {
    let size = |path: &Path| match std::fs::metadata(path) {
        Ok(data) => Ok(data.len()),
        Err(error) => Err(Failure::reading(path, &error)),
    };
    container.files().map(size).sum()
}

/// What only the numbers tell.
fn read(section: &mut Section, checkpoint: Checkpoint) {
    let scale = checkpoint.weights.get("logit_scale").and_then(|a| a.data.first());
    if let Some(scale) = scale {
        let exp = f64::from(scale.exp());
        section.told("logit scale", exp, format!("{exp:.2}"));
    }
    section.fact("sha256", checkpoint.digest);
    section.warnings = checkpoint.warnings;
}

/// Element types and how many tensors have each.
pub(super) fn dtypes(section: &mut Section, container: &Container) {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    container.entries.values().for_each(|e| *counts.entry(e.dtype.name()).or_default() += 1);
    let words: Vec<String> = counts.iter().map(|(name, n)| format!("{name} ({n})")).collect();
    section.told("dtypes", json!(counts), words.join(", "));
}

fn describe(section: &mut Section, arch: &Architecture, prepare: &Preprocess, origin: &str) {
    let (picture, text) = words(arch);
    section.fact("picture tower", picture);
    section.fact("text tower", text);
    section.fact("embedding", arch.embed_dim as u64);
    let activation = arch.activation_name();
    let source = match arch.source.get("quick_gelu") {
        Some(value) => format!("{activation} (quick_gelu = {value} in {origin})"),
        None => format!("{activation} (open_clip's default; no quick_gelu in {origin})"),
    };
    section.told("activation", activation, source);
    let (all, vision) = parameter_counts(arch);
    let count = |n: usize| Cell::Count(n as u64).plain();
    section.told(
        "parameters",
        json!({ "all": all, "picture": vision }),
        format!("{}, of these {} for pictures", count(all), count(vision)),
    );
    let resize = &prepare.resize;
    let fit = match resize.mode {
        Fit::Shortest => "shorter side, then centre crop",
        Fit::Longest => "longer side, then padding",
        Fit::Squash => "both sides, squashed",
    };
    let how = match resize.interpolation {
        Interpolation::Bicubic => "bicubic",
        Interpolation::Bilinear => "bilinear",
    };
    let triple = |v: &[f32; 3]| v.map(|x| format!("{x:.4}")).join(" ");
    section.told(
        "preprocessing",
        prepare.to_json(),
        format!(
            "{} pixels, {how}, {fit}; mean {}, std {}",
            resize.size,
            triple(&prepare.mean),
            triple(&prepare.std)
        ),
    );
}

/// Both towers in words.
fn words(arch: &Architecture) -> (String, String) {
    let picture = match &arch.vision {
        Vision::Vit { image_size, patch, transformer: t, .. } => format!(
            "vision transformer, {image_size} pixels in patches of {patch}; {} layers of width {}, \
             {} heads",
            t.layers, t.width, t.heads
        ),
        Vision::ResNet { image_size, layers, width, heads } => format!(
            "ResNet, {image_size} pixels; {} blocks from width {width}, attention pool of {heads} \
             heads",
            layers.map(|n| n.to_string()).join("+")
        ),
    };
    let t = &arch.text;
    let text = format!(
        "transformer, {} tokens of {}; {} layers of width {}, {} heads",
        t.context, t.vocabulary, t.transformer.layers, t.transformer.width, t.transformer.heads
    );
    (picture, text)
}

/// `--architectures`.
pub(super) fn architectures(session: &Session) -> Result<(), Failure> {
    let mut table =
        Table::new("", &["architecture", "embedding", "pixels", "parameters", "for pictures"]);
    let mut rows = Vec::new();
    for name in architecture_names() {
        let arch = Architecture::named(&name)?;
        let (all, picture) = parameter_counts(&arch);
        let pixels = arch.vision.image_size();
        let counts = [arch.embed_dim, pixels, all, picture].map(|n| Cell::Count(n as u64));
        rows.push(json!({
            "name": name,
            "embed_dim": arch.embed_dim,
            "image_size": pixels,
            "parameters": { "all": all, "picture": picture },
        }));
        table.row([Cell::Text(name)].into_iter().chain(counts).collect());
    }
    if session.json {
        return print_json(&rows);
    }
    table.note =
        "`NAME-quickgelu` is the same with QuickGELU, as OpenAI's own weights need it.".to_owned();
    print(&table.text(WIDTH))
}
