//! The embedded pictures: `assets/emoji.pack`, unpacked piece by piece as sprites are asked for.
//!
//! The layout is written down in `assets/README.md`. Thirty-two sprites are compressed together;
//! such a chunk is unpacked, with its smaller copies, when the first of them is drawn. So a
//! program that shows one emoji pays for thirty-two, and nobody pays at start.

use serde::Deserialize;
use std::{io::Read, sync::OnceLock};

/// Side of the largest copy of a sprite.
pub(super) const SIDE: usize = 64;

/// Sides of the copies of a sprite, each half of the one before.
pub(super) const MIPS: [usize; 4] = [SIDE, SIDE / 2, SIDE / 4, SIDE / 8];

/// Bytes of one sprite with its smaller copies, each with a transparent border of one pixel.
const STRIDE: usize = 4 * (66 * 66 + 34 * 34 + 18 * 18 + 10 * 10);

static BYTES: &[u8] = include_bytes!("../../../../assets/emoji.pack");

/// One emoji of the pack.
#[derive(Debug, Deserialize)]
pub(super) struct Emoji {
    /// The character itself.
    pub(super) emoji: String,
    /// What a caption calls it.
    pub(super) name: String,
    /// Keywords of the Unicode locale data.
    pub(super) tags: Vec<String>,
    /// One entry a style, `None` where the style lacks the emoji.
    pub(super) sprites: Vec<Option<Drawing>>,
}

/// Where a drawing lies, and the word for its colour.
#[derive(Debug, Deserialize)]
pub(super) struct Drawing {
    index: usize,
    pub(super) colour: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Style {
    name: String,
    chunks: Vec<usize>,
}

#[derive(Debug, Deserialize)]
struct Index {
    chunk: usize,
    styles: Vec<Style>,
    emoji: Vec<Emoji>,
}

/// A chunk, compressed in the program and unpacked once it is needed.
struct Chunk {
    packed: &'static [u8],
    sprites: OnceLock<Vec<u8>>,
}

/// The pack, its index read.
pub(super) struct Pack {
    pub(super) styles: Vec<String>,
    pub(super) emoji: Vec<Emoji>,
    chunk: usize,
    chunks: Vec<Vec<Chunk>>,
}

/// A sprite and its smaller copies: premultiplied RGBA with a transparent border of one pixel.
#[derive(Clone, Copy)]
pub(super) struct Sprite<'a>(&'a [u8]);

impl<'a> Sprite<'a> {
    /// The copy of side `MIPS[level]`; rows are `MIPS[level] + 2` pixels.
    pub(super) fn level(self, level: usize) -> &'a [u8] {
        let len = |side: usize| 4 * (side + 2) * (side + 2);
        let start: usize = MIPS[..level].iter().map(|&side| len(side)).sum();
        &self.0[start..start + len(MIPS[level])]
    }
}

impl Pack {
    /// The pack of this program.
    #[allow(
        clippy::expect_used,
        reason = "the bytes are part of the program and a test reads all of them"
    )]
    pub(super) fn get() -> &'static Self {
        static PACK: OnceLock<Pack> = OnceLock::new();
        PACK.get_or_init(|| Self::read(BYTES).expect("the embedded pack is whole"))
    }

    fn read(bytes: &'static [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(b"EMOJIPK1")?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (index, mut rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let index: Index = serde_json::from_slice(&inflate(index, 0)).ok()?;
        let mut chunks = Vec::new();
        for style in &index.styles {
            let mut of_style = Vec::new();
            for &length in &style.chunks {
                let (packed, behind) = rest.split_at_checked(length)?;
                of_style.push(Chunk { packed, sprites: OnceLock::new() });
                rest = behind;
            }
            chunks.push(of_style);
        }
        let styles = index.styles.into_iter().map(|s| s.name).collect();
        Some(Self { styles, emoji: index.emoji, chunk: index.chunk, chunks })
    }

    /// The drawing of an emoji in a style, if there is one.
    pub(super) fn sprite(&self, emoji: usize, style: usize) -> Option<Sprite<'_>> {
        let index = self.emoji.get(emoji)?.sprites.get(style)?.as_ref()?.index;
        let chunk = self.chunks.get(style)?.get(index / self.chunk)?;
        let sprites =
            chunk.sprites.get_or_init(|| unpack(&inflate(chunk.packed, self.chunk * PACKED)));
        let start = index % self.chunk * STRIDE;
        sprites.get(start..start + STRIDE).map(Sprite)
    }
}

/// Bytes of a sprite before compression: four planes of rows led by the number of their filter.
const PACKED: usize = 4 * SIDE * (SIDE + 1);

/// Inflates as far as it goes; what is missing at the end shows as missing sprites.
fn inflate(packed: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size);
    let _ = flate2::read::ZlibDecoder::new(packed).read_to_end(&mut bytes);
    bytes
}

