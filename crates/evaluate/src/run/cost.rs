//! What an attack or a check will cost, before it starts.
//!
//! It is run once on a tiny victim that nothing can break, which counts its forward and backward
//! passes on a sample that survives: the most it can take. Run on a victim that breaks at the first
//! change it takes what a sample takes that leaves at once. How many samples survive is seen in a
//! short descent on one batch; times the measured time of one pass that is what to expect.

use crate::checks::{Bench, CATALOGUE, PLANTED, Probe, Subject, inner_points};
use burn::tensor::{Device, Tensor, TensorData};
use clipguard_attack::{Attack, Batch, Budget, Loss, Norm, Pgd, parse};
use clipguard_model::{Query, Victim};
use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Instant,
};

/// Steps of the descent that shows how many samples survive.
const PILOT: usize = 10;

/// Passes over one sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Passes {
    /// Forward passes, those with a backward pass included.
    pub(crate) forwards: f64,
    /// Backward passes.
    pub(crate) backwards: f64,
}

impl Passes {
    /// The most passes `attack` takes over one sample of a victim with `classes` classes.
    pub(crate) fn of(attack: &dyn Attack, classes: usize) -> Self {
        Self::on(attack, &Dummy::new(classes, false))
    }

    /// The passes over a sample that the first change breaks.
    pub(crate) fn of_broken(attack: &dyn Attack, classes: usize) -> Self {
        Self::on(attack, &Dummy::new(classes, true))
    }

    fn on(attack: &dyn Attack, victim: &Dummy) -> Self {
        let keys = ["the most".to_owned()];
        let found = attack.run(victim, &Dummy::batch(&keys), 0);
        Self { forwards: found.forwards as f64, backwards: found.backwards as f64 }
    }

    /// The most passes of a check over one sample, of a victim whose features have `dimensions`, and
    /// those over one that the first change breaks.
    pub(crate) fn of_check(probe: &Probe, bench: &Bench<'_>, dimensions: usize) -> [Self; 2] {
        [false, true].map(|is_fragile| Self::checked(probe, bench, dimensions, is_fragile))
    }

    fn checked(probe: &Probe, bench: &Bench<'_>, dimensions: usize, is_fragile: bool) -> Self {
        if probe.id() == PLANTED.id() {
            return planted_passes(bench, dimensions);
        }
        let dummy = Dummy::new(bench.subject().classes(), is_fragile);
        let own = Bench {
            modes: bench.modes.iter().map(|(name, _)| (*name, &dummy as &dyn Subject)).collect(),
            bare: bench.bare.map(|_| &dummy as &dyn Subject),
            ..*bench
        };
        let keys = ["the most".to_owned()];
        let _ = probe.rows(&own, &Dummy::batch(&keys));
        let [all, tracked] = [&dummy.forwards, &dummy.tracked].map(|n| n.load(Relaxed) as f64);
        Self { forwards: all, backwards: tracked }
    }

    /// Seconds over `samples` samples.
    pub(crate) fn seconds(&self, samples: f64, pace: Pace) -> f64 {
        samples * (self.forwards * pace.forward + self.backwards * pace.backward)
    }
}

/// What a planted adversarial takes: points inside and by chance, and the plan's attacks on a victim
/// of two classes.
fn planted_passes(bench: &Bench<'_>, dimensions: usize) -> Passes {
    let points = (3 + 2 * inner_points(bench, dimensions)) as f64;
    let modes = bench.modes.len() as f64;
    let attacks = bench.attacks.iter().filter_map(|text| parse(text).ok());
    attacks.map(|attack| Passes::of(&*attack, 2)).fold(
        Passes { forwards: points, backwards: 0.0 },
        |sum, one| Passes {
            forwards: sum.forwards + modes * one.forwards,
            backwards: sum.backwards + modes * one.backwards,
        },
    )
}

/// Seconds of one pass over one picture.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pace {
    pub(crate) forward: f64,
    pub(crate) backward: f64,
}

impl Pace {
    /// Measured on one batch.
    pub(crate) fn of(victim: &dyn Victim, pixels: &Tensor<4>, keys: &[String]) -> Self {
        let count = keys.len().max(1) as f64;
        let started = Instant::now();
        let _ = victim.logits(Query { pixels: pixels.clone(), keys, draw: 0 }).into_data();
        let forward = started.elapsed().as_secs_f64() / count;
        let tracked = pixels.clone().autodiff().require_grad();
        let logits = victim.logits(Query { pixels: tracked.clone(), keys, draw: 0 });
        let gradient = tracked.grad_remove(&mut logits.sum().backward());
        let _ = gradient.map(|gradient| gradient.into_data());
        let both = started.elapsed().as_secs_f64() / count;
        Self { forward, backward: (both - 2.0 * forward).max(forward) }
    }
}

