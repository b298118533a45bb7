//! Brace patterns as shells write them: `shards/{00000..00012}.tar`, `{train,val}.tar`.

/// More names than this are taken for a mistake.
const MOST: usize = 1_000_000;

/// All names a pattern stands for, in order. A text without braces stands for itself.
pub(super) fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let Some(open) = pattern.find('{') else {
        if pattern.contains('}') {
            return Err("a } without {".into());
        }
        return Ok(vec![pattern.into()]);
    };
    let close = pattern[open..].find('}').ok_or("a { without }")? + open;
    let (before, inside, after) =
        (&pattern[..open], &pattern[open + 1..close], &pattern[close + 1..]);
    if before.contains('}') || inside.contains('{') {
        return Err("braces within braces, or a } without {".into());
    }
    let heads = alternatives(inside)?;
    let tails = expand(after)?;
    if heads.len().saturating_mul(tails.len()) > MOST {
        return Err(format!("the pattern stands for more than {MOST} names"));
    }
    let join = |head: &String| {
        tails.iter().map(|tail| format!("{before}{head}{tail}")).collect::<Vec<_>>()
    };
    Ok(heads.iter().flat_map(join).collect())
}

fn alternatives(inside: &str) -> Result<Vec<String>, String> {
    let Some((first, last)) = inside.split_once("..") else {
        return Ok(inside.split(',').map(str::to_owned).collect());
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (Some(low), Some(high)) = (number(first), number(last)) else {
        return Err(format!(
            "{{{inside}}} is no range of numbers; right would be {{00000..00012}}"
        ));
    };
    if low > high {
        return Err(format!("the range {{{inside}}} runs backwards"));
    }
    if high - low >= MOST as u64 {
        return Err(format!("the range {{{inside}}} stands for more than {MOST} names"));
    }
    let padded = (first.starts_with('0') && first.len() > 1) || last.starts_with('0');
    let width = if padded { first.len().max(last.len()) } else { 0 };
    Ok((low..=high).map(|n| format!("{n:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_lists() {
        assert_eq!(expand("a.tar").unwrap(), ["a.tar"]);
        assert_eq!(expand("x{08..10}.tar").unwrap(), ["x08.tar", "x09.tar", "x10.tar"]);
        assert_eq!(expand("x{8..10}").unwrap(), ["x8", "x9", "x10"]);
        assert_eq!(expand("{a,b}{0..1}").unwrap(), ["a0", "a1", "b0", "b1"]);
        assert_eq!(expand("{00000..00012}").unwrap().len(), 13);
    }

    #[test]
    fn nonsense_is_named() {
        for bad in ["{", "}", "a}{b", "{{1..2}}", "{a..b}", "{3..1}", "{0..99999999}", "{..}"] {
            assert!(expand(bad).is_err(), "{bad}");
        }
        assert!(expand("{0..999}{0..9999}").unwrap_err().contains("more than"));
    }
}
