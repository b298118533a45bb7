//! From a published picture to a sprite: cropped, squared, 64 x 64, premultiplied RGBA.

use resvg::{tiny_skia, usvg};
use std::path::Path;

/// Side of a sprite in pixels.
pub const SIDE: usize = 64;

/// Side at which SVG files are rendered before they are reduced.
const SVG_SIDE: u32 = 192;

/// Colours below this alpha are not part of the drawing.
const INK: f32 = 8.0;

/// Premultiplied RGBA in f32, 0..=255.
struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<[f32; 4]>,
}

/// Reads a PNG or SVG file and makes a sprite of it.
pub fn sprite(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let canvas = match path.extension().and_then(|e| e.to_str()) {
        Some("svg") => from_svg(&bytes),
        _ => from_png(&bytes),
    };
    finished(canvas).map_err(|e| format!("{}: {e}", path.display()))
}

/// Makes a sprite of the text of an SVG file.
pub fn sprite_of_svg(svg: &str) -> Result<Vec<u8>, String> {
    finished(from_svg(svg.as_bytes()))
}

fn finished(canvas: Result<Canvas, String>) -> Result<Vec<u8>, String> {
    square(&canvas?).ok_or_else(|| "empty picture".to_owned())
}

fn from_png(bytes: &[u8]) -> Result<Canvas, String> {
    let picture = image::load_from_memory(bytes).map_err(|e| e.to_string())?.into_rgba8();
    let pixels = picture
        .pixels()
        .map(|p| {
            let alpha = f32::from(p[3]);
            let over = |c: u8| f32::from(c) * alpha / 255.0;
            [over(p[0]), over(p[1]), over(p[2]), alpha]
        })
        .collect();
    Ok(Canvas { width: picture.width() as usize, height: picture.height() as usize, pixels })
}

fn from_svg(bytes: &[u8]) -> Result<Canvas, String> {
    let tree =
        usvg::Tree::from_data(bytes, &usvg::Options::default()).map_err(|e| e.to_string())?;
    let mut map = tiny_skia::Pixmap::new(SVG_SIDE, SVG_SIDE).ok_or("no memory")?;
    let size = tree.size();
    let scale = SVG_SIDE as f32 / size.width().max(size.height());
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut map.as_mut());
    let pixels =
        map.data().chunks_exact(4).map(|p| [p[0], p[1], p[2], p[3]].map(f32::from)).collect();
    Ok(Canvas { width: SVG_SIDE as usize, height: SVG_SIDE as usize, pixels })
}

/// Crops to the ink and averages (or interpolates) onto the sprite's square.
fn square(canvas: &Canvas) -> Option<Vec<u8>> {
    let ink = |x: usize, y: usize| canvas.pixels[y * canvas.width + x][3] > INK;
    let column = |x: &usize| (0..canvas.height).any(|y| ink(*x, y));
    let row = |y: &usize| (0..canvas.width).any(|x| ink(x, *y));
    let (left, right) = ((0..canvas.width).find(column)?, (0..canvas.width).rfind(column)? + 1);
    let (top, bottom) = ((0..canvas.height).find(row)?, (0..canvas.height).rfind(row)? + 1);
    let side = (right - left).max(bottom - top) as f32;
    let x0 = (left + right) as f32 / 2.0 - side / 2.0;
    let y0 = (top + bottom) as f32 / 2.0 - side / 2.0;
    let step = side / SIDE as f32;
    let (columns, rows) = (weights(x0, step, canvas.width), weights(y0, step, canvas.height));
    let mut sprite = Vec::with_capacity(SIDE * SIDE * 4);
    for row in &rows {
        for column in &columns {
            let mut sum = [0.0; 4];
            for &(y, wy) in row {
                for &(x, wx) in column {
                    let pixel = canvas.pixels[y * canvas.width + x];
                    (0..4).for_each(|c| sum[c] += wy * wx * pixel[c]);
                }
            }
            sprite.extend(sum.map(|v| v.round().clamp(0.0, 255.0) as u8));
        }
    }
    // Rounding must not leave a colour above its alpha.
    sprite.chunks_exact_mut(4).for_each(|p| (0..3).for_each(|c| p[c] = p[c].min(p[3])));
    Some(sprite)
}

/// The weights of a triangle filter as wide as a target pixel, never narrower than a source one.
fn weights(start: f32, step: f32, len: usize) -> Vec<Vec<(usize, f32)>> {
    let reach = step.max(1.0);
    (0..SIDE)
        .map(|i| {
            let centre = start + (i as f32 + 0.5) * step - 0.5;
            let (low, high) = ((centre - reach).ceil() as i64, (centre + reach).floor() as i64);
            let at = |j: i64| (1.0 - (j as f32 - centre).abs() / reach).max(0.0);
            let total: f32 = (low..=high).map(at).sum();
            (low..=high)
                .filter(|&j| j >= 0 && (j as usize) < len && at(j) > 0.0)
                .map(|j| (j as usize, at(j) / total))
                .collect()
        })
        .collect()
}

/// The eleven colour words, with the colour each stands for. The renderer has the same table.
const COLOURS: [(&str, [f32; 3]); 11] = [
    ("red", [0.85, 0.12, 0.15]),
    ("orange", [0.95, 0.55, 0.10]),
    ("yellow", [0.97, 0.85, 0.20]),
    ("green", [0.25, 0.65, 0.25]),
    ("blue", [0.15, 0.40, 0.85]),
    ("purple", [0.55, 0.25, 0.70]),
    ("pink", [0.95, 0.55, 0.70]),
    ("brown", [0.50, 0.32, 0.20]),
    ("gray", [0.55, 0.55, 0.57]),
    ("white", [0.97, 0.97, 0.97]),
    ("black", [0.08, 0.08, 0.08]),
];

/// The colour word of a sprite: the nearest word of at least half of its opaque pixels.
pub fn colour_word(sprite: &[u8]) -> Option<&'static str> {
    let mut votes = [0usize; COLOURS.len()];
    for p in sprite.chunks_exact(4).filter(|p| p[3] > 200) {
        let colour = [0, 1, 2].map(|c| f32::from(p[c]) / f32::from(p[3]));
        let far = |i: usize| (0..3).map(|c| (COLOURS[i].1[c] - colour[c]).powi(2)).sum::<f32>();
        let nearest = (0..COLOURS.len()).min_by(|&a, &b| far(a).total_cmp(&far(b)));
        nearest.into_iter().for_each(|i| votes[i] += 1);
    }
    let best = (0..COLOURS.len()).max_by_key(|&i| (votes[i], COLOURS.len() - i))?;
    (votes[best] > 0 && 2 * votes[best] >= votes.iter().sum()).then(|| COLOURS[best].0)
}
