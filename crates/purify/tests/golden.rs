//! CLIPure-Cos against the golden arrays, in f32 and f64, from embeddings to gradients.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use burn::tensor::{DType, Int, Tensor, TensorData, activation::log_softmax};
use clipguard_model::victim::{GradientMode, Query, Victim};
use clipguard_model::{Encoder, normalise};
use clipguard_purify::{
    ClipureCos, Defended, Mode, StepNorm, angles::angles, clipure_cos::Settings,
};

#[path = "../../../tests/golden/reader.rs"]
mod reader;
use reader::{Golden, distance, gap, numbers};

const RUNS: [&str; 9] = [
    "batch_eta30_k10",
    "sample_eta30_k10",
    "sample_eta30_k9",
    "batch_eta1_k10",
    "sample_eta1_k10",
    "sample_eta0.05_k10",
    "batch_eta10_k3_gamma0.9",
    "sample_eta10_k3_gamma0.9",
    "sample_linf_eta0.05_k5",
];

/// The settings that the name of a run spells.
fn settings(run: &str, gradient: GradientMode) -> Settings {
    let mut settings = Settings { gradient: Some(gradient), ..Settings::default() };
    for part in run.split('_') {
        let number = |prefix| part.strip_prefix(prefix).and_then(|n| n.parse::<f64>().ok());
        match part {
            "batch" => settings.mode = Mode::Released,
            "sample" => settings.mode = Mode::Sample,
            "linf" => settings.norm = StepNorm::Linf,
            _ => {}
        }
        settings.eta = number("eta").unwrap_or(settings.eta);
        settings.momentum = number("gamma").unwrap_or(settings.momentum);
        settings.steps = number("k").map_or(settings.steps, |k| k as usize);
    }
    settings
}

/// One golden file with its inputs and tolerances.
struct Case {
    file: Golden,
    inputs: Golden,
    dtype: DType,
    /// Absolute; of iterates and angles, of logits.
    tolerance: f64,
    logits: f64,
    /// Relative; of gradients.
    gradient: f64,
}

fn cases() -> Vec<Case> {
    let case = |width: &str, dtype: DType| {
        let precision = if dtype == DType::F64 { "f64" } else { "f32" };
        let open = |precision| Golden::open("clipure", &format!("cos_{width}_{precision}"));
        let (tolerance, logits, gradient) = match dtype {
            DType::F64 => (1e-12, 1e-10, 1e-11),
            _ => (2e-5, 2e-3, 2e-4),
        };
        Case { file: open(precision), inputs: open("f64"), dtype, tolerance, logits, gradient }
    };
    ["d32", "d512"].iter().flat_map(|w| [case(w, DType::F32), case(w, DType::F64)]).collect()
}

/// Pictures that are embeddings already: `[batch, 1, 1, dimensions]`.
struct Identity;

impl Encoder for Identity {
    fn embed(&self, pixels: Tensor<4>) -> Tensor<2> {
        pixels.flatten(1, 3)
    }
}

impl Case {
    fn input<const D: usize>(&self, name: &str) -> Tensor<D> {
        self.inputs.tensor(name, self.dtype)
    }

    fn purifier(&self, run: &str, gradient: GradientMode) -> ClipureCos {
        ClipureCos::new(settings(run, gradient), self.input("in.t")).unwrap()
    }

    fn victim(&self) -> Defended<Identity> {
        let head = normalise(self.input("in.class_text")).transpose();
        Defended::new(Identity, head, 100.0)
    }

    /// Logits, summed cross-entropy and its gradient with respect to the encoder's output.
    fn attack(&self, victim: &Defended<Identity>) -> (Vec<f64>, f64, Vec<f64>) {
        let f: Tensor<2> = self.input("in.f");
        let [rows, width] = f.dims();
        let f = f.reshape([rows, 1, 1, width]).autodiff().require_grad();
        let logits = victim.logits(Query { pixels: f.clone(), keys: &[], draw: 0 });
        let labels = self.inputs.integers("in.label");
        let index = TensorData::new(labels.iter().map(|&l| l as i64).collect(), [rows, 1]);
        let index = Tensor::<2, Int>::from_data(index, &logits.device());
        let loss = -log_softmax(logits.clone(), 1).gather(1, index).sum();
        let gradient = f.grad_remove(&mut loss.backward()).unwrap();
        (numbers(logits), numbers(loss)[0], numbers(gradient))
    }
}

