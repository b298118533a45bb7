//! Products in bf16, for inference: a weight is rounded and brought into the order of the product once.

use crate::kernels::{
    conv::Shape,
    packed::{Packed, Pair, Source},
};
use burn::tensor::{DType, Device, Shape as Dimensions, Tensor, TensorData};
use std::{fmt, sync::Arc};

/// A weight in bf16, as [`linear_bf16`] and [`conv2d_bf16`] read it. Clones share it.
#[derive(Clone)]
pub struct PackedWeight {
    packed: Arc<Packed<Pair>>,
    /// Side of the filters; 1 for a matrix.
    kernel: usize,
}

impl fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (out, inputs) = (self.packed.outputs(), self.packed.inputs());
        write!(f, "PackedWeight({out} x {inputs})")
    }
}

impl PackedWeight {
    /// Packs a matrix `[out, in]`.
    ///
    /// # Panics
    /// When it is not in f32 on the processor.
    pub fn linear(weight: &Tensor<2>) -> Self {
        let [_, inputs] = weight.dims();
        let data = on_processor(weight.clone());
        Self { packed: Arc::new(Packed::new(floats(&data), inputs)), kernel: 1 }
    }

    /// Packs square filters `[out, c, k, k]`.
    ///
    /// # Panics
    /// As [`PackedWeight::linear`].
    pub fn conv2d(weight: &Tensor<4>) -> Self {
        let [out, c, kernel, _] = weight.dims();
        let shape = Shape { n: 0, h: kernel, w: kernel, c, out, kernel, stride: 1, pad: 0 };
        let data = on_processor(weight.clone());
        let filters = shape.filters(floats(&data));
        Self { packed: Arc::new(Packed::new(&filters, kernel * kernel * c)), kernel }
    }
}

/// As [`crate::linear`]: `x` and the weight rounded to bf16, products summed in f32, `b` in f32.
///
/// The bits of a row depend on that row and on weight and bias alone.
///
/// # Panics
/// When `x` is tracked, because there is no gradient; or not in f32 on the processor.
pub fn linear_bf16<const D: usize>(
    x: Tensor<D>,
    w: &PackedWeight,
    b: Option<Tensor<1>>,
) -> Tensor<D> {
    let (mut shape, device) = (x.dims(), x.device());
    let (out, inputs) = (w.packed.outputs(), w.packed.inputs());
    assert_eq!(shape[D - 1], inputs, "linear: input width and weight {out}x{inputs} disagree");
    let (x, b) = (on_processor(x), b.map(on_processor));
    let y = w.packed.product(Source::Rows(floats(&x)), b.as_ref().map(floats));
    shape[D - 1] = out;
    Tensor::from_data(TensorData::new(y, Dimensions::from(shape)), &device)
}

/// As [`crate::conv2d`], rounded as [`linear_bf16`].
///
/// # Panics
/// As [`linear_bf16`].
pub fn conv2d_bf16(x: Tensor<4>, weight: &PackedWeight, stride: usize, pad: usize) -> Tensor<4> {
    let (kernel, out) = (weight.kernel, weight.packed.outputs());
    if kernel == 1 && stride == 1 && pad == 0 {
        return linear_bf16(x, weight, None);
    }
    let ([n, h, w, c], device) = (x.dims(), x.device());
    assert!(kernel * kernel * c == weight.packed.inputs(), "conv2d: {c} channels");
    assert!(
        h + 2 * pad >= kernel && w + 2 * pad >= kernel,
        "conv2d: kernel {kernel} exceeds {h}x{w}"
    );
    let shape = Shape { n, h, w, c, out, kernel, stride, pad };
    let x = on_processor(x);
    let y = weight.packed.product(Source::Windows(&shape, floats(&x)), None);
    let dims = [n, shape.out_h(), shape.out_w(), out];
    Tensor::from_data(TensorData::new(y, dims), &device)
}

fn on_processor<const D: usize>(x: Tensor<D>) -> TensorData {
    assert!(!x.is_autodiff(), "products in bf16 have no gradient");
    assert!(
        x.dtype() == DType::F32 && x.device() == Device::flex(),
        "products in bf16 are for f32 on the processor"
    );
    x.into_data()
}

fn floats(data: &TensorData) -> &[f32] {
    data.as_slice().unwrap_or_else(|error| unreachable!("checked to be f32: {error:?}"))
}
