//! Products in bf16 against ordinary products of rounded factors.
#![allow(clippy::unwrap_used, reason = "tests")]

use burn::tensor::{Device, Shape, Tensor, TensorData};
use clipguard_ops::{
    self as ops, Activation, BatchNorm, ColumnStatistics, Precision, Then, Weight, composed,
};

/// Numbers in [-1, 1), of some that bf16 holds and most that it does not.
fn numbers<const D: usize>(dims: [usize; D], seed: u64) -> Tensor<D> {
    let n = dims.iter().product::<usize>();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..n).map(|_| next()).collect();
    Tensor::from_data(TensorData::new(values, Shape::from(dims)), &Device::flex())
}

/// The nearest numbers of bf16, as f32.
fn rounded<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    let values = values(x.clone()).into_iter().map(|v| half::bf16::from_f32(v).to_f32());
    let data = TensorData::new(values.collect::<Vec<f32>>(), Shape::from(x.dims()));
    Tensor::from_data(data, &Device::flex())
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec::<f32>().unwrap()
}

fn bits<const D: usize>(x: Tensor<D>) -> Vec<u32> {
    values(x).into_iter().map(f32::to_bits).collect()
}

#[track_caller]
fn close<const D: usize>(got: Tensor<D>, want: Tensor<D>) {
    assert_eq!(got.dims(), want.dims());
    let (got, want) = (values(got), values(want));
    let top = want.iter().fold(0f32, |m, v| m.max(v.abs()));
    let off = got.iter().zip(&want).map(|(g, w)| (g - w).abs()).fold(0f32, f32::max);
    assert!(off <= 2e-6 * top, "off by {off:e} of {top:e}");
}

fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

fn matrix(w: &Tensor<2>) -> Weight<2> {
    Weight::matrix(w.clone(), Precision::Bf16)
}

fn filters(w: &Tensor<4>, stride: usize, pad: usize) -> Weight<4> {
    Weight::filters(w.clone(), stride, pad, Precision::Bf16)
}

#[test]
fn linear_is_the_product_of_rounded_factors() {
    for (rows, inputs, outputs) in [(1, 64, 64), (7, 33, 10), (50, 96, 129), (300, 1100, 48)] {
        let x = numbers([rows, 1, inputs], 1);
        let (w, b) = (numbers([outputs, inputs], 2), numbers([outputs], 3));
        let packed = matrix(&w);
        for b in [None, Some(b)] {
            let want = composed::linear(rounded(&x), rounded(&w), b.clone());
            close(ops::linear_then(x.clone(), &packed, b, Then::Nothing), want);
        }
    }
    // Any layout of the input.
    let (x, w) = (numbers([40, 6, 30], 4), numbers([20, 40], 5));
    let x = x.permute([1, 2, 0]);
    let want = composed::linear(rounded(&x), rounded(&w), None);
    close(ops::linear_then(x, &matrix(&w), None, Then::Nothing), want);
}

#[test]
fn what_follows_is_computed_in_f32() {
    let (x, w, b) = (numbers([30, 50], 15), numbers([20, 50], 16), numbers([20], 17));
    let (packed, add) = (matrix(&w), numbers([30, 20], 18));
    let plain = ops::linear_then(x.clone(), &packed, Some(b.clone()), Then::Nothing);
    let kind = Activation::QuickGelu;
    let got = ops::linear_then(x.clone(), &packed, Some(b.clone()), Then::Activation(kind));
    assert_eq!(bits(got), bits(ops::activation(plain.clone(), kind)));
    let got = ops::linear_then(x, &packed, Some(b), Then::Add(add.clone()));
    assert_eq!(bits(got), bits(plain + add));
}

/// BatchNorm of some columns that is none.
struct Identity {
    statistics: ColumnStatistics,
    gamma: Tensor<1>,
    beta: Tensor<1>,
}

impl Identity {
    fn of(columns: usize) -> Self {
        let row = |value: f32| Tensor::full([columns], value, &Device::flex());
        let statistics = ColumnStatistics { mean: row(0.0), variance: row(1.0) };
        Self { statistics, gamma: row(1.0), beta: row(0.0) }
    }

    fn norm(&self) -> BatchNorm<'_> {
        let Self { statistics, gamma, beta } = self;
        BatchNorm { statistics, gamma, beta, eps: 0.0, of_batch: false, relu: false }
    }
}

