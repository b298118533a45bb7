//! Operations that look at levels alone (Pillow's `ImageOps`).

use super::colour::mapped;
use crate::Picture;

/// Keeps the highest `bits` bits of every level; 8 or more is the identity.
pub fn posterize(picture: &Picture, bits: u32) -> Picture {
    let mask = 0xff_u8.checked_shl(8_u32.saturating_sub(bits)).unwrap_or(0);
    mapped(picture, &std::array::from_fn(|v| v as u8 & mask))
}

/// Inverts the levels from `threshold` on.
pub fn solarize(picture: &Picture, threshold: f64) -> Picture {
    let table = std::array::from_fn(|v| if (v as f64) < threshold { v } else { 255 - v } as u8);
    mapped(picture, &table)
}

/// Turns every level round.
pub fn invert(picture: &Picture) -> Picture {
    mapped(picture, &std::array::from_fn(|v| 255 - v as u8))
}

/// Stretches each channel to the full range; a flat channel stays.
pub fn autocontrast(picture: &Picture) -> Picture {
    channels(picture, |histogram| {
        let used = |v: &usize| histogram[*v] > 0;
        let low = (0..256).find(used).unwrap_or(0);
        let high = (0..256).rfind(used).unwrap_or(0);
        if high <= low {
            return std::array::from_fn(|v| v as u8);
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * scale;
        std::array::from_fn(|v| (v as f64 * scale + offset) as u8)
    })
}

/// Makes the levels of each channel equally frequent, as far as a table can.
pub fn equalize(picture: &Picture) -> Picture {
    channels(picture, |histogram| {
        let identity = std::array::from_fn(|v| v as u8);
        let mut bins = histogram.iter().filter(|&&count| count > 0);
        let Some(last) = bins.next_back() else { return identity };
        let step = (histogram.iter().sum::<u64>() - last) / 255;
        if bins.next().is_none() || step == 0 {
            return identity;
        }
        let mut below = step / 2;
        histogram.map(|count| {
            let level = (below / step).min(255) as u8;
            below += count;
            level
        })
    })
}

/// Maps each channel by a table made of its histogram.
fn channels(picture: &Picture, table: impl Fn(&[u64; 256]) -> [u8; 256]) -> Picture {
    let mut histograms = [[0_u64; 256]; 3];
    for (i, &v) in picture.rgb.iter().enumerate() {
        histograms[i % 3][usize::from(v)] += 1;
    }
    let tables = histograms.each_ref().map(table);
    let level = |(i, &v): (usize, &u8)| tables[i % 3][usize::from(v)];
    Picture { rgb: picture.rgb.iter().enumerate().map(level).collect(), ..*picture }
}
