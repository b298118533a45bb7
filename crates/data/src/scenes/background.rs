//! Painting what is behind the objects.

use super::{
    look::sin_cos,
    paint::{Canvas, Placement},
    scene::{Background, Pattern, Scene},
    words::COLOURS,
};
use crate::Stream;
use std::f32::consts::PI;

impl Background {
    /// Fills the canvas. `stream` gives the details of the pattern.
    pub(super) fn paint(&self, scene: &Scene, stream: &mut Stream, canvas: &mut Canvas) {
        let [from, to] = self
            .colours
            .map(|c| COLOURS[c].1.map(|v| self.strength * v + (1.0 - self.strength) * self.gray));
        match self.pattern {
            Pattern::Plain => canvas.fill(|_, _| 0.0, from, from),
            Pattern::Gradient => {
                let (sin, cos) = sin_cos(stream.within(0.0, PI));
                canvas.fill(|x, y| ((x - 0.5) * cos + (y - 0.5) * sin + 0.7) / 1.4, from, to);
            }
            Pattern::Striped => {
                let (sin, cos) = sin_cos(stream.within(0.0, PI));
                let count = stream.within(2.0, 6.0);
                let phase = stream.uniform();
                let sharp = canvas.side as f32 / (4.0 * count);
                canvas.fill(
                    |x, y| edge(wave(count * (x * cos + y * sin) + phase), sharp),
                    from,
                    to,
                );
            }
            Pattern::Checkered => {
                let (sin, cos) = sin_cos(stream.within(-0.5, 0.5));
                let count = stream.within(1.5, 5.0);
                let [across, down] = [stream.uniform(), stream.uniform()];
                let sharp = canvas.side as f32 / (4.0 * count);
                let field = |x: f32, y: f32| {
                    let u = wave(count * (x * cos + y * sin) + across);
                    let v = wave(count * (y * cos - x * sin) + down);
                    // Soft "exclusive or" of two stripe patterns.
                    let [u, v] = [edge(u, sharp), edge(v, sharp)];
                    u + v - 2.0 * u * v
                };
                canvas.fill(field, from, to);
            }
            Pattern::Spotted => {
                let (sin, cos) = sin_cos(stream.within(-0.8, 0.8));
                let count = stream.within(2.5, 7.0);
                let radius = stream.within(0.2, 0.42);
                let [across, down] = [stream.uniform(), stream.uniform()];
                let sharp = canvas.side as f32 / count;
                let field = |x: f32, y: f32| {
                    let u = count * (x * cos + y * sin) + across;
                    let v = count * (y * cos - x * sin) + down;
                    let [u, v] = [u - u.floor() - 0.5, v - v.floor() - 0.5];
                    ((radius - (u * u + v * v).sqrt()) * sharp + 0.5).clamp(0.0, 1.0)
                };
                canvas.fill(field, from, to);
            }
            Pattern::Cloudy => {
                canvas.field.clear();
                canvas.field.resize(canvas.side * canvas.side, 0.0);
                let count = 2 + stream.below(5);
                canvas.noise(stream, count, 1.0);
                canvas.fill_with_field(from, to);
            }
            Pattern::Rough => {
                canvas.field.clear();
                canvas.field.resize(canvas.side * canvas.side, 0.0);
                let first = 2 + stream.below(4);
                for (octave, share) in [(1, 0.45), (2, 0.25), (4, 0.2), (8, 0.15)] {
                    canvas.noise(stream, first * octave, share);
                }
                canvas.fill_with_field(from, to);
            }
            Pattern::Blurry => {
                canvas.fill(|_, y| y, from, to);
                self.collage(scene, stream, canvas);
            }
        }
    }

    /// The scene's own drawings from their smallest copies, far too large: colours and soft edges
    /// remain, no content.
    fn collage(&self, scene: &Scene, stream: &mut Stream, canvas: &mut Canvas) {
        for _ in 0..3 {
            let mut object = scene.objects[stream.below(scene.objects.len())].clone();
            let placement = Placement { level: Some(3), opacity: 0.3 + 0.4 * self.strength };
            (object.x, object.y) = (stream.within(-0.2, 1.2), stream.within(-0.2, 1.2));
            object.size = stream.within(1.2, 2.0);
            object.turn = stream.within(-3.0, 3.0);
            object.look.outline = None;
            object.look.shadow = None;
            object.look.blurred = false;
            // Other colours than the object in front, or it would have no edge.
            object.look.matrix.rotate_left(1 + stream.below(2));
            canvas.draw(&object, &placement);
        }
    }
}

/// A wave of period 1 between -1 and 1, with straight flanks.
fn wave(x: f32) -> f32 {
    4.0 * (x - x.floor() - 0.5).abs() - 1.0
}

/// A step at 0, as wide as a pixel.
fn edge(wave: f32, sharp: f32) -> f32 {
    (wave * sharp + 0.5).clamp(0.0, 1.0)
}
