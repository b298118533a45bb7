//! APGD against runs of the auto-attack program: its rule, its losses, and whole attacks.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, Mutex},
};

use burn::tensor::{DType, Tensor};
use clipguard_attack::{
    Apgd, Attacked, Batch, Flag, Keep, Loss, Norm,
    apgd::{Adaptive, Sparse, Stage, Variant},
    descent::{Bookkeeping, Rule, View},
};
use clipguard_model::victim::{Query, Victim};

use crate::networks::{Cnn, Golden, SplitMix, Vit, distance, keys, like, models, numbers};

/// A recorded run of 8 samples.
struct Run {
    key: &'static str,
    apgd: Apgd,
    seed: u64,
}

/// Steps after which rounding decides: runs of the recorded program in single and double precision
/// part, or losses rise by less than the error of a cross-entropy in single precision.
const PARTS: [(&str, usize); 2] = [("cnn.dlr_linf", 26), ("vit.ce_linf", 4)];

fn runs() -> Vec<Run> {
    let run = |key, norm, eps: f64, loss, steps, seed| {
        let eps = eps as f32;
        let keep = Keep::Found;
        let apgd = Apgd { norm, eps, loss, steps, keep, early_exit: false, ..Apgd::default() };
        Run { key, apgd, seed }
    };
    let mut all = vec![
        run("cnn.ce_linf", Norm::Linf, 0.15, Loss::Ce, 40, 0),
        run("cnn.dlr_linf", Norm::Linf, 0.15, Loss::Dlr, 40, 1),
        run("cnn.dlrt_linf", Norm::Linf, 0.15, Loss::Dlr, 40, 2),
        run("cnn.ce_l2", Norm::L2, 1.0, Loss::Ce, 40, 3),
        run("cnn.ce_l1", Norm::L1, 6.0, Loss::Ce, 40, 4),
        run("cnn.ce_l1_large", Norm::L1, 6.0, Loss::Ce, 40, 5),
        run("cnn.ce_linf_100", Norm::Linf, 0.15, Loss::Ce, 100, 6),
        run("vit.ce_linf", Norm::Linf, 0.04, Loss::Ce, 20, 7),
        run("noisy_cnn.ce_linf_eot4", Norm::Linf, 0.15, Loss::Ce, 10, 8),
    ];
    all[2].apgd.target_classes = 1;
    all[5].apgd.largereps = true;
    all[8].apgd.eot = 4;
    all[8].apgd.bookkeeping = Bookkeeping::Last;
    all
}

enum Auto {
    Adaptive(Adaptive),
    Sparse(Sparse),
}

impl Auto {
    fn of(apgd: &Apgd) -> Self {
        match apgd.norm {
            Norm::L1 => Self::Sparse(Sparse::new(apgd.stages())),
            norm => Self::Adaptive(Adaptive::new(norm, apgd.eps, apgd.steps, apgd.variant, 0.75)),
        }
    }

    fn rule(&mut self) -> &mut dyn Rule {
        match self {
            Self::Adaptive(rule) => rule,
            Self::Sparse(rule) => rule,
        }
    }

    fn step_sizes(&self) -> Vec<f32> {
        match self {
            Self::Adaptive(rule) => rule.step_sizes(),
            Self::Sparse(rule) => rule.step_sizes(),
        }
    }
}

/// Points, and step sizes and shares of the steps from them.
#[derive(Default)]
struct Trace {
    points: Vec<Tensor<4>>,
    sizes: Vec<f32>,
    shares: Vec<f32>,
}

struct Recorder(Auto, Rc<RefCell<Trace>>);

impl Rule for Recorder {
    fn step(&mut self, view: &View<'_>) -> Tensor<4> {
        let next = self.0.rule().step(view);
        let mut trace = self.1.borrow_mut();
        trace.points.push(view.point.clone());
        trace.sizes.extend(self.0.step_sizes());
        if let Auto::Sparse(rule) = &self.0 {
            trace.shares.extend(rule.shares());
        }
        next
    }