/// Of the samples of a batch, how many are right, and how many of them stay so in a short descent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Survivors {
    pub(crate) samples: usize,
    pub(crate) right: usize,
    pub(crate) alive: usize,
}

impl Survivors {
    /// Seen with [`PILOT`] steps inside the budget; for a patch all that are right count as alive.
    pub(crate) fn of(victim: &dyn Victim, batch: &Batch<'_>, budget: Budget, seed: u64) -> Self {
        let eps = match budget {
            Budget::Ball { eps, .. } if eps.is_finite() => eps,
            _ => 0.0,
        };
        let norm = match budget {
            Budget::Ball { norm, .. } => norm,
            Budget::Patch { .. } => Norm::Linf,
        };
        let pilot = Pgd { norm, eps, steps: PILOT, loss: Loss::Margin, ..Pgd::default() };
        let found = pilot.run(victim, batch, seed);
        let right = found.correct.iter().filter(|correct| **correct).count();
        let alive = found.success.iter().filter(|success| !**success).count();
        Self { samples: found.correct.len(), right, alive }
    }

    /// Seconds to expect over `samples` samples, from what those that survive and those that break
    /// at once take; the others are not attacked.
    pub(crate) fn seconds(&self, [most, least]: [Passes; 2], samples: usize, pace: Pace) -> f64 {
        let scale = samples as f64 / self.samples.max(1) as f64;
        let broken = (self.right - self.alive.min(self.right)) as f64;
        scale * (most.seconds(self.alive as f64, pace) + least.seconds(broken, pace))
    }
}

/// Seconds that all checks take: what to expect if all pictures are like those of the first batch,
/// and at most. Each looks at its own number of pictures.
pub fn of_checks(bench: &Bench<'_>, batch: &Batch<'_>) -> [f64; 2] {
    let given = batch.labels.len();
    let count = bench.effort.batch.max(1).min(given);
    if count == 0 {
        return [0.0; 2];
    }
    let (pixels, keys) = (batch.pixels.clone().narrow(0, 0, count), &batch.keys[..count]);
    let pace = Pace::of(bench.subject(), &pixels, keys);
    let dimensions = dimensions(bench.subject(), &pixels, keys);
    let first = Batch { pixels, labels: &batch.labels[..count], keys };
    let budget = Budget::Ball { norm: bench.norm, eps: bench.eps };
    let survivors = Survivors::of(bench.subject(), &first, budget, bench.seed);
    let mut sum = [0.0; 2];
    for probe in CATALOGUE {
        let (samples, passes) = (probe.samples(given), Passes::of_check(probe, bench, dimensions));
        sum[0] += survivors.seconds(passes, samples, pace);
        sum[1] += passes[0].seconds(samples as f64, pace);
    }
    sum
}

/// Length of what the head of a victim gets; 0 where it cannot be taken off.
pub(crate) fn dimensions(subject: &dyn Subject, pixels: &Tensor<4>, keys: &[String]) -> usize {
    let query = Query { pixels: pixels.clone().narrow(0, 0, 1), keys: &keys[..1], draw: 0 };
    subject.features(query).map_or(0, |features| features.dims()[1])
}

/// A victim that costs nothing: class 0 leads by far, the others rise a little with the pixels, so
/// that gradients exist.
struct Dummy {
    classes: usize,
    /// Whether every changed picture is an error.
    is_fragile: bool,
    forwards: AtomicUsize,
    tracked: AtomicUsize,
}

/// Every entry of the clean picture.
const GREY: f32 = 0.5;

impl Dummy {
    fn new(classes: usize, is_fragile: bool) -> Self {
        let classes = classes.max(2);
        let (forwards, tracked) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { classes, is_fragile, forwards, tracked }
    }

    fn batch(keys: &[String]) -> Batch<'_> {
        let pixels = Tensor::full([1, 3, 8, 8], GREY, &Device::flex());
        Batch { pixels, labels: &[0], keys }
    }

    fn count(&self, pixels: &Tensor<4>) {
        let rows = pixels.dims()[0];
        self.forwards.fetch_add(rows, Relaxed);
        if pixels.is_tracked() {
            self.tracked.fetch_add(rows, Relaxed);
        }
    }

    /// What the first class loses where a picture is changed.
    fn penalty(&self, pixels: &Tensor<4>) -> Tensor<2> {
        let [rows, channels, height, width] = pixels.dims();
        let numbers = crate::checks::values(pixels.clone());
        let is_changed = |row: &[f32]| self.is_fragile && row.iter().any(|v| *v != GREY);
        let of = |row: &[f32]| if is_changed(row) { 10.0f32 } else { 0.0 };
        let penalties: Vec<f32> = numbers.chunks(channels * height * width).map(of).collect();
        Tensor::from_data(TensorData::new(penalties, [rows, 1]), &pixels.device())
    }
}

