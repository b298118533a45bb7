//! The towers: forward, to the pixels, to the parameters.

use burn::tensor::{Device, Tensor, TensorData};
use clipguard_data::Stream;
use clipguard_model::{
    Architecture, Arithmetic, Clip, Parameters, Pass, Preprocess, parameters::initial_weights,
    parameters::is_buffer,
};
use std::{cell::RefCell, path::Path};

use crate::{Case, resnet};

/// What is computed.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Work {
    Forward,
    Pixels,
    Parameters,
}

impl Work {
    fn read(name: &str) -> Self {
        match name {
            "forward" => Self::Forward,
            "pixels" => Self::Pixels,
            "parameters" => Self::Parameters,
            _ => panic!("no work `{name}`"),
        }
    }
}

/// Random pixels in `[0, 1]`.
pub(crate) fn pixels(batch: usize, side: usize, device: &Device) -> Tensor<4> {
    let mut stream = Stream::counted(0, "pixels", 0);
    let values: Vec<f32> = (0..batch * 3 * side * side).map(|_| stream.within(0.0, 1.0)).collect();
    Tensor::from_data(TensorData::new(values, [batch, 3, side, side]), device)
}

/// 64 pixels in patches of 8, width 192, six blocks of three heads: what a small machine trains.
fn tiny() -> Architecture {
    let config = serde_json::json!({
        "embed_dim": 192,
        "vision_cfg": {
            "image_size": 64, "layers": 6, "width": 192, "head_width": 64, "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 192, "heads": 3, "layers": 1,
        },
    });
    Architecture::from_json(&config, Path::new("tiny")).unwrap()
}

/// A case, if there is one: in bf16 there are only forward passes of CLIP's towers.
pub(crate) fn case(tower: &str, batch: usize, work: &str, arithmetic: Arithmetic) -> Option<Case> {
    let work = Work::read(work);
    if arithmetic == Arithmetic::Bf16 && (work != Work::Forward || tower == "resnet-18") {
        return None;
    }
    let architecture = match tower {
        "resnet-18" => return Some(resnet::case(batch, work)),
        "tiny" => tiny(),
        "rn50" => Architecture::named("RN50").unwrap(),
        _ => Architecture::named("ViT-B-32").unwrap(),
    };
    let side = architecture.vision.image_size();
    let preprocess = Preprocess::openai(side);
    let device = match work {
        Work::Forward => Device::flex(),
        _ => Device::flex().autodiff(),
    };
    let of_texts = tower == "text";
    // One of the two towers learns, as the other has no part in the loss.
    let learns = move |name: &str| {
        let pictures = name.starts_with("visual.");
        work == Work::Parameters && !is_buffer(name) && pictures != of_texts
    };
    let weights = initial_weights(&architecture, 0);
    let parameters = Parameters::with(&weights, &device, learns).computing(arithmetic);
    let leaves: Vec<Tensor<1>> = parameters.leaves().map(|(_, leaf)| leaf.clone()).collect();
    let x = pixels(batch, side, &device);
    // A graph is used up by its backward pass, so every call has its own, as in training.
    let build =
        move || Clip::from_parameters(&architecture, &preprocess, &parameters, &device).unwrap();
    let fixed = (work != Work::Parameters).then(&build);
    // The longest text: nothing behind its end can be left out.
    let mut row = vec![320; 77];
    (row[0], row[76]) = (49_406, 49_407);
    let rows = vec![row; batch];
    Some(Box::new(move || {
        let clip = fixed.clone().unwrap_or_else(&build);
        let seen = RefCell::new(Vec::new());
        let x = match work {
            Work::Pixels => x.clone().require_grad(),
            _ => x.clone(),
        };
        let z = match (of_texts, work) {
            (true, _) => clip.encode_text(&rows).unwrap(),
            (_, Work::Parameters) => clip.encode_image_in(x.clone(), Pass::Train(&seen)),
            _ => clip.encode_image(x.clone()),
        };
        finish(z, &x, &leaves, work);
    }))
}

/// Carries the work out: computes the result, or the gradients that were asked for.
pub(crate) fn finish(z: Tensor<2>, x: &Tensor<4>, leaves: &[Tensor<1>], work: Work) {
    match work {
        Work::Forward => drop(z.into_data()),
        Work::Pixels => drop(x.grad(&z.sum().backward()).unwrap().into_data()),
        Work::Parameters => {
            let gradients = z.sum().backward();
            let found = leaves.iter().filter_map(|leaf| leaf.grad(&gradients));
            assert!(found.map(Tensor::into_data).count() > 10, "parameters without gradients");
        }
    }
}
