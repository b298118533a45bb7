//! Every fused operation against the same thing composed of ordinary tensor functions: values,
//! gradients of every input, mixed tracking, threads, and batch sizes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use burn::tensor::{DType, Device, Tensor, TensorData};
use clipguard_ops::{
    self as ops, Activation, BatchNorm, ColumnStatistics, Precision, Then, Weight, composed,
};

/// An operation on flat inputs, so that one driver serves all ranks.
type Body = Box<dyn Fn(&[Tensor<1>]) -> Tensor<1> + Send + Sync>;

struct Case {
    name: String,
    /// Number of elements of every input.
    sizes: Vec<usize>,
    fused: Body,
    composed: Body,
}

/// Numbers in [-1.5, 1.5) that differ from input to input (a linear congruence, upper bits).
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    (0..n)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 * 3.0 - 1.5
        })
        .collect()
}

fn flat(values: Vec<f32>) -> Tensor<1> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), &Device::flex())
}

fn values(t: Tensor<1>) -> Vec<f32> {
    let t = if t.is_autodiff() { t.inner() } else { t };
    t.into_data().try_to_vec::<f32>().unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Largest difference relative to the largest entry of `want`.
fn gap(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let top = want.iter().fold(1e-6f64, |m, v| m.max(f64::from(v.abs())));
    let differences = got.iter().zip(want).map(|(g, w)| f64::from(g - w).abs() / top);
    differences.fold(0.0, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(d) })
}

/// The output and the gradients of a fixed random projection of it with respect to the inputs
/// that are `tracked`.
fn run(
    body: &Body,
    inputs: &[Vec<f32>],
    tracked: impl Fn(usize) -> bool,
) -> (Vec<f32>, Vec<Option<Vec<f32>>>) {
    run_on(&Device::flex(), body, inputs, tracked)
}

fn run_on(
    device: &Device,
    body: &Body,
    inputs: &[Vec<f32>],
    tracked: impl Fn(usize) -> bool,
) -> (Vec<f32>, Vec<Option<Vec<f32>>>) {
    let flat = |values: Vec<f32>| {
        let n = values.len();
        Tensor::<1>::from_data(TensorData::new(values, [n]), device)
    };
    let leaves: Vec<Tensor<1>> = inputs
        .iter()
        .enumerate()
        .map(|(i, v)| {
            let plain = flat(v.clone());
            if tracked(i) { plain.autodiff().require_grad() } else { plain }
        })
        .collect();
    let y = body(&leaves);
    let output = values(y.clone());
    if !(0..inputs.len()).any(&tracked) {
        return (output, vec![None; inputs.len()]);
    }
    let weights = flat(numbers(output.len(), 99));
    let mut grads = (y * weights).sum().backward();
    let gradients = leaves
        .iter()
        .enumerate()
        .map(|(i, leaf)| tracked(i).then(|| values(leaf.grad_remove(&mut grads).unwrap())))
        .collect();
    (output, gradients)
}

fn inputs(case: &Case) -> Vec<Vec<f32>> {
    case.sizes.iter().enumerate().map(|(i, n)| numbers(*n, i as u64 + 1)).collect()
}

fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

fn case(
    name: String,
    sizes: &[usize],
    fused: impl Fn(&[Tensor<1>]) -> Tensor<1> + Send + Sync + 'static,
    composed: impl Fn(&[Tensor<1>]) -> Tensor<1> + Send + Sync + 'static,
) -> Case {
    Case { name, sizes: sizes.to_vec(), fused: Box::new(fused), composed: Box::new(composed) }
}

fn flatten<const D: usize>(t: Tensor<D>) -> Tensor<1> {
    let n = t.dims().iter().product::<usize>();
    t.reshape([n])
}

fn linear(rows: [usize; 2], inputs: usize, outputs: usize, bias: bool) -> Case {
    let x = move |t: &[Tensor<1>]| t[0].clone().reshape([rows[0], rows[1], inputs]);
    let w = move |t: &[Tensor<1>]| t[1].clone().reshape([outputs, inputs]);
    let mut sizes = vec![rows[0] * rows[1] * inputs, outputs * inputs];
    if bias {
        sizes.push(outputs);
    }
    case(
        format!("linear {rows:?} {inputs} -> {outputs}, bias {bias}"),
        &sizes,
        move |t| flatten(ops::linear(x(t), w(t), t.get(2).cloned())),
        move |t| flatten(composed::linear(x(t), w(t), t.get(2).cloned())),
    )
}

