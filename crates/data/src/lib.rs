//! Pictures, captions and where they come from: sources, decoding, resizing, the scene corpus.
//!
//! # The one decision
//!
//! A [`Source`] yields *undecoded* samples at *fixed positions*.
//!
//! Undecoded, because reading is sequential and cheap while decoding is parallel and expensive.
//! The [`Loader`] decodes on as many threads as there are, ahead of its consumer and in order,
//! and whoever only counts, filters or splits a data set never decodes at all. It also puts a
//! broken picture where it belongs: with the one sample that is left out, counted and named.
//!
//! At fixed positions, because a position is then all there is to remember. To go on after an
//! interruption is to open at a position, to take a part of a data set is to compare positions
//! modulo N, and an audit can say which pair it means. Together with random streams keyed by the
//! sample (see [`random`]), a result depends neither on threads nor on batches nor on shards.
//!
//! What was not chosen: a shuffle buffer inside the source (order would depend on memory and on
//! where one started; a trainer permutes positions or shards instead), asynchronous reading (the
//! work is decoding, and threads with bounded queues say all that is needed), and a table in
//! memory of everything (a million pairs do not fit, and need not).
//!
//! # Distrust
//!
//! Everything read here may have been written by an adversary. Sizes are claims until checked
//! ([`Limits`]), names of archive members become keys and never paths ([`file_name`] makes a file
//! name of a key), nothing is executed, and what breaks off is refused rather than completed.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod augment;
mod blob;
pub mod contained;
mod decode;
mod error;
pub mod loader;
pub mod picture;
pub mod random;
mod remote;
pub mod resize;
pub mod sample;
pub mod scenes;
pub mod sources;
pub mod spelling;
pub mod text;
mod vector;
pub mod write;

pub use error::{DataError, shown};
pub use loader::{Loader, LoaderOptions, Skipped};
pub use picture::{Decoded, Limits, Note, Order, Picture, PictureError, Pixels};
pub use random::Stream;
pub use resize::{Area, Fit, Interpolation, Resize, crop, resize};
pub use sample::{Fetch, RawPicture, RawSample, Sample, Samples, Source, file_name};
pub use sources::{Layout, Options, open};
