//! One table drives every attack through the contract: all attacks x norms x victims.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use clipguard_attack::{Attack, Attacked, Batch, CATALOGUE, Flag, Norm, parse};
use clipguard_model::normalise;
use clipguard_model::victim::{GradientMode, Query, Victim};
use clipguard_purify::{ClipureCos, Defended, clipure_cos::Settings};

mod networks;
use networks::{Cnn, Vit, distance, keys, models, numbers};

const COUNT: usize = 14;

/// Settings beside the plain ones that have code of their own.
const VARIANTS: [&str; 9] = [
    "pgd:steps=4,restarts=3,start=sphere",
    "pgd:steps=4,momentum=mi,start=radial,loss=dlr",
    "pgd:steps=4,momentum=sign-momentum,early-exit=false,loss=margin",
    "pgd:steps=4,target=likely,eot=2",
    "pgd:steps=4,target=least,loss=dlr,start=none",
    "pgd:steps=4,scale=auto,keep=loss",
    "apgd:steps=6,restarts=2,loss=dlr,target-classes=2,keep=found",
    "apgd:steps=6,target=likely,eot=2,variant=paper",
    "fab:steps=2,restarts=2,target-classes=0",
];

/// Settings that make the other attacks cheap enough for a table.
const SHORT: [(&str, &str); 5] = [
    ("apgd", "steps=8"),
    ("autoattack", "version=custom,attacks=apgd-ce+fab-t+square,steps=2,queries=5"),
    ("fab", "steps=4,target-classes=2"),
    ("pgd", "steps=5"),
    ("square", "queries=20"),
];

fn spellings(norm: Norm, eps: &str) -> Vec<Box<dyn Attack>> {
    let short = |name: &str| SHORT.iter().find(|(known, _)| *known == name);
    let plain = CATALOGUE.iter().map(|method| match short(method.name) {
        Some((name, settings)) => format!("{name}:{settings},"),
        None => format!("{}:", method.name),
    });
    let variants = VARIANTS.iter().map(|text| format!("{text},"));
    plain
        .chain(variants)
        .map(|text| parse(&format!("{text}norm={norm},eps={eps}")).unwrap())
        .collect()
}

