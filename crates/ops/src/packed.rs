//! Weights in bf16, for inference: rounded and brought into the order of the product once.

use crate::kernels::{
    conv::Shape,
    finish::Finish,
    packed::{Packed, Pair, Source, WIDE},
    winograd,
};
use burn::tensor::{DType, Device, Tensor, TensorData};
use std::{fmt, sync::Arc};

/// A weight in bf16, as [`crate::linear_bf16`] and [`crate::conv2d_norm_bf16`] read it. Clones share it.
#[derive(Clone)]
pub struct PackedWeight {
    words: Arc<Words>,
    out: usize,
    /// Channels of the input.
    c: usize,
    /// Side of the filters; 1 for a matrix.
    kernel: usize,
    stride: usize,
    pad: usize,
}

enum Words {
    /// A matrix, for rows or windows.
    Matrix(Packed<Pair>),
    /// Filters of 3x3 for the patches of Winograd's algorithm.
    Patches(Vec<[Pair; WIDE]>),
}

impl fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { out, c, kernel, .. } = self;
        write!(f, "PackedWeight({out} x {c} x {kernel}x{kernel})")
    }
}

impl PackedWeight {
    /// Packs a matrix `[out, in]`.
    ///
    /// # Panics
    /// When it is not in f32 on the processor.
    pub fn linear(weight: &Tensor<2>) -> Self {
        let [out, c] = weight.dims();
        let words = Words::Matrix(Packed::new(floats(&on_processor(weight.clone())), c));
        Self { words: Arc::new(words), out, c, kernel: 1, stride: 1, pad: 0 }
    }

    /// Packs square filters `[out, c, k, k]` of a convolution with this stride and zero padding.
    ///
    /// # Panics
    /// As [`PackedWeight::linear`].
    pub fn conv2d(weight: &Tensor<4>, stride: usize, pad: usize) -> Self {
        let [out, c, kernel, _] = weight.dims();
        let shape = Shape { n: 0, h: kernel, w: kernel, c, out, kernel, stride, pad };
        let data = on_processor(weight.clone());
        let words = if winograd::is_for(&shape) {
            Words::Patches(winograd::forward_filters(&shape, floats(&data)))
        } else {
            Words::Matrix(Packed::new(&shape.filters(floats(&data)), shape.window()))
        };
        Self { words: Arc::new(words), out, c, kernel, stride, pad }
    }

    /// Outputs and inputs of a matrix.
    ///
    /// # Panics
    /// When it is no matrix, but filters.
    pub(crate) fn matrix(&self) -> [usize; 2] {
        assert!(self.kernel == 1, "linear: {self:?} is the weight of a convolution");
        [self.out, self.c]
    }

    /// # Panics
    /// When pictures of another number of channels are given, or smaller ones than a filter.
    pub(crate) fn assert_fits(&self, [_, h, w, c]: [usize; 4]) {
        let (kernel, pad) = (self.kernel, self.pad);
        assert!(c == self.c, "conv2d: {c} channels against {self:?}");
        assert!(
            h + 2 * pad >= kernel && w + 2 * pad >= kernel,
            "conv2d: kernel {kernel} exceeds {h}x{w}"
        );
    }

    /// The convolution of pictures of these sides.
    pub(crate) fn shape(&self, pictures: &[usize]) -> Shape {
        let Self { out, c, kernel, stride, pad, .. } = *self;
        Shape { n: pictures[0], h: pictures[1], w: pictures[2], c, out, kernel, stride, pad }
    }

    /// `x w^T + b`, and what follows.
    pub(crate) fn rows(&self, x: &[f32], bias: Option<&[f32]>, finish: Finish<'_>) -> Vec<f32> {
        match &*self.words {
            Words::Matrix(packed) => packed.product(Source::Rows(x), bias, finish),
            Words::Patches(_) => unreachable!("only filters of 3x3 are kept so"),
        }
    }

    /// The convolution of pictures `[n, h, w, c]`, and what follows.
    pub(crate) fn pictures(&self, s: &Shape, x: &[f32], finish: Finish<'_>) -> Vec<f32> {
        match &*self.words {
            Words::Patches(filters) => winograd::convolve(s, x, filters, finish),
            Words::Matrix(packed) if (s.kernel, s.stride, s.pad) == (1, 1, 0) => {
                packed.product(Source::Rows(x), None, finish)
            }
            Words::Matrix(packed) => packed.product(Source::Windows(s, x), None, finish),
        }
    }
}

fn on_processor<const D: usize>(weight: Tensor<D>) -> TensorData {
    assert!(!weight.is_autodiff(), "weights in bf16 have no gradient");
    assert!(
        weight.dtype() == DType::F32 && weight.device() == Device::flex(),
        "weights in bf16 are made of f32 on the processor"
    );
    weight.into_data()
}

fn floats(data: &TensorData) -> &[f32] {
    data.as_slice().unwrap_or_else(|error| unreachable!("checked to be f32: {error:?}"))
}
