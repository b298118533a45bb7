//! PNG, all colour types, depths and both interlacings. (PNG specification, third edition.)
//!
//! Critical chunks must be whole and carry the right check sum; ancillary chunks are stepped over
//! without being looked into, so a text or profile bomb costs nothing. The image data may inflate
//! to exactly the size that the header implies: one byte less or more is refused.

use super::be32;
use crate::picture::{Decoded, Limits, Note, PictureError, Pixels};
use flate2::{Crc, Decompress, FlushDecompress, Status};

/// What IHDR says.
struct Header {
    width: usize,
    height: usize,
    depth: usize,
    colour: u8,
    interlaced: bool,
}

impl Header {
    fn channels(&self) -> usize {
        match self.colour {
            2 => 3,
            4 => 2,
            6 => 4,
            _ => 1,
        }
    }

    /// Bytes of a row of `width` pixels, without its filter byte.
    fn row_bytes(&self, width: usize) -> usize {
        (width * self.channels() * self.depth).div_ceil(8)
    }

    /// (first column, first row, column step, row step) of each pass over the picture.
    fn passes(&self) -> &'static [[usize; 4]] {
        const ADAM7: [[usize; 4]; 7] = [
            [0, 0, 8, 8],
            [4, 0, 8, 8],
            [0, 4, 4, 8],
            [2, 0, 4, 4],
            [0, 2, 2, 4],
            [1, 0, 2, 2],
            [0, 1, 1, 2],
        ];
        if self.interlaced { &ADAM7 } else { &[[0, 0, 1, 1]] }
    }

    /// Columns and rows of a pass; either may be 0.
    fn pass_size(&self, [x0, y0, dx, dy]: [usize; 4]) -> (usize, usize) {
        let count = |side: usize, first, step| side.saturating_sub(first).div_ceil(step);
        (count(self.width, x0, dx), count(self.height, y0, dy))
    }

    /// Bytes of all filtered rows of all passes.
    fn inflated_bytes(&self) -> usize {
        let pass = |&pass: &[usize; 4]| match self.pass_size(pass) {
            (0, _) => 0,
            (columns, rows) => rows * (1 + self.row_bytes(columns)),
        };
        self.passes().iter().map(pass).sum()
    }
}

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, PictureError> {
    let mut notes = Vec::new();
    let mut header = None;
    let mut colours = None;
    let mut data: Vec<&[u8]> = Vec::new();
    let mut at = 8;
    loop {
        let chunk = Chunk::at(bytes, at)?;
        at += 12 + chunk.data.len();
        match (&chunk.name, &header) {
            (b"IHDR", None) => header = Some(read_header(chunk.data, limits)?),
            (b"IHDR", Some(_)) => return Err(broken("a second IHDR chunk")),
            (_, None) => return Err(broken("the first chunk is not IHDR")),
            (b"PLTE", _) => {
                if !chunk.data.len().is_multiple_of(3) || chunk.data.len() > 768 {
                    return Err(broken("PLTE is not a list of at most 256 palette colours"));
                }
                colours = Some(chunk.data.chunks_exact(3).map(|c| [c[0], c[1], c[2]]).collect());
            }
            (b"IDAT", _) => data.push(chunk.data),
            (b"IEND", _) => break,
            (b"acTL", _) => notes.push(Note::Animated),
            (name, _) if name[0].is_ascii_uppercase() => {
                return Err(broken(&format!("unknown critical chunk {}", chunk.label())));
            }
            _ => {}
        }
    }
    if bytes.len() > at {
        notes.push(Note::TrailingData { after: "IEND", bytes: bytes.len() - at });
    }
    // IEND comes after IHDR, or the loop had ended with an error.
    let header = header.ok_or_else(|| broken("no IHDR chunk"))?;
    if data.is_empty() {
        return Err(broken("no IDAT chunk, so no pixels"));
    }
    if header.colour == 3 && colours.is_none() {
        return Err(broken("an indexed picture without palette (PLTE chunk)"));
    }
    let mut filtered = inflate(&data, header.inflated_bytes())?;
    let samples = unfilter(&header, &mut filtered)?;
    Ok(Decoded {
        width: header.width as u32,
        height: header.height as u32,
        pixels: to_pixels(&header, samples, colours.unwrap_or_default()),
        notes,
    })
}

fn broken(what: &str) -> PictureError {
    PictureError::Broken(format!("PNG: {what}"))
}

