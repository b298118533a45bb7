//! Parts, styles and the configuration of a set of scenes.

use super::{Looks, ScenesError, catalogue::HELD_OUT, pack::Pack};

/// What a set of scenes is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Training: all kinds of scene, known drawings, no held pair.
    Train,
    /// Test: one object on a plain ground, held-out style.
    Plain,
    /// Test: one object on any ground, held-out style.
    Scene,
    /// Test: one object on any ground, training styles, drawings known from training.
    InStyle,
    /// Test: one object on any ground, training styles, drawings never seen in training.
    Withheld,
    /// Test: all kinds of scene, no caption twice, held-out style.
    Retrieval,
    /// Test: two objects in a relation, pairs that training may have shown, held-out style.
    RelationsSeen,
    /// Test: two objects in a relation, pairs that training never shows, held-out style.
    RelationsHeld,
    /// Every test name once in a training style, then once in the held-out style, and so on.
    Demo,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 9] = [
        Self::Train,
        Self::Plain,
        Self::Scene,
        Self::InStyle,
        Self::Withheld,
        Self::Retrieval,
        Self::RelationsSeen,
        Self::RelationsHeld,
        Self::Demo,
    ];

    /// How it is spelled.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Plain => "plain",
            Self::Scene => "scene",
            Self::InStyle => "instyle",
            Self::Withheld => "withheld",
            Self::Retrieval => "retrieval",
            Self::RelationsSeen => "relations-seen",
            Self::RelationsHeld => "relations-held",
            Self::Demo => "demo",
        }
    }

    /// How many scenes it has unless told otherwise.
    pub fn usual_count(self) -> u64 {
        match self {
            Self::Train => 100_000,
            Self::Plain | Self::InStyle => 840,
            Self::Scene => 1_050,
            Self::Withheld => 500,
            Self::Retrieval => 200,
            Self::RelationsSeen | Self::RelationsHeld => 300,
            Self::Demo => 420,
        }
    }

    /// The styles it draws in unless told otherwise.
    pub fn usual_styles(self) -> Styles {
        match self {
            Self::Train | Self::InStyle | Self::Withheld => Styles::Training,
            Self::Demo => Styles::All,
            _ => Styles::HeldOut,
        }
    }
}

/// Which styles of drawing are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Styles {
    /// All but the held-out one.
    Training,
    /// The held-out one.
    HeldOut,
    /// All.
    All,
    /// One of [`super::styles`].
    Named(String),
}

impl Styles {
    /// Positions of the styles in the pack.
    pub(super) fn positions(&self) -> Result<Vec<usize>, ScenesError> {
        let all = &Pack::get().styles;
        let wanted: Vec<usize> = (0..all.len())
            .filter(|&i| match self {
                Self::Training => all[i] != HELD_OUT,
                Self::HeldOut => all[i] == HELD_OUT,
                Self::All => true,
                Self::Named(name) => all[i] == *name,
            })
            .collect();
        match (wanted.is_empty(), self) {
            (true, Self::Named(name)) => Err(ScenesError::Style(name.clone())),
            _ => Ok(wanted),
        }
    }
}

/// Everything that fixes a set of scenes.
#[derive(Clone, Debug, PartialEq)]
pub struct ScenesConfig {
    /// Number of scenes.
    pub count: u64,
    /// Seed of everything random.
    pub seed: u64,
    /// Side of the pictures in pixels, 8..=1024.
    pub side: u32,
    /// What the scenes are for.
    pub part: Part,
    /// Styles of drawing.
    pub styles: Styles,
    /// How often drawings are changed. Tests leave them as they are.
    pub looks: Looks,
    /// Share of objects that are taken from the test names on purpose; the others are taken from
    /// all names. For training and retrieval; the other tests draw test names only.
    pub focus: f32,
}

impl ScenesConfig {
    /// The usual configuration of a part.
    pub fn of(part: Part) -> Self {
        Self {
            count: part.usual_count(),
            seed: 0,
            side: 64,
            part,
            styles: part.usual_styles(),
            looks: if part == Part::Train {
                Looks::default()
            } else {
                Looks::default().scaled(0.0)
            },
            focus: 0.3,
        }
    }
}

impl Default for ScenesConfig {
    fn default() -> Self {
        Self::of(Part::Train)
    }
}
