//! Drawing of line charts as SVG.

use super::{
    axis::Laid,
    chart::{LineChart, Point, Series},
    escape,
    number::coordinate as c,
};

/// Pixels a text takes at the charts' 15 pixels, by a wide font: what is wrong here overlaps there.
fn advance(text: &str) -> f64 {
    let of = |c: char| match c {
        '.' | ',' | ' ' | '/' | 'i' | 'l' | 'I' | '-' => 5.2,
        '−' | '–' => 9.4,
        '%' | 'm' | 'w' | 'M' | 'W' => 14.4,
        c if c.is_ascii() => 9.4,
        _ => 15.0,
    };
    text.chars().map(of).sum()
}

/// Colours and marks that the style sheet defines.
const COLOURS: usize = 6;

/// Names beside the curves' ends: quicker to read than a legend, where there is room.
pub(crate) struct Labels {
    width: f64,
}

impl Labels {
    /// Labels, if there are several curves, few enough, with names short enough.
    pub(crate) fn fitting(chart: &LineChart) -> Option<Self> {
        let longest = chart.series.iter().map(|s| advance(&s.name)).fold(0.0, f64::max);
        let fits = (2..=5).contains(&chart.series.len()) && longest <= 170.0;
        fits.then_some(Self { width: longest + 14.0 })
    }
}

/// The chart, `width` pixels wide.
pub(crate) fn svg(chart: &LineChart, width: f64, labels: Option<Labels>) -> String {
    let height = if width > 400.0 { 340.0 } else { 290.0 };
    let (top, bottom) = (36.0, height - 52.0);
    let values = chart.series.iter().flat_map(|s| &s.points).flat_map(|p| {
        let (low, high) = p.interval.unwrap_or((p.y, p.y));
        [p.y, low, high]
    });
    let zero = chart.reaches_zero().then_some(0.0);
    let rules = chart.rules.iter().map(|(at, _)| *at);
    let y = Laid::new(&chart.y, values.chain(rules).chain(zero), (bottom, top), 5, true);
    let left = y.ticks.iter().map(|(_, label)| advance(label)).fold(0.0, f64::max) + 12.0;
    // Half of the last label stands beyond the axis' end.
    let last = chart.x.ticks.last().map_or(40.0, |(_, label)| advance(label));
    let margin = (last / 2.0).max(labels.as_ref().map_or(0.0, |labels| labels.width));
    let right = width - margin;
    let across = chart.series.iter().flat_map(|s| &s.points).map(|p| p.x);
    let x = Laid::new(&chart.x, across, (left, right), if width > 400.0 { 6 } else { 4 }, false);

    let words = escape::html(&chart.words());
    let mut out = format!(
        "<svg class=\"curve\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{words}\">",
        c(width),
        c(height)
    );
    out += &frame(chart, &x, &y, (left, right, bottom));
    for (index, series) in chart.series.iter().enumerate() {
        out += &format!(
            "<g class=\"s{}\">{}</g>",
            index % COLOURS,
            draw(chart, series, index, &x, &y)
        );
    }
    if labels.is_some() {
        out += &end_labels(chart, &x, &y, (top, bottom));
    }
    out + "</svg>"
}

/// Names and marks of the curves above a chart.
pub(crate) fn legend(chart: &LineChart) -> String {
    let entries = chart.series.iter().enumerate().map(|(index, series)| {
        format!(
            "<span><svg class=\"key s{}\" viewBox=\"0 0 28 14\" aria-hidden=\"true\">\
             <line class=\"line\" x1=\"1\" x2=\"27\" y1=\"7\" y2=\"7\"/>{}</svg>{}</span>",
            index % COLOURS,
            mark(index, 14.0, 7.0),
            escape::html(&series.name)
        )
    });
    format!("<div class=\"legend\">{}</div>", entries.collect::<String>())
}

fn frame(chart: &LineChart, x: &Laid, y: &Laid, (left, right, bottom): (f64, f64, f64)) -> String {
    let mut out =
        format!("<text class=\"axis\" x=\"0\" y=\"15\">{}</text>", escape::html(&chart.y.label));
    for (at, label) in &y.ticks {
        let Some(place) = y.place(*at) else { continue };
        let class = if (place - bottom).abs() < 0.01 { "base" } else { "grid" };
        out += &format!(
            "<line class=\"{class}\" x1=\"{}\" x2=\"{}\" y1=\"{2}\" y2=\"{2}\"/>\
             <text x=\"{3}\" y=\"{4}\" text-anchor=\"end\">{5}</text>",
            c(left),
            c(right),
            c(place),
            c(left - 8.0),
            c(place + 5.0),
            escape::html(label)
        );
    }
    let mut taken = f64::NEG_INFINITY;
    for (at, label) in &x.ticks {
        let Some(place) = x.place(*at) else { continue };
        let half = advance(label) / 2.0;
        // Ticks may crowd (powers of two on a linear axis); their labels must not.
        let text = if place - half > taken + 6.0 { escape::html(label) } else { String::new() };
        if !text.is_empty() {
            taken = place + half;
        }
        out += &format!(
            "<line class=\"base\" x1=\"{0}\" x2=\"{0}\" y1=\"{1}\" y2=\"{2}\"/>\
             <text x=\"{0}\" y=\"{3}\" text-anchor=\"middle\">{text}</text>",
            c(place),
            c(bottom),
            c(bottom + 5.0),
            c(bottom + 22.0)
        );
    }
    out += &format!(
        "<text class=\"axis\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        c(right),
        c(bottom + 46.0),
        escape::html(&chart.x.label)
    );
    for (at, label) in &chart.rules {
        let Some(place) = y.place(*at) else { continue };
        out += &format!(
            "<line class=\"rule\" x1=\"{}\" x2=\"{}\" y1=\"{2}\" y2=\"{2}\"/>\
             <text class=\"rule\" x=\"{3}\" y=\"{4}\" text-anchor=\"end\">{5}</text>",
            c(left),
            c(right),
            c(place),
            c(right - 2.0),
            c(place - 5.0),
            escape::html(label)
        );
    }
    out
}

