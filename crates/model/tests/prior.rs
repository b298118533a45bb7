//! The diffusion prior against the golden arrays, in f32 and f64, and its properties.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use burn::tensor::{DType, Tensor, TensorData};
use clipguard_data::Stream;
use clipguard_model::{
    Container, Parameters, Precision, Prior, Weights, normalise,
    prior::{Draw, Layout, Schedule, Text, is_constant},
    weights::to_safetensors,
};
use std::path::{Path, PathBuf};

#[path = "../../../tests/golden/reader.rs"]
mod reader;
use reader::{Golden, distance, gap, numbers};

fn state() -> PathBuf {
    let root = std::env::var_os("CLIPGUARD_GOLDEN").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")),
        PathBuf::from,
    );
    root.join("clipure/prior_tiny_state.safetensors")
}

/// The golden prior with its inputs and expectations in one precision.
struct Case {
    prior: Prior,
    inputs: Golden,
    want: Golden,
    dtype: DType,
    tolerance: f64,
}

fn cases() -> [Case; 2] {
    [(DType::F64, "f64", 1e-10), (DType::F32, "f32", 1e-4)].map(|(dtype, name, tolerance)| Case {
        prior: Prior::open(&state(), (&reader::device(), dtype)).unwrap(),
        inputs: Golden::open("clipure", "prior_tiny_f64"),
        want: Golden::open("clipure", &format!("prior_tiny_{name}")),
        dtype,
        tolerance,
    })
}

impl Case {
    fn input<const D: usize>(&self, name: &str) -> Tensor<D> {
        self.inputs.tensor(name, self.dtype)
    }

    /// Scaled embeddings.
    fn clean(&self) -> Tensor<2> {
        normalise(self.input("in.z")) * self.prior.scale()
    }

    fn draw(&self, no_text: bool, no_image: bool) -> Draw {
        let times = self.inputs.integers("in.t");
        let rows = times.len();
        let (no_text, no_image) = (vec![no_text; rows], vec![no_image; rows]);
        Draw { times, noise: self.input("in.noise"), no_text, no_image }
    }

    fn text(&self) -> Text {
        self.prior.text(self.input("in.text_embed"), Some(self.input("in.text_enc")))
    }

    fn pred(&self, text: &Text, draw: &Draw) -> Tensor<2> {
        self.prior.restore(self.clean(), draw, text, &self.prior.no_text()).clean
    }

    #[track_caller]
    fn close<const D: usize>(&self, got: Tensor<D>, name: &str) {
        let off = distance(&numbers(got), &self.want.flat(name));
        println!("{name} {:?}: {off:.1e}", self.dtype);
        assert!(off < self.tolerance, "{name} {:?}: {off:e}", self.dtype);
    }
}

#[test]
fn the_schedule_is_the_reference() {
    let golden = Golden::open("clipure", "schedule_cosine_1000_f64");
    let ours = Schedule::cosine(1000);
    let each = |of: fn(&Schedule, usize) -> f64| (0..1000).map(|t| of(&ours, t)).collect();
    let columns: [(&str, Vec<f64>); 8] = [
        ("betas", ours.betas.clone()),
        ("alphas_cumprod", ours.alphas_cumprod.clone()),
        ("alphas_cumprod_prev", ours.alphas_cumprod_prev.clone()),
        ("sqrt_alphas_cumprod", each(|s, t| s.mixture(t).0)),
        ("sqrt_one_minus_alphas_cumprod", each(|s, t| s.mixture(t).1)),
        ("posterior_mean_coef1", each(|s, t| s.posterior(t).0)),
        ("posterior_mean_coef2", each(|s, t| s.posterior(t).1)),
        ("posterior_variance", each(|s, t| s.posterior(t).2)),
    ];
    for (name, got) in columns {
        let off = distance(&got, &golden.flat(name));
        println!("{name}: {off:.1e}");
        assert!(off < 1e-12, "{name}: {off:e}");
    }
}

#[test]
fn predictions_with_everything_told_and_dropped() {
    for case in cases() {
        let (text, shown) = (case.text(), case.draw(false, false));
        case.close(case.prior.noised(case.clean(), &shown), "x_t");
        let pred = case.pred(&text, &shown);
        case.close(pred.clone(), "pred");
        case.close(case.pred(&text, &case.draw(true, false)), "pred.text_dropped");
        case.close(case.pred(&text, &case.draw(false, true)), "pred.image_dropped");
        let neither = case.pred(&text, &case.draw(true, true));
        case.close(neither.clone(), "pred.both_dropped");
        let bare = case.prior.text(case.input("in.text_embed"), None);
        case.close(case.pred(&bare, &shown), "pred.no_encodings");
        case.close(neither.clone() + (pred.clone() - neither) * 2.0, "pred.cond_scale2");
        let schedule = case.prior.schedule();
        let column = |of: fn((f64, f64, f64)) -> f64| {
            let values = shown.times.iter().map(|&t| of(schedule.posterior(t))).collect();
            let data = TensorData::new(values, [shown.times.len(), 1]);
            Tensor::<2>::from_data::<TensorData>(data, (&reader::device(), case.dtype))
        };
        let noised = case.prior.noised(case.clean(), &shown);
        case.close(pred * column(|p| p.0) + noised * column(|p| p.1), "ddpm.mean");
        case.close(column(|p| p.2), "ddpm.variance");
    }
}

