//! Numeric properties of CLIPure-Cos, in f32 and f64.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{DType, Tensor, TensorData};
use clipguard_data::Stream;
use clipguard_model::normalise;
use clipguard_model::victim::GradientMode;
use clipguard_purify::{ClipureCos, Mode, Purifier, PurifyError, StepNorm, clipure_cos::Settings};

#[path = "../../../tests/golden/reader.rs"]
mod reader;
use reader::{distance, gap, numbers};

const WIDTH: usize = 16;
const PRECISIONS: [(DType, f64); 2] = [(DType::F64, 1e-10), (DType::F32, 2e-5)];

fn matrix(rows: usize, values: Vec<f64>, dtype: DType) -> Tensor<2> {
    let width = values.len() / rows;
    Tensor::from_data(TensorData::new(values, [rows, width]), (&reader::device(), dtype))
}

fn gauss(purpose: &str, count: usize) -> Vec<f64> {
    let mut stream = Stream::keyed(1, purpose, "");
    (0..count).map(|_| f64::from(stream.normal())).collect()
}

/// The blank direction `(1, 0, 0, ...)` times a length.
fn blank(length: f64, dtype: DType) -> Tensor<1> {
    let mut t = vec![0.0; WIDTH];
    t[0] = length;
    Tensor::from_data(TensorData::new(t, [WIDTH]), (&reader::device(), dtype))
}

/// Unit rows with the given cosines to the blank direction.
fn rows(cosines: &[f64], dtype: DType) -> Tensor<2> {
    let noise = gauss("rows", cosines.len() * WIDTH);
    let row = |(c, v): (&f64, &[f64])| {
        let size = v[1..].iter().map(|x| x * x).sum::<f64>().sqrt();
        let rest = v[1..].iter().map(|x| x / size * (1.0 - c * c).sqrt());
        std::iter::once(*c).chain(rest).collect::<Vec<f64>>()
    };
    let values = cosines.iter().zip(noise.chunks(WIDTH)).flat_map(row).collect();
    matrix(cosines.len(), values, dtype)
}

const COSINES: [f64; 5] = [0.25, 0.2, 0.15, 0.3, -0.4];

fn purifier(settings: Settings, dtype: DType) -> ClipureCos {
    ClipureCos::new(settings, blank(1.0, dtype)).unwrap()
}

fn sample(steps: usize, eta: f64) -> Settings {
    Settings { steps, eta, ..Settings::default() }
}

/// Settings that reach every branch of the rule.
fn branches() -> Vec<Settings> {
    let mut all = Vec::new();
    for mode in [Mode::Sample, Mode::Released] {
        for (steps, eta, momentum) in
            [(10, 30.0, 0.0), (9, 30.0, 0.0), (5, 0.3, 0.0), (3, 2.0, 0.9)]
        {
            let gradient = Some(GradientMode::Exact);
            all.push(Settings { mode, momentum, gradient, ..sample(steps, eta) });
        }
    }
    all
}

fn end(purifier: &ClipureCos, z: &Tensor<2>) -> Vec<f64> {
    numbers(purifier.purify(z.clone()).unwrap())
}

fn lengths(v: &[f64]) -> Vec<f64> {
    v.chunks(WIDTH).map(|row| row.iter().map(|x| x * x).sum::<f64>().sqrt()).collect()
}

#[test]
fn length_scale_and_rotation() {
    for (dtype, tolerance) in PRECISIONS {
        let z = rows(&COSINES, dtype);
        // A reflection that mixes all coordinates: I - 2 v v^T.
        let v = normalise(matrix(1, gauss("axis", WIDTH), dtype));
        let turn = |x: Tensor<2>| x.clone() - (x * v.clone()).sum_dim(1) * v.clone() * 2.0;
        for settings in branches() {
            let plain = purifier(settings.clone(), dtype);
            let found = end(&plain, &z);
            for (after, before) in lengths(&found).iter().zip(lengths(&numbers(z.clone()))) {
                assert!((after - before).abs() < tolerance, "{settings:?}");
            }
            let scaled = end(&plain, &(z.clone() * 7.0));
            let expected: Vec<f64> = found.iter().map(|x| 7.0 * x).collect();
            assert!(distance(&scaled, &expected) < 7.0 * tolerance, "{settings:?}");
            let long = ClipureCos::new(settings.clone(), blank(12.5, dtype)).unwrap();
            assert!(distance(&end(&long, &z), &found) < tolerance, "{settings:?}");
            let t = turn(blank(1.0, dtype).unsqueeze()).reshape([WIDTH]);
            let turned = ClipureCos::new(settings.clone(), t).unwrap();
            let expected = numbers(turn(matrix(COSINES.len(), found, dtype)));
            assert!(
                distance(&end(&turned, &turn(z.clone())), &expected) < tolerance,
                "{settings:?}"
            );
        }
    }
}

