//! Products in bf16 against ordinary products of rounded factors.
#![allow(clippy::unwrap_used, reason = "tests")]

use burn::tensor::{Device, Shape, Tensor, TensorData};
use clipguard_ops::{self as ops, PackedWeight, composed};

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

#[test]
fn linear_is_the_product_of_rounded_factors() {
    for (rows, inputs, outputs) in [(1, 64, 64), (7, 33, 10), (50, 96, 129), (300, 1100, 48)] {
        let x = numbers([rows, 1, inputs], 1);
        let (w, b) = (numbers([outputs, inputs], 2), numbers([outputs], 3));
        let packed = PackedWeight::linear(&w);
        for b in [None, Some(b)] {
            let want = composed::linear(rounded(&x), rounded(&w), b.clone());
            close(ops::linear_bf16(x.clone(), &packed, b), want);
        }
    }
    // Any layout of the input.
    let (x, w) = (numbers([40, 6, 30], 4), numbers([20, 40], 5));
    let x = x.permute([1, 2, 0]);
    let want = composed::linear(rounded(&x), rounded(&w), None);
    close(ops::linear_bf16(x, &PackedWeight::linear(&w), None), want);
}

#[test]
fn conv2d_is_the_convolution_of_rounded_factors() {
    for (n, side, c, out, kernel, stride, pad) in [
        (1, 8, 3, 16, 3, 2, 1),
        (5, 7, 20, 33, 3, 1, 1),
        (3, 9, 16, 16, 1, 1, 0),
        (2, 9, 16, 24, 1, 2, 0),
        (4, 16, 3, 8, 8, 8, 0),
        (2, 60, 8, 8, 5, 1, 2),
    ] {
        let (x, w) = (numbers([n, side, side, c], 6), numbers([out, c, kernel, kernel], 7));
        let want = composed::conv2d(rounded(&x), rounded(&w), stride, pad);
        close(ops::conv2d_bf16(x, &PackedWeight::conv2d(&w), stride, pad), want);
    }
}

#[test]
fn a_row_depends_neither_on_threads_nor_on_its_batch() {
    let (x, w, b) = (numbers([200, 520], 8), numbers([100, 520], 9), numbers([100], 10));
    let packed = PackedWeight::linear(&w);
    let rows = |n: usize| {
        let x = x.clone().slice([0..n, 0..520]);
        bits(ops::linear_bf16(x, &packed, Some(b.clone())))
    };
    let want = on_threads(1, || rows(200));
    for threads in [1, 2, 3] {
        for n in [1, 2, 23, 96, 200] {
            assert!(on_threads(threads, || rows(n)) == want[..n * 100], "{threads} threads, {n}");
        }
    }
    let (x, w) = (numbers([9, 12, 12, 10], 11), numbers([30, 10, 3, 3], 12));
    let packed = PackedWeight::conv2d(&w);
    let pictures = |n: usize| {
        let x = x.clone().slice([0..n, 0..12, 0..12, 0..10]);
        bits(ops::conv2d_bf16(x, &packed, 1, 1))
    };
    let want = on_threads(1, || pictures(9));
    for n in [1, 4, 9] {
        assert!(on_threads(2, || pictures(n)) == want[..n * 12 * 12 * 30], "{n} pictures");
    }
}

#[test]
#[should_panic(expected = "no gradient")]
fn a_tracked_input_is_refused() {
    let x = numbers([2, 4], 13).autodiff().require_grad();
    ops::linear_bf16(x, &PackedWeight::linear(&numbers([3, 4], 14)), None);
}
