//! AutoAttack against complete runs of the auto-attack program.
//!
//! In the whole version our random draws are keyed by sample, those of the program come from one
//! stream: starts and windows differ, and with them a sample or two at the edge (over five seeds the
//! program itself leaves 33, 33, 32, 33 and 33 of 64).

use std::cell::RefCell;

use burn::tensor::{DType, Tensor};
use clipguard_attack::{
    Apgd, Attack, AutoAttack, Batch, Flag, Norm,
    autoattack::{Part, Version},
};
use clipguard_model::victim::{Query, Victim};

use crate::{
    apgd::start,
    networks::{Cnn, Golden, SplitMix, Vit, keys, models},
};

/// Compares who is left after each attack, and gives back how many are.
fn check(key: &str, part: Part, left: &[bool], allowed: usize) -> usize {
    let file = Golden::open("attacks", "autoattack");
    let left: Vec<usize> = left.iter().map(|&left| usize::from(left)).collect();
    let expected = file.integers(&format!("{key}.correct_after_{}", part.name()));
    let others = left.iter().zip(&expected).filter(|(a, b)| a != b).count();
    assert!(others <= allowed, "{key}, {}: {others} of 64 differ", part.name());
    left.iter().sum()
}

/// All pictures of a kind, with labels.
fn all(name: &str) -> (Tensor<4>, Vec<usize>) {
    (models().tensor(name, DType::F32), models().integers("y"))
}

#[test]
fn the_whole_standard_version() {
    let (pixels, labels) = all("x1");
    let batch = Batch { pixels, labels: &labels, keys: &keys(64) };
    let attack = AutoAttack { eps: 0.15, ..AutoAttack::default() };
    let found = attack.run(&Cnn::load(), &batch, 0);
    let file = Golden::open("attacks", "autoattack");
    let clean: Vec<usize> = found.correct.iter().map(|&c| usize::from(c)).collect();
    assert_eq!(clean, file.integers("cnn.Linf.standard.clean_correct"));
    let parts = attack.parts();
    for (i, &part) in parts.iter().enumerate() {
        let names: Vec<&str> = parts[..=i].iter().map(|part| part.name()).collect();
        let is_left = |s: usize| {
            found.correct[s] && found.broken_by[s].is_none_or(|name| !names.contains(&name))
        };
        let left: Vec<bool> = (0..64).map(is_left).collect();
        check("cnn.Linf.standard", part, &left, 2);
    }
    let broken = |s: usize| found.correct[s] && found.success[s];
    assert!((0..64).all(|s| found.broken_by[s].is_some() == broken(s)));
    assert!((31..=34).contains(&((found.robust_accuracy() * 64.0).round() as usize)));
    assert!(found.flags.iter().all(|flag| matches!(flag, Flag::SquareImproves { .. })));
}

/// The gradient attacks on the survivors of each other, with the draws of the program, which seeds
/// itself anew for each. FAB-T and Square, which break nobody more in these records, take most of
/// the time and have runs of their own.
fn gradient_attacks(victim: &dyn Victim, pixels: &str, key: &str, attack: &AutoAttack) {
    let (pixels, labels) = all(pixels);
    let keys = keys(64);
    let mut left: Vec<bool> = Golden::open("attacks", "autoattack")
        .integers(&format!("{key}.clean_correct"))
        .iter()
        .map(|&correct| correct == 1)
        .collect();
    for part in attack.parts() {
        if matches!(part, Part::FabT | Part::Square) {
            break;
        }
        let alive: Vec<usize> = (0..64).filter(|&i| left[i]).collect();
        let pick = |i: &usize| pixels.clone().narrow(0, *i, 1);
        let batch = Batch {
            pixels: Tensor::cat(alive.iter().map(pick).collect(), 0),
            labels: &alive.iter().map(|&i| labels[i]).collect::<Vec<usize>>(),
            keys: &alive.iter().map(|&i| keys[i].clone()).collect::<Vec<String>>(),
        };
        let apgd = Apgd { early_exit: false, ..attack.apgd(part) };
        let stream = RefCell::new(SplitMix(0));
        let opening =
            |clean: &Tensor<4>, _: &[String], _| start(&apgd, clean, &mut stream.borrow_mut());
        let found = apgd.run_with(&opening, &|| apgd.rule(), victim, &batch, 0);
        alive.iter().zip(&found.success).for_each(|(&i, &broken)| left[i] = !broken);
        check(key, part, &left, 1);
    }
}

