//! The table: all attacks x norms x victims.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use burn::tensor::{DType, Tensor};
use clipguard_attack::{Attack, Attacked, Batch, CATALOGUE, Norm, parse};
use clipguard_model::normalise;
use clipguard_model::victim::{Query, Victim};
use clipguard_purify::{ClipureCos, Defended, clipure_cos::Settings};

use crate::networks::{Cnn, Vit, keys, models, numbers};

pub(crate) const COUNT: usize = 14;

/// Settings beside the plain ones that have code of their own.
pub(crate) const VARIANTS: [&str; 16] = [
    "pgd:steps=4,restarts=3,start=sphere",
    "pgd:steps=4,momentum=mi,start=radial,loss=dlr",
    "pgd:steps=4,momentum=sign-momentum,early-exit=false,loss=margin",
    "pgd:steps=4,target=likely,eot=2",
    "pgd:steps=4,target=least,loss=dlr,start=none",
    "pgd:steps=4,scale=auto,keep=loss",
    "apgd:steps=6,restarts=2,loss=dlr,target-classes=2,keep=found",
    "apgd:steps=6,target=likely,eot=2,variant=paper",
    "fab:steps=2,restarts=2,target-classes=0",
    "pgd:steps=3,diversity=0.7,smoothing=5,momentum=mi",
    "cw:searches=2,steps=8,lr=0.1,c=1,early-exit=true,abort-early=false",
    "cw:searches=2,steps=8,lr=0.1,c=1,kappa=0.5,target=likely",
    "deepfool:steps=4,variant=move,candidates=4",
    "hopskipjump:queries=60,probes=10,early-exit=true",
    "patch:steps=4,place=random,restarts=2,loss=dlr",
    "patch:steps=3,grid=1,target=likely,eot=2",
];

/// Norms of the attacks that are not made for all three; `None` for a patch, which has none.
pub(crate) const NORMS: [(&str, &[Option<Norm>]); 4] = [
    ("cw", &[Some(Norm::L2)]),
    ("deepfool", &[Some(Norm::Linf), Some(Norm::L2)]),
    ("hopskipjump", &[Some(Norm::Linf), Some(Norm::L2)]),
    ("patch", &[None]),
];

/// Attacks that ask for answers alone.
pub(crate) const BLIND: [&str; 2] = ["hopskipjump", "square"];

/// Settings that make the other attacks cheap enough for a table.
pub(crate) const SHORT: [(&str, &str); 9] = [
    ("apgd", "steps=8"),
    ("autoattack", "version=custom,attacks=apgd-ce+fab-t+square,steps=2,queries=5"),
    ("cw", "searches=3,steps=10,lr=0.1,c=1"),
    ("deepfool", "steps=5,candidates=3"),
    ("fab", "steps=4,target-classes=2"),
    ("hopskipjump", "queries=80,probes=10,starts=8"),
    ("patch", "steps=5,grid=2"),
    ("pgd", "steps=5"),
    ("square", "queries=20"),
];

/// Every attack that keeps the budget: a norm and a radius, or the share of a patch.
pub(crate) fn spellings(norm: Option<Norm>, limit: &str) -> Vec<Box<dyn Attack>> {
    let short = |name: &str| SHORT.iter().find(|(known, _)| *known == name);
    let plain = CATALOGUE.iter().map(|method| match short(method.name) {
        Some((name, settings)) => format!("{name}:{settings},"),
        None => format!("{}:", method.name),
    });
    let variants = VARIANTS.iter().map(|text| format!("{text},"));
    let fits = |text: &String| {
        let name = text.split(':').next().unwrap();
        let own = NORMS.iter().find(|(known, _)| *known == name);
        own.map_or(norm.is_some(), |(_, norms)| norms.contains(&norm))
    };
    let budget = match norm {
        Some(norm) => format!("norm={norm},eps={limit}"),
        None => format!("share={limit}"),
    };
    let texts = plain.chain(variants).filter(fits);
    texts.map(|text| parse(&format!("{text}{budget}")).unwrap()).collect()
}

/// The budgets of the table, in the order of [`Subject::limits`].
pub(crate) const BUDGETS: [Option<Norm>; 4] =
    [Some(Norm::Linf), Some(Norm::L2), Some(Norm::L1), None];

pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) victim: Box<dyn Victim>,
    pub(crate) pixels: Tensor<4>,
    /// Radii for Linf, L2 and L1 and a share for patches that break some samples and not all.
    pub(crate) limits: [&'static str; 4],
}

impl Subject {
    /// All attacks, each with its budget.
    pub(crate) fn attacks(&self) -> Vec<Box<dyn Attack>> {
        let budgets = BUDGETS.into_iter().zip(self.limits);
        budgets.flat_map(|(norm, limit)| spellings(norm, limit)).collect()
    }
}

pub(crate) fn subjects() -> Vec<Subject> {
    let pixels = |name: &str| models().tensor::<4>(name, DType::F32).narrow(0, 0, COUNT);
    let blank = normalise(models().tensor("text", DType::F32)).mean_dim(0).reshape([24]);
    let purifier = ClipureCos::new(Settings { steps: 3, eta: 0.2, ..Settings::default() }, blank);
    let head: Tensor<2> = models().tensor("text", DType::F32);
    let defended = Defended::new(Arc::new(Vit::load()), head.transpose(), 100.0);
    let small = ["8/255", "0.5", "4", "0.04"];
    vec![
        Subject {
            name: "cnn",
            victim: Box::new(Cnn::load()),
            pixels: pixels("x1"),
            limits: ["0.15", "1", "8", "0.04"],
        },
        Subject { name: "vit", victim: Box::new(Vit::load()), pixels: pixels("x3"), limits: small },
        Subject {
            name: "clipure",
            victim: Box::new(defended.with(purifier.unwrap())),
            pixels: pixels("x3"),
            limits: small,
        },
        Subject {
            name: "no gradient",
            victim: Box::new(Blind(Cnn::load())),
            pixels: pixels("x1"),
            limits: ["0.15", "1", "8", "0.04"],
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

/// Counts the pictures it is asked about.
pub(crate) struct Counter(pub(crate) Cnn, pub(crate) AtomicUsize);

impl Victim for Counter {
    fn classes(&self) -> usize {
        10
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        self.1.fetch_add(query.keys.len(), Ordering::Relaxed);
        self.0.logits(query)
    }
}

/// A victim whose gradient is NaN: `0 / 0` in the derivative of a root at 0.
pub(crate) struct Broken(pub(crate) Cnn);

impl Victim for Broken {
    fn classes(&self) -> usize {
        10
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        let zero = (query.pixels.clone() * 0.0).sum_dim(1).sum_dim(2).sum_dim(3).sqrt();
        self.0.logits(query) + zero.reshape([-1, 1])
    }
}

pub(crate) fn is_targeted(attack: &dyn Attack) -> bool {
    attack.spelling().get("target").is_some_and(|target| target != "none")
}

pub(crate) fn run(
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

pub(crate) fn classes(victim: &dyn Victim, pixels: &Tensor<4>) -> Vec<usize> {
    let logits = victim.logits(Query { pixels: pixels.clone(), keys: &keys(COUNT), draw: 0 });
    let best = |row: &[f64]| (0..10).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    numbers(logits).chunks(10).map(best).collect()
}

pub(crate) fn rows(pixels: &Tensor<4>) -> Vec<Vec<f64>> {
    let all = numbers(pixels.clone());
    all.chunks(all.len() / pixels.dims()[0]).map(<[f64]>::to_vec).collect()
}
