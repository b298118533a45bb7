//! The architecture behind a state dictionary that came without configuration.

use crate::{Architecture, ModelError, config, container::Entry, parameters::entries};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Shapes by open_clip's names.
type Shapes<'a> = &'a BTreeMap<String, Entry>;

/// Finds the architecture of OpenAI's layout from the shapes. The activation cannot be seen in
/// them, so the caller has to know it.
///
/// Built-in architectures come first: the width of a head cannot be seen either, and what is not 64
/// would load and compute something else.
///
/// # Errors
/// When the shapes fit no built-in architecture and no CLIP of OpenAI's kind with heads of 64.
pub(crate) fn architecture(
    shapes: Shapes<'_>,
    quick_gelu: bool,
    at: &Path,
) -> Result<Architecture, ModelError> {
    let mut source = guess(shapes).ok_or_else(|| ModelError::File {
        path: at.to_owned(),
        reason: "the architecture cannot be told from these tensors; give it as `ARCH@FILE`"
            .to_owned(),
    })?;
    for name in config::architecture_names() {
        let name = if quick_gelu { format!("{name}-quickgelu") } else { name };
        let known = Architecture::named(&name)?;
        if fits(shapes, &known) {
            return Ok(known);
        }
    }
    source["quick_gelu"] = json!(quick_gelu);
    Architecture::from_json(&source, at)
}

/// Whether every parameter is there in its shape.
fn fits(shapes: Shapes<'_>, architecture: &Architecture) -> bool {
    entries(architecture).iter().filter(|e| !e.is_buffer()).all(|entry| {
        let found = shapes.get(&entry.name).map(|found| found.shape.as_slice());
        found == Some(&entry.shape) || (entry.shape.is_empty() && found == Some(&[1]))
    })
}

fn guess(shapes: Shapes<'_>) -> Option<Value> {
    let dim = |name: &str, axis: usize| shapes.get(name)?.shape.get(axis).copied();
    let rows = |name: &str| dim(name, 0);
    let root = |n: usize| (0..=n).find(|r| r * r == n);
    let parts = |prefix: &str, position: usize| -> usize {
        let names = shapes.keys().filter(|name| name.starts_with(prefix));
        names.filter_map(|name| name.split('.').nth(position)).collect::<BTreeSet<_>>().len()
    };
    let vision = if shapes.contains_key("visual.proj") {
        let patch = dim("visual.conv1.weight", 3)?;
        json!({
            "image_size": patch * root(rows("visual.positional_embedding")?.checked_sub(1)?)?,
            "layers": parts("visual.transformer.resblocks.", 3),
            "width": rows("visual.conv1.weight")?,
            "head_width": 64,
            "patch_size": patch,
        })
    } else {
        let positions = rows("visual.attnpool.positional_embedding")?;
        let layers = [1, 2, 3, 4].map(|stage| parts(&format!("visual.layer{stage}."), 2));
        json!({
            "image_size": 32 * root(positions.checked_sub(1)?)?,
            "layers": layers,
            "width": rows("visual.layer1.0.conv1.weight")?,
            "head_width": 64,
            "patch_size": null,
        })
    };
    let width = rows("ln_final.weight")?;
    Some(json!({
        "embed_dim": dim("text_projection", 1)?,
        "vision_cfg": vision,
        "text_cfg": {
            "context_length": rows("positional_embedding")?,
            "vocab_size": rows("token_embedding.weight")?,
            "width": width,
            "heads": (width / 64).max(1),
            "layers": parts("transformer.resblocks.", 2),
        },
    }))
}
