//! SimCLR's views (Chen et al., ICML 2020, appendix A).

use super::{
    Augmentation,
    colour::{ColourJitter, grey},
    crop::random_part,
    filter::blur,
    geometry::flip,
    is_probability,
};
use crate::{
    Interpolation, Picture, Stream, parameters,
    spelling::{Parameters, Spelling, SpellingError},
};

parameters! {
    /// A random part, mirrored, recoloured, grey, blurred, each with its probability.
    pub struct SimClr {
        /// Strength of the colour jitter: brightness, contrast and saturation change by up to 0.8
        /// times this, the hue by up to 0.2 times; 0 to 2.5.
        strength: f32 = 1.0,
        /// Smallest share of the picture's area that is kept; at most 1.
        area: f32 = 0.08,
        /// Probability of the mirror image. 0 where captions speak of left and right.
        flip: f32 = 0.5,
        /// Probability of the colour jitter.
        jitter: f32 = 0.8,
        /// Probability of grey.
        grey: f32 = 0.2,
        /// Probability of a blur whose kernel is a tenth of the side and whose sigma is uniform in
        /// [0.1, 2] pixels.
        blur: f32 = 0.5,
    }
}

impl SimClr {
    /// The views of a spelling such as `simclr:strength=0.5`.
    ///
    /// # Errors
    /// Unknown settings, values out of range.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        let simclr: Self = spelling.read()?;
        let probability = "a probability";
        spelling.demand([
            ("strength", (0.0..=2.5).contains(&simclr.strength), "a number from 0 to 2.5"),
            ("area", simclr.area > 0.0 && simclr.area <= 1.0, "a share above 0, up to 1"),
            ("flip", is_probability(simclr.flip), probability),
            ("jitter", is_probability(simclr.jitter), probability),
            ("grey", is_probability(simclr.grey), probability),
            ("blur", is_probability(simclr.blur), probability),
        ])?;
        Ok(simclr)
    }
}

impl Augmentation for SimClr {
    fn view(&self, picture: &Picture, side: u32, stream: &mut Stream) -> Picture {
        let mut view = random_part(picture, side, self.area, Interpolation::Bicubic, stream);
        if stream.chance(self.flip) {
            view = flip(&view);
        }
        if stream.chance(self.jitter) {
            let by = f64::from(self.strength);
            let (most, hue) = (0.8 * by, 0.2 * by);
            let jitter = ColourJitter { brightness: most, contrast: most, saturation: most, hue };
            view = jitter.apply(&view, stream);
        }
        if stream.chance(self.grey) {
            view = grey(&view);
        }
        if stream.chance(self.blur) {
            // 23 pixels of 224.
            let kernel = side / 10 / 2 * 2 + 1;
            view = blur(&view, kernel, sigma(stream));
        }
        view
    }

    fn spelling(&self) -> Spelling {
        self.spelled("simclr")
    }
}

/// Width of a random blur in pixels.
pub(super) fn sigma(stream: &mut Stream) -> f64 {
    f64::from(stream.within(0.1, 2.0))
}
