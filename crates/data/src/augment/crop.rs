//! open_clip's training transform: a large random part of the picture.

use super::{Augmentation, geometry::random_area};
use crate::{
    Interpolation, Picture, Stream, parameters, resize,
    spelling::{Parameters, Spelling, SpellingError},
};

/// Width over height of a random part; all methods use the same range.
pub(super) const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);

parameters! {
    /// A random part, resized (bicubic) to the model's side.
    pub struct RandomCrop {
        /// Smallest share of the picture's area that is kept; at most 1.
        area: f32 = 0.9,
    }
}

impl RandomCrop {
    /// The crop of a spelling such as `crop:area=0.5`.
    ///
    /// # Errors
    /// Unknown settings, values out of range.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        let crop: Self = spelling.read()?;
        spelling.demand([(
            "area",
            crop.area > 0.0 && crop.area <= 1.0,
            "a share above 0, up to 1",
        )])?;
        Ok(crop)
    }
}

impl Augmentation for RandomCrop {
    fn view(&self, picture: &Picture, side: u32, stream: &mut Stream) -> Picture {
        random_part(picture, side, self.area, Interpolation::Bicubic, stream)
    }

    fn spelling(&self) -> Spelling {
        self.spelled("crop")
    }
}

/// A random part of at least `area` of the picture, as a square of `side` pixels.
pub(super) fn random_part(
    picture: &Picture,
    side: u32,
    area: f32,
    interpolation: Interpolation,
    stream: &mut Stream,
) -> Picture {
    let size = (picture.width, picture.height);
    let part = random_area(size, (f64::from(area), 1.0), RATIO, stream);
    resize(picture, part, side, side, interpolation)
}
