//! Random views of training pictures: how they are drawn, and what is done to the pixels.
//!
//! # The one decision
//!
//! What is *drawn* and what is *done* are two things. Each operation ([`colour`], [`tables`],
//! [`geometry`], [`filter`]) is a pure function of an 8-bit picture and plain numbers, equal to
//! Pillow's and torchvision's to the byte (the blur to one level), and knows nothing of chance. A
//! method ([`Augmentation`]) only draws those numbers from a [`Stream`] and calls operations in
//! its order. So the operations are held to reference arrays with fixed numbers, and a method's
//! randomness is ours: the reference programs draw from one generator that all workers share,
//! which nobody can repeat.
//!
//! A view belongs to (seed, sample, epoch, number of the view), see [`stream`]. It depends neither on
//! the batch it falls into nor on threads, and a resumed run sees the same views.
//!
//! Every step returns 8-bit pixels, as the reference does. Not chosen: to augment tensors in
//! `[0, 1]`, which saves the rounding between the steps and is no longer what the published
//! models were trained on.
//!
//! ```
//! use clipguard_data::{Picture, augment};
//!
//! let simclr = augment::parse("simclr:strength=0.5")?;
//! let picture = Picture::filled(40, 30, [200, 90, 10]);
//! let view = simclr.view(&picture, 32, &mut augment::stream(7, "cat-1", 0, 0));
//! assert_eq!((view.width, view.height), (32, 32));
//! # Ok::<(), clipguard_data::spelling::SpellingError>(())
//! ```

mod autoaugment;
pub mod colour;
mod crop;
pub mod filter;
pub mod geometry;
mod safeclip;
mod simclr;
pub mod tables;

#[cfg(test)]
mod tests;

use crate::{
    Picture, Stream,
    spelling::{Method, Parameters, Spelling, SpellingError, find},
};

pub use autoaugment::{AutoAugment, Op, POLICY, SubPolicy};
pub use crop::RandomCrop;
pub use safeclip::SafeClip;
pub use simclr::SimClr;

/// A way to draw a random view of a picture.
pub trait Augmentation: Send + Sync {
    /// One view. Methods that crop return a square of `side` pixels, the others keep the size;
    /// the model's own preprocessing follows either way and leaves a picture of its size alone.
    fn view(&self, picture: &Picture, side: u32, stream: &mut Stream) -> Picture;

    /// The method with every setting written out.
    fn spelling(&self) -> Spelling;
}

/// The draws of a view: number `view` of the sample `key` in `epoch`.
pub fn stream(seed: u64, key: &str, epoch: u64, view: u64) -> Stream {
    // The two counters have a fixed length, so no two keys run into each other.
    let mut bytes = key.as_bytes().to_vec();
    bytes.extend(epoch.to_le_bytes());
    bytes.extend(view.to_le_bytes());
    Stream::keyed(seed, "augment", bytes)
}

/// Makes an augmentation from its spelling.
pub type Build = fn(&Spelling) -> Result<Box<dyn Augmentation>, SpellingError>;

/// Every augmentation, by name.
pub const CATALOGUE: &[Method<Build>] = &[
    Method {
        name: "crop",
        about: "a large random part of the picture, as open_clip trains",
        source: "open_clip's training transform",
        parameters: RandomCrop::list,
        build: |spelling| Ok(Box::new(RandomCrop::from_spelling(spelling)?)),
    },
    Method {
        name: "simclr",
        about: "random part, mirror, colour jitter, grey and blur",
        source: "Chen et al., SimCLR, ICML 2020",
        parameters: SimClr::list,
        build: |spelling| Ok(Box::new(SimClr::from_spelling(spelling)?)),
    },
    Method {
        name: "safeclip",
        about: "SimCLR's steps with the numbers of SafeCLIP, always blurred",
        source: "Yang et al., SafeCLIP, ICML 2024 (released code)",
        parameters: SafeClip::list,
        build: |spelling| Ok(Box::new(SafeClip::from_spelling(spelling)?)),
    },
    Method {
        name: "autoaugment",
        about: "two of fourteen operations by the learned ImageNet policy; CleanCLIP's views",
        source: "Cubuk et al., AutoAugment, CVPR 2019",
        parameters: AutoAugment::list,
        build: |spelling| Ok(Box::new(AutoAugment::from_spelling(spelling)?)),
    },
];

/// The augmentation that `text` spells, such as `simclr:strength=0.5`.
///
/// # Errors
/// A text of another form, an unknown name or setting (with the closest known one), or a value out
/// of range.
pub fn parse(text: &str) -> Result<Box<dyn Augmentation>, SpellingError> {
    let spelling: Spelling = text.parse()?;
    (find("augmentation", CATALOGUE, spelling.name())?.build)(&spelling)
}

/// Whether `p` is a probability.
fn is_probability(p: f32) -> bool {
    (0.0..=1.0).contains(&p)
}
