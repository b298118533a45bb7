//! How long the units of a stage will take, said before they start.

use crate::{
    EvaluateError,
    run::cost::{self, Pace, Passes, Survivors},
    run::progress::Follow,
    run::schedule::{Kind, Task, Work, budget},
    run::units::Stage,
};
use clipguard_attack::{Batch, parse};
use std::collections::BTreeMap;

/// Seconds to expect of every attack, proof and check that is not finished, from the time of one batch and
/// from how many of its pictures survive a short descent.
pub(crate) fn expected(
    stage: &Stage<'_>,
    works: &[Work<'_>],
    follow: &mut dyn Follow,
) -> Result<BTreeMap<String, f64>, EvaluateError> {
    let mut open: Vec<&Task> = Vec::new();
    for task in works.iter().flat_map(|work| work.tasks()).map(|(_, task)| task) {
        let costs = matches!(task.kind, Kind::Attack | Kind::Certify { .. } | Kind::Check { .. });
        if costs && !stage.is_complete(task)? {
            open.push(task);
        }
    }
    let Some(estimate) = Estimate::new(stage, &open)? else { return Ok(BTreeMap::new()) };
    let (mut expected, mut most) = (BTreeMap::new(), BTreeMap::new());
    let mut known = BTreeMap::new();
    for task in &open {
        let id = task.id(&stage.head, stage.plan.seed);
        let (likely, at_most) = estimate.seconds(stage, task, &mut known)?;
        expected.insert(id.clone(), likely);
        most.insert(id, at_most);
    }
    let sum = |seconds: &BTreeMap<String, f64>| crate::report::duration(seconds.values().sum());
    let count = |what: fn(&Kind) -> bool| open.iter().filter(|task| what(&task.kind)).count();
    let parts = [
        ("attacks", count(|kind| matches!(kind, Kind::Attack))),
        ("proofs", count(|kind| matches!(kind, Kind::Certify { .. }))),
        ("checks", count(|kind| matches!(kind, Kind::Check { .. }))),
    ];
    let parts = parts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}"));
    follow.note(&format!(
        "{}: {} on {} pictures, at most {}; about {} if all are like the first {}, of which {} \
         survive a short descent",
        stage.head.dataset,
        parts.collect::<Vec<_>>().join(", "),
        stage.head.samples.len(),
        sum(&most),
        sum(&expected),
        estimate.survivors.samples,
        estimate.survivors.alive,
    ));
    Ok(expected)
}

/// What one batch showed.
struct Estimate {
    pace: Pace,
    survivors: Survivors,
    dimensions: usize,
}

impl Estimate {
    /// `None` where nothing costs anything.
    fn new(stage: &Stage<'_>, open: &[&Task]) -> Result<Option<Self>, EvaluateError> {
        let attack = open.iter().find_map(|task| match &task.kind {
            Kind::Check { attacks, .. } => attacks.first(),
            Kind::Attack => Some(&task.attack),
            _ => None,
        });
        let count = stage.plan.batch.min(stage.subset.len());
        if open.is_empty() || count == 0 {
            return Ok(None);
        }
        let victim = stage.classifier.defended(&[], None)?;
        let (pixels, keys) = (stage.subset.part(0..count), &stage.subset.keys[..count]);
        let pace = Pace::of(&victim, &pixels, keys);
        let dimensions = cost::dimensions(&victim, &pixels, keys);
        let batch = Batch { pixels, labels: &stage.subset.labels[..count], keys };
        let survivors = match attack {
            Some(attack) => Survivors::of(&victim, &batch, budget(attack)?, stage.plan.seed),
            None => Survivors { samples: count, right: count, alive: count },
        };
        Ok(Some(Self { pace, survivors, dimensions }))
    }

    /// Seconds to expect of a unit, and the most it can take; attacks that are `known` are not
    /// counted again.
    fn seconds<'t>(
        &self,
        stage: &Stage<'_>,
        task: &'t Task,
        known: &mut BTreeMap<&'t str, [Passes; 2]>,
    ) -> Result<(f64, f64), EvaluateError> {
        let (classes, samples) = (stage.head.classes.len(), task.count(&stage.head, stage.plan));
        let passes = match (&task.kind, known.get(task.attack.as_str())) {
            (Kind::Check { .. }, _) => stage.check_passes(task, self.dimensions)?,
            (Kind::Certify { of }, _) => {
                let forwards = (of.n0 + of.n) as f64;
                [Passes { forwards, backwards: 0.0 }; 2]
            }
            (_, Some(passes)) => *passes,
            (_, None) => {
                let attack = parse(&task.attack)?;
                let passes = [Passes::of(&*attack, classes), Passes::of_broken(&*attack, classes)];
                known.insert(&task.attack, passes);
                passes
            }
        };
        let likely = self.survivors.seconds(passes, samples, self.pace);
        Ok((likely, passes[0].seconds(samples as f64, self.pace)))
    }
}
