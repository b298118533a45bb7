//! `clipguard embed`.

mod npy;
mod retrieval;
mod texts;

use crate::{
    failure::Failure,
    output::{print, print_json, special_note},
    pictures::{Prepared, embed, load, name_skipped, next_batch},
    session::{ModelArgs, Session},
    tensor_file::{MAX_HEADER, Spool, assemble, folder_of},
};
use clipguard_data::{LoaderOptions, Skipped, Source};
use clipguard_model::{Clip, Precision};
use serde_json::json;
use std::{
    io::BufRead,
    path::{Path, PathBuf},
};
use texts::Texts;

/// Turn pictures and texts into unit embeddings.
///
/// Writes one safetensors file with the tensors `image` [pictures, dimensions] and, where there
/// are texts, `text` [texts, dimensions], f32. The metadata entry `clipguard` is a JSON text with
/// the model, its digest, and key and position of every picture.
///
/// Or, where `--out` is a folder, clip-retrieval's layout: `img_emb/img_emb_0.npy`,
/// `text_emb/text_emb_0.npy` and `metadata/metadata_0.parquet`, row by row the same samples, in
/// parts. A part that is there is not computed again, so the same command goes on where an
/// interrupted one stopped.
///
/// Memory does not grow with the number of pictures. A row depends on its picture or text alone:
/// those of `--shard 0/3`, `1/3` and `2/3` are, bit for bit, those of the whole.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    clipguard embed --model embedded --images embedded --out demo.safetensors\n  \
    clipguard embed --model ViT-B-32@weights.safetensors --images photos/ --out photos.safetensors\n  \
    clipguard embed --images pairs/{00000..00009}.tar --shard 0/4 --out part0.safetensors\n  \
    clipguard embed --images pairs/{00000..00009}.tar --out embeddings/       for clip-retrieval\n  \
    clipguard embed --images photos/ --texts queries.txt --out search.safetensors")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Pictures: a file, a folder, WebDataset shards, `scenes:COUNT`, `embedded`, ...
    #[arg(long, value_name = "SRC")]
    images: String,
    /// Texts to embed, one a line; without it the captions of the pictures are embedded.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Leave captions alone.
    #[arg(long, conflicts_with = "texts")]
    no_captions: bool,
    /// The file (.safetensors) or folder to write.
    #[arg(long)]
    out: PathBuf,
    /// The layout; without it the name of `--out` tells.
    #[arg(long, value_enum)]
    layout: Option<Layout>,
    /// Type of a folder's numbers.
    #[arg(long, value_enum, default_value = "f16")]
    dtype: Bits,
    /// Positions of the source in a part of a folder.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    part_size: u64,
    /// Pictures computed at once. Results do not depend on it.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
    /// Only pictures at positions I, I+N, I+2N, ... of the source; of a folder, parts I, I+N, ...
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<(u64, u64)>,
    /// Fail at the first unreadable picture instead of leaving it out.
    #[arg(long)]
    strict: bool,
}

/// Layouts of embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Layout {
    /// One safetensors file.
    Safetensors,
    /// clip-retrieval's folder of .npy and .parquet.
    ClipRetrieval,
}

/// Types of numbers in .npy files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Bits {
    F16,
    F32,
}

impl Bits {
    fn precision(self) -> Precision {
        match self {
            Self::F16 => Precision::F16,
            Self::F32 => Precision::F32,
        }
    }
}

fn shard(text: &str) -> Result<(u64, u64), String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match parts {
        Some((i, n)) if i < n => Ok((i, n)),
        _ => Err("expected I/N with I below N, such as 0/4".to_owned()),
    }
}

/// What is known about the rows, kept for the metadata.
#[derive(Default)]
struct Rows {
    keys: Vec<String>,
    positions: Vec<u64>,
    texts: Vec<String>,
    /// Keys of the pictures whose captions the texts are.
    text_keys: Vec<String>,
    /// Bytes all these take in the header, roughly.
    bytes: u64,
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let layout = layout(args)?;
    let texts = args.texts.as_deref().map(read_texts).transpose()?;
    let checkpoint = args.model.open(session)?;
    let (name, digest) = (checkpoint.name.clone(), checkpoint.digest.clone());
    let about = Model { clip: checkpoint.into_clip(&session.device)?, name, digest };
    let source = clipguard_data::open(&args.images, &clipguard_data::Options::default())?;
    match layout {
        Layout::Safetensors => one_file(args, session, &about, &*source, texts),
        Layout::ClipRetrieval => retrieval::run(args, session, &about, &*source),
    }
}

/// The model that embeds.
struct Model {
    clip: Clip,
    name: String,
    digest: String,
}

