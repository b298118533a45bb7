//! What is in a picture: drawn from (seed, index) before anything is painted or put into words.

use super::{
    catalogue::{Catalogue, held_pair},
    look::{Look, Looks},
    pack::Pack,
    words::{COLOURS, Number, number},
};
use crate::Stream;

/// How the objects are arranged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// One object: 0 small, 1 medium, 2 large.
    One(usize),
    /// Two objects; the first is on the left or, if `vertical`, above.
    Two { vertical: bool },
    /// Copies of one object.
    Many,
}

/// One drawing in the picture. Lengths are shares of the picture side.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Object {
    /// Position in [`Catalogue::names`].
    pub(super) name: usize,
    /// Position in the pack.
    pub(super) emoji: usize,
    pub(super) style: usize,
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) size: f32,
    pub(super) turn: f32,
    pub(super) mirrored: bool,
    pub(super) aspect: f32,
    pub(super) look: Look,
    /// The colour word of the drawing, where the caption names it.
    pub(super) told: Option<&'static str>,
}

/// What is behind the objects.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Background {
    pub(super) pattern: Pattern,
    /// Positions of two colours in [`COLOURS`].
    pub(super) colours: [usize; 2],
    /// Share of the pattern; the rest is `gray`.
    pub(super) strength: f32,
    pub(super) gray: f32,
    /// Whether the caption speaks of it.
    pub(super) told: bool,
}

/// The patterns, each drawing its details from the scene's own stream when it is painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Plain,
    Gradient,
    Cloudy,
    Striped,
    Checkered,
    Spotted,
    Rough,
    Blurry,
}

/// The patterns with their shares.
const PATTERNS: [(Pattern, f32); 8] = [
    (Pattern::Plain, 0.15),
    (Pattern::Gradient, 0.16),
    (Pattern::Cloudy, 0.15),
    (Pattern::Striped, 0.11),
    (Pattern::Checkered, 0.10),
    (Pattern::Spotted, 0.10),
    (Pattern::Rough, 0.12),
    (Pattern::Blurry, 0.11),
];

/// A picture before it is painted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scene {
    pub(super) kind: Kind,
    pub(super) objects: Vec<Object>,
    pub(super) background: Background,
}

/// From what scenes are drawn.
pub(super) struct Recipe<'a> {
    pub(super) styles: &'a [usize],
    /// This drawing (emoji, style) and no other.
    pub(super) fixed: Option<(usize, usize)>,
    /// Share of objects taken from the test names on purpose.
    pub(super) focus: f32,
    pub(super) looks: &'a Looks,
    pub(super) kind: Wanted,
    /// Only a plain background.
    pub(super) plain: bool,
}

/// Which kinds of scene are wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wanted {
    /// All, as in training; held pairs only if asked for.
    Any { held_pairs: bool },
    /// One object of this name.
    One(usize),
    /// Two test objects in a relation, as a held pair or not.
    Pair { held: bool },
}

impl Object {
    /// A drawing as it is, filling the picture.
    pub(super) fn upright(emoji: usize, style: usize, look: Look) -> Self {
        Self {
            name: 0,
            emoji,
            style,
            x: 0.5,
            y: 0.5,
            size: 1.0,
            turn: 0.0,
            mirrored: false,
            aspect: 1.0,
            look,
            told: None,
        }
    }
}

