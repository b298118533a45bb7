//! Parts against the whole, and both against the reference.

use super::*;
use crate::{
    ClipObjective, Recipe, SiglipRecipe, Start,
    gradients::global_norm,
    objective,
    reader::{Golden, distance},
};
use clipguard_model::{BatchStatistics, Parameters, parameters::is_buffer};
use std::{collections::BTreeSet, path::Path};

fn golden_folder(model: &str) -> String {
    format!("{}/../../tests/golden/clip/models/{model}", env!("CARGO_MANIFEST_DIR"))
}

/// The pictures and texts of a golden model.
fn golden_batch(model: &str) -> Batch {
    let golden = Golden::open(&format!("clip/models/{model}"), "expect");
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

/// Eleven pairs for a model: pictures of bytes in no order, texts of all lengths.
fn batch(start: &Start) -> Batch {
    let side = start.preprocess.resize.size as usize;
    let context = start.architecture.text.context;
    let end = start.architecture.text.vocabulary as u32 - 1;
    let byte = |i: usize, row: usize| ((i * 2_654_435_761 + row * 40_503) >> 7) as u8;
    let picture = |row: usize| (0..3 * side * side).map(|i| byte(i, row)).collect();
    let text = |row: usize| {
        let length = 1 + row % (context - 1);
        let id = |t: usize| if t < length { (t * 7 + row * 3) as u32 % (end - 1) } else { 0 };
        (0..context).map(|t| if t == length { end } else { id(t) }).collect()
    };
    Batch {
        pictures: (0..11).map(picture).collect(),
        tokens: (0..11).map(text).collect(),
        ..Batch::default()
    }
}

struct Found {
    loss: f32,
    gradients: Gradients,
    statistics: usize,
}

fn found(objective: &dyn Objective, start: &Start, batch: &Batch, rows: usize) -> Found {
    found_of(objective, start, batch, rows, |name| !is_buffer(name))
}

fn found_of(
    objective: &dyn Objective,
    start: &Start,
    batch: &Batch,
    rows: usize,
    trained: impl Fn(&str) -> bool,
) -> Found {
    let device = crate::reader::device().autodiff();
    let parameters = Parameters::with(&start.weights, &device, trained);
    let (seen, none) = (RefCell::new(BatchStatistics::new()), BTreeSet::new());
    let step = Step {
        device: &crate::reader::device(),
        parameters: &parameters,
        weights: &start.weights,
        architecture: &start.architecture,
        preprocess: &start.preprocess,
        pass: Pass::Frozen(&seen, &none),
        batch,
        step: 0,
        seed: 0,
    };
    let (loss, gradients) = gradients(objective, &step, rows).unwrap();
    Found { loss, gradients, statistics: seen.into_inner().len() }
}

fn start(model: &str) -> Start {
    Start::of(&Recipe { model: golden_folder(model), ..Recipe::default() }).unwrap()
}

fn named(name: &str) -> Box<dyn Objective> {
    let recipe = Recipe { siglip: Some(SiglipRecipe::default()), ..Recipe::default() };
    let beginning = crate::Beginning {
        device: &crate::reader::device(),
        recipe: &recipe,
        path: Path::new("r.toml"),
        classes: None,
        start: &|| unreachable!("it keeps no model"),
    };
    (objective(name).unwrap().build)(&beginning).unwrap()
}

/// Largest distance of any gradient, relative to the largest entry of all.
fn off(a: &Gradients, b: &Gradients) -> f64 {
    assert!(a.keys().eq(b.keys()));
    let double = |v: &Vec<f32>| v.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let top = b.values().flatten().fold(0f32, |m, v| m.max(v.abs()));
    let pairs = a.values().zip(b.values());
    pairs.map(|(a, b)| distance(&double(a), &double(b)) / f64::from(top)).fold(0.0, f64::max)
}

#[test]
fn parts_have_the_loss_of_the_whole_to_the_bit_and_its_gradient() {
    for model in ["vit_quickgelu", "vit_avg_final_ln", "vit_avg_siglip_loss"] {
        let start = start(model);
        let batch = batch(&start);
        let clip = Box::new(ClipObjective);
        let objectives: Vec<Box<dyn Objective>> = match model {
            "vit_avg_siglip_loss" => vec![named("siglip"), clip],
            // The last of eleven rows has no second view.
            _ => vec![clip, named("cleanclip")],
        };
        for objective in objectives {
            let objective = objective.as_ref();
            let whole = found(objective, &start, &batch, 0);
            assert!(global_norm(&whole.gradients) > 1e-3);
            for rows in [1, 4, 10] {
                let parts = found(objective, &start, &batch, rows);
                assert_eq!(parts.loss.to_bits(), whole.loss.to_bits(), "{model}, {rows} rows");
                let off = off(&parts.gradients, &whole.gradients);
                println!("{model}, {rows} rows: off by {off:e}");
                assert!(off < 2e-6, "{model}, {rows} rows: off by {off:e}");
            }
            // The mean over parts is another gradient: the test can tell.
            let small = Batch { ..batch.parts(4).swap_remove(0) };
            let other = found(objective, &start, &small, 0);
            assert!(off(&other.gradients, &whole.gradients) > 1e-2);
            // A limit that is not reached changes nothing.
            for rows in [11, 64] {
                let same = found(objective, &start, &batch, rows);
                assert!(same.gradients == whole.gradients && same.loss == whole.loss);
            }
        }
    }
}

#[test]
fn frozen_towers_have_no_gradient_and_the_rest_has_its_own() {
    let start = start("vit_quickgelu");
    let batch = batch(&start);
    let all = found(&ClipObjective, &start, &batch, 4).gradients;
    let parts: [&dyn Fn(&str) -> bool; 4] = [
        &|name| name == "logit_scale",
        &|name| name.starts_with("visual."),
        &|name| !name.starts_with("visual."),
        &|_| false,
    ];
    for trained in parts {
        let own = found_of(&ClipObjective, &start, &batch, 4, trained);
        let names: Vec<&String> = all.keys().filter(|name| trained(name)).collect();
        assert!(own.gradients.keys().eq(names));
        assert!(own.gradients.iter().all(|(name, gradient)| all[name] == *gradient));
    }
}

/// With BatchNorm the statistics are those of a part; the gradient is that of this loss, whatever
/// the parts are, and every part is counted once.
#[test]
fn batch_norm_takes_the_statistics_of_its_part() {
    let start = start("resnet");
    let batch = batch(&start);
    let whole = found(&ClipObjective, &start, &batch, 0);
    let parts = found(&ClipObjective, &start, &batch, 4);
    assert_eq!(parts.statistics, 3 * whole.statistics);
    assert!(parts.loss != whole.loss);
    // The same loss, part by part, in one graph.
    let device = crate::reader::device().autodiff();
    let parameters = Parameters::with(&start.weights, &device, |name| !is_buffer(name));
    let (arch, preprocess) = (&start.architecture, &start.preprocess);
    let clip = Clip::from_parameters(arch, preprocess, &parameters, &device).unwrap();
    let seen = RefCell::new(BatchStatistics::new());
    let (mut images, mut texts) = (Vec::new(), Vec::new());
    for part in batch.parts(4) {
        let [image, text] = embeddings(&clip, &part, Pass::Train(&seen)).unwrap();
        images.push(image);
        texts.push(text);
    }
    let (image, text) = (Tensor::cat(images, 0), Tensor::cat(texts, 0));
    let loss = ClipObjective.of_embeddings(&clip, image, text).unwrap();
    let graph = backward(&loss, parameters.leaves());
    assert_eq!(loss.into_scalar::<f32>().to_bits(), parts.loss.to_bits());
    let apart = off(&parts.gradients, &graph);
    println!("resnet: off by {apart:e}");
    assert!(apart < 1e-5, "off by {apart:e}");
    assert!(off(&whole.gradients, &graph) > 1e-2);
}

#[test]
fn siglip_in_parts_equals_the_reference() {
    let golden = Golden::open("clip/models/vit_avg_siglip_loss", "expect");
    let start = start("vit_avg_siglip_loss");
    for rows in [0, 2] {
        let found =
            found(named("siglip").as_ref(), &start, &golden_batch("vit_avg_siglip_loss"), rows);
        let want = golden.flat("loss")[0];
        assert!((f64::from(found.loss) / want - 1.0).abs() < 1e-4, "{} {want}", found.loss);
        let mut compared = 0;
        for key in golden.names() {
            let Some(name) = key.strip_prefix("grad.").filter(|n| *n != "pixels") else { continue };
            let want = golden.flat(&key);
            let got: Vec<f64> = found.gradients[name].iter().map(|v| f64::from(*v)).collect();
            let top = want.iter().fold(0f64, |m, v| m.max(v.abs()));
            let off = distance(&got, &want);
            assert!(off <= 1e-4 * top + 1e-6, "{name}: off by {off:e}, largest {top:e}");
            compared += 1;
        }
        assert_eq!(compared, 13);
    }
}

#[test]
fn a_model_without_a_bias_gets_the_recipes_and_one_with_it_keeps_its_own() {
    let objective = named("siglip");
    let plain = start("vit_quickgelu");
    assert!(plain.architecture.init_logit_bias.is_none());
    let architecture = objective.architecture(plain.architecture.clone());
    assert_eq!(architecture.source["init_logit_bias"], -10.0);
    let weights = objective.weights(plain.weights.clone());
    assert_eq!(weights["logit_bias"].data, [-10.0]);
    assert_eq!(weights["logit_scale"].data, [10f32.ln()]);
    let sigmoid = start("vit_avg_siglip_loss");
    assert_eq!(objective.weights(sigmoid.weights.clone()), sigmoid.weights);
    assert_eq!(objective.architecture(sigmoid.architecture.clone()), sigmoid.architecture);
}
