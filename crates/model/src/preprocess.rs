//! From a picture to the pixels a model takes.

use burn::tensor::{Device, Tensor, TensorData};
use clipguard_data::{Fit, Interpolation, Resize};
use serde_json::{Value, json};

/// OpenAI's channel means in `[0, 1]`.
pub const OPENAI_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// OpenAI's channel standard deviations.
pub const OPENAI_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Size, resampling and normalisation of a model's input (open_clip's `preprocess_cfg`).
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// How a picture of any size becomes the square input.
    pub resize: Resize,
    /// Per channel, subtracted from pixels in `[0, 1]`.
    pub mean: [f32; 3],
    /// Per channel, divided by after that.
    pub std: [f32; 3],
}

impl Preprocess {
    /// OpenAI's defaults for a model with input side `size`.
    pub fn openai(size: usize) -> Self {
        Self { resize: Resize::new(size as u32), mean: OPENAI_MEAN, std: OPENAI_STD }
    }

    /// Reads open_clip's `preprocess_cfg`; missing keys take OpenAI's values. The error says which
    /// key is wrong and what would be right.
    pub fn from_json(config: &Value, size: usize) -> Result<Self, String> {
        let mut result = Self::openai(size);
        let empty = serde_json::Map::new();
        for (key, value) in config.as_object().unwrap_or(&empty) {
            match key.as_str() {
                "size" => result.resize.size = side(value)?,
                "mean" => result.mean = triple(key, value, |v| v.is_finite())?,
                "std" => result.std = triple(key, value, |v| v.is_finite() && v > 0.0)?,
                "interpolation" => {
                    result.resize.interpolation = match value.as_str() {
                        Some("bicubic") => Interpolation::Bicubic,
                        Some("bilinear") => Interpolation::Bilinear,
                        _ => return Err(format!("`interpolation` = {value}: bicubic or bilinear")),
                    }
                }
                "resize_mode" => {
                    result.resize.mode = match value.as_str() {
                        Some("shortest") => Fit::Shortest,
                        Some("longest") => Fit::Longest,
                        Some("squash") => Fit::Squash,
                        _ => {
                            return Err(format!(
                                "`resize_mode` = {value}: shortest, longest or squash"
                            ));
                        }
                    }
                }
                "fill_color" => {
                    result.resize.fill = match value.as_u64() {
                        Some(v) if v <= 255 => [v as u8; 3],
                        _ => return Err(format!("`fill_color` = {value}: a level in 0..=255")),
                    }
                }
                "mode" if value == "RGB" => {}
                "mode" => return Err(format!("`mode` = {value}: only RGB is supported")),
                _ => return Err(format!("unknown key `{}`", key.escape_debug())),
            }
        }
        if result.resize.size as usize != size {
            return Err(format!("`size` is {}, the tower takes {size}", result.resize.size));
        }
        Ok(result)
    }

    /// As open_clip writes it.
    pub fn to_json(&self) -> Value {
        let double = |v: &[f32; 3]| v.map(|x| x.to_string().parse::<f64>().unwrap_or(f64::from(x)));
        json!({
            "size": self.resize.size,
            "mode": "RGB",
            "mean": double(&self.mean),
            "std": double(&self.std),
            "interpolation": match self.resize.interpolation {
                Interpolation::Bicubic => "bicubic",
                Interpolation::Bilinear => "bilinear",
            },
            "resize_mode": match self.resize.mode {
                Fit::Shortest => "shortest",
                Fit::Longest => "longest",
                Fit::Squash => "squash",
            },
            "fill_color": self.resize.fill[0],
        })
    }

    /// `(pixels - mean) / std` per channel, `[batch, 3, h, w]`.
    pub fn normalise(&self, pixels: Tensor<4>) -> Tensor<4> {
        let device = pixels.device();
        let channels = |v: [f32; 3]| {
            Tensor::<4>::from_data(TensorData::new(v.to_vec(), [1, 3, 1, 1]), &device)
        };
        let inverse = self.std.map(|s| 1.0 / s);
        (pixels - channels(self.mean)) * channels(inverse)
    }

    /// Stacks prepared 8-bit pictures (`3 * size * size` bytes, interleaved RGB) into pixels
    /// `[batch, 3, size, size]` in `[0, 1]`.
    pub fn stack(&self, pictures: &[&[u8]], device: &Device) -> Tensor<4> {
        let side = self.resize.size as usize;
        let plane = side * side;
        let mut values = vec![0f32; pictures.len() * 3 * plane];
        for (picture, target) in pictures.iter().zip(values.chunks_exact_mut(3 * plane)) {
            let (red, rest) = target.split_at_mut(plane);
            let (green, blue) = rest.split_at_mut(plane);
            for (i, rgb) in picture.chunks_exact(3).enumerate().take(plane) {
                red[i] = f32::from(rgb[0]) / 255.0;
                green[i] = f32::from(rgb[1]) / 255.0;
                blue[i] = f32::from(rgb[2]) / 255.0;
            }
        }
        Tensor::from_data(TensorData::new(values, [pictures.len(), 3, side, side]), device)
    }
}

fn side(value: &Value) -> Result<u32, String> {
    let one = |v: &Value| v.as_u64().filter(|n| (1..=2048).contains(n)).map(|n| n as u32);
    let sides: Option<Vec<u32>> = match value {
        Value::Array(v) => v.iter().map(one).collect(),
        v => one(v).map(|n| vec![n]),
    };
    match sides.as_deref() {
        Some([a]) => Ok(*a),
        Some([a, b]) if a == b => Ok(*a),
        _ => Err(format!("`size` = {value}: one side in 1..=2048 is needed")),
    }
}

fn triple(key: &str, value: &Value, good: impl Fn(f32) -> bool) -> Result<[f32; 3], String> {
    let numbers: Option<Vec<f32>> =
        value.as_array().and_then(|a| a.iter().map(|v| v.as_f64().map(|v| v as f32)).collect());
    match numbers.as_deref() {
        Some([a, b, c]) if [*a, *b, *c].iter().all(|v| good(*v)) => Ok([*a, *b, *c]),
        _ => Err(format!("`{key}` = {value}: three numbers are needed (std above 0)")),
    }
}