#[test]
fn losses_and_their_slope() {
    for case in cases() {
        let (text, none, draw) = (case.text(), case.prior.no_text(), case.draw(false, false));
        let rows = case.prior.errors(case.clean(), &draw, &text, &none);
        case.close(rows.clone(), "loss.rows");
        case.close(rows.mean(), "loss.mean");
        // Ours is the gradient of a row's own loss, not of the mean over six rows.
        let slope = case.prior.slope(case.clean(), &draw, &text, &none) / 6.0;
        case.close(slope.clone(), "grad_s0.loss_mean");
        // The written-out gradient is the tape's, with dropped inputs as without.
        for (no_text, no_image) in [(false, false), (true, false), (false, true)] {
            let draw = case.draw(no_text, no_image);
            let leaf = case.clean().autodiff().require_grad();
            let loss = case.prior.errors(leaf.clone(), &draw, &text, &none).sum();
            let tape = numbers(leaf.grad_remove(&mut loss.backward()).unwrap());
            let slope = numbers(case.prior.slope(case.clean(), &draw, &text, &none));
            let size = numbers(
                Tensor::<1>::from_data(
                    TensorData::new(tape.clone(), [tape.len()]),
                    &reader::device(),
                )
                .square()
                .sum(),
            );
            let off = gap(&tape, &slope) / size[0].sqrt();
            assert!(off < case.tolerance, "{:?}: {off:e}", case.dtype);
        }
    }
}

fn leaves(weights: &Weights, dtype: DType) -> Parameters {
    Parameters::with(weights, (&reader::device().autodiff(), dtype), |name| !is_constant(name))
}

#[test]
fn gradients_of_a_training_step() {
    let (layout, weights) = Prior::read(&state()).unwrap();
    for case in cases() {
        let parameters = leaves(&weights, case.dtype);
        let prior = Prior::new(layout, &parameters).unwrap();
        let text = prior.text(case.input("in.text_embed"), Some(case.input("in.text_enc")));
        let loss =
            prior.errors(case.clean(), &case.draw(false, false), &text, &prior.no_text()).mean();
        let mut gradients = loss.backward();
        let mut square = 0.0;
        for (name, leaf) in parameters.leaves() {
            let Some(gradient) = leaf.grad_remove(&mut gradients) else { continue };
            square += numbers(gradient.clone().square().sum())[0];
            let key = format!("train.grad.{name}");
            if case.want.has(&key) {
                case.close(gradient, &key);
            }
        }
        let off = square.sqrt() - case.want.flat("train.grad_norm")[0];
        assert!(off.abs() < case.tolerance, "{off:e}");
    }
}

#[test]
fn the_slope_can_be_differentiated() {
    let [case, _] = cases();
    let (text, none, draw) = (case.text(), case.prior.no_text(), case.draw(false, false));
    let weight: Tensor<2> = case.input("in.noise");
    let value = |clean| (case.prior.slope(clean, &draw, &text, &none) * weight.clone()).sum();
    let leaf = case.clean().autodiff().require_grad();
    let tape = numbers(leaf.grad_remove(&mut value(leaf.clone()).backward()).unwrap());
    let base = numbers(case.clean());
    for i in (0..base.len()).step_by(7) {
        let at = |step: f64| {
            let mut moved = base.clone();
            moved[i] += step;
            let data = TensorData::new(moved, case.clean().dims());
            numbers(value(Tensor::from_data(data, (&reader::device(), DType::F64))))[0]
        };
        let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
        // The last norm divides by the largest entry as a constant, in the reference as here; a
        // difference sees the trace that leaves beside the 1e-5 under its root.
        assert!((difference - tape[i]).abs() < 2e-5, "{i}: {difference} {}", tape[i]);
    }
}

/// Sections that a user's own priors are made with: no encodings, one layer and more, no inner norm.
fn layouts() -> [Layout; 3] {
    let plain = Layout {
        dim: 16,
        depth: 2,
        heads: 2,
        head_width: 8,
        inner: 32,
        text: 0,
        steps: 50,
        normformer: true,
    };
    [plain, Layout { text: 5, normformer: false, ..plain }, Layout { depth: 1, heads: 3, ..plain }]
}

fn gauss(purpose: &str, rows: usize, dim: usize) -> Tensor<2> {
    let mut stream = Stream::keyed(1, purpose, "");
    let values: Vec<f32> = (0..rows * dim).map(|_| stream.normal()).collect();
    Tensor::from_data(TensorData::new(values, [rows, dim]), &reader::device())
}

fn streams(rows: std::ops::Range<usize>) -> impl Iterator<Item = Stream> {
    rows.map(|row| Stream::counted(5, "test", row as u64))
}

