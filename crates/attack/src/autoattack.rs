//! AutoAttack: an ensemble without parameters to tune (Croce & Hein 2020).

use clipguard_data::{
    parameters,
    spelling::{Parameters, Spelling, SpellingError},
};
use clipguard_model::victim::{Query, Victim};
use serde::{Deserialize, Serialize};

use crate::{
    Apgd, Attack, Attacked, Batch, Fab, Flag, Keep, Loss, Norm, Square, Terms,
    descent::Bookkeeping,
    tensors::{argmax, host, row},
    trial::{Trial, select},
};

/// Which attacks run, and with which settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// apgd-ce, apgd-t, fab-t, square: the one to report for deterministic victims.
    #[default]
    Standard,
    /// apgd-ce, apgd-dlr, fab, square, apgd-t, fab-t with 5 restarts.
    Plus,
    /// apgd-ce and apgd-dlr with gradients averaged over 20 draws, for random victims.
    Rand,
    /// The attacks of a list, with the constructor's settings of the original program, which are
    /// not those of `standard`.
    Custom,
}

/// One attack of the ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// APGD on the cross-entropy.
    ApgdCe,
    /// APGD on the difference of logits ratio.
    ApgdDlr,
    /// APGD on the targeted ratio, towards each of the likeliest wrong classes.
    ApgdT,
    /// FAB towards the nearest boundary of all.
    Fab,
    /// FAB towards the boundaries of the likeliest wrong classes.
    FabT,
    /// Square.
    Square,
}

impl Part {
    /// The name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::ApgdCe => "apgd-ce",
            Self::ApgdDlr => "apgd-dlr",
            Self::ApgdT => "apgd-t",
            Self::Fab => "fab",
            Self::FabT => "fab-t",
            Self::Square => "square",
        }
    }
}

parameters! {
    /// Attacks one after the other, each from the clean pictures and on those still unbroken.
    pub struct AutoAttack {
        /// Norm of the budget: linf, l2 or l1.
        norm: Norm = Norm::Linf,
        /// Radius of the budget in pixel units of [0, 1], such as 8/255; 0 changes nothing.
        eps: f32 = 8.0 / 255.0,
        /// standard, plus, rand (for random victims) or custom.
        version: Version = Version::Standard,
        /// Only for custom: apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square, joined by +, in order.
        attacks: Option<Vec<Part>> = None,
        /// Only for custom: steps of APGD and FAB; none: 100.
        steps: Option<usize> = None,
        /// Only for custom: queries of Square; none: 5000.
        queries: Option<usize> = None,
    }
}

impl AutoAttack {
    /// The attack a spelling such as `autoattack:norm=l2,eps=0.5` asks for.
    ///
    /// # Errors
    /// Unknown settings and values out of range.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        let ensemble: Self = spelling.read()?;
        let Self { attacks, steps, queries, .. } = &ensemble;
        let is_custom = ensemble.version == Version::Custom;
        let fixed = "settings are fixed but for version=custom";
        spelling.demand([
            ("eps", ensemble.eps >= 0.0, "a radius is not negative"),
            ("attacks", is_custom || attacks.is_none(), fixed),
            ("steps", is_custom || steps.is_none(), fixed),
            ("queries", is_custom || queries.is_none(), fixed),
            ("attacks", !is_custom || attacks.is_some(), "custom needs a list of attacks"),
            ("steps", *steps != Some(0), "at least one step"),
            ("queries", *queries != Some(0), "at least one query"),
        ])?;
        Ok(ensemble)
    }

    /// The attacks in their order.
    pub fn parts(&self) -> Vec<Part> {
        use Part::{ApgdCe, ApgdDlr, ApgdT, FabT, Square};
        match self.version {
            Version::Standard => vec![ApgdCe, ApgdT, FabT, Square],
            Version::Plus => vec![ApgdCe, ApgdDlr, Part::Fab, Square, ApgdT, FabT],
            Version::Rand => vec![ApgdCe, ApgdDlr],
            Version::Custom => self.attacks.clone().unwrap_or_default(),
        }
    }

    /// One of the attacks, with the settings it has in this version.
    pub fn attack(&self, part: Part) -> Box<dyn Attack> {
        match part {
            Part::ApgdCe | Part::ApgdDlr | Part::ApgdT => Box::new(self.apgd(part)),
            Part::Fab | Part::FabT => Box::new(self.fab(part)),
            Part::Square => Box::new(Square {
                norm: self.norm,
                eps: self.eps,
                queries: self.queries.unwrap_or(5000),
                ..Square::default()
            }),
        }
    }

    /// The settings of one of the APGD attacks.
    pub fn apgd(&self, part: Part) -> Apgd {
        let is_sparse = self.version == Version::Standard && self.norm == Norm::L1;
        let is_random = self.version == Version::Rand;
        let (is_targeted, classes) = (part == Part::ApgdT, if is_sparse { 5 } else { 9 });
        let restarts = match self.version {
            Version::Rand => 1,
            _ if is_targeted => 1,
            Version::Standard if !is_sparse => 1,
            _ => 5,
        };
        Apgd {
            norm: self.norm,
            eps: self.eps,
            steps: self.steps.unwrap_or(100),
            restarts,
            loss: if part == Part::ApgdCe { Loss::Ce } else { Loss::Dlr },
            target_classes: if is_targeted { classes } else { 0 },
            largereps: is_sparse,
            keep: Keep::Found,
            early_exit: !is_random,
            eot: if is_random { 20 } else { 1 },
            bookkeeping: Bookkeeping::Last,
            ..Apgd::default()
        }
    }

    fn fab(&self, part: Part) -> Fab {
        let restarts = match self.version {
            Version::Custom => 5,
            _ if part == Part::Fab => 5,
            _ => 1,
        };
        Fab {
            norm: self.norm,
            eps: self.eps,
            steps: self.steps.unwrap_or(100),
            restarts,
            target_classes: if part == Part::FabT { 9 } else { 0 },
            // The flags are the same with and without: only the perturbations would get smaller.
            early_exit: true,
            ..Fab::default()
        }
    }
}

