//! Scales: from a quantity to a place on the page, and the ticks a reader expects.

use super::number;

/// An axis of a chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// What it measures, with its unit.
    pub label: String,
    /// How it is divided.
    pub scale: Scale,
    /// Whether the values are fractions to be shown as percent.
    pub percent: bool,
    /// Ends; taken from the data when `None`.
    pub range: Option<(f64, f64)>,
    /// Ticks with their own labels (`4/255`); computed when empty.
    pub ticks: Vec<(f64, String)>,
}

/// How an axis is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Equal steps.
    #[default]
    Linear,
    /// Equal ratios; values that are not positive are left out.
    Log,
}

impl Axis {
    /// A linear axis over the range of the data.
    pub fn linear(label: impl Into<String>) -> Self {
        Self { label: label.into(), ..Self::default() }
    }

    /// A logarithmic axis over the range of the data.
    pub fn log(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Log, ..Self::default() }
    }

    /// Fractions shown as 0 to 100 percent.
    pub fn percent(label: impl Into<String>) -> Self {
        Self { percent: true, range: Some((0.0, 1.0)), ..Self::linear(label) }
    }

    /// A value in the axis' words.
    pub(crate) fn words(&self, value: f64) -> String {
        match self.ticks.iter().find(|(at, _)| *at == value) {
            Some((_, label)) => label.clone(),
            None if self.percent => number::percent(value),
            None if value == value.round() && value.abs() < 1e9 => number::number(value, 0),
            None => number::number(value, 4),
        }
    }
}

/// An axis laid out over so many pixels.
#[derive(Clone, Debug)]
pub(crate) struct Laid {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    /// Places of the ticks, in the axis' quantity, with their labels.
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Laid {
    /// Lays `axis` out between the pixels `from` and `to` for `values`, with about `wanted` ticks.
    /// `settle` widens the range to whole ticks.
    pub(crate) fn new(
        axis: &Axis,
        values: impl Iterator<Item = f64>,
        (from, to): (f64, f64),
        wanted: usize,
        settle: bool,
    ) -> Self {
        let fits = |v: &f64| v.is_finite() && (axis.scale == Scale::Linear || *v > 0.0);
        let (mut low, mut high) =
            axis.range.filter(|(low, high)| low < high).unwrap_or_else(|| {
                values
                    .filter(fits)
                    .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                        (low.min(value), high.max(value))
                    })
            });
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if axis.scale == Scale::Log && low <= 0.0 {
            low = high / 1000.0;
        }
        if high - low <= f64::EPSILON * high.abs() {
            (low, high) = match axis.scale {
                Scale::Linear => (low - 0.5 * low.abs().max(1.0), high + 0.5 * high.abs().max(1.0)),
                Scale::Log => (low / 2.0, high * 2.0),
            };
        }
        // A quantity that begins near zero is read from zero: steps, counts, radii.
        if axis.range.is_none() && axis.scale == Scale::Linear && low > 0.0 && low < 0.05 * high {
            low = 0.0;
        }
        let mut ticks = axis.ticks.clone();
        if ticks.is_empty() {
            ticks = match axis.scale {
                Scale::Log => decades(low, high, wanted),
                Scale::Linear => {
                    let step = nice((high - low) / wanted.max(1) as f64);
                    if settle && axis.range.is_none() {
                        (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
                    }
                    linear(low, high, step, axis.percent)
                }
            };
        }
        let (below, above) = (low - (high - low) * 1e-9, high + (high - low) * 1e-9);
        ticks.retain(|(at, _)| (below..=above).contains(at));
        Self { scale: axis.scale, low, high, from, to, ticks }
    }

    /// The pixel of a value; `None` for what has no place on the axis. Values beyond the ends stay
    /// at the ends.
    pub(crate) fn place(&self, value: f64) -> Option<f64> {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log if value <= 0.0 => return None,
            Scale::Log => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        share.is_finite().then(|| self.from + share.clamp(0.0, 1.0) * (self.to - self.from))
    }
}

/// The step of 1, 2, 2.5 or 5 times a power of ten next to `step`.
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|f| f * power >= step * 0.999);
    factor.unwrap_or(10.0) * power
}

fn linear(low: f64, high: f64, step: f64, percent: bool) -> Vec<(f64, String)> {
    let (first, last) = ((low / step - 1e-6).ceil() as i64, (high / step + 1e-6).floor() as i64);
    // A step below the resolution of the range would give ticks without end.
    (first..=last.min(first.saturating_add(50)))
        .map(|place| {
            let value = place as f64 * step;
            let label = if percent {
                format!("{}%", number::tick(value * 100.0, step * 100.0))
            } else {
                number::tick(value, step)
            };
            (value, label)
        })
        .collect()
}

fn decades(low: f64, high: f64, wanted: usize) -> Vec<(f64, String)> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let inside = |factors: &[f64]| -> Vec<f64> {
        (first..=last.min(first.saturating_add(60)))
            .flat_map(|power| factors.iter().map(move |f| f * 10f64.powi(power)))
            .filter(|at| (low * 0.999..=high * 1.001).contains(at))
            .collect()
    };
    let mut places = inside(&[1.0]);
    if places.len() < 3 {
        places = inside(&[1.0, 2.0, 5.0]);
    }
    let every = places.len().div_ceil(wanted.max(1) + 1).max(1);
    places.iter().step_by(every).map(|&at| (at, number::tick(at, at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis, values: &[f64]) -> Vec<String> {
        let laid = Laid::new(axis, values.iter().copied(), (0.0, 100.0), 5, true);
        laid.ticks.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_that_readers_expect() {
        assert_eq!(labels(&Axis::percent(""), &[]), ["0%", "20%", "40%", "60%", "80%", "100%"]);
        assert_eq!(labels(&Axis::linear(""), &[0.3, 4.7]), ["0", "1", "2", "3", "4", "5"]);
        assert_eq!(labels(&Axis::log(""), &[1e-5, 1e-2]), ["1e−5", "1e−4", "0.001", "0.01"]);
        assert_eq!(labels(&Axis::linear(""), &[f64::NAN]).len(), 6);
    }

    #[test]
    fn places() {
        let laid = Laid::new(&Axis::log(""), [1.0, 100.0].into_iter(), (0.0, 10.0), 5, false);
        assert_eq!(
            (laid.place(10.0), laid.place(0.0), laid.place(1e9)),
            (Some(5.0), None, Some(10.0))
        );
        assert_eq!(laid.place(f64::NAN), None);
        let flat = Laid::new(&Axis::linear(""), [3.0].into_iter(), (0.0, 10.0), 5, true);
        assert!(flat.place(3.0).is_some_and(|x| x > 0.0 && x < 10.0));
    }
}
