//! Units that look at embeddings: scores of detectors, and where purification puts them.

use crate::{
    EvaluateError,
    run::schedule::Task,
    run::unit_file::{Line, Totals},
    run::units::{Done, Stage},
    studies::look::{View, Viewer},
};
use burn::tensor::Tensor;
use clipguard_model::Query;
use std::ops::Range;

fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec::<f32>().unwrap_or_default()
}

impl Stage<'_> {
    /// Scores of embeddings in front of the embedding stations, a line a sample.
    pub(crate) fn scored(
        &self,
        task: &Task,
        score: &str,
        source: Option<&str>,
        range: Range<usize>,
    ) -> Result<Done, EvaluateError> {
        let victim = self.classifier.defended(&task.purify, None)?;
        let score = self.classifier.score(score)?;
        let keys = &self.subset.keys[range.clone()];
        let pixels = self.made(source, &range)?;
        let raw = victim.raw(Query { pixels, keys, draw: 0 });
        let scores = host(score.rows(raw, keys));
        let line = |(key, score): (&String, f32)| Line {
            sample: key.clone(),
            row: vec![f64::from(score)],
            ..Line::default()
        };
        let totals = Totals { forwards: keys.len() as u64, ..Totals::default() };
        Ok((keys.iter().zip(scores).map(line).collect(), totals, Vec::new()))
    }

    /// Looks at embeddings before and after purification, a line a sample.
    pub(crate) fn looked(
        &self,
        task: &Task,
        source: Option<&str>,
        range: Range<usize>,
    ) -> Result<Done, EvaluateError> {
        let bare = self.classifier.defended(&[], None)?;
        let victim = self.classifier.defended(&task.purify, None)?;
        let keys = &self.subset.keys[range.clone()];
        let pixels = self.made(source, &range)?;
        let ask = |pixels: &Tensor<4>| Query { pixels: pixels.clone(), keys, draw: 0 };
        let clean = host(bare.embedding(ask(&self.subset.part(range.clone()))));
        let before = host(bare.embedding(ask(&pixels)));
        let after = host(victim.embedding(ask(&pixels)));
        let cleaned = host(victim.pixels(pixels.clone(), keys, 0));
        let pixels = host(pixels);
        let head = &self.classifier.head.matrix;
        let Some(blank) = self.classifier.blank() else {
            return Err(EvaluateError::Study("there is no blank prompt".to_owned()));
        };
        let viewer = Viewer::new(blank, head);
        let ([_, height, width], [dim, _]) = (self.head.shape, head.dims());
        let entries = self.head.shape.iter().product::<usize>();
        let row = |numbers: &[f32], i: usize, width: usize| -> Vec<f32> {
            numbers.get(i * width..(i + 1) * width).unwrap_or_default().to_vec()
        };
        let line = |i: usize| {
            let [x, y] = [&pixels, &cleaned].map(|all| row(all, i, entries));
            let [a, b, c] = [&before, &after, &clean].map(|all| row(all, i, dim));
            let views = [View { pixels: &x, embedding: &a }, View { pixels: &y, embedding: &b }];
            let label = self.subset.labels[range.start + i];
            let look = viewer.look(&c, views, label, (height, width));
            Line { sample: keys[i].clone(), row: look.row(), ..Line::default() }
        };
        let totals = Totals { forwards: 3 * keys.len() as u64, ..Totals::default() };
        Ok(((0..keys.len()).map(line).collect(), totals, Vec::new()))
    }
}
