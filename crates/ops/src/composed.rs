//! Every operation composed of the framework's ordinary functions.
//!
//! What the fused kernels are tested against, and what runs where there are none: on graphics cards, and
//! in other precisions than f32. Shapes and arguments are those of the functions of the crate's root.

use crate::{Activation, BatchNorm, ColumnStatistics};
use burn::tensor::{
    Tensor, TensorData,
    activation::{relu, sigmoid, softmax},
    module,
    ops::ConvOptions,
};
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// See [`crate::linear`].
pub fn linear<const D: usize>(x: Tensor<D>, w: Tensor<2>, b: Option<Tensor<1>>) -> Tensor<D> {
    let mut shape = x.dims();
    let [out, inputs] = w.dims();
    let rows = shape.iter().product::<usize>() / inputs;
    let y = x.reshape([rows, inputs]).matmul(w.transpose());
    let y = match b {
        Some(b) => y + b.unsqueeze(),
        None => y,
    };
    shape[D - 1] = out;
    y.reshape(shape)
}

/// See [`crate::conv2d`].
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, stride: usize, pad: usize) -> Tensor<4> {
    let options = ConvOptions::new([stride; 2], [pad; 2], [1, 1], 1);
    let y = module::conv2d(x.permute([0, 3, 1, 2]), weight, None, options);
    y.permute([0, 2, 3, 1])
}

/// See [`crate::avg_pool2d`].
pub fn avg_pool2d(x: Tensor<4>, k: usize) -> Tensor<4> {
    let [n, h, w, c] = x.dims();
    let (rows, columns) = (h / k, w / k);
    let windows =
        x.slice([0..n, 0..rows * k, 0..columns * k, 0..c]).reshape([n, rows, k, columns, k, c]);
    windows.mean_dim(4).mean_dim(2).reshape([n, rows, columns, c])
}

/// See [`crate::layer_norm`].
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f32,
) -> Tensor<D> {
    let centred = x.clone() - x.mean_dim(D - 1);
    let variance = (centred.clone() * centred.clone()).mean_dim(D - 1);
    let hat = centred / (variance + eps).sqrt();
    hat * gamma.unsqueeze() + beta.unsqueeze()
}

/// See [`crate::activation`].
pub fn activation<const D: usize>(x: Tensor<D>, kind: Activation) -> Tensor<D> {
    match kind {
        Activation::QuickGelu => x.clone() * sigmoid(x * 1.702),
        Activation::Gelu => x.clone() * 0.5 * ((x * FRAC_1_SQRT_2).erf() + 1.0),
        Activation::GeluTanh => {
            let cube = x.clone() * x.clone() * x.clone();
            // sqrt(2 / pi)
            let inner = (x.clone() + cube * 0.044_715) * (FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
            x * 0.5 * (inner.tanh() + 1.0)
        }
    }
}

/// See [`crate::attention`].
pub fn attention(packed: Tensor<3>, heads: usize, causal: bool) -> Tensor<3> {
    let [batch, tokens, triple] = packed.dims();
    let (width, head) = (triple / 3, triple / 3 / heads);
    let part = |i: usize| -> Tensor<4> {
        let part = packed.clone().slice([0..batch, 0..tokens, i * width..(i + 1) * width]);
        part.reshape([batch, tokens, heads, head]).swap_dims(1, 2)
    };
    let mut scores = part(0).matmul(part(1).swap_dims(2, 3)) * (head as f32).powf(-0.5);
    if causal {
        let later = |i: usize| if i % tokens > i / tokens { -1e9f32 } else { 0.0 };
        let hidden = TensorData::new((0..tokens * tokens).map(later).collect(), [tokens, tokens]);
        let hidden = Tensor::<2>::from_data(hidden, &packed.device()).cast(packed.dtype());
        scores = scores + hidden.unsqueeze();
    }
    softmax(scores, 3).matmul(part(2)).swap_dims(1, 2).reshape([batch, tokens, width])
}

/// See [`crate::column_statistics`]; the gradient passes.
pub fn column_statistics<const D: usize>(x: &Tensor<D>) -> ColumnStatistics {
    let c = x.dims()[D - 1];
    let rows = x.dims().iter().product::<usize>() / c.max(1);
    let x: Tensor<2> = x.clone().reshape([rows, c]);
    let mean = x.clone().mean_dim(0);
    let centred = x - mean.clone();
    let variance = (centred.clone() * centred).mean_dim(0);
    ColumnStatistics { mean: mean.reshape([c]), variance: variance.reshape([c]) }
}

/// See [`crate::batch_norm`]; with `of_batch` the statistics are taken anew.
pub fn batch_norm<const D: usize>(x: Tensor<D>, norm: BatchNorm<'_>) -> Tensor<D> {
    let statistics = match norm.of_batch {
        true => column_statistics(&x),
        false => norm.statistics.clone(),
    };
    let row = |values: Tensor<1>| values.cast(x.dtype()).unsqueeze();
    let hat = (x.clone() - row(statistics.mean)) / row((statistics.variance + norm.eps).sqrt());
    let y = hat * norm.gamma.clone().unsqueeze() + norm.beta.clone().unsqueeze();
    if norm.relu { relu(y) } else { y }
}