#[test]
fn rows_do_not_depend_on_each_other_to_the_bit() {
    for layout in layouts() {
        let weights = layout.initial_weights(3);
        let prior = Prior::new(layout, &Parameters::constant(&weights, &reader::device())).unwrap();
        let clean = gauss("clean", 7, layout.dim);
        let (text, none) = (prior.text(gauss("text", 1, layout.dim), None), prior.no_text());
        let all = Draw::new(streams(0..7), (0, layout.steps - 1), (0.3, 0.3), &clean);
        assert!(all.no_text.contains(&true) && all.no_image.contains(&true));
        let whole = numbers(prior.slope(clean.clone(), &all, &text, &none));
        for row in 0..7 {
            let one = clean.clone().narrow(0, row, 1);
            let draw = Draw::new(streams(row..row + 1), (0, layout.steps - 1), (0.3, 0.3), &one);
            let alone = numbers(prior.slope(one, &draw, &text, &none));
            assert_eq!(alone, whole[row * layout.dim..(row + 1) * layout.dim], "{layout:?}");
        }
    }
}

#[test]
fn dropped_inputs_are_not_looked_at_and_padding_is_none() {
    for layout in layouts() {
        let weights = layout.initial_weights(4);
        let prior = Prior::new(layout, &Parameters::constant(&weights, &reader::device())).unwrap();
        let dim = layout.dim;
        let none = prior.no_text();
        let predict = |image: &str, text: &Text, no_text: bool, no_image: bool| {
            let clean = gauss(image, 2, dim);
            let draw = Draw::new(streams(0..2), (0, 9), (0.0, 0.0), &clean);
            let draw = Draw { no_text: vec![no_text; 2], no_image: vec![no_image; 2], ..draw };
            numbers(prior.restore(clean, &draw, text, &none).clean)
        };
        let [a, b] = ["a", "b"].map(|name| prior.text(gauss(name, 1, dim), None));
        assert_eq!(predict("x", &a, true, false), predict("x", &b, true, false));
        assert_ne!(predict("x", &a, false, false), predict("x", &b, false, false));
        assert_eq!(predict("x", &a, false, true), predict("y", &a, false, true));
        assert_ne!(predict("x", &a, false, false), predict("y", &a, false, false));
        // Zero encodings are padding, and as many as there are places.
        let zeros = Tensor::zeros([1, layout.text + 2, dim], &reader::device());
        let padded = prior.text(gauss("a", 1, dim), Some(zeros));
        assert_eq!(predict("x", &padded, false, false), predict("x", &a, false, false));
    }
}

#[test]
fn a_checkpoint_is_written_read_and_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prior.safetensors");
    let write = |weights: &Weights| {
        std::fs::write(&path, to_safetensors(weights, Precision::F32, None).unwrap()).unwrap();
        Prior::read(&path)
    };
    for layout in layouts() {
        let weights = layout.initial_weights(1);
        assert_eq!(write(&weights).unwrap(), (layout, weights));
    }
    let golden = Container::open(&state()).unwrap().read().unwrap();
    let refused = |change: &dyn Fn(&mut Weights)| {
        let mut weights = golden.clone();
        change(&mut weights);
        write(&weights).unwrap_err().to_string()
    };
    // Whole checkpoints carry the schedule and a CLIP along.
    let carry = |keep: f32| {
        move |weights: &mut Weights| {
            let kept = Schedule::cosine(1000).alphas_cumprod;
            let data = kept.iter().map(|v| *v as f32 * keep).collect();
            let array = clipguard_model::Array::new(vec![1000], data);
            weights.insert("noise_scheduler.alphas_cumprod".to_owned(), array.clone());
            weights.insert("clip.anything".to_owned(), array);
        }
    };
    let mut whole = golden.clone();
    carry(1.0)(&mut whole);
    assert_eq!(write(&whole).unwrap().1, golden);
    let query = "net.learned_query";
    for (change, words) in [
        (&carry(0.9) as &dyn Fn(&mut Weights), "not the cosine schedule of 1000"),
        (&|w| drop(w.remove(query)), "lack `net.learned_query`"),
        (
            &|w| drop(w.remove("net.causal_transformer.norm.g")),
            "missing: net.causal_transformer.norm.g",
        ),
        (&|w| drop(w.insert("net.more".to_owned(), golden[query].clone())), "unexpected: net.more"),
        (&|w| w.get_mut(query).unwrap().shape = vec![4, 8], "[4, 8]; 1 dimensions"),
        (
            &|w| drop(w.insert("net.null_image_embed".to_owned(), golden[query].clone())),
            "has shape [32], the other tensors ask for [1, 32]",
        ),
        (
            &|w| {
                w.remove("net.null_text_embeds");
                w.insert("net.null_text_embed".to_owned(), golden[query].clone());
            },
            "before version 1.9",
        ),
        (
            &|w| *w = Weights::from([("visual.proj".to_owned(), golden[query].clone())]),
            "another kind of model",
        ),
    ] {
        let text = refused(change);
        assert!(text.contains(words) && text.contains("prior.safetensors"), "{text}");
    }
    assert!(Prior::read(Path::new("/nowhere/prior")).unwrap_err().to_string().contains("nowhere"));
}