impl Recipe<'_> {
    /// Draws a scene.
    pub(super) fn draw(&self, stream: &mut Stream) -> Scene {
        let (kind, names) = self.kind_and_names(stream);
        let objects = match kind {
            Kind::One(size) => vec![self.one(stream, names[0], size)],
            Kind::Two { vertical } => self.two(stream, names, vertical),
            Kind::Many => self.many(stream, names[0]),
        };
        let background = self.background(stream, &objects);
        Scene { kind, objects, background }
    }

    fn kind_and_names(&self, stream: &mut Stream) -> (Kind, [usize; 2]) {
        let pick = stream.uniform();
        match self.kind {
            Wanted::One(name) => (Kind::One(stream.below(3)), [name; 2]),
            Wanted::Pair { held } => {
                let vertical = !stream.chance(0.6);
                (Kind::Two { vertical }, self.pair(stream, |a, b| held_pair(a, b) == held))
            }
            Wanted::Any { .. } if pick < 0.55 => {
                (Kind::One(stream.below(3)), [self.name(stream); 2])
            }
            Wanted::Any { held_pairs } if pick < 0.85 => {
                let vertical = !stream.chance(0.6);
                (Kind::Two { vertical }, self.pair(stream, |a, b| held_pairs || !held_pair(a, b)))
            }
            Wanted::Any { .. } => {
                let names = &Catalogue::get().names;
                let mut name = self.name(stream);
                while number(&names[name].name) == Number::Stuff {
                    name = self.name(stream);
                }
                (Kind::Many, [name; 2])
            }
        }
    }

    /// A name that has a drawing in one of the styles.
    fn name(&self, stream: &mut Stream) -> usize {
        let catalogue = Catalogue::get();
        let focus = if matches!(self.kind, Wanted::Pair { .. }) { 1.0 } else { self.focus };
        loop {
            let name = match stream.chance(focus) {
                true => catalogue.tests[stream.below(catalogue.tests.len())],
                false => stream.below(catalogue.names.len()),
            };
            if self.styles.iter().any(|&style| !catalogue.drawings(name, style, false).is_empty()) {
                return name;
            }
        }
    }

    fn pair(&self, stream: &mut Stream, fits: impl Fn(&str, &str) -> bool) -> [usize; 2] {
        let names = &Catalogue::get().names;
        loop {
            let [a, b] = [self.name(stream), self.name(stream)];
            if a != b && fits(&names[a].name, &names[b].name) {
                return [a, b];
            }
        }
    }

    /// An object at no place yet; its caption names the colour with this probability.
    fn object(&self, stream: &mut Stream, name: usize, colour: f32) -> Object {
        let (emoji, style) =
            self.fixed.unwrap_or_else(|| Catalogue::get().pick(stream, name, self.styles));
        let drawing = Pack::get().emoji[emoji].sprites[style].as_ref();
        let told = drawing.and_then(|d| d.colour.as_deref()).filter(|_| stream.chance(colour));
        Object {
            name,
            emoji,
            style,
            x: 0.5,
            y: 0.5,
            size: 0.5,
            turn: stream.within(-0.3, 0.3),
            mirrored: stream.chance(0.5),
            aspect: stream.within(0.85, 1.15),
            look: Look::draw(stream, self.looks, told.is_some()),
            told,
        }
    }

    fn one(&self, stream: &mut Stream, name: usize, size: usize) -> Object {
        let mut object = self.object(stream, name, 0.35);
        let (low, high) = [(0.30, 0.42), (0.45, 0.62), (0.65, 0.92)][size];
        object.size = stream.within(low, high);
        let margin = 0.45 * object.size;
        object.x = stream.within(margin, 1.0 - margin);
        object.y = stream.within(margin, 1.0 - margin);
        object
    }

    fn two(&self, stream: &mut Stream, names: [usize; 2], vertical: bool) -> Vec<Object> {
        let spans = [(0.20, 0.30), (0.70, 0.80)];
        let place = |(name, (low, high)): (usize, (f32, f32))| {
            let mut object = self.object(stream, name, 0.3);
            object.size = stream.within(0.36, 0.50);
            let (along, across) = (stream.within(low, high), stream.within(0.35, 0.65));
            (object.x, object.y) = if vertical { (across, along) } else { (along, across) };
            object
        };
        names.into_iter().zip(spans).map(place).collect()
    }

    fn many(&self, stream: &mut Stream, name: usize) -> Vec<Object> {
        let mut object = self.object(stream, name, 0.3);
        object.size = stream.within(0.28, 0.40);
        let count = 2 + stream.below(3);
        let slots = stream.permutation(4);
        let place = |&slot: &usize| {
            let at = |high: bool, stream: &mut Stream| if high { 0.75 } else { 0.25 } + stream.within(-0.06, 0.06);
            Object { x: at(slot % 2 == 1, stream), y: at(slot / 2 == 1, stream), ..object.clone() }
        };
        slots.iter().take(count).map(place).collect()
    }

    fn background(&self, stream: &mut Stream, objects: &[Object]) -> Background {
        let mut pick = stream.uniform();
        let mut pattern = Pattern::Plain;
        for (candidate, share) in PATTERNS {
            pattern = candidate;
            pick -= share;
            if pick < 0.0 {
                break;
            }
        }
        if self.plain {
            pattern = Pattern::Plain;
        }
        let mut colours = [stream.below(COLOURS.len()), stream.below(COLOURS.len())];
        // On a plain ground of its own colour an object would vanish.
        while pattern == Pattern::Plain
            && objects.iter().any(|o| own_colour(o) == Some(COLOURS[colours[0]].0))
        {
            colours[0] = stream.below(COLOURS.len());
        }
        Background {
            pattern,
            colours,
            strength: if pattern == Pattern::Plain { 1.0 } else { stream.within(0.35, 0.85) },
            gray: if stream.chance(0.5) { 0.75 } else { 0.35 },
            told: stream.chance(0.3),
        }
    }
}

/// The colour word of an object's drawing.
fn own_colour(object: &Object) -> Option<&'static str> {
    Pack::get().emoji[object.emoji].sprites[object.style].as_ref()?.colour.as_deref()
}
