//! Jitter of training pictures: place, brightness, channel offsets. Never mirrored, because
//! captions speak of left and right.

use clipguard_data::{Picture, Stream};
use serde::{Deserialize, Serialize};

/// How much a training picture is moved and recoloured. Defaults do nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jitter {
    /// Largest shift in pixels, both ways; the border repeats.
    pub shift: u32,
    /// Brightness factor is uniform in `1 - b ..= 1 + b`.
    pub brightness: f32,
    /// Each channel is offset by up to this many grey levels.
    pub offset: f32,
}

impl Jitter {
    /// Says which value makes no sense.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.brightness) {
            return Err(format!("jitter.brightness = {}: a number in [0, 1]", self.brightness));
        }
        if !(0.0..=255.0).contains(&self.offset) || self.shift > 64 {
            return Err("jitter: offset must lie in [0, 255] and shift in 0..=64".to_owned());
        }
        Ok(())
    }

    /// Applies the jitter drawn from `stream`.
    pub fn apply(&self, picture: &mut Picture, stream: &mut Stream) {
        if *self == Self::default() {
            return;
        }
        let range = 2 * self.shift as usize + 1;
        let (dx, dy) = (stream.below(range) as i64, stream.below(range) as i64);
        let (dx, dy) = (dx - i64::from(self.shift), dy - i64::from(self.shift));
        let gain = stream.within(1.0 - self.brightness, 1.0 + self.brightness);
        let offset = [0; 3].map(|_: u8| stream.within(-self.offset, self.offset));
        let tables: [Vec<u8>; 3] = offset.map(|offset| {
            (0..256).map(|v| (v as f32 * gain + offset + 0.5).clamp(0.0, 255.0) as u8).collect()
        });
        let (w, h) = (i64::from(picture.width), i64::from(picture.height));
        let source = picture.rgb.clone();
        for (i, pixel) in picture.rgb.chunks_exact_mut(3).enumerate() {
            let (x, y) = (i as i64 % w, i as i64 / w);
            let from = ((y + dy).clamp(0, h - 1) * w + (x + dx).clamp(0, w - 1)) as usize * 3;
            for (c, value) in pixel.iter_mut().enumerate() {
                *value = tables[c][usize::from(source[from + c])];
            }
        }
    }
}
