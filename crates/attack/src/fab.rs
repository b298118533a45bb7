//! The fast adaptive boundary attack: the smallest perturbation that errs (Croce & Hein 2020a).

pub mod hyperplane;

use clipguard_data::{
    Stream, parameters,
    spelling::{Parameters, Spelling, SpellingError},
};
use clipguard_model::victim::Victim;

use crate::{
    Attack, Attacked, Batch, Flag, Keep, Norm, Target, Terms,
    nearest::{Hunt, Plane, Row, plane, rows as rows_of, stack},
    start::direction,
    tensors::retain_rows,
    trial::{Group, Trial},
};
use hyperplane::step as to_plane;

parameters! {
    /// Steps to the linearised decision boundary, drawn towards the clean picture, and back inside
    /// once past it; what lies within the radius counts.
    pub struct Fab {
        /// Norm that is made small: linf, l2 or l1.
        norm: Norm = Norm::Linf,
        /// Radius of the budget in pixel units of [0, 1], such as 8/255; 0 changes nothing.
        eps: f32 = 8.0 / 255.0,
        /// Steps in a restart, at least 1.
        steps: usize = 100,
        /// Independent searches, at least 1; the first begins at the clean picture.
        restarts: usize = 1,
        /// Wrong classes whose boundary is sought in turn, the likeliest first, at one gradient a
        /// step (FAB-T); 0: the nearest of all boundaries, at one gradient a class and step.
        target_classes: usize = 9,
        /// Largest weight of the clean picture, in [0, 1].
        alpha_max: f32 = 0.1,
        /// How far a step goes past the boundary, at least 1.
        eta: f32 = 1.05,
        /// Share of the perturbation that is kept when a point errs, in [0, 1].
        beta: f32 = 0.9,
        /// Whether a sample stops at the first error inside the budget, not at the smallest.
        early_exit: bool = false,
    }
}

