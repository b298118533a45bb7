//! `clipguard embed`.

use crate::{
    failure::Failure,
    output::{print, print_json},
    pictures::{Prepared, embed, load, name_skipped, next_batch, values},
    session::Session,
    tensor_file::{MAX_HEADER, Spool, assemble, folder_of},
};
use clipguard_data::{LoaderOptions, Skipped};
use clipguard_model::{
    Clip, ModelError, Tokenizer, normalise,
    tokenizer::{END, START},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::BufRead,
    path::{Path, PathBuf},
};

/// Turn pictures and texts into unit embeddings.
///
/// Writes one safetensors file with the tensors `image` [pictures, dimensions] and, where there
/// are texts, `text` [texts, dimensions], f32. The metadata entry `clipguard` is a JSON text with
/// the model, its digest, and key and position of every picture.
///
/// Memory does not grow with the number of pictures. Rows do not depend on shards: those of
/// `--shard 0/3`, `1/3` and `2/3` are, bit for bit, those of the whole with the same `--batch`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    clipguard embed --model embedded --images embedded --out demo.safetensors\n  \
    clipguard embed --model ViT-B-32@weights.safetensors --images photos/ --out photos.safetensors\n  \
    clipguard embed --images pairs/{00000..00009}.tar --shard 0/4 --out part0.safetensors\n  \
    clipguard embed --images photos/ --texts queries.txt --out search.safetensors")]
pub(crate) struct Args {
    /// `embedded`, an open_clip folder, or ARCH@FILE.
    #[arg(long, default_value = "embedded")]
    model: String,
    /// Side of the pictures in pixels, where it is not the model's (vision transformers).
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,
    /// Pictures: a file, a folder, WebDataset shards, `scenes:COUNT`, `embedded`, ...
    #[arg(long, value_name = "SRC")]
    images: String,
    /// Texts to embed, one a line; without it the captions of the pictures are embedded.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Leave captions alone.
    #[arg(long, conflicts_with = "texts")]
    no_captions: bool,
    /// The file to write (.safetensors).
    #[arg(long)]
    out: PathBuf,
    /// Pictures computed at once; the last bits of a row may depend on it.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
    /// Only pictures at positions I, I+N, I+2N, ... of the source.
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<(u64, u64)>,
    /// Fail at the first unreadable picture instead of leaving it out.
    #[arg(long)]
    strict: bool,
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
    check_out(&args.out)?;
    let texts = args.texts.as_deref().map(read_texts).transpose()?;
    let checkpoint = crate::session::model(&args.model, args.image_size)?;
    checkpoint.warnings.iter().for_each(|warning| session.say(format!("warning: {warning}")));
    let clip = checkpoint.build(&session.device())?;
    let (name, digest) = (checkpoint.name, checkpoint.digest);
    drop(checkpoint.weights);
    let source = clipguard_data::open(&args.images, &clipguard_data::Options::default())?;
    std::fs::create_dir_all(folder_of(&args.out)).map_err(|e| Failure::writing(&args.out, &e))?;

    let shards = args.shard.map_or(1, |(_, n)| n);
    let bar = session.bar(source.len().unwrap_or(0).div_ceil(shards), "embedding");
    let options = LoaderOptions {
        threads: session.threads,
        strict: args.strict,
        shard: args.shard,
        ..LoaderOptions::default()
    };
    let loader = load(&*source, clip.preprocess().resize, options)?;
    let mut loader = name_skipped(loader, session, &bar);

    let dim = clip.architecture().embed_dim;
    let batch = usize::from(args.batch);
    let mut captions = Texts::new(&clip, batch, Spool::beside(&args.out, dim)?);
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
        image.push(&embed(&clip, &pictures, batch)?)?;
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
    let text = captions.finish()?;
    let (pictures, text_rows) = (image.rows(), text.rows());
    let skipped = loader.skipped().clone();
    let metadata = json!({
        "model": name,
        "digest": digest,
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
            "model": args.model,
            "images": pictures,
            "texts": text_rows,
            "dimensions": dim,
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

/// Lengths of token rows are rounded up to a multiple of this.
const STEP: usize = 16;

/// Texts on their way to embeddings.
///
/// A text tower computes a batch at the length of its longest row, and the last bits of a row
/// depend on that length. So texts wait for others of their own length (rounded up), and the row
/// of a text does not depend on the others.
struct Texts<'a> {
    clip: &'a Clip,
    tokenizer: Tokenizer,
    batch: usize,
    /// By length: place among the texts, and tokens.
    waiting: BTreeMap<usize, Vec<(u64, Vec<u32>)>>,
    count: u64,
    spool: Spool,
}

impl<'a> Texts<'a> {
    fn new(clip: &'a Clip, batch: usize, spool: Spool) -> Self {
        let (tokenizer, waiting) = (Tokenizer::clip(), BTreeMap::new());
        Self { clip, tokenizer, batch, waiting, count: 0, spool }
    }

    fn push(&mut self, text: &str) -> Result<(), Failure> {
        let context = self.clip.architecture().text.context;
        let row = self.tokenizer.row(text, context);
        let own = row.iter().position(|id| *id == END).map_or(context, |end| end + 1);
        let length = own.next_multiple_of(STEP).min(context);
        let waiting = self.waiting.entry(length).or_default();
        waiting.push((self.count, row));
        self.count += 1;
        if waiting.len() == self.batch { self.flush(length) } else { Ok(()) }
    }

    fn flush(&mut self, length: usize) -> Result<(), Failure> {
        let waiting = self.waiting.remove(&length).unwrap_or_default();
        let (places, mut rows): (Vec<u64>, Vec<Vec<u32>>) = waiting.into_iter().unzip();
        // At least one row that is no text brings the batch to its length.
        let mut filler = vec![0; self.clip.architecture().text.context];
        filler[0] = START;
        filler[length - 1] = END;
        rows.resize(self.batch + 1, filler);
        let embedded = self.clip.encode_text(&rows).map_err(|error| match error {
            ModelError::Tokens(reason) => Failure::Refused(format!(
                "the model's text tower does not take CLIP's tokens: {reason}; `--no-captions` \
                 embeds pictures alone"
            )),
            other => other.into(),
        })?;
        let embedded = values(normalise(embedded), places.len())?;
        let width = embedded.len() / places.len().max(1);
        places
            .iter()
            .zip(embedded.chunks_exact(width.max(1)))
            .try_for_each(|(place, row)| self.spool.put(*place, row))
    }

    fn finish(mut self) -> Result<Spool, Failure> {
        let lengths: Vec<usize> = self.waiting.keys().copied().collect();
        lengths.into_iter().try_for_each(|length| self.flush(length))?;
        Ok(self.spool)
    }
}

fn check_out(out: &Path) -> Result<(), Failure> {
    if out.extension().is_some_and(|e| e == "safetensors") {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "--out {}: a file name that ends in .safetensors is supported, such as `{}.safetensors`",
        out.display(),
        out.display().to_string().trim_end_matches('/')
    )))
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
