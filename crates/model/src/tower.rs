//! The picture tower of a file over another model.
//!
//! Robust encoders (TeCoA, FARE) are published as the picture tower alone: the text tower is that
//! of the model they were tuned from. Their files have the tower's keys with `visual.` in front or
//! without it.

use crate::{
    Checkpoint, Container, ModelError, Weights,
    checkpoint::hex,
    outline::read_weights,
    parameters::{conform, is_harmless},
};
use sha2::{Digest, Sha256};
use std::path::Path;

/// The prefix of the picture tower's parameters.
const VISUAL: &str = "visual.";

/// Model and file of a spelling `MODEL+FILE`, if it is one: a path may have a plus in it.
pub(crate) fn split(spelling: &str) -> Option<(&str, &Path)> {
    if Path::new(spelling).exists() {
        return None;
    }
    let pluses = spelling.match_indices('+').map(|(at, _)| at);
    let mut pairs = pluses.map(|at| (&spelling[..at], Path::new(&spelling[at + 1..])));
    pairs.find(|(base, file)| !base.is_empty() && file.is_file())
}

/// `base` with the picture tower of `file`.
///
/// # Errors
/// What is wrong with either; a file that is no picture tower, or one of another architecture.
pub(crate) fn open(base: &str, file: &Path) -> Result<Checkpoint, ModelError> {
    let base = Checkpoint::open(base)?;
    let container = Container::open(file)?;
    let (tower, digest) = read_weights(&container)?;
    let tower = named(tower, file)?;
    let mut weights = base.weights;
    weights.retain(|name, _| !name.starts_with(VISUAL));
    weights.extend(tower);
    let (weights, about) = conform(weights, &[], &base.architecture, file)?;
    let mut warnings = base.warnings;
    warnings.extend(container.warnings);
    warnings.extend(about);
    let digest = hex(&Sha256::digest(format!("{} {digest}", base.digest)));
    let name = format!("{}+{}", base.name, file.display());
    Ok(Checkpoint { name, weights, digest, warnings, ..base })
}

/// The tower's parameters under open_clip's names.
fn named(weights: Weights, file: &Path) -> Result<Weights, ModelError> {
    let refuse = |reason: &str| ModelError::File { path: file.to_owned(), reason: reason.into() };
    let texts = ["token_embedding.weight", "text.token_embedding.weight", "text_projection"];
    if texts.iter().any(|name| weights.contains_key(*name)) {
        return Err(refuse(
            "a whole model, text tower included: open it by itself (`ARCH@FILE`), not over another",
        ));
    }
    let prefixed = weights.keys().any(|name| name.starts_with(VISUAL));
    let own = |name: &String| name.starts_with(VISUAL) || !prefixed && !is_harmless(name);
    // Beside a prefixed tower lie the scale and the like; the base has its own.
    let tower: Weights = weights
        .into_iter()
        .filter(|(name, _)| own(name))
        .map(|(name, array)| (if prefixed { name } else { format!("{VISUAL}{name}") }, array))
        .collect();
    match tower.is_empty() {
        true => Err(refuse("no picture tower in this file: no key begins with `visual.`")),
        false => Ok(tower),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Array, Precision, weights::write_safetensors};
    use std::path::PathBuf;

    /// The embedded model's picture tower, halved, in a file; keys as `rename` makes them.
    fn halved(folder: &Path, rename: impl Fn(&str) -> Option<String>) -> PathBuf {
        let model = Checkpoint::embedded().unwrap();
        let half = |array: &Array| {
            Array::new(array.shape.clone(), array.data.iter().map(|v| v / 2.0).collect())
        };
        let tower: Weights = model
            .weights
            .iter()
            .filter_map(|(name, array)| Some((rename(name)?, half(array))))
            .collect();
        let path = folder.join("robust+2.safetensors");
        write_safetensors(&path, &tower, Precision::F32, None).unwrap();
        path
    }

    #[test]
    fn a_tower_replaces_that_of_its_base_and_nothing_else() {
        let base = Checkpoint::embedded().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let prefixed = |name: &str| name.starts_with(VISUAL).then(|| name.to_owned());
        let bare = |name: &str| name.strip_prefix(VISUAL).map(str::to_owned);
        for rename in [&prefixed as &dyn Fn(&str) -> Option<String>, &bare] {
            let file = halved(folder.path(), rename);
            let spelling = format!("embedded+{}", file.display());
            let model = Checkpoint::open(&spelling).unwrap();
            assert_eq!(model.name, spelling);
            assert_ne!(model.digest, base.digest);
            assert_eq!(model.weights.len(), base.weights.len());
            for (name, array) in &model.weights {
                let factor = if name.starts_with(VISUAL) { 2.0 } else { 1.0 };
                let same = array.data.iter().zip(&base.weights[name].data);
                assert!(same.into_iter().all(|(a, b)| a * factor == *b), "{name}");
            }
        }
    }

    #[test]
    fn other_files_are_refused_with_what_would_be_right() {
        let folder = tempfile::tempdir().unwrap();
        let say = |rename: &dyn Fn(&str) -> Option<String>| {
            let file = halved(folder.path(), rename);
            let spelling = format!("embedded+{}", file.display());
            Checkpoint::open(&spelling).unwrap_err().to_string()
        };
        assert!(say(&|name| Some(name.to_owned())).contains("a whole model"));
        assert!(say(&|_| None).contains("no picture tower"));
        let partly = |name: &str| (name == "visual.conv1.weight").then(|| name.to_owned());
        assert!(say(&partly).contains("missing: "));
        // A name with a plus that is a file or nothing is not split.
        assert_eq!(split("a+b"), None);
        let file = halved(folder.path(), partly);
        assert_eq!(split(file.to_str().unwrap()), None);
    }
}
