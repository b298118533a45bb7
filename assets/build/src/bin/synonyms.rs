//! Builds `assets/text/synonyms.txt` from the database files of WordNet 3.0.
//!
//! `synonyms WORDNET ASSETS`: WORDNET holds `data.noun`, `noun.exc` and their kin, ASSETS is the
//! folder to write into. Same files, same bytes. Standard library only.
//!
//! Kept are the words of the synsets, without meanings and relations. Left out are synsets in
//! which no single plain word stands (nobody could look them up), and terms of abuse: those that
//! WordNet marks as obscene, disparaging or an ethnic slur, by a pointer or in so many words. A word
//! whose first meaning is a marked one (but for the milder marks in words alone) is left out of
//! its other synsets too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::{Path, PathBuf},
};

const PARTS: [(&str, char); 4] = [("noun", 'n'), ("verb", 'v'), ("adj", 'a'), ("adv", 'r')];

/// Usage pointers that lead to one of these make a synset a term of abuse.
const ABUSE: [&str; 3] = ["disparagement", "ethnic_slur", "obscenity"];

/// So do these words in its explanation.
const SAYS: [(&str, &[&str]); 6] = [
    ("obscene", &["term", "word", "name"]),
    ("vulgar", &["term", "word", "name", "slang"]),
    ("offensive", &["term", "word", "name", "slang", "and insulting", "and disparaging"]),
    ("disparaging", &["term", "word", "name"]),
    ("derogatory", &["term", "word", "name", "reference"]),
    ("insulting", &["term", "word", "name"]),
];

/// The first of them that are about obscenity.
const OBSCENE: usize = 2;

/// Words with these in them are left out wherever they stand: WordNet does not mark all of them.
const VULGAR: [&str; 3] = ["fuck", "cunt", "shithead"];

struct Synset {
    words: Vec<String>,
    /// Part of speech and offset of the usage domains it belongs to.
    usage: Vec<(char, u64)>,
    gloss: String,
}

fn main() -> Result<(), String> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [wordnet, assets] = args.as_slice() else {
        return Err("usage: synonyms WORDNET ASSETS".into());
    };
    let mut all = BTreeMap::new();
    for (part, letter) in PARTS {
        read(&wordnet.join(format!("data.{part}")))?
            .lines()
            .filter(|line| !line.starts_with(' '))
            .try_for_each(|line| {
                let (offset, synset) = synset(line).ok_or_else(|| format!("{part}: {line}"))?;
                all.insert((letter, offset), synset);
                Ok::<(), String>(())
            })?;
    }
    let domains: BTreeSet<(char, u64)> = all
        .iter()
        .filter(|(_, s)| ABUSE.iter().any(|word| s.words.iter().any(|w| w == word)))
        .map(|(key, _)| *key)
        .collect();
    let abusive: BTreeSet<(char, u64)> = all
        .iter()
        .filter(|(_, s)| s.usage.iter().any(|u| domains.contains(u)) || says(&s.gloss, &SAYS))
        .map(|(key, _)| *key)
        .collect();
    let worst = |key: &(char, u64)| {
        let marked = |s: &Synset| {
            s.usage.iter().any(|u| domains.contains(u)) || says(&s.gloss, &SAYS[..OBSCENE])
        };
        abusive.contains(key) && all.get(key).is_some_and(marked)
    };

    let mut first_senses = BTreeSet::new();
    for (part, letter) in PARTS {
        for line in read(&wordnet.join(format!("index.{part}")))?.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // lemma pos senses pointers [pointer...] senses tagged offset...
            let place = fields.get(3).and_then(|n| n.parse::<usize>().ok()).map(|n| n + 6);
            let first = place.and_then(|at| fields.get(at)?.parse().ok());
            if !line.starts_with(' ') && first.is_some_and(|o| worst(&(letter, o))) {
                first_senses.insert(fields[0].to_owned());
            }
        }
    }
    let mut out = String::new();
    let mut sums = [0; 3];
    for (part, letter) in PARTS {
        let mut exceptions = exceptions(&read(&wordnet.join(format!("{part}.exc")))?);
        exceptions.retain(|line| !line.iter().any(|word| first_senses.contains(word)));
        let bases: BTreeSet<&str> = exceptions.iter().flat_map(|e| &e[1..]).map(|w| &**w).collect();
        let own = all.iter().filter(|(key, _)| key.0 == letter && !abusive.contains(key));
        let (lines, single) = lines(own.map(|(_, s)| s), &bases, &first_senses);
        sums = [sums[0] + lines.len(), sums[1] + single.len(), sums[2] + exceptions.len()];
        writeln!(out, "[{part}]\n{}", lines.join("\n")).map_err(|e| e.to_string())?;
        single.iter().for_each(|word| out += &format!("{word}\n"));
        writeln!(out, "[{part} exceptions]").map_err(|e| e.to_string())?;
        exceptions.iter().for_each(|line| out += &format!("{}\n", line.join(" ")));
    }
    let path = assets.join("text/synonyms.txt");
    std::fs::write(&path, &out).map_err(|e| format!("{}: {e}", path.display()))?;
    println!(
        "{} synsets, {} words alone, {} exceptions; {} synsets and {} words left out; {} bytes",
        sums[0],
        sums[1],
        sums[2],
        abusive.len(),
        first_senses.len(),
        out.len()
    );
    Ok(())
}

