//! Weights as products without gradients read them: rounded if asked for, and in the order of the product.

use crate::kernels::{
    conv::Shape,
    finish::Finish,
    packed::{Packed, Pair, Source, WIDE, Word},
    winograd,
};
use burn::tensor::{Tensor, TensorData};
use std::{
    fmt,
    sync::{Arc, OnceLock},
};

/// What products without gradients are computed in, on the processor. On cards they keep the tensors' precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32.
    F32,
    /// Both factors rounded to bf16, products summed in f32. Where 3x3 filters go by Winograd's algorithm, what
    /// is rounded are the patches of both.
    Bf16,
}

/// A weight `[out, in]`, or square filters `[out, c, k, k]`.
///
/// The first product without gradients packs it, and keeps that beside the tensor: as much memory again in
/// f32 (16/9 of it for filters that go by Winograd's algorithm), half of it in bf16. Clones share it.
#[derive(Clone, Debug)]
pub struct Weight<const D: usize> {
    tensor: Tensor<D>,
    precision: Precision,
    stride: usize,
    pad: usize,
    packed: Arc<OnceLock<PackedWeight>>,
}

impl Weight<2> {
    /// A matrix.
    pub fn matrix(tensor: Tensor<2>, precision: Precision) -> Self {
        Self { tensor, precision, stride: 1, pad: 0, packed: Arc::default() }
    }

    pub(crate) fn packed(&self) -> &PackedWeight {
        self.packed.get_or_init(|| {
            let [out, inputs] = self.tensor.dims();
            let shape = Shape { n: 0, h: 1, w: 1, c: inputs, out, kernel: 1, stride: 1, pad: 0 };
            PackedWeight::new(shape, &self.tensor, self.precision)
        })
    }
}

impl Weight<4> {
    /// Filters of a convolution with this stride and zero padding.
    pub fn filters(tensor: Tensor<4>, stride: usize, pad: usize, precision: Precision) -> Self {
        Self { tensor, precision, stride, pad, packed: Arc::default() }
    }

    /// Stride and padding.
    pub fn window(&self) -> (usize, usize) {
        (self.stride, self.pad)
    }

    pub(crate) fn packed(&self) -> &PackedWeight {
        self.packed.get_or_init(|| {
            let ([out, c, kernel, _], stride, pad) = (self.tensor.dims(), self.stride, self.pad);
            let shape = Shape { n: 0, h: kernel, w: kernel, c, out, kernel, stride, pad };
            PackedWeight::new(shape, &self.tensor, self.precision)
        })
    }
}

impl<const D: usize> Weight<D> {
    /// The weight in f32, for gradients.
    pub fn tensor(&self) -> Tensor<D> {
        self.tensor.clone()
    }

    pub(crate) fn is_tracked(&self) -> bool {
        self.tensor.is_autodiff()
    }
}

/// A packed weight. Clones share it.
#[derive(Clone)]
pub(crate) struct PackedWeight {
    words: Arc<Words>,
    /// The convolution of no pictures; that of 1x1 for a matrix.
    shape: Shape,
}

enum Words {
    F32(Form<f32>),
    Bf16(Form<Pair>),
}

enum Form<W> {
    /// For rows or windows.
    Matrix(Packed<W>),
    /// Filters of 3x3 for the patches of Winograd's algorithm.
    Patches(Vec<[W; WIDE]>),
}

impl<W: Word> Form<W> {
    fn new(shape: &Shape, weight: &[f32]) -> Self {
        match winograd::is_for(shape) {
            true => Self::Patches(winograd::filters(shape, weight)),
            false => Self::Matrix(Packed::new(&shape.filters(weight), shape.window())),
        }
    }

    fn multiply(&self, s: &Shape, x: &[f32], bias: Option<&[f32]>, finish: Finish<'_>) -> Vec<f32> {
        match self {
            Self::Patches(filters) => winograd::convolve(s, x, filters, finish),
            Self::Matrix(packed) if (s.kernel, s.stride, s.pad) == (1, 1, 0) => {
                packed.product(Source::Rows(x), bias, finish)
            }
            Self::Matrix(packed) => packed.product(Source::Windows(s, x), bias, finish),
        }
    }
}

impl fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { out, c, kernel, .. } = self.shape;
        write!(f, "a weight of {out} x {c} x {kernel}x{kernel}")
    }
}

impl PackedWeight {
    fn new<const D: usize>(shape: Shape, weight: &Tensor<D>, precision: Precision) -> Self {
        let data = weight.clone().into_data();
        let words = match precision {
            Precision::F32 => Words::F32(Form::new(&shape, floats(&data))),
            Precision::Bf16 => Words::Bf16(Form::new(&shape, floats(&data))),
        };
        Self { words: Arc::new(words), shape }
    }

    /// Its convolution of pictures of these sides.
    ///
    /// # Panics
    /// When they have another number of channels, or are smaller than a filter.
    pub(crate) fn shape(&self, pictures: [usize; 4]) -> Shape {
        let [n, h, w, c] = pictures;
        let (kernel, pad) = (self.shape.kernel, self.shape.pad);
        assert!(c == self.shape.c, "{c} inputs or channels against {self:?}");
        assert!(
            h + 2 * pad >= kernel && w + 2 * pad >= kernel,
            "conv2d: kernel {kernel} exceeds {h}x{w}"
        );
        Shape { n, h, w, ..self.shape }
    }

    /// The convolution, or of a matrix the product, and what follows. A bias is for matrices.
    pub(crate) fn multiply(
        &self,
        s: &Shape,
        x: &[f32],
        bias: Option<&[f32]>,
        finish: Finish<'_>,
    ) -> Vec<f32> {
        match &*self.words {
            Words::F32(form) => form.multiply(s, x, bias, finish),
            Words::Bf16(form) => form.multiply(s, x, bias, finish),
        }
    }
}

fn floats(data: &TensorData) -> &[f32] {
    data.as_slice().unwrap_or_else(|error| unreachable!("fused products are in f32: {error:?}"))
}
