//! What is measured on clean pictures as a whole: retrieval, telling a relation from the exchanged
//! one, linear probes, several labels a picture. The first two are here.

use crate::{
    EvaluateError, Plan, Record, Retrieval,
    clean::multi_label::{self, MultiLabel},
    clean::probe::{self, Probe},
    records::record_file::write_atomic,
    run::runner::Run,
};
use burn::tensor::Device;
use clipguard_data::{DataError, Limits, Loader, LoaderOptions, Options, Source, scenes::Scenes};
use clipguard_model::{Checkpoint, Clip, head::embed_texts, normalise};
use std::path::{Path, PathBuf};

/// Pictures with their captions, embedded.
struct Pairs {
    /// Unit rows.
    images: Vec<f32>,
    /// One caption a picture.
    captions: Vec<String>,
    /// Positions in the source.
    indices: Vec<u64>,
}

fn embed_pairs(
    clip: &Clip,
    source: &dyn Source,
    plan: &Plan,
    threads: usize,
) -> Result<Pairs, EvaluateError> {
    let resize = clip.preprocess().resize;
    let options = LoaderOptions { threads, queue: 2 * plan.batch, ..LoaderOptions::default() };
    let mut loader = Loader::new(source, options, move |raw| {
        let index = raw.index;
        let sample = raw.decode(&Limits::default())?;
        let caption = sample.caption.ok_or_else(|| DataError::Sample {
            key: sample.key.clone(),
            reason: "has no caption".to_owned(),
        })?;
        Ok((resize.picture(&sample.picture).rgb, caption, index))
    })?;
    let mut pairs = Pairs { images: Vec::new(), captions: Vec::new(), indices: Vec::new() };
    let mut left = if plan.samples > 0 { plan.samples } else { usize::MAX };
    loop {
        let part: Vec<(Vec<u8>, String, u64)> =
            loader.by_ref().take(plan.batch.min(left)).collect::<Result<_, _>>()?;
        if part.is_empty() {
            return Ok(pairs);
        }
        left -= part.len();
        let views: Vec<&[u8]> = part.iter().map(|(picture, ..)| picture.as_slice()).collect();
        let pixels = clip.preprocess().stack(&views, clip.device());
        let rows = normalise(clip.encode_image(pixels));
        pairs.images.extend(rows.into_data().try_to_vec::<f32>().unwrap_or_default());
        for (_, caption, index) in part {
            pairs.captions.push(caption);
            pairs.indices.push(index);
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind<'a> {
    /// A caption finds its picture, and the other way round.
    Retrieval,
    /// A relation is told from the exchanged one.
    Relations,
    /// A linear classifier on embeddings.
    Probe(&'a Probe),
    /// Several classes a picture.
    MultiLabel(&'a MultiLabel),
}

/// Everything a plan measures so, in order, with the data it is measured on.
pub(crate) fn of_plan(plan: &Plan) -> Vec<(Kind<'_>, &str)> {
    let retrieval = plan.retrieval.iter().map(|spelling| (Kind::Retrieval, spelling.as_str()));
    let relations = plan.relations.iter().map(|spelling| (Kind::Relations, spelling.as_str()));
    let probes = plan.probe.iter().map(|probe| (Kind::Probe(probe), probe.test.as_str()));
    let lists = plan.multi_label.iter().map(|list| (Kind::MultiLabel(list), list.data.as_str()));
    retrieval.chain(relations).chain(probes).chain(lists).collect()
}

/// The file of the record: a folder belongs to one plan, so its place in the plan is enough.
pub(crate) fn path(folder: &Path, model: usize, place: usize) -> PathBuf {
    folder.join("units").join(format!("captions-{model}-{place}.json"))
}

/// Measures, unless the folder has a record of these weights already.
pub(crate) fn complete(
    (model, place): (usize, usize),
    (kind, spelling): (Kind<'_>, &str),
    checkpoint: &Checkpoint,
    plan: &Plan,
    run: &Run<'_>,
) -> Result<(), EvaluateError> {
    let path = path(run.folder, model, place);
    let kept: Option<Record> =
        std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let weights: String = checkpoint.digest.chars().take(12).collect();
    if kept.is_some_and(|record| record.pretrained == weights) {
        return Ok(());
    }
    let (device, threads) = (run.device, run.threads);
    let record = match kind {
        Kind::Retrieval => retrieval(checkpoint, spelling, plan, device, threads),
        Kind::Relations => relations(checkpoint, spelling, plan, device, threads),
        Kind::Probe(probe) => probe::measure(probe, checkpoint, plan, device, threads),
        Kind::MultiLabel(list) => multi_label::measure(list, checkpoint, plan, device, threads),
    }?;
    Ok(write_atomic(&path, &serde_json::to_vec(&record).unwrap_or_default())?)
}

pub(crate) fn record(plan: &Plan, checkpoint: &Checkpoint, dataset: &str, task: &str) -> Record {
    Record {
        dataset: dataset.to_owned(),
        model: checkpoint.name.clone(),
        pretrained: checkpoint.digest.chars().take(12).collect(),
        task: task.to_owned(),
        seed: Some(plan.seed),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Record::default()
    }
}

/// Recall of the caption of a picture and of the picture of a caption (CLIP_benchmark's
/// `zeroshot_retrieval`).
pub(crate) fn retrieval(
    checkpoint: &Checkpoint,
    spelling: &str,
    plan: &Plan,
    device: &Device,
    threads: usize,
) -> Result<Record, EvaluateError> {
    let clip = checkpoint.build(device)?;
    let source = clipguard_data::open(spelling, &Options::default())?;
    let pairs = embed_pairs(&clip, source.as_ref(), plan, threads)?;
    let texts: Vec<&str> = pairs.captions.iter().map(String::as_str).collect();
    let texts = embed_texts(&clip, &texts)?;
    let owner: Vec<usize> = (0..pairs.captions.len()).collect();
    let result = Retrieval::new(&texts, &pairs.images, clip.architecture().embed_dim, &owner)?;
    let mut record = record(plan, checkpoint, spelling, "zeroshot_retrieval");
    for k in [1, 5, 10].into_iter().filter(|k| *k <= owner.len()) {
        record.metrics.set(&format!("image_retrieval_recall@{k}"), result.image_recall(k)?);
        record.metrics.set(&format!("text_retrieval_recall@{k}"), result.text_recall(k)?);
    }
    Ok(record)
}

/// Share of scenes of a relation whose right caption is nearer than the exchanged one
/// (`image_caption_selection`, `text_acc`); guessing reaches one half.
fn relations(
    checkpoint: &Checkpoint,
    spelling: &str,
    plan: &Plan,
    device: &Device,
    threads: usize,
) -> Result<Record, EvaluateError> {
    let clip = checkpoint.build(device)?;
    let wrong = |reason: String| DataError::Spelling { spelling: spelling.to_owned(), reason };
    let scenes = Scenes::parse(spelling).map_err(|e| wrong(e.to_string()))?;
    let pairs = embed_pairs(&clip, &scenes, plan, threads)?;
    let mut texts = Vec::new();
    for index in &pairs.indices {
        let pair = scenes.relation(*index);
        let (right, exchanged) = pair.ok_or_else(|| wrong("scenes have no relation".to_owned()))?;
        texts.extend([right, exchanged]);
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (texts, dim) = (embed_texts(&clip, &texts)?, clip.architecture().embed_dim);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let correct = pairs
        .images
        .chunks_exact(dim)
        .zip(texts.chunks_exact(2 * dim))
        .filter(|(image, pair)| dot(image, &pair[..dim]) > dot(image, &pair[dim..]))
        .count();
    let record = record(plan, checkpoint, spelling, "image_caption_selection");
    let mut record = record.counted(correct, pairs.indices.len());
    record.metrics.set("text_acc", record.share());
    Ok(record)
}
