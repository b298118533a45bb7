//! Batches in the order of the recipe, prepared ahead of the step.

use crate::{Jitter, TrainError};
use burn::tensor::Tensor;
use clipguard_data::{
    DataError, Limits, Loader, LoaderOptions, Picture, PictureError, RawPicture, RawSample, Resize,
    Source, Stream,
    augment::{self, Augmentation},
    text::{self, Rewording},
};
use clipguard_model::{Clip, Template, Tokenizer};
use std::{ops::Range, sync::Arc};

/// Largest stream (such as a gzipped shard) that is kept in memory to be shuffled, in bytes.
const MAX_GATHERED: usize = 2 << 30;

/// One batch of prepared pairs: one row a pair, or two where the objective wants
/// [second views](crate::Objective::second_views).
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Pictures, `3 * side * side` bytes each.
    pub pictures: Vec<Vec<u8>>,
    /// Rows of token ids, all of the context's length; empty rows where the objective needs none.
    pub tokens: Vec<Vec<u32>>,
    /// Class of each sample; empty unless the objective needs labels.
    pub labels: Vec<usize>,
    /// Keys of the samples.
    pub keys: Vec<String>,
    /// Keys of samples whose caption holds the literal spelling of a special token. It is text like
    /// any other here, but other programs end the caption there.
    pub special: Vec<String>,
    /// Samples that could not be had, by key and reason; they are missing from the batch.
    pub skipped: Vec<(String, String)>,
}

impl Batch {
    fn push(&mut self, view: View, label: Option<usize>, key: String) {
        self.pictures.push(view.picture);
        self.tokens.push(view.tokens);
        self.labels.extend(label);
        self.keys.push(key);
    }

    /// Adds the rows of another batch.
    fn append(&mut self, rows: Self) {
        self.pictures.extend(rows.pictures);
        self.tokens.extend(rows.tokens);
        self.labels.extend(rows.labels);
        self.keys.extend(rows.keys);
    }

    /// The same samples in parts of at most `rows`, in order.
    pub(crate) fn parts(&self, rows: usize) -> Vec<Self> {
        fn of<T: Clone>(all: &[T], range: &Range<usize>) -> Vec<T> {
            // Labels are empty where the objective needs none.
            all.get(range.clone()).map_or(Vec::new(), <[T]>::to_vec)
        }
        let n = self.pictures.len();
        let ranges = (0..n).step_by(rows.max(1)).map(|start| start..n.min(start + rows.max(1)));
        let part = |range: Range<usize>| Self {
            pictures: of(&self.pictures, &range),
            tokens: of(&self.tokens, &range),
            labels: of(&self.labels, &range),
            keys: of(&self.keys, &range),
            // What is told of a batch is told once, of the whole.
            special: Vec::new(),
            skipped: Vec::new(),
        };
        ranges.map(part).collect()
    }

    /// Pixels `[batch, 3, side, side]` in `[0, 1]` on the model's device.
    pub fn pixels(&self, clip: &Clip) -> Tensor<4> {
        let pictures: Vec<&[u8]> = self.pictures.iter().map(Vec::as_slice).collect();
        clip.preprocess().stack(&pictures, clip.device())
    }
}

/// What a sample must have beside its picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// A caption, or a class that the template turns into one.
    Caption,
    /// A class.
    Label,
    /// Nothing.
    Picture,
}

/// How a sample becomes a pair.
#[derive(Clone)]
pub(crate) struct Preparation {
    pub(crate) resize: Resize,
    pub(crate) context: usize,
    pub(crate) augmentation: Option<Arc<dyn Augmentation>>,
    pub(crate) rewording: Option<Arc<dyn Rewording>>,
    pub(crate) jitter: Jitter,
    pub(crate) template: Template,
    pub(crate) needs: Needs,
    /// Whether the augmented view comes beside the plain one, not in its place.
    pub(crate) second_views: bool,
    pub(crate) seed: u64,
}

/// A sample, ready for the model, and perhaps its second view.
struct Pair {
    first: View,
    second: Option<View>,
    label: Option<usize>,
    key: String,
    special: bool,
}

struct View {
    picture: Vec<u8>,
    tokens: Vec<u32>,
}

type Prepared = Result<Pair, (String, String)>;

/// Batches of step `start`, `start + 1`, ...
pub struct Batches {
    loader: Loader<Prepared>,
    batch: usize,
}

impl Batches {
    pub(crate) fn new(
        source: &Arc<dyn Source>,
        preparation: Preparation,
        batch: usize,
        start: u64,
        threads: usize,
    ) -> Result<Self, TrainError> {
        let pool = Pool::new(source)?;
        let classes = source.classes().map(<[String]>::to_vec);
        let (seed, length) = (preparation.seed, pool.len());
        let order = Order { pool, seed, position: start * batch as u64, epoch: None };
        let options = LoaderOptions { threads, queue: 2 * batch, ..LoaderOptions::default() };
        let loader = Loader::from_samples(order, options, move |raw| {
            let (key, epoch) = (raw.key.clone(), raw.index / length);
            let pair = prepare(raw, epoch, &preparation, classes.as_deref());
            Ok(pair.map_err(|reason| (key, reason)))
        })?;
        Ok(Self { loader, batch })
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, TrainError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = Batch::default();
        let mut seconds = Batch::default();
        for _ in 0..self.batch {
            match self.loader.next()? {
                Ok(Ok(pair)) => {
                    if pair.special {
                        batch.special.push(pair.key.clone());
                    }
                    if let Some(view) = pair.second {
                        seconds.push(view, pair.label, pair.key.clone());
                    }
                    batch.push(pair.first, pair.label, pair.key);
                }
                Ok(Err(skipped)) => batch.skipped.push(skipped),
                Err(error) => return Some(Err(error.into())),
            }
        }
        batch.append(seconds);
        Some(Ok(batch))
    }
}

