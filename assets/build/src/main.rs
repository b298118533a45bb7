//! Builds `assets/emoji.pack` from four published packages.
//!
//! `emoji-pack PACKAGES ASSETS`: PACKAGES holds the four unpacked packages (their folders are
//! the constants below), ASSETS is the folder to write into. Same packages, same bytes.

mod pack;
mod picture;
mod select;

use std::path::{Path, PathBuf};

const NOTO: &str = "emoji-datasource-google-16.0.0";
const TWEMOJI: &str = "emoji-datasource-twitter-16.0.0";
const FLUENT: &str = "fluentui-emoji-1.3.0";
const NAMES: &str = "emojibase-data-17.0.0";

/// Styles in the order of the pack; the last one is held out.
const STYLES: [&str; 4] = ["noto", "fluent-flat", "fluent-modern", "twemoji"];

fn main() -> Result<(), String> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [packages, assets] = args.as_slice() else {
        return Err("usage: emoji-pack PACKAGES ASSETS".into());
    };
    let json = read(&packages.join(NAMES).join("en/data.json"))?;
    let entries = serde_json::from_str(&json).map_err(|e| format!("data.json: {e}"))?;
    let chosen = select::select(entries, include_str!("../selection.txt"))?;

    let files = files_by_code(&packages.join(NOTO))?;
    let mut sprites: Vec<Vec<Vec<u8>>> = vec![Vec::new(); STYLES.len()];
    let mut emoji = Vec::new();
    for c in chosen {
        let mut found = [const { None }; 4];
        for (s, style) in STYLES.iter().enumerate() {
            let path = match *style {
                "noto" => files
                    .get(&plain(&c.entry.hexcode))
                    .map(|f| packages.join(NOTO).join("img/google/64").join(f)),
                "twemoji" => files
                    .get(&plain(&c.entry.hexcode))
                    .map(|f| packages.join(TWEMOJI).join("img/twitter/64").join(f)),
                fluent => {
                    let folder = fluent.trim_start_matches("fluent-");
                    Some(
                        packages
                            .join(FLUENT)
                            .join("icons")
                            .join(folder)
                            .join(fluent_file(&c.entry.label)),
                    )
                }
            };
            match path.filter(|p| p.is_file()) {
                Some(path) => {
                    let sprite = picture::sprite(&path)?;
                    found[s] = Some(pack::Place {
                        index: sprites[s].len(),
                        colour: picture::colour_word(&sprite).map(str::to_owned),
                    });
                    sprites[s].push(sprite);
                }
                None => eprintln!("{} ({}): not in {style}", c.entry.label, c.entry.emoji),
            }
        }
        if found.iter().all(Option::is_none) {
            continue;
        }
        emoji.push(pack::Emoji {
            emoji: c.entry.emoji,
            name: c.name,
            group: c.group,
            tags: c.entry.tags,
            sprites: found.to_vec(),
        });
    }
    let bytes = pack::write(&STYLES, &emoji, &sprites)?;
    std::fs::write(assets.join("emoji.pack"), &bytes).map_err(|e| e.to_string())?;
    let names: std::collections::BTreeSet<_> = emoji.iter().map(|e| &e.name).collect();
    let counts: Vec<_> = sprites.iter().map(Vec::len).collect();
    println!(
        "{} names, {} emoji, sprites {counts:?}, {} bytes",
        names.len(),
        emoji.len(),
        bytes.len()
    );
    Ok(())
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// A hexcode without variation selectors, in lower case: how the packages agree on an emoji.
fn plain(hexcode: &str) -> String {
    hexcode.to_lowercase().split('-').filter(|c| *c != "fe0f").collect::<Vec<_>>().join("-")
}

/// Picture file names of the emoji-datasource packages by plain hexcode.
fn files_by_code(package: &Path) -> Result<std::collections::BTreeMap<String, String>, String> {
    let json: serde_json::Value = serde_json::from_str(&read(&package.join("emoji.json"))?)
        .map_err(|e| format!("emoji.json: {e}"))?;
    let list = json.as_array().ok_or("emoji.json is not a list")?;
    let field = |e: &serde_json::Value, key: &str| e[key].as_str().unwrap_or_default().to_owned();
    Ok(list.iter().map(|e| (plain(&field(e, "unified")), field(e, "image"))).collect())
}

/// Fluent names its files by label: lower case, apostrophes dropped, other runs become a dash.
fn fluent_file(label: &str) -> String {
    let mut file = String::new();
    for c in label.to_lowercase().chars().filter(|c| !matches!(c, '\'' | '’')) {
        let c = match c {
            'ñ' => 'n',
            c if c.is_ascii_alphanumeric() => c,
            _ => '-',
        };
        if c != '-' || !file.ends_with('-') {
            file.push(c);
        }
    }
    let file = match file.trim_matches('-') {
        "phoenix" => "phoenix-bird",
        "stuffed-flatbread" => "stuffedbread-flat",
        // Drawn in several skin tones.
        skin @ ("ear" | "nose" | "foot" | "baby") => return format!("{skin}-default.svg"),
        file => file,
    };
    format!("{file}.svg")
}
