//! The pictures behind a worst case, as one file that others can check.

use crate::{
    EvaluateError,
    run::adversarial::{Origin, save},
    run::evidence::Part,
    run::schedule::StageHead,
    run::summary::Unit,
    run::unit_file::UnitFile,
};
use burn::tensor::{Device, Tensor, TensorData};
use clipguard_data::file_name;
use std::path::Path;

/// Writes, for every sample that was broken, the first picture that broke it, to
/// `adversarial/NUMBER-DEFENCE.safetensors`; nothing where nothing was broken.
pub(crate) fn hand_out(
    folder: &Path,
    (number, defence, seed): (usize, &str, u64),
    head: &StageHead,
    clean: &Unit,
    parts: &[(Part, Unit)],
) -> Result<(), EvaluateError> {
    let size = head.shape.iter().product();
    let mut files = Vec::new();
    for (part, unit) in parts {
        if let Some(stem) = &part.pictures {
            files.push((UnitFile::open(stem, size)?, unit));
        }
    }
    let (mut keys, mut rows) = (Vec::new(), Vec::new());
    for i in (0..head.samples.len()).filter(|&i| clean.lines[i].right) {
        if let Some((file, _)) = files.iter().find(|(_, unit)| !unit.lines[i].right) {
            keys.push(head.samples[i].key.clone());
            rows.extend(file.pictures(i..i + 1)?);
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let place = folder.join("adversarial");
    std::fs::create_dir_all(&place)
        .map_err(|e| EvaluateError::Folder { path: place.clone(), reason: e.to_string() })?;
    let [c, h, w] = head.shape;
    let data = TensorData::new(rows, [keys.len(), c, h, w]);
    let pixels = Tensor::<4>::from_data(data, &Device::flex());
    let attack = "worst-case".to_owned();
    let origin = Origin { keys, attack, model: head.weights.clone(), seed };
    save(&place.join(format!("{number}-{}.safetensors", file_name(defence))), &pixels, &origin)
}
