//! What a caption says about a scene.

use super::{
    catalogue::Catalogue,
    pack::Pack,
    scene::{Background, Kind, Object, Pattern, Scene},
    words::{COLOURS, Number, number, phrase, plural, synonyms},
};
use crate::Stream;

/// Frames around the phrase; the one with "this is" has other words for several things.
const FRAMES: [&str; 12] = [
    "{}",
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "this is {}",
    "there is {}",
    "we see {}",
    "a drawing of {}",
    "{} here",
    "look at {}",
    "an icon of {}",
    "a view of {}",
];

/// Places in the picture, by thirds: rows from the top, columns from the left.
const PLACES: [&str; 9] = [
    "in the top left corner",
    "at the top",
    "in the top right corner",
    "on the left",
    "in the middle",
    "on the right",
    "in the bottom left corner",
    "at the bottom",
    "in the bottom right corner",
];

impl Scene {
    /// A caption of the scene.
    pub(super) fn caption(&self, stream: &mut Stream) -> String {
        let first = &self.objects[0];
        let (mut text, several) = match self.kind {
            Kind::One(_) if stream.chance(0.12) => return keywords(stream, first),
            Kind::One(size) => one(stream, first, size),
            Kind::Two { vertical } => (two(stream, first, &self.objects[1], vertical), false),
            Kind::Many => {
                let count = ["two", "three", "four"][self.objects.len() - 2];
                let noun = plural(noun(stream, first));
                let words: Vec<&str> =
                    [Some(count), first.told, Some(&noun)].into_iter().flatten().collect();
                (words.join(" "), true)
            }
        };
        if self.background.told {
            text.push_str(&behind(&self.background));
        }
        let frame = FRAMES[stream.below(FRAMES.len())];
        let frame = match frame {
            "this is {}" if several => "these are {}",
            "there is {}" if several => "there are {}",
            frame => frame,
        };
        frame.replace("{}", &text)
    }

    /// For two objects in a relation: a caption that names it, and the same with the two
    /// objects exchanged (which is false).
    pub(super) fn relation(&self, stream: &mut Stream) -> Option<(String, String)> {
        let (Kind::Two { vertical }, [first, second]) = (self.kind, self.objects.as_slice()) else {
            return None;
        };
        let names = &Catalogue::get().names;
        let [a, b] = [first, second].map(|o| phrase(&[], &names[o.name].name));
        let (word, converse) = relation(stream, vertical);
        let frame = FRAMES[stream.below(4)];
        let said = |left: &str, right: &str| {
            let (left, right) = if converse { (right, left) } else { (left, right) };
            frame.replace("{}", &format!("{left} {word} {right}"))
        };
        Some((said(&a, &b), said(&b, &a)))
    }
}

/// The name or another word for it.
fn noun(stream: &mut Stream, object: &Object) -> &'static str {
    let name = &Catalogue::get().names[object.name].name;
    let others = synonyms(name);
    if !others.is_empty() && stream.chance(0.3) { others[stream.below(others.len())] } else { name }
}

/// "mirror, makeup, reflection": the name and two keywords.
fn keywords(stream: &mut Stream, object: &Object) -> String {
    let name = &Catalogue::get().names[object.name].name;
    let tags: Vec<&String> =
        Pack::get().emoji[object.emoji].tags.iter().filter(|t| *t != name).collect();
    let order = stream.permutation(tags.len());
    let mut text = name.clone();
    for &i in order.iter().take(2) {
        text.push_str(", ");
        text.push_str(tags[i]);
    }
    text
}

/// The phrase for one object, and whether it is a plural.
fn one(stream: &mut Stream, object: &Object, size: usize) -> (String, bool) {
    let plain = ["small", "medium", "large"][size];
    let other = ["tiny", "", "big"][size];
    let said = match stream.chance(0.35) {
        true if stream.chance(0.4) => other,
        true => plain,
        false => "",
    };
    let adjectives: Vec<&str> =
        [said, object.told.unwrap_or_default()].into_iter().filter(|w| !w.is_empty()).collect();
    let noun = noun(stream, object);
    let mut text = phrase(&adjectives, noun);
    if stream.chance(0.375) {
        let third = |at: f32| ((at * 3.0) as usize).min(2);
        text.push(' ');
        text.push_str(PLACES[3 * third(object.y) + third(object.x)]);
    }
    (text, number(noun) == Number::Several)
}

fn two(stream: &mut Stream, first: &Object, second: &Object, vertical: bool) -> String {
    let mut thing = |object: &Object| {
        let adjectives: Vec<&str> = object.told.into_iter().collect();
        phrase(&adjectives, noun(stream, object))
    };
    let (a, b) = (thing(first), thing(second));
    match stream.uniform() {
        way if way < 0.15 => format!("{a} and {b}"),
        way if way < 0.30 => format!("{b} and {a}"),
        way if way < 0.40 => format!("{a} next to {b}"),
        _ => match relation(stream, vertical) {
            (word, false) => format!("{a} {word} {b}"),
            (word, true) => format!("{b} {word} {a}"),
        },
    }
}

/// Words for "the first is on the left of (above) the second", or, with `true`, for the converse
/// relation, which then holds of the second to the first.
fn relation(stream: &mut Stream, vertical: bool) -> (&'static str, bool) {
    let converse = stream.chance(0.5);
    let other = stream.chance(0.5);
    let word = match (vertical, converse, other) {
        (false, false, false) => "to the left of",
        (false, false, true) => "left of",
        (false, true, false) => "to the right of",
        (false, true, true) => "right of",
        (true, false, false) => "above",
        (true, false, true) => "over",
        (true, true, false) => "below",
        (true, true, true) => "under",
    };
    (word, converse)
}

fn behind(background: &Background) -> String {
    let word = match background.pattern {
        Pattern::Plain => COLOURS[background.colours[0]].0,
        Pattern::Gradient => "gradient",
        Pattern::Cloudy => "cloudy",
        Pattern::Striped => "striped",
        Pattern::Checkered => "checkered",
        Pattern::Spotted => "spotted",
        Pattern::Rough => "rough",
        Pattern::Blurry => "blurry",
    };
    format!(" on {} background", super::words::with_article(word))
}