fn unpack(bytes: &[u8]) -> Vec<u8> {
    let sprites = bytes.len() / PACKED;
    let mut out = vec![0; sprites * STRIDE];
    let mut planes = vec![[0u8; SIDE * SIDE]; 4];
    for (packed, out) in bytes.chunks_exact(PACKED).zip(out.chunks_exact_mut(STRIDE)) {
        for (plane, packed) in planes.iter_mut().zip(packed.chunks_exact(PACKED / 4)) {
            unfilter(packed, plane);
        }
        let mut level = pixels(&planes);
        let mut rest = out;
        for side in MIPS {
            let row = 4 * (side + 2);
            let (here, behind) = rest.split_at_mut(row * (side + 2));
            for (from, to) in level.chunks_exact(4 * side).zip(here[row..].chunks_exact_mut(row)) {
                to[4..4 + 4 * side].copy_from_slice(from);
            }
            level = halved(&level, side);
            rest = behind;
        }
    }
    out
}

/// Undoes the prediction of each row (the filters of PNG: none, left, up, Paeth).
fn unfilter(packed: &[u8], plane: &mut [u8; SIDE * SIDE]) {
    let mut above = [0u8; SIDE];
    for (packed, row) in packed.chunks_exact(SIDE + 1).zip(plane.chunks_exact_mut(SIDE)) {
        let (filter, rest) = (packed[0], &packed[1..]);
        let (mut left, mut corner) = (0u8, 0u8);
        for x in 0..SIDE {
            let guess = match filter {
                0 => 0,
                1 => left,
                2 => above[x],
                _ => paeth(left, above[x], corner),
            };
            corner = above[x];
            left = rest[x].wrapping_add(guess);
            row[x] = left;
        }
        above.copy_from_slice(row);
    }
}

fn paeth(left: u8, up: u8, corner: u8) -> u8 {
    let (a, b, c) = (i32::from(left), i32::from(up), i32::from(corner));
    let p = a + b - c;
    let (da, db, dc) = ((p - a).abs(), (p - b).abs(), (p - c).abs());
    if da <= db && da <= dc {
        left
    } else if db <= dc {
        up
    } else {
        corner
    }
}

/// Planes alpha, green, red - green, blue - green in 48 levels to RGBA in 256.
fn pixels(planes: &[[u8; SIDE * SIDE]]) -> Vec<u8> {
    let full = |level: u8| ((u16::from(level.min(47)) * 255 + 23) / 47) as u8;
    let mut out = vec![0; 4 * SIDE * SIDE];
    for (i, pixel) in out.chunks_exact_mut(4).enumerate() {
        let green = planes[1][i];
        pixel[0] = full(green.wrapping_add(planes[2][i]));
        pixel[1] = full(green);
        pixel[2] = full(green.wrapping_add(planes[3][i]));
        pixel[3] = full(planes[0][i]);
    }
    out
}

/// Averages squares of two by two pixels.
fn halved(level: &[u8], side: usize) -> Vec<u8> {
    let half = side / 2;
    let mut out = Vec::with_capacity(4 * half * half);
    for y in 0..half {
        for x in 0..half {
            let at = 4 * (2 * y * side + 2 * x);
            for c in at..at + 4 {
                let sum = [c, c + 4, c + 4 * side, c + 4 * side + 4]
                    .iter()
                    .map(|&i| u16::from(level[i]))
                    .sum::<u16>();
                out.push(((sum + 2) / 4) as u8);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drawing_can_be_unpacked_and_has_ink() {
        let pack = Pack::get();
        let mut drawings = 0;
        for emoji in 0..pack.emoji.len() {
            for style in 0..pack.styles.len() {
                let Some(sprite) = pack.sprite(emoji, style) else {
                    assert!(
                        pack.emoji[emoji].sprites[style].is_none(),
                        "{}",
                        pack.emoji[emoji].name
                    );
                    continue;
                };
                drawings += 1;
                for (level, side) in MIPS.into_iter().enumerate() {
                    let pixels = sprite.level(level);
                    let ink = pixels.chunks_exact(4).filter(|p| p[3] > 20).count();
                    assert!(ink * 40 > side * side, "{} {level}", pack.emoji[emoji].name);
                    assert!(pixels.chunks_exact(4).all(|p| p[..3].iter().all(|&c| c <= p[3])));
                }
            }
        }
        assert!(drawings > 3_000, "{drawings}");
    }

    #[test]
    fn a_broken_pack_is_refused() {
        assert!(Pack::read(b"").is_none());
        assert!(Pack::read(b"EMOJIPK1\xff\xff\xff\xff").is_none());
        assert!(Pack::read(&BYTES[..BYTES.len() - 1]).is_none());
    }
}
