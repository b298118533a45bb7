//! Units of work on one stage: what each kind does with a batch of samples.

use crate::{
    Certify, Classifier, EvaluateError, Plan, Subset,
    checks::{Bench, CATALOGUE, Effort, NO_BALL, Probe, Subject},
    classifier::mode_name,
    clean::metrics::{argmax, rank},
    run::adversarial::{self, Adversarial},
    run::cost::Passes,
    run::progress::{Follow, State, Until},
    run::schedule::{Kind, StageHead, Task, budget},
    run::unit_file::{Line, Totals, UnitFile},
    studies::certified::Voters,
};
use burn::tensor::{Tensor, TensorData};
use clipguard_attack::{Batch, Budget, parse};
use clipguard_model::{GradientMode, Query, Victim};
use clipguard_purify::Watched;
use std::{collections::BTreeMap, ops::Range, path::Path, time::Instant};

/// Votes that are counted before they are written down.
const VOTES: usize = 500;

/// One model on one data source, with everything the units need.
pub(crate) struct Stage<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) folder: &'a Path,
    pub(crate) classifier: Classifier,
    /// Models that pictures are transferred from, by their spelling.
    pub(crate) surrogates: BTreeMap<String, Classifier>,
    pub(crate) subset: Subset,
    pub(crate) head: StageHead,
    pub(crate) until: Until<'a>,
}

/// Lines, cost and pictures of one batch.
pub(crate) type Done = (Vec<Line>, Totals, Vec<f32>);

