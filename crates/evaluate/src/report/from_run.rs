//! From a run folder to a report: `records.jsonl` of an evaluation, `metrics.jsonl` of a training,
//! `summary.json` of either.

use super::{Axis, Block, LineChart, Report, Section, Series};
use crate::{
    records::record::{Record, RecordError},
    records::record_file::{read_lines, read_records},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, path::Path};

/// Points a training curve keeps; more would not be seen.
const POINTS: usize = 300;

/// What `summary.json` may say; other keys are for other readers.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Summary {
    title: Option<String>,
    kicker: Option<String>,
    verdict: Option<String>,
    explanation: Vec<String>,
    limits: Vec<String>,
    command: Option<String>,
    seed: Option<u64>,
    version: Option<String>,
    digests: BTreeMap<String, Option<String>>,
}

impl Report {
    /// The report of a run folder. Reads what is there: `records.jsonl`, `metrics.jsonl` (a line
    /// an object with `step` and numbers, nested ones joined by `/`) and `summary.json` (`title`,
    /// `kicker`, `verdict`, `explanation[]`, `limits[]`, `command`, `seed`, `version`, `digests{}`).
    ///
    /// Errors: a file that cannot be read or is no JSON; none of the three being there.
    pub fn from_run(folder: &Path) -> Result<Self, RecordError> {
        let file = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
        let (records, metrics, summary) =
            (file("records.jsonl"), file("metrics.jsonl"), file("summary.json"));
        if records.is_none() && metrics.is_none() && summary.is_none() {
            let path = folder.join("records.jsonl");
            return Err(RecordError::Io { path, source: std::io::ErrorKind::NotFound.into() });
        }
        let name = folder.file_name().map_or("run".into(), |name| name.to_string_lossy());
        let records: Vec<Record> = records.map_or(Ok(Vec::new()), |path| read_records(&path))?;
        let mut report = Self::from_records(name, &records);
        if let Some(path) = metrics {
            report.sections.extend(training(&read_lines::<Map<String, Value>>(&path)?));
        }
        if let Some(path) = summary {
            let bytes = std::fs::read(&path).map_err(RecordError::io(&path))?;
            let summary = serde_json::from_slice(&bytes)
                .map_err(|source| RecordError::Json { path, source })?;
            report.tell(summary);
        }
        Ok(report)
    }

    fn tell(&mut self, summary: Summary) {
        let set = |place: &mut String, text: Option<String>| {
            if let Some(text) = text {
                *place = text;
            }
        };
        set(&mut self.title, summary.title);
        set(&mut self.kicker, summary.kicker);
        set(&mut self.headline.sentence, summary.verdict);
        set(&mut self.reproduce.command, summary.command);
        set(&mut self.reproduce.version, summary.version);
        self.reproduce.seed = summary.seed.or(self.reproduce.seed);
        self.explanation.extend(summary.explanation);
        self.limits.extend(summary.limits);
        for (name, digest) in summary.digests {
            if let Some(digest) = digest {
                self.reproduce.digests.retain(|(known, _)| *known != name);
                self.reproduce.digests.push((name, digest));
            }
        }
    }
}

/// The curves of a training log, grouped by what they measure.
fn training(lines: &[Map<String, Value>]) -> Option<Section> {
    let mut curves: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (index, line) in lines.iter().enumerate() {
        let step = line.get("step").and_then(Value::as_f64).unwrap_or(index as f64);
        collect("", line, step, &mut curves);
    }
    let last = |name: &str| name.rsplit('/').next().unwrap_or(name).to_lowercase();
    let chart = |title: &str, y: Axis, wanted: &dyn Fn(&str) -> bool| {
        let series: Vec<Series> = curves
            .iter()
            .filter(|(name, _)| wanted(&last(name)))
            .map(|(name, points)| Series::new(name.clone(), points.iter().copied()).thinned(POINTS))
            .collect();
        let thinned = series.iter().flat_map(|s| &s.points).any(|point| point.interval.is_some());
        let note = if thinned { "Means of neighbouring steps; band: their range." } else { "" };
        let chart = LineChart {
            title: title.into(),
            note: note.into(),
            x: Axis::linear("step"),
            y,
            series,
            ..LineChart::default()
        };
        (!chart.series.is_empty()).then_some(Block::Lines(chart))
    };
    let is_share = |name: &str| {
        ["acc1", "acc5", "recall", "accuracy", "robust"].iter().any(|k| name.contains(k))
    };
    let charts = [
        chart("Accuracy on held-out pictures", Axis::percent("share"), &is_share),
        chart("Success of the attack (lower is better)", Axis::percent("share"), &|name| {
            name.contains("asr") || name.contains("attack_success")
        }),
        chart("Loss", Axis::linear("loss"), &|name| name.contains("loss")),
        chart("Learning rate", Axis::linear("learning rate"), &|name| {
            name == "lr" || name.starts_with("learning_rate")
        }),
        chart("Logit scale (how sharply the model decides)", Axis::linear("scale"), &|name| {
            name == "logit_scale" || name == "scale"
        }),
    ];
    let blocks: Vec<Block> = charts.into_iter().flatten().collect();
    (!blocks.is_empty()).then(|| Section::new("Training", blocks))
}

fn collect(
    prefix: &str,
    object: &Map<String, Value>,
    step: f64,
    into: &mut BTreeMap<String, Vec<(f64, f64)>>,
) {
    for (key, value) in object {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}/{key}") };
        match value {
            Value::Object(inner) => collect(&name, inner, step, into),
            // A null is a number that was not finite: a gap in the curve, not a missing line.
            Value::Null => into.entry(name).or_default().push((step, f64::NAN)),
            other => {
                if let Some(number) = other.as_f64() {
                    into.entry(name).or_default().push((step, number));
                }
            }
        }
    }
}
