//! What can be drawn: names, styles, and which drawings training must not see.

use super::{
    pack::{Emoji, Pack},
    words::TEST_NAMES,
};
use crate::Stream;
use std::{collections::HashMap, sync::OnceLock};

/// The style that only tests draw.
pub(super) const HELD_OUT: &str = "twemoji";

/// A thing with a name.
pub(super) struct Name {
    pub(super) name: String,
    /// Position among the test names.
    pub(super) test: Option<usize>,
    /// Known drawings by style, as positions of emoji in the pack.
    pub(super) known: Vec<Vec<usize>>,
    /// Drawings withheld from training, by style.
    pub(super) withheld: Vec<Vec<usize>>,
}

/// All names with their drawings.
pub(super) struct Catalogue {
    pub(super) names: Vec<Name>,
    /// Positions of the test names, in their order.
    pub(super) tests: Vec<usize>,
    pub(super) held_out: usize,
}

impl Catalogue {
    /// The catalogue of the embedded pack.
    pub(super) fn get() -> &'static Self {
        static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
        CATALOGUE.get_or_init(|| Self::of(Pack::get()))
    }

    fn of(pack: &Pack) -> Self {
        let tests: HashMap<&str, usize> =
            TEST_NAMES.split_whitespace().enumerate().map(|(i, n)| (n, i)).collect();
        let held_out = pack.styles.iter().position(|s| s == HELD_OUT).unwrap_or(pack.styles.len());
        let mut names: Vec<Name> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (e, emoji) in pack.emoji.iter().enumerate() {
            let place = *places.entry(&emoji.name).or_insert_with(|| {
                names.push(Name {
                    name: emoji.name.clone(),
                    test: tests.get(emoji.name.as_str()).copied(),
                    known: vec![Vec::new(); pack.styles.len()],
                    withheld: vec![Vec::new(); pack.styles.len()],
                });
                names.len() - 1
            });
            for (style, drawing) in emoji.sprites.iter().enumerate() {
                let list = match drawing {
                    None => continue,
                    Some(_) if withheld(pack, emoji, style) => &mut names[place].withheld,
                    Some(_) => &mut names[place].known,
                };
                list[style].push(e);
            }
        }
        let mut by_test: Vec<_> =
            names.iter().enumerate().filter_map(|(i, n)| Some((n.test?, i))).collect();
        by_test.sort_unstable();
        let tests = by_test.into_iter().map(|(_, i)| i).collect();
        Self { names, tests, held_out }
    }

    /// The drawings of a name in a style.
    pub(super) fn drawings(&self, name: usize, style: usize, withheld: bool) -> &[usize] {
        let name = &self.names[name];
        if withheld { &name.withheld[style] } else { &name.known[style] }
    }

    /// The known drawings of a name in one of the styles: style uniform among those that have
    /// one, drawing uniform.
    pub(super) fn pick(
        &self,
        stream: &mut Stream,
        name: usize,
        styles: &[usize],
    ) -> (usize, usize) {
        let able = |s: &&usize| !self.drawings(name, **s, false).is_empty();
        let count = styles.iter().filter(able).count();
        let style =
            styles.iter().filter(able).nth(stream.below(count)).copied().unwrap_or_default();
        let drawings = self.drawings(name, style, false);
        (drawings.get(stream.below(drawings.len())).copied().unwrap_or_default(), style)
    }
}

/// Whether a drawing is kept from training: five in a hundred, chosen by hash of emoji and
/// draughtsman. Fluent's two styles are the same drawings with other shading, so they go
/// together; and a name never loses both draughtsmen for the same emoji.
fn withheld(pack: &Pack, emoji: &Emoji, style: usize) -> bool {
    let chosen = |hand: &str| fnv(&format!("{}|{hand}", emoji.emoji)).is_multiple_of(20);
    let drawn = |hand: &str| {
        let styles = pack.styles.iter().zip(&emoji.sprites);
        styles.into_iter().any(|(s, d)| s.starts_with(hand) && d.is_some())
    };
    match pack.styles[style].as_str() {
        "noto" => chosen("noto") && drawn("fluent"),
        hand if hand.starts_with("fluent") => chosen("fluent") && !chosen("noto") && drawn("noto"),
        _ => false,
    }
}

/// FNV-1a, 32 bits.
pub(super) fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Whether two things are never drawn together in training: an unordered pair in ten.
pub(super) fn held_pair(a: &str, b: &str) -> bool {
    let (first, second) = if a < b { (a, b) } else { (b, a) };
    fnv(&format!("{first}|{second}")).is_multiple_of(10)
}
