//! From data sources to batches of embeddings, without ever holding more than a batch of pixels.

use crate::{failure::Failure, session::Session};
use burn::tensor::Tensor;
use clipguard_data::{DataError, Limits, Loader, LoaderOptions, RawSample, Resize, Source};
use clipguard_model::{Clip, normalise};
use indicatif::ProgressBar;
use std::sync::Arc;

/// Skipped samples that are named without `-v`.
const NAMED: u64 = 20;

/// A picture at the model's size, with what its source says about it.
pub(crate) struct Prepared {
    /// Position in its source; for several sources the number of the source.
    pub(crate) index: u64,
    /// Key in its source.
    pub(crate) key: String,
    /// What it shows, in words.
    pub(crate) caption: Option<String>,
    /// `3 * side * side` bytes.
    rgb: Vec<u8>,
}

/// Loads pictures at the model's size in the order of one source.
pub(crate) fn load(
    source: &dyn Source,
    resize: Resize,
    options: LoaderOptions,
) -> Result<Loader<Prepared>, DataError> {
    Loader::new(source, options, move |raw| prepare(raw, &resize))
}

/// As [`load`], from samples of one source.
pub(crate) fn prepared(
    samples: impl Iterator<Item = Result<RawSample, DataError>> + Send + 'static,
    resize: Resize,
    options: LoaderOptions,
) -> Result<Loader<Prepared>, DataError> {
    Loader::from_samples(samples, options, move |raw| prepare(raw, &resize))
}

/// As [`load`], from several sources one after another; [`Prepared::index`] is the source's number.
pub(crate) fn load_all(
    sources: Vec<Arc<dyn Source>>,
    resize: Resize,
    options: LoaderOptions,
) -> Result<Loader<Prepared>, DataError> {
    let samples = (0u64..).zip(sources).flat_map(|(number, source)| {
        let (samples, failed) = match source.open(0) {
            Ok(samples) => (Some(samples), None),
            Err(error) => (None, Some(Err(error))),
        };
        let numbered = move |raw: RawSample| RawSample { index: number, ..raw };
        samples.into_iter().flatten().chain(failed).map(move |raw| raw.map(numbered))
    });
    Loader::from_samples(samples, options, move |raw| prepare(raw, &resize))
}

fn prepare(raw: RawSample, resize: &Resize) -> Result<Prepared, DataError> {
    let index = raw.index;
    let sample = raw.decode(&Limits::default())?;
    let rgb = resize.picture(&sample.picture).rgb;
    Ok(Prepared { index, key: sample.key, caption: sample.caption, rgb })
}

/// Names skipped samples on stderr, the first ones or with `-v` all.
pub(crate) fn name_skipped<T: Send + 'static>(
    loader: Loader<T>,
    session: &Session,
    bar: &ProgressBar,
) -> Loader<T> {
    let (session, bar, mut count) = (session.clone(), bar.clone(), 0);
    loader.on_skip(move |error| {
        count += 1;
        if session.verbose || count <= NAMED {
            bar.suspend(|| session.say(format!("skipped {error}")));
        } else if count == NAMED + 1 {
            bar.suspend(|| session.say("more are skipped; `-v` names them all"));
        }
    })
}

/// The next pictures, at most `batch`; empty at the end.
pub(crate) fn next_batch(
    loader: &mut Loader<Prepared>,
    batch: usize,
) -> Result<Vec<Prepared>, Failure> {
    Ok(loader.by_ref().take(batch).collect::<Result<_, _>>()?)
}

/// Pixels `[pictures, 3, side, side]` in `[0, 1]`.
pub(crate) fn pixels(clip: &Clip, pictures: &[Prepared]) -> Tensor<4> {
    let all: Vec<&[u8]> = pictures.iter().map(|picture| picture.rgb.as_slice()).collect();
    clip.preprocess().stack(&all, clip.device())
}

/// Unit embeddings of the pictures, row by row. Those of a picture do not depend on the others.
pub(crate) fn embed(clip: &Clip, pictures: &[Prepared]) -> Result<Vec<f32>, Failure> {
    values(normalise(clip.encode_image(pixels(clip, pictures))))
}

/// A matrix, row by row.
pub(crate) fn values(matrix: Tensor<2>) -> Result<Vec<f32>, Failure> {
    matrix
        .into_data()
        .try_to_vec::<f32>()
        .map_err(|error| Failure::Failed(format!("reading a result: {error:?}")))
}
