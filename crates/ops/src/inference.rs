//! Products without gradients. The weight is packed once, and what follows a product is done while its results
//! are in the cache: BatchNorm, a shortcut or an activation on its own would walk through all of the memory
//! once more.
//!
//! A tracked tensor goes through the operations one by one instead, in f32; of that, products in f32 have the
//! same bits.

use crate::{
    Activation, BatchNorm, Op, Weight, activation, batch_norm, conv2d,
    extension::{dims, last, rows, tensor},
    is_fused,
    kernels::{conv::Shape, finish::Finish},
    linear,
    packed::PackedWeight,
};
use burn::{
    backend::{Backend, Flex, backend_extension, tensor::FloatTensor},
    tensor::{Shape as Dimensions, Tensor},
};
use burn_flex::FlexTensor;

/// What is done with the results of a product.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "it lives for one call")]
pub enum Then<const D: usize> {
    /// Nothing.
    Nothing,
    /// They go through an activation.
    Activation(Activation),
    /// A tensor of their shape is added.
    Add(Tensor<D>),
}

/// [`linear`] and what follows. The bits of a row depend on that row, on weight and bias, and on the row that
/// is added.
///
/// # Panics
/// When a tensor to add is of another shape than the results.
pub fn linear_then<const D: usize>(
    x: Tensor<D>,
    w: &Weight<2>,
    b: Option<Tensor<1>>,
    then: Then<D>,
) -> Tensor<D> {
    let tracked = x.is_autodiff()
        || w.is_tracked()
        || b.as_ref().is_some_and(Tensor::is_autodiff)
        || matches!(&then, Then::Add(add) if add.is_autodiff());
    if tracked || !is_fused(&x) {
        let y = linear(x, w.tensor(), b);
        return match then {
            Then::Nothing => y,
            Then::Activation(kind) => activation(y, kind),
            Then::Add(add) => y + add,
        };
    }
    let (mut shape, packed, device) = (x.dims(), w.packed(), x.device());
    let inputs = shape[D - 1];
    let rows = shape.iter().product::<usize>() / inputs.max(1);
    let s = packed.shape([rows, 1, 1, inputs]);
    shape[D - 1] = s.out;
    let none = || Tensor::<1>::empty([0], &device).into_dispatch();
    let (add, kind) = match then {
        Then::Nothing => (none(), None),
        Then::Activation(kind) => (none(), Some(kind)),
        Then::Add(add) => (add.into_dispatch(), None),
    };
    let b = b.map_or_else(none, Tensor::into_dispatch);
    let x = x.reshape([rows, inputs]).into_dispatch();
    let y = Op::finished_linear(x, packed.clone(), b, add, kind);
    Tensor::<2>::from_dispatch(y).reshape(Dimensions::from(shape))
}

/// [`conv2d`], then [`batch_norm`] with what that does with a shortcut. Without gradients, and with statistics
/// that do not come of the batch, in one step.
pub fn conv2d_norm(
    x: Tensor<4>,
    weight: &Weight<4>,
    norm: BatchNorm<'_>,
    shortcut: Option<Tensor<4>>,
) -> Tensor<4> {
    let statistics = [&norm.statistics.mean, &norm.statistics.variance];
    let tracked = weight.is_tracked()
        || [&x].into_iter().chain(&shortcut).any(Tensor::is_autodiff)
        || [norm.gamma, norm.beta].into_iter().chain(statistics).any(Tensor::is_autodiff);
    if tracked || norm.of_batch || !is_fused(&x) {
        let (stride, pad) = weight.window();
        return batch_norm(conv2d(x, weight.tensor(), stride, pad), norm, shortcut);
    }
    let (s, device) = (weight.packed().shape(x.dims()), x.device());
    let inverse = (norm.statistics.variance.clone() + norm.eps).sqrt().recip();
    let slope = norm.gamma.clone() * inverse;
    let offset = norm.beta.clone() - norm.statistics.mean.clone() * slope.clone();
    let add = shortcut.unwrap_or_else(|| Tensor::empty([0; 4], &device));
    Tensor::from_dispatch(Op::finished_conv(
        x.into_dispatch(),
        (weight.packed().clone(), s),
        slope.into_dispatch(),
        offset.into_dispatch(),
        add.into_dispatch(),
        norm.relu,
    ))
}

/// The products, dispatched on the device of their input.
#[backend_extension(Flex)]
pub(crate) trait FinishedOps: Backend {
    fn finished_linear(
        x: FloatTensor<Self>,
        w: PackedWeight,
        b: FloatTensor<Self>,
        add: FloatTensor<Self>,
        kind: Option<Activation>,
    ) -> FloatTensor<Self>;
    fn finished_conv(
        x: FloatTensor<Self>,
        w: (PackedWeight, Shape),
        slope: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        add: FloatTensor<Self>,
        relu: bool,
    ) -> FloatTensor<Self>;
}

fn some(values: &[f32]) -> Option<&[f32]> {
    (!values.is_empty()).then_some(values)
}

fn assert_added(add: &FlexTensor, results: usize) {
    let count: usize = dims(add).iter().product();
    assert!(count == 0 || count == results, "{count} values to add to {results}");
}

impl FinishedOps for Flex {
    fn finished_linear(
        x: FlexTensor,
        w: PackedWeight,
        b: FlexTensor,
        add: FlexTensor,
        kind: Option<Activation>,
    ) -> FlexTensor {
        let s = w.shape([dims(&x)[0], 1, 1, last(&x)]);
        assert_added(&add, s.n * s.out);
        let y = rows!(x, b, add => {
            let finish = Finish { add: some(add), activation: kind, ..Finish::default() };
            w.multiply(&s, x, some(b), finish)
        });
        tensor(y, &[s.n, s.out])
    }

    fn finished_conv(
        x: FlexTensor,
        (w, s): (PackedWeight, Shape),
        slope: FlexTensor,
        offset: FlexTensor,
        add: FlexTensor,
        relu: bool,
    ) -> FlexTensor {
        let shape = [s.n, s.out_h(), s.out_w(), s.out];
        assert_added(&add, shape.iter().product());
        let y = rows!(x, slope, offset, add => {
            let line = Some([slope, offset]);
            let finish = Finish { line, add: some(add), relu, ..Finish::default() };
            w.multiply(&s, x, None, finish)
        });
        tensor(y, &shape)
    }
}
