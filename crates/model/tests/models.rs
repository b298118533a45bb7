//! The towers against open_clip's own numbers (`tests/golden/clip/models`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use burn::tensor::{Device, Tensor, TensorData};
use clipguard_model::{
    Arithmetic, BatchStatistics, Checkpoint, Clip, Parameters, Pass, Precision, loss, normalise,
    parameters::is_buffer,
};
use std::{cell::RefCell, path::PathBuf};

#[path = "../../../tests/golden/reader.rs"]
mod reader;
use reader::Golden;

const MODELS: [&str; 5] =
    ["vit_quickgelu", "vit_gelu", "vit_avg_final_ln", "vit_avg_siglip_loss", "resnet"];

fn folder(model: &str) -> PathBuf {
    std::env::var_os("CLIPGUARD_GOLDEN")
        .map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")),
            PathBuf::from,
        )
        .join("clip/models")
        .join(model)
}

/// The models of other layouts: Hugging Face's folder and OpenAI's archive.
const FOREIGN: [&str; 2] = ["hf", "openai"];

fn checkpoint(model: &str) -> Checkpoint {
    let folder = folder(model);
    let archive = folder.join("tiny_torchscript.pt");
    let path = if archive.is_file() { archive } else { folder };
    Checkpoint::open(path.to_str().unwrap()).unwrap()
}

fn values<const D: usize>(t: Tensor<D>) -> Vec<f64> {
    let t = if t.is_autodiff() { t.inner() } else { t };
    t.into_data().iter::<f64>().collect()
}

/// `|got - want| <= tolerance * max|want| + 1e-6`.
#[track_caller]
fn close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    let top = want.iter().fold(0f64, |m, v| m.max(v.abs()));
    let worst = got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0f64, f64::max);
    assert!(worst <= tolerance * top + 1e-6, "{what}: off by {worst:e}, largest entry {top:e}");
}

#[track_caller]
fn close_relative(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let off = norm(&mut got.iter().zip(want).map(|(g, w)| g - w));
    let size = norm(&mut want.iter().copied());
    assert!(off <= tolerance * size, "{what}: relative L2 error {:e}", off / size);
}

fn pixels(checkpoint: &Checkpoint, golden: &Golden, device: &Device) -> Tensor<4> {
    let (shape, numbers) = golden.numbers("pictures_u8");
    let data: Vec<f32> = numbers.iter().map(|v| (*v / 255.0) as f32).collect();
    assert_eq!(shape[2], checkpoint.preprocess.resize.size as usize);
    Tensor::from_data(TensorData::new(data, shape), device)
}

fn tokens(golden: &Golden) -> Vec<Vec<u32>> {
    let (shape, numbers) = golden.numbers("tokens");
    numbers.chunks(shape[1]).map(|row| row.iter().map(|v| *v as u32).collect()).collect()
}

#[test]
fn features_and_logits_equal_the_reference() {
    let device = reader::device();
    for model in MODELS.into_iter().chain(FOREIGN) {
        let golden = Golden::open(&format!("clip/models/{model}"), "expect");
        let checkpoint = checkpoint(model);
        let clip = checkpoint.build(&device).unwrap();
        let x = clip.encode_image(pixels(&checkpoint, &golden, &device));
        let y = clip.encode_text(&tokens(&golden)).unwrap();
        let want = |name: &str| golden.numbers(name).1;
        close_relative(model, &values(x.clone()), &want("image_features"), 2e-5);
        close_relative(model, &values(y.clone()), &want("text_features"), 2e-5);
        let (x, y) = (normalise(x), normalise(y));
        close_relative(model, &values(x.clone()), &want("image_features_norm"), 2e-5);
        let mut logits = x.matmul(y.transpose()) * clip.scale();
        if let Some(bias) = clip.logit_bias() {
            logits = logits + bias.unsqueeze();
        }
        close(model, &values(logits), &want("logits_per_image"), 1e-4);
    }
}

/// Cosines of the rows of two matrices.
fn cosines(a: &Tensor<2>, b: &Tensor<2>) -> Vec<f64> {
    values((normalise(a.clone()) * normalise(b.clone())).sum_dim(1))
}

#[test]
fn embeddings_in_bf16_are_close_to_those_in_f32() {
    let device = Device::flex();
    for model in MODELS.into_iter().chain(FOREIGN) {
        let golden = Golden::open(&format!("clip/models/{model}"), "expect");
        let mut checkpoint = checkpoint(model);
        let plain = checkpoint.build(&device).unwrap();
        checkpoint.arithmetic = Arithmetic::Bf16;
        let rounded = checkpoint.build(&device).unwrap();
        let pictures = pixels(&checkpoint, &golden, &device);
        let encode = |clip: &Clip| {
            [clip.encode_image(pictures.clone()), clip.encode_text(&tokens(&golden)).unwrap()]
        };
        for (f32, bf16) in encode(&plain).iter().zip(encode(&rounded)) {
            let cosines = cosines(f32, &bf16);
            assert!(cosines.iter().all(|c| *c >= 0.9995), "{model}: {cosines:?}");
            assert_ne!(values(f32.clone()), values(bf16), "{model}: nothing was rounded");
        }
        // Where a gradient is asked for, all is as in f32.
        let gradient = |clip: &Clip| {
            let x = pictures.clone().autodiff().require_grad();
            let y = clip.encode_image(x.clone());
            values(x.grad(&y.sum().backward()).unwrap())
        };
        assert_eq!(gradient(&plain), gradient(&rounded), "{model}");
    }
}

