//! One table drives every attack through the contract.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use burn::tensor::{DType, Tensor};
use clipguard_attack::{Attack, Attacked, Batch, Budget, CATALOGUE, Flag, Norm, parse};
use clipguard_model::normalise;
use clipguard_model::victim::GradientMode;
use clipguard_purify::{ClipureCos, Defended, clipure_cos::Settings};

#[path = "../networks/mod.rs"]
mod networks;
mod table;
use networks::{Cnn, Vit, distance, keys, models, numbers};
use table::{
    BLIND, BUDGETS, Broken, COUNT, Counter, NORMS, classes, is_targeted, rows, run, spellings,
    subjects,
};

#[test]
fn results_are_feasible_finite_and_judged_from_the_stored_picture() {
    let labels = models().integers("y");
    for subject in subjects() {
        let victim = &*subject.victim;
        let clean = classes(victim, &subject.pixels);
        for attack in subject.attacks() {
            let name = format!("{} on {}", attack.spelling(), subject.name);
            let found = run(&*attack, victim, &subject.pixels, 0..COUNT);
            let spelling = attack.spelling();
            let budget = Budget::of(&spelling);
            let targeted = is_targeted(&*attack);
            let all_kept = spelling.get("keep") == Some("loss");
            let sizes = budget.measure(found.pixels.clone() - subject.pixels.clone());
            let now = classes(victim, &found.pixels);
            let (before, after) = (rows(&subject.pixels), rows(&found.pixels));
            for i in 0..COUNT {
                assert!(budget.holds(sizes[i]), "{name}: {} is too much", sizes[i]);
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
                // What is handed back is the smallest error where small ones are looked for.
                if let Some(nearest) = found.nearest[i] {
                    let is_known = !found.success[i] || nearest <= found.norm[i] + 1e-6;
                    assert!(is_known && nearest > 0.0, "{name}: {nearest} of row {i}");
                }
            }
            let broken = subject.name == "no gradient";
            // The size of a change, which `cw` makes small, has a gradient of its own.
            let blind = broken && found.backwards > 0 && spelling.name() != "cw";
            assert_eq!(found.zero_gradients == 1.0, blind, "{name}: {}", found.zero_gradients);
            assert_eq!(found.backwards == 0, BLIND.contains(&spelling.name()), "{name}");
            assert!(found.forwards >= 2 * COUNT);
        }
    }
}

#[test]
fn a_budget_of_zero_changes_nothing() {
    for subject in subjects() {
        for norm in BUDGETS {
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
        for attack in subject.attacks() {
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
fn flags_are_the_same_for_every_batch_size_and_number_of_threads() {
    let pixels = models().tensor::<4>("x1", DType::F32);
    let (labels, keys, victim) = (models().integers("y"), keys(64), Cnn::load());
    let flags = |attack: &dyn Attack, size: usize| -> Vec<bool> {
        let parts = (0..64).step_by(size).map(|start| {
            let end = (start + size).min(64);
            let pixels = pixels.clone().narrow(0, start, end - start);
            let (labels, keys) = (&labels[start..end], &keys[start..end]);
            attack.run(&victim, &Batch { pixels, labels, keys }, 3).success
        });
        parts.flatten().collect()
    };
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let pools = [pool(1), pool(2)];
    for method in CATALOGUE {
        // In one budget: the others go through the same code.
        let own = NORMS.iter().find(|(name, _)| *name == method.name);
        let norm = own.map_or(Some(Norm::Linf), |(_, norms)| norms[0]);
        let limit = if norm == Some(Norm::L2) { "1" } else { "0.15" };
        let attacks = spellings(norm, limit);
        let attack = attacks.iter().find(|a| a.spelling().name() == method.name).unwrap();
        let name = attack.spelling().to_string();
        let whole = flags(&**attack, 64);
        for size in [1, 7] {
            assert_eq!(flags(&**attack, size), whole, "{name} in batches of {size}");
        }
        for pool in &pools {
            assert_eq!(pool.install(|| flags(&**attack, 64)), whole, "{name} in threads");
        }
    }
}

#[test]
fn a_larger_budget_breaks_no_less() {
    let subject = &subjects()[0];
    let limits = [
        (Some(Norm::Linf), ["0.05", "0.15", "0.45"]),
        (Some(Norm::L2), ["0.3", "1", "3"]),
        (Some(Norm::L1), ["2", "8", "32"]),
        (None, ["0.02", "0.08", "0.4"]),
    ];
    let mut wrong = Vec::new();
    for (norm, limits) in limits {
        let accuracies: Vec<Vec<f32>> = limits
            .iter()
            .map(|limit| {
                let attacks = spellings(norm, limit);
                let robust = |attack: &dyn Attack| {
                    run(attack, &*subject.victim, &subject.pixels, 0..COUNT).robust_accuracy()
                };
                attacks.iter().map(|attack| robust(&**attack)).collect()
            })
            .collect();
        for (i, attack) in spellings(norm, limits[1]).iter().enumerate() {
            let curve: Vec<f32> = accuracies.iter().map(|row| row[i]).collect();
            // A few steps towards one class, or that hand back what is no error, may miss in a large
            // ball what they find in a small one.
            let exempt = is_targeted(&**attack) || attack.spelling().get("keep") == Some("loss");
            if curve.windows(2).any(|pair| pair[1] > pair[0]) && !exempt {
                wrong.push(format!("{}: {curve:?}", attack.spelling()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_attack_that_finds_nothing_says_so() {
    for subject in subjects().iter().take(2) {
        for norm in BUDGETS {
            // No pixel of an 8-bit picture changes by that, and it is less than one pixel.
            for attack in spellings(norm, "1e-6") {
                if is_targeted(&*attack) || attack.spelling().get("keep") == Some("loss") {
                    continue;
                }
                let name = attack.spelling().to_string();
                let found = run(&*attack, &*subject.victim, &subject.pixels, 0..COUNT);
                for i in (0..COUNT).filter(|&i| found.correct[i]) {
                    assert!(!found.success[i], "{name}: row {i}");
                    assert_eq!((found.norm[i], found.first_success[i]), (0.0, None), "{name}");
                }
                assert_eq!(numbers(found.pixels), numbers(subject.pixels.clone()), "{name}");
            }
        }
    }
}

#[test]
fn norms_an_attack_is_not_made_for_are_refused() {
    for (name, norms) in NORMS {
        for norm in [Norm::Linf, Norm::L2, Norm::L1] {
            let made = parse(&format!("{name}:norm={norm}")).is_ok();
            assert_eq!(made, norms.contains(&Some(norm)), "{name} in {norm}");
        }
    }
}

#[test]
fn queries_of_attacks_by_decisions_are_counted_exactly() {
    let pixels = models().tensor::<4>("x1", DType::F32).narrow(0, 0, COUNT);
    let counter = Counter(Cnn::load(), AtomicUsize::new(0));
    for queries in [2, 50, 130] {
        let text = format!("hopskipjump:eps=0.5,queries={queries},probes=10");
        counter.1.store(0, Ordering::Relaxed);
        let found = run(&*parse(&text).unwrap(), &counter, &pixels, 0..COUNT);
        let asked: Vec<usize> = (0..COUNT).map(|i| found.queries(i)).collect();
        assert!(asked.iter().all(|asked| *asked <= queries), "{asked:?}");
        // The clean pictures and the judge come on top.
        let seen = counter.1.load(Ordering::Relaxed);
        assert_eq!(asked.iter().sum::<usize>() + 2 * COUNT, seen);
        assert_eq!(found.forwards, seen);
    }
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