impl Attack for AutoAttack {
    fn run(&self, victim: &dyn Victim, batch: &Batch<'_>, seed: u64) -> Attacked {
        let Self { norm, eps, .. } = *self;
        let terms = Terms::ball(norm, eps, Keep::Found, None);
        let mut trial = Trial::begin(terms, victim, batch, seed);
        let count = batch.keys.len();
        let mut flags = match self.version {
            Version::Rand => Vec::new(),
            _ => warnings(victim, batch, trial.clean_logits()),
        };
        let mut broken_by = vec![None; count];
        let parts = self.parts();
        for &part in &parts {
            let open: Vec<usize> =
                trial.open().into_iter().filter(|&i| broken_by[i].is_none()).collect();
            if open.is_empty() {
                break;
            }
            let labels: Vec<usize> = open.iter().map(|&i| batch.labels[i]).collect();
            let keys: Vec<String> = open.iter().map(|&i| batch.keys[i].clone()).collect();
            let pixels = select(&batch.pixels, &open);
            let rest = Batch { pixels, labels: &labels, keys: &keys };
            let found = self.attack(part).run(victim, &rest, seed);
            for (i, &sample) in open.iter().enumerate() {
                if found.success[i] {
                    broken_by[sample] = Some(part.name());
                    trial.ledger.offer(sample, f32::INFINITY, || row(&found.pixels, i));
                }
            }
            let broken = found.success.iter().filter(|broken| **broken).count();
            flags.extend(found.flags.iter().cloned());
            trial.ledger.absorb(&open, found);
            if part == Part::Square && parts.len() > 2 {
                let share = |n: usize| n as f32 / count as f32;
                let (before, after) = (share(open.len()), share(open.len() - broken));
                if after < before - SQUARE_GAIN {
                    let threshold = SQUARE_GAIN;
                    flags.push(Flag::SquareImproves { before, after, threshold });
                }
            }
        }
        let mut attacked = trial.close();
        for (name, success) in broken_by.iter_mut().zip(&attacked.success) {
            *name = name.filter(|_| *success);
        }
        for flag in flags {
            if !attacked.flags.contains(&flag) {
                attacked.flags.push(flag);
            }
        }
        Attacked { broken_by, ..attacked }
    }

    fn spelling(&self) -> Spelling {
        self.spelled("autoattack")
    }
}

/// Robust accuracy that Square may take beyond the gradient attacks before masked gradients are
/// suspected.
const SQUARE_GAIN: f32 = 0.002;

/// Distance of normalised logits between two passes that makes a victim random.
const RANDOM: f32 = 1e-4;

/// Passes over the clean pictures that are compared.
const REPEATS: u64 = 5;

/// Slack in which logits are taken for probabilities.
const PROBABILITY: f32 = 1e-5;

/// The checks of the original program before a run, on the clean pictures.
fn warnings(victim: &dyn Victim, batch: &Batch<'_>, clean: &[f32]) -> Vec<Flag> {
    let classes = victim.classes();
    let near = |a: f32, b: f32| (a - b).abs() <= PROBABILITY;
    let is_distribution = |row: &[f32]| {
        row.iter().all(|z| (-PROBABILITY..1.0 + PROBABILITY).contains(z))
            && near(row.iter().sum(), 1.0)
    };
    let mut flags = Vec::new();
    if !clean.is_empty() && clean.chunks(classes).all(is_distribution) {
        flags.push(Flag::ProbabilitiesAsLogits);
    }
    flags.extend(victim.optimises().map(Flag::Dynamic));
    let answers: Vec<Vec<f32>> = (1..=REPEATS)
        .map(|draw| {
            let query = Query { pixels: batch.pixels.clone(), keys: batch.keys, draw };
            host(victim.logits(query))
        })
        .collect();
    let correct = |answer: &Vec<f32>| {
        let rows = answer.chunks(classes).zip(batch.labels);
        rows.filter(|(row, label)| argmax(row) == Some(**label)).count()
    };
    let counts: Vec<usize> = answers.iter().map(correct).collect();
    let mut difference = 0.0;
    for (i, one) in answers.iter().enumerate() {
        for other in &answers[i + 1..] {
            let rows = one.chunks(classes).zip(other.chunks(classes));
            difference = rows.map(|(a, b)| angle(a, b)).fold(difference, f32::max);
        }
    }
    if difference > RANDOM || counts.iter().any(|count| *count != counts[0]) {
        flags.push(Flag::RandomVictim { difference, threshold: RANDOM });
    }
    flags
}

/// Distance of two rows, each divided by its length.
fn angle(a: &[f32], b: &[f32]) -> f32 {
    let [one, other] = [a, b].map(|row| Norm::L2.length(row) + 1e-10);
    let gap = |(a, b): (&f32, &f32)| (f64::from(*a) / one - f64::from(*b) / other).powi(2);
    a.iter().zip(b).map(gap).sum::<f64>().sqrt() as f32
}