impl Stage<'_> {
    /// Completes a unit, from where it stands. `alive` are the samples no unit of this defence has
    /// broken so far; an attack's unit takes from them what it breaks.
    pub(crate) fn complete(
        &self,
        task: &Task,
        alive: &mut [bool],
        follow: &mut dyn Follow,
    ) -> Result<f64, EvaluateError> {
        let started = Instant::now();
        let stem = task.stem(self.folder, &self.head, self.plan.seed);
        let mut file = UnitFile::open(&stem, task.picture(&self.head))?;
        let count = task.count(&self.head, self.plan);
        let size = self.size(task)?;
        let counts = task.counts();
        let mut kills = 0;
        let mut narrow = |lines: &[Line], from: usize, alive: &mut [bool]| {
            for (line, alive) in lines.iter().zip(&mut alive[from..]) {
                kills += usize::from(*alive && !line.right && counts);
                *alive &= line.right || !counts;
            }
            kills
        };
        narrow(&file.lines, 0, alive);
        while file.lines.len() < count {
            if self.until.is_stopped() {
                return Err(EvaluateError::Stopped);
            }
            if self.until.is_over() {
                return Err(EvaluateError::TimeUp);
            }
            let start = file.lines.len();
            let range = start..(start + size).min(count);
            let (lines, totals, pictures) = self.batch(task, range.clone())?;
            let kills = narrow(&lines, start, alive);
            file.append(lines, &totals, &pictures)?;
            follow.batch(&State {
                done: range.end,
                samples: count,
                alive: alive.iter().filter(|alive| **alive).count(),
                kills,
                left: None,
            });
        }
        Ok(started.elapsed().as_secs_f64())
    }

    /// Whether nothing of it is left to do.
    pub(crate) fn is_complete(&self, task: &Task) -> Result<bool, EvaluateError> {
        let stem = task.stem(self.folder, &self.head, self.plan.seed);
        let file = UnitFile::open(&stem, task.picture(&self.head))?;
        Ok(file.lines.len() >= task.count(&self.head, self.plan))
    }

    /// Samples at once. Where rows depend on each other a unit's own number is kept exactly.
    fn size(&self, task: &Task) -> Result<usize, EvaluateError> {
        let most = task.batch.unwrap_or(self.plan.batch);
        if let Kind::Certify { of } = &task.kind {
            // So that an interruption costs some hundred votes and no more than a picture's.
            return Ok((VOTES / (of.n0 + of.n).max(1)).clamp(1, most.max(1)));
        }
        if task.batch.is_some() || !matches!(task.kind, Kind::Check { .. }) {
            return Ok(most);
        }
        let victim = self.classifier.defended(&task.purify, None)?;
        Ok(victim.limit().map_or(most, |limit| limit.rows.min(most)))
    }

    fn batch(&self, task: &Task, range: Range<usize>) -> Result<Done, EvaluateError> {
        match &task.kind {
            Kind::Clean => {
                let pixels = self.subset.part(range.clone());
                self.classified(task, range, pixels, true)
            }
            Kind::Attack => self.attacked(task, range),
            Kind::Transfer { source } => {
                let pixels = self.made(Some(source), &range)?;
                self.classified(task, range, pixels, false)
            }
            Kind::Certify { of } => self.certified(task, of, range),
            Kind::Score { score, source } => self.scored(task, score, source.as_deref(), range),
            Kind::Look { source } => self.looked(task, source.as_deref(), range),
            Kind::Foreign { file } => self.foreign(task, Path::new(file), range),
            Kind::Check { id, attacks, gradients } => {
                self.measured(task, id, attacks, gradients, range)
            }
        }
    }

    /// The pictures a unit made, or the clean ones.
    pub(crate) fn made(
        &self,
        source: Option<&str>,
        range: &Range<usize>,
    ) -> Result<Tensor<4>, EvaluateError> {
        let Some(source) = source else { return Ok(self.subset.part(range.clone())) };
        let stem = self.folder.join("units").join(source);
        let made = UnitFile::open(&stem, self.head.shape.iter().product())?;
        Ok(self.pictures(made.pictures(range.clone())?, range.len()))
    }

    fn pictures(&self, numbers: Vec<f32>, rows: usize) -> Tensor<4> {
        let [c, h, w] = self.head.shape;
        let device = self.subset.pixels.device();
        Tensor::from_data(TensorData::new(numbers, [rows, c, h, w]), &device)
    }

    /// Answers to pictures, a line a sample; `ranked` keeps the rank of the true class.
    fn classified(
        &self,
        task: &Task,
        range: Range<usize>,
        pixels: Tensor<4>,
        ranked: bool,
    ) -> Result<Done, EvaluateError> {
        let victim = self.classifier.defended(&task.purify, None)?;
        let (keys, labels) = (&self.subset.keys[range.clone()], &self.subset.labels[range]);
        let query = Query { pixels, keys, draw: 0 };
        let logits = victim.logits(query).into_data().try_to_vec::<f32>().unwrap_or_default();
        let rows = logits.chunks_exact(victim.classes().max(1));
        let lines = rows.zip(keys).zip(labels).map(|((row, key), label)| Line {
            sample: key.clone(),
            right: argmax(row) == Some(*label),
            pred: argmax(row),
            rank: ranked.then(|| rank(row, *label)),
            ..Line::default()
        });
        let totals = Totals { forwards: keys.len() as u64, ..Totals::default() };
        Ok((lines.collect(), totals, Vec::new()))
    }

    fn attacked(&self, task: &Task, range: Range<usize>) -> Result<Done, EvaluateError> {
        let attack = parse(&task.attack)?;
        let other = task.on.as_ref().and_then(|model| self.surrogates.get(model));
        let classifier = other.unwrap_or(&self.classifier);
        let defended = classifier.defended(&task.purify, task.gradient)?;
        let victim: Box<dyn Victim> = match &task.beside {
            Some(beside) if beside.weight > 0.0 => {
                let score = classifier.score(&beside.score)?;
                Box::new(Watched::new(defended, score, beside.weight))
            }
            _ => Box::new(defended),
        };
        let (keys, labels) = (&self.subset.keys[range.clone()], &self.subset.labels[range.clone()]);
        let batch = Batch { pixels: self.subset.part(range), labels, keys };
        let found = attack.run(&*victim, &batch, self.plan.seed);
        let query = Query { pixels: found.pixels.clone(), keys, draw: 0 };
        let logits = victim.logits(query).into_data().try_to_vec::<f32>().unwrap_or_default();
        let classes = victim.classes().max(1);
        let line = |i: usize| Line {
            sample: keys[i].clone(),
            right: !found.success[i],
            pred: argmax(&logits[i * classes..(i + 1) * classes]),
            norm: Some(found.norm[i]),
            nearest: found.nearest[i],
            first: found.first_success[i],
            points: Some(found.loss[i].len()),
            ..Line::default()
        };
        let zero = f64::from(found.zero_gradients) * found.backwards as f64;
        let totals = Totals {
            forwards: (found.forwards + keys.len()) as u64,
            backwards: found.backwards as u64,
            zero_gradients: zero.round() as u64,
            flags: found.flags.iter().filter_map(|f| serde_json::to_value(f).ok()).collect(),
        };
        let pictures = found.pixels.clone().into_data().try_to_vec::<f32>().unwrap_or_default();
        Ok(((0..keys.len()).map(line).collect(), totals, pictures))
    }

    /// Pictures that were handed in; those outside budget or box count as unchanged.
    fn foreign(
        &self,
        task: &Task,
        path: &Path,
        range: Range<usize>,
    ) -> Result<Done, EvaluateError> {
        let file: Adversarial = adversarial::read(path)?;
        let clean = self.subset.part(range.clone());
        let places: Vec<usize> =
            self.head.samples[range.clone()].iter().map(|sample| sample.position).collect();
        let given = file
            .matched(&clean, &self.subset.keys[range.clone()], &places, self.head.chosen)
            .map_err(|reason| EvaluateError::File { path: path.to_owned(), reason })?;
        let budget = budget(task.attack.trim_start_matches("within "))?;
        let inside = adversarial::within(&clean, &given, budget);
        let rows = inside.iter().enumerate().map(|(i, inside)| match inside {
            true => given.clone().narrow(0, i, 1),
            false => clean.clone().narrow(0, i, 1),
        });
        let sizes = budget.measure(given.clone() - clean.clone());
        let pixels = Tensor::cat(rows.collect(), 0);
        let (mut lines, mut totals, _) = self.classified(task, range, pixels, false)?;
        lines.iter_mut().zip(sizes).for_each(|(line, size)| line.norm = Some(size as f32));
        let outside = inside.iter().filter(|inside| !**inside).count();
        if outside > 0 {
            totals.flags.push(serde_json::json!({ "outside-the-budget": outside }));
        }
        Ok((lines, totals, Vec::new()))
    }

    /// Votes for every picture, one after the other.
    fn certified(
        &self,
        task: &Task,
        of: &Certify,
        range: Range<usize>,
    ) -> Result<Done, EvaluateError> {
        let victim = self.classifier.defended(&task.purify, None)?;
        let batch = victim.limit().map_or(self.plan.batch, |l| l.rows.min(self.plan.batch));
        let line = |i: usize| {
            let pixels = self.subset.part(i..i + 1);
            let (key, seed) = (self.subset.keys[i].as_str(), self.plan.seed);
            let voters = Voters { victim: &victim, pixels: &pixels, key, seed, batch };
            voters.line(of, self.subset.labels[i])
        };
        let forwards = (range.len() * (of.n0 + of.n)) as u64;
        let totals = Totals { forwards, ..Totals::default() };
        Ok((range.map(line).collect(), totals, Vec::new()))
    }

    /// Lines of a check that cannot be run on a budget that is no ball.
    fn unmeasured(&self, range: Range<usize>) -> Vec<Line> {
        let line = |key: &String| Line {
            sample: key.clone(),
            reason: Some(NO_BALL.to_owned()),
            ..Line::default()
        };
        self.subset.keys[range].iter().map(line).collect()
    }

    fn measured(
        &self,
        task: &Task,
        id: &str,
        attacks: &[String],
        gradients: &[GradientMode],
        range: Range<usize>,
    ) -> Result<Done, EvaluateError> {
        let (keys, labels) = (&self.subset.keys[range.clone()], &self.subset.labels[range.clone()]);
        let batch = Batch { pixels: self.subset.part(range.clone()), labels, keys };
        let rows =
            self.on_bench(task, id, attacks, gradients, |bench, probe| probe.rows(bench, &batch))?;
        let Some(rows) = rows else {
            return Ok((self.unmeasured(range), Totals::default(), Vec::new()));
        };
        let lines = keys.iter().zip(rows).map(|(key, row)| Line {
            sample: key.clone(),
            row: row.values,
            reason: row.reason,
            ..Line::default()
        });
        Ok((lines.collect(), Totals::default(), Vec::new()))
    }

    /// Passes of a check over one sample, at most and for one that breaks at once; none where it
    /// cannot be run.
    pub(crate) fn check_passes(
        &self,
        task: &Task,
        dimensions: usize,
    ) -> Result<[Passes; 2], EvaluateError> {
        let Kind::Check { id, attacks, gradients } = &task.kind else {
            return Ok(Default::default());
        };
        let passes = self.on_bench(task, id, attacks, gradients, |bench, probe| {
            Passes::of_check(probe, bench, dimensions)
        })?;
        Ok(passes.unwrap_or_default())
    }

    /// Does something with a check and the victim it is about; `None` where the budget is no ball.
    fn on_bench<T>(
        &self,
        task: &Task,
        id: &str,
        attacks: &[String],
        gradients: &[GradientMode],
        work: impl FnOnce(&Bench<'_>, &Probe) -> T,
    ) -> Result<Option<T>, EvaluateError> {
        let Budget::Ball { norm, eps } = budget(&attacks[0])? else { return Ok(None) };
        let undefended = task.purify.is_empty();
        let modes = if undefended { &[GradientMode::Exact][..] } else { gradients };
        let victims = modes
            .iter()
            .map(|mode| self.classifier.defended(&task.purify, (!undefended).then_some(*mode)))
            .collect::<Result<Vec<_>, _>>()?;
        let bare = self.classifier.defended(&[], None)?;
        let names = modes.iter().map(|mode| mode_name(*mode));
        let bench = Bench {
            modes: names.zip(victims.iter().map(|victim| victim as &dyn Subject)).collect(),
            bare: (!undefended).then_some(&bare as &dyn Subject),
            norm,
            eps,
            attacks,
            seed: self.plan.seed,
            random: false,
            effort: Effort { batch: self.plan.batch, ..Effort::default() },
        };
        let probe = CATALOGUE.iter().find(|probe| probe.id() == id);
        Ok(probe.map(|probe| work(&bench, probe)))
    }
}
