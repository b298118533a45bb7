//! The views of SafeCLIP's released training code.

use super::{
    Augmentation,
    colour::{ColourJitter, grey},
    crop::random_part,
    filter::blur,
    geometry::flip,
    is_probability,
    simclr::sigma,
};
use crate::{
    Interpolation, Picture, Stream, parameters,
    spelling::{Parameters, Spelling, SpellingError},
};

parameters! {
    /// Mirrored, a random part (bilinear), recoloured, grey, blurred.
    pub struct SafeClip {
        /// Smallest share of the picture's area that is kept; at most 1.
        area: f32 = 0.08,
        /// Probability of the mirror image. 0 where captions speak of left and right.
        flip: f32 = 0.5,
        /// Probability of the colour jitter: brightness, contrast and saturation by up to half, the
        /// hue by up to a tenth of the circle.
        jitter: f32 = 0.8,
        /// Probability of grey.
        grey: f32 = 0.2,
        /// Width of the blur's kernel in pixels, odd; 1 is no blur. Sigma is uniform in [0.1, 2].
        /// The 21 is meant for 224 pixels.
        kernel: u32 = 21,
    }
}

impl SafeClip {
    /// The views of a spelling such as `safeclip:kernel=3`.
    ///
    /// # Errors
    /// Unknown settings, values out of range.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        let safeclip: Self = spelling.read()?;
        let probability = "a probability";
        let odd = safeclip.kernel % 2 == 1 && safeclip.kernel <= 255;
        spelling.demand([
            ("area", safeclip.area > 0.0 && safeclip.area <= 1.0, "a share above 0, up to 1"),
            ("flip", is_probability(safeclip.flip), probability),
            ("jitter", is_probability(safeclip.jitter), probability),
            ("grey", is_probability(safeclip.grey), probability),
            ("kernel", odd, "an odd number from 1 to 255"),
        ])?;
        Ok(safeclip)
    }
}

/// The released numbers.
const JITTER: ColourJitter =
    ColourJitter { brightness: 0.5, contrast: 0.5, saturation: 0.5, hue: 0.1 };

impl Augmentation for SafeClip {
    fn view(&self, picture: &Picture, side: u32, stream: &mut Stream) -> Picture {
        let mirrored = stream.chance(self.flip);
        let whole = if mirrored { &flip(picture) } else { picture };
        let mut view = random_part(whole, side, self.area, Interpolation::Bilinear, stream);
        if stream.chance(self.jitter) {
            view = JITTER.apply(&view, stream);
        }
        if stream.chance(self.grey) {
            view = grey(&view);
        }
        if self.kernel > 1 {
            view = blur(&view, self.kernel, sigma(stream));
        }
        view
    }

    fn spelling(&self) -> Spelling {
        self.spelled("safeclip")
    }
}
