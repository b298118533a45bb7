//! Products whose results are finished while they are in the cache, for tensors that nobody asks a gradient
//! of: BatchNorm, a shortcut or an activation on its own would walk through all of the memory once more.
//!
//! A tracked tensor goes through the operations one by one instead. The bits are the same.

use crate::{
    Activation, BatchNorm, Op, PackedWeight, activation, batch_norm, conv2d,
    extension::{conv_shape, dims, last, rows, tensor},
    is_fused,
    kernels::{conv, finish::Finish, linear},
    linear as plain_linear,
};
use burn::{
    backend::{Backend, Flex, backend_extension, tensor::FloatTensor},
    tensor::{DType, Device, Shape, Tensor},
};
use burn_flex::FlexTensor;

/// What is done with the results of a product.
#[derive(Clone, Debug)]
pub enum Then<const D: usize> {
    /// Nothing.
    Nothing,
    /// They go through an activation.
    Activation(Activation),
    /// A tensor of their shape is added.
    Add(Tensor<D>),
}

impl<const D: usize> Then<D> {
    /// The tensor to add, as rows (none: empty), and the activation.
    fn parts(self, rows: [usize; 2], device: &Device) -> (Tensor<2>, Option<Activation>) {
        match self {
            Self::Nothing => (Tensor::empty([0, 0], device), None),
            Self::Activation(kind) => (Tensor::empty([0, 0], device), Some(kind)),
            Self::Add(add) => (add.reshape(rows), None),
        }
    }

    fn is_tracked(&self) -> bool {
        matches!(self, Self::Add(add) if add.is_autodiff())
    }
}

/// [`crate::linear`] and what follows.
///
/// # Panics
/// When a tensor to add is of another shape than the results.
pub fn linear_then<const D: usize>(
    x: Tensor<D>,
    w: Tensor<2>,
    b: Option<Tensor<1>>,
    then: Then<D>,
) -> Tensor<D> {
    let tracked = x.is_autodiff()
        || w.is_autodiff()
        || b.as_ref().is_some_and(Tensor::is_autodiff)
        || then.is_tracked();
    if tracked || !is_fused(&x) {
        let y = plain_linear(x, w, b);
        return match then {
            Then::Nothing => y,
            Then::Activation(kind) => activation(y, kind),
            Then::Add(add) => y + add,
        };
    }
    let (mut shape, [out, inputs], device) = (x.dims(), w.dims(), x.device());
    assert_eq!(shape[D - 1], inputs, "linear: input width and weight {out}x{inputs} disagree");
    let rows = shape.iter().product::<usize>() / inputs;
    shape[D - 1] = out;
    let (add, kind) = then.parts([rows, out], &device);
    let b = b.unwrap_or_else(|| Tensor::empty([0], &device));
    let (x, w, b) =
        (x.reshape([rows, inputs]).into_dispatch(), w.into_dispatch(), b.into_dispatch());
    let y = Op::finished_linear(x, w, b, add.into_dispatch(), kind);
    Tensor::<2>::from_dispatch(y).reshape(Shape::from(shape))
}

/// As [`linear_then`]: `x` and the weight rounded to bf16, products summed in f32, the rest in f32.
///
/// The bits of a row depend on that row and on weight and bias alone.
///
/// # Panics
/// When `x` is tracked, because there is no gradient; or not in f32 on the processor; or the weight is that of a
/// convolution.
pub fn linear_bf16<const D: usize>(
    x: Tensor<D>,
    w: &PackedWeight,
    b: Option<Tensor<1>>,
    then: Then<D>,
) -> Tensor<D> {
    assert_inference(&x);
    let (mut shape, device, [out, inputs]) = (x.dims(), x.device(), w.matrix());
    assert_eq!(shape[D - 1], inputs, "linear: input width and weight {out}x{inputs} disagree");
    let rows = shape.iter().product::<usize>() / inputs;
    shape[D - 1] = out;
    let (add, kind) = then.parts([rows, out], &device);
    let b = b.unwrap_or_else(|| Tensor::empty([0], &device));
    let (x, b) = (x.reshape([rows, inputs]).into_dispatch(), b.into_dispatch());
    let y = Op::finished_linear_bf16(x, w.clone(), b, add.into_dispatch(), kind);
    Tensor::<2>::from_dispatch(y).reshape(Shape::from(shape))
}

/// [`crate::conv2d`] without gradients, then BatchNorm with statistics that do not come of the batch, then what
/// [`batch_norm`] does with a shortcut; of tracked tensors the same step by step.
pub fn conv2d_norm(
    x: Tensor<4>,
    weight: Tensor<4>,
    stride: usize,
    pad: usize,
    norm: BatchNorm<'_>,
    shortcut: Option<Tensor<4>>,
) -> Tensor<4> {
    let tracked =
        [&x, &weight].into_iter().chain(&shortcut).any(Tensor::is_autodiff) || norm.is_tracked();
    if tracked || norm.of_batch || !is_fused(&x) {
        return batch_norm(conv2d(x, weight, stride, pad), norm, shortcut);
    }
    let ([_, h, w, c], [out, c_in, k, k2]) = (x.dims(), weight.dims());
    assert!(c == c_in && k == k2, "conv2d: {c} channels against weight {out}x{c_in}x{k}x{k2}");
    assert!(h + 2 * pad >= k && w + 2 * pad >= k, "conv2d: kernel {k} exceeds {h}x{w}");
    let [slope, offset, add] = norm.parts(shortcut, &x.device());
    let place = Place { stride, pad, relu: norm.relu };
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Op::finished_conv(x, weight, slope, offset, add, place))
}

