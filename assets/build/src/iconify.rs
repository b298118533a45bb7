//! Drawings from Iconify's packages: one `icons.json` a style, SVG bodies by name.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// What is read of `icons.json`.
#[derive(Deserialize)]
struct File {
    icons: BTreeMap<String, Icon>,
    #[serde(default)]
    aliases: BTreeMap<String, Alias>,
    width: f32,
    height: f32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Icon {
    body: String,
    width: Option<f32>,
    height: Option<f32>,
    /// Left out of the set's own listing; drawn all the same.
    #[serde(default, rename = "hidden")]
    _hidden: bool,
}

/// Another name of an icon. One that also turns or mirrors it is refused, not misdrawn.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Alias {
    parent: String,
    #[serde(default, rename = "hidden")]
    _hidden: bool,
}

/// A style, with the rules of `iconify.txt` for it.
pub struct Set {
    style: String,
    file: File,
    /// Icons by name without dashes: one of the sets writes words together.
    plain: BTreeMap<String, String>,
    /// Wanted name to icon; none where the set's drawing of that name is not to be used.
    rules: BTreeMap<String, Option<String>>,
    unused: BTreeSet<String>,
}

impl Set {
    /// Reads the text of an `icons.json` and the rules that begin with the style's name.
    pub fn new(style: &str, json: &str, table: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(json).map_err(|e| format!("{style}: {e}"))?;
        let mut rules = BTreeMap::new();
        for line in table.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let Some((of, rule)) = line.split_once(' ').filter(|(of, _)| *of == style) else {
                continue;
            };
            let (wanted, icon) = match (rule.strip_prefix("- "), rule.split_once(" = ")) {
                (Some(wanted), _) => (wanted, None),
                (None, Some((wanted, icon))) => (wanted, Some(icon.to_owned())),
                (None, None) => return Err(format!("not a rule: {line:?}")),
            };
            if icon.as_ref().is_some_and(|icon| !file.icons.contains_key(icon)) {
                return Err(format!("{of} has no icon of the rule {line:?}"));
            }
            if rules.insert(wanted.to_owned(), icon).is_some() {
                return Err(format!("two rules for {wanted:?} in {of}"));
            }
        }
        let unused = rules.keys().cloned().collect();
        let aliases = file.aliases.iter().map(|(name, alias)| (name, &alias.parent));
        // Icons last: an alias never hides an icon.
        let own = file.icons.keys().map(|name| (name, name));
        let plain =
            aliases.chain(own).map(|(n, icon)| (n.replace('-', ""), icon.clone())).collect();
        Ok(Self { style: style.to_owned(), file, plain, rules, unused })
    }

    /// The SVG file of what a dashed label names.
    pub fn svg(&mut self, wanted: &str) -> Option<String> {
        let plain = self.plain.get(&wanted.replace('-', ""));
        let name = match self.rules.get(wanted) {
            Some(None) => {
                // A refusal of what the set does not have counts as matching nothing.
                plain.map(|_| self.unused.remove(wanted));
                return None;
            }
            Some(Some(icon)) => {
                self.unused.remove(wanted);
                icon
            }
            None => plain?,
        };
        let Icon { body, width, height, .. } = self.file.icons.get(name)?;
        let (width, height) =
            (width.unwrap_or(self.file.width), height.unwrap_or(self.file.height));
        Some(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" \
             width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">{body}</svg>"
        ))
    }

    /// Complains about rules that matched nothing, so that the table cannot rot.
    pub fn finish(&self) -> Result<(), String> {
        if self.unused.is_empty() {
            return Ok(());
        }
        Err(format!("rules for {} that match nothing: {:?}", self.style, self.unused))
    }
}

/// Complains about a rule for a style that is none of these.
pub fn check_styles(table: &str, styles: &[&str]) -> Result<(), String> {
    let lines = table.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    for line in lines {
        if !line.split_once(' ').is_some_and(|(style, _)| styles.contains(&style)) {
            return Err(format!("rule for no style: {line:?}"));
        }
    }
    Ok(())
}