impl Fab {
    /// The attack a spelling such as `fab:norm=l2,eps=0.5` asks for.
    ///
    /// # Errors
    /// Unknown settings and values out of range.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        let fab: Self = spelling.read()?;
        let share = 0.0..=1.0;
        spelling.demand([
            ("eps", fab.eps >= 0.0, "a radius is not negative"),
            ("steps", fab.steps > 0, "at least one step"),
            ("restarts", fab.restarts > 0, "at least one"),
            ("alpha-max", share.contains(&fab.alpha_max), "a weight lies in [0, 1]"),
            ("eta", fab.eta >= 1.0, "at least 1"),
            ("beta", share.contains(&fab.beta), "a share lies in [0, 1]"),
        ])?;
        Ok(fab)
    }

    /// One restart for one class, or for all.
    fn search(&self, trial: &mut Trial<'_>, mut group: Group, round: usize, seed: u64) {
        let mut rows = rows_of(&group);
        if !round.is_multiple_of(self.restarts) {
            let purpose = format!("attack-start/fab/{round}");
            for (row, key) in rows.iter_mut().zip(&group.keys) {
                let mut stream = Stream::keyed(seed, &purpose, key);
                let offset = direction(self.norm, row.point.len(), &mut stream);
                let move_by =
                    |(p, o): (&mut f32, f32)| *p = (*p + 0.5 * self.eps * o).clamp(0.0, 1.0);
                row.point.iter_mut().zip(offset).for_each(move_by);
            }
        }
        let hunt = Hunt::new(self.norm, self.eps);
        let width = rows.first().map_or(1, |row| row.point.len());
        for step in 0..self.steps {
            // Draw 0 of a random victim is left for judging.
            let draw = (1 + 3 * (round * self.steps + step)) as u64;
            let plane = self.linearise(trial, &group, &rows, draw);
            let planes = plane.normal.chunks(width).zip(&plane.difference);
            for (row, (normal, difference)) in rows.iter_mut().zip(planes) {
                self.advance(row, normal, f64::from(*difference));
            }
            let leads = hunt.look(trial, &group, &mut rows, draw + 1);
            for (row, _) in rows.iter_mut().zip(leads).filter(|(_, lead)| lead.is_some()) {
                let back = |(p, c): (&mut f32, &f32)| *p = c + self.beta * (*p - c);
                row.point.iter_mut().zip(&row.clean).for_each(back);
            }
            if self.early_exit {
                let open = trial.open_rows(&group);
                if open.is_empty() {
                    return;
                }
                retain_rows(&mut rows, &open);
                group.retain(&open);
            }
        }
        let draw = (3 + 3 * (round * self.steps + self.steps)) as u64;
        hunt.shrink(trial, group, &mut rows, draw);
    }

    /// The plane towards the class that each row is steered to, or towards the nearest one.
    fn linearise(&self, trial: &mut Trial<'_>, group: &Group, rows: &[Row], draw: u64) -> Plane {
        let points = stack(rows.iter(), &group.clean);
        let labels = group.aim().labels.to_vec();
        if let Some(targets) = group.aim().targets {
            return plane(trial, group, &points, [targets, &labels], draw);
        }
        let width = rows.first().map_or(1, |row| row.point.len());
        let (mut best, mut least) = (None::<Plane>, vec![f64::INFINITY; rows.len()]);
        for other in 0..trial.classes().saturating_sub(1) {
            let classes: Vec<usize> =
                labels.iter().map(|&y| other + usize::from(other >= y)).collect();
            let found = plane(trial, group, &points, [&classes, &labels], draw);
            let best = best.get_or_insert_with(|| Plane {
                normal: vec![0.0; found.normal.len()],
                difference: vec![0.0; rows.len()],
            });
            for (i, normal) in found.normal.chunks(width).enumerate() {
                let difference = found.difference[i];
                let slope = self.norm.dual().length(normal);
                let distance = f64::from(difference.abs()) / (1e-12 + slope);
                if distance < least[i] {
                    least[i] = distance;
                    best.normal[i * width..(i + 1) * width].copy_from_slice(normal);
                    best.difference[i] = difference;
                }
            }
        }
        best.unwrap_or(Plane { normal: Vec::new(), difference: Vec::new() })
    }

    /// A step past the plane from the point, mixed with one from the clean picture.
    fn advance(&self, row: &mut Row, normal: &[f32], difference: f64) {
        let Row { clean, point, .. } = row;
        let between = clean.iter().zip(point.iter()).zip(normal);
        let along: f64 =
            between.map(|((c, p), w)| (f64::from(*c) - f64::from(*p)) * f64::from(*w)).sum();
        let here = to_plane(self.norm, point, normal, difference);
        let there = to_plane(self.norm, clean, normal, difference + along);
        let [near, far] = [&here, &there].map(|step| self.norm.length(step).max(1e-8));
        let alpha = ((near / (near + far)) as f32).clamp(0.0, self.alpha_max);
        for (i, p) in point.iter_mut().enumerate() {
            let (own, anchor) = (*p + self.eta * here[i], clean[i] + self.eta * there[i]);
            *p = (own * (1.0 - alpha) + anchor * alpha).clamp(0.0, 1.0);
        }
    }
}

impl Attack for Fab {
    fn run(&self, victim: &dyn Victim, batch: &Batch<'_>, seed: u64) -> Attacked {
        let Self { norm, eps, .. } = *self;
        let terms = Terms::ball(norm, eps, Keep::Best, None);
        let mut trial = Trial::begin(terms, victim, batch, seed);
        let possible = victim.classes().saturating_sub(1);
        let tried = self.target_classes.min(possible);
        for round in 0..tried.max(1) * self.restarts {
            let open = trial.open();
            if open.is_empty() || possible == 0 {
                break;
            }
            let rank = round / self.restarts + 1;
            let group = trial.group(open, (tried > 0).then_some(Target::Ranked(rank)));
            self.search(&mut trial, group, round, seed);
        }
        let mut attacked = trial.close();
        if tried < self.target_classes {
            let wanted = self.target_classes;
            attacked.flags.push(Flag::FewerTargets { wanted, possible });
        }
        attacked
    }

    fn spelling(&self) -> Spelling {
        self.spelled("fab")
    }
}
