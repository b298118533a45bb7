//! Which part of the samples a run takes.
//!
//! A part is chosen by sample, never by attack, so that every part has its own survivors and the
//! parts together are the whole. It depends on the sample's key alone: whoever adds samples to a
//! source does not move the others.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};

/// Part `index` of `of` parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shard {
    /// Its number, from 0.
    pub index: u64,
    /// How many there are.
    pub of: u64,
}

impl Default for Shard {
    fn default() -> Self {
        Self { index: 0, of: 1 }
    }
}

impl Shard {
    /// Whether the sample `key` belongs to this part.
    pub fn has(&self, key: &str) -> bool {
        let hash: [u8; 32] = Sha256::digest(key).into();
        // A subset takes the smallest hashes, which begin alike; their ends are still even.
        let [.., a, b, c, d, e, f, g, h] = hash;
        u64::from_le_bytes([a, b, c, d, e, f, g, h]) % self.of.max(1) == self.index
    }

    /// Whether this is everything.
    pub fn is_whole(&self) -> bool {
        self.of <= 1
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((index, of)) if index < of => Ok(Self { index, of }),
            _ => Err("expected I/N with I below N, such as 0/4".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_lies_in_exactly_one_part_and_parts_are_even() {
        let mut sizes = [0; 5];
        for key in (0..1000).map(|i| format!("sample {i}")) {
            let homes: Vec<u64> =
                (0..5).filter(|&index| Shard { index, of: 5 }.has(&key)).collect();
            assert_eq!(homes.len(), 1);
            sizes[homes[0] as usize] += 1;
            assert!(Shard::default().has(&key));
        }
        assert!(sizes.iter().all(|size| (150..250).contains(size)), "{sizes:?}");
        assert_eq!("3/4".parse(), Ok(Shard { index: 3, of: 4 }));
        for wrong in ["4/4", "1", "a/b", "-1/3", "0/0"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
