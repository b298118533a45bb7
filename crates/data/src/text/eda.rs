//! EDA, "easy data augmentation" (Wei and Zou, EMNLP 2019), as CleanCLIP and SafeCLIP use it.
//!
//! The released routine makes four candidates, one an operation, shuffles them and takes the
//! first. That is one operation out of four, each as likely, and only that one is done here. It runs
//! once when the data set is loaded, so that a caption keeps its rewording for the whole training;
//! here every epoch draws anew unless `fixed` is set.

use super::{Rewording, Synonyms, synonyms};
use crate::{
    Stream, parameters,
    spelling::{Parameters, Spelling, SpellingError},
};

/// The function words that are never replaced.
const STOP_WORDS: &str = "i me my myself we our ours ourselves you your yours yourself \
    yourselves he him his himself she her hers herself it its itself they them their theirs \
    themselves what which who whom this that these those am is are was were be been being have has \
    had having do does did doing a an the and but if or because as until while of at by for with \
    about against between into through during before after above below to from up down in out on \
    off over under again further then once here there when where why how all any both each few more \
    most other some such no nor not only own same so than too very s t can will just don should now";

/// How often a word without synonyms is passed over before nothing is inserted, and how often the
/// second place of a swap is drawn before nothing is swapped.
const INSERTION_TRIES: usize = 10;
const SWAP_TRIES: usize = 4;

/// Words of a caption that are looked at; the others are cut. No text tower reads as far, and
/// replacing and inserting take time in proportion to the square.
const MAX_WORDS: usize = 1000;

parameters! {
    /// One of four small changes of a caption, which also loses case, digits and punctuation.
    pub struct Eda {
        /// Share of the words that is replaced, inserted or swapped; always at least one.
        alpha: f32 = 0.1,
        /// Probability with which a deletion takes a word.
        deletion: f32 = 0.1,
        /// Probability with which a caption stays as it is, to the letter.
        keep: f32 = 0.0,
        /// One rewording for all epochs, as in the released programs.
        fixed: bool = false,
    }
}

/// What is done to a caption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Some words give way to synonyms, wherever they stand.
    Replace,
    /// Synonyms of some words are put anywhere but at the end.
    Insert,
    /// Some pairs of words change places.
    Swap,
    /// Every word may vanish, but one stays.
    Delete,
}

impl Operation {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Replace, Self::Insert, Self::Swap, Self::Delete];
}

impl Eda {
    /// The rewording of a spelling such as `eda:alpha=0.2`.
    ///
    /// # Errors
    /// Unknown settings, values out of range.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        let eda: Self = spelling.read()?;
        let share = |p| (0.0..=1.0).contains(&p);
        spelling.demand([
            ("alpha", share(eda.alpha), "a share from 0 to 1"),
            ("deletion", share(eda.deletion), "a probability"),
            ("keep", share(eda.keep), "a probability"),
        ])?;
        Ok(eda)
    }

    /// `caption` after one operation; unchanged when it has no letter.
    pub fn apply(
        &self,
        operation: Operation,
        caption: &str,
        synonyms: &dyn Synonyms,
        stream: &mut Stream,
    ) -> String {
        let cleaned = clean(caption);
        let words = cleaned.split_whitespace().take(MAX_WORDS).map(str::to_owned);
        let mut words: Vec<String> = words.collect();
        if words.is_empty() {
            return caption.to_owned();
        }
        // In f64, of the number as it was written: 0.3 of 10 words are 3.
        let alpha: f64 = self.alpha.to_string().parse().unwrap_or_else(|_| self.alpha.into());
        let n = ((alpha * words.len() as f64) as usize).max(1);
        match operation {
            Operation::Replace => replace(&mut words, n, synonyms, stream),
            Operation::Insert => (0..n).for_each(|_| insert(&mut words, synonyms, stream)),
            Operation::Swap => (0..n).for_each(|_| swap(&mut words, stream)),
            Operation::Delete => delete(&mut words, self.deletion, stream),
        }
        // A synonym may be empty ("2" has no letter), and then leaves no gap.
        clean(&words.join(" "))
    }
}

impl Rewording for Eda {
    fn reword(&self, caption: &str, stream: &mut Stream) -> String {
        if stream.chance(self.keep) {
            return caption.to_owned();
        }
        let operation = Operation::ALL[stream.below(4)];
        self.apply(operation, caption, synonyms(), stream)
    }

    fn is_fixed(&self) -> bool {
        self.fixed
    }

    fn spelling(&self) -> Spelling {
        self.spelled("eda")
    }
}