    fn retain(&mut self, rows: &[usize]) {
        self.0.rule().retain(rows);
    }
}

/// The network with noise of the attack's own stream on its input, as recorded; none in draw 0.
struct Noisy(Cnn, Arc<Mutex<SplitMix>>);

impl Victim for Noisy {
    fn classes(&self) -> usize {
        10
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        let shape = query.pixels.dims();
        let pixels = match query.draw {
            0 => query.pixels,
            _ => {
                let noise = self.1.lock().unwrap().normals(shape.iter().product());
                query.pixels + like(shape, noise) * 0.05
            }
        };
        self.0.logits(Query { pixels, ..query })
    }
}

/// The start points of the program, drawn for all rows from one stream.
pub(crate) fn start(apgd: &Apgd, clean: &Tensor<4>, stream: &mut SplitMix) -> Tensor<4> {
    let shape = clean.dims();
    let (count, width) = (shape.iter().product(), shape[1..].iter().product());
    let noise: Vec<f32> = match apgd.norm {
        Norm::Linf => stream.uniforms(count).iter().map(|u| 2.0 * u - 1.0).collect(),
        _ => stream.normals(count),
    };
    let size = |row: &[f32]| match apgd.norm {
        Norm::Linf => row.iter().fold(0.0, |a: f32, v| a.max(v.abs())),
        Norm::L2 => row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() as f32,
        Norm::L1 => apgd.eps,
    };
    let eps = apgd.eps;
    let scaled = noise.chunks(width).flat_map(|row| {
        let size = size(row);
        row.iter().map(move |v| eps * v / size).collect::<Vec<f32>>()
    });
    let point = clean.clone() + like(shape, scaled.collect());
    match apgd.norm {
        Norm::L1 => apgd.norm.confine(clean, point, apgd.stages()[0].eps),
        _ => point.clamp(0.0, 1.0),
    }
}

fn attack(apgd: &Apgd, seed: u64, name: &str, count: usize) -> (Attacked, Trace) {
    let stream = Arc::new(Mutex::new(SplitMix(seed)));
    let (victim, pixels): (Box<dyn Victim>, _) = match name {
        "vit" => (Box::new(Vit::load()), "x3"),
        "cnn" => (Box::new(Cnn::load()), "x1"),
        _ => (Box::new(Noisy(Cnn::load(), stream.clone())), "x1"),
    };
    let pixels = models().tensor::<4>(pixels, DType::F32).narrow(0, 0, count);
    let trace = Rc::new(RefCell::new(Trace::default()));
    let rule = || -> Box<dyn Rule> { Box::new(Recorder(Auto::of(apgd), trace.clone())) };
    let opening =
        |clean: &Tensor<4>, _: &[String], _| start(apgd, clean, &mut stream.lock().unwrap());
    let batch = Batch { pixels, labels: &models().integers("y")[..count], keys: &keys(count) };
    let attacked = apgd.run_with(&opening, &rule, &*victim, &batch, 0);
    (attacked, trace.take())
}

