//! The operations as an extension of the framework's CPU backend and of its autodiff.

use crate::kernels::{
    activation::{self, Activation},
    attention, conv, linear, norm, pool,
};
use burn::{
    backend::{
        Autodiff, AutodiffBackend, Backend, Flex, TensorMetadata,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, NodeGuard, Ops, OpsKind},
        },
        backend_extension,
        tensor::FloatTensor,
    },
    tensor::TensorData,
};
use burn_flex::FlexTensor;
use std::fmt::Debug;

/// The forward passes, dispatched on the device of their input.
#[backend_extension(Autodiff, Flex)]
pub(crate) trait FusedOps: Backend {
    fn fused_linear(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
    fn fused_conv2d(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        stride: usize,
        pad: usize,
    ) -> FloatTensor<Self>;
    fn fused_avg_pool(x: FloatTensor<Self>, k: usize) -> FloatTensor<Self>;
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self>;
    fn fused_activation(x: FloatTensor<Self>, kind: Activation) -> FloatTensor<Self>;
    fn fused_attention(x: FloatTensor<Self>, heads: usize, causal: bool) -> FloatTensor<Self>;
    fn fused_column_moments(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fused_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        inverse: FloatTensor<Self>,
        of_batch: bool,
        relu: bool,
    ) -> FloatTensor<Self>;
}

/// The backward passes, per input, so that only what is asked for is computed.
pub(crate) trait FusedGradients: FusedOps {
    fn linear_dx(g: &FloatTensor<Self>, w: &FloatTensor<Self>) -> FloatTensor<Self>;
    fn linear_dw(g: &FloatTensor<Self>, x: &FloatTensor<Self>) -> FloatTensor<Self>;
    fn linear_db(g: &FloatTensor<Self>) -> FloatTensor<Self>;
    fn conv_dx(g: &FloatTensor<Self>, w: &FloatTensor<Self>, s: conv::Shape) -> FloatTensor<Self>;
    fn conv_dw(g: &FloatTensor<Self>, x: &FloatTensor<Self>, s: conv::Shape) -> FloatTensor<Self>;
    fn pool_dx(g: &FloatTensor<Self>, s: pool::Shape) -> FloatTensor<Self>;
    fn layer_norm_d(
        g: &FloatTensor<Self>,
        x: &FloatTensor<Self>,
        gamma: &FloatTensor<Self>,
        eps: f32,
    ) -> [FloatTensor<Self>; 3];
    fn activation_dx(
        g: &FloatTensor<Self>,
        x: &FloatTensor<Self>,
        kind: Activation,
    ) -> FloatTensor<Self>;
    fn attention_dx(
        g: &FloatTensor<Self>,
        x: &FloatTensor<Self>,
        heads: usize,
        causal: bool,
    ) -> FloatTensor<Self>;
    fn batch_norm_d(
        g: &FloatTensor<Self>,
        saved: &NormState<FloatTensor<Self>>,
    ) -> [FloatTensor<Self>; 3];
}

/// What the backward pass of BatchNorm needs.
#[derive(Clone, Debug)]
pub(crate) struct NormState<T> {
    x: T,
    gamma: T,
    beta: T,
    mean: T,
    inverse: T,
    of_batch: bool,
    relu: bool,
}

pub(crate) fn dims(t: &FlexTensor) -> Vec<usize> {
    t.shape().as_slice().to_vec()
}

pub(crate) fn last(t: &FlexTensor) -> usize {
    dims(t).last().copied().unwrap_or(1)
}

pub(crate) fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.to_vec()))
}

/// Runs `f` on the elements in row-major order, copying only when the layout is not.
macro_rules! rows {
    ($($name:ident),+ => $body:expr) => {{
        $(let $name = $name.to_contiguous();)+
        $(let $name: &[f32] = {
            let (start, end) = $name.layout().contiguous_offsets().unwrap_or_default();
            &$name.storage::<f32>()[start..end]
        };)+
        $body
    }};
}

pub(crate) use rows;

