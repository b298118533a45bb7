//! The 49,408 ids of CLIP and how they are put together.

use std::collections::HashMap;
use std::io::Read;
use std::sync::LazyLock;

use flate2::read::GzDecoder;

/// Header and 48,894 merges of CLIP's `bpe_simple_vocab_16e6.txt`, cut behind the last merge
/// in use; see `assets/text/README.md`.
static MERGES: &[u8] = include_bytes!("../../../../assets/text/bpe_simple_vocab_16e6.txt.gz");

/// Ids below this are single bytes: 0..256 inside a word, 256..512 at its end.
const BYTE_IDS: u32 = 512;
/// Marks a token that ends a word, in the vocabulary file.
const WORD_END: &str = "</w>";

/// Which tokens join into which, and the bytes behind an id.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// Id of each byte inside a word.
    byte_ids: [u32; 256],
    /// Byte of each id below 256.
    bytes: [u8; 256],
    /// The two parts of each merge; index = rank, id = rank + 512.
    merges: Vec<(u32, u32)>,
    /// Rank of a pair, keyed by both ids.
    ranks: HashMap<u64, u32>,
}

impl Vocabulary {
    /// The embedded vocabulary, unpacked at the first call.
    pub(super) fn clip() -> &'static Self {
        static CLIP: LazyLock<Vocabulary> = LazyLock::new(|| {
            let mut text = String::new();
            #[expect(clippy::expect_used, reason = "embedded at build time; a test reads it")]
            GzDecoder::new(MERGES).read_to_string(&mut text).expect("embedded vocabulary");
            #[expect(clippy::expect_used, reason = "embedded at build time; a test reads it")]
            Vocabulary::parse(&text).expect("embedded vocabulary")
        });
        &CLIP
    }

    /// Reads the merge list: a header line, then one pair of tokens a line, in order of rank.
    /// `None` if a line is not a pair of tokens that exist already.
    fn parse(text: &str) -> Option<Self> {
        let letters: Vec<_> = (0u32..)
            .zip(byte_order())
            .map(|(id, (byte, letter))| (id, byte, format!("{letter}{WORD_END}")))
            .collect();
        let mut byte_ids = [0; 256];
        let mut bytes = [0; 256];
        // Keys are slices of these strings: allocating each apart would double the time.
        let mut ids: HashMap<&str, u32> = HashMap::with_capacity(50_000);
        for (id, byte, letter) in &letters {
            byte_ids[usize::from(*byte)] = *id;
            bytes[*id as usize] = *byte;
            ids.insert(letter.trim_end_matches(WORD_END), *id);
            ids.insert(letter, id + 256);
        }
        let joined = text.replace(' ', "");
        let mut merges = Vec::with_capacity(49_000);
        let mut ranks = HashMap::with_capacity(49_000);
        for (rank, (line, joined)) in (0u32..).zip(text.lines().zip(joined.lines()).skip(1)) {
            let (left, right) = line.split_once(' ')?;
            let pair = (*ids.get(left)?, *ids.get(right)?);
            ids.insert(joined, BYTE_IDS + rank);
            ranks.insert(key(pair), rank);
            merges.push(pair);
        }
        Some(Self { byte_ids, bytes, merges, ranks })
    }

    /// The id of a byte, inside a word or at its end.
    pub(super) fn byte_id(&self, byte: u8, ends_word: bool) -> u32 {
        self.byte_ids[usize::from(byte)] + if ends_word { 256 } else { 0 }
    }

    /// The rank at which two neighbours join; lower joins earlier.
    pub(super) fn rank(&self, left: u32, right: u32) -> Option<u32> {
        self.ranks.get(&key((left, right))).copied()
    }

    /// The two parts of the merge with this rank.
    pub(super) fn parts(&self, rank: u32) -> (u32, u32) {
        self.merges[rank as usize]
    }

    /// The id that the merge with this rank makes.
    pub(super) fn merged(rank: u32) -> u32 {
        BYTE_IDS + rank
    }

    /// Appends the bytes of `id`, and a space where it ends a word; U+FFFD if there is no
    /// such id.
    pub(super) fn push_bytes(&self, id: u32, out: &mut Vec<u8>) {
        // Merges only join what came before them, so this ends; the stack is as deep as the
        // longest token has bytes.
        match id {
            0..256 => out.push(self.bytes[id as usize]),
            256..BYTE_IDS => out.extend([self.bytes[id as usize - 256], b' ']),
            _ => match self.merges.get((id - BYTE_IDS) as usize) {
                Some(&(left, right)) => {
                    self.push_bytes(left, out);
                    self.push_bytes(right, out);
                }
                None => out.extend("\u{fffd}".as_bytes()),
            },
        }
    }
}

fn key((left, right): (u32, u32)) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// All bytes in the order of their ids, with the letter that stands for each in the file: the
/// printable ones of Latin-1 stand for themselves and come first, the other 68 borrow the
/// letters from U+0100 on.
fn byte_order() -> impl Iterator<Item = (u8, char)> {
    let printable = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let themselves = (0..=255u8).filter(printable).map(|byte| (byte, char::from(byte)));
    let borrowed = (0..=255u8).filter(move |byte| !printable(byte)).zip('\u{100}'..);
    themselves.chain(borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_list_is_whole() {
        let clip = Vocabulary::clip();
        assert_eq!(clip.merges.len(), 48_894);
        assert_eq!(clip.ranks.len(), 48_894);
        let mut bytes = Vec::new();
        clip.push_bytes(BYTE_IDS, &mut bytes);
        clip.push_bytes(super::super::START - 1, &mut bytes);
        assert_eq!(bytes, b"injekyll ");
    }

    #[test]
    fn every_merge_is_younger_than_its_parts() {
        for (rank, &(left, right)) in (0u32..).zip(&Vocabulary::clip().merges) {
            assert!(left.max(right) < BYTE_IDS + rank);
        }
    }

    #[test]
    fn a_broken_list_is_noticed() {
        assert!(Vocabulary::parse("header\ni n\nin zzz\n").is_none());
        assert!(Vocabulary::parse("header\nin\n").is_none());
    }
}