#[test]
fn rows_stay_in_the_plane_of_themselves_and_the_blank() {
    for (dtype, tolerance) in PRECISIONS {
        let z = rows(&COSINES, dtype);
        for settings in branches() {
            for iterate in purifier(settings, dtype).iterates(z.clone()) {
                for (a, b) in numbers(iterate).chunks(WIDTH).zip(numbers(z.clone()).chunks(WIDTH)) {
                    // Behind the first coordinate, the blank's, both are multiples of each other.
                    let dot = |x: &[f64], y: &[f64]| -> f64 {
                        x[1..].iter().zip(&y[1..]).map(|(x, y)| x * y).sum()
                    };
                    let factor = dot(a, b) / dot(b, b);
                    let off: Vec<f64> =
                        a[1..].iter().zip(&b[1..]).map(|(a, b)| a - factor * b).collect();
                    assert!(off.iter().all(|v| v.abs() < tolerance));
                }
            }
        }
    }
}

#[test]
fn the_closed_form_is_what_the_loop_does() {
    for (dtype, tolerance) in PRECISIONS {
        let z = rows(&COSINES, dtype);
        for (steps, eta) in [(0, 30.0), (7, 0.0), (10, 30.0), (9, 30.0), (10, 1.0), (20, 0.05)] {
            let purifier = purifier(sample(steps, eta), dtype);
            assert!(purifier.has_closed_form());
            let off = distance(&end(&purifier, &z), &numbers(purifier.descended(z.clone())));
            assert!(off < tolerance, "{steps} steps of {eta}: {off:e}");
        }
    }
}

#[test]
fn even_large_steps_are_the_identity_and_odd_ones_reverse_the_class_part() {
    for (dtype, identity) in [(DType::F64, 1e-14), (DType::F32, 1e-6)] {
        // The last row is beyond cos(atan 30) = 0.0333, where parity flips.
        let z = rows(&[0.25, 0.04, 0.9, 0.02], dtype);
        let before = numbers(z.clone());
        let part = |v: &[f64], row: usize| v[row * WIDTH + 1..(row + 1) * WIDTH].to_vec();
        let even = end(&purifier(sample(10, 30.0), dtype), &z);
        let odd = end(&purifier(sample(9, 30.0), dtype), &z);
        let dot = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(&b).map(|(a, b)| a * b).sum::<f64>();
        for row in 0..3 {
            let same = row * WIDTH..(row + 1) * WIDTH;
            assert!(distance(&even[same.clone()], &before[same]) < identity, "row {row}");
            assert!(dot(part(&odd, row), part(&before, row)) < 0.0, "row {row}");
        }
        assert!(dot(part(&even, 3), part(&before, 3)) < 0.0);
        assert!(dot(part(&odd, 3), part(&before, 3)) > 0.0);
    }
}

#[test]
fn no_steps_no_step_size_and_the_limits_between() {
    for (dtype, tolerance) in PRECISIONS {
        let z = rows(&COSINES[..4], dtype);
        let before = numbers(z.clone());
        for settings in [sample(0, 30.0), sample(10, 0.0)] {
            assert!(distance(&end(&purifier(settings, dtype), &z), &before) < tolerance);
        }
        let angle = |v: &[f64], row: usize| v[row * WIDTH].clamp(-1.0, 1.0).acos();
        let small = end(&purifier(sample(100, 0.005), dtype), &z);
        let huge = end(&purifier(sample(1, 1e9), dtype), &z);
        for row in 0..4 {
            assert!((angle(&before, row) - angle(&small, row) - 0.5).abs() < 1e-4, "row {row}");
            let quarter = angle(&before, row) - std::f64::consts::FRAC_PI_2;
            assert!((angle(&huge, row) - quarter.abs()).abs() < 1e-4, "row {row}");
        }
    }
}

