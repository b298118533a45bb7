//! The layers of the prior, each with its pullback written out.
//!
//! A pullback carries the gradient from an output to an input. The framework has no second
//! derivatives, and a defence that follows a gradient can only be attacked exactly if that
//! gradient is an expression like any other: so the pullbacks are composed of ordinary tensor
//! functions, which the tape differentiates once more. All tensors are `[batch, tokens, width]`.

use burn::tensor::{Tensor, TensorData, activation::sigmoid, activation::softmax};
use clipguard_ops as ops;

/// Length of queries and keys: the scale of the cosine attention is its square, 16.
const LENGTH: f64 = 4.0;

/// `x w^T`, `w` is `[out, in]`.
pub(super) fn product(x: Tensor<3>, w: &Tensor<2>) -> Tensor<3> {
    ops::linear(x, w.clone(), None)
}

/// Gradient of [`product`] with respect to `x`.
fn product_back(dy: Tensor<3>, w: &Tensor<2>) -> Tensor<3> {
    product(dy, &w.clone().transpose())
}

/// Layer norm over the last dimension with a gain and no bias; biased variance.
#[derive(Clone, Debug)]
pub(super) struct LayerNorm(pub(super) Tensor<1>);

/// What the pullback of a norm needs.
#[derive(Clone, Debug)]
pub(super) struct Normed {
    unit: Tensor<3>,
    inverse: Tensor<3>,
}

impl LayerNorm {
    pub(super) fn forward(&self, x: Tensor<3>) -> (Tensor<3>, Normed) {
        let centred = x.clone() - x.mean_dim(2);
        let variance = centred.clone().square().mean_dim(2);
        let inverse = (variance + 1e-5).sqrt().recip();
        let unit = centred * inverse.clone();
        (unit.clone() * self.0.clone().unsqueeze(), Normed { unit, inverse })
    }

    pub(super) fn pull(&self, normed: &Normed, dy: Tensor<3>) -> Tensor<3> {
        let Normed { unit, inverse } = normed;
        let d = dy * self.0.clone().unsqueeze();
        let along = (d.clone() * unit.clone()).mean_dim(2);
        (d.clone() - d.mean_dim(2) - unit.clone() * along) * inverse.clone()
    }
}

/// Rows of length [`LENGTH`], and the inverse of their former length.
fn lengthened(x: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
    // The square root has no finite slope at zero, so the clamp acts on the squares.
    let inverse = x.clone().square().sum_dim(2).clamp_min(1e-24).sqrt().recip();
    (x * inverse.clone() * LENGTH, inverse)
}

/// Pullback of [`lengthened`], from its two results.
fn lengthened_back(y: &Tensor<3>, inverse: &Tensor<3>, dy: Tensor<3>) -> Tensor<3> {
    let along = (y.clone() * dy.clone()).sum_dim(2) / LENGTH;
    (dy * LENGTH - y.clone() * along) * inverse.clone()
}

/// The rotary embedding of a few positions: pairs of channels `(0, 1), (2, 3), ...` turn by
/// `position * frequency`; channels beyond the frequencies stay.
#[derive(Clone, Debug)]
struct Rotation {
    /// `[1, tokens, 1, width]`.
    cos: Tensor<4>,
    sin: Tensor<4>,
    /// `x` times it is `(-x1, x0, -x3, x2, ...)`.
    swap: Tensor<2>,
}

impl Rotation {
    /// For the tokens of `x`, the first of which is at position `start`.
    fn new(frequencies: &[f64], width: usize, start: usize, x: &Tensor<3>) -> Self {
        let tokens = x.dims()[1];
        let table = |of: fn(f64) -> f64, rest: f64| {
            let at = |position: usize, channel: usize| {
                frequencies.get(channel / 2).map_or(rest, |f| of(f * position as f64))
            };
            let values: Vec<f64> = (start..start + tokens)
                .flat_map(|position| (0..width).map(move |channel| at(position, channel)))
                .collect();
            constant(values, [1, tokens, 1, width], x)
        };
        let entry = |row: usize, column: usize| match (row ^ 1 == column, row % 2) {
            (false, _) => 0.0,
            (true, 0) => 1.0,
            (true, _) => -1.0,
        };
        let swap = (0..width * width).map(|i| entry(i / width, i % width)).collect();
        let swap = constant(swap, [width, width], x);
        Self { cos: table(f64::cos, 1.0), sin: table(f64::sin, 0.0), swap }
    }

    /// Turns every head of `[batch, tokens, heads * width]`.
    fn turn(&self, x: Tensor<3>) -> Tensor<3> {
        let (shape, split) = (x.dims(), self.split(&x));
        let swapped = self.swapped(x.clone(), &self.swap.clone().transpose());
        let turned =
            x.reshape(split) * self.cos.clone() + swapped.reshape(split) * self.sin.clone();
        turned.reshape(shape)
    }