#[test]
fn losses_and_gradients_equal_the_reference() {
    let device = reader::device().autodiff();
    for model in MODELS.into_iter().chain(FOREIGN) {
        let golden = Golden::open(&format!("clip/models/{model}"), "expect");
        let checkpoint = checkpoint(model);
        let parameters = Parameters::with(&checkpoint.weights, &device, |n| !is_buffer(n));
        let (arch, preprocess) = (&checkpoint.architecture, &checkpoint.preprocess);
        let clip = Clip::from_parameters(arch, preprocess, &parameters, &device).unwrap();
        let input = pixels(&checkpoint, &golden, &reader::device()).autodiff().require_grad();
        let x = normalise(clip.encode_image(input.clone()));
        let y = normalise(clip.encode_text(&tokens(&golden)).unwrap());
        let scale = clip.logit_scale().exp();
        let loss = match clip.logit_bias() {
            Some(bias) => loss::siglip_loss(x, y, scale, bias),
            None => loss::clip_loss(x, y, scale),
        };
        close(model, &values(loss.clone()), &golden.numbers("loss").1, 1e-4);
        let mut grads = loss.backward();
        // The reference differentiates with respect to normalised pixels.
        let std = preprocess.std;
        let pixel_gradient = values(input.grad_remove(&mut grads).unwrap());
        let plane = pixel_gradient.len() / (3 * golden.numbers("pictures_u8").0[0]);
        let scaled: Vec<f64> = pixel_gradient
            .iter()
            .enumerate()
            .map(|(i, g)| g * f64::from(std[i / plane % 3]))
            .collect();
        close(&format!("{model} pixels"), &scaled, &golden.numbers("grad.pixels").1, 1e-4);
        let mut compared = 0;
        for (name, leaf) in parameters.leaves() {
            let key = format!("grad.{name}");
            if golden.has(&key) {
                let got = values(leaf.grad_remove(&mut grads).expect(name));
                close(&format!("{model} {name}"), &got, &golden.numbers(&key).1, 1e-4);
                compared += 1;
            }
        }
        let wanted = golden.names().iter().filter(|n| n.starts_with("grad.")).count() - 1;
        // Hugging Face's names stand for parts of this crate's arrays.
        let all = model == "hf" || compared == wanted;
        assert!(all, "{model}: {compared} of {wanted} stored gradients are compared");
    }
}

#[test]
fn pictures_get_the_rows_they_get_alone() {
    let device = reader::device();
    for model in MODELS.into_iter().chain(FOREIGN) {
        let golden = Golden::open(&format!("clip/models/{model}"), "expect");
        let checkpoint = checkpoint(model);
        let clip = checkpoint.build(&device).unwrap();
        let some = pixels(&checkpoint, &golden, &device);
        let [n, channels, side, _] = some.dims();
        // Forty pictures: the given ones, ever darker.
        let all: Vec<_> =
            (0..40usize.div_ceil(n)).map(|i| some.clone() / (1.0 + i as f32)).collect();
        let all = Tensor::cat(all, 0);
        let whole = values(clip.encode_image(all.clone()));
        for rows in [1, 3, 32] {
            let parts = (0..all.dims()[0]).step_by(rows).map(|start| {
                let end = (start + rows).min(all.dims()[0]);
                let part = all.clone().slice([start..end, 0..channels, 0..side, 0..side]);
                clip.encode_image(part)
            });
            assert_eq!(values(Tensor::cat(parts.collect(), 0)), whole, "{model}, {rows} at once");
        }
    }
}

/// Long batches are computed in groups of similar length; nobody may notice.
#[test]
fn texts_of_all_lengths_get_the_rows_they_get_alone() {
    let checkpoint = checkpoint("vit_quickgelu");
    let (context, end) =
        (checkpoint.architecture.text.context, checkpoint.architecture.text.vocabulary as u32 - 1);
    // The largest id ends a text.
    let row = |i: usize| {
        let length = 1 + i * 37 % (context - 1);
        let mut row: Vec<u32> = (0..length).map(|at| (i * 13 + at * 7) as u32 % end).collect();
        row.push(end);
        row.resize(context, 0);
        row
    };
    let rows: Vec<Vec<u32>> = (0..100).map(row).collect();
    let clip = checkpoint.build(&reader::device()).unwrap();
    let alone = rows.iter().map(|row| clip.encode_text(std::slice::from_ref(row)).unwrap());
    let alone = Tensor::cat(alone.collect(), 0);
    assert_eq!(values(clip.encode_text(&rows).unwrap()), values(alone));

    let device = reader::device().autodiff();
    let gradient = |parts: &[&[Vec<u32>]]| {
        let parameters = Parameters::with(&checkpoint.weights, &device, |n| !is_buffer(n));
        let (arch, preprocess) = (&checkpoint.architecture, &checkpoint.preprocess);
        let clip = Clip::from_parameters(arch, preprocess, &parameters, &device).unwrap();
        let parts = parts.iter().map(|rows| clip.encode_text(rows).unwrap());
        let y = Tensor::cat(parts.collect(), 0);
        let dims = y.dims();
        let weights = (0..dims[0] * dims[1]).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<_>>();
        let mut grads =
            (y * Tensor::from_data(TensorData::new(weights, dims), &device)).sum().backward();
        let of = |(name, leaf): (&str, &Tensor<1>)| {
            Some((name.to_owned(), values(leaf.grad_remove(&mut grads)?)))
        };
        parameters.leaves().filter_map(of).collect::<Vec<_>>()
    };
    let together = gradient(&[&rows]);
    let in_parts = gradient(&rows.chunks(10).collect::<Vec<_>>());
    assert!(together.len() > 10 && together.len() == in_parts.len());
    for ((name, got), (_, want)) in together.iter().zip(&in_parts) {
        close(name, got, want, 1e-5);
    }
}