fn conv_shape(x: &[usize], w: &[usize], stride: usize, pad: usize) -> conv::Shape {
    conv::Shape { n: x[0], h: x[1], w: x[2], c: x[3], out: w[0], kernel: w[2], stride, pad }
}

fn pool_shape(x: &[usize], k: usize) -> pool::Shape {
    pool::Shape { h: x[1], w: x[2], c: x[3], k }
}

fn attention_shape(x: &[usize], heads: usize, causal: bool) -> attention::Shape {
    attention::Shape { tokens: x[1], width: x[2] / 3, heads, causal }
}

impl FusedOps for Flex {
    fn fused_linear(x: FlexTensor, w: FlexTensor, b: FlexTensor) -> FlexTensor {
        let (rows, outputs, inputs) = (dims(&x)[0], dims(&w)[0], last(&w));
        let y = rows!(x, w, b => linear::forward(x, w, (!b.is_empty()).then_some(b), inputs));
        tensor(y, &[rows, outputs])
    }

    fn fused_conv2d(x: FlexTensor, w: FlexTensor, stride: usize, pad: usize) -> FlexTensor {
        let s = conv_shape(&dims(&x), &dims(&w), stride, pad);
        tensor(rows!(x, w => conv::forward(&s, x, w)), &[s.n, s.out_h(), s.out_w(), s.out])
    }

    fn fused_avg_pool(x: FlexTensor, k: usize) -> FlexTensor {
        let d = dims(&x);
        let y = rows!(x => pool::forward(&pool_shape(&d, k), x));
        tensor(y, &[d[0], d[1] / k, d[2] / k, d[3]])
    }

    fn fused_layer_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        eps: f32,
    ) -> FlexTensor {
        let d = dims(&x);
        tensor(rows!(x, gamma, beta => norm::layer(x, gamma, beta, eps)), &d)
    }

    fn fused_activation(x: FlexTensor, kind: Activation) -> FlexTensor {
        let d = dims(&x);
        tensor(rows!(x => activation::forward(kind, x)), &d)
    }

    fn fused_attention(x: FlexTensor, heads: usize, causal: bool) -> FlexTensor {
        let d = dims(&x);
        let y = rows!(x => attention::forward(&attention_shape(&d, heads, causal), x));
        tensor(y, &[d[0], d[1], d[2] / 3])
    }

    fn fused_column_moments(x: FlexTensor) -> FlexTensor {
        let c = last(&x);
        let (mut mean, variance) = rows!(x => norm::column_moments(x, c));
        mean.extend(variance);
        tensor(mean, &[2, c])
    }

    fn fused_batch_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        mean: FlexTensor,
        inverse: FlexTensor,
        _of_batch: bool,
        relu: bool,
    ) -> FlexTensor {
        let d = dims(&x);
        let y = rows!(x, gamma, beta, mean, inverse =>
            norm::columns(x, &norm::Columns { mean, inverse, gamma, beta, relu }));
        tensor(y, &d)
    }
}

impl FusedGradients for Flex {
    fn linear_dx(g: &FlexTensor, w: &FlexTensor) -> FlexTensor {
        let (rows, inputs) = (dims(g)[0], last(w));
        tensor(rows!(g, w => linear::input_gradient(g, w, inputs)), &[rows, inputs])
    }

    fn linear_dw(g: &FlexTensor, x: &FlexTensor) -> FlexTensor {
        let (out, inputs) = (last(g), last(x));
        tensor(rows!(g, x => linear::weight_gradient(g, x, inputs, out)), &[out, inputs])
    }

    fn linear_db(g: &FlexTensor) -> FlexTensor {
        let out = last(g);
        tensor(rows!(g => linear::column_sums(g, out)), &[out])
    }

    fn conv_dx(g: &FlexTensor, w: &FlexTensor, s: conv::Shape) -> FlexTensor {
        tensor(rows!(g, w => conv::input_gradient(&s, g, w)), &[s.n, s.h, s.w, s.c])
    }