/// A line of a data file: `offset file type words {word id}... pointers {symbol offset pos ends}...
/// | gloss`, the number of words in hexadecimal.
fn synset(line: &str) -> Option<(u64, Synset)> {
    let (fields, gloss) = line.split_once(" | ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let count = usize::from_str_radix(fields.get(3)?, 16).ok()?;
    let words = fields.get(4..4 + 2 * count)?.iter().step_by(2);
    // Adjectives may carry a mark of their place: `galore(ip)`.
    let words = words.map(|w| w.split('(').next().unwrap_or(w).to_lowercase()).collect();
    let pointers = fields.get(5 + 2 * count..)?;
    let usage = pointers
        .chunks_exact(4)
        .filter(|p| p[0] == ";u")
        .filter_map(|p| Some((p[2].chars().next()?, p[1].parse().ok()?)))
        .collect();
    Some((fields.first()?.parse().ok()?, Synset { words, usage, gloss: gloss.to_owned() }))
}

fn says(gloss: &str, marks: &[(&str, &[&str])]) -> bool {
    // What is quoted are examples.
    let text = gloss.split('"').next().unwrap_or_default();
    text.contains("ethnic slur")
        || text.contains("white trash")
        || marks.iter().any(|(adjective, nouns)| {
            nouns.iter().any(|noun| text.contains(&format!("{adjective} {noun}")))
        })
}

/// Lines of an exception file whose inflected form is a plain word.
fn exceptions(text: &str) -> Vec<Vec<String>> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    text.lines().map(words).filter(|words| words.len() > 1 && is_plain(&words[0])).collect()
}

fn is_plain(word: &str) -> bool {
    word.bytes().all(|b| b.is_ascii_lowercase())
}

/// The synsets of a part of speech that say something, and the words that have no others beside
/// them anywhere.
fn lines<'a>(
    synsets: impl Iterator<Item = &'a Synset>,
    bases: &BTreeSet<&str>,
    left_out: &BTreeSet<String>,
) -> (Vec<String>, BTreeSet<String>) {
    let is_key = |word: &str| is_plain(word) || bases.contains(word);
    let (mut lines, mut grouped, mut single) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for synset in synsets {
        let words: Vec<&str> = synset
            .words
            .iter()
            .map(String::as_str)
            .filter(|word| !left_out.contains(*word) && !VULGAR.iter().any(|v| word.contains(v)))
            .collect();
        let keys = words.iter().filter(|word| is_key(word)).map(|word| (*word).to_owned());
        if words.len() > 1 && words.iter().any(|word| is_key(word)) {
            grouped.extend(keys);
            lines.push(words.join(" "));
        } else {
            single.extend(keys);
        }
    }
    (lines, single.difference(&grouped).cloned().collect())
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    // Latin-1.
    Ok(bytes.into_iter().map(char::from).collect())
}