/// One safetensors file.
fn one_file(
    args: &Args,
    session: &Session,
    model: &Model,
    source: &dyn Source,
    texts: Option<Vec<String>>,
) -> Result<(), Failure> {
    let Model { clip, name, digest } = model;
    std::fs::create_dir_all(folder_of(&args.out)).map_err(|e| Failure::writing(&args.out, &e))?;

    let shards = args.shard.map_or(1, |(_, n)| n);
    let bar = session.bar(source.len().unwrap_or(0).div_ceil(shards), "embedding");
    let options = LoaderOptions {
        threads: session.threads,
        strict: args.strict,
        shard: args.shard,
        ..LoaderOptions::default()
    };
    let loader = load(source, clip.preprocess().resize, options)?;
    let mut loader = name_skipped(loader, session, &bar);

    let dim = clip.architecture().embed_dim;
    let batch = usize::from(args.batch);
    let mut captions = Texts::new(clip, batch, Spool::beside(&args.out, dim)?);
    let mut image = Spool::beside(&args.out, dim)?;
    let mut rows = Rows::default();
    loop {
        if session.stopped() {
            let text = "stopped, nothing was written; `--shard I/N` makes smaller pieces";
            return Err(Failure::Interrupted(text.to_owned()));
        }
        let pictures = next_batch(&mut loader, batch)?;
        if pictures.is_empty() {
            break;
        }
        image.push(&embed(clip, &pictures)?)?;
        bar.inc(pictures.len() as u64);
        for picture in pictures {
            let caption = rows.take(picture);
            if let Some(caption) = caption.filter(|_| texts.is_none() && !args.no_captions) {
                captions.push(&caption)?;
                rows.bytes += 2 * caption.len() as u64;
                rows.text_keys.extend(rows.keys.last().cloned());
                rows.texts.push(caption);
            }
        }
        rows.check_size()?;
    }
    bar.finish_and_clear();
    if image.rows() == 0 {
        return Err(nothing(&args.images, loader.skipped()));
    }
    if let Some(texts) = texts {
        for text in texts {
            captions.push(&text)?;
            rows.texts.push(text);
        }
    }
    let special = captions.special;
    let text = captions.finish()?;
    if special > 0 {
        let note = special_note(&format!("{special} of the texts"));
        session.say(format!("note: {note}"));
    }
    let (pictures, text_rows) = (image.rows(), text.rows());
    let skipped = loader.skipped().clone();
    let metadata = json!({
        "model": name,
        "digest": digest,
        "precision": args.model.precision.name(),
        "images": args.images,
        "shard": args.shard.map(|(i, n)| format!("{i}/{n}")),
        "keys": rows.keys,
        "positions": rows.positions,
        "texts": rows.texts,
        "text_keys": rows.text_keys,
        "skipped": { "count": skipped.count, "first": skipped.first },
    });
    let mut tensors = vec![("image", image)];
    if text_rows > 0 {
        tensors.push(("text", text));
    }
    assemble(&args.out, &metadata.to_string(), tensors)?;
    if session.json {
        return print_json(&json!({
            "out": args.out,
            "model": args.model.model,
            "images": pictures,
            "texts": text_rows,
            "dimensions": dim,
            "special": special,
            "skipped": { "count": skipped.count, "first": skipped.first },
        }));
    }
    let mut text = format!("pictures    {pictures}\ntexts       {text_rows}\ndimensions  {dim}\n");
    if skipped.count > 0 {
        text += &format!("skipped     {}\n", skipped.count);
    }
    print(&format!("{text}file        {}\n", args.out.display()))
}

impl Rows {
    /// Notes a picture and hands its caption on.
    fn take(&mut self, picture: Prepared) -> Option<String> {
        self.bytes += picture.key.len() as u64 + 16;
        self.keys.push(picture.key);
        self.positions.push(picture.index);
        picture.caption
    }

    /// Says early what could not be written at the end.
    fn check_size(&self) -> Result<(), Failure> {
        match self.bytes > MAX_HEADER * 9 / 10 {
            true => Err(Failure::Failed(format!(
                "the names of {} pictures and texts are too much for one safetensors file; \
                 split the source with `--shard I/N`",
                self.keys.len() + self.texts.len()
            ))),
            false => Ok(()),
        }
    }
}

/// What is written, told by the name of the output unless somebody says it.
fn layout(args: &Args) -> Result<Layout, Failure> {
    let out = args.out.display().to_string();
    let is_file = args.out.extension().is_some_and(|e| e == "safetensors");
    let layout = args.layout.unwrap_or(match is_file {
        true => Layout::Safetensors,
        false => Layout::ClipRetrieval,
    });
    let wrong = |reason: String| Err(Failure::Usage(format!("--out {out}: {reason}")));
    match (layout, is_file) {
        (Layout::Safetensors, false) => {
            let name = out.trim_end_matches('/');
            wrong(format!("a file name that ends in .safetensors, such as `{name}.safetensors`"))
        }
        (Layout::ClipRetrieval, true) => wrong("clip-retrieval's layout is a folder".to_owned()),
        (Layout::ClipRetrieval, false) if args.out.is_file() => {
            wrong("is a file; embeddings go to a folder or to NAME.safetensors".to_owned())
        }
        (Layout::ClipRetrieval, false) if args.texts.is_some() => wrong(
            "the rows of a folder are pairs; `--texts` goes with a .safetensors file".to_owned(),
        ),
        _ => Ok(layout),
    }
}

/// Texts, one a line; blank lines say nothing and are left out.
fn read_texts(path: &Path) -> Result<Vec<String>, Failure> {
    let file = std::fs::File::open(path).map_err(|error| Failure::reading(path, &error))?;
    let mut texts = Vec::new();
    for (number, line) in (1..).zip(std::io::BufReader::new(file).lines()) {
        let line = line.map_err(|error| {
            Failure::Refused(format!("{}: line {number}: {error}", path.display()))
        })?;
        let text = line.trim();
        texts.extend((!text.is_empty()).then(|| text.to_owned()));
    }
    match texts.is_empty() {
        true => Err(Failure::Refused(format!("{}: there is no text in it", path.display()))),
        false => Ok(texts),
    }
}

fn nothing(images: &str, skipped: &Skipped) -> Failure {
    let reason = match skipped.first.first() {
        Some((_, reason)) => format!("all {} samples were skipped; {reason}", skipped.count),
        None => "there are no pictures".to_owned(),
    };
    Failure::Refused(format!("{images}: {reason}"))
}
