//! What purification costs against one encoding by ViT-B-32.
//!
//! `cargo bench --workspace --bench clipure`, or with the profile of the tests, which builds nothing
//! anew: `cargo test --workspace --bench clipure`. The weights are random: times do not depend on
//! them. Exits with an error when CLIPure-Cos costs one percent of an encoding or more.
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that is wrong")]

use burn::tensor::{Device, Tensor, TensorData};
use clipguard_data::Stream;
use clipguard_model::{
    Architecture, Clip, Parameters, Preprocess, Prior, normalise, parameters::initial_weights,
    prior::Layout,
};
use clipguard_purify::{ClipureCos, ClipureDiff, Purifier, clipure_cos, clipure_diff};
use std::{process::ExitCode, sync::Arc, time::Instant};

const ROWS: usize = 8;

/// Seconds of one call: the least of several, which is the one that nobody disturbed.
fn seconds(calls: usize, mut call: impl FnMut()) -> f64 {
    call();
    let one = |_| {
        let started = Instant::now();
        call();
        started.elapsed().as_secs_f64()
    };
    (0..calls).map(one).fold(f64::INFINITY, f64::min)
}

fn normal(shape: &[usize], purpose: &str) -> TensorData {
    let mut stream = Stream::counted(0, purpose, 0);
    let count = shape.iter().product();
    TensorData::new((0..count).map(|_| stream.normal()).collect::<Vec<f32>>(), shape.to_vec())
}

/// A prior for blank texts as the objective `diffusion-prior` makes it by default.
fn prior(dim: usize, device: &Device) -> Arc<Prior> {
    let layout = Layout {
        dim,
        depth: 4,
        heads: 8,
        head_width: 64,
        inner: 4 * dim,
        text: 0,
        steps: 1000,
        normformer: true,
    };
    let parameters = Parameters::constant(&layout.initial_weights(0), device);
    Arc::new(Prior::new(layout, &parameters).unwrap())
}

fn main() -> ExitCode {
    let device = Device::flex();
    let architecture = Architecture::named("ViT-B-32").unwrap();
    let weights = initial_weights(&architecture, 0);
    let clip = Clip::new(&architecture, &Preprocess::openai(224), &weights, &device).unwrap();
    let dim = architecture.embed_dim;
    let pixels = Tensor::<4>::full([ROWS, 3, 224, 224], 0.5, &device);
    let keys: Vec<String> = (0..ROWS).map(|row| row.to_string()).collect();
    let z = normalise(Tensor::from_data(normal(&[ROWS, dim], "z"), &device));
    let blank = || Tensor::<1>::from_data(normal(&[dim], "blank"), &device);

    let encoding = seconds(5, || drop(clip.encode_image(pixels.clone()).into_data()));
    let cos = ClipureCos::new(clipure_cos::Settings::default(), blank()).unwrap();
    let closed = seconds(200, || drop(cos.embedding(z.clone(), &keys, 0).into_data()));
    let settings = clipure_diff::Settings::default();
    let diff = ClipureDiff::new(settings, prior(dim, &device), blank(), None).unwrap();
    let uphill = seconds(5, || drop(diff.embedding(z.clone(), &keys, 0).into_data()));

    let told = |name: &str, time: f64| {
        let each = 1e3 * time / ROWS as f64;
        println!("{name:<42}{each:>12.4} ms a picture{:>10.2} %", 100.0 * time / encoding);
    };
    told("ViT-B-32, one encoding", encoding);
    told("CLIPure-Cos, 10 steps", closed);
    told("CLIPure-Diff, 10 steps, prior of 4 layers", uphill);
    match closed < 0.01 * encoding {
        true => ExitCode::SUCCESS,
        false => {
            eprintln!("CLIPure-Cos costs one percent of an encoding or more");
            ExitCode::FAILURE
        }
    }
}