fn convolution(shape: [usize; 4], out: usize, kernel: usize, stride: usize, pad: usize) -> Case {
    let channels = shape[3];
    let weight = [out, channels, kernel, kernel];
    let x = move |t: &[Tensor<1>]| t[0].clone().reshape(shape);
    let w = move |t: &[Tensor<1>]| t[1].clone().reshape(weight);
    case(
        format!("conv2d {shape:?} -> {out}, kernel {kernel}, stride {stride}, pad {pad}"),
        &[shape.iter().product(), weight.iter().product()],
        move |t| flatten(ops::conv2d(x(t), w(t), stride, pad)),
        move |t| flatten(composed::conv2d(x(t), w(t), stride, pad)),
    )
}

fn pooling(shape: [usize; 4], k: usize) -> Case {
    let x = move |t: &[Tensor<1>]| t[0].clone().reshape(shape);
    case(
        format!("avg_pool2d {shape:?} by {k}"),
        &[shape.iter().product()],
        move |t| flatten(ops::avg_pool2d(x(t), k)),
        move |t| flatten(composed::avg_pool2d(x(t), k)),
    )
}

fn layer_norm(rows: [usize; 2], width: usize) -> Case {
    let x = move |t: &[Tensor<1>]| t[0].clone().reshape([rows[0], rows[1], width]);
    case(
        format!("layer_norm {rows:?} x {width}"),
        &[rows[0] * rows[1] * width, width, width],
        move |t| flatten(ops::layer_norm(x(t), t[1].clone(), t[2].clone(), 1e-5)),
        move |t| flatten(composed::layer_norm(x(t), t[1].clone(), t[2].clone(), 1e-5)),
    )
}

fn activation(kind: Activation, n: usize) -> Case {
    // Tripled, so that the tails are reached.
    let x = |t: &[Tensor<1>]| t[0].clone() * 3.0;
    case(
        format!("{kind:?} of {n}"),
        &[n],
        move |t| ops::activation(x(t), kind),
        move |t| composed::activation(x(t), kind),
    )
}

fn attention(batch: usize, tokens: usize, heads: usize, head: usize, causal: bool) -> Case {
    let width = heads * head;
    let packed = move |t: &[Tensor<1>]| t[0].clone().reshape([batch, tokens, 3 * width]);
    case(
        format!("attention {batch} x {tokens}, {heads} heads of {head}, causal {causal}"),
        &[batch * tokens * 3 * width],
        move |t| flatten(ops::attention(packed(t), heads, causal)),
        move |t| flatten(composed::attention(packed(t), heads, causal)),
    )
}

/// Fixed statistics of some columns.
fn fixed(width: usize, device: &Device) -> ColumnStatistics {
    let row = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, [width]), device);
    ColumnStatistics {
        mean: row(numbers(width, 7)),
        variance: row(numbers(width, 8).iter().map(|v| v + 1.75).collect()),
    }
}

fn norm<'a>(statistics: &'a ColumnStatistics, t: &'a [Tensor<1>], relu: bool) -> BatchNorm<'a> {
    BatchNorm { statistics, gamma: &t[0], beta: &t[1], eps: 1e-5, of_batch: false, relu }
}

fn batch_norm(rows: usize, width: usize, of_batch: bool, relu: bool) -> Case {
    let x = move |t: &[Tensor<1>]| t[0].clone().reshape([rows, width]);
    case(
        format!("batch_norm {rows} x {width}, of_batch {of_batch}, relu {relu}"),
        &[rows * width, width, width],
        move |t| {
            let x = x(t);
            let statistics = match of_batch {
                true => ops::column_statistics(&x),
                false => fixed(width, &x.device()),
            };
            let norm = BatchNorm { of_batch, ..norm(&statistics, &t[1..], relu) };
            flatten(ops::batch_norm(x, norm, None))
        },
        move |t| {
            let statistics = fixed(width, &t[0].device());
            let norm = BatchNorm { of_batch, ..norm(&statistics, &t[1..], relu) };
            flatten(composed::batch_norm(x(t), norm))
        },
    )
}

fn matrix(w: Tensor<2>) -> Weight<2> {
    Weight::matrix(w, Precision::F32)
}

fn linear_activated(rows: usize, inputs: usize, outputs: usize, kind: Activation) -> Case {
    let x = move |t: &[Tensor<1>]| t[0].clone().reshape([rows, inputs]);
    let w = move |t: &[Tensor<1>]| t[1].clone().reshape([outputs, inputs]);
    let b = |t: &[Tensor<1>]| Some(t[2].clone());
    case(
        format!("linear {rows} x {inputs} -> {outputs}, then {kind:?}"),
        &[rows * inputs, outputs * inputs, outputs],
        move |t| flatten(ops::linear_then(x(t), &matrix(w(t)), b(t), Then::Activation(kind))),
        move |t| flatten(composed::activation(composed::linear(x(t), w(t), b(t)), kind)),
    )
}

