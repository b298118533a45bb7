//! Reading tar archives front to back, without trusting them.
//!
//! Members are visited one at a time; a body is read only when it is asked for, and stepped over
//! otherwise. Names are bytes that only ever become keys. Sizes are claims: nothing is allocated
//! before the bytes have arrived, and extension headers have a limit of their own.

use std::{
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use crate::{
    DataError,
    blob::{Blob, Reader},
};

/// Longest extension header (long names, pax records).
const LONGEST_EXTENSION: u64 = 1 << 20;

/// Memory the xz decoder may take, in KiB.
const XZ_MEMORY: u32 = 128 << 10;

/// Where an archive comes from: a plain file can step over bytes, a compressed one reads them.
pub(super) enum Input {
    Plain { file: BufReader<Reader>, position: u64, length: u64 },
    Packed(Box<dyn Read + Send>),
}

impl Input {
    /// Opens a file; what it is packed with is told by its content.
    pub(super) fn open(blob: &Blob) -> Result<Self, DataError> {
        let path = blob.path();
        let io = |error| DataError::io(path, error);
        let file = blob.reader(0).map_err(io)?;
        let mut file = BufReader::with_capacity(1 << 16, file);
        let head = file.fill_buf().map_err(io)?;
        Ok(match head {
            [] => return Err(DataError::refused(path, "is empty, expected a tar archive")),
            [0x1f, 0x8b, ..] => Self::Packed(Box::new(flate2::bufread::MultiGzDecoder::new(file))),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
                Self::Packed(Box::new(lzma_rust2::XzReader::new_mem_limit(file, true, XZ_MEMORY)))
            }
            [b'B', b'Z', b'h', ..] => return Err(packed(path, "bzip2")),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => return Err(packed(path, "zstd")),
            [b'P', b'K', 3, 4, ..] => return Err(packed(path, "zip")),
            _ => Self::Plain { file, position: 0, length: blob.len() },
        })
    }

    /// Whether members can be read in any order.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain { .. })
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        match self {
            Self::Plain { file, position, length } => {
                let target = position.saturating_add(count);
                if target > *length {
                    *position = *length;
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *position = target;
                match i64::try_from(count) {
                    Ok(count) => file.seek_relative(count),
                    Err(_) => file.seek(SeekFrom::Start(target)).map(|_| ()),
                }
            }
            Self::Packed(reader) => {
                if io::copy(&mut reader.by_ref().take(count), &mut io::sink())? < count {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(())
            }
        }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain { file, position, .. } => {
                let count = file.read(buffer)?;
                *position += count as u64;
                Ok(count)
            }
            Self::Packed(reader) => reader.read(buffer),
        }
    }
}

fn packed(path: &Path, with: &str) -> DataError {
    let reason = format!("is packed with {with}; expected tar, tar.gz or tar.xz");
    DataError::refused(path, reason)
}

/// Where and why an archive cannot be read on.
#[derive(Debug)]
pub(super) struct Damage {
    pub(super) position: u64,
    pub(super) reason: String,
    /// The archive ends between members, only its end mark is missing.
    pub(super) only_unmarked: bool,
}

/// A member of an archive.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) size: u64,
    /// Where its body begins in the unpacked archive.
    pub(super) offset: u64,
    /// Whether it is an ordinary file.
    pub(super) is_file: bool,
}

/// Visits the members of one archive.
pub(super) struct TarReader {
    input: Input,
    /// Bytes of the unpacked archive behind us.
    position: u64,
    /// Bytes of the current member (padding included) that are still ahead.
    ahead: u64,
}

/// What extension headers say about the member behind them.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    size: Option<u64>,
}

impl TarReader {
    pub(super) fn new(input: Input) -> Self {
        Self { input, position: 0, ahead: 0 }
    }

    fn damage(&self, reason: impl Into<String>) -> Damage {
        Damage { position: self.position, reason: reason.into(), only_unmarked: false }
    }

    fn io_damage(&self, error: &io::Error, what: &str) -> Damage {
        self.damage(match error.kind() {
            io::ErrorKind::UnexpectedEof => format!("the archive is truncated within {what}"),
            _ => format!("cannot be read on within {what}: {error}"),
        })
    }