struct Chunk<'a> {
    name: [u8; 4],
    data: &'a [u8],
}

impl<'a> Chunk<'a> {
    fn at(bytes: &'a [u8], at: usize) -> Result<Self, PictureError> {
        let end =
            || PictureError::Truncated(format!("PNG ends at byte {} before its IEND", bytes.len()));
        let length = be32(bytes, at).ok_or_else(end)? as usize;
        let name: [u8; 4] =
            bytes.get(at + 4..at + 8).and_then(|n| n.try_into().ok()).ok_or_else(end)?;
        let data = bytes.get(at + 8..).and_then(|rest| rest.get(..length));
        let (Some(data), Some(sum)) = (data, be32(bytes, at + 8 + length)) else {
            return Err(PictureError::Truncated(format!(
                "PNG chunk {} at byte {at} claims {length} bytes, {} are left",
                name.escape_ascii(),
                bytes.len().saturating_sub(at + 8)
            )));
        };
        let chunk = Self { name, data };
        // The sum of an ancillary chunk decides nothing: we do not read the chunk.
        if name[0].is_ascii_uppercase() {
            let mut crc = Crc::new();
            crc.update(&bytes[at + 4..at + 8 + length]);
            if crc.sum() != sum {
                return Err(PictureError::BadChecksum(format!(
                    "PNG chunk {} at byte {at}: found {sum:08x}, expected {:08x}",
                    chunk.label(),
                    crc.sum()
                )));
            }
        }
        Ok(chunk)
    }

    fn label(&self) -> String {
        self.name.escape_ascii().to_string()
    }
}

fn read_header(data: &[u8], limits: &Limits) -> Result<Header, PictureError> {
    let (Some(width), Some(height), &[depth, colour, compression, filter, interlace]) =
        (be32(data, 0), be32(data, 4), data.get(8..).unwrap_or_default())
    else {
        return Err(broken(&format!("IHDR has {} bytes, expected 13", data.len())));
    };
    let (width, height) = limits.check(width.into(), height.into())?;
    let depths: &[u8] = match colour {
        0 => &[1, 2, 4, 8, 16],
        3 => &[1, 2, 4, 8],
        2 | 4 | 6 => &[8, 16],
        _ => return Err(broken(&format!("colour type {colour}, expected 0, 2, 3, 4 or 6"))),
    };
    if !depths.contains(&depth) {
        return Err(broken(&format!(
            "{depth} bits with colour type {colour}, expected {depths:?}"
        )));
    }
    if (compression, filter) != (0, 0) || interlace > 1 {
        return Err(broken(&format!(
            "compression {compression}, filter {filter}, interlacing {interlace}; expected 0, 0 and 0 or 1"
        )));
    }
    Ok(Header {
        width: width as usize,
        height: height as usize,
        depth: depth.into(),
        colour,
        interlaced: interlace == 1,
    })
}

/// Inflates the concatenated IDAT chunks to exactly `expected` bytes.
fn inflate(chunks: &[&[u8]], expected: usize) -> Result<Vec<u8>, PictureError> {
    let mut out = vec![0; expected + 1];
    let mut written = 0;
    let mut zlib = Decompress::new(true);
    let mut ended = false;
    for chunk in chunks {
        let mut rest = *chunk;
        while !rest.is_empty() && !ended {
            let (before_in, before_out) = (zlib.total_in(), zlib.total_out());
            let status = zlib
                .decompress(rest, &mut out[written..], FlushDecompress::None)
                .map_err(|error| broken(&format!("IDAT does not inflate: {error}")))?;
            let consumed = (zlib.total_in() - before_in) as usize;
            let produced = (zlib.total_out() - before_out) as usize;
            rest = &rest[consumed..];
            written += produced;
            if written > expected {
                return Err(broken(&format!(
                    "IDAT inflates to more than the {expected} bytes that the header implies"
                )));
            }
            ended = status == Status::StreamEnd;
            if consumed == 0 && produced == 0 {
                break;
            }
        }
    }
    if written < expected {
        return Err(PictureError::Truncated(format!(
            "IDAT inflates to {written} bytes, the header implies {expected}"
        )));
    }
    if !ended {
        return Err(PictureError::Truncated("IDAT ends without its check sum".into()));
    }
    out.truncate(expected);
    Ok(out)
}

