//! The canvas: painting fields of colour and warped sprites.
//!
//! Colours are premultiplied, 0..=1, four to a pixel so that a pixel is one vector register.
//! A sprite is first sampled into a tile no larger than its bounding box, changed there, and laid
//! over the canvas last. No sine, root or power of the platform's library is used on the way, so
//! a scene has the same bytes everywhere.

use super::{
    look::{Look, sin_cos},
    pack::{MIPS, Pack},
    scene::{Object, Scene},
};
use crate::{Picture, Stream};
use std::cell::RefCell;

type Pixel = [f32; 4];

/// Pixels around a tile, for contours and shadows.
const MARGIN: i32 = 4;

/// Something to paint on, with room for one sprite. Kept by a thread between pictures.
#[derive(Default)]
pub(super) struct Canvas {
    pub(super) side: usize,
    pixels: Vec<Pixel>,
    /// One number a pixel, for patterns made in several steps.
    pub(super) field: Vec<f32>,
    tile: Vec<Pixel>,
    scratch: Vec<Pixel>,
    alpha: Vec<f32>,
}

/// How an object is drawn other than its own description says.
pub(super) struct Placement {
    /// Copy of the sprite; by default the smallest that is large enough.
    pub(super) level: Option<usize>,
    /// Share of the object's colour; the rest shines through.
    pub(super) opacity: f32,
}

impl Default for Placement {
    fn default() -> Self {
        Self { level: None, opacity: 1.0 }
    }
}

/// A rectangle of the canvas, which may reach beyond its edges.
#[derive(Clone, Copy)]
struct Tile {
    left: i32,
    top: i32,
    width: usize,
    height: usize,
}

impl Scene {
    /// Paints the scene; `stream` gives the details of the background.
    pub(super) fn paint(&self, mut stream: Stream, side: usize) -> Picture {
        thread_local! {
            static CANVAS: RefCell<Canvas> = RefCell::default();
        }
        CANVAS.with_borrow_mut(|canvas| {
            canvas.resize(side);
            self.background.paint(self, &mut stream, canvas);
            for object in &self.objects {
                canvas.draw(object, &Placement::default());
            }
            canvas.picture()
        })
    }
}

impl Canvas {
    pub(super) fn resize(&mut self, side: usize) {
        self.side = side;
        self.pixels.clear();
        self.pixels.resize(side * side, [0.0; 4]);
    }

    /// Mixes two colours by a function of the place, both coordinates 0..1.
    pub(super) fn fill(&mut self, share: impl Fn(f32, f32) -> f32, from: [f32; 3], to: [f32; 3]) {
        let step = 1.0 / self.side as f32;
        for (j, row) in self.pixels.chunks_exact_mut(self.side).enumerate() {
            let y = (j as f32 + 0.5) * step;
            for (i, pixel) in row.iter_mut().enumerate() {
                *pixel = mixed(from, to, share((i as f32 + 0.5) * step, y));
            }
        }
    }

    /// Mixes two colours by the field.
    pub(super) fn fill_with_field(&mut self, from: [f32; 3], to: [f32; 3]) {
        for (pixel, &share) in self.pixels.iter_mut().zip(&self.field) {
            *pixel = mixed(from, to, share.clamp(0.0, 1.0));
        }
    }

    /// Adds value noise to the field: a grid of `count` + 1 random values each way, smoothly
    /// interpolated, times `share`.
    pub(super) fn noise(&mut self, stream: &mut Stream, count: usize, share: f32) {
        let points = count + 1;
        let grid: Vec<f32> = (0..points * points).map(|_| share * stream.uniform()).collect();
        let mut row = vec![0.0; points];
        let place = |i: usize, side: usize| {
            let at = (i as f32 + 0.5) / side as f32 * count as f32;
            let cell = (at as usize).min(count - 1);
            let t = at - cell as f32;
            (cell, t * t * (3.0 - 2.0 * t))
        };
        let columns: Vec<(usize, f32)> = (0..self.side).map(|i| place(i, self.side)).collect();
        for (j, out) in self.field.chunks_exact_mut(self.side).enumerate() {
            let (cell, t) = place(j, self.side);
            let (above, below) = (&grid[cell * points..], &grid[(cell + 1) * points..]);
            row.iter_mut()
                .zip(above.iter().zip(below))
                .for_each(|(r, (a, b))| *r = a + t * (b - a));
            for (out, &(cell, t)) in out.iter_mut().zip(&columns) {
                *out += row[cell] + t * (row[cell + 1] - row[cell]);
            }
        }
    }

