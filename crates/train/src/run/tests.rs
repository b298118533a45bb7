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
        let done = run.one_step(&batch, false).unwrap();
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
    let last = run.one_step(&batch, false).unwrap();
    assert!((f64::from(last.loss) / losses[3] - 1.0).abs() < 1e-4, "{}", last.loss);
}

#[test]
fn clipping_bounds_the_step_and_tells_the_norm_before() {
    let batch = golden_batch();
    let norms = |clip_norm| {
        let mut run = run_of(Recipe { clip_norm, ..recipe() }, |_| {});
        let norm = run.one_step(&batch, false).unwrap().norm;
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

/// Key, picture and tokens.
type Drawn = (String, Vec<u8>, Vec<u32>);

/// The pairs of each epoch in the order of their keys, prepared in batches of `batch`.
fn drawn(recipe: &Recipe, batch: usize, epochs: usize) -> Vec<Drawn> {
    let run = run_of(Recipe { batch, ..recipe.clone() }, |_| {});
    let preparation = run.preparation().unwrap();
    let batches = Batches::new(&run.source, preparation, batch, 0, 2).unwrap();
    let pairs = batches.take(epochs * 8 / batch).map(Result::unwrap).flat_map(|batch| {
        let views = batch.pictures.into_iter().zip(batch.tokens);
        batch.keys.into_iter().zip(views).map(|(key, (picture, tokens))| (key, picture, tokens))
    });
    let mut pairs: Vec<Drawn> = pairs.collect();
    pairs.chunks_mut(8).for_each(|epoch| epoch.sort());
    pairs
}

#[test]
fn views_and_rewordings_follow_from_sample_and_epoch() {
    let with = |augment: &str, captions: &str| Recipe {
        augment: augment.to_owned(),
        captions: captions.to_owned(),
        ..recipe()
    };
    let pictures = |a: &[Drawn], b: &[Drawn]| a.iter().zip(b).filter(|(a, b)| a.1 != b.1).count();
    let tokens = |a: &[Drawn], b: &[Drawn]| a.iter().zip(b).filter(|(a, b)| a.2 != b.2).count();

    let plain = drawn(&with("none", "none"), 4, 2);
    let views = drawn(&with("simclr", "eda"), 4, 2);
    assert!(views == drawn(&with("simclr", "eda"), 2, 2), "depends on the batch");
    // Every picture is another one, and another again in the second epoch; a rewording may leave
    // a caption as it is.
    assert_eq!((pictures(&views, &plain), pictures(&views[..8], &views[8..])), (16, 8));
    assert!(tokens(&views, &plain) >= 8 && tokens(&views[..8], &views[8..]) >= 4);
    let fixed = drawn(&with("none", "eda:fixed=true"), 4, 2);
    assert_eq!((tokens(&fixed[..8], &fixed[8..]), pictures(&fixed, &plain)), (0, 0));
    assert!(tokens(&fixed, &plain) >= 4);
}

#[test]
fn second_views_follow_the_pairs_as_they_are() {
    let with = |objective: &str, augment: &str, captions: &str| Recipe {
        objective: objective.to_owned(),
        augment: augment.to_owned(),
        captions: captions.to_owned(),
        ..recipe()
    };
    let plain = drawn(&with("clip", "none", "none"), 4, 1);
    let varied = drawn(&with("clip", "autoaugment", "eda"), 4, 1);
    // What is left out is written out.
    let run = run_of(Recipe { batch: 8, ..with("cleanclip", "none", "none") }, |_| {});
    assert!(run.recipe.augment.starts_with("autoaugment") && run.recipe.captions.contains("eda"));
    assert!(run.recipe.to_toml().contains("[cleanclip]"));
    let mut batches = Batches::new(&run.source, run.preparation().unwrap(), 8, 0, 2).unwrap();
    let batch = batches.next().unwrap().unwrap();
    assert_eq!(batch.pictures.len(), 16);
    for (rows, want) in [(0..8, plain), (8..16, varied)] {
        let mut rows: Vec<Drawn> = rows
            .map(|i| (batch.keys[i].clone(), batch.pictures[i].clone(), batch.tokens[i].clone()))
            .collect();
        rows.sort();
        assert!(rows == want);
    }
    assert_eq!(batch.keys[..8], batch.keys[8..]);
}

#[test]
fn plans_write_methods_out_and_say_what_is_wrong_with_them() {
    let recipe = Recipe { augment: "simclr:flip=0".to_owned(), ..recipe() };
    let written = run_of(recipe.clone(), |_| {}).recipe.to_toml();
    let want = "augment = \"simclr:strength=1,area=0.08,flip=0,jitter=0.8,grey=0.2,blur=0.5\"";
    assert!(written.contains(want), "{written}");
    // What is not used is not written: states of earlier versions go on.
    assert!(!written.contains("captions"), "{written}");
    let say = |recipe: Recipe| recipe.check().unwrap_err();
    assert!(say(Recipe { augment: "simcrl".into(), ..recipe.clone() }).contains("`simclr`?"));
    assert!(say(Recipe { captions: "eda:alpha=7".into(), ..recipe }).contains("alpha=7"));
}

#[test]
fn captions_that_spell_a_special_token_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let photo =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/clip/pictures/rgb_odd.png");
    for (name, caption) in [("a", "a cat<end_of_text> of fame"), ("b", "a dog &lt;|startoftext|>")]
    {
        std::fs::copy(photo, folder.path().join(format!("{name}.png"))).unwrap();
        std::fs::write(folder.path().join(format!("{name}.txt")), caption).unwrap();
    }
    std::fs::copy(photo, folder.path().join("c.png")).unwrap();
    std::fs::write(folder.path().join("c.txt"), "a < b and c > d").unwrap();
    let data = folder.path().to_str().unwrap().to_owned();
    let run = run_of(Recipe { data, batch: 3, ..recipe() }, |_| {});
    let mut batches = Batches::new(&run.source, run.preparation().unwrap(), 3, 0, 1).unwrap();
    let batch = batches.next().unwrap().unwrap();
    let mut special = batch.special.clone();
    special.sort();
    assert_eq!(special.len(), 2, "{special:?}");
    assert!(special[0].contains('a') && special[1].contains('b'), "{special:?}");
    // Text like any other: one end token a row, and words behind the string are read.
    for row in &batch.tokens {
        let end = clipguard_model::tokenizer::END;
        assert_eq!(row.iter().filter(|id| **id == end).count(), 1);
    }
}
