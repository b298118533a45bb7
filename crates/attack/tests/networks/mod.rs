//! The two golden networks as victims, and the golden random stream.
#![allow(dead_code, reason = "each including test uses a part of it")]

use std::f64::consts::TAU;

use burn::tensor::{
    DType, Tensor, TensorData,
    activation::{gelu, relu, softmax},
    module::{conv2d, layer_norm, linear},
    ops::ConvOptions,
};
use clipguard_model::victim::{Query, Victim};
use clipguard_model::{Encoder, normalise};

#[path = "../../../../tests/golden/reader.rs"]
pub(crate) mod reader;
pub(crate) use reader::{Golden, distance, numbers};

/// Weights and pictures.
pub(crate) fn models() -> Golden {
    Golden::open("attacks", "models")
}

/// `Conv(1, 8, 3) - ReLU - Conv(8, 16, 3, stride 2) - ReLU - Linear(1024, 10)` on `(x - .5) / .5`.
pub(crate) struct Cnn {
    conv: [(Tensor<4>, Tensor<1>); 2],
    fc: (Tensor<2>, Tensor<1>),
}

impl Cnn {
    pub(crate) fn load() -> Self {
        let file = models();
        let conv = |name: &str| {
            let tensor = |part: &str| format!("cnn.{name}.{part}");
            let weight = file.tensor(&tensor("weight"), DType::F32);
            (weight, file.tensor(&tensor("bias"), DType::F32))
        };
        Self { conv: [conv("conv1"), conv("conv2")], fc: dense(&file, "cnn.fc") }
    }
}

impl Victim for Cnn {
    fn classes(&self) -> usize {
        10
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        let mut x = (query.pixels - 0.5) / 0.5;
        for ((weight, bias), stride) in self.conv.iter().zip([1, 2]) {
            let options = ConvOptions::new([stride; 2], [1; 2], [1; 2], 1);
            x = relu(conv2d(x, weight.clone(), Some(bias.clone()), options));
        }
        apply(x.flatten::<2>(1, 3), &self.fc)
    }
}

/// A one-block transformer of width 24 with two heads on patches of 4x4.
pub(crate) struct Vit {
    patch: (Tensor<2>, Tensor<1>),
    position: Tensor<3>,
    norms: [(Tensor<1>, Tensor<1>); 3],
    qkv: (Tensor<2>, Tensor<1>),
    proj: (Tensor<2>, Tensor<1>),
    mlp: [(Tensor<2>, Tensor<1>); 2],
    head: (Tensor<2>, Tensor<1>),
}

impl Vit {
    pub(crate) fn load() -> Self {
        let file = models();
        let norm = |name: &str| {
            let tensor = |part: &str| file.tensor(&format!("vit.{name}.{part}"), DType::F32);
            (tensor("weight"), tensor("bias"))
        };
        let dense = |name: &str| dense(&file, &format!("vit.{name}"));
        Self {
            patch: dense("patch"),
            position: file.tensor::<2>("vit.pos", DType::F32).unsqueeze(),
            norms: [norm("ln1"), norm("ln2"), norm("ln3")],
            qkv: dense("qkv"),
            proj: dense("proj"),
            mlp: [dense("fc1"), dense("fc2")],
            head: dense("head"),
        }
    }

    fn attention(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, ..] = x.dims();
        let parts = apply(x, &self.qkv).chunk(3, 2);
        let heads = |i: usize| parts[i].clone().reshape([batch, 16, 2, 12]).swap_dims(1, 2);
        let scores = heads(0).matmul(heads(1).swap_dims(2, 3)) / 12f32.sqrt();
        let mixed = softmax(scores, 3).matmul(heads(2));
        apply(mixed.swap_dims(1, 2).reshape([batch, 16, 24]), &self.proj)
    }
}

impl Encoder for Vit {
    fn embed(&self, pixels: Tensor<4>) -> Tensor<2> {
        let [batch, ..] = pixels.dims();
        let channel = |values: [f32; 3]| {
            Tensor::<4>::from_data(
                TensorData::new(values.to_vec(), [1, 3, 1, 1]),
                &reader::device(),
            )
        };
        let x = (pixels - channel([0.5, 0.45, 0.4])) / channel([0.25, 0.3, 0.35]);
        let x = x.reshape([batch, 3, 4, 4, 4, 4]).permute([0, 2, 4, 1, 3, 5]);
        let norm = |x: Tensor<3>, i: usize| {
            let (weight, bias) = self.norms[i].clone();
            layer_norm(x, weight, Some(bias), 1e-5)
        };
        let x: Tensor<3> = x.reshape([batch, 16, 48]);
        let x = apply(x, &self.patch) + self.position.clone();
        let x = x.clone() + self.attention(norm(x, 0));
        let x = x.clone() + apply(gelu(apply(norm(x, 1), &self.mlp[0])), &self.mlp[1]);
        norm(x.mean_dim(1), 2).reshape([batch, 24])
    }
}

impl Victim for Vit {
    fn classes(&self) -> usize {
        10
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        apply(self.embed(query.pixels), &self.head)
    }
}

/// The golden toy CLIP head on the ViT: `100 * normalise(embedding) @ text^T`.
pub(crate) struct ToyClip(pub(crate) Vit);

impl Victim for ToyClip {
    fn classes(&self) -> usize {
        10
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        let text: Tensor<2> = models().tensor("text", DType::F32);
        normalise(self.0.embed(query.pixels)).matmul(text.transpose()) * 100.0
    }
}

fn dense(file: &Golden, name: &str) -> (Tensor<2>, Tensor<1>) {
    let weight: Tensor<2> = file.tensor(&format!("{name}.weight"), DType::F32);
    (weight.transpose(), file.tensor(&format!("{name}.bias"), DType::F32))
}

fn apply<const D: usize>(x: Tensor<D>, (weight, bias): &(Tensor<2>, Tensor<1>)) -> Tensor<D> {
    linear(x, weight.clone(), Some(bias.clone()))
}

/// SplitMix64, the stream that replaced the generators of the recorded programs.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn uniform(&mut self) -> f32 {
        ((self.next() >> 40) as f64 * 2f64.powi(-24)) as f32
    }

    pub(crate) fn normal(&mut self) -> f32 {
        let u = ((self.next() >> 11) + 1) as f64 * 2f64.powi(-53);
        let v = (self.next() >> 11) as f64 * 2f64.powi(-53);
        ((-2.0 * u.ln()).sqrt() * (TAU * v).cos()) as f32
    }

    pub(crate) fn uniforms(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.uniform()).collect()
    }

    pub(crate) fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }
}

/// Numbers as a tensor like `shape`.
pub(crate) fn like(shape: [usize; 4], numbers: Vec<f32>) -> Tensor<4> {
    Tensor::from_data(TensorData::new(numbers, shape), &reader::device())
}

/// Keys "0", "1", ...
pub(crate) fn keys(count: usize) -> Vec<String> {
    (0..count).map(|i| i.to_string()).collect()
}