struct Subject {
    name: &'static str,
    victim: Box<dyn Victim>,
    pixels: Tensor<4>,
    /// Budgets for Linf, L2 and L1 that break some samples and not all.
    eps: [&'static str; 3],
}

fn subjects() -> Vec<Subject> {
    let pixels = |name: &str| models().tensor::<4>(name, DType::F32).narrow(0, 0, COUNT);
    let blank = normalise(models().tensor("text", DType::F32)).mean_dim(0).reshape([24]);
    let purifier = ClipureCos::new(Settings { steps: 3, eta: 0.2, ..Settings::default() }, blank);
    let head: Tensor<2> = models().tensor("text", DType::F32);
    let defended = Defended::new(Arc::new(Vit::load()), head.transpose(), 100.0);
    let small = ["8/255", "0.5", "4"];
    vec![
        Subject {
            name: "cnn",
            victim: Box::new(Cnn::load()),
            pixels: pixels("x1"),
            eps: ["0.15", "1", "8"],
        },
        Subject { name: "vit", victim: Box::new(Vit::load()), pixels: pixels("x3"), eps: small },
        Subject {
            name: "clipure",
            victim: Box::new(defended.with(purifier.unwrap())),
            pixels: pixels("x3"),
            eps: small,
        },
        Subject {
            name: "no gradient",
            victim: Box::new(Blind(Cnn::load())),
            pixels: pixels("x1"),
            eps: ["0.15", "1", "8"],
        },
    ]
}

/// Logits that do not depend on tracked pixels.
struct Blind(Cnn);

impl Victim for Blind {
    fn classes(&self) -> usize {
        10
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        let pixels = Tensor::from_data(query.pixels.to_data(), &burn::tensor::Device::flex());
        self.0.logits(Query { pixels, ..query })
    }
}

/// A victim whose gradient is NaN: `0 / 0` in the derivative of a root at 0.
struct Broken(Cnn);

impl Victim for Broken {
    fn classes(&self) -> usize {
        10
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        let zero = (query.pixels.clone() * 0.0).sum_dim(1).sum_dim(2).sum_dim(3).sqrt();
        self.0.logits(query) + zero.reshape([-1, 1])
    }
}

fn is_targeted(attack: &dyn Attack) -> bool {
    attack.spelling().get("target").is_some_and(|target| target != "none")
}

fn run(
    attack: &dyn Attack,
    victim: &dyn Victim,
    pixels: &Tensor<4>,
    part: std::ops::Range<usize>,
) -> Attacked {
    let labels = &models().integers("y")[part.clone()];
    let keys = &keys(COUNT)[part.clone()];
    let pixels = pixels.clone().narrow(0, part.start, part.len());
    attack.run(victim, &Batch { pixels, labels, keys }, 3)
}

fn classes(victim: &dyn Victim, pixels: &Tensor<4>) -> Vec<usize> {
    let logits = victim.logits(Query { pixels: pixels.clone(), keys: &keys(COUNT), draw: 0 });
    let best = |row: &[f64]| (0..10).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    numbers(logits).chunks(10).map(best).collect()
}

fn rows(pixels: &Tensor<4>) -> Vec<Vec<f64>> {
    let all = numbers(pixels.clone());
    all.chunks(all.len() / pixels.dims()[0]).map(<[f64]>::to_vec).collect()
}

#[test]
fn results_are_feasible_finite_and_judged_from_the_stored_picture() {
    let labels = models().integers("y");
    for subject in subjects() {
        let victim = &*subject.victim;
        let clean = classes(victim, &subject.pixels);
        for (norm, eps) in [Norm::Linf, Norm::L2, Norm::L1].into_iter().zip(subject.eps) {
            for attack in spellings(norm, eps) {
                let name = format!("{} on {}", attack.spelling(), subject.name);
                let found = run(&*attack, victim, &subject.pixels, 0..COUNT);
                let budget = clipguard_data::spelling::number(eps).unwrap() as f32;
                let spelling = attack.spelling();
                let targeted = is_targeted(&*attack);
                let all_kept = spelling.get("keep") == Some("loss");
                let sizes = norm.measure(found.pixels.clone() - subject.pixels.clone());
                let now = classes(victim, &found.pixels);
                let (before, after) = (rows(&subject.pixels), rows(&found.pixels));
                for i in 0..COUNT {
                    assert!(Norm::within(sizes[i], budget), "{name}: {} over {eps}", sizes[i]);
                    assert!((f64::from(found.norm[i]) - sizes[i]).abs() < 1e-6, "{name}");
                    assert!(after[i].iter().all(|v| (0.0..=1.0).contains(v)), "{name}: box");
                    assert_eq!(found.correct[i], clean[i] == labels[i], "{name}");
                    if !targeted {
                        assert_eq!(found.success[i], now[i] != labels[i], "{name}: row {i}");
                    }
                    if !found.correct[i] || !found.success[i] && !all_kept {
                        assert_eq!(before[i], after[i], "{name}: row {i} must keep its picture");
                    }
                    assert_eq!(found.correct[i], !found.loss[i].is_empty(), "{name}: row {i}");
                }
                let broken = subject.name == "no gradient";
                let blind = broken && found.backwards > 0;
                assert_eq!(found.zero_gradients == 1.0, blind, "{name}: {}", found.zero_gradients);
                assert_eq!(found.backwards == 0, spelling.name() == "square");
                assert!(found.forwards >= 2 * COUNT);
            }
        }
    }
}

#[test]
fn a_budget_of_zero_changes_nothing() {
    for subject in subjects() {
        for norm in [Norm::Linf, Norm::L2, Norm::L1] {
            for attack in spellings(norm, "0") {
                let found = run(&*attack, &*subject.victim, &subject.pixels, 0..COUNT);
                assert_eq!(numbers(found.pixels), numbers(subject.pixels.clone()));
                if !is_targeted(&*attack) {
                    let fails = found.correct.iter().zip(&found.success);
                    assert!(fails.into_iter().all(|(correct, success)| correct != success));
                }
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_batch() {
    for subject in subjects() {
        let victim = &*subject.victim;
        for (norm, eps) in [Norm::Linf, Norm::L2, Norm::L1].into_iter().zip(subject.eps) {
            for attack in spellings(norm, eps) {
                let name = format!("{} on {}", attack.spelling(), subject.name);
                let joined = |size: usize| {
                    let parts = (0..7 / size).map(|i| i * size..(i + 1) * size);
                    let runs: Vec<Attacked> =
                        parts.map(|part| run(&*attack, victim, &subject.pixels, part)).collect();
                    let success: Vec<bool> = runs.iter().flat_map(|r| r.success.clone()).collect();
                    let pixels = runs.into_iter().flat_map(|r| numbers(r.pixels)).collect();
                    (success, pixels)
                };
                let (alone, together): ((_, Vec<f64>), (_, Vec<f64>)) = (joined(1), joined(7));
                assert_eq!(alone.0, together.0, "{name}");
                let off = distance(&alone.1, &together.1);
                assert!(off < 1e-4, "{name}: {off:e}");
            }
        }
    }
}

#[test]
fn more_restarts_and_steps_lose_nothing() {
    let subject = &subjects()[0];
    let count = |text: &str| {
        let attack = parse(text).unwrap();
        let found = run(&*attack, &*subject.victim, &subject.pixels, 0..COUNT);
        (found.robust_accuracy(), found.success, found.forwards)
    };
    let (one, few, _) = count("pgd:eps=0.12,steps=5");
    let (many, all, exits) = count("pgd:eps=0.12,steps=5,restarts=4");
    assert!(few.iter().zip(&all).all(|(few, all)| all >= few) && many <= one);
    let (.., full) = count("pgd:eps=0.12,steps=5,restarts=4,early-exit=false");
    assert!(exits < full, "samples that are done leave the batch: {exits} < {full}");
    assert!(one < 1.0 && one > 0.0, "the budget breaks some samples: {one}");
}

#[test]
fn the_order_of_samples_and_the_seed_are_what_random_starts_depend_on() {
    let subject = &subjects()[0];
    let attack = parse("pgd:eps=0.15,steps=3,keep=last").unwrap();
    let labels = models().integers("y");
    let (keys, order) = (keys(COUNT), [3, 1, 2, 0]);
    let run = |order: &[usize], seed| {
        let pixels =
            Tensor::cat(order.iter().map(|&i| subject.pixels.clone().narrow(0, i, 1)).collect(), 0);
        let labels: Vec<usize> = order.iter().map(|&i| labels[i]).collect();
        let keys: Vec<String> = order.iter().map(|&i| keys[i].clone()).collect();
        rows(
            &attack
                .run(&*subject.victim, &Batch { pixels, labels: &labels, keys: &keys }, seed)
                .pixels,
        )
    };
    let straight = run(&[0, 1, 2, 3], 5);
    for (row, &i) in run(&order, 5).iter().zip(&order) {
        assert!(distance(row, &straight[i]) < 1e-4);
    }
    assert!(distance(&run(&[0], 6)[0], &straight[0]) > 1e-3);
}

#[test]
fn broken_gradients_never_reach_the_picture_and_are_flagged() {
    let pixels = models().tensor::<4>("x1", DType::F32).narrow(0, 0, COUNT);
    for norm in ["linf", "l2", "l1"] {
        let attack = parse(&format!("pgd:norm={norm},eps=0.1,steps=2,keep=last")).unwrap();
        let found = run(&*attack, &Broken(Cnn::load()), &pixels, 0..COUNT);
        assert!(numbers(found.pixels).iter().all(|v| (0.0..=1.0).contains(v)));
        assert!(found.flags.iter().any(|flag| matches!(flag, Flag::BrokenGradient(n) if *n > 0)));
    }
}

#[test]
fn a_target_that_is_the_label_is_refused_for_that_sample() {
    let pixels = models().tensor::<4>("x1", DType::F32).narrow(0, 0, COUNT);
    let label = models().integers("y")[0];
    let attack = parse(&format!("pgd:eps=0.15,steps=2,target={label}")).unwrap();
    let found = run(&*attack, &Cnn::load(), &pixels, 0..1);
    assert!(!found.success[0] && found.loss[0].is_empty());
    assert_eq!(found.flags, [Flag::TargetIsLabel(1)]);
}

#[test]
fn the_gradient_mode_of_a_defence_decides_what_an_attack_finds() {
    // With ten steps of 30, CLIPure-Cos is the identity: an exact attack meets the bare model, a
    // detached one meets rounding noise.
    let text: Tensor<2> = models().tensor("text", DType::F32);
    let pixels: Tensor<4> = models().tensor::<4>("x3", DType::F32).narrow(0, 0, COUNT);
    let vit = Arc::new(Vit::load());
    let attack = parse("pgd:eps=0.04,steps=10,loss=margin").unwrap();
    let robust = |gradient: Option<GradientMode>| {
        let bare = Defended::new(vit.clone(), text.clone().transpose(), 100.0);
        let victim = match gradient {
            None => bare,
            gradient => {
                let blank = normalise(text.clone()).mean_dim(0).reshape([24]);
                bare.with(
                    ClipureCos::new(Settings { gradient, ..Settings::default() }, blank).unwrap(),
                )
            }
        };
        run(&*attack, &victim, &pixels, 0..COUNT).robust_accuracy()
    };
    let bare = robust(None);
    let exact = robust(Some(GradientMode::Exact));
    let straight = robust(Some(GradientMode::StraightThrough));
    let detached = robust(Some(GradientMode::Detached));
    assert!((exact - bare).abs() < 0.08 && (straight - bare).abs() < 0.08, "{bare} {exact}");
    assert!(detached > exact + 0.1, "{detached} {exact}");
}
