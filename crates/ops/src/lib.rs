//! Fused CPU operations with their own backward passes.
//!
//! The tensor framework composes LayerNorm, attention and activations of five to nine elementwise
//! operations each and has no channels-last convolution; on a processor that is half the time of
//! a training step. This crate adds the few operations the towers are made of as an extension of
//! the CPU backend, each with a hand-written backward pass, so that callers write
//! `ops::linear(x, w, b)` and gradients follow as for any other tensor function.
//!
//! Decisions:
//! - Pictures are channels-last, `[batch, height, width, channels]`, between the operations: a 1x1
//!   convolution is then a plain product and BatchNorm a normalisation of columns.
//! - Only gradients that are asked for are computed: to pixels costs no weight gradients.
//! - Products with a weight are the crate's own (`packed`): the weight is brought into the order of the
//!   registers once for all tasks, in f32 or in bf16. Convolutions of 3x3 and stride 1 go by Winograd's
//!   F(2x2, 3x3), forward and both gradients. What is left to the `gemm` crate are attention and the
//!   gradients of weights.
//! - Without gradients a weight is packed once and kept ([`Weight`]), and what follows a product (BatchNorm, a
//!   shortcut, an activation) is done while its results are in the cache ([`linear_then`], [`conv2d_norm`]), with
//!   the bits of the steps on their own.
//! - `unsafe` occurs in four modules, each with its proofs: the call of the `gemm` crate behind checked
//!   shapes (`matmul`), results in memory that was not cleared before (`fresh`), instructions that multiply
//!   bf16 (`packed`), and one setting of the allocator. `.ci/sanitise` runs the kernels' tests under the
//!   address sanitiser.
//! - Elementwise loops are plain Rust, compiled for AVX-512, AVX2 and the baseline and chosen at
//!   run time. Multiplications and additions are contracted in products alone, so only these
//!   may differ in the last bit between processors. Bits depend neither on the number of threads
//!   nor, for one sample in evaluation, on the other samples of its batch.
//! - On graphics cards (cargo features `wgpu`, `vulkan`, `metal` and `cuda`), and in other precisions than f32,
//!   every operation is [`composed`] of the framework's functions.
//!
//! Not chosen: fusing whole blocks into one operation (faster, but the tower could no longer be
//! read), and own kernels for cards (the framework fuses elementwise functions there).

mod allocator;
pub mod composed;
mod device;
mod extension;
mod inference;
mod kernels;
mod packed;

pub use allocator::keep_freed_memory;
pub use device::device;
pub use inference::{Then, conv2d_norm, linear_then};
pub use kernels::activation::Activation;
pub use packed::{Precision, Weight};

use burn::{
    backend::Dispatch,
    tensor::{DType, Device, Shape, Tensor, activation::relu},
};
use extension::FusedOps;

type Op = Dispatch;

/// Whether there is a kernel for this tensor: on the processor, in f32.
fn is_fused<const D: usize>(x: &Tensor<D>) -> bool {
    let cards =
        cfg!(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda"));
    x.dtype() == DType::F32 && (!cards || x.device() == Device::flex())
}

/// `x w^T + b` over the last dimension; `w` is `[out, in]` as PyTorch stores it.
///
/// The bits of a row depend on that row and on `w` and `b` alone. That and the fusion are for f32;
/// other precisions, which golden tests compute in, take the framework's product.
pub fn linear<const D: usize>(x: Tensor<D>, w: Tensor<2>, b: Option<Tensor<1>>) -> Tensor<D> {
    let mut shape = x.dims();
    let ([out, inputs], device) = (w.dims(), x.device());
    assert_eq!(shape[D - 1], inputs, "linear: input width and weight {out}x{inputs} disagree");
    let rows = shape.iter().product::<usize>() / inputs;
    if !is_fused(&x) {
        return composed::linear(x, w, b);
    }
    let b = b.unwrap_or_else(|| Tensor::empty([0], &device));
    let (x, w, b) =
        (x.reshape([rows, inputs]).into_dispatch(), w.into_dispatch(), b.into_dispatch());
    shape[D - 1] = out;
    Tensor::<2>::from_dispatch(Op::fused_linear(x, w, b)).reshape(Shape::from(shape))
}

/// Convolution of `[n, h, w, c]` with a square kernel `[out, c, k, k]` (PyTorch's layout), zero
/// padding `pad` on all sides; no bias.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, stride: usize, pad: usize) -> Tensor<4> {
    let ([n, h, w, c], [out, c_in, k, k2]) = (x.dims(), weight.dims());
    assert!(c == c_in && k == k2, "conv2d: {c} channels against weight {out}x{c_in}x{k}x{k2}");
    if k == 1 && stride == 1 && pad == 0 {
        return linear(x, weight.reshape([out, c]), None);
    }
    assert!(h + 2 * pad >= k && w + 2 * pad >= k, "conv2d: kernel {k} exceeds {h}x{w}");
    if !is_fused(&x) {
        return composed::conv2d(x, weight, stride, pad);
    }
    let (out_h, out_w) = ((h + 2 * pad - k) / stride + 1, (w + 2 * pad - k) / stride + 1);
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    let y = Tensor::<4>::from_dispatch(Op::fused_conv2d(x, weight, stride, pad));
    debug_assert_eq!(y.dims(), [n, out_h, out_w, out]);
    y
}

