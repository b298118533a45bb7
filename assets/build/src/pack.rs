//! The container: `assets/README.md` describes it, `crates/data/src/scenes/pack.rs` reads it.

use crate::picture::SIDE;
use flate2::{Compression, write::ZlibEncoder};
use serde::Serialize;
use std::io::Write;

/// First bytes of the file.
const MAGIC: &[u8; 8] = b"EMOJIPK1";

/// Sprites compressed together.
const CHUNK: usize = 32;

/// Where a drawing lies, and the word for its colour.
#[derive(Clone, Serialize)]
pub struct Place {
    pub index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub colour: Option<String>,
}

/// One emoji of the pack.
#[derive(Serialize)]
pub struct Emoji {
    pub emoji: String,
    pub name: String,
    pub group: u32,
    pub tags: Vec<String>,
    /// One entry a style, null where the style lacks the emoji.
    pub sprites: Vec<Option<Place>>,
}

#[derive(Serialize)]
struct Style<'a> {
    name: &'a str,
    sprites: usize,
    /// Length of each compressed chunk, in file order.
    chunks: Vec<usize>,
}

#[derive(Serialize)]
struct Index<'a> {
    side: usize,
    chunk: usize,
    styles: Vec<Style<'a>>,
    emoji: &'a [Emoji],
}

/// The bytes of the pack.
pub fn write(
    styles: &[&str],
    emoji: &[Emoji],
    sprites: &[Vec<Vec<u8>>],
) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let mut table = Vec::new();
    for (name, list) in styles.iter().zip(sprites) {
        let mut chunks = Vec::new();
        for chunk in list.chunks(CHUNK) {
            let planes: Vec<u8> = chunk.iter().flat_map(|s| filtered(s)).collect();
            let packed = deflate(&planes)?;
            chunks.push(packed.len());
            body.extend(packed);
        }
        eprintln!("{name}: {} bytes", chunks.iter().sum::<usize>());
        table.push(Style { name, sprites: list.len(), chunks });
    }
    let index = Index { side: SIDE, chunk: CHUNK, styles: table, emoji };
    let index = deflate(&serde_json::to_vec(&index).map_err(|e| e.to_string())?)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend((index.len() as u32).to_le_bytes());
    bytes.extend(index);
    bytes.extend(body);
    Ok(bytes)
}

fn deflate(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).map_err(|e| e.to_string())
}

/// Four planes (alpha, green, red - green, blue - green), each row as the difference to a
/// prediction: PNG's filters none, left, up, Paeth, the row beginning with the filter's number.
fn filtered(sprite: &[u8]) -> Vec<u8> {
    let plane = |c: usize| -> Vec<u8> {
        let pixel = |p: &[u8]| match c {
            0 => level(p[3]),
            1 => level(p[1]),
            2 => level(p[0]).wrapping_sub(level(p[1])),
            _ => level(p[2]).wrapping_sub(level(p[1])),
        };
        sprite.chunks_exact(4).map(pixel).collect()
    };
    let mut out = Vec::new();
    for plane in (0..4).map(plane) {
        let above =
            std::iter::once(vec![0; SIDE]).chain(plane.chunks_exact(SIDE).map(<[u8]>::to_vec));
        for (row, above) in plane.chunks_exact(SIDE).zip(above) {
            let best = (0..4u8).map(|f| (f, residual(f, row, &above))).min_by_key(|(_, r)| cost(r));
            if let Some((filter, rest)) = best {
                out.push(filter);
                out.extend(rest);
            }
        }
    }
    out
}

/// The nearest of 64 levels. The eye does not see the difference, and the file is a third smaller.
fn level(byte: u8) -> u8 {
    ((u16::from(byte) * 47 + 127) / 255) as u8
}

fn cost(residual: &[u8]) -> u32 {
    residual.iter().map(|&b| u32::from((b as i8).unsigned_abs() + 1).ilog2() * 2 + 1).sum::<u32>()
}

fn residual(filter: u8, row: &[u8], above: &[u8]) -> Vec<u8> {
    (0..row.len())
        .map(|x| {
            let (left, corner) = if x == 0 { (0, 0) } else { (row[x - 1], above[x - 1]) };
            let guess = match filter {
                0 => 0,
                1 => left,
                2 => above[x],
                _ => paeth(left, above[x], corner),
            };
            row[x].wrapping_sub(guess)
        })
        .collect()
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
