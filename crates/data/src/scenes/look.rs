//! How one drawing is changed before it enters the picture.
//!
//! A model that has seen a few draughtsmen must recognise the hand of another. What differs between
//! emoji sets is palette, shading, contour and proportion, so these are what training varies;
//! each change has its own share, and all of them can be turned off.

use crate::Stream;
use serde::{Deserialize, Serialize};
use std::f32::consts::PI;

/// The share of objects to which each change is applied, 0..=1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Looks {
    /// Hue turned by up to 25 degrees, saturation and lightness changed (only where the caption
    /// names no colour).
    pub colour: f32,
    /// Hue turned by any angle (only where the caption names no colour).
    pub recolour: f32,
    /// Colours removed (only where the caption names no colour).
    pub gray: f32,
    /// Contrast changed.
    pub contrast: f32,
    /// Light falling from one side.
    pub shading: f32,
    /// Sheared and narrowed towards one side, and turned further than others.
    pub shear: f32,
    /// A contour drawn around it.
    pub outline: f32,
    /// Few levels of colour left: gradients become flat areas.
    pub posterise: f32,
    /// Slightly out of focus.
    pub blur: f32,
    /// A shadow cast on the background.
    pub shadow: f32,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            colour: 0.5,
            recolour: 0.05,
            gray: 0.04,
            contrast: 0.3,
            shading: 0.3,
            shear: 0.4,
            outline: 0.2,
            posterise: 0.15,
            blur: 0.1,
            shadow: 0.12,
        }
    }
}

impl Looks {
    /// Every share multiplied by `factor`; 0 leaves the drawings as they are.
    pub fn scaled(&self, factor: f32) -> Self {
        let Self {
            colour,
            recolour,
            gray,
            contrast,
            shading,
            shear,
            outline,
            posterise,
            blur,
            shadow,
        } = self;
        let by = |share: &f32| (share * factor).clamp(0.0, 1.0);
        Self {
            colour: by(colour),
            recolour: by(recolour),
            gray: by(gray),
            contrast: by(contrast),
            shading: by(shading),
            shear: by(shear),
            outline: by(outline),
            posterise: by(posterise),
            blur: by(blur),
            shadow: by(shadow),
        }
    }
}

/// The changes of one object, drawn.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Look {
    /// New colour = `matrix` * old colour + `offset`, colours 0..=1.
    pub(super) matrix: [[f32; 3]; 3],
    pub(super) offset: f32,
    /// Brightness rises by this much per side length to the right and down.
    pub(super) light: [f32; 2],
    pub(super) shear: f32,
    pub(super) taper: f32,
    /// Added to the rotation, in radians.
    pub(super) turn: f32,
    /// Width as a share of the picture side, and colour.
    pub(super) outline: Option<(f32, [f32; 3])>,
    pub(super) levels: Option<f32>,
    pub(super) blurred: bool,
    /// Displacement as a share of the picture side, and strength.
    pub(super) shadow: Option<([f32; 2], f32)>,
}

impl Look {
    /// No change.
    pub(super) fn none() -> Self {
        Self {
            matrix: hue(0.0),
            offset: 0.0,
            light: [0.0; 2],
            shear: 0.0,
            taper: 0.0,
            turn: 0.0,
            outline: None,
            levels: None,
            blurred: false,
            shadow: None,
        }
    }

    /// Draws the changes of one object; `told` when its caption names its colour.
    pub(super) fn draw(stream: &mut Stream, looks: &Looks, told: bool) -> Self {
        let gain = stream.within(0.85, 1.15);
        let mut look = Self::none();
        look.colours(stream, looks, told, gain);
        if stream.chance(looks.shading) {
            look.light = [stream.within(-0.7, 0.7), stream.within(-0.7, 0.7)];
        }
        if stream.chance(looks.shear) {
            look.shear = stream.within(-0.25, 0.25);
            look.taper = stream.within(-0.3, 0.3);
            look.turn = stream.within(-0.3, 0.3);
        }
        if stream.chance(looks.outline) {
            // Mostly dark contours, sometimes the pale rim of a sticker.
            let shade = if stream.chance(0.75) {
                stream.within(0.0, 0.3)
            } else {
                stream.within(0.85, 1.0)
            };
            let tint = [0, 1, 2].map(|_| (shade + stream.within(-0.08, 0.08)).clamp(0.0, 1.0));
            look.outline = Some((stream.within(0.012, 0.03), tint));
        }
        if stream.chance(looks.posterise) {
            look.levels = Some(2.0 + stream.below(4) as f32);
        }
        look.blurred = stream.chance(looks.blur);
        if stream.chance(looks.shadow) {
            let away = [stream.within(-0.05, 0.05), stream.within(0.01, 0.06)];
            look.shadow = Some((away, stream.within(0.2, 0.6)));
        }
        look
    }

    fn colours(&mut self, stream: &mut Stream, looks: &Looks, told: bool, gain: f32) {
        let (mut angle, mut saturation, mut lightness) = (0.0, 1.0, 0.0);
        if stream.chance(looks.colour) {
            angle = stream.within(-0.44, 0.44);
            saturation = stream.within(0.4, 1.4);
            lightness = stream.within(-0.12, 0.12);
        }
        if stream.chance(looks.recolour) {
            angle = stream.within(-PI, PI);
        }
        if stream.chance(looks.gray) {
            saturation = 0.0;
        }
        if told {
            (angle, saturation, lightness) = (0.0, 1.0, 0.0);
        }
        let mut contrast = 1.0;
        if stream.chance(looks.contrast) {
            contrast = if told { stream.within(0.8, 1.2) } else { stream.within(0.55, 1.35) };
        }
        let k = gain * contrast;
        let turned = hue(angle);
        // Saturation scales the distance to the mean of the channels.
        let mean = (1.0 - saturation) / 3.0;
        self.matrix = turned.map(|row| {
            let sum: f32 = row.iter().sum();
            row.map(|v| k * (saturation * v + mean * sum))
        });
        self.offset = 0.5 * gain * (1.0 - contrast) + lightness;
    }
}

/// Rotation of colour space around its gray axis.
fn hue(angle: f32) -> [[f32; 3]; 3] {
    let (sin, cos) = sin_cos(angle);
    let (diagonal, side, bow) = (cos + (1.0 - cos) / 3.0, (1.0 - cos) / 3.0, sin * 0.577_350_26);
    [
        [diagonal, side - bow, side + bow],
        [side + bow, diagonal, side - bow],
        [side - bow, side + bow, diagonal],
    ]
}

/// Sine and cosine for `|x| <= 2 pi` from their series: pictures must not depend on the
/// platform's mathematical library.
pub(super) fn sin_cos(x: f32) -> (f32, f32) {
    let x = f64::from(x);
    let (mut sin, mut cos, mut term) = (0.0, 0.0, 1.0);
    for n in 0..15 {
        let n = f64::from(n);
        cos += term;
        term *= x / (2.0 * n + 1.0);
        sin += term;
        term *= -x / (2.0 * n + 2.0);
    }
    (sin as f32, cos as f32)
}