/// Undoes the row filters and the interlacing. One entry a sample for depths up to 8 (widened to
/// a byte, not scaled), two big-endian bytes a sample for 16.
fn unfilter(header: &Header, filtered: &mut [u8]) -> Result<Vec<u8>, PictureError> {
    let sample_bytes = header.depth.div_ceil(8);
    let pixel_bytes = header.channels() * sample_bytes;
    let filter_step = (header.channels() * header.depth).div_ceil(8);
    let mut out = vec![0; header.width * header.height * pixel_bytes];
    let mut rest = filtered;
    for &pass in header.passes() {
        let (columns, rows) = header.pass_size(pass);
        if columns == 0 {
            continue;
        }
        let row_bytes = header.row_bytes(columns);
        let mut above = vec![0; row_bytes];
        let [x0, y0, dx, dy] = pass;
        for row in 0..rows {
            let (line, behind) = rest.split_at_mut(1 + row_bytes);
            rest = behind;
            let (filter, line) = (line[0], &mut line[1..]);
            unfilter_row(filter, line, &above, filter_step)?;
            above.copy_from_slice(line);
            let start = (y0 + row * dy) * header.width * pixel_bytes;
            let target = &mut out[start..start + header.width * pixel_bytes];
            if header.depth < 8 {
                let per_byte = 8 / header.depth;
                let mask = (1u8 << header.depth) - 1;
                for column in 0..columns {
                    let shift = 8 - header.depth * (column % per_byte + 1);
                    target[x0 + column * dx] = line[column / per_byte] >> shift & mask;
                }
            } else if dx == 1 && x0 == 0 {
                target.copy_from_slice(line);
            } else {
                for (column, pixel) in line.chunks_exact(pixel_bytes).enumerate() {
                    let x = (x0 + column * dx) * pixel_bytes;
                    target[x..x + pixel_bytes].copy_from_slice(pixel);
                }
            }
        }
    }
    Ok(out)
}

fn unfilter_row(filter: u8, row: &mut [u8], above: &[u8], step: usize) -> Result<(), PictureError> {
    let left_of = |i: usize, row: &[u8]| if i < step { 0 } else { row[i - step] };
    match filter {
        0 => {}
        1 => {
            for i in step..row.len() {
                row[i] = row[i].wrapping_add(row[i - step]);
            }
        }
        2 => {
            for (value, up) in row.iter_mut().zip(above) {
                *value = value.wrapping_add(*up);
            }
        }
        3 => {
            for i in 0..row.len() {
                let mean = (u16::from(left_of(i, row)) + u16::from(above[i])) / 2;
                row[i] = row[i].wrapping_add(mean as u8);
            }
        }
        4 => {
            for i in 0..row.len() {
                let corner = left_of(i, above);
                row[i] = row[i].wrapping_add(paeth(left_of(i, row), above[i], corner));
            }
        }
        _ => return Err(broken(&format!("row filter {filter} in IDAT, expected 0 to 4"))),
    }
    Ok(())
}

/// The neighbour closest to left + up - corner, in this order of preference.
fn paeth(left: u8, up: u8, corner: u8) -> u8 {
    let [l, u, c] = [left, up, corner].map(i16::from);
    let (dl, du, dc) = ((u - c).abs(), (l - c).abs(), (l + u - 2 * c).abs());
    if dl <= du && dl <= dc {
        left
    } else if du <= dc {
        up
    } else {
        corner
    }
}

/// Samples as the mode that the reference reads them in: fewer than 8 bits of grey are scaled to
/// the full range, 16 bits of anything but grey lose their low byte.
fn to_pixels(header: &Header, mut samples: Vec<u8>, colours: Vec<[u8; 3]>) -> Pixels {
    let wide = header.depth == 16;
    if wide && header.colour == 0 {
        let pairs = samples.chunks_exact(2).map(|p| u16::from_be_bytes([p[0], p[1]]));
        return Pixels::Grey16(pairs.collect());
    }
    if wide {
        samples = samples.into_iter().step_by(2).collect();
    }
    match (header.colour, header.depth) {
        (0, 1) => Pixels::Bilevel(samples.into_iter().map(|v| v * 255).collect()),
        (0, depth) => {
            let factor = if depth < 8 { 255 / ((1u16 << depth) - 1) as u8 } else { 1 };
            Pixels::Grey(samples.into_iter().map(|v| v * factor).collect())
        }
        (2, _) => Pixels::Rgb(samples),
        (3, _) => Pixels::Palette { indices: samples, colours },
        (4, _) => Pixels::GreyAlpha(samples),
        _ => Pixels::Rgba(samples),
    }
}