fn draw(chart: &LineChart, series: &Series, index: usize, x: &Laid, y: &Laid) -> String {
    let mut out = String::new();
    for run in runs(series, x, y) {
        let banded: Vec<_> = run
            .iter()
            .filter_map(|(px, _, p)| {
                let (low, high) = p.interval?;
                Some((*px, y.place(low)?, y.place(high)?))
            })
            .collect();
        if banded.len() > 1 {
            let upper = banded.iter().map(|(px, _, high)| (*px, *high));
            let lower = banded.iter().rev().map(|(px, low, _)| (*px, *low));
            out += &format!("<path class=\"area\" d=\"{}Z\"/>", path(upper.chain(lower)));
        }
        out += &format!("<path class=\"line\" d=\"{}\"/>", path(run.iter().map(|r| (r.0, r.1))));
        if LineChart::marks(series) {
            for (px, py, point) in &run {
                let words = format!(
                    "{}, {}: {}",
                    series.name,
                    chart.x.words(point.x),
                    chart.words_of(point)
                );
                out += &format!(
                    "<g>{}<circle class=\"hit\" cx=\"{}\" cy=\"{}\" r=\"11\"><title>{}</title></circle></g>",
                    mark(index, *px, *py),
                    c(*px),
                    c(*py),
                    escape::html(&words)
                );
            }
        }
    }
    out
}

/// Stretches of points that have a place; a point that has none parts them.
fn runs(series: &Series, x: &Laid, y: &Laid) -> Vec<Vec<(f64, f64, Point)>> {
    let mut runs = vec![Vec::new()];
    for point in &series.points {
        match (x.place(point.x), y.place(point.y)) {
            (Some(px), Some(py)) => {
                if let Some(run) = runs.last_mut() {
                    run.push((px, py, *point));
                }
            }
            _ => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut out = String::new();
    for (index, (x, y)) in points.enumerate() {
        out += &format!("{}{} {}", if index == 0 { 'M' } else { 'L' }, c(x), c(y));
    }
    out
}

/// A curve's mark: its shape tells the curves apart where colours do not.
fn mark(index: usize, x: f64, y: f64) -> String {
    let polygon = |corners: &[(f64, f64)]| {
        let d = path(corners.iter().map(|(dx, dy)| (x + dx, y + dy)));
        format!("<path class=\"mark\" d=\"{d}Z\"/>")
    };
    match index % COLOURS {
        1 => polygon(&[(-4.0, -4.0), (4.0, -4.0), (4.0, 4.0), (-4.0, 4.0)]),
        2 => polygon(&[(0.0, -5.0), (4.8, 4.0), (-4.8, 4.0)]),
        3 => polygon(&[(0.0, -5.5), (5.5, 0.0), (0.0, 5.5), (-5.5, 0.0)]),
        4 => polygon(&[(0.0, 5.0), (4.8, -4.0), (-4.8, -4.0)]),
        5 => polygon(&[(-5.0, -2.5), (5.0, -2.5), (5.0, 2.5), (-5.0, 2.5)]),
        _ => format!("<circle class=\"mark\" cx=\"{}\" cy=\"{}\" r=\"4.2\"/>", c(x), c(y)),
    }
}

/// Each curve's name at its right end, moved apart where two would touch.
fn end_labels(chart: &LineChart, x: &Laid, y: &Laid, (top, bottom): (f64, f64)) -> String {
    let mut ends: Vec<(f64, f64, usize)> = chart
        .series
        .iter()
        .enumerate()
        .filter_map(|(i, s)| {
            let (px, py, _) = *runs(s, x, y).last()?.last()?;
            Some((px, py, i))
        })
        .collect();
    ends.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.2.cmp(&b.2)));
    let mut floor = top;
    for end in &mut ends {
        end.1 = end.1.max(floor);
        floor = end.1 + 18.0;
    }
    let mut ceiling = bottom;
    for end in ends.iter_mut().rev() {
        end.1 = end.1.min(ceiling);
        ceiling = end.1 - 18.0;
    }
    let label = |(px, py, index): &(f64, f64, usize)| {
        let name = escape::html(&chart.series[*index].name);
        format!(
            "<text class=\"name s{}\" x=\"{}\" y=\"{}\">{name}</text>",
            index % COLOURS,
            c(px + 9.0),
            c(py + 5.0)
        )
    };
    ends.iter().map(label).collect()
}
