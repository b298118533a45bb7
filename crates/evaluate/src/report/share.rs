//! A share of samples with its interval, and the bar that draws it.

use super::{escape, number};
use crate::{records::record::Record, statistics::interval::Interval};

/// A share (fraction) of samples, with what is known about its uncertainty.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// The fraction; `None` when there is no number.
    pub value: Option<f64>,
    /// Lower and upper end of its interval, as fractions.
    pub interval: Option<(f64, f64)>,
    /// Hits and samples.
    pub counts: Option<(usize, usize)>,
}

impl Share {
    /// `k` of `n` with Wilson's 95 percent interval.
    pub fn counted(k: usize, n: usize) -> Self {
        if n == 0 {
            return Self::default();
        }
        let interval = Interval::wilson(k, n, 0.95);
        Self {
            value: Some(k as f64 / n as f64),
            interval: Some((interval.low, interval.high)),
            counts: Some((k, n)),
        }
    }

    /// A fraction without counts, such as a published number.
    pub fn bare(value: f64) -> Self {
        Self { value: value.is_finite().then_some(value), ..Self::default() }
    }

    /// The share and interval of a record.
    pub fn of(record: &Record) -> Self {
        Self {
            value: record.share().filter(|share| share.is_finite()),
            interval: record.interval.map(|interval| (interval.low, interval.high)),
            counts: (record.n > 0).then_some((record.correct, record.n)),
        }
    }

    /// `30.5%`, or a dash.
    pub fn percent(&self) -> String {
        self.value.map_or(number::MISSING.into(), number::percent)
    }

    /// `24.5–37.2`, or nothing.
    pub fn range(&self) -> String {
        self.interval.map_or(String::new(), |(low, high)| number::percent_range(low, high))
    }

    /// One sentence for people who cannot see the bar.
    pub fn words(&self) -> String {
        let Some(value) = self.value else { return "no number".into() };
        let mut words = number::percent(value);
        if let Some((low, high)) = self.interval {
            words += &format!(", interval {} to {}", number::percent(low), number::percent(high));
        }
        if let Some((k, n)) = self.counts {
            words += &format!(" ({} of {})", number::count(k as u64), number::count(n as u64));
        }
        words
    }

    /// The share as a dot on a track from 0 to 100 percent, its interval as a band. `class` names
    /// the colour; `chance` draws a mark for guessing.
    pub(crate) fn bar(&self, class: &str, chance: Option<f64>) -> String {
        let words = escape::html(&self.words());
        // Percent coordinates let the bar take any width without scaling its strokes.
        let mut svg = format!(
            "<svg class=\"bar {class}\" role=\"img\" aria-label=\"{words}\"><title>{words}</title>\
             <line class=\"track\" x1=\"0\" x2=\"100%\" y1=\"50%\" y2=\"50%\"/>"
        );
        let at = |share: f64| number::coordinate(share.clamp(0.0, 1.0) * 100.0);
        if let Some(chance) = chance {
            let x = at(chance);
            svg +=
                &format!("<line class=\"chance\" x1=\"{x}%\" x2=\"{x}%\" y1=\"0\" y2=\"100%\"/>");
        }
        if let Some((low, high)) = self.interval {
            let (x, width) = (at(low), at((high - low).max(0.0)));
            svg += &format!(
                "<rect class=\"band\" x=\"{x}%\" width=\"{width}%\" y=\"25%\" height=\"50%\" rx=\"3\"/>"
            );
        }
        if let Some(value) = self.value {
            svg += &format!("<circle class=\"dot\" cx=\"{}%\" cy=\"50%\" r=\"5.5\"/>", at(value));
        }
        svg + "</svg>"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_bar() {
        let share = Share::counted(61, 200);
        assert_eq!(share.percent(), "30.5%");
        assert_eq!(share.range(), "24.5–37.2");
        assert_eq!(share.words(), "30.5%, interval 24.5% to 37.2% (61 of 200)");
        assert!(share.bar("bad", Some(0.1)).contains("cx=\"30.5%\""));
        assert_eq!(Share::counted(0, 0).percent(), "–");
        assert_eq!(Share::bare(f64::NAN).words(), "no number");
        assert!(!Share::bare(f64::NAN).bar("", None).contains("NaN"));
    }
}
