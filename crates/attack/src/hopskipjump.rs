//! HopSkipJump: an attack that sees nothing but decisions (Chen, Jordan & Wainwright 2020).
//!
//! Every sample is walked on its own, with its probes as a batch: its result cannot depend on the
//! others, and the number of its queries is exact.

use clipguard_data::{
    Stream, parameters,
    spelling::{Parameters, Spelling, SpellingError},
};
use clipguard_model::victim::Victim;

use crate::{
    Attack, Attacked, Batch, Keep, Norm, Terms,
    ledger::Seen,
    nearest::{Hunt, Row, rows as rows_of},
    start::sphere_l2,
    tensors::{argmax, batch_of, host, row as one},
    trial::{Group, Trial},
};

/// Probes put to the victim at once.
const CHUNK: usize = 64;

/// How often a step is halved before the next direction is tried.
const HALVINGS: usize = 40;

/// Radius of the probes around the first point.
const FIRST_RADIUS: f32 = 0.1;

/// The least change of an entry by a probe, as a root mean square. The published radius falls with
/// the number of pixels: at 224 pixels it is less than f32 can tell apart.
const LEAST: f32 = 1e-6;

/// How much further out the picture that is handed back lies than the boundary, as a share of the
/// way: a point on the boundary is a tie, which another batch size may decide otherwise.
pub const OUTWARD: f32 = 1e-3;

/// Where the random pictures and directions of one sample come from.
pub trait Probes {
    /// A picture that may err, however far from `clean`; `attempt` counts from 0.
    fn start(&mut self, clean: &[f32], attempt: usize) -> Vec<f32>;

    /// `count` directions of `width` entries each.
    fn directions(&mut self, norm: Norm, count: usize, width: usize) -> Vec<Vec<f32>>;
}

/// The sample's own stream.
struct Keyed {
    stream: Stream,
    channels: usize,
}

impl Probes for Keyed {
    /// In turn noise and a picture of one colour: a model may take all noise for one class.
    fn start(&mut self, clean: &[f32], attempt: usize) -> Vec<f32> {
        if attempt.is_multiple_of(2) {
            return clean.iter().map(|_| self.stream.uniform()).collect();
        }
        let colour: Vec<f32> = (0..self.channels).map(|_| self.stream.uniform()).collect();
        let plane = (clean.len() / self.channels.max(1)).max(1);
        (0..clean.len()).map(|i| colour[i / plane]).collect()
    }

    fn directions(&mut self, norm: Norm, count: usize, width: usize) -> Vec<Vec<f32>> {
        let draw = |stream: &mut Stream| match norm {
            Norm::Linf => stream.within(-1.0, 1.0),
            _ => stream.normal(),
        };
        let mut one = || sphere_l2((0..width).map(|_| draw(&mut self.stream)).collect());
        (0..count).map(|_| one()).collect()
    }
}

/// The probes of the sample with this key and so many channels.
pub type Opening<'a> = dyn Fn(&str, usize) -> Box<dyn Probes> + 'a;

parameters! {
    /// From a far picture that errs along the boundary towards the clean one, by decisions alone; what
    /// lies within the radius counts.
    pub struct HopSkipJump {
        /// Norm that is made small: linf or l2.
        norm: Norm = Norm::L2,
        /// Radius of the budget in pixel units of [0, 1]; 0 changes nothing.
        eps: f32 = 0.5,
        /// Queries of a sample, at least 2.
        queries: usize = 5000,
        /// Steps along the boundary; ends earlier where the queries are used up.
        steps: usize = 64,
        /// Probes for the first direction, at least 1; their number grows with the root of the step.
        probes: usize = 100,
        /// The most probes for one direction, at least 1.
        most_probes: usize = 10000,
        /// Width of the last interval on the way to the boundary, and radius of the probes, in units
        /// that fall with the size of the picture.
        gamma: f32 = 1.0,
        /// Random pictures that are tried as a start, at least 1.
        starts: usize = 50,
        /// Whether a sample stops at the first error inside the budget, not at the smallest.
        early_exit: bool = false,
    }
}

