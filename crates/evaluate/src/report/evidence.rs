//! What stands behind a worst case: each attack alone and together, accuracy over iterations, the
//! norms that were enough, and the classes that suffered most.

use super::{Axis, Bar, BarChart, Block, Cell, LineChart, Section, Series, Share, Table, number};
use crate::{
    records::record::Record,
    run::evidence::{Alone, ClassAlive, Flow},
};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Bars of the histogram.
const BINS: usize = 8;
/// Classes that are shown.
const WORST: usize = 5;
/// Flows between classes that are shown.
const WIDEST: usize = 8;

/// The section of a worst-case record; `None` for a record without what it takes.
pub(super) fn section(worst: &Record) -> Option<Section> {
    let attacks: Vec<Alone> = list(worst, "attacks");
    if attacks.is_empty() {
        return None;
    }
    let mut blocks = vec![Block::Table(attack_table(worst, &attacks))];
    for by_queries in [false, true] {
        blocks.extend(progress(worst, &attacks, by_queries).map(Block::Lines));
    }
    blocks.extend(histogram(&list::<f32>(worst, "norms")).map(Block::Bars));
    blocks.extend(class_table(list(worst, "classes")).map(Block::Table));
    blocks.extend(flow_table(&list(worst, "flows")).map(Block::Table));
    Some(Section::new("What each attack did", blocks))
}

fn list<T: DeserializeOwned>(record: &Record, key: &str) -> Vec<T> {
    let value = record.extra.get(key).cloned();
    value.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default()
}

fn attack_table(worst: &Record, attacks: &[Alone]) -> Table {
    let mut headings =
        vec!["attack", "gradient", "alone", "with those above", "only this one broke"];
    let looks = attacks.iter().any(|part| part.nearest.is_some());
    if looks {
        headings.push("median smallest error");
    }
    let mut table = Table::new("", &headings);
    for part in attacks {
        let mut cells = vec![
            Cell::Text(part.attack.clone()),
            part.gradient.clone().map_or(Cell::Missing, Cell::Text),
            Cell::Share(Share::counted(part.alone, worst.n)),
            Cell::Share(Share::counted(part.cumulative, worst.n)),
            Cell::Count(part.unique as u64),
        ];
        if looks {
            let size = part.nearest.map(|size| number::number(f64::from(size), 4));
            cells.push(size.map_or(Cell::Missing, Cell::Text));
        }
        table.row(cells);
    }
    table.note = "Accuracy after the attack alone, and after it and all above it. The last column \
                  counts pictures that no other attack broke: an attack with none adds nothing \
                  here."
        .into();
    table
}

/// Accuracy after so many evaluations of the loss, or after so many queries: a curve for each
/// attack of that kind that needed several.
fn progress(worst: &Record, attacks: &[Alone], by_queries: bool) -> Option<LineChart> {
    let own = attacks.iter().filter(|part| part.by_queries == by_queries);
    let several = own.filter(|part| part.first.last().is_some_and(|last| *last > 1));
    let series: Vec<Series> =
        several.filter_map(|part| curve(worst, part, by_queries)).take(6).collect();
    let (title, note, x) = match by_queries {
        true => (
            "How accuracy falls with the number of queries",
            "These attacks see answers and no gradients. A query is a picture that is put to the \
             model; the first one is 1.",
            Axis::log("queries of a picture"),
        ),
        false => (
            "How accuracy falls while the attack goes on",
            "A curve that is still falling at its end belongs to an attack that was stopped too \
             early.",
            Axis::linear("evaluations of the loss"),
        ),
    };
    (!series.is_empty()).then(|| LineChart {
        title: title.into(),
        note: note.into(),
        x,
        y: Axis::percent("accuracy"),
        series,
        ..LineChart::default()
    })
}

/// The steps of one attack: evaluations are counted from 0, queries from 1.
fn curve(worst: &Record, part: &Alone, by_queries: bool) -> Option<Series> {
    let n = worst.n as f64;
    let start = worst.base? * n;
    let shift = f64::from(u8::from(by_queries));
    let mut points = vec![(shift, start / n)];
    for (broken, step) in (1..).zip(&part.first) {
        let point = (*step as f64 + shift, (start - f64::from(broken)) / n);
        match points.last_mut() {
            Some(last) if last.0 == point.0 => *last = point,
            _ => points.push(point),
        }
    }
    // What nothing more was found in belongs to the curve as well.
    if let (true, Some(most), Some(last)) = (by_queries, part.most, points.last().copied())
        && most as f64 > last.0
    {
        points.push((most as f64, last.1));
    }
    let name = match &part.gradient {
        Some(mode) => format!("{}, {mode}", part.attack),
        None => part.attack.clone(),
    };
    Some(Series::new(name, points))
}

/// The smallest change that was enough, over the pictures that were broken.
fn histogram(norms: &[f32]) -> Option<BarChart> {
    let most = norms.iter().copied().fold(0f32, f32::max);
    if norms.len() < BINS || most <= 0.0 {
        return None;
    }
    let mut counts = [0usize; BINS];
    for norm in norms {
        let place = (norm / most * BINS as f32) as usize;
        counts[place.min(BINS - 1)] += 1;
    }
    let edge = |i: usize| number::number(f64::from(most) * i as f64 / BINS as f64, 4);
    let bars = counts.iter().enumerate().map(|(i, count)| Bar {
        label: format!("{} to {}", edge(i), edge(i + 1)),
        value: Some(*count as f64),
        ..Bar::default()
    });
    Some(BarChart {
        title: "How large the changes were that broke a picture".into(),
        note: "Of several attacks the smallest change. Attacks with a fixed budget use it up, so \
               only attacks that look for small changes say how little is enough."
            .into(),
        label: "pictures".into(),
        bars: bars.collect(),
        ..BarChart::default()
    })
}