/// Average of `k x k` windows with stride `k`; rows and columns beyond a multiple are dropped.
pub fn avg_pool2d(x: Tensor<4>, k: usize) -> Tensor<4> {
    if k == 1 {
        return x;
    }
    if !is_fused(&x) {
        return composed::avg_pool2d(x, k);
    }
    Tensor::from_dispatch(Op::fused_avg_pool(x.into_dispatch(), k))
}

/// LayerNorm over the last dimension, biased variance, in f32.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f32,
) -> Tensor<D> {
    if !is_fused(&x) {
        return composed::layer_norm(x, gamma, beta, eps);
    }
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
    Tensor::from_dispatch(Op::fused_layer_norm(x, gamma, beta, eps))
}

/// An elementwise activation.
pub fn activation<const D: usize>(x: Tensor<D>, kind: Activation) -> Tensor<D> {
    if !is_fused(&x) {
        return composed::activation(x, kind);
    }
    Tensor::from_dispatch(Op::fused_activation(x.into_dispatch(), kind))
}

/// Self-attention on packed queries, keys and values `[batch, tokens, 3 * width]` (in this order,
/// heads as consecutive chunks): `softmax(q k^T / sqrt(width / heads)) v`, `[batch, tokens, width]`.
pub fn attention(packed: Tensor<3>, heads: usize, causal: bool) -> Tensor<3> {
    let [_, _, triple] = packed.dims();
    assert!(triple % (3 * heads) == 0, "attention: {triple} columns do not split into 3x{heads}");
    if !is_fused(&packed) {
        return composed::attention(packed, heads, causal);
    }
    Tensor::from_dispatch(Op::fused_attention(packed.into_dispatch(), heads, causal))
}

/// Statistics to normalise columns with.
#[derive(Clone, Debug)]
pub struct ColumnStatistics {
    /// Mean of every column.
    pub mean: Tensor<1>,
    /// Biased variance of every column.
    pub variance: Tensor<1>,
}

/// Mean and biased variance over all but the last dimension; carries no gradient.
pub fn column_statistics<const D: usize>(x: &Tensor<D>) -> ColumnStatistics {
    let x = x.clone().inner_or_self();
    if !is_fused(&x) {
        return composed::column_statistics(&x);
    }
    let c = x.dims()[D - 1];
    let moments = Tensor::<2>::from_dispatch(Op::fused_column_moments(x.into_dispatch()));
    let row = |i| moments.clone().slice([i..i + 1, 0..c]).reshape([c]);
    ColumnStatistics { mean: row(0), variance: row(1) }
}

/// What BatchNorm normalises columns with, and what follows.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm<'a> {
    /// Mean and variance.
    pub statistics: &'a ColumnStatistics,
    /// Factor of every column.
    pub gamma: &'a Tensor<1>,
    /// Added to every column after that.
    pub beta: &'a Tensor<1>,
    /// Added to the variance.
    pub eps: f32,
    /// The statistics are those of this batch ([`column_statistics`]), and the gradient passes through them;
    /// otherwise they are constants (evaluation mode).
    pub of_batch: bool,
    /// Apply ReLU to the result.
    pub relu: bool,
}

/// BatchNorm over the last dimension; a shortcut is added to it before ReLU.
pub fn batch_norm<const D: usize>(
    x: Tensor<D>,
    norm: BatchNorm<'_>,
    shortcut: Option<Tensor<D>>,
) -> Tensor<D> {
    if let Some(shortcut) = shortcut {
        let y = batch_norm(x, BatchNorm { relu: false, ..norm }, None) + shortcut;
        return if norm.relu { relu(y) } else { y };
    }
    if !is_fused(&x) {
        return composed::batch_norm(x, norm);
    }
    let inverse = (norm.statistics.variance.clone() + norm.eps).sqrt().recip();
    Tensor::from_dispatch(Op::fused_batch_norm(
        x.into_dispatch(),
        norm.gamma.clone().into_dispatch(),
        norm.beta.clone().into_dispatch(),
        norm.statistics.mean.clone().into_dispatch(),
        inverse.into_dispatch(),
        norm.of_batch,
        norm.relu,
    ))
}

/// Detaching that is a no-op on tensors that are not tracked at all.
trait InnerOrSelf {
    fn inner_or_self(self) -> Self;
}

impl<const D: usize> InnerOrSelf for Tensor<D> {
    fn inner_or_self(self) -> Self {
        if self.is_autodiff() { self.inner() } else { self }
    }
}