    /// Pullback of [`Rotation::turn`].
    fn turn_back(&self, dy: Tensor<3>) -> Tensor<3> {
        let (shape, split) = (dy.dims(), self.split(&dy));
        let dy = dy.reshape(split);
        let swapped = self.swapped((dy.clone() * self.sin.clone()).reshape(shape), &self.swap);
        (dy * self.cos.clone()).reshape(shape) + swapped
    }

    fn split(&self, x: &Tensor<3>) -> [usize; 4] {
        let ([batch, tokens, all], width) = (x.dims(), self.swap.dims()[0]);
        [batch, tokens, all / width, width]
    }

    fn swapped(&self, x: Tensor<3>, matrix: &Tensor<2>) -> Tensor<3> {
        let (shape, [batch, tokens, heads, width]) = (x.dims(), self.split(&x));
        product(x.reshape([batch, tokens * heads, width]), matrix).reshape(shape)
    }
}

/// A constant where `x` is, in its precision.
pub(super) fn constant<const D: usize>(
    values: Vec<f64>,
    shape: [usize; D],
    x: &Tensor<3>,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (&x.device().inner(), x.dtype()))
}

/// Keys and values of the tokens so far, `[batch, 1 + tokens, width]`: the learned null key comes
/// first. Keys are turned and have length [`LENGTH`].
#[derive(Clone, Debug)]
pub(super) struct Past {
    pub(super) keys: Tensor<3>,
    pub(super) values: Tensor<3>,
}

impl Past {
    /// With more tokens behind; a past of one row serves every row.
    fn followed_by(&self, keys: Tensor<3>, values: Tensor<3>) -> Self {
        let batch = keys.dims()[0];
        let wide = |past: &Tensor<3>| {
            let [_, tokens, width] = past.dims();
            past.clone().expand([batch, tokens, width])
        };
        Self {
            keys: Tensor::cat(vec![wide(&self.keys), keys], 1),
            values: Tensor::cat(vec![wide(&self.values), values], 1),
        }
    }

    /// Number of tokens, the null key not counted.
    pub(super) fn tokens(&self) -> usize {
        self.keys.dims()[1] - 1
    }
}

/// Causal attention with one key and value head for all query heads, and a norm behind it.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    pub(super) norm: LayerNorm,
    pub(super) to_q: Tensor<2>,
    pub(super) to_kv: Tensor<2>,
    pub(super) null_kv: Tensor<2>,
    pub(super) to_out: Tensor<2>,
    pub(super) out_norm: LayerNorm,
    pub(super) frequencies: Vec<f64>,
}

/// What the pullback of an attention needs.
#[derive(Clone, Debug)]
pub(super) struct Attended {
    normed: Normed,
    rotation: Rotation,
    queries: Tensor<3>,
    query_inverse: Tensor<3>,
    key_inverse: Tensor<3>,
    past: Past,
    weights: Tensor<3>,
    out: Normed,
}

impl Attention {
    /// The past of an empty row: the null key and value, `[1, 1, width]`.
    pub(super) fn beginning(&self) -> Past {
        let width = self.null_kv.dims()[1];
        let row = |i| self.null_kv.clone().narrow(0, i, 1).reshape([1, 1, width]);
        Past { keys: lengthened(row(0)).0, values: row(1) }
    }