#[test]
fn old_hugging_face_files_pool_at_the_largest_id() {
    let golden = Golden::open("clip/models/hf", "expect");
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(self::folder("hf").join("config.json")).unwrap();
    let old = text.replace("\"eos_token_id\": 63", "\"eos_token_id\": 2");
    assert_ne!(text, old);
    std::fs::write(folder.path().join("config.json"), old).unwrap();
    let weights = self::folder("hf").join("model.safetensors");
    std::fs::copy(weights, folder.path().join("model.safetensors")).unwrap();
    let checkpoint = Checkpoint::open(folder.path().to_str().unwrap()).unwrap();
    let clip = checkpoint.build(&reader::device()).unwrap();
    let (shape, numbers) = golden.numbers("legacy_eos2.tokens");
    let rows: Vec<Vec<u32>> =
        numbers.chunks(shape[1]).map(|row| row.iter().map(|v| *v as u32).collect()).collect();
    let got = values(clip.encode_text(&rows).unwrap());
    close_relative("eos 2", &got, &golden.numbers("legacy_eos2.text_features").1, 2e-5);
}

#[test]
fn batch_statistics_in_training_equal_the_reference() {
    let device = reader::device();
    let golden = Golden::open("clip/models/resnet", "expect");
    let checkpoint = checkpoint("resnet");
    let clip = checkpoint.build(&device).unwrap();
    let seen = RefCell::new(BatchStatistics::new());
    let x = clip.encode_image_in(pixels(&checkpoint, &golden, &device), Pass::Train(&seen));
    close("features", &values(x), &golden.numbers("train.image_features").1, 1e-4);
    for (name, statistics, rows) in seen.into_inner() {
        let key = format!("train.{name}.running_var");
        if !golden.has(&key) {
            continue;
        }
        let unbiased = rows as f64 / (rows as f64 - 1.0);
        let old = &checkpoint.weights[&format!("{name}.running_var")].data;
        let got: Vec<f64> = values(statistics.variance)
            .iter()
            .zip(old)
            .map(|(s, r)| 0.9 * f64::from(*r) + 0.1 * s * unbiased)
            .collect();
        close(&key, &got, &golden.numbers(&key).1, 1e-4);
    }
}

#[test]
fn saved_checkpoints_load_to_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    for model in MODELS {
        let original = checkpoint(model);
        original.save(folder.path(), Precision::F32).unwrap();
        let again = Checkpoint::open(folder.path().to_str().unwrap()).unwrap();
        assert_eq!(original.weights, again.weights, "{model}");
        assert_eq!(original.architecture, again.architecture, "{model}");
        assert_eq!(original.preprocess, again.preprocess, "{model}");
    }
}

#[test]
fn parameter_counts_of_known_architectures_are_right() {
    use clipguard_model::{Architecture, parameters::parameter_counts};
    for (name, all, vision) in [
        ("RN50", 102_007_137, Some(38_316_896)),
        ("RN101", 119_688_033, Some(56_259_936)),
        ("RN50x4", 178_300_601, Some(87_137_080)),
        ("RN50x16", 290_979_217, None),
        ("RN50x64", 623_258_305, None),
        ("ViT-S-32", 63_085_825, None),
        ("ViT-B-32", 151_277_313, Some(87_849_216)),
        ("ViT-B-16", 149_620_737, Some(86_192_640)),
        ("ViT-B-32-256", 151_288_833, None),
        ("ViT-B-16-plus-240", 208_377_345, None),
        ("ViT-L-14", 427_616_513, Some(303_966_208)),
        ("ViT-L-14-336", 427_944_193, Some(304_293_888)),
        ("ViT-H-14", 986_109_441, Some(632_076_800)),
        ("ViT-g-14", 1_366_678_273, None),
        ("ViT-bigG-14", 2_539_567_105, None),
    ] {
        let (got, got_vision) = parameter_counts(&Architecture::named(name).unwrap());
        assert_eq!(got, all, "{name}");
        if let Some(vision) = vision {
            assert_eq!(got_vision, vision, "{name} vision");
        }
    }
}