fn length(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn iterates_and_ends_of_every_run() {
    for case in cases() {
        let z: Tensor<2> = normalise(case.input("in.f"));
        assert!(distance(&numbers(z.clone()), &case.file.flat("z0")) < case.tolerance);
        for run in RUNS {
            let purifier = case.purifier(run, GradientMode::Exact);
            let iterates = purifier.iterates(z.clone());
            let end = numbers(purifier.purify(z.clone()).unwrap());
            let loop_end = numbers(iterates.last().unwrap().clone());
            let name = format!("iter.{run}");
            if case.file.has(&name) {
                let all: Vec<f64> = iterates.into_iter().flat_map(numbers).collect();
                let off = distance(&all, &case.file.flat(&name));
                assert!(off < case.tolerance, "{run} {:?}: {off:e}", case.dtype);
            }
            let name = format!("final.{run}");
            if case.file.has(&name) {
                let off = distance(&end, &case.file.flat(&name));
                assert!(off < case.tolerance, "{run} {:?}: {off:e}", case.dtype);
            }
            let off = distance(&end, &loop_end);
            assert!(off < case.tolerance, "closed form of {run} {:?}: {off:e}", case.dtype);
        }
        let scaled = case.purifier("sample_eta1_k10", GradientMode::Exact);
        let end = numbers(scaled.purify(case.input("in.f")).unwrap());
        let off = distance(&end, &case.file.flat("final.scaled_input.sample_eta1_k10"));
        assert!(off < 12.0 * case.tolerance, "rows of length 8 to 12: {off:e}");
    }
}

#[test]
fn angles_of_every_run() {
    for case in cases() {
        let start = case.file.flat("theta0");
        for run in RUNS {
            let name = format!("angle.{run}");
            if case.file.has(&name) {
                let Settings { mode, steps, eta, .. } = settings(run, GradientMode::Exact);
                let all = angles(mode, &start, steps, eta).concat();
                // The f32 file iterated its recurrence in f32.
                let tolerance = if case.dtype == DType::F64 { 1e-12 } else { 2e-5 };
                let off = distance(&all, &case.file.flat(&name));
                assert!(off < tolerance, "{run} {:?}: {off:e}", case.dtype);
            }
        }
    }
}

#[test]
fn logits_of_every_run() {
    for case in cases() {
        let (bare, ..) = case.attack(&case.victim());
        assert!(distance(&bare, &case.file.flat("logits.none")) < case.logits);
        for run in RUNS {
            let victim = case.victim().with(case.purifier(run, GradientMode::Exact));
            let (logits, ..) = case.attack(&victim);
            let off = distance(&logits, &case.file.flat(&format!("logits.{run}")));
            assert!(off < case.logits, "{run} {:?}: {off:e}", case.dtype);
        }
    }
}

#[test]
fn gradients_at_the_encoder_of_every_kind() {
    let kinds = [
        ("exact", GradientMode::Exact),
        ("straight_through", GradientMode::StraightThrough),
        ("detached", GradientMode::Detached),
    ];
    let mut compared = 0;
    for case in cases() {
        let (_, loss, bare) = case.attack(&case.victim());
        let expected = case.file.flat("grad_f.none");
        assert!((loss - case.file.flat("loss.none")[0]).abs() < case.logits);
        assert!(gap(&bare, &expected) < case.gradient * length(&expected));
        for run in RUNS {
            for (kind, gradient) in kinds {
                let name = format!("grad_f.{run}.{kind}");
                if !case.file.has(&name) {
                    continue;
                }
                let victim = case.victim().with(case.purifier(run, gradient));
                let (_, loss, found) = case.attack(&victim);
                let expected = case.file.flat(&name);
                let allowed = match gradient {
                    // Absolute, because most of it cancels; and the rounding of what does not.
                    GradientMode::Detached => 1e-15 * length(&bare) + 1e-14 * length(&expected),
                    _ => case.gradient * length(&expected),
                };
                let off = gap(&found, &expected);
                assert!(off < allowed, "{name} {:?}: {off:e} > {allowed:e}", case.dtype);
                let loss_off = (loss - case.file.flat(&format!("loss.{run}.{kind}"))[0]).abs();
                assert!(loss_off < case.logits, "{name}: loss {loss_off:e}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 29, "the files hold that many gradients of these runs");
}

#[test]
fn gradients_at_the_embedding() {
    for case in cases() {
        for run in RUNS {
            for (kind, gradient) in
                [("exact", GradientMode::Exact), ("detached", GradientMode::Detached)]
            {
                let name = format!("grad_z.{run}.{kind}");
                if !case.file.has(&name) {
                    continue;
                }
                let z: Tensor<2> = normalise(case.input("in.f")).autodiff().require_grad();
                let end = case.purifier(run, gradient).purify(z.clone()).unwrap();
                let head = normalise(case.input::<2>("in.class_text")).transpose();
                let logits = end.matmul(head) * 100.0;
                let [rows, _] = logits.dims();
                let labels = case.inputs.integers("in.label");
                let index = TensorData::new(labels.iter().map(|&l| l as i64).collect(), [rows, 1]);
                let index = Tensor::<2, Int>::from_data(index, &logits.device());
                let loss = -log_softmax(logits, 1).gather(1, index).sum();
                let found = numbers(z.grad_remove(&mut loss.backward()).unwrap());
                let expected = case.file.flat(&name);
                // The radial part of the detached gradient is of full size, so it is compared.
                let off = gap(&found, &expected);
                let allowed = case.gradient * length(&expected);
                assert!(off < allowed, "{name} {:?}: {off:e} > {allowed:e}", case.dtype);
            }
        }
    }
}

#[test]
fn the_released_gradient_is_rounding_noise_in_single_precision() {
    for case in cases().into_iter().filter(|case| case.dtype == DType::F32) {
        for run in ["batch_eta30_k10", "sample_eta30_k10"] {
            let size = |gradient| {
                let victim = case.victim().with(case.purifier(run, gradient));
                length(&case.attack(&victim).2)
            };
            let ratio = size(GradientMode::Detached) / size(GradientMode::Exact);
            assert!(ratio < 1e-6, "{run}: {ratio:e}");
        }
    }
}