fn prepare(
    raw: RawSample,
    epoch: u64,
    p: &Preparation,
    classes: Option<&[String]>,
) -> Result<Pair, String> {
    let (label, position) = (raw.label, raw.index);
    let sample = raw.decode(&Limits::default()).map_err(|e| e.to_string())?;
    let (key, whole) = (sample.key, sample.picture);
    let named = || Some(p.template.fill(classes?.get(label?)?));
    let (mut caption, mut class) = (None, None);
    match p.needs {
        Needs::Caption => {
            caption = Some(sample.caption.or_else(named).ok_or("no caption and no label")?);
        }
        Needs::Label => class = Some(label.ok_or("no class label")?),
        Needs::Picture => {}
    }
    let tokens = |caption: &str| Tokenizer::clip().row(caption, p.context);
    let plain = || View {
        picture: p.resize.picture(&whole).rgb,
        tokens: caption.as_deref().map(tokens).unwrap_or_default(),
    };
    let varied = || {
        let view = p.augmentation.as_ref().map(|augmentation| {
            let mut stream = augment::stream(p.seed, &key, epoch, 0);
            augmentation.view(&whole, p.resize.size, &mut stream)
        });
        let mut picture: Picture = p.resize.picture(view.as_ref().unwrap_or(&whole));
        p.jitter.apply(&mut picture, &mut Stream::counted(p.seed, "jitter", position));
        let worded = |caption: &str| match &p.rewording {
            None => tokens(caption),
            Some(rewording) => {
                let epoch = if rewording.is_fixed() { 0 } else { epoch };
                let mut stream = text::stream(p.seed, &key, epoch, 0);
                tokens(&rewording.reword(caption, &mut stream))
            }
        };
        View { picture: picture.rgb, tokens: caption.as_deref().map(worded).unwrap_or_default() }
    };
    let (first, second) = match p.second_views {
        true => (plain(), Some(varied())),
        false => (varied(), None),
    };
    let special = caption.as_deref().is_some_and(|text| Tokenizer::clip().contains_special(text));
    Ok(Pair { first, second, label: class, key, special })
}

/// Samples that can be had in any order.
enum Pool {
    Source(Arc<dyn Source>, u64),
    Gathered(Vec<RawSample>),
}

impl Pool {
    fn new(source: &Arc<dyn Source>) -> Result<Self, TrainError> {
        let empty = || DataError::Spelling {
            spelling: source.name().to_owned(),
            reason: "there are no samples to train on".to_owned(),
        };
        if let (Some(n), true) = (source.len(), source.get(0).is_some()) {
            return if n > 0 { Ok(Self::Source(source.clone(), n)) } else { Err(empty().into()) };
        }
        let (mut samples, mut bytes) = (Vec::new(), 0);
        for sample in source.open(0)? {
            match sample {
                Ok(sample) => {
                    bytes += match &sample.picture {
                        RawPicture::Encoded(bytes) => bytes.len(),
                        RawPicture::Pixels(picture) => picture.rgb.len(),
                        RawPicture::File(_) | RawPicture::Fetched(_) | RawPicture::Drawn(_) => 0,
                    };
                    samples.push(sample);
                }
                Err(e) if e.is_fatal() => return Err(e.into()),
                Err(e) => samples.push(unusable(&e)),
            }
            if bytes > MAX_GATHERED {
                return Err(DataError::Spelling {
                    spelling: source.name().to_owned(),
                    reason: "too large to be shuffled in memory; unpack the gzipped shards \
                             (plain tar files are read in any order)"
                        .to_owned(),
                }
                .into());
            }
        }
        if samples.is_empty() { Err(empty().into()) } else { Ok(Self::Gathered(samples)) }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Source(_, n) => *n,
            Self::Gathered(samples) => samples.len() as u64,
        }
    }

    fn get(&self, index: usize) -> Option<RawSample> {
        match self {
            Self::Source(source, _) => {
                Some(source.get(index as u64)?.unwrap_or_else(|e| unusable(&e)))
            }
            Self::Gathered(samples) => samples.get(index).cloned(),
        }
    }
}

/// A sample that stands for one the source could not give. It keeps its place in the order (or
/// all later samples would move, and a resumed run would see others) and says why when its turn
/// comes.
fn unusable(error: &DataError) -> RawSample {
    let reason = error.to_string();
    let refuse = move || Err(PictureError::Broken(reason.clone()));
    RawSample {
        index: 0,
        key: error.subject(),
        picture: RawPicture::Drawn(Arc::new(refuse)),
        caption: None,
        label: None,
    }
}

/// The endless order: every epoch a permutation keyed by (seed, epoch). A sample's index is its
/// place in this order.
struct Order {
    pool: Pool,
    seed: u64,
    position: u64,
    epoch: Option<(u64, Vec<usize>)>,
}

impl Iterator for Order {
    type Item = Result<RawSample, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let n = self.pool.len();
        let (epoch, place) = (self.position / n, self.position % n);
        if self.epoch.as_ref().is_none_or(|(e, _)| *e != epoch) {
            let order = Stream::counted(self.seed, "order", epoch).permutation(n as usize);
            self.epoch = Some((epoch, order));
        }
        let index = self.epoch.as_ref().map(|(_, order)| order[place as usize])?;
        let position = self.position;
        self.position += 1;
        Some(Ok(RawSample { index: position, ..self.pool.get(index)? }))
    }
}