impl Victim for Dummy {
    fn classes(&self) -> usize {
        self.classes
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        self.count(&query.pixels);
        let penalty = self.penalty(&query.pixels);
        let mean = query.pixels.flatten::<2>(1, 3).mean_dim(1);
        let parts = (0..self.classes).map(|class| match class {
            0 => mean.clone() * -0.01 + 5.0 - penalty.clone(),
            class => mean.clone() * (0.01 * class as f32),
        });
        Tensor::cat(parts.collect(), 1)
    }
}

impl Subject for Dummy {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Effort;
    use clipguard_attack::CATALOGUE as ATTACKS;

    #[test]
    fn passes_are_those_of_a_sample_that_survives() {
        let of = |text: &str| Passes::of(&*parse(text).unwrap(), 10);
        // The clean picture, 21 points, and the judge; no gradient at the last point.
        assert_eq!(of("pgd:steps=20"), Passes { forwards: 23.0, backwards: 20.0 });
        assert_eq!(of("pgd:steps=20,restarts=2").backwards, 40.0);
        for method in ATTACKS {
            assert!(of(method.name).forwards > 0.0, "{}", method.name);
        }
    }

    #[test]
    fn a_broken_sample_leaves_an_ensemble_at_once_and_the_expectation_knows_it() {
        let attack = parse("autoattack").unwrap();
        let both = [Passes::of(&*attack, 10), Passes::of_broken(&*attack, 10)];
        let [most, least] = both;
        // AutoAttack: 101 + 9 * 101 points of APGD, 9 * 100 gradients of FAB, 5000 queries.
        assert!(most.forwards > 7000.0 && most.backwards > 1800.0, "{most:?}");
        assert!(least.forwards < 20.0, "{least:?}");
        let pace = Pace { forward: 1.0, backward: 2.0 };
        let seen = Survivors { samples: 10, right: 8, alive: 3 };
        let expected = seen.seconds(both, 20, pace);
        let full = most.seconds(20.0, pace);
        assert!(expected < 0.31 * full && expected > 0.29 * full, "{expected} of {full}");
        let none = Survivors { alive: 0, ..seen }.seconds(both, 20, pace);
        assert!(none > 0.0 && none < 0.01 * full, "{none}");
    }

    #[test]
    fn every_check_has_a_cost_that_is_no_less_than_it_takes() {
        let attacks = ["pgd:eps=0.1,steps=7".to_owned()];
        let real = Dummy::new(4, false);
        let bench = Bench {
            modes: vec![("exact", &real)],
            bare: None,
            norm: Norm::Linf,
            eps: 0.1,
            attacks: &attacks,
            seed: 0,
            random: false,
            effort: Effort { points: 30, ..Effort::default() },
        };
        let of = |id: &str| {
            let probe = CATALOGUE.iter().find(|probe| probe.id() == id).unwrap();
            Passes::of_check(probe, &bench, 12)[0]
        };
        for probe in CATALOGUE {
            assert!(of(probe.id()).forwards >= 1.0, "{}", probe.id());
        }
        // Nothing breaks this victim, so what is expected is the most.
        let keys = ["a".to_owned(), "b".to_owned()];
        let pixels = Dummy::batch(&keys[..1]).pixels.repeat_dim(0, 2);
        let two = Batch { pixels, labels: &[0, 0], keys: &keys };
        let [likely, most] = of_checks(&bench, &two);
        assert!(most > 0.0 && (likely - most).abs() < 1e-9 * most, "{likely} {most}");
        let queries = CATALOGUE.iter().find(|probe| probe.id() == "O2").unwrap();
        let broken = Passes::of_check(queries, &bench, 12)[1];
        assert!(broken.forwards < 20.0, "a broken picture is not asked about: {broken:?}");
        // The picture and what is planted, two hundred inner points and as many by chance, the
        // clean logits, and the plan's attack on the readout: two judgements and eight points.
        assert_eq!(of("O14"), Passes { forwards: 403.0 + 10.0, backwards: 7.0 });
        assert!(of("O2").forwards >= 5000.0);
        assert!(of("O6").backwards >= 480.0);
    }
}
