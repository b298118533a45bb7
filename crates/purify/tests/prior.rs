//! CLIPure-Diff: golden purification runs and gradients, and its properties.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use burn::tensor::{DType, Int, Tensor, TensorData, activation::log_softmax};
use clipguard_data::Stream;
use clipguard_model::{
    Parameters, Prior, normalise,
    prior::{Draw, Layout},
    victim::GradientMode,
};
use clipguard_purify::{ClipureDiff, Mode, Purifier, PurifyError, clipure_diff::Settings};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

#[path = "../../../tests/golden/reader.rs"]
mod reader;
use reader::{Golden, distance, gap, numbers};

fn root() -> PathBuf {
    std::env::var_os("CLIPGUARD_GOLDEN").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")),
        PathBuf::from,
    )
}

fn length(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The golden prior with inputs and expectations of one precision.
struct Case {
    prior: Arc<Prior>,
    inputs: Golden,
    want: Golden,
    dtype: DType,
    /// Absolute, of iterates and logits; relative, of gradients.
    iterates: f64,
    logits: f64,
    gradient: f64,
}

fn cases() -> [Case; 2] {
    let path = root().join("clipure/prior_tiny_state.safetensors");
    let case = |dtype, name: &str, iterates, logits, gradient| Case {
        prior: Arc::new(Prior::open(&path, (&reader::device(), dtype)).unwrap()),
        inputs: Golden::open("clipure", "prior_tiny_f64"),
        want: Golden::open("clipure", &format!("prior_tiny_{name}")),
        dtype,
        iterates,
        logits,
        gradient,
    };
    [case(DType::F64, "f64", 1e-10, 1e-10, 1e-8), case(DType::F32, "f32", 1e-4, 2e-3, 1e-3)]
}

impl Case {
    fn input<const D: usize>(&self, name: &str) -> Tensor<D> {
        self.inputs.tensor(name, self.dtype)
    }

    /// The purifier of a run such as `batch_tangent`.
    fn purifier(&self, run: &str, eta: f64, gradient: GradientMode) -> ClipureDiff {
        let mode = if run.starts_with("batch") { Mode::Released } else { Mode::Sample };
        let settings = Settings {
            mode,
            eta,
            tangent: run.contains("tangent"),
            gradient: Some(gradient),
            ..Settings::default()
        };
        let blank = self.input("in.blank_embed");
        let encodings = Some(self.input("in.blank_enc"));
        ClipureDiff::new(settings, self.prior.clone(), blank, encodings).unwrap()
    }

    /// The recorded times and noises, nothing dropped.
    fn draws(&self) -> Vec<Vec<Draw>> {
        let noises: Tensor<3> = self.input("in.purify_noises");
        let [_, rows, width] = noises.dims();
        let one = |(step, time): (usize, usize)| {
            let noise = noises.clone().narrow(0, step, 1).reshape([rows, width]);
            let no = vec![false; rows];
            vec![Draw { times: vec![time; rows], noise, no_text: no.clone(), no_image: no }]
        };
        self.inputs.integers("in.purify_times").into_iter().enumerate().map(one).collect()
    }

    fn logits(&self, z: Tensor<2>) -> Tensor<2> {
        z.matmul(self.input::<2>("in.class_text").transpose()) * 100.0
    }

    /// Gradient of the summed cross-entropy with respect to `in.z`, normalisation included.
    fn gradient(&self, purify: impl Fn(Tensor<2>) -> Tensor<2>) -> Vec<f64> {
        // As the reference: the leaf is the normalised input, normalised once more.
        let leaf = normalise(self.input("in.z")).autodiff().require_grad();
        let logits = self.logits(purify(normalise(leaf.clone())));
        let labels = self.inputs.integers("in.label");
        let index = TensorData::new(labels.iter().map(|&l| l as i64).collect(), [labels.len(), 1]);
        let index = Tensor::<2, Int>::from_data(index, &logits.device());
        let loss = -log_softmax(logits, 1).gather(1, index).sum();
        numbers(leaf.grad_remove(&mut loss.backward()).unwrap())
    }
}

const RUNS: [&str; 4] = ["batch", "batch_tangent", "sample", "sample_tangent"];

#[test]
fn iterates_and_logits_of_every_run() {
    for case in cases() {
        let z = normalise(case.input("in.z"));
        let mut runs: Vec<(String, &str, f64)> =
            RUNS.iter().map(|run| (format!("purify.iter.{run}"), *run, 30.0)).collect();
        let slow = "purify.iter.sample_tangent_eta0.05".to_owned();
        runs.push((slow, "sample_tangent", 0.05));
        for (name, run, eta) in runs {
            for gradient in [GradientMode::Exact, GradientMode::Detached] {
                let purifier = case.purifier(run, eta, gradient);
                let all = purifier.iterates(z.clone(), &case.draws());
                let end = all.last().unwrap().clone();
                let all: Vec<f64> = all.into_iter().flat_map(numbers).collect();
                let off = distance(&all, &case.want.flat(&name));
                println!("{name} {:?}: {off:.1e}", case.dtype);
                assert!(off < case.iterates, "{name} {:?}: {off:e}", case.dtype);
                if eta == 30.0 {
                    let want = case.want.flat(&format!("purify.logits.{run}"));
                    let off = distance(&numbers(case.logits(end)), &want);
                    assert!(off < case.logits, "logits of {run} {:?}: {off:e}", case.dtype);
                }
            }
        }
    }
}

#[test]
fn gradients_of_every_run() {
    let mut compared = 0;
    for case in cases() {
        let plain = case.gradient(|z| z);
        let want = case.want.flat("purify.grad_z.plain");
        assert!(gap(&plain, &want) < case.gradient * length(&want));
        for run in RUNS {
            for (kind, gradient) in
                [("exact", GradientMode::Exact), ("detached", GradientMode::Detached)]
            {
                let name = format!("purify.grad_z.{kind}.{run}");
                if !case.want.has(&name) {
                    continue;
                }
                let purifier = case.purifier(run, 30.0, gradient);
                let found = case.gradient(|z| purifier.iterates(z, &case.draws()).pop().unwrap());
                let want = case.want.flat(&name);
                // Of the detached gradient without projection hardly anything is left.
                let allowed = match gradient {
                    GradientMode::Detached => 1e-13 + case.gradient * length(&want),
                    _ => case.gradient * length(&want),
                };
                let off = gap(&found, &want);
                println!("{name} {:?}: {off:.1e} of {:.1e}", case.dtype, length(&want));
                assert!(off < allowed, "{name} {:?}: {off:e} > {allowed:e}", case.dtype);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 12);
}

const WIDTH: usize = 16;

fn layout() -> Layout {
    Layout {
        dim: WIDTH,
        depth: 2,
        heads: 2,
        head_width: 8,
        inner: 32,
        text: 0,
        steps: 1000,
        normformer: true,
    }
}

fn gauss(purpose: &str, rows: usize, dtype: DType) -> Tensor<2> {
    let mut stream = Stream::keyed(1, purpose, "");
    let values: Vec<f64> = (0..rows * WIDTH).map(|_| f64::from(stream.normal())).collect();
    Tensor::from_data(TensorData::new(values, [rows, WIDTH]), (&reader::device(), dtype))
}

fn untrained(dtype: DType) -> Arc<Prior> {
    let weights = layout().initial_weights(7);
    let parameters = Parameters::constant(&weights, (&reader::device(), dtype));
    Arc::new(Prior::new(layout(), &parameters).unwrap())
}

fn purifier(settings: Settings, dtype: DType) -> ClipureDiff {
    let blank = gauss("blank", 1, dtype).reshape([WIDTH]);
    ClipureDiff::new(settings, untrained(dtype), blank, None).unwrap()
}

fn keys(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn end(purifier: &ClipureDiff, z: &Tensor<2>, names: &[&str], draw: u64) -> Vec<f64> {
    numbers(purifier.purify(z.clone(), &keys(names), draw).unwrap())
}

#[test]
fn a_row_depends_on_its_key_and_the_draw_alone() {
    for drop in [None, Some(0.4)] {
        let purifier =
            purifier(Settings { steps: 3, draws: 2, drop, ..Settings::default() }, DType::F32);
        let z = normalise(gauss("z", 3, DType::F32));
        let all = end(&purifier, &z, &["a", "b", "c"], 0);
        let row = |i: usize| z.clone().narrow(0, i, 1);
        for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
            assert_eq!(end(&purifier, &row(i), &[name], 0), all[i * WIDTH..(i + 1) * WIDTH]);
        }
        assert_ne!(end(&purifier, &row(0), &["b"], 0), all[..WIDTH], "the key counts");
        assert_ne!(end(&purifier, &row(0), &["a"], 1), all[..WIDTH], "the draw counts");
    }
    let seeded = |seed| {
        let purifier = purifier(Settings { seed, steps: 1, ..Settings::default() }, DType::F32);
        end(&purifier, &normalise(gauss("z", 1, DType::F32)), &["a"], 0)
    };
    assert_ne!(seeded(0), seeded(1));
}

#[test]
fn length_is_kept_and_nothing_moves_without_steps() {
    for mode in [Mode::Sample, Mode::Released] {
        let make =
            |steps, eta| purifier(Settings { mode, steps, eta, ..Settings::default() }, DType::F64);
        let z = normalise(gauss("z", 4, DType::F64)) * 3.0;
        let names = ["a", "b", "c", "d"];
        let lengths = numbers(end_tensor(&make(5, 30.0), &z, &names).square().sum_dim(1).sqrt());
        assert!(lengths.iter().all(|l| (l - 3.0).abs() < 1e-12), "{lengths:?}");
        for still in [make(0, 30.0), make(3, 0.0)] {
            assert!(distance(&end(&still, &z, &names, 0), &numbers(z.clone())) < 1e-12);
        }
    }
}

fn end_tensor(purifier: &ClipureDiff, z: &Tensor<2>, names: &[&str]) -> Tensor<2> {
    purifier.purify(z.clone(), &keys(names), 0).unwrap()
}

#[test]
fn rows_that_are_no_embeddings_come_back_and_leave_the_others_alone() {
    for mode in [Mode::Sample, Mode::Released] {
        for gradient in [GradientMode::Exact, GradientMode::Detached] {
            let settings = Settings {
                mode,
                steps: 3,
                drop: Some(0.0),
                gradient: Some(gradient),
                ..Settings::default()
            };
            let purifier = purifier(settings, DType::F32);
            let mut values = numbers(normalise(gauss("z", 3, DType::F32)));
            values[WIDTH..2 * WIDTH].fill(0.0);
            values[2 * WIDTH + 5] = f64::NAN;
            let z = TensorData::new(values.clone(), [3, WIDTH]);
            let z = Tensor::<2>::from_data(z, (&reader::device(), DType::F32));
            let leaf = z.clone().autodiff().require_grad();
            let out = purifier.purify(leaf.clone(), &keys(&["a", "b", "c"]), 0).unwrap();
            let loss = out.clone().narrow(0, 0, 2).sum();
            let gradient = numbers(leaf.grad_remove(&mut loss.backward()).unwrap());
            let out = numbers(out);
            assert_eq!(out[WIDTH..2 * WIDTH], values[WIDTH..2 * WIDTH]);
            assert!(out[2 * WIDTH + 5].is_nan() && out[2 * WIDTH] == values[2 * WIDTH]);
            assert!(out[..2 * WIDTH].iter().all(|v| v.is_finite()));
            assert!(gradient[..2 * WIDTH].iter().all(|v| v.is_finite()), "{mode:?}");
            let alone = end(&purifier, &z.narrow(0, 0, 1), &["a"], 0);
            assert!(distance(&alone, &out[..WIDTH]) < 1e-6, "{mode:?}");
        }
    }
}

/// A prior that predicts the same whatever it sees: its layers add nothing to the query.
#[test]
fn a_constant_prediction_gives_the_orbit_around_it() {
    let mut weights = layout().initial_weights(7);
    for (name, array) in &mut weights {
        if name.ends_with("to_out.1.g") || name.ends_with("1.5.weight") {
            array.data.fill(0.0);
        }
    }
    let parameters = Parameters::constant(&weights, (&reader::device(), DType::F64));
    let prior = Arc::new(Prior::new(layout(), &parameters).unwrap());
    let none = prior.no_text();
    let z = normalise(gauss("z", 3, DType::F64));
    let draw = Draw::new((0..3).map(|i| Stream::counted(1, "any", i)), (0, 999), (0.0, 0.0), &z);
    let mean = prior.restore(z.clone(), &draw, &none, &none).clean / prior.scale();
    let settings = Settings { steps: 1, eta: 1e9, ..Settings::default() };
    let blank = gauss("blank", 1, DType::F64).reshape([WIDTH]);
    let purifier = ClipureDiff::new(settings, prior, blank, None).unwrap();
    let moved = end(&purifier, &z, &["a", "b", "c"], 0);
    assert!(distance(&moved, &numbers(normalise(mean - z))) < 1e-7);
}

#[test]
fn the_exact_gradient_is_the_derivative_and_the_straight_through_one_passes() {
    let z = normalise(gauss("z", 2, DType::F64)) * 2.0;
    let weight = gauss("weight", 2, DType::F64);
    let value = |purifier: &ClipureDiff, z: Tensor<2>| {
        (purifier.purify(z, &keys(&["a", "b"]), 3).unwrap() * weight.clone()).sum()
    };
    let gradient = |purifier: &ClipureDiff| {
        let leaf = z.clone().autodiff().require_grad();
        numbers(leaf.grad_remove(&mut value(purifier, leaf.clone()).backward()).unwrap())
    };
    for mode in [Mode::Sample, Mode::Released] {
        for tangent in [false, true] {
            let make = |gradient| {
                let settings = Settings {
                    mode,
                    tangent,
                    steps: 2,
                    eta: 0.7,
                    draws: 2,
                    gradient: Some(gradient),
                    ..Settings::default()
                };
                purifier(settings, DType::F64)
            };
            let exact = make(GradientMode::Exact);
            let (tape, base) = (gradient(&exact), numbers(z.clone()));
            for i in (0..base.len()).step_by(5) {
                let at = |step: f64| {
                    let mut moved = base.clone();
                    moved[i] += step;
                    let data = TensorData::new(moved, [2, WIDTH]);
                    let z = Tensor::from_data(data, (&reader::device(), DType::F64));
                    numbers(value(&exact, z))[0]
                };
                let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
                let off = (difference - tape[i]).abs();
                // The prior's last norm divides by the largest entry as a constant, in the
                // reference as here; a difference sees the trace that leaves.
                assert!(off < 1e-4, "{mode:?} {tangent} {i}: {difference} {}", tape[i]);
            }
            let straight = make(GradientMode::StraightThrough);
            assert!(distance(&gradient(&straight), &numbers(weight.clone())) < 1e-12);
            assert!(gap(&gradient(&make(GradientMode::Detached)), &tape) > 1e-3);
        }
    }
}

#[test]
fn large_batches_are_refused_in_released_mode_unless_forced() {
    let z = normalise(gauss("z", 9, DType::F32));
    let names: Vec<String> = (0..9).map(|i| i.to_string()).collect();
    let make = |force| {
        let settings = Settings { mode: Mode::Released, steps: 1, force, ..Settings::default() };
        purifier(settings, DType::F32)
    };
    let refused = make(false);
    let error = refused.purify(z.clone(), &names, 0).unwrap_err();
    assert!(matches!(error, PurifyError::Batch { rows: 9, .. }) && refused.limit().is_some());
    assert!(catch_unwind(AssertUnwindSafe(|| refused.embedding(z.clone(), &names, 0))).is_err());
    assert!(make(true).purify(z.clone(), &names, 0).is_ok());
    // In company a row of the released rule changes, alone it is the row rule.
    let two = |first: usize| z.clone().narrow(0, first, 2);
    let row = |v: Vec<f64>| v[WIDTH..].to_vec();
    let batch = make(true);
    let (with_a, with_b) = (end(&batch, &two(0), &["a", "x"], 0), {
        let swapped = Tensor::cat(vec![z.clone().narrow(0, 5, 1), z.clone().narrow(0, 1, 1)], 0);
        end(&batch, &swapped, &["a", "x"], 0)
    });
    assert!(distance(&row(with_a), &row(with_b)) > 1e-9);
}