/// Lower-case words of plain letters: apostrophes vanish, everything else becomes one blank. A
/// blank stays at the end, not at the beginning.
fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !matches!(c, '\'' | '\u{2019}')).flat_map(char::to_lowercase) {
        match c {
            'a'..='z' => cleaned.push(c),
            _ if cleaned.is_empty() || cleaned.ends_with(' ') => {}
            _ => cleaned.push(' '),
        }
    }
    cleaned
}

/// Replaces every occurrence of `n` of the words that are no function words and have a synonym.
fn replace(words: &mut [String], n: usize, synonyms: &dyn Synonyms, stream: &mut Stream) {
    let mut candidates: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for word in words.iter() {
        let stop = STOP_WORDS.split(' ').any(|stop| stop == word);
        if !stop && seen.insert(word.as_str()) {
            candidates.push(word.clone());
        }
    }
    let mut replaced = 0;
    for at in stream.permutation(candidates.len()) {
        if replaced == n {
            break;
        }
        let word = &candidates[at];
        let found = synonyms.of(word);
        if found.is_empty() {
            continue;
        }
        let synonym = &found[stream.below(found.len())];
        words.iter_mut().filter(|w| *w == word).for_each(|w| w.clone_from(synonym));
        replaced += 1;
    }
}

/// Inserts a synonym of a random word, function words included.
fn insert(words: &mut Vec<String>, synonyms: &dyn Synonyms, stream: &mut Stream) {
    for _ in 0..INSERTION_TRIES {
        let found = synonyms.of(&words[stream.below(words.len())]);
        if !found.is_empty() {
            let synonym = found[stream.below(found.len())].clone();
            words.insert(stream.below(words.len()), synonym);
            return;
        }
    }
}

/// Exchanges two words; a place is drawn again when it is the first one's.
fn swap(words: &mut [String], stream: &mut Stream) {
    let first = stream.below(words.len());
    let second = (0..SWAP_TRIES).map(|_| stream.below(words.len())).find(|&at| at != first);
    if let Some(second) = second {
        words.swap(first, second);
    }
}

/// Deletes words; when all would go, one stays.
fn delete(words: &mut Vec<String>, probability: f32, stream: &mut Stream) {
    if words.len() == 1 {
        return;
    }
    let kept: Vec<String> = words.iter().filter(|_| !stream.chance(probability)).cloned().collect();
    *words = match kept.is_empty() {
        true => vec![words[stream.below(words.len())].clone()],
        false => kept,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_is_that_of_the_reference() {
        assert_eq!(clean("  Children\u{2019}s happy-faces\t(3)!"), "childrens happy faces ");
        assert_eq!(clean("42 \u{e9} \u{130}"), "i ");
        assert_eq!(clean(""), "");
    }

    #[test]
    fn captions_without_letters_are_returned() {
        let eda = Eda::default();
        for caption in ["", "1984", "\u{732b}", " - "] {
            let mut stream = super::super::stream(0, "k", 0, 0);
            assert_eq!(eda.reword(caption, &mut stream), caption);
        }
    }

    #[test]
    fn a_long_caption_is_changed_in_proportion() {
        let caption =
            (0..40).map(|i| format!("{}{}", "dog ".repeat(i % 2), "cat")).collect::<Vec<_>>();
        let caption = caption.join(" ");
        let words = caption.split(' ').count();
        let eda = Eda { alpha: 0.3, ..Eda::default() };
        let mut stream = super::super::stream(0, "long", 0, 0);
        let longer = eda.apply(Operation::Insert, &caption, &One, &mut stream);
        assert_eq!(longer.split(' ').count(), words + 18, "0.3 of {words} words");
        let fewer = eda.apply(Operation::Delete, &caption, &One, &mut stream);
        assert!(fewer.split(' ').count() < words);
    }

    #[test]
    fn a_caption_without_end_costs_no_more_than_its_length() {
        let endless = "red dog ".repeat(500_000);
        let eda = Eda { alpha: 1.0, ..Eda::default() };
        let begin = std::time::Instant::now();
        for operation in Operation::ALL {
            let mut stream = super::super::stream(0, "endless", 0, 0);
            let found = eda.apply(operation, &endless, &One, &mut stream);
            assert!(found.split(' ').count() <= 2 * MAX_WORDS, "{operation:?}");
        }
        assert!(begin.elapsed().as_secs() < 20);
    }

    struct One;

    impl Synonyms for One {
        fn of(&self, _word: &str) -> Vec<String> {
            vec!["animal".to_owned()]
        }
    }
}
