//! The fast adaptive boundary attack: the smallest perturbation that errs (Croce & Hein 2020a).

pub mod hyperplane;

use burn::tensor::Tensor;
use clipguard_data::{
    Stream, parameters,
    spelling::{Parameters, Spelling, SpellingError},
};
use clipguard_model::victim::Victim;

use crate::{
    Attack, Attacked, Batch, Flag, Keep, Norm, Target, Terms,
    ledger::Seen,
    loss::pick,
    norm::RELATIVE,
    start::direction,
    tensors::{argmax, batch_of, host, retain_rows, row as one},
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

/// The state of one row of a search.
struct Row {
    clean: Vec<f32>,
    point: Vec<f32>,
    /// The smallest error found, and its size.
    nearest: Option<(f64, Vec<f32>)>,
}

/// A linear model of the difference of two logits at the points, row by row.
struct Plane {
    normal: Vec<f32>,
    /// Logit of the other class less that of the true one.
    difference: Vec<f32>,
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
        let clean = host(group.clean.clone());
        let start = |(i, clean): (usize, &[f32])| {
            let mut point = clean.to_vec();
            if !round.is_multiple_of(self.restarts) {
                let purpose = format!("attack-start/fab/{round}");
                let mut stream = Stream::keyed(seed, &purpose, &group.keys[i]);
                let offset = direction(self.norm, point.len(), &mut stream);
                let move_by =
                    |(p, o): (&mut f32, f32)| *p = (*p + 0.5 * self.eps * o).clamp(0.0, 1.0);
                point.iter_mut().zip(offset).for_each(move_by);
            }
            Row { clean: clean.to_vec(), point, nearest: None }
        };
        let width = clean.len() / group.len();
        let mut rows: Vec<Row> = clean.chunks(width).enumerate().map(start).collect();
        for step in 0..self.steps {
            // Draw 0 of a random victim is left for judging.
            let draw = (1 + 3 * (round * self.steps + step)) as u64;
            let plane = self.linearise(trial, &group, &rows, draw);
            let planes = plane.normal.chunks(width).zip(&plane.difference);
            for (row, (normal, difference)) in rows.iter_mut().zip(planes) {
                self.advance(row, normal, f64::from(*difference));
            }
            self.look(trial, &group, &mut rows, draw + 1, false);
            if self.early_exit {
                let open = trial.open_rows(&group);
                if open.is_empty() {
                    return;
                }
                retain_rows(&mut rows, &open);
                group.retain(&open);
            }
        }
        self.shrink(trial, group, rows, (3 + 3 * (round * self.steps + self.steps)) as u64);
    }

    /// The plane towards the class that each row is steered to, or towards the nearest one.
    fn linearise(&self, trial: &mut Trial<'_>, group: &Group, rows: &[Row], draw: u64) -> Plane {
        let points = stack(rows, &group.clean);
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

    /// Classifies the points, remembers small errors and draws those rows back.
    ///
    /// A shrunk error is no reason to stop: another class may have a smaller one.
    fn look(
        &self,
        trial: &mut Trial<'_>,
        group: &Group,
        rows: &mut [Row],
        draw: u64,
        is_shrunk: bool,
    ) {
        let points = stack(rows, &group.clean);
        let leads = self.query(trial, group, &points, draw);
        for (i, (row, lead)) in rows.iter_mut().zip(leads).enumerate() {
            let Some(lead) = lead else { continue };
            let lead = if is_shrunk { 0.0 } else { lead };
            let size = self.norm.distance(&row.clean, &row.point);
            if row.nearest.as_ref().is_none_or(|(least, _)| size < *least) {
                if Norm::within(size, self.eps) {
                    let picture = || one(&points, i);
                    trial.ledger.credit(group.samples[i], lead, -size as f32, picture);
                }
                row.nearest = Some((size, row.point.clone()));
            }
            let back = |(p, c): (&mut f32, &f32)| *p = c + self.beta * (*p - c);
            row.point.iter_mut().zip(&row.clean).for_each(back);
        }
    }

    /// By how much each point is past the boundary; `None` where it is not.
    fn query(
        &self,
        trial: &mut Trial<'_>,
        group: &Group,
        points: &Tensor<4>,
        draw: u64,
    ) -> Vec<Option<f32>> {
        let logits = host(trial.logits(group, points.clone(), draw));
        let (aim, classes) = (group.aim(), trial.classes());
        let rows = || logits.chunks(classes).enumerate();
        let loss: Vec<f32> = rows().map(|(i, logits)| aim.lead(i, logits)).collect();
        let errs = |(i, logits): (usize, &[f32])| {
            argmax(logits).is_some_and(|class| aim.is_met(i, class)).then_some(loss[i])
        };
        let found = rows().map(errs).collect();
        let seen = Seen { points, logits: &logits, loss: &loss, counts: false, is_last: false };
        trial.book(group, &seen);
        found
    }

    /// Errors that are over the budget are tried once more on its surface: the original rejects
    /// a perturbation that is too large by rounding.
    fn shrink(&self, trial: &mut Trial<'_>, mut group: Group, mut rows: Vec<Row>, draw: u64) {
        let is_over = |row: &Row| {
            row.nearest.as_ref().is_some_and(|(size, _)| !Norm::within(*size, self.eps))
        };
        let over: Vec<usize> = (0..rows.len()).filter(|&i| is_over(&rows[i])).collect();
        if over.is_empty() {
            return;
        }
        retain_rows(&mut rows, &over);
        group.retain(&over);
        for row in &mut rows {
            if let Some((size, nearest)) = row.nearest.take() {
                let factor = (f64::from(self.eps) / size * (1.0 - RELATIVE)) as f32;
                let shrunk = |(c, p): (&f32, f32)| (c + (p - c) * factor).clamp(0.0, 1.0);
                row.point = row.clean.iter().zip(nearest).map(shrunk).collect();
            }
        }
        self.look(trial, &group, &mut rows, draw, true);
    }
}

impl Attack for Fab {
    fn run(&self, victim: &dyn Victim, batch: &Batch<'_>, seed: u64) -> Attacked {
        let Self { norm, eps, .. } = *self;
        let terms = Terms { norm, eps, keep: Keep::Best, everyone: false, target: None };
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

/// Logit of class `first` less that of class `second` in each row, and its gradient.
fn plane(
    trial: &mut Trial<'_>,
    group: &Group,
    points: &Tensor<4>,
    [first, second]: [&[usize]; 2],
    draw: u64,
) -> Plane {
    let pixels = points.clone().autodiff().require_grad();
    let logits = trial.logits(group, pixels.clone(), draw);
    let difference = pick(&logits, first) - pick(&logits, second);
    let numbers = host(difference.clone());
    Plane { normal: host(trial.gradient(difference, &pixels)), difference: numbers }
}

fn stack(rows: &[Row], like: &Tensor<4>) -> Tensor<4> {
    let numbers = rows.iter().flat_map(|row| row.point.iter().copied()).collect();
    batch_of(numbers, like)
}
