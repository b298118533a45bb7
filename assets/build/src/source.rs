//! Where the drawings of each style come from.

use crate::{iconify, picture, read, select::Entry};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

const NOTO: &str = "emoji-datasource-google-16.0.0";
const TWEMOJI: &str = "emoji-datasource-twitter-16.0.0";
const FLUENT: &str = "fluentui-emoji-1.3.0";

/// The styles that draw test names only, with their packages. More would swell the program, and
/// the tests ask for these names only.
const ICONIFY: [(&str, &str); 4] = [
    ("blob", "iconify-noto-v1"),
    ("emojione", "iconify-emojione"),
    ("fxemoji", "iconify-fxemoji"),
    ("streamline", "iconify-streamline-emojis"),
];

/// A style's drawings.
pub enum Source {
    /// A folder of PNG files, and the file of each plain hexcode.
    Codes(PathBuf, BTreeMap<String, String>),
    /// A folder of SVG files named by label.
    Labels(PathBuf),
    /// A set of Iconify's.
    Iconify(iconify::Set),
}

/// The styles in the order of the pack; the last one is held out.
pub fn open(packages: &Path) -> Result<Vec<(&'static str, Source)>, String> {
    let table = include_str!("../iconify.txt");
    iconify::check_styles(table, &ICONIFY.map(|(style, _)| style))?;
    // Both packages name their files alike.
    let files = files_by_code(&packages.join(NOTO))?;
    let fluent = packages.join(FLUENT).join("icons");
    let mut sources = vec![
        ("noto", Source::Codes(packages.join(NOTO).join("img/google/64"), files.clone())),
        ("fluent-flat", Source::Labels(fluent.join("flat"))),
        ("fluent-modern", Source::Labels(fluent.join("modern"))),
    ];
    for (style, package) in ICONIFY {
        let json = read(&packages.join(package).join("icons.json"))?;
        sources.push((style, Source::Iconify(iconify::Set::new(style, &json, table)?)));
    }
    sources.push(("twemoji", Source::Codes(packages.join(TWEMOJI).join("img/twitter/64"), files)));
    Ok(sources)
}

impl Source {
    /// Whether the style has drawings of the test names only.
    pub fn tests_only(&self) -> bool {
        matches!(self, Self::Iconify(_))
    }

    /// The drawing of an emoji, if the style has it.
    pub fn sprite(&mut self, entry: &Entry) -> Result<Option<Vec<u8>>, String> {
        let path = match self {
            Self::Codes(folder, files) => files.get(&plain(&entry.hexcode)).map(|f| folder.join(f)),
            Self::Labels(folder) => Some(folder.join(fluent_file(&entry.label))),
            Self::Iconify(set) => {
                let svg = set.svg(&slug(&entry.label));
                let sprite = svg.map(|svg| picture::sprite_of_svg(&svg));
                return sprite.transpose().map_err(|e| format!("{}: {e}", entry.label));
            }
        };
        path.filter(|path| path.is_file()).map(|path| picture::sprite(&path)).transpose()
    }

    /// Complains about rules that matched nothing.
    pub fn finish(&self) -> Result<(), String> {
        match self {
            Self::Iconify(set) => set.finish(),
            _ => Ok(()),
        }
    }
}

/// A hexcode without variation selectors, in lower case: how the packages agree on an emoji.
fn plain(hexcode: &str) -> String {
    hexcode.to_lowercase().split('-').filter(|c| *c != "fe0f").collect::<Vec<_>>().join("-")
}

/// Picture file names of the emoji-datasource packages by plain hexcode.
fn files_by_code(package: &Path) -> Result<BTreeMap<String, String>, String> {
    let json: serde_json::Value = serde_json::from_str(&read(&package.join("emoji.json"))?)
        .map_err(|e| format!("emoji.json: {e}"))?;
    let list = json.as_array().ok_or("emoji.json is not a list")?;
    let field = |e: &serde_json::Value, key: &str| e[key].as_str().unwrap_or_default().to_owned();
    Ok(list.iter().map(|e| (plain(&field(e, "unified")), field(e, "image"))).collect())
}

/// A label in lower case: apostrophes dropped, other runs become a dash. Fluent and Iconify name
/// their drawings so.
fn slug(label: &str) -> String {
    let mut slug = String::new();
    for c in label.to_lowercase().chars().filter(|c| !matches!(c, '\'' | '’')) {
        let c = match c {
            'ñ' => 'n',
            c if c.is_ascii_alphanumeric() => c,
            _ => '-',
        };
        if c != '-' || !slug.ends_with('-') {
            slug.push(c);
        }
    }
    slug.trim_matches('-').to_owned()
}

/// The file of a label in a folder of Fluent's.
fn fluent_file(label: &str) -> String {
    let file = match slug(label).as_str() {
        "phoenix" => "phoenix-bird".to_owned(),
        "stuffed-flatbread" => "stuffedbread-flat".to_owned(),
        // Drawn in several skin tones.
        skin @ ("ear" | "nose" | "foot" | "baby") => format!("{skin}-default"),
        file => file.to_owned(),
    };
    format!("{file}.svg")
}