fn linear_added(rows: usize, inputs: usize, outputs: usize) -> Case {
    let x = move |t: &[Tensor<1>]| t[0].clone().reshape([rows, inputs]);
    let w = move |t: &[Tensor<1>]| t[1].clone().reshape([outputs, inputs]);
    let add = move |t: &[Tensor<1>]| t[2].clone().reshape([rows, outputs]);
    case(
        format!("linear {rows} x {inputs} -> {outputs}, then an addition"),
        &[rows * inputs, outputs * inputs, rows * outputs],
        move |t| flatten(ops::linear_then(x(t), &matrix(w(t)), None, Then::Add(add(t)))),
        move |t| flatten(composed::linear(x(t), w(t), None) + add(t)),
    )
}

fn convolution_norm(
    shape: [usize; 4],
    out: usize,
    [kernel, stride]: [usize; 2],
    added: bool,
    relu: bool,
) -> Case {
    let (pad, channels) = (kernel / 2, shape[3]);
    let weight = [out, channels, kernel, kernel];
    let side = |side: usize| (side + 2 * pad - kernel) / stride + 1;
    let results = [shape[0], side(shape[1]), side(shape[2]), out];
    let x = move |t: &[Tensor<1>]| t[0].clone().reshape(shape);
    let w = move |t: &[Tensor<1>]| t[1].clone().reshape(weight);
    let shortcut = move |t: &[Tensor<1>]| t.get(4).map(|t| t.clone().reshape(results));
    let mut sizes = vec![shape.iter().product(), weight.iter().product(), out, out];
    sizes.extend(added.then(|| results.iter().product::<usize>()));
    case(
        format!(
            "conv2d_norm {shape:?} -> {out}, kernel {kernel}, stride {stride}, added {added}, relu {relu}"
        ),
        &sizes,
        move |t| {
            let statistics = fixed(out, &t[0].device());
            let norm = norm(&statistics, &t[2..], relu);
            let weight = Weight::filters(w(t), stride, pad, Precision::F32);
            flatten(ops::conv2d_norm(x(t), &weight, norm, shortcut(t)))
        },
        move |t| {
            let statistics = fixed(out, &t[0].device());
            let norm = norm(&statistics, &t[2..], false);
            let y = composed::batch_norm(composed::conv2d(x(t), w(t), stride, pad), norm);
            let y = shortcut(t).map_or(y.clone(), |shortcut| y + shortcut);
            flatten(if relu { burn::tensor::activation::relu(y) } else { y })
        },
    )
}

/// Every operation in the shapes the towers use and in shapes that fit no block size.
fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for bias in [true, false] {
        for (rows, inputs, outputs) in
            [([1, 1], 5, 3), ([3, 7], 33, 17), ([1, 300], 64, 130), ([2, 1], 700, 9)]
        {
            all.push(linear(rows, inputs, outputs, bias));
        }
        // So many rows that they become tasks, and so many columns.
        all.push(linear([3, 401], 20, 11, bias));
        all.push(linear([1, 5], 600, 407, bias));
        // The gradient of the weight in tiles, with a sum that is cut.
        all.push(linear([2, 301], 400, 100, bias));
    }
    for (kernel, pads) in [(1, &[0][..]), (3, &[0, 1, 2]), (5, &[0, 1, 2])] {
        for stride in [1, 2] {
            for pad in pads {
                all.push(convolution([1, 9, 7, 3], 5, kernel, stride, *pad));
            }
        }
    }
    all.push(convolution([9, 11, 8, 20], 18, 3, 1, 1));
    all.push(convolution([9, 12, 12, 3], 8, 4, 4, 0));
    for (shape, k) in [([1, 4, 4, 3], 2), ([2, 7, 5, 6], 2), ([3, 9, 10, 1], 3), ([1, 2, 3, 4], 1)]
    {
        all.push(pooling(shape, k));
    }
    for (rows, width) in [([1, 1], 16), ([3, 7], 33), ([2, 600], 20), ([1, 5], 768)] {
        all.push(layer_norm(rows, width));
    }
    for kind in [Activation::QuickGelu, Activation::Gelu, Activation::GeluTanh] {
        all.extend([1, 77, 20_011].map(|n| activation(kind, n)));
    }
    for kind in [Activation::QuickGelu, Activation::Gelu, Activation::GeluTanh] {
        all.push(linear_activated(7, 33, 17, kind));
    }
    for (rows, inputs, outputs) in [(1, 5, 3), (50, 300, 40), (600, 20, 33)] {
        all.push(linear_activated(rows, inputs, outputs, Activation::QuickGelu));
        all.push(linear_added(rows, inputs, outputs));
    }
    for (added, relu) in [(false, false), (false, true), (true, false), (true, true)] {
        for (shape, out, window) in [
            ([3, 5, 4, 10], 7, [1, 1]),
            ([2, 6, 5, 8], 9, [1, 2]),
            ([2, 7, 5, 16], 32, [3, 1]),
            ([9, 8, 8, 6], 5, [3, 2]),
        ] {
            all.push(convolution_norm(shape, out, window, added, relu));
        }
    }
    for causal in [true, false] {
        for (batch, tokens, heads, head) in
            [(1, 1, 1, 4), (3, 1, 2, 5), (1, 13, 3, 7), (5, 50, 2, 16)]
        {
            all.push(attention(batch, tokens, heads, head, causal));
        }
    }
    for of_batch in [false, true] {
        for relu in [false, true] {
            for (rows, width) in [(5, 3), (37, 20), (1_300, 5)] {
                all.push(batch_norm(rows, width, of_batch, relu));
            }
        }
    }
    all
}

