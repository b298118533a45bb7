//! Position tables for another size: a vision transformer for larger pictures, a text tower for
//! longer texts.
//!
//! Only on request. A table that is resized silently when a file does not fit its configuration (as
//! open_clip does) hides that the configuration is another model's. A ResNet's attention pool has
//! a table too; it is never resized, and neither does anybody else.

use crate::{
    Array, Checkpoint, ModelError,
    checkpoint::hex,
    config::{MAX_CONTEXT, MAX_IMAGE, Vision},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How a grid of positions is brought to another size. Both are bicubic and keep the class token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// open_clip's: the filter that pictures are resized with (a = -0.5, widened when shrinking).
    #[default]
    OpenClip,
    /// Hugging Face's `interpolate_pos_encoding`: four taps (a = -0.75), the border repeated.
    HuggingFace,
}

impl Way {
    /// For every new place the old places it is a mean of, with their weights.
    fn taps(self, from: usize, to: usize) -> Vec<Vec<(usize, f64)>> {
        let scale = from as f64 / to as f64;
        (0..to)
            .map(|place| {
                let centre = (place as f64 + 0.5) * scale;
                match self {
                    Self::OpenClip => widened(centre, scale.max(1.0), from),
                    Self::HuggingFace => four(centre - 0.5, from),
                }
            })
            .collect()
    }
}

fn widened(centre: f64, factor: f64, from: usize) -> Vec<(usize, f64)> {
    let support = 2.0 * factor;
    let low = (centre - support + 0.5).max(0.0) as usize;
    let high = ((centre + support + 0.5) as usize).min(from);
    let weight = |j: usize| cubic((j as f64 - centre + 0.5) / factor, -0.5);
    let sum: f64 = (low..high).map(weight).sum();
    (low..high).map(|j| (j, weight(j) / sum)).collect()
}

fn four(source: f64, from: usize) -> Vec<(usize, f64)> {
    let (first, last) = (source.floor(), from as f64 - 1.0);
    let tap = |offset: f64| {
        let place = (first + offset).clamp(0.0, last) as usize;
        (place, cubic(source - first - offset, -0.75))
    };
    [-1.0, 0.0, 1.0, 2.0].map(tap).to_vec()
}

/// Keys' cubic kernel.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((x - 5.0) * x + 8.0) * x * a - 4.0 * a
    } else {
        0.0
    }
}

/// The table `[1 + rows * columns, width]` of a vision transformer for another grid; `from` and
/// `to` are rows and columns.
///
/// # Panics
/// When the table is not of the size `from`.
pub fn resize_grid(table: &Array, from: [usize; 2], to: [usize; 2], way: Way) -> Array {
    let width = table.shape.last().copied().unwrap_or(0);
    assert_eq!(table.shape, [1 + from[0] * from[1], width], "table and grid disagree");
    let (class, grid) = table.data.split_at(width);
    // Columns first, then rows, as pictures are.
    let across = mix(grid, from[0], &way.taps(from[1], to[1]), width);
    let mut data = class.to_vec();
    data.extend(mix(&across, 1, &way.taps(from[0], to[0]), to[1] * width));
    Array::new(vec![1 + to[0] * to[1], width], data)
}

/// The table `[positions, width]` of a text tower for another length: linear between the two
/// nearest positions (open_clip's).
pub fn resize_line(table: &Array, to: usize) -> Array {
    let (from, width) = (table.shape[0], table.shape.get(1).copied().unwrap_or(1));
    let scale = from as f64 / to as f64;
    let taps: Vec<Vec<(usize, f64)>> = (0..to)
        .map(|place| {
            let source = ((place as f64 + 0.5) * scale - 0.5).max(0.0);
            let (first, part) = (source as usize, source.fract());
            vec![(first, 1.0 - part), ((first + 1).min(from - 1), part)]
        })
        .collect();
    Array::new(vec![to, width], mix(&table.data, 1, &taps, width))
}

/// Weighted means over the second of the axes `[outer, places, inner]`.
fn mix(values: &[f32], outer: usize, taps: &[Vec<(usize, f64)>], inner: usize) -> Vec<f32> {
    let mut result = Vec::with_capacity(outer * taps.len() * inner);
    for block in values.chunks_exact(values.len() / outer.max(1)) {
        for taps in taps {
            result.extend((0..inner).map(|i| {
                taps.iter().map(|(j, w)| w * f64::from(block[j * inner + i])).sum::<f64>() as f32
            }));
        }
    }
    result
}

impl Checkpoint {
    /// The same model for pictures of another side. What was done is added to the warnings, and
    /// the digest is that of another model.
    ///
    /// # Errors
    /// A ResNet, or a side that no grid of patches fits.
    pub fn for_image_size(mut self, side: usize, way: Way) -> Result<Self, ModelError> {
        let refuse = |reason: String| ModelError::Resize { name: self.name.clone(), reason };
        let Vision::Vit { image_size, patch, .. } = &mut self.architecture.vision else {
            return Err(refuse("a ResNet's attention pool keeps its size".to_owned()));
        };
        if !(*patch..=MAX_IMAGE).contains(&side) {
            return Err(refuse(format!(
                "image size {side}: a side from {patch} (one patch) to {MAX_IMAGE} is needed"
            )));
        }
        let (old, from, to) = (*image_size, *image_size / *patch, side / *patch);
        *image_size = side;
        if old == side {
            return Ok(self);
        }
        let name = "visual.positional_embedding";
        if let Some(table) = self.weights.get_mut(name) {
            *table = resize_grid(table, [from; 2], [to; 2], way);
        }
        if let Some(config) = self.architecture.source.get_mut("vision_cfg") {
            config["image_size"] = json!(side);
        }
        self.preprocess.resize.size = side as u32;
        self.told(format!(
            "position table of {from}x{from} patches ({old} px) resized to {to}x{to} ({side} px)"
        ));
        Ok(self)
    }

    /// The same model for texts of another number of tokens.
    ///
    /// # Errors
    /// A length that no text fits, or that is beyond any model.
    pub fn for_context(mut self, tokens: usize) -> Result<Self, ModelError> {
        if !(3..=MAX_CONTEXT).contains(&tokens) {
            return Err(ModelError::Resize {
                name: self.name,
                reason: format!("context {tokens}: a length from 3 to {MAX_CONTEXT} is needed"),
            });
        }
        let old = std::mem::replace(&mut self.architecture.text.context, tokens);
        if old == tokens {
            return Ok(self);
        }
        let prefix = if self.architecture.custom_text { "text." } else { "" };
        if let Some(table) = self.weights.get_mut(&format!("{prefix}positional_embedding")) {
            *table = resize_line(table, tokens);
        }
        if let Some(Value::Object(config)) = self.architecture.source.get_mut("text_cfg") {
            config.insert("context_length".to_owned(), json!(tokens));
        }
        self.told(format!("position table of {old} tokens resized to {tokens}"));
        Ok(self)
    }

    fn told(&mut self, what: String) {
        self.digest = hex(&Sha256::digest(format!("{}\n{what}\n", self.digest)));
        self.warnings.push(what);
    }
}
