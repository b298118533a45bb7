//! Square: random search by queries, without gradients (Andriushchenko et al. 2020).

mod moves;
pub mod pattern;

use burn::tensor::Tensor;
use clipguard_data::{
    Stream, parameters,
    spelling::{Parameters, Spelling, SpellingError},
};
use clipguard_model::victim::Victim;

use crate::{
    Attack, Attacked, Batch, Keep, Norm, Target, Terms,
    ledger::Seen,
    tensors::{batch_of, host, retain_rows},
    trial::{Group, Trial},
};
use moves::Shape;

/// Where the uniform draws of a run come from.
pub trait Draws {
    /// `common + own` draws in `[0, 1)` for each of `rows`, counted from the start of a restart.
    ///
    /// The original program draws the first `common` of them once for all rows, which makes its
    /// results depend on the batch.
    fn draw(&mut self, rows: &[usize], common: usize, own: usize) -> Vec<Vec<f32>>;
}

/// A stream a row.
struct Keyed(Vec<Stream>);

impl Draws for Keyed {
    fn draw(&mut self, rows: &[usize], common: usize, own: usize) -> Vec<Vec<f32>> {
        let draw = |&row: &usize| (0..common + own).map(|_| self.0[row].uniform()).collect();
        rows.iter().map(draw).collect()
    }
}

/// The draws of one restart over pictures with these keys.
pub type Opening<'a> = dyn FnMut(&[String], usize) -> Box<dyn Draws> + 'a;

parameters! {
    /// Random changes inside square windows, kept where they lower the margin.
    pub struct Square {
        /// Norm of the budget: linf, l2 or l1.
        norm: Norm = Norm::Linf,
        /// Radius of the budget in pixel units of [0, 1], such as 8/255; 0 changes nothing.
        eps: f32 = 8.0 / 255.0,
        /// Changes tried in a restart, at least 1; the start is one query more.
        queries: usize = 5000,
        /// Independent searches, at least 1.
        restarts: usize = 1,
        /// Share of the pixels in the first windows, in (0, 1].
        p_init: f32 = 0.8,
        /// Whether the windows shrink over the queries at hand, not over 10000 as in AutoAttack.
        rescale: bool = false,
        /// Class to reach: none, next, likely, likely-2, least, random or the number of a class.
        target: Option<Target> = None,
    }
}

/// The state of one row of a search.
struct Row {
    /// Its place at the start of the restart.
    place: usize,
    clean: Vec<f32>,
    best: Vec<f32>,
    lead: f32,
}

impl Square {
    /// The attack a spelling such as `square:norm=l2,eps=0.5` asks for.
    ///
    /// # Errors
    /// Unknown settings and values out of range.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        let square: Self = spelling.read()?;
        spelling.demand([
            ("eps", square.eps >= 0.0, "a radius is not negative"),
            ("queries", square.queries > 0, "at least one query"),
            ("restarts", square.restarts > 0, "at least one"),
            ("p-init", square.p_init > 0.0 && square.p_init <= 1.0, "a share lies in (0, 1]"),
        ])?;
        Ok(square)
    }

    /// [`Attack::run`] with draws of the caller's choice.
    pub fn run_with(
        &self,
        opening: &mut Opening<'_>,
        victim: &dyn Victim,
        batch: &Batch<'_>,
        seed: u64,
    ) -> Attacked {
        let Self { norm, eps, target, .. } = *self;
        let terms = Terms::ball(norm, eps, Keep::Best, target);
        let mut trial = Trial::begin(terms, victim, batch, seed);
        for restart in 0..self.restarts {
            let open = trial.open();
            if open.is_empty() {
                break;
            }
            let group = trial.group(open, None);
            let mut draws = opening(&group.keys, restart);
            self.search(&mut trial, group, &mut *draws, restart);
        }
        trial.close()
    }

    fn search(
        &self,
        trial: &mut Trial<'_>,
        mut group: Group,
        draws: &mut dyn Draws,
        restart: usize,
    ) {
        let [_, channels, height, width] = group.clean.dims();
        let shape = Shape { channels, height, width };
        let numbers = host(group.clean.clone());
        let clean: Vec<Vec<f32>> =
            numbers.chunks(numbers.len() / group.len()).map(<[f32]>::to_vec).collect();
        let starts = moves::start(self.norm, self.eps, shape, &clean, draws);
        let leads = self.query(trial, &group, &starts, restart * (self.queries + 1));
        let row = |(place, ((clean, best), lead))| Row { place, clean, best, lead };
        let mut rows: Vec<Row> =
            clean.into_iter().zip(starts).zip(leads).enumerate().map(row).collect();
        for iteration in 0..self.queries {
            let open = trial.open_rows(&group);
            if open.is_empty() {
                return;
            }
            if open.len() < group.len() {
                retain_rows(&mut rows, &open);
                group.retain(&open);
            }
            let share = pattern::share(self.p_init, iteration, self.queries, self.rescale);
            let side = pattern::side(self.norm, share, height, width);
            let candidates = self.candidates(shape, side, &rows, draws);
            let count = restart * (self.queries + 1) + iteration + 1;
            let leads = self.query(trial, &group, &candidates, count);
            for ((row, candidate), lead) in rows.iter_mut().zip(candidates).zip(leads) {
                if lead > row.lead {
                    (row.best, row.lead) = (candidate, lead);
                }
            }
        }
    }

    fn candidates(
        &self,
        shape: Shape,
        side: usize,
        rows: &[Row],
        draws: &mut dyn Draws,
    ) -> Vec<Vec<f32>> {
        let places: Vec<usize> = rows.iter().map(|row| row.place).collect();
        let drawn = match self.norm {
            Norm::Linf => draws.draw(&places, 2 + shape.channels, 0),
            _ => draws.draw(&places, 5, shape.channels),
        };
        let change = |(row, drawn): (&Row, Vec<f32>)| {
            let pictures = [&row.clean[..], &row.best];
            match self.norm {
                Norm::Linf => moves::stamp(self.eps, shape, side, pictures, &drawn),
                norm => moves::transfer(norm, self.eps, shape, side, pictures, &drawn),
            }
        };
        rows.iter().zip(drawn).map(change).collect()
    }

    /// By how much each picture is past the decision boundary.
    fn query(
        &self,
        trial: &mut Trial<'_>,
        group: &Group,
        pictures: &[Vec<f32>],
        count: usize,
    ) -> Vec<f32> {
        let points: Tensor<4> = batch_of(pictures.concat(), &group.clean);
        // Draw 0 of a random victim is left for judging.
        let logits = host(trial.logits(group, points.clone(), 1 + count as u64));
        let aim = group.aim();
        let rows = logits.chunks(trial.classes()).enumerate();
        let leads: Vec<f32> = rows.map(|(i, logits)| aim.lead(i, logits)).collect();
        let (points, loss) = (&points, &leads[..]);
        let is_last = false;
        trial.book(group, &Seen { points, logits: &logits, loss, counts: true, is_last });
        leads
    }
}

impl Attack for Square {
    fn run(&self, victim: &dyn Victim, batch: &Batch<'_>, seed: u64) -> Attacked {
        let mut opening = |keys: &[String], restart: usize| -> Box<dyn Draws> {
            let purpose = format!("attack/square/{restart}");
            Box::new(Keyed(keys.iter().map(|key| Stream::keyed(seed, &purpose, key)).collect()))
        };
        self.run_with(&mut opening, victim, batch, seed)
    }

    fn spelling(&self) -> Spelling {
        self.spelled("square")
    }
}
