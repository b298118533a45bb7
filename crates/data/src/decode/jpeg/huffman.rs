//! Huffman tables and the bits of a scan.

use crate::PictureError;

/// Codes up to this length are looked up at once.
const FAST: u32 = 9;

/// A Huffman table (T.81 annex C).
pub(super) struct Table {
    /// By the next [`FAST`] bits: length of the code (0: longer than that) and its symbol.
    fast: Box<[(u8, u8); 1 << FAST]>,
    /// By length: first code behind those of that length, left-aligned to 16 bits.
    ends: [u32; 17],
    /// By length: what to add to a code to get the index of its symbol.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Table {
    /// Reads a table; returns how many bytes it took.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, usize), &'static str> {
        let short = "a Huffman table (DHT) is too short";
        let counts = bytes.get(..16).ok_or(short)?;
        let total: usize = counts.iter().map(|&n| usize::from(n)).sum();
        if total > 256 {
            return Err("a Huffman table of more than 256 symbols");
        }
        let symbols = bytes.get(16..16 + total).ok_or(short)?.to_vec();
        let mut table =
            Self { fast: Box::new([(0, 0); 1 << FAST]), ends: [0; 17], offsets: [0; 17], symbols };
        let (mut code, mut index) = (0u32, 0usize);
        for length in 1..=16u32 {
            table.offsets[length as usize] = index as i32 - code as i32;
            for _ in 0..counts[length as usize - 1] {
                if code >= 1 << length {
                    return Err("a Huffman table with more codes than there is room for");
                }
                if length <= FAST {
                    let first = (code << (FAST - length)) as usize;
                    let entry = (length as u8, table.symbols[index]);
                    table.fast[first..first + (1 << (FAST - length))].fill(entry);
                }
                code += 1;
                index += 1;
            }
            table.ends[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Ok((table, 16 + total))
    }
}

/// Why a scan cannot go on. Small, because every symbol may give one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// This marker comes where bits are missing.
    Marker(u8),
    /// There is nothing more.
    End,
    /// No code begins with these bits.
    NoCode,
}

impl From<Stop> for PictureError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Marker(marker) => Self::Broken(format!(
                "JPEG: a scan breaks off at marker {marker:02x}, blocks are missing"
            )),
            Stop::End => Self::Truncated("JPEG ends within a scan".into()),
            Stop::NoCode => Self::Broken("JPEG: bits that no Huffman code begins with".into()),
        }
    }
}

/// The bits of a scan, without stuffed bytes. Stops at a marker.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, in the upper end.
    buffer: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, buffer: 0, count: 0 }
    }

    /// Bytes taken so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Reads as many whole bytes as there is room for.
    #[inline(always)]
    fn fill(&mut self) {
        const ONES: u64 = u64::MAX / 255;
        if let Some(bytes) = self.data.get(self.at..).and_then(|data| data.first_chunk()) {
            let next = u64::from_be_bytes(*bytes);
            // No byte is 0xff: none of the complement is zero.
            if (!next).wrapping_sub(ONES) & next & (ONES << 7) == 0 {
                let bits = (64 - self.count) & !7;
                if bits > 0 {
                    self.buffer |= (next & (u64::MAX << (64 - bits))) >> self.count;
                    self.at += bits as usize / 8;
                    self.count += bits;
                }
                return;
            }
        }
        self.fill_slowly();
    }

    #[cold]
    fn fill_slowly(&mut self) {
        while self.count <= 56 {
            let byte = match (self.data.get(self.at), self.data.get(self.at + 1)) {
                (Some(0xff), Some(0)) => {
                    self.at += 2;
                    0xff
                }
                // A marker, or the end.
                (Some(0xff), _) | (None, _) => return,
                (Some(&byte), _) => {
                    self.at += 1;
                    byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// Why there are no more bits.
    #[cold]
    fn exhausted(&self) -> Stop {
        self.data.get(self.at + 1).map_or(Stop::End, |marker| Stop::Marker(*marker))
    }

    #[inline(always)]
    fn drop_bits(&mut self, count: u32) {
        self.buffer <<= count;
        self.count -= count;
    }

    /// The next `count` bits, 0 to 16.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> Result<u32, Stop> {
        if count == 0 {
            return Ok(0);
        }
        if self.count < count {
            self.fill();
            if self.count < count {
                return Err(self.exhausted());
            }
        }
        let value = (self.buffer >> (64 - count)) as u32;
        self.drop_bits(count);
        Ok(value)
    }

    /// A signed number of `size` bits (T.81 figure F.12), 0 to 16.
    #[inline(always)]
    pub(super) fn signed(&mut self, size: u32) -> Result<i32, Stop> {
        let value = self.take(size)? as i32;
        let negative = size > 0 && value < 1 << (size - 1);
        Ok(if negative { value - (1 << size) + 1 } else { value })
    }

    /// The next symbol.
    #[inline(always)]
    pub(super) fn symbol(&mut self, table: &Table) -> Result<u8, Stop> {
        if self.count < 16 {
            self.fill();
        }
        let (length, symbol) = table.fast[(self.buffer >> (64 - FAST)) as usize];
        if length > 0 {
            if self.count < length.into() {
                return Err(self.exhausted());
            }
            self.drop_bits(length.into());
            return Ok(symbol);
        }
        self.long_symbol(table)
    }

    /// A symbol whose code is longer than [`FAST`].
    fn long_symbol(&mut self, table: &Table) -> Result<u8, Stop> {
        let next = (self.buffer >> 48) as u32;
        for length in FAST + 1..=16 {
            if next < table.ends[length as usize] {
                if self.count < length {
                    return Err(self.exhausted());
                }
                let index = (next >> (16 - length)) as i32 + table.offsets[length as usize];
                self.drop_bits(length);
                return Ok(table.symbols[index as usize]);
            }
        }
        Err(if self.count < 16 { self.exhausted() } else { Stop::NoCode })
    }

    /// Steps over the restart marker that must come next.
    pub(super) fn restart(&mut self, number: u8) -> Result<(), PictureError> {
        self.fill();
        // Fewer than 8 bits of padding may be left.
        if self.count >= 8 {
            return Err(PictureError::Broken("JPEG: data where a restart marker belongs".into()));
        }
        (self.buffer, self.count) = (0, 0);
        while self.data.get(self.at + 1) == Some(&0xff) {
            self.at += 1;
        }
        match self.data.get(self.at + 1) {
            None => Err(PictureError::Truncated("JPEG ends within a scan".into())),
            Some(&code) if code == 0xd0 + number => {
                self.at += 2;
                Ok(())
            }
            Some(code) => Err(PictureError::Broken(format!(
                "JPEG: marker {code:02x} where restart marker {:02x} belongs",
                0xd0 + number
            ))),
        }
    }
}
