//! Builds `assets/emoji.pack` from published packages.
//!
//! `emoji-pack PACKAGES ASSETS`: PACKAGES holds the unpacked packages (their folders are the
//! constants here and in `source.rs`), ASSETS is the folder to write into. Same packages, same
//! bytes.

mod iconify;
mod pack;
mod picture;
mod select;
mod source;

use source::Source;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

const NAMES: &str = "emojibase-data-17.0.0";

/// The names of the zero-shot tests, separated by white space.
const TEST_NAMES: &str = include_str!("../../../crates/data/src/scenes/test_names.txt");

fn main() -> Result<(), String> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [packages, assets] = args.as_slice() else {
        return Err("usage: emoji-pack PACKAGES ASSETS".into());
    };
    let json = read(&packages.join(NAMES).join("en/data.json"))?;
    let entries = serde_json::from_str(&json).map_err(|e| format!("data.json: {e}"))?;
    let chosen = select::select(entries, include_str!("../selection.txt"))?;
    let tests: BTreeSet<&str> = TEST_NAMES.split_whitespace().collect();

    let mut sources = source::open(packages)?;
    let mut sprites: Vec<Vec<Vec<u8>>> = vec![Vec::new(); sources.len()];
    let mut emoji = Vec::new();
    for c in chosen {
        let test = tests.contains(c.name.as_str());
        let mut found = Vec::new();
        for ((style, source), sprites) in sources.iter_mut().zip(&mut sprites) {
            let wanted = test || !source.tests_only();
            let sprite = if wanted { source.sprite(&c.entry)? } else { None };
            if wanted && sprite.is_none() {
                eprintln!("{} ({}): not in {style}", c.entry.label, c.entry.emoji);
            }
            found.push(sprite.map(|sprite| {
                let colour = picture::colour_word(&sprite).map(str::to_owned);
                sprites.push(sprite);
                pack::Place { index: sprites.len() - 1, colour }
            }));
        }
        if found.iter().all(Option::is_none) {
            continue;
        }
        emoji.push(pack::Emoji {
            emoji: c.entry.emoji,
            name: c.name,
            group: c.group,
            tags: c.entry.tags,
            sprites: found,
        });
    }
    sources.iter().try_for_each(|(_, source)| source.finish())?;
    let styles: Vec<&str> = sources.iter().map(|(style, _)| *style).collect();
    let bytes = pack::write(&styles, &emoji, &sprites)?;
    std::fs::write(assets.join("emoji.pack"), &bytes).map_err(|e| e.to_string())?;
    report(&sources, &emoji, &tests);
    let names: BTreeSet<_> = emoji.iter().map(|e| &e.name).collect();
    println!("{} names, {} emoji, {} bytes", names.len(), emoji.len(), bytes.len());
    Ok(())
}

/// Says what each style has, and which test names no style of test names only draws.
fn report(sources: &[(&str, Source)], emoji: &[pack::Emoji], tests: &BTreeSet<&str>) {
    let mut rest = tests.clone();
    for (s, (style, source)) in sources.iter().enumerate() {
        let drawn = || emoji.iter().filter(|e| e.sprites[s].is_some()).map(|e| e.name.as_str());
        let names: BTreeSet<&str> = drawn().filter(|name| tests.contains(name)).collect();
        println!(
            "{style}: {} sprites, {} of {} test names",
            drawn().count(),
            names.len(),
            tests.len()
        );
        if source.tests_only() {
            rest.retain(|name| !names.contains(name));
        }
    }
    println!("only in the styles that draw everything: {rest:?}");
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}
