//! The scene corpus: endless captioned pictures drawn from (seed, index).
//!
//! A scene shows one or more emoji on some background and its caption says what is where. Nothing
//! is stored: a picture and its caption follow from the seed and the position alone, and so does
//! everything that is known about them (which thing, where, how many, which colour, whose
//! drawing). Scenes are no photographs. What is measured on them tells whether an implementation
//! works and whether a comparison can see a difference, not how a method does on photographs.
//!
//! Three things are kept from training so that they can be tested: one style of drawing
//! (`twemoji`), five in a hundred of the drawings of Noto and Fluent, and one in ten of the
//! unordered pairs of things that appear together.

mod background;
mod caption;
mod catalogue;
mod config;
mod look;
mod pack;
mod paint;
mod scene;
mod spelling;
mod words;

#[cfg(test)]
mod tests;

pub use config::{Part, ScenesConfig, Styles};
pub use look::Looks;
pub use spelling::ScenesError;
pub use words::{prompts, test_names};

use crate::{DataError, Picture, RawPicture, RawSample, Samples, Source, Stream};
use catalogue::Catalogue;
use look::Look;
use pack::Pack;
use paint::{Canvas, Placement};
use scene::{Object, Recipe, Scene, Wanted};
use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};

/// A set of scenes: a [`Source`] that can be asked in any order.
pub struct Scenes {
    config: ScenesConfig,
    name: String,
    classes: Vec<String>,
    styles: Vec<usize>,
    /// The test names that have a drawing in these styles; some styles draw only some.
    drawn: Vec<usize>,
    /// Withheld drawings: (test name, emoji, style).
    withheld: Vec<(usize, usize, usize)>,
    /// Positions with distinct captions, for retrieval.
    distinct: OnceLock<Vec<u64>>,
}

impl Scenes {
    /// Opens a set of scenes.
    pub fn new(config: ScenesConfig) -> Result<Self, ScenesError> {
        if !(8..=1024).contains(&config.side) {
            return Err(ScenesError::Side(config.side));
        }
        let styles = config.styles.positions()?;
        let catalogue = Catalogue::get();
        let has_drawing = |&name: &usize| {
            styles.iter().any(|&style| !catalogue.drawings(name, style, false).is_empty())
        };
        let drawn: Vec<usize> = catalogue.tests.iter().copied().filter(has_drawing).collect();
        let mut withheld = Vec::new();
        for (test, &name) in catalogue.tests.iter().enumerate() {
            for &style in &styles {
                let drawings = catalogue.drawings(name, style, true);
                withheld.extend(drawings.iter().map(|&emoji| (test, emoji, style)));
            }
        }
        if config.part == Part::Withheld && withheld.is_empty() {
            return Err(ScenesError::NothingWithheld);
        }
        let name = spelling::spell(&config);
        Ok(Self {
            config,
            name,
            classes: test_names(),
            styles,
            drawn,
            withheld,
            distinct: OnceLock::new(),
        })
    }

    /// Opens scenes by their spelling: `scenes`, `scenes:COUNT` or
    /// `scenes:COUNT:side=64,part=plain,style=heldout,seed=1`. Options: `side`, `seed`, `part`
    /// (see [`Part::name`]), `style` (`training`, `heldout`, `all` or one of [`styles`]), `looks`
    /// (a factor on the shares of [`Looks`]), `focus`. A left-out count is the part's usual one.
    pub fn parse(text: &str) -> Result<Self, ScenesError> {
        Self::new(spelling::parse(text)?)
    }

    /// The demo pictures: each test name once in a training style, then once in the held-out one.
    pub fn embedded() -> Result<Self, ScenesError> {
        let mut scenes = Self::new(ScenesConfig::of(Part::Demo))?;
        scenes.name = "embedded".into();
        Ok(scenes)
    }

    /// What fixes these scenes.
    pub fn config(&self) -> &ScenesConfig {
        &self.config
    }

    /// The caption of a scene without drawing it.
    pub fn caption(&self, index: u64) -> Option<String> {
        let index = self.position(index)?;
        Some(self.words(&self.scene(index), index))
    }

    /// The picture of a scene.
    pub fn picture(&self, index: u64) -> Option<Picture> {
        let index = self.position(index)?;
        Some(self.scene(index).paint(self.stream("background", index), self.config.side as usize))
    }

    /// For the relation tests: the caption that is right, and the same with the two things
    /// exchanged, which is wrong. `None` for scenes that do not show two things.
    pub fn relation(&self, index: u64) -> Option<(String, String)> {
        let index = self.position(index)?;
        self.scene(index).relation(&mut self.stream("relation", index))
    }

    /// The stream of one scene for one purpose.
    fn stream(&self, purpose: &str, index: u64) -> Stream {
        Stream::counted(
            self.config.seed,
            &format!("scenes/{}/{purpose}", self.config.part.name()),
            index,
        )
    }

