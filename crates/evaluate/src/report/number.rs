//! Numbers as people read them.

/// What stands where there is no number.
pub(crate) const MISSING: &str = "–";

/// A fraction as percent with one digit. Shares that are almost, but not quite, none or all do
/// not round to a certainty.
pub(crate) fn percent(share: f64) -> String {
    let value = share * 100.0;
    if !value.is_finite() {
        MISSING.into()
    } else if value > 0.0 && value < 0.05 {
        "<0.1%".into()
    } else if value > 99.95 && value < 100.0 {
        ">99.9%".into()
    } else if value == 0.0 || value == 100.0 {
        format!("{}%", value.abs())
    } else {
        format!("{value:.1}%")
    }
}

/// A confidence as whole percent.
pub(crate) fn confidence(value: f64) -> String {
    match value * 100.0 {
        percent if !percent.is_finite() => MISSING.into(),
        percent if percent > 0.0 && percent < 1.0 => "<1%".into(),
        percent if percent > 99.0 && percent < 100.0 => ">99%".into(),
        percent => format!("{percent:.0}%"),
    }
}

/// The ends of an interval of a share: `24.5–37.2`.
pub(crate) fn percent_range(low: f64, high: f64) -> String {
    format!("{:.1}–{:.1}", low * 100.0, high * 100.0)
}

/// A difference of fractions in percentage points, with its sign.
pub(crate) fn points(difference: f64) -> String {
    if !difference.is_finite() {
        return MISSING.into();
    }
    let value = format!("{:.1}", difference.abs() * 100.0);
    let sign = match difference {
        _ if value == "0.0" => "±",
        d if d < 0.0 => "−",
        _ => "+",
    };
    format!("{sign}{value}")
}

/// A number with at most `digits` behind the point, thousands apart, very small and very large
/// ones with an exponent.
pub(crate) fn number(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return MISSING.into();
    }
    let size = value.abs();
    if size != 0.0 && (size < 0.5 * 10f64.powi(-(digits as i32)) || size >= 1e9) {
        return exponent(value);
    }
    let text = format!("{size:.digits$}");
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let sign = if value < 0.0 && text.contains(|c| ('1'..='9').contains(&c)) { "−" } else { "" };
    let point = if part.is_empty() { "" } else { "." };
    format!("{sign}{}{point}{part}", thousands(whole))
}

/// A whole number, thousands apart.
pub(crate) fn count(value: u64) -> String {
    thousands(&value.to_string())
}

/// A duration: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn seconds(value: f64) -> String {
    if !value.is_finite() || value < 0.0 {
        return MISSING.into();
    }
    let whole = value.round() as u64;
    match whole {
        0..10 => format!("{value:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Label of an axis tick, with as many digits as the distance between ticks needs.
pub(crate) fn tick(value: f64, step: f64) -> String {
    let size = value.abs();
    if value == 0.0 || size < step * 1e-6 {
        return "0".into();
    }
    if (step < 1e-3 && size < 0.1) || size >= 1e7 {
        return exponent(value);
    }
    if step >= 1000.0 && size >= 10_000.0 {
        let digits = usize::from(step % 1000.0 != 0.0);
        return format!("{}k", number(value / 1000.0, digits));
    }
    let digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    // A step of 2.5 needs the digit that its size alone does not show.
    let scaled = step * 10f64.powi(digits as i32);
    number(value, digits + usize::from((scaled - scaled.round()).abs() > 1e-9))
}

/// A coordinate in an SVG picture: short, and the same on every machine.
pub(crate) fn coordinate(value: f64) -> String {
    let value = if value.is_finite() { value } else { 0.0 };
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" { "0".into() } else { text.into() }
}

fn exponent(value: f64) -> String {
    format!("{value:.1e}").replace(".0e", "e").replace('-', "−")
}

fn thousands(digits: &str) -> String {
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_do_not_round_to_certainty() {
        let shown = [0.0, 1.0, 0.305, 0.0001, 0.9999, f64::NAN].map(percent);
        assert_eq!(shown, ["0%", "100%", "30.5%", "<0.1%", ">99.9%", "–"]);
        assert_eq!([0.05, -0.912, 0.0001].map(points), ["+5.0", "−91.2", "±0.0"]);
    }

    #[test]
    fn numbers_of_all_sizes() {
        assert_eq!(number(1_234_567.891, 2), "1,234,567.89");
        assert_eq!(number(-0.001, 2), "−1e−3");
        assert_eq!(number(0.0, 3), "0.000");
        assert_eq!(number(f64::INFINITY, 1), "–");
        assert_eq!(
            [0.42, 12.0, 200.0, 7500.0].map(seconds),
            ["0.4 s", "12 s", "3 min 20 s", "2 h 5 min"]
        );
        assert_eq!(
            [tick(0.25, 0.25), tick(2.0, 1.0), tick(20_000.0, 5000.0)],
            ["0.25", "2", "20k"]
        );
        assert_eq!(
            [tick(0.00002, 0.00001), tick(7.5, 2.5), tick(12_500.0, 2500.0)],
            ["2e−5", "7.5", "12.5k"]
        );
        assert_eq!([coordinate(1.0), coordinate(-0.001), coordinate(2.345)], ["1", "0", "2.35"]);
    }
}