#[test]
fn values_and_gradients_equal_the_composed_bodies() {
    for case in cases() {
        let inputs = inputs(&case);
        let (plain, _) = run(&case.fused, &inputs, |_| false);
        let (y, got) = run(&case.fused, &inputs, |_| true);
        let (want_y, want) = run(&case.composed, &inputs, |_| true);
        assert_eq!(bits(&plain), bits(&y), "{}: tracking changes no bit", case.name);
        let off = gap(&y, &want_y);
        assert!(off <= 1e-5, "{}: value off by {off:e}", case.name);
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let off = gap(got.as_ref().unwrap(), want.as_ref().unwrap());
            assert!(off <= 1e-5, "{}: gradient {i} off by {off:e}", case.name);
        }
    }
}

/// How fast the projection of [`run`] rises along `direction` of input `i`: central differences of the
/// composed body in double precision.
fn rise(case: &Case, inputs: &[Vec<f32>], i: usize, direction: &[f32]) -> f64 {
    const STEP: f64 = 1e-6;
    let double = |values: Vec<f64>| {
        let n = values.len();
        Tensor::<1>::from_data(TensorData::new(values, [n]), (&Device::flex(), DType::F64))
    };
    let at = |step: f64| {
        let leaves: Vec<Tensor<1>> = inputs
            .iter()
            .enumerate()
            .map(|(j, values)| {
                let moved = |(v, d): (&f32, &f32)| f64::from(*v) + step * f64::from(*d);
                double(match j == i {
                    true => values.iter().zip(direction).map(moved).collect(),
                    false => values.iter().map(|v| f64::from(*v)).collect(),
                })
            })
            .collect();
        let y = (case.composed)(&leaves).into_data().try_to_vec::<f64>().unwrap();
        let weights = numbers(y.len(), 99);
        y.iter().zip(weights).map(|(y, w)| y * f64::from(w)).sum::<f64>()
    };
    (at(STEP) - at(-STEP)) / (2.0 * STEP)
}

#[test]
fn gradients_are_those_of_central_differences() {
    for case in cases() {
        let inputs = inputs(&case);
        let (_, gradients) = run(&case.fused, &inputs, |_| true);
        for (i, gradient) in gradients.iter().flatten().enumerate() {
            for draw in 0..3 {
                let direction = numbers(gradient.len(), 1_000 + draw);
                let along = |(g, d): (&f32, &f32)| f64::from(*g) * f64::from(*d);
                let got: f64 = gradient.iter().zip(&direction).map(along).sum();
                let want = rise(&case, &inputs, i, &direction);
                let length = |v: &[f32]| v.iter().map(|v| f64::from(v * v)).sum::<f64>().sqrt();
                let off = (got - want).abs() / (length(gradient) * length(&direction)).max(1e-6);
                assert!(off < 2e-5, "{}: gradient {i} is off by {off:e}", case.name);
            }
        }
    }
}

