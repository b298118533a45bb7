//! Radii: how they are written, and accuracy over them.

use super::{Axis, LineChart, Point, Series, number, studies::is_study};
use crate::records::record::{Record, Threat};
use std::collections::BTreeMap;

/// `linf 4/255`, `l2 0.5`, `linf without bound`.
pub(crate) fn radius(threat: &Threat) -> String {
    let size = match threat.eps {
        None => "without bound".into(),
        Some(share) if threat.norm == PATCH => format!("of {}", number::percent(share)),
        Some(eps) => fraction(eps),
    };
    // The two belong on one line.
    format!("{}\u{a0}{size}", threat.norm).trim().to_owned()
}

/// The norm of a budget that is a share of the picture.
const PATCH: &str = "patch";

/// A radius as the field writes it: in steps of 1/255 where it is one.
fn fraction(eps: f64) -> String {
    let steps = eps * 255.0;
    if eps > 0.0 && steps <= 255.0 && (steps - steps.round()).abs() < 1e-6 {
        return format!("{}/255", steps.round());
    }
    number::number(eps, 3).trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Accuracy over the radius, a curve for each system and attack that has three radii or more.
pub(crate) fn over_eps(records: &[Record]) -> Option<LineChart> {
    let mut curves: BTreeMap<[&str; 6], Vec<&Record>> = BTreeMap::new();
    let attacked = |r: &&Record| !r.is_clean() && !r.is_certified() && !is_study(r);
    for record in records.iter().filter(attacked) {
        // The share of a patch is no size of a change.
        if let Some(threat) = record.threat.as_ref().filter(|t| t.eps.is_some() && t.norm != PATCH)
        {
            let Record { model, dataset, defence, attack, protocol, .. } = record;
            let key = [defence, attack, protocol, &threat.norm, model, dataset];
            curves.entry(key.map(String::as_str)).or_default().push(record);
        }
    }
    let differ = |place: usize| {
        let mut all = curves.keys().map(|key| key[place]);
        all.next().is_some_and(|first| all.any(|other| other != first))
    };
    let [several, norms, models, sets] = [0, 3, 4, 5].map(differ);
    let mut chart = LineChart {
        title: "How accuracy falls as the attacker may change more".into(),
        note: "Bands: 95% intervals. Accuracy must not rise with the radius and must reach zero."
            .into(),
        x: Axis::linear("largest change of a pixel"),
        y: Axis::percent("accuracy"),
        ..LineChart::default()
    };
    for ([defence, attack, _, norm, model, data], curve) in curves {
        let mut points: Vec<Point> = curve.iter().filter_map(|r| point(r)).collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        points.dedup_by(|a, b| a.x == b.x);
        if points.len() < 3 {
            continue;
        }
        let clean = records.iter().find(|r| r.is_clean() && r.is_same_system(curve[0]));
        if let Some(start) = clean.and_then(point).filter(|_| points[0].x > 0.0) {
            points.insert(0, start);
        }
        for point in &points {
            if !chart.x.ticks.iter().any(|(at, _)| *at == point.x) {
                chart.x.ticks.push((point.x, fraction(point.x)));
            }
        }
        let mut name = if several { format!("{attack}, {defence}") } else { attack.to_owned() };
        for (differs, other) in [(norms, norm), (models, model), (sets, data)] {
            if differs {
                name += &format!(", {other}");
            }
        }
        chart.series.push(Series { name, points });
    }
    chart.x.ticks.sort_by(|a, b| a.0.total_cmp(&b.0));
    (!chart.series.is_empty()).then_some(chart)
}

fn point(record: &Record) -> Option<Point> {
    let x = record.threat.as_ref().and_then(|threat| threat.eps).unwrap_or(0.0);
    let interval = record.interval.map(|interval| (interval.low, interval.high));
    Some(Point { x, y: record.share()?, interval })
}