    /// Draws one object over what is there.
    pub(super) fn draw(&mut self, object: &Object, placement: &Placement) {
        let Some(tile) = self.sample(object, placement.level) else { return };
        let look = &object.look;
        if let Some(levels) = look.levels {
            posterise(&mut self.tile, levels);
        }
        if look.blurred {
            blur(&mut self.tile, &mut self.scratch, tile.width);
        }
        if let Some((width, colour)) = look.outline {
            self.outline(tile.width, width * self.side as f32, colour);
        }
        if let Some((away, strength)) = look.shadow {
            let away = away.map(|v| (v * self.side as f32).round() as i32);
            self.shadow(tile, away, strength);
        }
        self.lay(tile, placement.opacity);
    }

    /// Samples the sprite into the tile; `None` if no part of it is on the canvas.
    fn sample(&mut self, object: &Object, level: Option<usize>) -> Option<Tile> {
        let sprite = Pack::get().sprite(object.emoji, object.style)?;
        let side = self.side as f32;
        let drawn = object.size * side;
        let fits = |level: &usize| MIPS[*level] as f32 >= 0.9 * drawn;
        let level = level.unwrap_or_else(|| (0..MIPS.len()).rev().find(fits).unwrap_or(0));
        let warp = Warp::of(object, side, MIPS[level]);
        let tile = warp.tile(self.side)?;
        self.tile.clear();
        self.tile.resize(tile.width * tile.height, [0.0; 4]);
        warp.sample(sprite.level(level), tile, &object.look, &mut self.tile);
        Some(tile)
    }

    /// Lays a contour of this width (in pixels) under the tile: where alpha, grown by the width,
    /// exceeds alpha.
    fn outline(&mut self, width: usize, reach: f32, colour: [f32; 3]) {
        self.alpha.clear();
        self.alpha.extend(self.tile.iter().map(|p| p[3]));
        let rings = reach.ceil().clamp(1.0, MARGIN as f32 - 1.0) as usize;
        let part = (reach / rings as f32).min(1.0);
        let mut grown = vec![0.0; self.alpha.len()];
        for _ in 0..rings {
            grow(&self.alpha, &mut grown, width, part);
            std::mem::swap(&mut self.alpha, &mut grown);
        }
        for (pixel, &grown) in self.tile.iter_mut().zip(&self.alpha) {
            let under = (grown - pixel[3]).max(0.0);
            (0..3).for_each(|c| pixel[c] += under * colour[c]);
            pixel[3] += under;
        }
    }

    /// Darkens the canvas where the tile, moved by `away`, covers it.
    fn shadow(&mut self, tile: Tile, away: [i32; 2], strength: f32) {
        let moved = Tile { left: tile.left + away[0], top: tile.top + away[1], ..tile };
        for_rows(&mut self.pixels, self.side, &self.tile, moved, |under, over| {
            let keep = 1.0 - strength * over[3];
            under.iter_mut().for_each(|c| *c *= keep);
        });
    }

    fn lay(&mut self, tile: Tile, opacity: f32) {
        for_rows(&mut self.pixels, self.side, &self.tile, tile, |under, over| {
            let keep = 1.0 - opacity * over[3];
            (0..4).for_each(|c| under[c] = under[c] * keep + opacity * over[c]);
        });
    }