    fn conv_dw(g: &FlexTensor, x: &FlexTensor, s: conv::Shape) -> FlexTensor {
        let dw = rows!(g, x => conv::weight_gradient(&s, g, x));
        tensor(dw, &[s.out, s.c, s.kernel, s.kernel])
    }

    fn pool_dx(g: &FlexTensor, s: pool::Shape) -> FlexTensor {
        let n = dims(g)[0];
        tensor(rows!(g => pool::backward(&s, g)), &[n, s.h, s.w, s.c])
    }

    fn layer_norm_d(
        g: &FlexTensor,
        x: &FlexTensor,
        gamma: &FlexTensor,
        eps: f32,
    ) -> [FlexTensor; 3] {
        let (d, c) = (dims(x), last(x));
        let (dx, dg, db) = rows!(g, x, gamma => norm::layer_backward(x, gamma, g, eps));
        [tensor(dx, &d), tensor(dg, &[c]), tensor(db, &[c])]
    }

    fn activation_dx(g: &FlexTensor, x: &FlexTensor, kind: Activation) -> FlexTensor {
        let d = dims(x);
        tensor(rows!(g, x => activation::backward(kind, x, g)), &d)
    }

    fn attention_dx(g: &FlexTensor, x: &FlexTensor, heads: usize, causal: bool) -> FlexTensor {
        let d = dims(x);
        let s = attention_shape(&d, heads, causal);
        tensor(rows!(g, x => attention::backward(&s, x, g)), &d)
    }

    fn batch_norm_d(g: &FlexTensor, saved: &NormState<FlexTensor>) -> [FlexTensor; 3] {
        let NormState { x, gamma, beta, mean, inverse, of_batch, relu } = saved;
        let (d, c) = (dims(x), last(x));
        let (dx, dg, db) = rows!(x, g, gamma, beta, mean, inverse => {
            let s = norm::Columns { mean, inverse, gamma, beta, relu: *relu };
            norm::columns_backward(x, g, &s, *of_batch)
        });
        [tensor(dx, &d), tensor(dg, &[c]), tensor(db, &[c])]
    }
}

/// Puts `output` on the tape with `state` for its backward pass, if any parent is tracked.
fn record<B, C, Op, const N: usize>(
    op: Op,
    parents: [NodeGuard; N],
    state: Op::State,
    output: FloatTensor<B>,
) -> FloatTensor<Autodiff<B, C>>
where
    B: FusedGradients,
    C: CheckpointStrategy,
    Op: Backward<B, N>,
{
    match op.prepare::<C>(parents).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(state, output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    }
}

/// Declares the backward pass of an operation: its parents' number, state, and the gradients in
/// parent order, each computed only when that parent is tracked.
macro_rules! backward {
    ($op:ident, $n:literal, $state:ty, |$g:ident, $s:ident| [$($d:expr),+]) => {
        #[derive(Debug)]
        struct $op;
        impl<B: FusedGradients> Backward<B, $n> for $op {
            type State = $state;
            fn backward(
                self,
                ops: Ops<Self::State, $n>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let $g = grads.consume::<B>(&ops.node);
                let $s = ops.state;
                let mut parents = ops.parents.into_iter();
                $(if let Some(Some(parent)) = parents.next() {
                    grads.register::<B>(parent.id, $d);
                })+
            }
        }
    };
}

type T<B> = FloatTensor<B>;

backward!(Linear, 3, (T<B>, T<B>), |g, s| [
    B::linear_dx(&g, &s.1),
    B::linear_dw(&g, &s.0),
    B::linear_db(&g)
]);
backward!(Conv, 2, (T<B>, T<B>, conv::Shape), |g, s| [
    B::conv_dx(&g, &s.1, s.2),
    B::conv_dw(&g, &s.0, s.2)
]);
backward!(Pool, 1, pool::Shape, |g, s| [B::pool_dx(&g, s)]);
backward!(Act, 1, (T<B>, Activation), |g, s| [B::activation_dx(&g, &s.0, s.1)]);
backward!(Attention, 1, (T<B>, usize, bool), |g, s| [B::attention_dx(&g, &s.0, s.1, s.2)]);