#[test]
fn the_rule_follows_recorded_gradients() {
    let file = Golden::open("attacks", "apgd");
    let mut seen = 0;
    for Run { key, apgd, .. } in runs() {
        let Some(array) = [1, 2]
            .map(|n| format!("{key}.iterates_first{n}"))
            .into_iter()
            .find(|name| file.has(name))
        else {
            continue;
        };
        seen += 1;
        let (shape, points) = file.numbers(&array);
        let width = shape[2..].iter().product::<usize>();
        let pixels = if key.starts_with("vit") { "x3" } else { "x1" };
        let clean = models().tensor::<4>(pixels, DType::F32).narrow(0, 0, 1);
        let picture =
            |numbers: &[f64]| like(clean.dims(), numbers.iter().map(|&v| v as f32).collect());
        let point = |t: usize| &points[t * shape[1] * width..][..width];
        let gradients = file.flat(&format!("{key}.grads_first1"));
        let [losses, sizes] = ["loss", "step_size"].map(|name| file.flat(&format!("{key}.{name}")));
        let mut auto = Auto::of(&apgd);
        for t in 0..apgd.steps {
            let next = auto.rule().step(&View {
                clean: &clean,
                point: &picture(point(t)),
                gradient: &picture(&gradients[t * width..(t + 1) * width]),
                loss: &[losses[8 * t] as f32],
            });
            let off = distance(&numbers(next), point(t + 1));
            assert!(off < 2e-6, "{key}, step {t}: {off:e}");
            assert!((f64::from(auto.step_sizes()[0]) - sizes[8 * t]).abs() < 1e-6, "{key}, {t}");
        }
    }
    assert_eq!(seen, 7);
}

#[test]
fn whole_runs_from_their_seeds() {
    let file = Golden::open("attacks", "apgd");
    for Run { key, apgd, seed } in runs() {
        let (network, _) = key.split_once('.').unwrap();
        let (found, trace) = attack(&apgd, seed, network, 8);
        let check = |found: &[f32], name: &str, tolerance: f64, rows: usize| {
            let expected = file.flat(&format!("{key}.{name}"));
            let sure = expected.len().min(rows.saturating_mul(8));
            let found: Vec<f64> = found[..sure].iter().copied().map(f64::from).collect();
            let off = distance(&found, &expected[..sure]);
            assert!(off < tolerance, "{key}.{name}: {off:e}");
        };
        let rows = PARTS.iter().find(|(name, _)| *name == key).map_or(usize::MAX, |(_, t)| *t);
        // Losses of the random victim differ by 0.047 between the runs of the recorded program in
        // single and double precision, though their points agree; ours are those of the latter.
        let tolerance = if apgd.eot > 1 { 6e-2 } else { 3e-4 };
        check(&by_point(&found.loss), "loss", tolerance, usize::MAX);
        check(&taken(&apgd.stages(), &trace.sizes), "step_size", 1e-6, rows);
        if apgd.norm == Norm::L1 {
            check(&taken(&apgd.stages(), &trace.shares), "topk", 1e-6, rows);
        }
        // Which iterate of a random victim errs is a matter of one draw in the record, too.
        let robust: Vec<usize> =
            found.first_success.iter().map(|first| usize::from(first.is_none())).collect();
        let expected = file.integers(&format!("{key}.still_correct"));
        let others = robust.iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert!(others <= usize::from(apgd.eot > 1), "{key}: {robust:?}, {expected:?}");
        if !apgd.largereps {
            let best: Vec<f32> = found.best_loss.iter().map(|loss| loss.unwrap()).collect();
            check(&best, "loss_best", tolerance, usize::MAX);
        }
        if rows == usize::MAX {
            returned(&file, key, &apgd, seed, &found);
        }
    }
}

/// Compares the last wrong point and the best point of the first four samples.
fn returned(file: &Golden, key: &str, apgd: &Apgd, seed: u64, found: &Attacked) {
    let (network, _) = key.split_once('.').unwrap();
    let best = Apgd { keep: Keep::Loss, ..apgd.clone() };
    let (best, _) = attack(&best, seed, network, 8);
    for (name, run) in [("x_best_adv", found), ("x_best", &best)] {
        let expected = file.flat(&format!("{key}.{name}"));
        let width = expected.len() / 4;
        for (i, expected) in expected.chunks(width).enumerate() {
            // Where nothing was found the program returns its start point, and we the clean one.
            if name == "x_best" || run.first_success[i].is_some() {
                let picture = numbers(run.pixels.clone().narrow(0, i, 1));
                let off = distance(&picture, expected);
                // On a plateau rounding decides which of two neighbours is the better one.
                let tolerance =
                    if name == "x_best" && apgd.loss == Loss::Dlr { 5e-3 } else { 1e-4 };
                assert!(off < tolerance, "{key}.{name}, sample {i}: {off:e}");
            }
        }
    }
}

