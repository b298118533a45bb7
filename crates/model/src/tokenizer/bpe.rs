//! Joining the bytes of one word into tokens.
//!
//! The rule: as long as any two neighbours form a known pair, join all occurrences of the pair
//! with the lowest rank, left to right. A heap of (rank, position) gives the same order:
//! joining makes only tokens younger than the pair, so no pair that appears meanwhile can have
//! a lower rank, and equal ranks leave the heap from left to right.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::vocabulary::Vocabulary;

/// No neighbour on this side.
const NONE: u32 = u32::MAX;
/// The token here went into its left neighbour. No id is that large.
const GONE: u32 = u32::MAX;

/// Working space for words, kept from one word to the next.
pub(super) struct Merger {
    vocabulary: &'static Vocabulary,
    tokens: Vec<u32>,
    before: Vec<u32>,
    after: Vec<u32>,
    /// `rank << 32 | position` of the left token; stale entries are skipped when they come up.
    queue: BinaryHeap<Reverse<u64>>,
}

impl Merger {
    pub(super) fn new(vocabulary: &'static Vocabulary) -> Self {
        Self {
            vocabulary,
            tokens: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            queue: BinaryHeap::new(),
        }
    }

    /// Appends the ids of one word to `out`. Words over 4 GiB are taken in parts.
    pub(super) fn merge(&mut self, word: &[u8], out: &mut Vec<u32>) {
        for part in word.chunks(NONE as usize - 1) {
            self.load(part);
            while let Some(Reverse(entry)) = self.queue.pop() {
                self.join((entry >> 32) as u32, entry as u32);
            }
            out.extend(self.tokens.iter().filter(|&&token| token != GONE));
        }
    }

    fn load(&mut self, word: &[u8]) {
        let length = word.len() as u32;
        self.tokens.clear();
        self.tokens.extend(
            (1..).zip(word).map(|(end, &byte)| self.vocabulary.byte_id(byte, end == length)),
        );
        self.before.clear();
        self.before.extend((0..length).map(|at| at.wrapping_sub(1)));
        self.after.clear();
        self.after.extend((1..=length).map(|at| if at == length { NONE } else { at }));
        let mut entries = std::mem::take(&mut self.queue).into_vec();
        entries.extend((0..length).filter_map(|at| self.entry(at)));
        self.queue = BinaryHeap::from(entries);
    }

    /// The queue entry for the pair that begins at `at`, if it is a known pair.
    fn entry(&self, at: u32) -> Option<Reverse<u64>> {
        let right = self.after[at as usize];
        let right = *self.tokens.get(right as usize)?;
        let rank = self.vocabulary.rank(self.tokens[at as usize], right)?;
        Some(Reverse(u64::from(rank) << 32 | u64::from(at)))
    }

    fn join(&mut self, rank: u32, at: u32) {
        let (left, right) = self.vocabulary.parts(rank);
        let gone = self.after[at as usize];
        if self.tokens[at as usize] != left || self.tokens.get(gone as usize) != Some(&right) {
            return;
        }
        self.tokens[at as usize] = Vocabulary::merged(rank);
        self.tokens[gone as usize] = GONE;
        let next = self.after[gone as usize];
        self.after[at as usize] = next;
        if let Some(before) = self.before.get_mut(next as usize) {
            *before = at;
        }
        let previous = self.before[at as usize];
        if previous != NONE {
            self.queue.extend(self.entry(previous));
        }
        self.queue.extend(self.entry(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule as it is stated, quadratic.
    fn stated(vocabulary: &Vocabulary, word: &[u8]) -> Vec<u32> {
        let mut tokens: Vec<u32> = (1..)
            .zip(word)
            .map(|(end, &byte)| vocabulary.byte_id(byte, end == word.len()))
            .collect();
        while let Some(rank) =
            tokens.windows(2).filter_map(|pair| vocabulary.rank(pair[0], pair[1])).min()
        {
            let (left, right) = vocabulary.parts(rank);
            let mut joined = Vec::new();
            let mut rest = tokens.as_slice();
            while let Some((&first, behind)) = rest.split_first() {
                if first == left && behind.first() == Some(&right) {
                    joined.push(Vocabulary::merged(rank));
                    rest = &behind[1..];
                } else {
                    joined.push(first);
                    rest = behind;
                }
            }
            tokens = joined;
        }
        tokens
    }

    #[test]
    fn the_heap_joins_as_the_rule_says() {
        let vocabulary = Vocabulary::clip();
        let mut merger = Merger::new(vocabulary);
        let mut state = 1u64;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for round in 0..3000 {
            let alphabet: &[u8] =
                [&b"a"[..], b"ab", b"thearinos", b"!?.", b"\xe4\xbd\xa0\xf0\x9f\x98\x80"]
                    [round % 5];
            let word: Vec<u8> = (0..draw(60) + 1).map(|_| alphabet[draw(alphabet.len())]).collect();
            let mut ids = Vec::new();
            merger.merge(&word, &mut ids);
            assert_eq!(ids, stated(vocabulary, &word), "{word:?}");
        }
    }

    #[test]
    fn no_bytes_no_ids() {
        let mut ids = Vec::new();
        Merger::new(Vocabulary::clip()).merge(b"", &mut ids);
        assert!(ids.is_empty());
    }
}