/// As [`conv2d_norm`], rounded as [`linear_bf16`]. Where 3x3 filters go by Winograd's algorithm, it is their
/// patches that are rounded.
///
/// # Panics
/// As [`linear_bf16`], or when the statistics are to come of the batch.
pub fn conv2d_norm_bf16(
    x: Tensor<4>,
    weight: &PackedWeight,
    norm: BatchNorm<'_>,
    shortcut: Option<Tensor<4>>,
) -> Tensor<4> {
    assert_inference(&x);
    assert!(!norm.of_batch, "products in bf16 are not for training");
    weight.assert_fits(x.dims());
    let [slope, offset, add] = norm.parts(shortcut, &x.device());
    let x = x.into_dispatch();
    let y = Op::finished_conv_bf16(x, weight.clone(), slope, offset, add, norm.relu);
    Tensor::from_dispatch(y)
}

fn assert_inference<const D: usize>(x: &Tensor<D>) {
    assert!(!x.is_autodiff(), "products in bf16 have no gradient");
    assert!(
        x.dtype() == DType::F32 && x.device() == Device::flex(),
        "products in bf16 are for f32 on the processor"
    );
}

impl BatchNorm<'_> {
    fn is_tracked(&self) -> bool {
        let statistics = [&self.statistics.mean, &self.statistics.variance];
        [self.gamma, self.beta].into_iter().chain(statistics).any(Tensor::is_autodiff)
    }

    /// Slope and offset of every column, and the shortcut (none: empty).
    fn parts(self, shortcut: Option<Tensor<4>>, device: &Device) -> [FloatTensor<Op>; 3] {
        let inverse = (self.statistics.variance.clone() + self.eps).sqrt().recip();
        let slope = self.gamma.clone() * inverse;
        let offset = self.beta.clone() - self.statistics.mean.clone() * slope.clone();
        let add = shortcut.unwrap_or_else(|| Tensor::empty([0, 0, 0, 0], device));
        [slope.into_dispatch(), offset.into_dispatch(), add.into_dispatch()]
    }
}

/// Where the windows of a convolution lie, and whether ReLU follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    stride: usize,
    pad: usize,
    relu: bool,
}

/// The products, dispatched on the device of their input.
#[backend_extension(Flex)]
pub(crate) trait FinishedOps: Backend {
    fn finished_linear(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        add: FloatTensor<Self>,
        kind: Option<Activation>,
    ) -> FloatTensor<Self>;
    fn finished_linear_bf16(
        x: FloatTensor<Self>,
        w: PackedWeight,
        b: FloatTensor<Self>,
        add: FloatTensor<Self>,
        kind: Option<Activation>,
    ) -> FloatTensor<Self>;
    fn finished_conv(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        slope: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        add: FloatTensor<Self>,
        place: Place,
    ) -> FloatTensor<Self>;
    fn finished_conv_bf16(
        x: FloatTensor<Self>,
        w: PackedWeight,
        slope: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        add: FloatTensor<Self>,
        relu: bool,
    ) -> FloatTensor<Self>;
}

fn some(values: &[f32]) -> Option<&[f32]> {
    (!values.is_empty()).then_some(values)
}

/// # Panics
/// When there is something to add, but not to every result.
fn finish_of<'a>(
    line: Option<[&'a [f32]; 2]>,
    add: &'a [f32],
    results: usize,
    relu: bool,
    activation: Option<Activation>,
) -> Finish<'a> {
    assert!(add.is_empty() || add.len() == results, "{} values to add to {results}", add.len());
    Finish { line, add: some(add), relu, activation }
}

impl FinishedOps for Flex {
    fn finished_linear(
        x: FlexTensor,
        w: FlexTensor,
        b: FlexTensor,
        add: FlexTensor,
        kind: Option<Activation>,
    ) -> FlexTensor {
        let (count, outputs, inputs) = (dims(&x)[0], dims(&w)[0], last(&w));
        let y = rows!(x, w, b, add => {
            let finish = finish_of(None, add, count * outputs, false, kind);
            linear::forward(x, w, some(b), inputs, finish)
        });
        tensor(y, &[count, outputs])
    }

    fn finished_linear_bf16(
        x: FlexTensor,
        w: PackedWeight,
        b: FlexTensor,
        add: FlexTensor,
        kind: Option<Activation>,
    ) -> FlexTensor {
        let (count, [outputs, _]) = (dims(&x)[0], w.matrix());
        let y = rows!(x, b, add => {
            w.rows(x, some(b), finish_of(None, add, count * outputs, false, kind))
        });
        tensor(y, &[count, outputs])
    }

    fn finished_conv(
        x: FlexTensor,
        w: FlexTensor,
        slope: FlexTensor,
        offset: FlexTensor,
        add: FlexTensor,
        place: Place,
    ) -> FlexTensor {
        let s = conv_shape(&dims(&x), &dims(&w), place.stride, place.pad);
        let shape = [s.n, s.out_h(), s.out_w(), s.out];
        let results = shape.iter().product();
        let y = rows!(x, w, slope, offset, add => {
            let finish = finish_of(Some([slope, offset]), add, results, place.relu, None);
            conv::forward(&s, x, w, finish)
        });
        tensor(y, &shape)
    }

    fn finished_conv_bf16(
        x: FlexTensor,
        w: PackedWeight,
        slope: FlexTensor,
        offset: FlexTensor,
        add: FlexTensor,
        relu: bool,
    ) -> FlexTensor {
        let s = w.shape(&dims(&x));
        let shape = [s.n, s.out_h(), s.out_w(), s.out];
        let results = shape.iter().product();
        let y = rows!(x, slope, offset, add => {
            w.pictures(&s, x, finish_of(Some([slope, offset]), add, results, relu, None))
        });
        tensor(y, &shape)
    }
}