#[test]
fn rows_without_a_direction_come_back_and_leave_the_others_alone() {
    for dtype in [DType::F64, DType::F32] {
        let mut values = numbers(rows(&[0.25, 0.0, 0.0, 0.0, 0.0], dtype));
        values[WIDTH..].fill(0.0);
        values[WIDTH] = 2.0; // along the blank direction
        values[2 * WIDTH] = -1.5; // against it
        values[4 * WIDTH + 3] = f64::NAN; // row 3 is zero, row 4 no number
        let z = matrix(5, values, dtype);
        for norm in [StepNorm::L2, StepNorm::Linf] {
            for settings in branches() {
                let settings = Settings { norm, ..settings };
                let purifier = purifier(settings.clone(), dtype);
                let tracked = z.clone().autodiff().require_grad();
                let out = purifier.purify(tracked.clone()).unwrap();
                let gradient =
                    tracked.grad_remove(&mut out.clone().narrow(0, 0, 4).sum().backward());
                let gradient = numbers(gradient.unwrap());
                let (found, before) = (numbers(out), numbers(z.clone()));
                let quiet = WIDTH..4 * WIDTH;
                assert_eq!(found[quiet.clone()], before[quiet], "{settings:?}");
                assert!(found[..4 * WIDTH].iter().all(|v| v.is_finite()), "{settings:?}");
                assert!(gradient[..4 * WIDTH].iter().all(|v| v.is_finite()), "{settings:?}");
                let alone = end(&purifier, &z.clone().narrow(0, 0, 1));
                assert!(distance(&found[..WIDTH], &alone) < 2e-5, "{settings:?}");
            }
        }
        let tiny = rows(&[(0.3f64).cos()], dtype);
        let crossed = end(&purifier(sample(1, 30.0), dtype), &tiny);
        assert!(crossed[1] * numbers(tiny)[1] < 0.0, "a small angle crosses the blank direction");
    }
}

#[test]
fn released_mode_couples_rows_and_sample_mode_does_not() {
    let settings = |mode| Settings { mode, gradient: Some(GradientMode::Exact), ..sample(10, 1.0) };
    for (dtype, tolerance) in PRECISIONS {
        let z = rows(&COSINES, dtype);
        let one = z.clone().narrow(0, 0, 1);
        let (row, batch) =
            (purifier(settings(Mode::Sample), dtype), purifier(settings(Mode::Released), dtype));
        assert!(distance(&end(&row, &one), &end(&batch, &one)) < tolerance, "a batch of one");
        let two = |second: f64| rows(&[0.25, second], dtype);
        let first = |purifier: &ClipureCos, second| end(purifier, &two(second))[..WIDTH].to_vec();
        assert!(distance(&first(&row, 0.1), &first(&row, 0.9)) < tolerance);
        assert!(distance(&first(&batch, 0.1), &first(&batch, 0.9)) > 1e-2);
        for purifier in [row, batch] {
            let flipped = numbers(purifier.purify(z.clone().flip([0])).unwrap().flip([0]));
            assert!(distance(&flipped, &end(&purifier, &z)) < tolerance, "order of rows");
        }
    }
}

#[test]
fn large_batches_are_refused_in_released_mode_unless_forced() {
    let many = rows(&[0.2; 9], DType::F32);
    let released = Settings { mode: Mode::Released, ..Settings::default() };
    let refused = purifier(released.clone(), DType::F32);
    let error = refused.purify(many.clone()).unwrap_err();
    assert!(matches!(error, PurifyError::Batch { rows: 9, .. }));
    assert!(error.to_string().contains("mode=sample"), "{error}");
    assert!(refused.purify(many.clone().narrow(0, 0, 8)).is_ok());
    assert_eq!(refused.limit().map(|limit| limit.rows), Some(8));
    let panics = catch_unwind(AssertUnwindSafe(|| refused.embedding(many.clone(), &[], 0)));
    assert!(panics.is_err());
    let forced = purifier(Settings { force: true, ..released }, DType::F32);
    assert!(forced.purify(many.clone()).is_ok() && forced.limit().is_none());
    assert!(purifier(Settings::default(), DType::F32).purify(many).is_ok());
}