/// The classes with the least left.
fn class_table(mut classes: Vec<ClassAlive>) -> Option<Table> {
    if classes.len() < 2 {
        return None;
    }
    let share = |class: &ClassAlive| class.right as f64 / class.n.max(1) as f64;
    classes.sort_by(|a, b| share(a).total_cmp(&share(b)));
    let count = classes.len();
    let mut table =
        Table::new("The classes with the least left", &["class", "worst case", "pictures"]);
    for class in classes.iter().take(WORST) {
        table.row(vec![
            Cell::Text(class.class.clone()),
            Cell::Share(Share::counted(class.right, class.n)),
            Cell::Count(class.n as u64),
        ]);
    }
    let least = classes.first().map_or(0.0, share);
    table.note = format!("The lowest of {count} classes has {}.", number::percent(least));
    Some(table)
}

/// The classes that broken pictures were taken for.
fn flow_table(flows: &[Flow]) -> Option<Table> {
    let total: usize = flows.iter().map(|flow| flow.count).sum();
    if total < 2 {
        return None;
    }
    let headings = ["true class", "taken for", "pictures", "of those broken"];
    let mut table = Table::new("What broken pictures are taken for", &headings);
    for flow in flows.iter().take(WIDEST) {
        table.row(vec![
            Cell::Text(flow.from.clone()),
            Cell::Text(flow.to.clone()),
            Cell::Count(flow.count as u64),
            Cell::Text(number::percent(flow.count as f64 / total as f64)),
        ]);
    }
    let mut wrong: BTreeMap<&str, usize> = BTreeMap::new();
    flows.iter().for_each(|flow| *wrong.entry(&flow.to).or_default() += flow.count);
    let most = wrong.iter().max_by_key(|(_, count)| **count);
    table.note = format!(
        "{} of {} pairs of classes that occur. Each broken picture counts once, under the first \
         attack that broke it.",
        flows.len().min(WIDEST),
        flows.len()
    );
    // One picture each is no pull towards a class.
    if let Some((class, count)) = most.filter(|(_, count)| **count > 1) {
        let share = number::percent(*count as f64 / total as f64);
        table.note += &format!(" The class most are taken for is {class}, with {share}.");
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_worst_case_shows_its_parts() {
        let mut worst = Record { base: Some(0.9), ..Record::default() }.counted(2, 10);
        assert_eq!(section(&worst), None);
        let attacks = json!([
            {"attack": "fgsm", "alone": 6, "cumulative": 6, "unique": 0, "first": [1, 1, 1]},
            {"attack": "pgd", "alone": 2, "cumulative": 2, "unique": 4,
             "first": [1, 2, 2, 5, 7, 9, 9]},
        ]);
        worst.extra.insert("attacks".into(), attacks);
        worst.extra.insert("norms".into(), json!([0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08]));
        let classes =
            json!([{"class": "cat", "n": 5, "right": 2}, {"class": "dog", "n": 5, "right": 0}]);
        worst.extra.insert("classes".into(), classes);
        let flows = json!([
            {"from": "dog", "to": "owl", "count": 4}, {"from": "cat", "to": "dog", "count": 2},
            {"from": "cat", "to": "owl", "count": 1},
        ]);
        worst.extra.insert("flows".into(), flows);
        let section = section(&worst).unwrap();
        assert_eq!(section.blocks.len(), 5);
        let html = section.html(1);
        let flow = "The class most are taken for is owl, with 71.4%";
        for said in ["only this one broke", "evaluations of the loss", "dog", "pictures", flow] {
            assert!(html.contains(said), "{said}");
        }
        let Block::Lines(chart) = &section.blocks[1] else { panic!("no curve") };
        assert_eq!(chart.x.label, "evaluations of the loss");
        assert_eq!(chart.series.len(), 1, "one step is no curve");
        let last = chart.series[0].points.last().unwrap();
        assert_eq!((last.x, (last.y * 10.0).round()), (9.0, 2.0));
    }
    #[test]
    fn attacks_without_gradients_have_a_curve_over_queries() {
        let mut worst = Record { base: Some(0.9), ..Record::default() }.counted(2, 10);
        let attacks = json!([
            {"attack": "pgd", "alone": 7, "cumulative": 7, "unique": 0, "first": [1, 5]},
            {"attack": "square", "alone": 5, "cumulative": 5, "unique": 1, "first": [0, 9, 9, 99],
             "by_queries": true, "most": 1001, "nearest": 0.25},
        ]);
        worst.extra.insert("attacks".into(), attacks);
        let section = section(&worst).unwrap();
        let charts: Vec<&LineChart> = section
            .blocks
            .iter()
            .filter_map(|block| match block {
                Block::Lines(chart) => Some(chart),
                _ => None,
            })
            .collect();
        let [loss, queries] = charts[..] else { panic!("two curves: {}", charts.len()) };
        assert_eq!((loss.series.len(), loss.series[0].name.as_str()), (1, "pgd"));
        let points: Vec<(f64, i64)> = queries.series[0]
            .points
            .iter()
            .map(|point| (point.x, (point.y * 10.0).round() as i64))
            .collect();
        // The first query is 1, and the curve goes on to the last one.
        assert_eq!(points, [(1.0, 8), (10.0, 6), (100.0, 5), (1001.0, 5)]);
        let html = section.html(1);
        assert!(html.contains("queries of a picture") && html.contains("0.25"));
    }
}