impl HopSkipJump {
    /// The attack a spelling such as `hopskipjump:eps=1,queries=1000` asks for.
    ///
    /// # Errors
    /// Unknown settings and values out of range.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        let jump: Self = spelling.read()?;
        spelling.demand([
            ("norm", jump.norm != Norm::L1, "this attack is made for linf and l2"),
            ("eps", jump.eps >= 0.0, "a radius is not negative"),
            ("queries", jump.queries > 1, "at least two queries"),
            ("probes", jump.probes > 0, "at least one"),
            ("most-probes", jump.most_probes > 0, "at least one"),
            ("gamma", jump.gamma > 0.0, "a width is positive"),
            ("starts", jump.starts > 0, "at least one"),
        ])?;
        Ok(jump)
    }

    /// [`Attack::run`] with starts and directions of the caller's choice.
    pub fn run_with(
        &self,
        opening: &Opening<'_>,
        victim: &dyn Victim,
        batch: &Batch<'_>,
        seed: u64,
    ) -> Attacked {
        let terms = Terms::ball(self.norm, self.eps, Keep::Best, None);
        let mut trial = Trial::begin(terms, victim, batch, seed);
        for sample in trial.open() {
            let group = trial.group(vec![sample], None);
            let Some(row) = rows_of(&group).pop() else { continue };
            let probes = opening(&batch.keys[sample], batch.pixels.dims()[1]);
            // The last query is for the picture that is handed back.
            let (draw, used, limit) = (1, 0, self.queries - 1);
            Walk { attack: self, trial: &mut trial, group, row, probes, used, limit, draw }.run();
        }
        trial.close()
    }
}

/// The walk of one sample.
struct Walk<'a, 't> {
    attack: &'a HopSkipJump,
    trial: &'a mut Trial<'t>,
    /// The sample alone.
    group: Group,
    row: Row,
    probes: Box<dyn Probes>,
    /// Queries so far, and how many there may be.
    used: usize,
    limit: usize,
    /// The next draw of a random victim; 0 is left for judging.
    draw: u64,
}

impl Walk<'_, '_> {
    fn run(mut self) {
        // `None` says that the queries are used up, or that no start was found.
        let _ = self.walk();
        self.limit += 1;
        let Some((size, point)) = self.row.nearest.clone() else { return };
        let hunt = self.hunt();
        if !Norm::within(size, hunt.eps) {
            hunt.shrink(self.trial, self.group, std::slice::from_mut(&mut self.row), self.draw);
            return;
        }
        let further = (1.0 + f64::from(OUTWARD)).min(f64::from(hunt.eps) / size) as f32;
        let out = |(c, p): (&f32, &f32)| (c + (p - c) * further).clamp(0.0, 1.0);
        let picture: Vec<f32> = self.row.clean.iter().zip(&point).map(out).collect();
        if self.ask(std::slice::from_ref(&picture)).is_some_and(|errs| errs[0]) {
            let pixels = batch_of(picture, &self.group.clean);
            self.trial.ledger.offer(self.group.samples[0], f32::INFINITY, || pixels);
        }
    }

    fn hunt(&self) -> Hunt {
        Hunt::new(self.attack.norm, self.attack.eps)
    }

    fn walk(&mut self) -> Option<()> {
        let HopSkipJump { norm, gamma, probes, most_probes, .. } = *self.attack;
        let far = self.start()?;
        let mut point = self.boundary(far)?;
        for step in 0..self.attack.steps {
            let distance = norm.distance(&self.row.clean, &point) as f32;
            if distance == 0.0 || self.attack.early_exit && self.is_inside() {
                break;
            }
            let width = point.len() as f32;
            let radius = match step {
                0 => FIRST_RADIUS,
                _ => (gamma * distance / width).max(LEAST * width.sqrt()),
            };
            let root = (step as f64 + 1.0).sqrt();
            let count = (probes as f64 * root).min(most_probes as f64) as usize;
            let direction = self.direction(&point, radius, count)?;
            if let Some(far) = self.stride(&point, &direction, distance / root as f32)? {
                point = self.boundary(far)?;
            }
        }
        Some(())
    }

    fn is_inside(&self) -> bool {
        let nearest = self.row.nearest.as_ref();
        nearest.is_some_and(|(size, _)| Norm::within(*size, self.attack.eps))
    }

    /// The first of the random pictures that errs.
    fn start(&mut self) -> Option<Vec<f32>> {
        for attempt in 0..self.attack.starts {
            let picture = self.probes.start(&self.row.clean, attempt);
            if self.errs(&picture)? {
                return Some(picture);
            }
        }
        None
    }

    /// The point next to the boundary between the clean picture and one that errs.
    fn boundary(&mut self, far: Vec<f32>) -> Option<Vec<f32>> {
        let HopSkipJump { norm, gamma, .. } = *self.attack;
        let (d, mut low) = (far.len() as f32, 0.0);
        let (mut high, width) = match norm {
            Norm::Linf => {
                let size = norm.distance(&self.row.clean, &far) as f32;
                (size, gamma * size / (d * d))
            }
            _ => (1.0, gamma / (d * d.sqrt())),
        };
        let between = |clean: &[f32], t: f32| -> Vec<f32> {
            let mix = |(c, p): (&f32, &f32)| match norm {
                Norm::Linf => p.clamp(c - t, c + t),
                _ => (1.0 - t) * c + t * p,
            };
            clean.iter().zip(&far).map(mix).collect()
        };
        let mut before = high;
        while high - low > width {
            let middle = 0.5 * (low + high);
            match self.errs(&between(&self.row.clean, middle))? {
                true => high = middle,
                false => low = middle,
            }
            // No number lies between the two any more.
            if middle == before {
                break;
            }
            before = middle;
        }
        Some(between(&self.row.clean, high))
    }

