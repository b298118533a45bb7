//! Detectors and what they are worth against an attack that knows of them; what a purifier did to
//! embeddings.

use super::{Axis, Block, Cell, LineChart, Section, Series, Table, number};
use crate::{
    records::record::Record,
    studies::detection::{Detection, Estimate},
    studies::shift::{Curves, Shift, Shifts},
};
use serde::de::DeserializeOwned;

fn kept<T: DeserializeOwned>(record: &Record, key: &str) -> Option<T> {
    serde_json::from_value(record.extra.get(key)?.clone()).ok()
}

/// Whether a record is told in a section of its own and in no table of accuracies.
pub fn is_study(record: &Record) -> bool {
    ["detection", "embeddings"].iter().any(|key| record.extra.contains_key(*key))
}

/// The records of detectors.
fn found(records: &[Record]) -> Vec<(&Record, Detection)> {
    records.iter().filter_map(|r| Some((r, kept(r, "detection")?))).collect()
}

impl Table {
    /// What the detectors among the records are worth; `None` without any.
    pub fn of_detectors(records: &[Record]) -> Option<Self> {
        let found = found(records);
        (!found.is_empty()).then(|| table(&found))
    }
}

fn table(found: &[(&Record, Detection)]) -> Table {
    let headings =
        ["data", "defence", "score", "weight", "broken", "AUROC", "false alarms", "unnoticed"];
    let mut table = Table::new("", &headings);
    for (record, told) in found {
        let text = |text: &str| Cell::Text(text.to_owned());
        table.row(vec![
            text(&record.dataset),
            text(&record.defence),
            text(&told.score),
            Cell::Text(told.weight.to_string()),
            Cell::Count(told.broken as u64),
            estimate(told.auroc, 3),
            estimate(told.fpr95, 3),
            Cell::Text(format!("{} of {}", told.undetected, told.broken)),
        ]);
    }
    table.note = "Broken: pictures the attack changed the answer to. AUROC: probability that a \
                  clean picture has a higher likelihood than a broken one; 0.5 is guessing. False \
                  alarms: share of clean pictures with an alarm when 95 percent of the broken ones \
                  have one. Unnoticed: broken pictures without an alarm at 5 percent false alarms. \
                  In brackets 95% intervals by resampling pictures."
        .into();
    table
}

/// The section of all detectors; `None` without any.
pub(super) fn detectors(records: &[Record]) -> Option<Section> {
    let found = found(records);
    if found.is_empty() {
        return None;
    }
    let words = "Attacked pictures may lie where clean ones seldom do, so the likelihood of an \
                 embedding can serve as a detector. Weight 0 is an attack that does not know of \
                 it. The others raise the likelihood beside their loss: what is left of the \
                 detector then is what it is worth."
        .to_owned();
    let mut blocks = vec![Block::Text(words)];
    blocks.extend(areas(&found).map(Block::Lines));
    blocks.push(Block::Table(table(&found)));
    Some(Section::new("Likelihood as a detector", blocks))
}

/// AUROC over the weight, a curve for each detector that met several.
fn areas(found: &[(&Record, Detection)]) -> Option<LineChart> {
    let mut chart = LineChart {
        title: "What is left of a detector when the attack knows of it".into(),
        note: "0.5 is guessing; below it attacked pictures look likelier than clean ones.".into(),
        x: Axis::linear("weight of the likelihood in the attack"),
        y: Axis { range: Some((0.0, 1.0)), ..Axis::linear("AUROC") },
        rules: vec![(0.5, "guessing".to_owned())],
        ..LineChart::default()
    };
    let mut weights: Vec<f64> = found.iter().map(|(_, told)| told.weight).collect();
    weights.sort_by(f64::total_cmp);
    weights.dedup();
    // Weights go by powers of ten, and one is 0: they stand at equal distances.
    let place = |weight: f64| weights.iter().position(|w| *w == weight).unwrap_or(0) as f64;
    chart.x.ticks = weights.iter().map(|w| (place(*w), w.to_string())).collect();
    for (record, told) in found {
        let Some(auroc) = told.auroc else { continue };
        let name = format!("{}, {}, {}", told.score, record.defence, record.dataset);
        let point = super::Point {
            x: place(told.weight),
            y: auroc.value,
            interval: Some((auroc.low, auroc.high)),
        };
        match chart.series.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push(point),
            None => chart.series.push(Series { name, points: vec![point] }),
        }
    }
    chart.series.retain(|series| series.points.len() > 1);
    chart.series.truncate(6);
    (!chart.series.is_empty()).then_some(chart)
}

fn estimate(of: Option<Estimate>, digits: usize) -> Cell {
    let short = |value: f64| number::number(value, digits);
    of.map_or(Cell::Missing, |e| {
        Cell::Text(format!("{} ({} to {})", short(e.value), short(e.low), short(e.high)))
    })
}

/// A section for every purifier whose embeddings were looked at.
pub(super) fn shifts(records: &[Record]) -> Vec<Section> {
    let section = |record: &Record| {
        let shift: Shift = kept(record, "embeddings")?;
        let first = shift.attacks.first()?;
        let title = format!("What {} did to the embeddings ({})", record.defence, record.dataset);
        let mut blocks = vec![Block::Text(
            "A purifier protects if it brings attacked embeddings back to where the clean ones \
             are. The curves show where they lie: their angle to the blank prompt, which is all \
             that CLIPure-Cos changes, and the lead of the right class, which decides the answer."
                .to_owned(),
        )];
        // The last attack but the likely one knows the purifier; what it did is the honest picture.
        let shown = shift.attacks.get(1).unwrap_or(first);
        let under = |what: &str| format!("{what}, attack {}", shown.attack);
        let angle = under("Angle to the blank prompt");
        blocks.push(Block::Lines(distribution(&angle, "degrees", &shown.angle)));
        let lead = under("Lead of the right class");
        blocks.push(Block::Lines(distribution(&lead, "cosine minus the next", &shown.lead)));
        blocks.push(Block::Table(likelihoods(&shift.attacks)));
        blocks.push(Block::Table(motions(&shift.attacks)));
        Some(Section::new(title, blocks))
    };
    records.iter().filter_map(section).collect()
}

