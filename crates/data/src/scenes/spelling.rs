//! How a set of scenes is spelled on the command line and in plans.

use super::{Looks, Part, ScenesConfig, Styles, styles};

/// Why scenes cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenesError {
    /// The text does not follow `scenes:COUNT:OPTION=VALUE,...`.
    #[error(
        "{text:?}: {reason}; scenes are spelled scenes:COUNT:side=64,part=plain,style=heldout,seed=1"
    )]
    Spelling {
        /// What was read.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture side that cannot be drawn.
    #[error("a scene is drawn with a side of 8 to 1024 pixels, not {0}")]
    Side(u32),
    /// There is no such style.
    #[error("there is no style {0:?}; there are {known}", known = styles().join(", "))]
    Style(String),
    /// The part `withheld` was asked for in a style of which no drawing is withheld.
    #[error("no drawing of the chosen styles is withheld from training")]
    NothingWithheld,
}

/// Reads a spelling.
pub(super) fn parse(text: &str) -> Result<ScenesConfig, ScenesError> {
    let wrong = |reason: String| ScenesError::Spelling { text: text.to_owned(), reason };
    let mut pieces = text.splitn(3, ':');
    if pieces.next() != Some("scenes") {
        return Err(wrong("it does not begin with \"scenes\"".into()));
    }
    let (mut count, mut options) =
        (pieces.next().unwrap_or_default(), pieces.next().unwrap_or_default());
    if count.contains('=') {
        (count, options) = ("", count);
    }
    let options: Vec<(&str, &str)> = options
        .split(',')
        .filter(|o| !o.is_empty())
        .map(|o| o.split_once('=').ok_or_else(|| wrong(format!("{o:?} is not OPTION=VALUE"))))
        .collect::<Result<_, _>>()?;
    let part = match options.iter().find(|(key, _)| *key == "part") {
        None => Part::Train,
        Some((_, value)) => {
            Part::ALL.into_iter().find(|p| p.name() == *value).ok_or_else(|| {
                let known: Vec<_> = Part::ALL.iter().map(|p| p.name()).collect();
                wrong(format!("there is no part {value:?}; there are {}", known.join(", ")))
            })?
        }
    };
    let mut config = ScenesConfig::of(part);
    if !count.is_empty() {
        config.count = number(count).ok_or_else(|| wrong(format!("{count:?} is not a count")))?;
    }
    for (key, value) in options {
        let bad = || wrong(format!("{value:?} is no value for {key}"));
        match key {
            "part" => {}
            "side" => config.side = number(value).ok_or_else(bad)?,
            "seed" => config.seed = number(value).ok_or_else(bad)?,
            "focus" => config.focus = share(value).filter(|f| *f <= 1.0).ok_or_else(bad)?,
            "looks" => config.looks = Looks::default().scaled(share(value).ok_or_else(bad)?),
            "style" => {
                config.styles = match value {
                    "training" => Styles::Training,
                    "heldout" => Styles::HeldOut,
                    "all" => Styles::All,
                    name => Styles::Named(name.to_owned()),
                }
            }
            _ => {
                return Err(wrong(format!(
                    "there is no option {key:?}; there are side, seed, part, style, looks, focus"
                )));
            }
        }
    }
    Ok(config)
}

/// A whole number; underscores may group its digits.
fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.replace('_', "").parse().ok()
}

fn share(text: &str) -> Option<f32> {
    text.parse().ok().filter(|f: &f32| f.is_finite() && *f >= 0.0)
}

/// The spelling of a configuration. Shares of [`Looks`] chosen one by one have no spelling and
/// are only marked as such.
pub(super) fn spell(config: &ScenesConfig) -> String {
    let usual = ScenesConfig::of(config.part);
    let mut options = Vec::new();
    if config.part != Part::Train {
        options.push(format!("part={}", config.part.name()));
    }
    if config.side != usual.side {
        options.push(format!("side={}", config.side));
    }
    if config.seed != usual.seed {
        options.push(format!("seed={}", config.seed));
    }
    if config.styles != usual.styles {
        let style = match &config.styles {
            Styles::Training => "training",
            Styles::HeldOut => "heldout",
            Styles::All => "all",
            Styles::Named(name) => name,
        };
        options.push(format!("style={style}"));
    }
    if config.focus != usual.focus {
        options.push(format!("focus={}", config.focus));
    }
    if config.looks != usual.looks {
        let factor = (config.looks.gray / Looks::default().gray * 1e4).round() / 1e4;
        let scaled = config.looks == Looks::default().scaled(factor);
        options.push(if scaled { format!("looks={factor}") } else { "looks=own".into() });
    }
    match options.is_empty() {
        true => format!("scenes:{}", config.count),
        false => format!("scenes:{}:{}", config.count, options.join(",")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn spellings_are_read_and_written() {
        for text in [
            "scenes:20000",
            "scenes:5:side=48",
            "scenes:840:part=plain",
            "scenes:100:part=scene,side=32,seed=7,style=noto,focus=0.5",
            "scenes:100:style=all",
            "scenes:100:looks=0",
            "scenes:100:looks=1.5",
            "scenes:100:part=scene,looks=1",
        ] {
            assert_eq!(spell(&parse(text).unwrap()), text);
        }
        assert_eq!(parse("scenes").unwrap(), ScenesConfig::default());
        assert_eq!(parse("scenes:part=scene").unwrap(), ScenesConfig::of(Part::Scene));
        assert_eq!(parse("scenes:60_000").unwrap().count, 60_000);
        assert_eq!(parse("scenes:9:looks=0").unwrap().looks, Looks::default().scaled(0.0));
        for part in Part::ALL {
            let text = format!("scenes:7:part={}", part.name());
            assert_eq!(parse(&text).unwrap().part, part);
        }
    }

    #[test]
    fn misspellings_say_what_would_do() {
        for (text, hint) in [
            ("sceens:5", "begin with"),
            ("scenes:many", "not a count"),
            ("scenes:-1", "not a count"),
            ("scenes:5:side", "OPTION=VALUE"),
            ("scenes:5:size=3", "there are side, seed"),
            ("scenes:5:part=plane", "there are train, plain"),
            ("scenes:5:focus=2", "no value for focus"),
            ("scenes:5:looks=nan", "no value for looks"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(hint), "{error}");
        }
        let open = |text: &str| crate::scenes::Scenes::parse(text).err();
        assert_eq!(open("scenes:5:side=4"), Some(ScenesError::Side(4)));
        let style = open("scenes:5:style=paint").unwrap();
        assert!(style.to_string().contains("noto, fluent-flat"), "{style}");
        assert_eq!(
            open("scenes:5:part=withheld,style=heldout"),
            Some(ScenesError::NothingWithheld)
        );
    }
}