    /// `attn(x)` without the residual, and all keys and values including those of `x`.
    ///
    /// `bias` is `[1, heads, tokens, keys]`, with a large negative number where a token may not
    /// look.
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        past: &Past,
        bias: Tensor<4>,
    ) -> (Tensor<3>, Attended) {
        let [batch, tokens, _] = x.dims();
        let width = self.null_kv.dims()[1];
        let rotation = Rotation::new(&self.frequencies, width, past.tokens(), &x);
        let (h, normed) = self.norm.forward(x);
        let queries = to_heads(rotation.turn(product(h.clone(), &self.to_q)), width);
        let (queries, query_inverse) = lengthened(queries);
        let both = product(h, &self.to_kv);
        let keys = rotation.turn(both.clone().narrow(2, 0, width));
        let (keys, key_inverse) = lengthened(keys);
        let past = past.followed_by(keys, both.narrow(2, width, width));
        let [_, rows, _] = queries.dims();
        let seen = past.keys.dims()[1];
        let scores = queries.clone().matmul(past.keys.clone().swap_dims(1, 2));
        let scores = scores.reshape([batch, rows / tokens, tokens, seen]) + bias;
        let weights = softmax(scores, 3).reshape([batch, rows, seen]);
        let heads = from_heads(weights.clone().matmul(past.values.clone()), tokens);
        let (y, out) = self.out_norm.forward(product(heads, &self.to_out));
        let attended =
            Attended { normed, rotation, queries, query_inverse, key_inverse, past, weights, out };
        (y, attended)
    }

    /// Gradient with respect to `x`; the past does not depend on it.
    pub(super) fn pull(&self, at: &Attended, dy: Tensor<3>) -> Tensor<3> {
        let tokens = dy.dims()[1];
        let [_, seen, width] = at.past.keys.dims();
        let own = |all: Tensor<3>| all.narrow(1, seen - tokens, tokens);
        let d = to_heads(product_back(self.out_norm.pull(&at.out, dy), &self.to_out), width);
        let d_values = own(at.weights.clone().swap_dims(1, 2).matmul(d.clone()));
        let d_weights = d.matmul(at.past.values.clone().swap_dims(1, 2));
        let mean = (d_weights.clone() * at.weights.clone()).sum_dim(2);
        let d_scores = (d_weights - mean) * at.weights.clone();
        let d_queries = d_scores.clone().matmul(at.past.keys.clone());
        let d_queries = lengthened_back(&at.queries, &at.query_inverse, d_queries);
        let d_queries = at.rotation.turn_back(from_heads(d_queries, tokens));
        let d_keys = own(d_scores.swap_dims(1, 2).matmul(at.queries.clone()));
        let d_keys = lengthened_back(&own(at.past.keys.clone()), &at.key_inverse, d_keys);
        let d_both = Tensor::cat(vec![at.rotation.turn_back(d_keys), d_values], 2);
        let d_h = product_back(d_queries, &self.to_q) + product_back(d_both, &self.to_kv);
        self.norm.pull(&at.normed, d_h)
    }
}

impl Attended {
    pub(super) fn into_past(self) -> Past {
        self.past
    }
}

/// `[batch, tokens, heads * width]` to `[batch, heads * tokens, width]`.
fn to_heads(x: Tensor<3>, width: usize) -> Tensor<3> {
    let [batch, tokens, all] = x.dims();
    let heads = all / width;
    let x = x.reshape([batch, tokens, heads, width]).swap_dims(1, 2);
    x.reshape([batch, heads * tokens, width])
}

/// Back from [`to_heads`].
fn from_heads(x: Tensor<3>, tokens: usize) -> Tensor<3> {
    let [batch, rows, width] = x.dims();
    let heads = rows / tokens;
    let x = x.reshape([batch, heads, tokens, width]).swap_dims(1, 2);
    x.reshape([batch, tokens, heads * width])
}

/// `W2 norm(a * silu(b))` with `[a | b] = W1 norm(x)`; the inner norm only with normformer.
#[derive(Clone, Debug)]
pub(super) struct FeedForward {
    pub(super) norm: LayerNorm,
    pub(super) inward: Tensor<2>,
    pub(super) inner: Option<LayerNorm>,
    pub(super) outward: Tensor<2>,
}

/// What the pullback of a feed-forward needs.
#[derive(Clone, Debug)]
pub(super) struct Fed {
    normed: Normed,
    value: Tensor<3>,
    gate: Tensor<3>,
    inner: Option<Normed>,
}

impl FeedForward {
    pub(super) fn forward(&self, x: Tensor<3>) -> (Tensor<3>, Fed) {
        let (h, normed) = self.norm.forward(x);
        let both = product(h, &self.inward);
        let half = both.dims()[2] / 2;
        let (value, gate) = (both.clone().narrow(2, 0, half), both.narrow(2, half, half));
        let y = value.clone() * gate.clone() * sigmoid(gate.clone());
        let (y, inner) = match &self.inner {
            Some(norm) => {
                let (y, normed) = norm.forward(y);
                (y, Some(normed))
            }
            None => (y, None),
        };
        (product(y, &self.outward), Fed { normed, value, gate, inner })
    }

    /// Gradient with respect to `x`.
    pub(super) fn pull(&self, at: &Fed, dy: Tensor<3>) -> Tensor<3> {
        let d = product_back(dy, &self.outward);
        let d = match (&self.inner, &at.inner) {
            (Some(norm), Some(normed)) => norm.pull(normed, d),
            _ => d,
        };
        let open = sigmoid(at.gate.clone());
        let silu = at.gate.clone() * open.clone();
        // silu'(b) = s + b s (1 - s)
        let slope = open.clone() + silu.clone() * (open.neg() + 1.0);
        let d_both = Tensor::cat(vec![d.clone() * silu, d * at.value.clone() * slope], 2);
        self.norm.pull(&at.normed, product_back(d_both, &self.inward))
    }
}
