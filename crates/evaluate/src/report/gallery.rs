//! Pictures: clean, adversarial and their difference, side by side.

use super::{escape, number};
use base64::{Engine, engine::general_purpose::STANDARD};
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

/// A picture as attacks have it: planes of numbers in `[0, 1]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pixels {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[1 or 3, height, width]`, row-major; anything else is shown as missing.
    pub planes: Vec<f32>,
}

/// What a model says of a picture, best first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// The class.
    pub label: String,
    /// Its probability, in `[0, 1]`.
    pub confidence: f64,
}

/// One picture before and after the attack.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Triple {
    /// Key of the sample, so that it can be found again.
    pub key: String,
    /// The true class.
    pub truth: String,
    /// The picture as it was.
    pub clean: Pixels,
    /// The picture after the attack.
    pub adversarial: Pixels,
    /// What the model says of the clean one.
    pub before: Vec<Prediction>,
    /// What the model says of the other.
    pub after: Vec<Prediction>,
}

/// Triples under one heading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gallery {
    /// The heading.
    pub title: String,
    /// How the pictures were chosen (by a rule, not by taste); may be empty.
    pub note: String,
    /// How many times the difference is enlarged around middle grey.
    pub amplify: f32,
    /// The pictures.
    pub triples: Vec<Triple>,
}

impl Pixels {
    /// The enlarged difference of two pictures around middle grey; `None` when they differ in
    /// shape.
    pub fn difference(&self, other: &Self, amplify: f32) -> Option<Self> {
        let alike = (self.width, self.height, self.planes.len())
            == (other.width, other.height, other.planes.len());
        alike.then(|| Self {
            planes: self
                .planes
                .iter()
                .zip(&other.planes)
                .map(|(from, to)| 0.5 + amplify * (to - from))
                .collect(),
            ..*self
        })
    }

    /// The picture as a PNG file; `None` when it has no such shape.
    pub fn png(&self) -> Option<Vec<u8>> {
        let area = self.width.checked_mul(self.height).filter(|area| *area > 0)?;
        let channels = self.planes.len() / area;
        if !matches!(channels, 1 | 3) || self.planes.len() != area * channels {
            return None;
        }
        let colour = if channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        let bytes: Vec<u8> = (0..area)
            .flat_map(|pixel| (0..channels).map(move |channel| channel * area + pixel))
            // A NaN becomes black, as the conversion saturates.
            .map(|index| (self.planes[index].clamp(0.0, 1.0) * 255.0).round() as u8)
            .collect();
        let (width, height) = (u32::try_from(self.width).ok()?, u32::try_from(self.height).ok()?);
        let mut file = Vec::new();
        PngEncoder::new(&mut file).write_image(&bytes, width, height, colour).ok()?;
        Some(file)
    }

    fn html(&self, words: &str) -> String {
        let Some(png) = self.png() else { return "<div class=\"void\">no picture</div>".into() };
        let words = escape::html(words);
        // Small pictures are enlarged with hard edges; large ones would only get coarse.
        let class = if self.width < 128 { " class=\"pixelated\"" } else { "" };
        format!(
            "<img{class} width=\"{}\" height=\"{}\" alt=\"{words}\" title=\"{words}\" \
             src=\"data:image/png;base64,{}\">",
            self.width,
            self.height,
            STANDARD.encode(png)
        )
    }
}

impl Gallery {
    /// The gallery as HTML.
    pub fn html(&self) -> String {
        let mut out = String::from("<figure class=\"gallery\">");
        out += &format!("<figcaption>{}</figcaption>", escape::html(&self.title));
        if !self.note.is_empty() {
            out += &format!("<p class=\"note\">{}</p>", escape::html(&self.note));
        }
        out += "<div class=\"triples\">";
        for triple in &self.triples {
            out += &self.triple(triple);
        }
        out + "</div></figure>"
    }

    fn triple(&self, triple: &Triple) -> String {
        let times = number::number(f64::from(self.amplify), 0);
        let difference = triple.clean.difference(&triple.adversarial, self.amplify);
        let shot = |picture: &Pixels, caption: &str, predictions: &[Prediction]| {
            let words = format!("{}: {caption}", triple.key);
            format!(
                "<div class=\"shot\">{}<span class=\"unit\">{}</span>{}</div>",
                picture.html(&words),
                escape::html(caption),
                said(predictions, &triple.truth)
            )
        };
        format!(
            "<article class=\"triple\"><header><b>{}</b> <code>{}</code></header>\
             <div class=\"shots\">{}{}{}</div></article>",
            escape::html(&triple.truth),
            escape::html(&triple.key),
            shot(&triple.clean, "clean", &triple.before),
            shot(&triple.adversarial, "attacked", &triple.after),
            shot(&difference.unwrap_or_default(), &format!("difference × {times}"), &[]),
        )
    }
}

/// The leading predictions, each with a bar of its confidence; right and wrong ones differ in
/// colour and in sign.
fn said(predictions: &[Prediction], truth: &str) -> String {
    let rows = predictions.iter().take(3).enumerate().map(|(place, prediction)| {
        let right = prediction.label == truth;
        let (class, sign) = match (place, right) {
            (_, true) => ("good", "✓ "),
            (0, false) => ("bad", "✕ "),
            _ => ("quiet", ""),
        };
        let width = number::coordinate((prediction.confidence * 100.0).clamp(0.0, 100.0));
        format!(
            "<li class=\"{class}\"><span class=\"who\">{sign}{}</span>\
             <svg class=\"confidence\" aria-hidden=\"true\">\
             <rect width=\"{width}%\" height=\"100%\"/></svg><span>{}</span></li>",
            escape::html(&prediction.label),
            number::confidence(prediction.confidence)
        )
    });
    let rows: String = rows.collect();
    if rows.is_empty() { rows } else { format!("<ul class=\"said\">{rows}</ul>") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_and_its_difference() {
        let clean = Pixels { width: 2, height: 1, planes: vec![0.0, 1.0, 0.5, 0.5, 0.2, f32::NAN] };
        let file = clean.png().unwrap();
        let read = image::load_from_memory(&file).unwrap().to_rgb8();
        assert_eq!(read.into_raw(), [0, 128, 51, 255, 128, 0]);
        let other = Pixels { planes: vec![0.01; 6], ..clean.clone() };
        assert_eq!(clean.difference(&other, 10.0).unwrap().planes[0], 0.6);
        let odd = Pixels { width: 3, ..other };
        assert!(clean.difference(&odd, 1.0).is_none() && odd.png().is_none());
        assert!(Pixels::default().html("x").contains("no picture"));
    }
}
