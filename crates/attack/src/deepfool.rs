//! DeepFool (Moosavi-Dezfooli, Fawzi & Frossard 2016): step by step to the nearest linearised
//! boundary, and a little past it.

use clipguard_data::{
    parameters,
    spelling::{Parameters, Spelling, SpellingError},
};
use clipguard_model::victim::Victim;
use serde::{Deserialize, Serialize};

use crate::{
    Attack, Attacked, Batch, Keep, Norm, Terms,
    nearest::{Hunt, Row, plane, rows as rows_of, stack},
    tensors::retain_rows,
    trial::{Group, Trial},
};

/// Where the overshoot is put in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// All steps are summed, and the sum is lengthened: `x + (1 + overshoot) * sum` (foolbox). The
    /// paper's, and the smaller one.
    #[default]
    Sum,
    /// Each step is lengthened and moves the point (torchattacks).
    Move,
}

/// What keeps a division by zero away.
const TINY: f64 = 1e-8;

/// A summed step goes this much further, so that a step of length zero moves on.
const FURTHER: f64 = 1e-4;

parameters! {
    /// The nearest of the linearised boundaries, again and again until the picture errs; what lies
    /// within the radius counts.
    pub struct DeepFool {
        /// Norm that is made small: linf or l2.
        norm: Norm = Norm::L2,
        /// Radius of the budget in pixel units of [0, 1]; 0 changes nothing.
        eps: f32 = 0.5,
        /// Steps, at least 1; each takes a gradient for every candidate.
        steps: usize = 50,
        /// Classes between which boundaries are sought, the likeliest of the clean picture and the
        /// true one among them; at least 2.
        candidates: usize = 10,
        /// How far past the boundary, as a share of the way to it.
        overshoot: f32 = 0.02,
        /// Where the overshoot is put in: sum or move.
        variant: Variant = Variant::Sum,
    }
}

/// The step to a linearised boundary.
struct Way {
    distance: f64,
    step: Vec<f64>,
}

impl DeepFool {
    /// The attack a spelling such as `deepfool:norm=linf,eps=8/255` asks for.
    ///
    /// # Errors
    /// Unknown settings and values out of range.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        let fool: Self = spelling.read()?;
        spelling.demand([
            ("norm", fool.norm != Norm::L1, "this attack is made for linf and l2"),
            ("eps", fool.eps >= 0.0, "a radius is not negative"),
            ("steps", fool.steps > 0, "at least one step"),
            ("candidates", fool.candidates > 1, "at least two classes have a boundary"),
            ("overshoot", fool.overshoot >= 0.0, "a share is not negative"),
        ])?;
        Ok(fool)
    }

    /// Moves every row until it errs.
    fn search(&self, trial: &mut Trial<'_>, all: Group) {
        let hunt = Hunt::new(self.norm, self.eps);
        let rivals = self.candidates.min(trial.classes()).saturating_sub(1);
        let per_step = 1 + rivals;
        let (mut done, mut rows) = (vec![None; all.len()], rows_of(&all));
        let mut sums = vec![vec![0.0; rows.first().map_or(0, |row| row.point.len())]; rows.len()];
        let (mut group, mut places) = (all.clone(), (0..rows.len()).collect::<Vec<_>>());
        for step in 0..=self.steps {
            // Draw 0 of a random victim is left for judging.
            let draw = 1 + step * per_step;
            let leads = hunt.look(trial, &group, &mut rows, draw as u64);
            let going: Vec<usize> = (0..leads.len()).filter(|&i| leads[i].is_none()).collect();
            for (i, row) in rows.iter().enumerate().filter(|(i, _)| leads[*i].is_some()) {
                done[places[i]] = Some(row.clone());
            }
            if going.is_empty() || step == self.steps {
                break;
            }
            group.retain(&going);
            retain_rows(&mut rows, &going);
            retain_rows(&mut sums, &going);
            retain_rows(&mut places, &going);
            let ways = self.ways(trial, &group, &rows, rivals, draw);
            for ((row, sum), way) in rows.iter_mut().zip(&mut sums).zip(ways) {
                self.advance(row, sum, &way);
            }
        }
        let found: Vec<usize> = (0..done.len()).filter(|&i| done[i].is_some()).collect();
        if !found.is_empty() {
            let mut group = all;
            group.retain(&found);
            let mut rows: Vec<Row> = done.into_iter().flatten().collect();
            let draw = (1 + (self.steps + 1) * per_step) as u64;
            hunt.shrink(trial, group, &mut rows, draw);
        }
    }

    /// The way of each row to the nearest of the boundaries.
    fn ways(
        &self,
        trial: &mut Trial<'_>,
        group: &Group,
        rows: &[Row],
        rivals: usize,
        draw: usize,
    ) -> Vec<Way> {
        let points = stack(rows.iter(), &group.clean);
        let labels = group.aim().labels.to_vec();
        let mut nearest: Vec<Option<Way>> = rows.iter().map(|_| None).collect();
        for rank in 1..=rivals {
            let others = trial.rivals(group, rank);
            let plane = plane(trial, group, &points, [&others, &labels], (draw + rank) as u64);
            let width = (plane.normal.len() / rows.len().max(1)).max(1);
            let rows = plane.normal.chunks(width).zip(&plane.difference).zip(&mut nearest);
            for ((normal, difference), nearest) in rows {
                let length = self.norm.dual().length(normal);
                let distance = f64::from(difference.abs()) / (length + TINY);
                if nearest.as_ref().is_none_or(|way| distance < way.distance) {
                    *nearest = Some(Way { distance, step: self.direction(normal, length) });
                }
            }
        }
        let nowhere = || Way { distance: 0.0, step: Vec::new() };
        nearest.into_iter().map(|way| way.unwrap_or_else(nowhere)).collect()
    }

    /// The step of size 1 along which a linear function rises fastest.
    fn direction(&self, normal: &[f32], length: f64) -> Vec<f64> {
        let entry = |&w: &f32| match self.norm {
            Norm::Linf if w == 0.0 => 0.0,
            Norm::Linf => f64::from(w.signum()),
            _ => f64::from(w) / (length + TINY),
        };
        normal.iter().map(entry).collect()
    }

    /// A step past the boundary, back into the box.
    fn advance(&self, row: &mut Row, sum: &mut [f64], way: &Way) {
        let past = 1.0 + f64::from(self.overshoot);
        let moves = row.point.iter_mut().zip(&row.clean).zip(sum).zip(&way.step);
        for (((point, clean), sum), step) in moves {
            let moved = match self.variant {
                Variant::Sum => {
                    *sum += (way.distance + FURTHER) * step;
                    f64::from(*clean) + past * *sum
                }
                Variant::Move => f64::from(*point) + past * way.distance * step,
            };
            *point = moved.clamp(0.0, 1.0) as f32;
        }
    }
}

impl Attack for DeepFool {
    fn run(&self, victim: &dyn Victim, batch: &Batch<'_>, seed: u64) -> Attacked {
        let terms = Terms::ball(self.norm, self.eps, Keep::Best, None);
        let mut trial = Trial::begin(terms, victim, batch, seed);
        let open = trial.open();
        if !open.is_empty() && victim.classes() > 1 {
            let group = trial.group(open, None);
            self.search(&mut trial, group);
        }
        trial.close()
    }

    fn spelling(&self) -> Spelling {
        self.spelled("deepfool")
    }
}
