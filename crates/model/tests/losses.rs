//! The contrastive losses and the zero-shot head against the reference's numbers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use burn::tensor::{DType, Tensor, TensorData, activation::softmax};
use clipguard_model::{
    Checkpoint, Head,
    loss::{clip_loss, in_modal_loss, siglip_loss},
    normalise,
};
use std::path::Path;

#[path = "../../../tests/golden/reader.rs"]
mod reader;
use reader::{Golden, distance, numbers, text};

fn facts() -> serde_json::Value {
    serde_json::from_str(&text("clip/misc.json")).unwrap()
}

fn leaf<const D: usize>(plain: Tensor<D>) -> Tensor<D> {
    plain.autodiff().require_grad()
}

fn scalar(value: f64) -> Tensor<1> {
    leaf(Tensor::from_data(TensorData::new(vec![value as f32], [1]), &reader::device()))
}

#[track_caller]
fn close(what: &str, got: &[f64], want: &[f64]) {
    let top = want.iter().fold(0f64, |m, v| m.max(v.abs()));
    let off = distance(got, want);
    assert!(off <= 1e-5 * top + 1e-7, "{what}: off by {off:e}, largest entry {top:e}");
}

fn golden_model() -> Checkpoint {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/clip/models/vit_quickgelu");
    Checkpoint::open(folder.to_str().unwrap()).unwrap()
}

#[test]
fn the_clip_loss_and_its_gradients_equal_the_reference() {
    let (golden, facts) = (Golden::open("clip", "misc_expect"), facts());
    for (name, scale) in [("1.0000", 1.0), ("14.2857", 1.0 / 0.07), ("100.0000", 100.0f64)] {
        let x = leaf(golden.tensor::<2>("loss.image", DType::F32));
        let y = leaf(golden.tensor::<2>("loss.text", DType::F32));
        let log_scale = scalar(scale.ln());
        let loss = clip_loss(x.clone(), y.clone(), log_scale.clone().exp());
        let key = format!("clip_scale_{name}");
        let want = facts["losses"][&key].as_f64().unwrap();
        close(&key, &numbers(loss.clone().inner()), &[want]);
        let mut grads = loss.backward();
        for (of, leaf) in [("image", x), ("text", y)] {
            let got = numbers(leaf.grad_remove(&mut grads).unwrap());
            close(&format!("{key} {of}"), &got, &golden.flat(&format!("loss.{key}.grad_{of}")));
        }
        let want = facts["losses"][format!("{key}.grad_log_scale")].as_f64().unwrap();
        close(&key, &numbers(log_scale.grad_remove(&mut grads).unwrap()), &[want]);
    }
}

#[test]
fn the_siglip_loss_and_its_gradients_equal_the_reference() {
    let (golden, facts) = (Golden::open("clip", "misc_expect"), facts());
    let x = leaf(golden.tensor::<2>("loss.image", DType::F32));
    let y = leaf(golden.tensor::<2>("loss.text", DType::F32));
    let (log_scale, bias) = (scalar(10f64.ln()), scalar(-10.0));
    let loss = siglip_loss(x.clone(), y.clone(), log_scale.clone().exp(), bias.clone());
    let want = |key: &str| [facts["losses"][key].as_f64().unwrap()];
    close("loss", &numbers(loss.clone().inner()), &want("siglip_scale_10_bias_-10"));
    let mut grads = loss.backward();
    for (of, leaf) in [("image", x), ("text", y)] {
        let got = numbers(leaf.grad_remove(&mut grads).unwrap());
        close(of, &got, &golden.flat(&format!("loss.siglip.grad_{of}")));
    }
    for (of, leaf) in [("log_scale", log_scale), ("bias", bias)] {
        let got = numbers(leaf.grad_remove(&mut grads).unwrap());
        close(of, &got, &want(&format!("siglip.grad_{of}")));
    }
}