    /// The caption of the scene at `position`; in the relation tests the one that is right.
    fn words(&self, scene: &Scene, position: u64) -> String {
        let relation = match self.config.part {
            Part::RelationsSeen | Part::RelationsHeld => {
                scene.relation(&mut self.stream("relation", position))
            }
            _ => None,
        };
        match relation {
            Some((right, _)) => right,
            None => scene.caption(&mut self.stream("caption", position)),
        }
    }

    /// Where in the endless row of scenes the scene at `index` is found.
    fn position(&self, index: u64) -> Option<u64> {
        if index >= self.config.count {
            return None;
        }
        match self.config.part {
            Part::Retrieval => {
                self.distinct.get_or_init(|| self.distinct_captions()).get(index as usize).copied()
            }
            _ => Some(index),
        }
    }

    fn distinct_captions(&self) -> Vec<u64> {
        let mut seen = HashSet::new();
        let caption = |index: u64| self.scene(index).caption(&mut self.stream("caption", index));
        (0..)
            .filter(|&index| seen.insert(caption(index)))
            .take(self.config.count as usize)
            .collect()
    }

    fn scene(&self, index: u64) -> Scene {
        let mut stream = self.stream("scene", index);
        let turn = index as usize % self.drawn.len();
        let mut styles = self.styles.clone();
        let mut fixed = None;
        let kind = match self.config.part {
            Part::Train => Wanted::Any { held_pairs: false },
            Part::Retrieval => Wanted::Any { held_pairs: true },
            Part::Plain | Part::Scene | Part::InStyle => Wanted::One(self.drawn[turn]),
            Part::Withheld => {
                let (test, emoji, style) = self.withheld[index as usize % self.withheld.len()];
                fixed = Some((emoji, style));
                Wanted::One(Catalogue::get().tests[test])
            }
            Part::Demo => {
                let held = index as usize / self.drawn.len() % 2 == 1;
                let held_out = Catalogue::get().held_out;
                styles.retain(|&s| (s == held_out) == held || self.config.styles != Styles::All);
                Wanted::One(self.drawn[turn])
            }
            Part::RelationsSeen => Wanted::Pair { held: false },
            Part::RelationsHeld => Wanted::Pair { held: true },
        };
        let recipe = Recipe {
            styles: &styles,
            fixed,
            focus: self.config.focus,
            looks: &self.config.looks,
            kind,
            plain: self.config.part == Part::Plain,
        };
        recipe.draw(&mut stream)
    }

    fn sample(&self, index: u64) -> Option<RawSample> {
        let position = self.position(index)?;
        let scene = self.scene(position);
        let caption = self.words(&scene, position);
        let label = match scene.objects.as_slice() {
            [object] => Catalogue::get().names[object.name].test,
            _ => None,
        };
        let (stream, side) = (self.stream("background", position), self.config.side as usize);
        Some(RawSample {
            index,
            key: format!("{}-{index:08}", self.config.part.name()),
            picture: RawPicture::Drawn(Arc::new(move || Ok(scene.paint(stream.clone(), side)))),
            caption: Some(caption),
            label,
        })
    }
}

impl Source for Scenes {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> Option<u64> {
        Some(self.config.count)
    }

    fn classes(&self) -> Option<&[String]> {
        Some(&self.classes)
    }

    fn open(&self, start: u64) -> Result<Samples, DataError> {
        let scenes = Self {
            config: self.config.clone(),
            name: self.name.clone(),
            classes: Vec::new(),
            styles: self.styles.clone(),
            drawn: self.drawn.clone(),
            withheld: self.withheld.clone(),
            distinct: self.distinct.clone(),
        };
        Ok(Box::new(
            (start..self.config.count).map_while(move |index| scenes.sample(index).map(Ok)),
        ))
    }

    fn get(&self, index: u64) -> Option<Result<RawSample, DataError>> {
        self.sample(index).map(Ok)
    }
}

/// All names a scene can show, test names among them.
pub fn names() -> Vec<String> {
    Catalogue::get().names.iter().map(|n| n.name.clone()).collect()
}

/// The styles of drawing; the one called `twemoji` is held out.
pub fn styles() -> Vec<String> {
    Pack::get().styles.clone()
}

/// The first drawing of a name in a style, upright on a ground of one colour. `None` if there is
/// no such name, style or drawing, or `side` is 0.
pub fn sprite(name: &str, style: &str, side: u32, ground: [u8; 3]) -> Option<Picture> {
    let pack = Pack::get();
    let style = pack.styles.iter().position(|s| s == style)?;
    let has = |e: &pack::Emoji| e.name == name && e.sprites.get(style).is_some_and(Option::is_some);
    let emoji = pack.emoji.iter().position(has).filter(|_| side > 0)?;
    let object = Object::upright(emoji, style, Look::none());
    let mut canvas = Canvas::default();
    canvas.resize(side as usize);
    let ground = ground.map(|c| f32::from(c) / 255.0);
    canvas.fill(|_, _| 0.0, ground, ground);
    canvas.draw(&object, &Placement::default());
    Some(canvas.picture())
}