    pub(super) fn picture(&self) -> Picture {
        let mut rgb = Vec::with_capacity(3 * self.pixels.len());
        for pixel in &self.pixels {
            rgb.extend([pixel[0], pixel[1], pixel[2]].map(|c| (c * 255.0 + 0.5) as u8));
        }
        Picture { width: self.side as u32, height: self.side as u32, rgb }
    }
}

fn mixed(from: [f32; 3], to: [f32; 3], share: f32) -> Pixel {
    let at = |c: usize| from[c] + share * (to[c] - from[c]);
    [at(0), at(1), at(2), 1.0]
}

/// Runs over the pixels of the tile that are on the canvas.
fn for_rows(
    canvas: &mut [Pixel],
    side: usize,
    tile: &[Pixel],
    place: Tile,
    each: impl Fn(&mut Pixel, &Pixel),
) {
    let from = (-place.left).clamp(0, place.width as i32) as usize;
    let to = (side as i32 - place.left).clamp(0, place.width as i32) as usize;
    for (j, row) in tile.chunks_exact(place.width).enumerate() {
        let y = place.top + j as i32;
        if from < to && (0..side as i32).contains(&y) {
            let start = y as usize * side + (place.left + from as i32) as usize;
            let under = &mut canvas[start..start + (to - from)];
            under.iter_mut().zip(&row[from..to]).for_each(|(under, over)| each(under, over));
        }
    }
}

/// From canvas pixels to sprite coordinates.
struct Warp {
    /// Sprite coordinates (-0.5..0.5) from canvas pixels relative to the centre.
    inverse: [[f32; 2]; 2],
    centre: [f32; 2],
    half: [f32; 2],
    taper: f32,
    texels: usize,
}

impl Warp {
    fn of(object: &Object, side: f32, texels: usize) -> Self {
        let look = &object.look;
        let (sin, cos) = sin_cos(object.turn + look.turn);
        let wide =
            object.size * side * object.aspect.sqrt() * if object.mirrored { -1.0 } else { 1.0 };
        let tall = object.size * side / object.aspect.sqrt();
        let forward = [
            [cos * wide, (cos * look.shear - sin) * tall],
            [sin * wide, (sin * look.shear + cos) * tall],
        ];
        let det = forward[0][0] * forward[1][1] - forward[0][1] * forward[1][0];
        let inverse = [
            [forward[1][1] / det, -forward[0][1] / det],
            [-forward[1][0] / det, forward[0][0] / det],
        ];
        // Narrowing one end widens the other.
        let wider = 1.0 / (1.0 - 0.5 * look.taper.abs());
        let half = forward.map(|row| 0.5 * (row[0].abs() * wider + row[1].abs()));
        Self {
            inverse,
            centre: [object.x * side, object.y * side],
            half,
            taper: look.taper,
            texels,
        }
    }

    fn tile(&self, side: usize) -> Option<Tile> {
        let span = |c: usize| {
            let low = (self.centre[c] - self.half[c]).floor() as i32 - MARGIN;
            let high = (self.centre[c] + self.half[c]).ceil() as i32 + MARGIN;
            (low.max(-MARGIN), high.min(side as i32 + MARGIN))
        };
        let ((left, right), (top, bottom)) = (span(0), span(1));
        (left < right && top < bottom).then(|| Tile {
            left,
            top,
            width: (right - left) as usize,
            height: (bottom - top) as usize,
        })
    }

    fn sample(&self, texture: &[u8], tile: Tile, look: &Look, out: &mut [Pixel]) {
        let (side, row) = (self.texels as f32, self.texels + 2);
        let paint = Paint::of(look);
        for (j, line) in out.chunks_exact_mut(tile.width).enumerate() {
            let y = (tile.top + j as i32) as f32 + 0.5 - self.centre[1];
            for (i, pixel) in line.iter_mut().enumerate() {
                let x = (tile.left + i as i32) as f32 + 0.5 - self.centre[0];
                let v = self.inverse[1][0] * x + self.inverse[1][1] * y;
                let u = (self.inverse[0][0] * x + self.inverse[0][1] * y) * (1.0 + self.taper * v);
                let (s, t) = ((u + 0.5) * side + 0.5, (v + 0.5) * side + 0.5);
                if s < 0.0 || t < 0.0 || s >= side + 1.0 || t >= side + 1.0 {
                    continue;
                }
                let (column, line) = (s as usize, t as usize);
                let colour =
                    bilinear(texture, row, column, line, s - column as f32, t - line as f32);
                if colour[3] > 0.0 {
                    *pixel = paint.apply(colour, u, v);
                }
            }
        }
    }
}

