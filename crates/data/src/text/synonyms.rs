//! Synonyms out of WordNet 3.0.
//!
//! The table in `assets/text` keeps the words of WordNet's synsets, a line each, and its lists of
//! irregular forms; `assets/build` says how it is made and which terms of abuse are left out.

use flate2::read::GzDecoder;
use std::{
    collections::{BTreeSet, HashMap},
    io::Read,
    sync::LazyLock,
};

static TABLE: &[u8] = include_bytes!("../../../../assets/text/synonyms.txt.gz");

/// Where synonyms come from.
pub trait Synonyms {
    /// The synonyms of a word in lower-case letters, in alphabetical order, without itself. A
    /// synonym has letters and blanks only; one that has neither is empty.
    fn of(&self, word: &str) -> Vec<String>;
}

/// WordNet's synonyms, over all meanings and parts of speech of a word or of its base forms.
///
/// The first call in a process unpacks the table (some ten milliseconds).
pub fn synonyms() -> &'static dyn Synonyms {
    static BUILT_IN: LazyLock<WordNet> = LazyLock::new(|| {
        let mut text = String::new();
        // The table is part of the program, and a test reads it whole.
        let read = GzDecoder::new(TABLE).read_to_string(&mut text);
        WordNet::new(if read.is_ok() { text.leak() } else { "" })
    });
    &*BUILT_IN
}

/// Endings of inflected forms and what stands in their place in the base form.
const ENDINGS: [&[(&str, &str)]; 4] = [
    &[
        ("s", ""),
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ],
    &[
        ("s", ""),
        ("ies", "y"),
        ("es", "e"),
        ("es", ""),
        ("ed", "e"),
        ("ed", ""),
        ("ing", "e"),
        ("ing", ""),
    ],
    &[("er", ""), ("est", ""), ("er", "e"), ("est", "e")],
    &[],
];

/// One part of speech.
#[derive(Default)]
struct Part {
    /// The lines a word stands in.
    lines: HashMap<&'static str, Vec<&'static str>>,
    /// Base forms of irregular ones.
    exceptions: HashMap<&'static str, Vec<&'static str>>,
}

/// Noun, verb, adjective, adverb.
struct WordNet([Part; 4]);

impl WordNet {
    /// Reads sections of synsets and of exceptions in turn; each begins with a line in brackets.
    fn new(text: &'static str) -> Self {
        let mut parts: [Part; 4] = Default::default();
        let mut section = 0;
        for line in text.lines() {
            if line.starts_with('[') {
                section += 1;
                continue;
            }
            let Some(part) = parts.get_mut((section - 1) / 2) else { break };
            if section % 2 == 1 {
                for word in line.split(' ') {
                    part.lines.entry(word).or_default().push(line);
                }
            } else if let Some((form, bases)) = line.split_once(' ') {
                part.exceptions.entry(form).or_default().extend(bases.split(' '));
            }
        }
        Self(parts)
    }
}

impl Part {
    /// The base forms of `word` that are known: itself, an irregular form's, or what is left
    /// without endings (WordNet's `morphy`).
    fn bases(&self, word: &str, endings: &[(&str, &str)]) -> Vec<String> {
        let known = |forms: Vec<String>| {
            let mut kept: Vec<String> = Vec::new();
            for form in forms {
                if self.lines.contains_key(form.as_str()) && !kept.contains(&form) {
                    kept.push(form);
                }
            }
            kept
        };
        let word = word.to_owned();
        if let Some(bases) = self.exceptions.get(word.as_str()) {
            let bases = bases.iter().map(|base| (*base).to_owned());
            return known([word].into_iter().chain(bases).collect());
        }
        let shortened = |forms: &[String]| -> Vec<String> {
            let without = |form: &String| {
                let cut =
                    |(end, base): &(&str, &str)| Some(form.strip_suffix(end)?.to_owned() + base);
                endings.iter().filter_map(cut).collect::<Vec<_>>()
            };
            forms.iter().flat_map(without).collect()
        };
        let mut forms = shortened(std::slice::from_ref(&word));
        let found = known([word].into_iter().chain(forms.iter().cloned()).collect());
        if !found.is_empty() {
            return found;
        }
        while !forms.is_empty() {
            forms = shortened(&forms);
            let found = known(forms.clone());
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }
}

impl Synonyms for WordNet {
    fn of(&self, word: &str) -> Vec<String> {
        // No word of the table is longer, and endings would be looked for again and again.
        if word.len() > 64 {
            return Vec::new();
        }
        let mut found = BTreeSet::new();
        for (part, endings) in self.0.iter().zip(ENDINGS) {
            for base in part.bases(word, endings) {
                let lines = part.lines.get(base.as_str()).into_iter().flatten();
                found.extend(lines.flat_map(|line| line.split(' ')).map(letters));
            }
        }
        found.remove(word);
        found.into_iter().collect()
    }
}

/// A word of the table as it stands in a caption.
fn letters(word: &str) -> String {
    let blank = |c| if matches!(c, '_' | '-') { ' ' } else { c };
    word.chars().map(blank).filter(|c| matches!(c, 'a'..='z' | ' ')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inflected_forms_have_the_synonyms_of_their_base() {
        let of = |word| synonyms().of(word);
        assert!(of("dog").contains(&"domestic dog".to_owned()));
        // Regular, doubled away, irregular.
        for (form, want) in [("dogs", "hound"), ("churches", "church building"), ("went", "travel")]
        {
            assert!(of(form).contains(&want.to_owned()), "{form}: {:?}", of(form));
        }
        assert!(of("dogs").contains(&"dog".to_owned()) && !of("dog").contains(&"dog".to_owned()));
        assert!(of("").is_empty() && of("qwertyuiop").is_empty());
        assert!(of(&"s".repeat(1_000_000)).is_empty());
    }

    /// Two readings of the whole table: nothing in it is no word, and nobody is called names.
    #[test]
    fn the_table_is_whole_and_without_abuse() {
        let mut text = String::new();
        GzDecoder::new(TABLE).read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with('[')).count(), 8);
        assert_eq!(text.lines().count(), 73_190);
        for word in text.lines().filter(|line| !line.starts_with('[')).flat_map(|l| l.split(' ')) {
            assert!(!word.is_empty() && word.is_ascii(), "{word}");
        }
        // "Spade" has a meaning that is an insult.
        assert!(!synonyms().of("spade").iter().any(|word| word.starts_with("nig")));
        assert!(synonyms().of("shrimp").contains(&"prawn".to_owned()));
    }
}
