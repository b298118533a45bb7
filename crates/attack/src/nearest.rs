//! What attacks that look for the smallest change share: the smallest error of each sample, linear
//! models of the boundary, and what to do with an error that is a little too large.

use burn::tensor::Tensor;

use crate::{
    Norm,
    ledger::Seen,
    loss::pick,
    norm::RELATIVE,
    tensors::{argmax, batch_of, host, row as one},
    trial::{Group, Trial},
};

/// The state of one row of a search.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) clean: Vec<f32>,
    pub(crate) point: Vec<f32>,
    /// The smallest error found, and its size.
    pub(crate) nearest: Option<(f64, Vec<f32>)>,
}

/// What is looked for.
#[derive(Clone, Copy)]
pub(crate) struct Hunt {
    /// What is made small.
    pub(crate) norm: Norm,
    /// Up to which size an error counts.
    pub(crate) eps: f32,
    /// By how much the wrong logit has to lead.
    pub(crate) lead: f32,
}

impl Hunt {
    /// Any error is one.
    pub(crate) fn new(norm: Norm, eps: f32) -> Self {
        Self { norm, eps, lead: 0.0 }
    }

    /// Whether an error with this lead is one.
    pub(crate) fn counts(self, lead: f32) -> bool {
        self.lead == 0.0 || lead > self.lead
    }

    /// Puts the points of the rows to the victim; by how much each is past the boundary, `None`
    /// where it is not.
    pub(crate) fn look(
        self,
        trial: &mut Trial<'_>,
        group: &Group,
        rows: &mut [Row],
        draw: u64,
    ) -> Vec<Option<f32>> {
        let points = stack(rows.iter(), &group.clean);
        let logits = host(trial.logits(group, points.clone(), draw));
        self.take(trial, group, &mut rows.iter_mut().collect::<Vec<_>>(), &points, &logits)
    }

    /// Books the answers to `points`, one a row, and remembers the smallest errors.
    pub(crate) fn take(
        self,
        trial: &mut Trial<'_>,
        group: &Group,
        rows: &mut [&mut Row],
        points: &Tensor<4>,
        logits: &[f32],
    ) -> Vec<Option<f32>> {
        let leads = answers(trial, group, points, logits);
        for (i, (row, lead)) in rows.iter_mut().zip(&leads).enumerate() {
            let Some(lead) = lead.filter(|lead| self.counts(*lead)) else {
                continue;
            };
            self.remember(trial, group.samples[i], row, lead, || one(points, i));
        }
        leads
    }

    /// Keeps the point of a row, which errs and was booked last, if none was smaller.
    pub(crate) fn remember(
        self,
        trial: &mut Trial<'_>,
        sample: usize,
        row: &mut Row,
        lead: f32,
        picture: impl FnOnce() -> Tensor<4>,
    ) {
        let size = self.norm.distance(&row.clean, &row.point);
        if row.nearest.as_ref().is_some_and(|(least, _)| size >= *least) {
            return;
        }
        trial.ledger.found(sample, size);
        if Norm::within(size, self.eps) {
            trial.ledger.credit(sample, lead, -size as f32, picture);
        }
        row.nearest = Some((size, row.point.clone()));
    }

    /// Errors that are over the budget are tried once more on its surface: the original programs
    /// reject a perturbation that is too large by rounding.
    ///
    /// A shrunk error is no reason to stop: another search may find a smaller one.
    pub(crate) fn shrink(
        self,
        trial: &mut Trial<'_>,
        mut group: Group,
        rows: &mut [Row],
        draw: u64,
    ) {
        let is_over = |row: &Row| {
            row.nearest.as_ref().is_some_and(|(size, _)| !Norm::within(*size, self.eps))
        };
        let over: Vec<usize> = (0..rows.len()).filter(|&i| is_over(&rows[i])).collect();
        if over.is_empty() {
            return;
        }
        group.retain(&over);
        for row in rows.iter_mut() {
            if let Some((size, nearest)) = row.nearest.as_ref().filter(|_| is_over(row)) {
                let factor = (f64::from(self.eps) / size * (1.0 - RELATIVE)) as f32;
                let shrunk = |(c, p): (&f32, &f32)| (c + (p - c) * factor).clamp(0.0, 1.0);
                row.point = row.clean.iter().zip(nearest).map(shrunk).collect();
            }
        }
        let points = stack(over.iter().map(|&i| &rows[i]), &group.clean);
        let logits = host(trial.logits(&group, points.clone(), draw));
        let leads = answers(trial, &group, &points, &logits);
        for (i, (&place, lead)) in over.iter().zip(leads).enumerate() {
            if lead.is_some_and(|lead| self.counts(lead)) {
                let picture = || one(&points, i);
                self.remember(trial, group.samples[i], &mut rows[place], 0.0, picture);
            }
        }
    }
}

/// A row for each sample of the group, at its clean picture.
pub(crate) fn rows(group: &Group) -> Vec<Row> {
    let numbers = host(group.clean.clone());
    let width = (numbers.len() / group.len().max(1)).max(1);
    let row = |clean: &[f32]| Row { clean: clean.to_vec(), point: clean.to_vec(), nearest: None };
    numbers.chunks(width).map(row).collect()
}

/// The points of the rows as a batch.
pub(crate) fn stack<'a>(rows: impl Iterator<Item = &'a Row>, like: &Tensor<4>) -> Tensor<4> {
    batch_of(rows.flat_map(|row| row.point.iter().copied()).collect(), like)
}

/// Books the answers; by how much each point is past the boundary, `None` where it is not.
fn answers(
    trial: &mut Trial<'_>,
    group: &Group,
    points: &Tensor<4>,
    logits: &[f32],
) -> Vec<Option<f32>> {
    let (aim, classes) = (group.aim(), trial.classes().max(1));
    let rows = || logits.chunks(classes).enumerate();
    let loss: Vec<f32> = rows().map(|(i, logits)| aim.lead(i, logits)).collect();
    let errs = |(i, logits): (usize, &[f32])| {
        argmax(logits).is_some_and(|class| aim.is_met(i, class)).then_some(loss[i])
    };
    let found = rows().map(errs).collect();
    trial.book(group, &Seen { points, logits, loss: &loss, counts: false, is_last: false });
    found
}

/// A linear model of the difference of two logits at some points, row by row.
pub(crate) struct Plane {
    pub(crate) normal: Vec<f32>,
    /// The first logit less the second.
    pub(crate) difference: Vec<f32>,
}

/// Logit of class `first` less that of class `second` in each row, and its gradient.
pub(crate) fn plane(
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