    /// The direction in which more probes err, from `count` of them.
    fn direction(&mut self, point: &[f32], radius: f32, count: usize) -> Option<Vec<f32>> {
        let norm = self.attack.norm;
        let mut offsets = self.probes.directions(norm, count, point.len());
        let mut pictures = Vec::with_capacity(count);
        for offset in &mut offsets {
            let moved = |(p, o): (&f32, &f32)| (p + radius * o).clamp(0.0, 1.0);
            let picture: Vec<f32> = point.iter().zip(offset.iter()).map(moved).collect();
            let kept = |(o, (q, p)): (&mut f32, (&f32, &f32))| *o = (q - p) / (radius + 1e-8);
            offset.iter_mut().zip(picture.iter().zip(point)).for_each(kept);
            pictures.push(picture);
        }
        let decisions = self.ask(&pictures)?;
        let sign = |errs: &bool| if *errs { 1.0 } else { -1.0 };
        let mean = decisions.iter().map(sign).sum::<f64>() / count.max(1) as f64;
        let base = if mean.abs() == 1.0 { 0.0 } else { mean };
        let mut sum = vec![0.0f64; point.len()];
        for (errs, offset) in decisions.iter().zip(&offsets) {
            let weight = sign(errs) - base;
            sum.iter_mut().zip(offset).for_each(|(s, o)| *s += weight * f64::from(*o));
        }
        let length = sum.iter().map(|s| s * s).sum::<f64>().sqrt() + 1e-12;
        let entry = |s: f64| match norm {
            Norm::Linf if s == 0.0 => 0.0,
            Norm::Linf => s.signum() as f32,
            _ => (s / length) as f32,
        };
        Some(sum.into_iter().map(entry).collect())
    }

    /// The point along the direction that still errs, after as many halvings as it takes; the
    /// inner `None` where there is none.
    fn stride(
        &mut self,
        point: &[f32],
        direction: &[f32],
        mut length: f32,
    ) -> Option<Option<Vec<f32>>> {
        for _ in 0..HALVINGS {
            let moved = |(p, d): (&f32, &f32)| (p + length * d).clamp(0.0, 1.0);
            let picture: Vec<f32> = point.iter().zip(direction).map(moved).collect();
            if self.errs(&picture)? {
                return Some(Some(picture));
            }
            length *= 0.5;
        }
        Some(None)
    }

    /// Asks about one picture, and remembers it if it errs.
    fn errs(&mut self, picture: &[f32]) -> Option<bool> {
        let errs = self.ask(&[picture.to_vec()])?[0];
        if errs {
            self.row.point.copy_from_slice(picture);
            let pixels = batch_of(picture.to_vec(), &self.group.clean);
            let sample = self.group.samples[0];
            self.hunt().remember(self.trial, sample, &mut self.row, 1.0, || one(&pixels, 0));
        }
        Some(errs)
    }

    /// Decisions about pictures, each of which is a query; `None` if there are not so many left.
    fn ask(&mut self, pictures: &[Vec<f32>]) -> Option<Vec<bool>> {
        if self.used + pictures.len() > self.limit {
            return None;
        }
        self.used += pictures.len();
        let mut decisions = Vec::with_capacity(pictures.len());
        for part in pictures.chunks(CHUNK) {
            let group = self.group.repeated(part.len());
            let points = batch_of(part.concat(), &self.group.clean);
            let logits = host(self.trial.logits(&group, points.clone(), self.draw));
            self.draw += 1;
            let (aim, classes) = (group.aim(), self.trial.classes().max(1));
            let errs = |(i, logits)| argmax(logits).is_some_and(|class| aim.is_met(i, class));
            let errs: Vec<bool> = logits.chunks(classes).enumerate().map(errs).collect();
            // Nothing but the decision is seen, so it is all the loss there is.
            let loss: Vec<f32> = errs.iter().map(|errs| if *errs { 1.0 } else { -1.0 }).collect();
            let (points, loss) = (&points, &loss[..]);
            let seen = Seen { points, logits: &logits, loss, counts: false, is_last: false };
            self.trial.book(&group, &seen);
            decisions.extend(errs);
        }
        Some(decisions)
    }
}

impl Attack for HopSkipJump {
    fn run(&self, victim: &dyn Victim, batch: &Batch<'_>, seed: u64) -> Attacked {
        let opening = |key: &str, channels: usize| -> Box<dyn Probes> {
            let stream = Stream::keyed(seed, "attack/hopskipjump", key);
            Box::new(Keyed { stream, channels })
        };
        self.run_with(&opening, victim, batch, seed)
    }

    fn spelling(&self) -> Spelling {
        self.spelled("hopskipjump")
    }
}
