//! AutoAugment with the policy learned on ImageNet (Cubuk et al., CVPR 2019), as torchvision
//! applies it: nearest neighbours, black where nothing comes from.

use super::{Augmentation, colour, filter, geometry, tables};
use crate::{
    Picture, Stream, parameters,
    spelling::{Parameters, Spelling, SpellingError},
};
use Op::*;

/// Bins of a magnitude.
const BINS: usize = 10;

/// An operation of AutoAugment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the operations")]
pub enum Op {
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
    Invert,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 14] = [
        ShearX,
        ShearY,
        TranslateX,
        TranslateY,
        Rotate,
        Brightness,
        Color,
        Contrast,
        Sharpness,
        Posterize,
        Solarize,
        AutoContrast,
        Equalize,
        Invert,
    ];

    /// Whether the magnitude's sign is drawn.
    pub fn is_signed(self) -> bool {
        !matches!(self, Posterize | Solarize | AutoContrast | Equalize | Invert)
    }

    /// The magnitude of `bin` (0 to 9) for a picture of that size; 0 for operations without one.
    pub fn magnitude(self, bin: usize, width: u32, height: u32) -> f64 {
        let bin = bin.min(BINS - 1);
        let (first, last) = match self {
            ShearX | ShearY => (0.0, 0.3),
            TranslateX => (0.0, 150.0 / 331.0 * f64::from(width)),
            TranslateY => (0.0, 150.0 / 331.0 * f64::from(height)),
            Rotate => (0.0, 30.0),
            Brightness | Color | Contrast | Sharpness => (0.0, 0.9),
            // Bits that stay.
            Posterize => return 8.0 - (bin as f64 / ((BINS - 1) as f64 / 4.0)).round_ties_even(),
            Solarize => (255.0, 0.0),
            AutoContrast | Equalize | Invert => return 0.0,
        };
        evenly(first as f32, last as f32, bin).into()
    }

    /// The operation at a signed magnitude.
    pub fn apply(self, picture: &Picture, magnitude: f64) -> Picture {
        match self {
            ShearX => geometry::shear_x(picture, magnitude),
            ShearY => geometry::shear_y(picture, magnitude),
            TranslateX => geometry::translate_x(picture, magnitude),
            TranslateY => geometry::translate_y(picture, magnitude),
            Rotate => geometry::rotate(picture, magnitude),
            Brightness => colour::brightness(picture, 1.0 + magnitude),
            Color => colour::saturation(picture, 1.0 + magnitude),
            Contrast => colour::contrast(picture, 1.0 + magnitude),
            Sharpness => filter::sharpness(picture, 1.0 + magnitude),
            Posterize => tables::posterize(picture, magnitude as u32),
            Solarize => tables::solarize(picture, magnitude),
            AutoContrast => tables::autocontrast(picture),
            Equalize => tables::equalize(picture),
            Invert => tables::invert(picture),
        }
    }
}

/// Place `i` of [`BINS`] places evenly from `first` to `last`, counted from the nearer end in f32 and
/// rounded once, as the reference does: whole pixels of a translation hang on the last bit.
fn evenly(first: f32, last: f32, i: usize) -> f32 {
    let step = (last - first) / (BINS - 1) as f32;
    match i < BINS / 2 {
        true => step.mul_add(i as f32, first),
        false => (-step).mul_add((BINS - 1 - i) as f32, last),
    }
}

/// Two operations, each with its probability and the bin of its magnitude.
pub type SubPolicy = [(Op, f32, usize); 2];

/// The 25 sub-policies learned on ImageNet. Some come twice, and so count twice.
pub const POLICY: [SubPolicy; 25] = [
    [(Posterize, 0.4, 8), (Rotate, 0.6, 9)],
    [(Solarize, 0.6, 5), (AutoContrast, 0.6, 0)],
    [(Equalize, 0.8, 0), (Equalize, 0.6, 0)],
    [(Posterize, 0.6, 7), (Posterize, 0.6, 6)],
    [(Equalize, 0.4, 0), (Solarize, 0.2, 4)],
    [(Equalize, 0.4, 0), (Rotate, 0.8, 8)],
    [(Solarize, 0.6, 3), (Equalize, 0.6, 0)],
    [(Posterize, 0.8, 5), (Equalize, 1.0, 0)],
    [(Rotate, 0.2, 3), (Solarize, 0.6, 8)],
    [(Equalize, 0.6, 0), (Posterize, 0.4, 6)],
    [(Rotate, 0.8, 8), (Color, 0.4, 0)],
    [(Rotate, 0.4, 9), (Equalize, 0.6, 0)],
    [(Equalize, 0.0, 0), (Equalize, 0.8, 0)],
    [(Invert, 0.6, 0), (Equalize, 1.0, 0)],
    [(Color, 0.6, 4), (Contrast, 1.0, 8)],
    [(Rotate, 0.8, 8), (Color, 1.0, 2)],
    [(Color, 0.8, 8), (Solarize, 0.8, 7)],
    [(Sharpness, 0.4, 7), (Invert, 0.6, 0)],
    [(ShearX, 0.6, 5), (Equalize, 1.0, 0)],
    [(Color, 0.4, 0), (Equalize, 0.6, 0)],
    [(Equalize, 0.4, 0), (Solarize, 0.2, 4)],
    [(Solarize, 0.6, 5), (AutoContrast, 0.6, 0)],
    [(Invert, 0.6, 0), (Equalize, 1.0, 0)],
    [(Color, 0.6, 4), (Contrast, 1.0, 8)],
    [(Equalize, 0.8, 0), (Equalize, 0.6, 0)],
];

parameters! {
    /// One of the 25 sub-policies, drawn uniformly for every view. There is nothing to set: the
    /// policy is what was learned.
    pub struct AutoAugment {}
}

impl AutoAugment {
    /// The method of the spelling `autoaugment`.
    ///
    /// # Errors
    /// Any setting.
    pub fn from_spelling(spelling: &Spelling) -> Result<Self, SpellingError> {
        spelling.read()
    }
}

impl Augmentation for AutoAugment {
    fn view(&self, picture: &Picture, _side: u32, stream: &mut Stream) -> Picture {
        let policy = POLICY[stream.below(POLICY.len())];
        policy.into_iter().fold(picture.clone(), |view, (op, probability, bin)| {
            // Both are drawn always, so that the second operation's draws do not hang on the first.
            let (happens, negative) = (stream.chance(probability), stream.chance(0.5));
            if !happens {
                return view;
            }
            let magnitude = op.magnitude(bin, view.width, view.height);
            op.apply(&view, if negative && op.is_signed() { -magnitude } else { magnitude })
        })
    }

    fn spelling(&self) -> Spelling {
        self.spelled("autoaugment")
    }
}
