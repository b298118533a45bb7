//! Charts as data: curves with interval bands, and horizontal bars.
//!
//! A line chart is drawn twice, for a desk and for a phone, because a picture that is scaled down
//! takes its letters along; the style sheet shows one of them. Below it stands the table of its
//! numbers, for those who cannot see curves and those who want to copy them.

use super::{
    axis::{Axis, Scale},
    curve, escape, number,
    table::{Cell, Table},
};

/// Curves over a common axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineChart {
    /// The statement or question the chart answers.
    pub title: String,
    /// How to read it; may be empty.
    pub note: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// Curves; six can be told apart by colour and mark.
    pub series: Vec<Series>,
    /// Horizontal lines to compare with, such as the accuracy of guessing.
    pub rules: Vec<(f64, String)>,
}

/// One curve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Its points, in the order they are joined.
    pub points: Vec<Point>,
}

/// One point of a curve. What is not a finite number is a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Place on the horizontal axis.
    pub x: f64,
    /// Value.
    pub y: f64,
    /// Ends of the value's interval, if it has one.
    pub interval: Option<(f64, f64)>,
}

impl Series {
    /// A curve without intervals.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let point = |(x, y)| Point { x, y, interval: None };
        Self { name: name.into(), points: points.into_iter().map(point).collect() }
    }

    /// At most `limit` points: runs of neighbours become their mean, with their range as interval.
    /// For training logs, whose every step would be a megabyte of page.
    pub fn thinned(&self, limit: usize) -> Self {
        if self.points.len() <= limit || limit == 0 {
            return self.clone();
        }
        let run = self.points.len().div_ceil(limit);
        let points = self.points.chunks(run).filter_map(|run| {
            let finite: Vec<f64> = run.iter().map(|p| p.y).filter(|y| y.is_finite()).collect();
            let (first, last) = (run.first()?, run.last()?);
            if finite.is_empty() {
                return Some(Point { x: first.x, y: f64::NAN, interval: None });
            }
            let low = finite.iter().copied().fold(f64::INFINITY, f64::min);
            let high = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let y = finite.iter().sum::<f64>() / finite.len() as f64;
            Some(Point { x: 0.5 * (first.x + last.x), y, interval: Some((low, high)) })
        });
        Self { name: self.name.clone(), points: points.collect() }
    }
}

impl LineChart {
    /// Adds a curve.
    pub fn with(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// The chart as HTML with inline SVG and the table of its numbers.
    pub fn html(&self) -> String {
        let mut out = String::from("<figure class=\"chart\">");
        out += &format!("<figcaption>{}</figcaption>", escape::html(&self.title));
        let labels = curve::Labels::fitting(self);
        let legend = if self.series.len() > 1 { curve::legend(self) } else { String::new() };
        let above = if labels.is_some() { "" } else { legend.as_str() };
        out += &format!("<div class=\"wide\">{above}{}</div>", curve::svg(self, 560.0, labels));
        out += &format!("<div class=\"narrow\">{legend}{}</div>", curve::svg(self, 340.0, None));
        if !self.note.is_empty() {
            out += &format!("<p class=\"note\">{}</p>", escape::html(&self.note));
        }
        out += &format!("<details><summary>Numbers</summary>{}</details>", self.table().html());
        out + "</figure>"
    }

    /// What the chart shows, in a sentence for people who do not see it.
    pub(crate) fn words(&self) -> String {
        let mut words = format!("{}: {} over {}.", self.title, self.y.label, self.x.label);
        for series in &self.series {
            let mut ends = series.points.iter().filter(|p| p.y.is_finite());
            if let Some(first) = ends.next() {
                let last = ends.next_back().unwrap_or(first);
                let (from, to) = (self.y.words(first.y), self.y.words(last.y));
                words += &format!(" {}: from {from} to {to}.", series.name);
            }
        }
        words
    }

    /// The chart's numbers: a row a place on the horizontal axis, a column a curve. At most sixty
    /// rows; longer curves are thinned.
    pub fn table(&self) -> Table {
        let series: Vec<Series> = self.series.iter().map(|s| s.thinned(60)).collect();
        let mut places: Vec<f64> =
            series.iter().flat_map(|s| &s.points).map(|p| p.x).filter(|x| x.is_finite()).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        let mut headings = vec![self.x.label.as_str()];
        headings.extend(series.iter().map(|s| s.name.as_str()));
        let mut table = Table::new("", &headings);
        for x in places {
            let mut cells = vec![Cell::Text(self.x.words(x))];
            for line in &series {
                let found = line.points.iter().find(|p| p.x == x && p.y.is_finite());
                cells.push(found.map_or(Cell::Missing, |p| Cell::Text(self.words_of(p))));
            }
            table.row(cells);
        }
        table
    }

    /// A point's value with its interval.
    pub(crate) fn words_of(&self, point: &Point) -> String {
        let value = self.y.words(point.y);
        match point.interval {
            Some((low, high)) if low.is_finite() && high.is_finite() => {
                format!("{value} ({} to {})", self.y.words(low), self.y.words(high))
            }
            _ => value,
        }
    }

    /// Whether a curve's points stand far enough apart to be drawn and hovered one by one.
    pub(crate) fn marks(series: &Series) -> bool {
        series.points.len() <= 40
    }

    /// Whether the vertical axis should begin at zero: the eye compares heights.
    pub(crate) fn reaches_zero(&self) -> bool {
        let lowest =
            self.series.iter().flat_map(|s| &s.points).map(|p| p.y).fold(f64::NAN, f64::min);
        self.y.scale == Scale::Linear && lowest >= 0.0
    }
}

/// Horizontal bars, one a category.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BarChart {
    /// The statement or question the chart answers.
    pub title: String,
    /// How to read it; may be empty.
    pub note: String,
    /// What the bars measure.
    pub label: String,
    /// Whether values are fractions to be shown as percent, on a scale to 100.
    pub percent: bool,
    /// Bars from the top.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bar {
    /// The category.
    pub label: String,
    /// Its value, not negative; `None` draws no bar.
    pub value: Option<f64>,
    /// Ends of the value's interval.
    pub interval: Option<(f64, f64)>,
    /// The bar to look at.
    pub strong: bool,
}