/// Four distributions as rising curves.
fn distribution(title: &str, unit: &str, curves: &Curves) -> LineChart {
    let series = |name: &str, quantiles: &[f64]| {
        let last = quantiles.len().saturating_sub(1).max(1) as f64;
        let points = quantiles.iter().enumerate().map(|(i, x)| (*x, i as f64 / last));
        Series::new(name, points)
    };
    LineChart {
        title: title.into(),
        note: "A curve rises where its pictures lie; two that fall together are one distribution."
            .into(),
        x: Axis::linear(unit),
        y: Axis::percent("share of pictures below"),
        series: vec![
            series("clean", &curves.clean_before),
            series("clean, purified", &curves.clean_after),
            series("attacked", &curves.attacked_before),
            series("attacked, purified", &curves.attacked_after),
        ],
        ..LineChart::default()
    }
}

fn likelihoods(attacks: &[Shifts]) -> Table {
    let headings = ["attack", "space", "gap", "AUROC", "risk", "risk, purified", "control"];
    let mut table = Table::new("Likelihood and purification risk", &headings);
    for shifts in attacks {
        table.group(&shifts.attack);
        for space in &shifts.spaces {
            table.row(vec![
                Cell::Missing,
                Cell::Text(space.space.clone()),
                estimate(space.gap, 2),
                estimate(space.auroc, 3),
                estimate(space.risk_before, 2),
                estimate(space.risk_after, 2),
                estimate(space.control, 2),
            ]);
        }
    }
    table.note = "Gap: mean log-likelihood of a clean picture minus that of its attacked version, \
                  in standard deviations (pixels: a density with the spectrum of natural pictures; \
                  image embedding: a normal density fitted to other clean pictures; image and text: \
                  the cosine with the blank prompt). Risk: KL divergence in nats of attacked from \
                  clean pictures, of projections on fixed random directions; behind the purifier a \
                  lower bound of the purification risk. Control: the same between two halves of the \
                  clean pictures, which the estimate takes for 0."
        .into();
    table
}

fn motions(attacks: &[Shifts]) -> Table {
    let headings = [
        "attack",
        "moved by the attack",
        "turned, clean",
        "turned, attacked",
        "in the plane",
        "in the span of the names",
        "pictures",
    ];
    let mut table = Table::new("How far embeddings were moved", &headings);
    for shifts in attacks {
        table.row(vec![
            Cell::Text(shifts.attack.clone()),
            estimate(shifts.moved, 1),
            estimate(shifts.turn_clean, 1),
            estimate(shifts.turn_attacked, 1),
            estimate(shifts.plane, 3),
            estimate(shifts.names, 3),
            Cell::Count(shifts.pairs as u64),
        ]);
    }
    table.note = "Angles in degrees. The last shares are those of the squared displacement by the \
                  attack that lie in the plane of the clean embedding and the blank prompt (all \
                  that CLIPure-Cos can undo) and in the span of the class prompts."
        .into();
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::studies::shift::Space;
    use serde_json::json;

    #[test]
    fn studies_have_their_sections_and_are_in_no_table_of_accuracies() {
        let known = |value: f64| Some(Estimate { value, low: value - 0.1, high: value + 0.1 });
        let detection = |weight: f64, area: f64| {
            let mut record = Record { dataset: "scenes".into(), ..Record::default() };
            Detection {
                score: "blank-cosine".into(),
                weight,
                clean: 20,
                broken: 10,
                auroc: known(area),
                fpr95: known(0.3),
                undetected: 4,
            }
            .tell(&mut record);
            record
        };
        let curves = Curves {
            clean_before: vec![80.0, 85.0],
            clean_after: vec![80.0, 85.0],
            attacked_before: vec![70.0, 75.0],
            attacked_after: vec![71.0, 75.0],
        };
        let shifts = Shifts {
            attack: "on the defence".into(),
            pairs: 20,
            angle: curves.clone(),
            lead: curves,
            moved: known(30.0),
            spaces: vec![Space { space: "pixels".into(), gap: known(0.5), ..Space::default() }],
            ..Shifts::default()
        };
        let mut shift = Record { defence: "clipure-cos".into(), ..Record::default() };
        let value = json!(Shift { attacks: vec![shifts] });
        shift.extra.insert("embeddings".into(), value);
        let clean = Record { dataset: "scenes".into(), ..Record::default() }.counted(15, 20);
        let records = [clean, detection(0.0, 0.8), detection(10.0, 0.4), shift];
        let html = crate::Report::from_records("r", &records).render();
        for said in [
            "Likelihood as a detector",
            "0.800 (0.700 to 0.900)",
            "4 of 10",
            "What clipure-cos did to the embeddings",
            "attacked, purified",
            "30.0 (29.9 to 30.1)",
        ] {
            assert!(html.contains(said), "{said}");
        }
        assert!(!html.contains("fpr@tpr95"), "a table of accuracies has no such column");
        assert_eq!(records.iter().filter(|r| is_study(r)).count(), 3);
    }
}