#[test]
fn the_in_modal_loss_equals_the_reference() {
    let (golden, facts) = (Golden::open("clip", "misc_expect"), facts());
    let rows = |name: &str| golden.tensor::<2>(&format!("loss.{name}"), DType::F32);
    let scale = scalar((1f64 / 0.07).ln()).inner().exp();
    let (image, text) = ([rows("image"), rows("image_aug")], [rows("text"), rows("text_aug")]);
    let loss = in_modal_loss(image.clone(), text.clone(), scale.clone());
    let losses = facts["losses"].as_object().unwrap();
    let (key, want) =
        losses.iter().find(|(key, _)| key.starts_with("inmodal_scale_14.2857")).unwrap();
    close(key, &numbers(loss), &[want.as_f64().unwrap()]);
    // One direction only: the other has another value.
    let [a, b] = [image, text].map(|[rows, views]| [views, rows]);
    let other = numbers(in_modal_loss(a, b, scale))[0];
    assert!((other - want.as_f64().unwrap()).abs() > 1e-4, "{other}");
}

#[test]
fn extreme_logits_give_finite_losses_and_gradients() {
    for scale in [100.0f64, 1e4] {
        let unit = |sign: f32| {
            let rows = vec![sign, 0.0, 0.0, sign];
            leaf(Tensor::<2>::from_data(TensorData::new(rows, [2, 2]), &reader::device()))
        };
        let (x, y) = (unit(1.0), unit(-1.0));
        let s = || scalar(scale.ln()).exp();
        for loss in [
            clip_loss(x.clone(), y.clone(), s()),
            siglip_loss(x.clone(), y.clone(), s(), scalar(-10.0)),
        ] {
            assert!(loss.clone().into_scalar::<f32>().is_finite());
            let mut grads = loss.backward();
            let gradient = numbers(x.grad_remove(&mut grads).unwrap());
            assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
        }
    }
}

#[test]
fn a_head_of_tokens_gives_the_reference_probabilities() {
    let device = reader::device();
    let golden = Golden::open("clip", "misc_expect");
    let clip = golden_model().build(&device).unwrap();
    let (shape, ids) = golden.numbers("zeroshot.tokens");
    let rows: Vec<Vec<u32>> =
        ids.chunks(shape[1]).map(|row| row.iter().map(|id| *id as u32).collect()).collect();
    // A row is class * 3 + template.
    let classes: Vec<String> = (0..5).map(|i| format!("class {i}")).collect();
    let tokens: Vec<Vec<Vec<u32>>> = rows.chunks(3).map(<[_]>::to_vec).collect();
    let head = Head::from_tokens(&clip, &classes, &tokens).unwrap();
    close("weights", &numbers(head.matrix.clone()), &golden.flat("zeroshot.weights"));

    let own = Golden::open("clip/models/vit_quickgelu", "expect");
    let (shape, bytes) = own.numbers("pictures_u8");
    let pixels: Vec<f32> = bytes.iter().map(|v| (*v / 255.0) as f32).collect();
    let x = clip.encode_image(Tensor::from_data(TensorData::new(pixels, shape), &device));
    let logits = normalise(x).matmul(head.matrix) * 100.0;
    let top = 100.0 * 2e-6;
    let off = distance(&numbers(logits.clone()), &golden.flat("zeroshot.logits"));
    assert!(off <= top, "logits off by {off:e}");
    let off = distance(&numbers(softmax(logits, 1)), &golden.flat("zeroshot.probabilities"));
    assert!(off <= 1e-4, "probabilities off by {off:e}");
}

#[test]
fn heads_of_nothing_are_refused() {
    let clip = golden_model().build(&reader::device()).unwrap();
    let classes = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    for (names, texts, want) in [
        (classes(&[]), vec![], "0 classes"),
        (classes(&["cat"]), vec![], "1 classes and 0 lists"),
        (classes(&["cat", "dog"]), vec![classes(&["a cat"]), vec![]], "`dog` has no text"),
    ] {
        let refusal = Head::new(&clip, &names, &texts).unwrap_err().to_string();
        assert!(refusal.contains(want), "{refusal}");
    }
}
