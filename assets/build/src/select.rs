//! Which emoji are taken, and under which name.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Groups of emojibase kept as a whole: animals and plants, food, places, activities, objects.
const GROUPS: [u32; 5] = [3, 4, 5, 6, 7];

/// Subgroups left out of them: skin and hair, globes and maps, religious buildings, clock faces.
const DROPPED_SUBGROUPS: [u32; 5] = [32, 33, 49, 52, 58];

/// Labels containing one of these name something a caption would not speak of.
const DROPPED_WORDS: [&str; 38] = [
    "moon",
    "o'clock",
    "-thirty",
    "japan",
    "button",
    "banknote",
    "speaker",
    "mailbox",
    "envelope",
    "zone",
    "hourglass",
    "book",
    "medal",
    "mahjong",
    "card",
    "sign",
    "symbol",
    "chart",
    "calendar",
    "folder",
    "page",
    "newspaper",
    "locked",
    "dividers",
    "tray",
    "globe",
    "funeral",
    "mosque",
    "kaaba",
    "coffin",
    "cigarette",
    "blood",
    "bomb",
    "military",
    "wedding",
    "syringe",
    "urn",
    "menorah",
];

/// One entry of emojibase's `data.json`.
#[derive(Deserialize)]
pub struct Entry {
    pub label: String,
    pub hexcode: String,
    pub emoji: String,
    #[serde(default)]
    pub tags: Vec<String>,
    pub group: Option<u32>,
    pub subgroup: Option<u32>,
    pub order: Option<u32>,
}

/// An emoji that was taken.
pub struct Chosen {
    pub name: String,
    pub group: u32,
    pub entry: Entry,
}

/// Applies the rules of `selection.txt`; the order is that of Unicode. Complains about rules
/// that match nothing, so that the list cannot rot.
pub fn select(entries: Vec<Entry>, rules: &str) -> Result<Vec<Chosen>, String> {
    let mut names: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for line in rules.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (label, name) = match (line.strip_prefix("- "), line.split_once(" = ")) {
            (Some(label), _) => (label, None),
            (None, Some((label, name))) => (label, Some(name)),
            (None, None) => (line, Some(line)),
        };
        if names.insert(label, name).is_some() {
            return Err(format!("two rules for {label:?}"));
        }
    }
    let mut unused: BTreeSet<&str> = names.keys().copied().collect();
    let mut chosen = Vec::new();
    for entry in entries {
        let label = entry.label.to_lowercase();
        unused.remove(label.as_str());
        let group = entry.group.unwrap_or(u32::MAX);
        let name = match names.get(label.as_str()) {
            Some(None) => continue,
            Some(Some(name)) => (*name).to_owned(),
            None => {
                let subgroup = entry.subgroup.unwrap_or(0);
                let unfit = !GROUPS.contains(&group)
                    || DROPPED_SUBGROUPS.contains(&subgroup)
                    || label.chars().any(|c| c.is_ascii_digit())
                    || DROPPED_WORDS.iter().any(|word| label.contains(word));
                if unfit {
                    continue;
                }
                label.strip_suffix(" face").unwrap_or(&label).to_owned()
            }
        };
        chosen.push(Chosen { name, group, entry });
    }
    if !unused.is_empty() {
        return Err(format!("rules that match no label: {unused:?}"));
    }
    chosen.sort_by_key(|c| c.entry.order.unwrap_or(u32::MAX));
    Ok(chosen)
}