fn bilinear(texture: &[u8], row: usize, x: usize, y: usize, s: f32, t: f32) -> Pixel {
    let at = 4 * (y * row + x);
    let (above, below) = (&texture[at..at + 8], &texture[at + 4 * row..at + 4 * row + 8]);
    let scale = 1.0 / 255.0;
    let (top, bottom) = ((1.0 - t) * scale, t * scale);
    let [a, b, c, d] = [(1.0 - s) * top, s * top, (1.0 - s) * bottom, s * bottom];
    [0, 1, 2, 3].map(|i| {
        a * f32::from(above[i])
            + b * f32::from(above[i + 4])
            + c * f32::from(below[i])
            + d * f32::from(below[i + 4])
    })
}

/// Colour changes, laid out by column for one multiplication a channel.
struct Paint {
    columns: [Pixel; 3],
    offset: f32,
    light: [f32; 2],
}

impl Paint {
    fn of(look: &Look) -> Self {
        let m = look.matrix;
        let columns = [0, 1, 2].map(|c| [m[0][c], m[1][c], m[2][c], 0.0]);
        Self { columns, offset: look.offset, light: look.light }
    }

    fn apply(&self, colour: Pixel, u: f32, v: f32) -> Pixel {
        let [r, g, b] = self.columns;
        let alpha = colour[3];
        let shade = 1.0 + self.light[0] * u + self.light[1] * v;
        let mut out = [0, 1, 2, 3].map(|i| {
            let changed =
                r[i] * colour[0] + g[i] * colour[1] + b[i] * colour[2] + self.offset * alpha;
            (shade * changed).clamp(0.0, alpha)
        });
        out[3] = alpha;
        out
    }
}

/// Leaves this many steps between dark and bright.
fn posterise(tile: &mut [Pixel], levels: f32) {
    for pixel in tile.iter_mut().filter(|p| p[3] > 0.0) {
        let alpha = pixel[3];
        let (to, from) = (levels / alpha, alpha / levels);
        (0..3).for_each(|c| pixel[c] = ((pixel[c] * to + 0.5) as i32 as f32) * from);
    }
}

/// Weights 1 2 1 in both directions.
fn blur(tile: &mut [Pixel], scratch: &mut Vec<Pixel>, width: usize) {
    scratch.clear();
    scratch.extend_from_slice(tile);
    for (row, out) in tile.chunks_exact(width).zip(scratch.chunks_exact_mut(width)) {
        for (out, three) in out[1..width - 1].iter_mut().zip(row.windows(3)) {
            *out = [0, 1, 2, 3].map(|c| 0.25 * (three[0][c] + 2.0 * three[1][c] + three[2][c]));
        }
    }
    let inner = width..tile.len() - width;
    for (i, pixel) in inner.clone().zip(&mut tile[inner]) {
        *pixel = [0, 1, 2, 3]
            .map(|c| 0.25 * (scratch[i - width][c] + 2.0 * scratch[i][c] + scratch[i + width][c]));
    }
}

/// The maximum over a cross of neighbours; those count `part`.
fn grow(alpha: &[f32], out: &mut [f32], width: usize, part: f32) {
    out.copy_from_slice(alpha);
    for i in width + 1..alpha.len().saturating_sub(width + 1) {
        let beside = alpha[i - 1].max(alpha[i + 1]).max(alpha[i - width]).max(alpha[i + width]);
        out[i] = alpha[i].max(part * beside);
    }
}