/// Sides of pictures, a filter, its stride and the padding; the last two in Winograd's way.
const CONVOLUTIONS: [(usize, usize, usize, usize, usize, usize, usize); 8] = [
    (1, 8, 3, 16, 3, 2, 1),
    (5, 7, 20, 33, 3, 1, 1),
    (3, 9, 16, 16, 1, 1, 0),
    (2, 9, 16, 24, 1, 2, 0),
    (4, 16, 3, 8, 8, 8, 0),
    (2, 60, 8, 8, 5, 1, 2),
    (3, 9, 32, 16, 3, 1, 1),
    (2, 12, 16, 48, 3, 1, 0),
];

#[test]
fn conv2d_is_the_convolution_of_rounded_factors() {
    for (n, side, c, out, kernel, stride, pad) in CONVOLUTIONS {
        let (x, w) = (numbers([n, side, side, c], 6), numbers([out, c, kernel, kernel], 7));
        let (packed, norm) = (filters(&w, stride, pad), Identity::of(out));
        let got = ops::conv2d_norm(x.clone(), &packed, norm.norm(), None);
        if (kernel, stride, c % 16, out % 16) != (3, 1, 0, 0) {
            close(got, composed::conv2d(rounded(&x), rounded(&w), stride, pad));
            continue;
        }
        // Rounded are sums of four pixels and of nine weights: near the result of what was not rounded.
        let (got, want) = (values(got), values(composed::conv2d(x, w, stride, pad)));
        let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|v| v * v).sum::<f32>().sqrt();
        let off = norm(&mut got.iter().zip(&want).map(|(g, w)| g - w));
        let share = off / norm(&mut want.iter().copied());
        assert!(share < 6e-3 && share > 1e-4, "off by {share:e} of the result");
    }
}

#[test]
fn a_row_depends_neither_on_threads_nor_on_its_batch() {
    let (x, w, b) = (numbers([200, 520], 8), numbers([100, 520], 9), numbers([100], 10));
    let packed = matrix(&w);
    let rows = |n: usize| {
        let x = x.clone().slice([0..n, 0..520]);
        bits(ops::linear_then(x, &packed, Some(b.clone()), Then::Nothing))
    };
    let want = on_threads(1, || rows(200));
    for threads in [1, 2, 3] {
        for n in [1, 2, 23, 96, 200] {
            assert!(on_threads(threads, || rows(n)) == want[..n * 100], "{threads} threads, {n}");
        }
    }
    for (c, out) in [(10, 30), (16, 32)] {
        let (x, w) = (numbers([9, 12, 12, c], 11), numbers([out, c, 3, 3], 12));
        let (packed, norm) = (filters(&w, 1, 1), Identity::of(out));
        let pictures = |n: usize| {
            let x = x.clone().slice([0..n, 0..12, 0..12, 0..c]);
            bits(ops::conv2d_norm(x, &packed, norm.norm(), None))
        };
        let want = on_threads(1, || pictures(9));
        for n in [1, 4, 9] {
            assert!(on_threads(2, || pictures(n)) == want[..n * 12 * 12 * out], "{n} of {c}");
        }
    }
}

#[test]
fn tracked_inputs_are_multiplied_in_f32() {
    let (x, w) = (numbers([2, 40], 13), numbers([3, 40], 14));
    let exact = ops::linear(x.clone(), w.clone(), None);
    let tracked = ops::linear_then(x.clone().autodiff(), &matrix(&w), None, Then::Nothing);
    assert_eq!(bits(tracked.inner()), bits(exact.clone()));
    assert_ne!(bits(ops::linear_then(x, &matrix(&w), None, Then::Nothing)), bits(exact));
}

#[test]
#[should_panic(expected = "5 inputs or channels against a weight of 3 x 4")]
fn rows_of_another_width_are_refused() {
    ops::linear_then(numbers([2, 5], 15), &matrix(&numbers([3, 4], 16)), None, Then::Nothing);
}

#[test]
#[should_panic(expected = "4 values to add to 6")]
fn an_addition_of_another_shape_is_refused() {
    let then = Then::Add(numbers([1, 4], 17));
    ops::linear_then(numbers([2, 4], 18), &matrix(&numbers([3, 4], 19)), None, then);
}