/// On `$CLIPGUARD_DEVICE`, if it names one (see [`ops::device`]).
#[test]
fn other_devices_give_the_same() {
    let Ok(spelling) = std::env::var("CLIPGUARD_DEVICE") else { return };
    let device = ops::device(&spelling).unwrap();
    for case in cases() {
        let inputs = inputs(&case);
        let (want_y, want) = run(&case.fused, &inputs, |_| true);
        let (plain, _) = run_on(&device, &case.fused, &inputs, |_| false);
        let (y, got) = run_on(&device, &case.fused, &inputs, |_| true);
        for (what, y) in [("untracked", plain), ("tracked", y)] {
            let off = gap(&y, &want_y);
            assert!(off <= 1e-5, "{}, {what}: value off by {off:e}", case.name);
        }
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let off = gap(got.as_ref().unwrap(), want.as_ref().unwrap());
            assert!(off <= 1e-4, "{}: gradient {i} off by {off:e}", case.name);
        }
    }
}

#[test]
fn any_input_may_be_tracked_alone() {
    for case in cases() {
        let inputs = inputs(&case);
        let (y, all) = run(&case.fused, &inputs, |_| true);
        for (alone, all) in all.iter().enumerate() {
            let (again, got) = run(&case.fused, &inputs, |i| i == alone);
            assert_eq!(bits(&y), bits(&again), "{}", case.name);
            let (got, all) = (got[alone].as_ref().unwrap(), all.as_ref().unwrap());
            assert_eq!(bits(got), bits(all), "{}: input {alone} tracked alone", case.name);
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    for case in cases() {
        let inputs = inputs(&case);
        let (y, gradients) = on_threads(1, || run(&case.fused, &inputs, |_| true));
        for threads in [2, 3] {
            let (y2, gradients2) = on_threads(threads, || run(&case.fused, &inputs, |_| true));
            assert_eq!(bits(&y), bits(&y2), "{}: {threads} threads", case.name);
            for (a, b) in gradients.iter().flatten().zip(gradients2.iter().flatten()) {
                assert_eq!(bits(a), bits(b), "{}: gradient, {threads} threads", case.name);
            }
        }
    }
}

/// An operation for any batch size.
type Family = (&'static str, fn(usize) -> Case);

/// Operations whose first input is a batch of independent samples, in shapes of the towers.
fn families() -> Vec<Family> {
    vec![
        ("linear, tokens", |n| linear([n, 17], 64, 192, true)),
        ("linear, one row a sample", |n| linear([n, 1], 128, 128, false)),
        ("linear, wide", |n| linear([n, 1], 2_048, 512, true)),
        ("conv2d", |n| convolution([n, 8, 8, 20], 20, 3, 1, 1)),
        ("conv2d of one window", |n| convolution([n, 16, 16, 3], 32, 16, 16, 0)),
        ("conv2d, 1x1 on one pixel", |n| convolution([n, 1, 1, 64], 48, 1, 1, 0)),
        ("avg_pool2d", |n| pooling([n, 8, 8, 20], 2)),
        ("layer_norm", |n| layer_norm([n, 17], 64)),
        ("activation", |n| activation(Activation::Gelu, n * 17 * 256)),
        ("attention", |n| attention(n, 17, 2, 32, false)),
        ("batch_norm", |n| batch_norm(n * 64, 20, false, true)),
        ("linear_then", |n| linear_activated(n * 17, 64, 256, Activation::QuickGelu)),
        ("conv2d_norm", |n| convolution_norm([n, 8, 8, 16], 32, [3, 1], false, true)),
    ]
}

#[test]
fn a_sample_does_not_depend_on_its_batch() {
    let mut broken = Vec::new();
    for (name, family) in families() {
        let (one, many) = (family(1), inputs(&family(64)));
        let sample = one.sizes[0];
        let projections = |n: usize, size: usize| flat(numbers(64 * size, 98)[..n * size].to_vec());
        // Value and input gradient of the first sample of a batch of `n`.
        let first = |n: usize| {
            let case = family(n);
            let mut inputs: Vec<Tensor<1>> = many.iter().cloned().map(flat).collect();
            inputs[0] = flat(many[0][..n * sample].to_vec()).autodiff().require_grad();
            let y = (case.fused)(&inputs);
            let size = y.dims()[0] / n;
            let value = values(y.clone())[..size].to_vec();
            let mut grads = (y * projections(n, size)).sum().backward();
            let gradient = values(inputs[0].grad_remove(&mut grads).unwrap());
            (value, gradient[..sample].to_vec())
        };
        let want = first(64);
        for n in [1, 2, 7, 63] {
            let got = first(n);
            for (what, got, want) in [("value", &got.0, &want.0), ("gradient", &got.1, &want.1)] {
                if bits(got) != bits(want) {
                    broken.push(format!("{name}: {what} in a batch of {n}: {:e}", gap(got, want)));
                }
            }
        }
    }
    assert!(broken.is_empty(), "bits depend on the batch:\n{}", broken.join("\n"));
}