#[test]
fn gradient_attacks_in_other_norms_and_on_the_transformer() {
    let standard = |norm, eps| AutoAttack { norm, eps, ..AutoAttack::default() };
    gradient_attacks(&Cnn::load(), "x1", "cnn.L2.standard", &standard(Norm::L2, 1.0));
    gradient_attacks(&Cnn::load(), "x1", "cnn.L1.standard", &standard(Norm::L1, 2.0));
    gradient_attacks(&Vit::load(), "x3", "vit.Linf.standard", &standard(Norm::Linf, 0.04));
}

#[test]
fn the_version_for_random_victims() {
    let rand = AutoAttack { eps: 0.15, version: Version::Rand, ..AutoAttack::default() };
    gradient_attacks(&Cnn::load(), "x1", "cnn.Linf.rand", &rand);
}

/// A victim with a fault of its own.
struct Odd(Cnn, fn(Tensor<2>, u64) -> Tensor<2>);

impl Victim for Odd {
    fn classes(&self) -> usize {
        10
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        let draw = query.draw;
        (self.1)(self.0.logits(query), draw)
    }
}

/// A victim that says it optimises while it answers.
struct Dynamic(Cnn);

impl Victim for Dynamic {
    fn classes(&self) -> usize {
        self.0.classes()
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        self.0.logits(query)
    }

    fn optimises(&self) -> Option<String> {
        Some("inner steps".into())
    }
}

#[test]
fn odd_victims_are_flagged() {
    let (pixels, labels) = all("x1");
    let batch = Batch { pixels: pixels.narrow(0, 0, 6), labels: &labels[..6], keys: &keys(6) };
    let flags = |change| {
        let text = "autoattack:version=custom,attacks=apgd-dlr,steps=1,eps=0.01";
        let attack = clipguard_attack::parse(text).unwrap();
        attack.run(&Odd(Cnn::load(), change), &batch, 0).flags
    };
    assert_eq!(flags(|z, _| z), []);
    let found = flags(|z, draw| z + draw as f32 * 1e-3);
    let [Flag::RandomVictim { difference, threshold: 1e-4 }] = found[..] else {
        panic!("{found:?}");
    };
    assert!(difference > 1e-4);
    let found = flags(|z, _| burn::tensor::activation::softmax(z, 1));
    assert_eq!(found, [Flag::ProbabilitiesAsLogits]);
    let found = flags(|z, _| z.detach());
    assert_eq!(found, [Flag::ZeroStart(6)]);
    let attack = clipguard_attack::parse("autoattack:version=custom,attacks=square,queries=1");
    let found = attack.unwrap().run(&Dynamic(Cnn::load()), &batch, 0).flags;
    assert_eq!(found, [Flag::Dynamic("inner steps".into())]);
}

#[test]
fn settings_are_those_of_the_versions() {
    let spelled = |text: &str, part: Part| {
        let attack = AutoAttack::from_spelling(&text.parse().unwrap()).unwrap();
        attack.attack(part).spelling()
    };
    for (text, part, settings) in [
        ("autoattack", Part::ApgdCe, "restarts=1 steps=100 eot=1 largereps=false"),
        ("autoattack", Part::ApgdT, "restarts=1 target-classes=9 loss=dlr"),
        ("autoattack", Part::FabT, "restarts=1 target-classes=9 steps=100"),
        ("autoattack", Part::Square, "queries=5000 restarts=1 rescale=false p-init=0.8"),
        ("autoattack:norm=l1", Part::ApgdCe, "restarts=5 largereps=true"),
        ("autoattack:norm=l1", Part::ApgdT, "restarts=1 target-classes=5 largereps=true"),
        ("autoattack:version=plus", Part::ApgdDlr, "restarts=5 loss=dlr target-classes=0"),
        ("autoattack:version=plus", Part::Fab, "restarts=5 target-classes=0"),
        ("autoattack:version=plus", Part::ApgdT, "restarts=1 target-classes=9"),
        ("autoattack:version=rand", Part::ApgdDlr, "restarts=1 eot=20 bookkeeping=last"),
        ("autoattack:version=custom,attacks=apgd-ce+apgd-t", Part::ApgdCe, "restarts=5"),
        ("autoattack:version=custom,attacks=apgd-ce+apgd-t", Part::ApgdT, "restarts=1"),
    ] {
        for setting in settings.split(' ') {
            let (key, value) = setting.split_once('=').unwrap();
            assert_eq!(spelled(text, part).get(key), Some(value), "{text}, {part:?}: {key}");
        }
    }
    for text in ["autoattack:steps=5", "autoattack:version=custom", "autoattack:attacks=fab"] {
        assert!(AutoAttack::from_spelling(&text.parse().unwrap()).is_err(), "{text}");
    }
}
