//! clipguard makes CLIP-style models trustworthy: from the training data to the running
//! classifier.
//!
//! This crate is the face of the library. Each stage is a module, and the program `clipguard` is
//! made of the same parts. The whole way in one example: open a source, build a zero-shot
//! classifier, put a defence in front of it, and attack both as one.
//!
//! ```
//! use clipguard::{
//!     attack::{self, Batch},
//!     burn::tensor::Device,
//!     data::{self, Options},
//!     evaluate::{Classifier, Interval, Subset, classifier::template_set},
//!     model::Checkpoint,
//! };
//!
//! let device = Device::flex();
//! // `photos/`, `pairs.tar` or `cifar10:PATH` work like these drawn scenes.
//! let source = data::open("scenes:8:part=instyle", &Options::default())?;
//! let classes = source.classes().ok_or("no classes")?;
//! let model = Checkpoint::open("embedded")?;
//! let classifier = Classifier::new(&model, classes, &template_set("scenes")?, &device)?;
//! let victim = classifier.defended(&["clipure-cos".to_owned()], None)?;
//!
//! let samples = Subset::of(source.as_ref(), 8, classifier.clip.preprocess(), &device, 0)?;
//! let batch =
//!     Batch { pixels: samples.pixels.clone(), labels: &samples.labels, keys: &samples.keys };
//! let attacked = attack::parse("pgd:eps=2/255,steps=2")?.run(&victim, &batch, 0);
//!
//! let right = (attacked.robust_accuracy() * 8.0).round() as usize;
//! let interval = Interval::wilson(right, 8, 0.95);
//! println!("{right} of 8 still right, {:.2}-{:.2}", interval.low, interval.high);
//! assert!(attacked.norm.iter().all(|size| *size <= 2.0 / 255.0 + 1e-6));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The stages
//!
//! | module | from | to |
//! |---|---|---|
//! | [`data`] | a spelling such as `pairs.tar` | a [`Source`](data::Source) of samples, decoded by a [`Loader`](data::Loader) |
//! | [`model`] | a checkpoint in any container | a [`Clip`](model::Clip), a zero-shot [`Head`](model::Head) |
//! | [`train`] | a [`Recipe`](train::Recipe) and a source | a [`Run`](train::Run) and its checkpoint |
//! | [`attack`] | a [`Victim`](model::Victim) and a [`Batch`](attack::Batch) | what is left of it, [`Attacked`](attack::Attacked) |
//! | [`purify`] | an encoder, a head, purifiers | a [`Defended`](purify::Defended) victim |
//! | [`evaluate`] | a [`Plan`](evaluate::Plan) | [`Record`](evaluate::Record)s and a [`Report`](evaluate::Report) |
//!
//! Pixels are `[batch, 3, height, width]` in `[0, 1]` everywhere; mean and standard deviation
//! belong to the model. Embeddings are unit rows `[batch, dimensions]`. What is random draws from
//! a [`Stream`](data::Stream) keyed by seed, purpose and sample, so that no result depends on
//! batches, threads or interruptions. Tensors are those of [`burn`], on `Device::flex()`.
//!
//! Methods are chosen by a [`Spelling`](data::spelling::Spelling) such as `pgd:eps=8/255,steps=40`:
//! [`attack::parse`], [`purify::parse`], [`train::Recipe::objective`]. `clipguard methods` lists them.
//!
//! # A method of your own
//!
//! | implement | and hand it to | example |
//! |---|---|---|
//! | [`Source`](data::Source) | [`Loader::new`](data::Loader::new), [`Subset::of`](evaluate::Subset::of), [`Run::start`](train::Run::start) | `own_source` |
//! | [`Attack`](attack::Attack), on a [`Descent`](attack::descent::Descent) | any victim | `own_attack` |
//! | [`Purifier`](purify::Purifier) | [`Defended::with`](purify::Defended::with) | `own_purifier` |
//! | [`Objective`](train::Objective) | [`Run::start_with`](train::Run::start_with) | `own_objective` |
//!
//! The examples are in `crates/clipguard/examples` and run in seconds; `docs/guide/library.md`
//! says what each shows. Settings are declared by [`parameters!`](data::parameters), which needs
//! `serde` among the dependencies of the crate that uses it.

pub use burn;
#[doc(inline)]
pub use clipguard_attack as attack;
#[doc(inline)]
pub use clipguard_data as data;
#[doc(inline)]
pub use clipguard_evaluate as evaluate;
#[doc(inline)]
pub use clipguard_model as model;
#[doc(inline)]
pub use clipguard_purify as purify;
#[doc(inline)]
pub use clipguard_train as train;