/// Registers the three gradients of a normalisation, which come out of one pass.
macro_rules! register_all {
    ($ops:expr, $gradients:expr, $grads:expr) => {
        for (parent, gradient) in $ops.parents.into_iter().zip($gradients) {
            if let Some(parent) = parent {
                $grads.register::<B>(parent.id, gradient);
            }
        }
    };
}

#[derive(Debug)]
struct LayerNorm;
impl<B: FusedGradients> Backward<B, 3> for LayerNorm {
    type State = (T<B>, T<B>, f32);
    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let (x, gamma, eps) = ops.state;
        register_all!(ops, B::layer_norm_d(&g, &x, &gamma, eps), grads);
    }
}

#[derive(Debug)]
struct BatchNorm;
impl<B: FusedGradients> Backward<B, 3> for BatchNorm {
    type State = NormState<T<B>>;
    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        register_all!(ops, B::batch_norm_d(&g, &ops.state), grads);
    }
}

impl<B: FusedGradients, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn fused_linear(x: T<Self>, w: T<Self>, b: T<Self>) -> T<Self> {
        let nodes = [x.node(), w.node(), b.node()];
        let (x, w, b) = (x.into_primitive(), w.into_primitive(), b.into_primitive());
        record::<B, C, _, 3>(Linear, nodes, (x.clone(), w.clone()), B::fused_linear(x, w, b))
    }

    fn fused_conv2d(x: T<Self>, w: T<Self>, stride: usize, pad: usize) -> T<Self> {
        let nodes = [x.node(), w.node()];
        let (x, w) = (x.into_primitive(), w.into_primitive());
        let s = conv_shape(x.shape().as_slice(), w.shape().as_slice(), stride, pad);
        let y = B::fused_conv2d(x.clone(), w.clone(), stride, pad);
        record::<B, C, _, 2>(Conv, nodes, (x, w, s), y)
    }

    fn fused_avg_pool(x: T<Self>, k: usize) -> T<Self> {
        let node = x.node();
        let x = x.into_primitive();
        let s = pool_shape(x.shape().as_slice(), k);
        record::<B, C, _, 1>(Pool, [node], s, B::fused_avg_pool(x, k))
    }

    fn fused_layer_norm(x: T<Self>, gamma: T<Self>, beta: T<Self>, eps: f32) -> T<Self> {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let (x, gamma) = (x.into_primitive(), gamma.into_primitive());
        let state = (x.clone(), gamma.clone(), eps);
        let y = B::fused_layer_norm(x, gamma, beta.into_primitive(), eps);
        record::<B, C, _, 3>(LayerNorm, nodes, state, y)
    }

    fn fused_activation(x: T<Self>, kind: Activation) -> T<Self> {
        let node = x.node();
        let x = x.into_primitive();
        record::<B, C, _, 1>(Act, [node], (x.clone(), kind), B::fused_activation(x, kind))
    }

    fn fused_attention(x: T<Self>, heads: usize, causal: bool) -> T<Self> {
        let node = x.node();
        let x = x.into_primitive();
        let y = B::fused_attention(x.clone(), heads, causal);
        record::<B, C, _, 1>(Attention, [node], (x, heads, causal), y)
    }

    fn fused_column_moments(x: T<Self>) -> T<Self> {
        Self::from_inner(B::fused_column_moments(x.into_primitive()))
    }

    fn fused_batch_norm(
        x: T<Self>,
        gamma: T<Self>,
        beta: T<Self>,
        mean: T<Self>,
        inverse: T<Self>,
        of_batch: bool,
        relu: bool,
    ) -> T<Self> {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let state = NormState {
            x: x.into_primitive(),
            gamma: gamma.into_primitive(),
            beta: beta.into_primitive(),
            mean: mean.into_primitive(),
            inverse: inverse.into_primitive(),
            of_batch,
            relu,
        };
        let s = state.clone();
        let y = B::fused_batch_norm(s.x, s.gamma, s.beta, s.mean, s.inverse, of_batch, relu);
        record::<B, C, _, 3>(BatchNorm, nodes, state, y)
    }
}
