//! Reading with a known end: a length is compared with what is left before anything is allocated.

use super::Refusal;
use std::io::Read;

/// A reader that knows how many bytes are left.
pub(super) struct Input<R> {
    reader: R,
    left: u64,
    /// How messages call it.
    name: &'static str,
}

impl<R: Read> Input<R> {
    pub(super) fn new(reader: R, left: u64, name: &'static str) -> Self {
        Self { reader, left, name }
    }

    /// Bytes not read yet.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// How messages call it.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn truncated(&self) -> Refusal {
        Refusal::new("truncated_pickle", format!("`{}` ends in the middle", self.name))
    }

    pub(super) fn bytes(&mut self, count: u64) -> Result<Vec<u8>, Refusal> {
        if count > self.left {
            let reason =
                format!("`{}` announces {count} bytes where {} are left", self.name, self.left);
            return Err(Refusal::new("truncated_pickle", reason));
        }
        let mut bytes = vec![0; count as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Refusal> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn text(&mut self, count: u64) -> Result<String, Refusal> {
        String::from_utf8(self.bytes(count)?).map_err(|_| {
            Refusal::new("bad_pickle", format!("`{}` holds text that is not UTF-8", self.name))
        })
    }

    /// A line of text without its end.
    pub(super) fn line(&mut self) -> Result<String, Refusal> {
        const LONGEST: usize = 1 << 16;
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => break,
                byte if line.len() < LONGEST => line.push(byte),
                _ => {
                    let reason =
                        format!("`{}` holds a line of more than {LONGEST} bytes", self.name);
                    return Err(Refusal::new("bad_pickle", reason));
                }
            }
        }
        String::from_utf8(line).map_err(|_| {
            Refusal::new("bad_pickle", format!("`{}` holds text that is not UTF-8", self.name))
        })
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Refusal> {
        if bytes.len() as u64 > self.left || self.reader.read_exact(bytes).is_err() {
            return Err(self.truncated());
        }
        self.left -= bytes.len() as u64;
        Ok(())
    }
}