/// Losses point by point instead of sample by sample.
fn by_point(loss: &[Vec<f32>]) -> Vec<f32> {
    (0..loss[0].len()).flat_map(|t| loss.iter().map(move |row| row[t])).collect()
}

/// Without the entries for the projections between stages, which are no steps of the program.
fn taken(stages: &[Stage], all: &[f32]) -> Vec<f32> {
    let mut rest = all;
    let mut taken = Vec::new();
    for stage in stages {
        let (part, after) = rest.split_at(8 * stage.steps);
        taken.extend(part);
        rest = &after[after.len().min(8)..];
    }
    taken
}

#[test]
fn restarts_and_targets_on_survivors_only() {
    let file = Golden::open("attacks", "apgd");
    let keep = Keep::Found;
    let plain =
        Apgd { eps: 0.15, steps: 20, keep, early_exit: false, restarts: 3, ..Apgd::default() };
    let targeted = Apgd { restarts: 1, target_classes: 9, loss: Loss::Dlr, ..plain.clone() };
    for (key, apgd, seed) in [("perturb_ce_r3", plain, 3), ("perturb_dlrt", targeted, 4)] {
        let (found, _) = attack(&apgd, seed, "cnn", 64);
        let robust: Vec<usize> = found.success.iter().map(|&s| usize::from(!s)).collect();
        assert_eq!(robust, file.integers(&format!("cnn.{key}.correct_after")), "{key}");
        let pictures = numbers(found.pixels.narrow(0, 0, 32));
        let off = distance(&pictures, &file.flat(&format!("cnn.{key}.adv_first32")));
        assert!(off < 1e-4, "{key}: {off:e}");
        let early = Apgd { early_exit: true, ..apgd };
        let (faster, _) = attack(&early, seed, "cnn", 64);
        assert!(faster.forwards < found.forwards);
        assert_eq!(faster.success, found.success, "{key}");
    }
}

#[test]
fn the_printed_rule_differs_where_the_program_does() {
    // With a loss below 0 the program misses the first rise: it is compared with 0, not with the
    // start. 11 steps: two until the first check, of which 1.5 have to rise.
    let clean = like([1, 1, 1, 2], vec![0.5; 2]);
    let sizes = [Variant::Autoattack, Variant::Paper].map(|variant| {
        let mut rule = Adaptive::new(Norm::Linf, 0.1, 11, variant, 0.75);
        for loss in [-3.0, -2.0, -1.0] {
            let view = View { clean: &clean, point: &clean, gradient: &clean, loss: &[loss] };
            rule.step(&view);
        }
        rule.step_sizes()[0]
    });
    assert_eq!(sizes, [0.1, 0.2]);
}

#[test]
fn too_few_classes_are_said() {
    let pixels = models().tensor::<4>("x1", DType::F32).narrow(0, 0, 4);
    let batch = Batch { pixels, labels: &[0, 1, 0, 1], keys: &keys(4) };
    let flags = |text: &str| {
        let attack = clipguard_attack::parse(text).unwrap();
        attack.run(&Few(Cnn::load()), &batch, 0).flags
    };
    let instead = Flag::MarginInstead { classes: 2 };
    assert_eq!(flags("apgd:steps=2,loss=dlr"), std::slice::from_ref(&instead));
    let fewer = Flag::FewerTargets { wanted: 9, possible: 1 };
    assert_eq!(flags("apgd:steps=2,loss=dlr,target-classes=9"), [instead, fewer]);
}

/// The network with its first two classes only.
struct Few(Cnn);

impl Victim for Few {
    fn classes(&self) -> usize {
        2
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        self.0.logits(query).narrow(1, 0, 2)
    }
}