impl BarChart {
    /// The chart as HTML: label, bar and number in rows, so that it fits any width.
    pub fn html(&self) -> String {
        let largest = self.bars.iter().flat_map(|bar| {
            [bar.value, bar.interval.map(|interval| interval.1)].into_iter().flatten()
        });
        let most = if self.percent { 1.0 } else { largest.fold(0.0, f64::max) };
        let at = |value: f64| match value / most {
            share if share.is_finite() => number::coordinate(share.clamp(0.0, 1.0) * 100.0),
            _ => "0".into(),
        };
        let mut out = String::from("<figure class=\"chart bars\">");
        out += &format!("<figcaption>{}</figcaption>", escape::html(&self.title));
        if !self.label.is_empty() {
            out += &format!("<p class=\"unit\">{}</p>", escape::html(&self.label));
        }
        out += "<div class=\"rows\" role=\"list\">";
        for bar in &self.bars {
            let value = bar.value.filter(|v| v.is_finite());
            let shown = value.map_or(number::MISSING.into(), |v| self.words(v));
            let class = if bar.strong { "bad" } else { "plain" };
            let mut svg = format!("<svg class=\"hbar {class}\" aria-hidden=\"true\">");
            if let Some(value) = value {
                let width = at(value);
                svg += &format!(
                    "<rect class=\"fill\" width=\"{width}%\" y=\"15%\" height=\"70%\" rx=\"2\"/>"
                );
            }
            if let Some((low, high)) = bar.interval {
                let (low, high) = (at(low), at(high));
                svg += &format!(
                    "<line class=\"whisker\" x1=\"{low}%\" x2=\"{high}%\" y1=\"50%\" y2=\"50%\"/>"
                );
            }
            svg += "</svg>";
            let range = bar.interval.map_or(String::new(), |(low, high)| match self.percent {
                true => number::percent_range(low, high),
                false => format!("{}–{}", self.words(low), self.words(high)),
            });
            out += &format!(
                "<div class=\"row\" role=\"listitem\"><span class=\"label\">{}</span>{svg}\
                 <span class=\"value\"><b>{}</b> <small>{range}</small></span></div>",
                escape::html(&bar.label),
                escape::html(&shown)
            );
        }
        out += "</div>";
        if !self.note.is_empty() {
            out += &format!("<p class=\"note\">{}</p>", escape::html(&self.note));
        }
        out + "</figure>"
    }

    fn words(&self, value: f64) -> String {
        Axis { percent: self.percent, ..Axis::default() }.words(value)
    }
}
