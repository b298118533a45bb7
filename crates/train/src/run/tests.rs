//! Steps of a whole model against the reference, and what a step may not do.

use super::*;
use crate::gradients::global_norm;
use crate::reader::{Golden, distance};
use clipguard_model::Weights;

const FOLDER: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/clip/models/vit_quickgelu");

/// The recipe of the golden `train3`.
fn recipe() -> Recipe {
    Recipe {
        model: FOLDER.to_owned(),
        data: "scenes:8".to_owned(),
        steps: 10,
        batch: 3,
        lr: 1e-2,
        warmup: 2,
        weight_decay: 0.2,
        beta1: 0.9,
        beta2: 0.98,
        epsilon: 1e-6,
        ..Recipe::default()
    }
}

fn run_of(recipe: Recipe, change: impl FnOnce(&mut Weights)) -> Run {
    let source = clipguard_data::open(&recipe.data, &clipguard_data::Options::default()).unwrap();
    let mut run = Run::begin(recipe, source, Path::new("nowhere")).unwrap();
    change(&mut run.state.weights);
    run
}

/// The three pictures and texts of the golden model.
fn golden_batch() -> Batch {
    let golden = Golden::open("clip/models/vit_quickgelu", "expect");
    let (shape, values) = golden.numbers("pictures_u8");
    let plane = shape[2] * shape[3];
    let pictures = values
        .chunks(3 * plane)
        .map(|planes| (0..3 * plane).map(|i| planes[i % 3 * plane + i / 3] as u8).collect())
        .collect();
    let (shape, ids) = golden.numbers("tokens");
    let tokens =
        ids.chunks(shape[1]).map(|row| row.iter().map(|id| *id as u32).collect()).collect();
    Batch { pictures, tokens, ..Batch::default() }
}

/// Gradients, decay groups, schedule, optimiser and clamp together: `train3.*` of the goldens.
#[test]
fn three_steps_of_a_whole_model_equal_the_reference() {
    let golden = Golden::open("clip", "misc_expect");
    let facts: serde_json::Value = serde_json::from_str(include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/clip/misc.json"
    )))
    .unwrap();
    let numbers = |key: &str| -> Vec<f64> {
        facts["train3"][key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    };
    let losses = numbers("loss_before_each_step_and_after_the_last");
    let scales = numbers("logit_scale_after_each_step");

    // Above ln 100, so that the clamp acts after the first step.
    let mut run = run_of(recipe(), |weights| weights.get_mut("logit_scale").unwrap().data[0] = 4.7);
    let no_decay: Vec<&str> =
        facts["train3"]["no_decay"].as_array().unwrap().iter().filter_map(|v| v.as_str()).collect();
    for (name, array) in &run.state.weights {
        let want = !no_decay.contains(&name.as_str());
        assert_eq!(crate::decays(name, &array.shape), want, "{name}");
    }

    let batch = golden_batch();
    for (step, (loss, scale)) in losses.iter().zip(&scales).enumerate() {
        let done = run.one_step(&batch).unwrap();
        assert!((f64::from(done.loss) / loss - 1.0).abs() < 1e-4, "step {step}: {}", done.loss);
        let found = done.scale.unwrap();
        assert!((f64::from(found) - scale).abs() < 2e-5, "step {step}: {found}");
    }
    let mut compared = 0;
    for key in golden.names() {
        let Some(name) = key.strip_prefix("train3.") else { continue };
        let got: Vec<f64> = run.state.weights[name].data.iter().map(|v| f64::from(*v)).collect();
        let off = distance(&got, &golden.flat(&key));
        assert!(off < 2e-5, "{name}: off by {off:e}");
        compared += 1;
    }
    assert_eq!(compared, 5);
    let last = run.one_step(&batch).unwrap();
    assert!((f64::from(last.loss) / losses[3] - 1.0).abs() < 1e-4, "{}", last.loss);
}

#[test]
fn clipping_bounds_the_step_and_tells_the_norm_before() {
    let batch = golden_batch();
    let norms = |clip_norm| {
        let mut run = run_of(Recipe { clip_norm, ..recipe() }, |_| {});
        let norm = run.one_step(&batch).unwrap().norm;
        (norm, global_norm(&run.state.first.into_iter().map(|(n, a)| (n, a.data)).collect()))
    };
    let ((free, first), (told, clipped)) = (norms(0.0), norms(0.25));
    assert_eq!(free, told);
    assert!(free > 0.25);
    // The first moment after one step is a tenth of the gradient.
    assert!((first / (0.1 * free) - 1.0).abs() < 1e-5);
    assert!((clipped / (0.1 * 0.25) - 1.0).abs() < 1e-4);
}

#[test]
fn a_batch_without_pairs_is_refused_with_the_reason() {
    let run = run_of(recipe(), |_| {});
    let batch = Batch {
        skipped: vec![("cat.png".to_owned(), "is truncated".to_owned())],
        ..Batch::default()
    };
    let text = run.starved(&batch).to_string();
    assert!(text.contains("cat.png: is truncated") && text.contains("scenes:8"), "{text}");
}