#[test]
fn equal_distances_of_the_classes_to_the_blank_leave_every_decision() {
    for (dtype, _) in PRECISIONS {
        let z = rows(&[0.25, 0.2, 0.15, 0.3], dtype);
        let classes = rows(&[0.6; 7], dtype).transpose();
        let decide = |z: Tensor<2>| {
            let logits = numbers(z.matmul(classes.clone()));
            let best = |row: &[f64]| (0..7).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            logits.chunks(7).map(best).collect::<Vec<usize>>()
        };
        let before = decide(z.clone());
        for (steps, eta) in [(1, 0.5), (2, 0.4), (10, 0.1), (10, 30.0)] {
            let after = purifier(sample(steps, eta), dtype).purify(z.clone()).unwrap();
            assert_eq!(decide(after), before, "{steps} steps of {eta}");
        }
    }
}

/// `v^T dP/dz` for a fixed `v`, by the tape and by central differences.
fn derivatives(purifier: &ClipureCos, z: &Tensor<2>, weight: &Tensor<2>) -> (Vec<f64>, Vec<f64>) {
    let tracked = z.clone().autodiff().require_grad();
    let value = (purifier.purify(tracked.clone()).unwrap() * weight.clone()).sum();
    let tape = numbers(tracked.grad_remove(&mut value.backward()).unwrap());
    let base = numbers(z.clone());
    let at = |i: usize, step: f64| {
        let mut moved = base.clone();
        moved[i] += step;
        let z = matrix(z.dims()[0], moved, DType::F64);
        numbers((purifier.purify(z).unwrap() * weight.clone()).sum())[0]
    };
    let difference = |i: usize| (at(i, 1e-6) - at(i, -1e-6)) / 2e-6;
    (tape, (0..base.len()).map(difference).collect())
}

#[test]
fn the_exact_gradient_is_the_derivative() {
    let z = rows(&[0.25, 0.2, 0.15], DType::F64) * 3.0;
    let weight = matrix(3, gauss("weight", 3 * WIDTH), DType::F64);
    for settings in branches() {
        let (tape, difference) = derivatives(&purifier(settings.clone(), DType::F64), &z, &weight);
        let off = distance(&tape, &difference);
        assert!(off < 1e-6, "{settings:?}: {off:e}");
    }
    let identity = purifier(sample(10, 30.0), DType::F64);
    let (tape, _) = derivatives(&identity, &z, &weight);
    assert!(distance(&tape, &numbers(weight)) < 1e-12, "the Jacobian of an even run is I");
}

#[test]
fn the_detached_gradient_shrinks_and_the_straight_through_one_passes() {
    // All within atan 3 of the blank direction, so that four steps are the identity.
    let f = rows(&[0.5, 0.4, 0.6], DType::F64) * 9.0;
    // Across the plane of row and blank direction; within it a detached step shrinks even more.
    let mut weight = gauss("weight", 3 * WIDTH);
    for (w, z) in weight.chunks_mut(WIDTH).zip(numbers(f.clone()).chunks(WIDTH)) {
        w[0] = 0.0;
        let dot =
            |a: &[f64], b: &[f64]| a[1..].iter().zip(&b[1..]).map(|(a, b)| a * b).sum::<f64>();
        let share = dot(w, z) / dot(z, z);
        w[1..].iter_mut().zip(&z[1..]).for_each(|(w, z)| *w -= share * z);
    }
    let weight = matrix(3, weight, DType::F64);
    let gradient = |settings: Settings| {
        let tracked = f.clone().autodiff().require_grad();
        let purifier = purifier(settings, DType::F64);
        let value = (purifier.purify(normalise(tracked.clone())).unwrap() * weight.clone()).sum();
        numbers(tracked.grad_remove(&mut value.backward()).unwrap())
    };
    let of = |gradient, steps, eta| gradient_settings(gradient, steps, eta);
    let size = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let exact = gradient(of(GradientMode::Exact, 4, 3.0));
    let detached = gradient(of(GradientMode::Detached, 4, 3.0));
    let ratio = size(&detached) / size(&exact) * 10f64.powi(2);
    assert!((ratio - 1.0).abs() < 1e-9, "(1 + eta^2)^(-K/2) times the exact one: {ratio}");
    let straight = gradient(of(GradientMode::StraightThrough, 3, 3.0));
    assert!(gap(&straight, &gradient(of(GradientMode::Exact, 0, 3.0))) < 1e-12);
    let forward = |mode| end(&purifier(of(mode, 3, 3.0), DType::F64), &f);
    assert!(
        distance(&forward(GradientMode::StraightThrough), &forward(GradientMode::Exact)) < 1e-12
    );
}

fn gradient_settings(gradient: GradientMode, steps: usize, eta: f64) -> Settings {
    Settings { gradient: Some(gradient), ..sample(steps, eta) }
}