    /// The next member, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Damage> {
        let mut extension = Extension::default();
        loop {
            self.step_over()?;
            let Some(block) = self.header()? else {
                return Ok(None);
            };
            let size = number(&block[124..136])
                .ok_or_else(|| self.damage("the size in a member's header is no number"))?;
            let kind = block[156];
            let is_extension = matches!(kind, b'L' | b'K' | b'x' | b'g');
            let size = if is_extension { size } else { extension.size.unwrap_or(size) };
            // Links and devices have no body, whatever their header says.
            let body = if matches!(kind, b'1'..=b'6') { 0 } else { size };
            self.ahead = body
                .checked_next_multiple_of(512)
                .ok_or_else(|| self.damage("the size in a member's header is absurd"))?;
            if is_extension {
                if size > LONGEST_EXTENSION {
                    return Err(self.damage(format!(
                        "an extension header of {size} bytes, expected at most {LONGEST_EXTENSION}"
                    )));
                }
                let text = self.read_body(size)?;
                match kind {
                    b'L' => {
                        let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
                        extension.name = Some(text[..end].to_vec());
                    }
                    b'x' => self.pax(&text, &mut extension)?,
                    // Link targets and defaults for the whole archive say nothing we use.
                    _ => {}
                }
                continue;
            }
            return Ok(Some(Entry {
                name: extension.name.take().unwrap_or_else(|| name(&block)),
                size: body,
                offset: self.position,
                is_file: matches!(kind, 0 | b'0' | b'7'),
            }));
        }
    }

    /// The body of the member that [`Self::next`] returned last.
    pub(super) fn read_body(&mut self, size: u64) -> Result<Vec<u8>, Damage> {
        let mut body = Vec::new();
        let read = self.input.by_ref().take(size).read_to_end(&mut body);
        let result = match read {
            Ok(_) if (body.len() as u64) < size => Err(io::ErrorKind::UnexpectedEof.into()),
            other => other,
        };
        self.position += body.len() as u64;
        self.ahead = self.ahead.saturating_sub(body.len() as u64);
        result.map_err(|error| self.io_damage(&error, "a member"))?;
        Ok(body)
    }

    fn step_over(&mut self) -> Result<(), Damage> {
        let count = std::mem::take(&mut self.ahead);
        if count > 0 {
            self.input.skip(count).map_err(|error| self.io_damage(&error, "a member"))?;
            self.position += count;
        }
        Ok(())
    }

    /// The next header block with its check sum verified, or `None` at the end mark.
    fn header(&mut self) -> Result<Option<[u8; 512]>, Damage> {
        let mut block = [0; 512];
        let mut filled = 0;
        while filled < block.len() {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => {
                    let reason = "the archive ends without its end mark, so members may be missing";
                    return Err(Damage { only_unmarked: true, ..self.damage(reason) });
                }
                Ok(0) => return Err(self.damage("the archive is truncated within a header")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io_damage(&error, "a header")),
            }
        }
        if block.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let claimed = number(&block[148..156]);
        let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
        let stored: u64 = block[148..156].iter().map(|&b| u64::from(b)).sum();
        if claimed != Some(sum - stored + 8 * u64::from(b' ')) {
            return Err(self.damage("expected a tar header here, its check sum is wrong"));
        }
        self.position += 512;
        Ok(Some(block))
    }

    /// Records `LENGTH KEY=VALUE\n` of a pax header.
    fn pax(&self, text: &[u8], extension: &mut Extension) -> Result<(), Damage> {
        let broken = || self.damage("a broken pax header");
        let mut rest = text;
        while !rest.is_empty() {
            let blank = rest.iter().position(|&b| b == b' ').ok_or_else(broken)?;
            let length: usize = std::str::from_utf8(&rest[..blank])
                .ok()
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(broken)?;
            let record = rest.get(blank + 1..length.max(blank + 1)).ok_or_else(broken)?;
            let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
            let equals = record.iter().position(|&b| b == b'=').ok_or_else(broken)?;
            let value = &record[equals + 1..];
            match &record[..equals] {
                b"path" => extension.name = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                    extension.size = Some(size.ok_or_else(broken)?);
                }
                _ => {}
            }
            rest = &rest[length..];
        }
        Ok(())
    }
}

/// A number of a header: octal digits, or big-endian bytes behind a first byte 0x80.
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, bytes @ ..] = field {
        return bytes.iter().try_fold(0u64, |n, &b| n.checked_mul(256)?.checked_add(b.into()));
    }
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_matches(|c| c == ' ' || c == '\0');
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

/// The name of a header, with the prefix of the ustar format.
fn name(block: &[u8; 512]) -> Vec<u8> {
    let field = |bytes: &[u8]| bytes.split(|&b| b == 0).next().unwrap_or_default().to_vec();
    let mut name = field(&block[..100]);
    if block[257..263] == *b"ustar\0" {
        let mut prefix = field(&block[345..500]);
        if !prefix.is_empty() {
            prefix.push(b'/');
            prefix.extend(name);
            name = prefix;
        }
    }
    name
}
