//! clip-retrieval's layout: parts of rows, each three files that belong together.

use super::{Args, Bits, Model, npy, texts::Texts};
use crate::{
    failure::Failure,
    output::{print, print_json},
    pictures::{Prepared, embed, name_skipped, prepared},
    session::Session,
    tensor_file::Spool,
};
use clipguard_data::{
    LoaderOptions, Source,
    write::{Column, write_columns, write_whole},
};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

/// What the folder was made with; another run has to agree.
const SETTINGS: &str = "embed.json";

/// The files of one part.
struct Files {
    image: PathBuf,
    text: PathBuf,
    /// Written last: a part that has it is complete.
    metadata: PathBuf,
}

impl Files {
    fn of(folder: &Path, part: u64) -> Self {
        let file = |name: &str, end: &str| folder.join(name).join(format!("{name}_{part}.{end}"));
        Self {
            image: file("img_emb", "npy"),
            text: file("text_emb", "npy"),
            metadata: file("metadata", "parquet"),
        }
    }
}

/// The rows of the part that is being computed.
struct Part<'a> {
    number: u64,
    image: Spool,
    texts: Option<Texts<'a>>,
    keys: Vec<Option<String>>,
    captions: Vec<Option<String>>,
    positions: Vec<i64>,
}

/// What all parts have in common.
struct Work<'a> {
    args: &'a Args,
    model: &'a Model,
    /// Whether captions are embedded.
    pairs: bool,
}

impl<'a> Work<'a> {
    fn columns(&self) -> usize {
        self.model.clip.architecture().embed_dim
    }

    fn begin(&self, number: u64) -> Result<Part<'a>, Failure> {
        let (files, columns) = (Files::of(&self.args.out, number), self.columns());
        let batch = usize::from(self.args.batch);
        let texts = match self.pairs {
            true => {
                let spool = Spool::beside(&files.text, columns)?;
                Some(Texts::new(&self.model.clip, batch, spool))
            }
            false => None,
        };
        let image = Spool::beside(&files.image, columns)?;
        let (keys, captions, positions) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Part { number, image, texts, keys, captions, positions })
    }

    /// Embeds pictures of one part.
    fn add(&self, part: &mut Part<'_>, pictures: &mut Vec<Prepared>) -> Result<(), Failure> {
        if pictures.is_empty() {
            return Ok(());
        }
        part.image.push(&embed(&self.model.clip, pictures)?)?;
        for picture in pictures.drain(..) {
            if let (Some(texts), Some(caption)) = (&mut part.texts, &picture.caption) {
                texts.push(caption)?;
            }
            part.keys.push(Some(picture.key));
            part.captions.push(picture.caption);
            part.positions.push(i64::try_from(picture.index).unwrap_or(i64::MAX));
        }
        Ok(())
    }

    fn finish(&self, part: Part<'_>) -> Result<(), Failure> {
        let (files, columns) = (Files::of(&self.args.out, part.number), self.columns());
        npy::write(&files.image, part.image, columns, self.args.dtype)?;
        if let Some(texts) = part.texts {
            npy::write(&files.text, texts.finish()?, columns, self.args.dtype)?;
        }
        let mut table = vec![("image_path", Column::Text(part.keys))];
        if self.pairs {
            table.push(("caption", Column::Text(part.captions)));
        }
        table.push(("position", Column::Number(part.positions)));
        Ok(write_columns(&files.metadata, &table)?)
    }
}

pub(super) fn run(
    args: &Args,
    session: &Session,
    model: &Model,
    source: &dyn Source,
) -> Result<(), Failure> {
    let first = source.open(0)?.find_map(Result::ok);
    let pairs = !args.no_captions && first.is_some_and(|sample| sample.caption.is_some());
    let work = Work { args, model, pairs };
    prepare_folder(&work)?;
    let (shard, shards) = args.shard.unwrap_or((0, 1));
    let size = args.part_size;
    let done = finished(&args.out)?;
    let begin = (shard..).step_by(shards as usize).find(|part| !done.contains(part)).unwrap_or(0);

    let bar = session.bar(source.len().unwrap_or(0).div_ceil(shards), "embedding");
    let wanted = move |index: u64| {
        let part = index / size;
        part % shards == shard && !done.contains(&part)
    };
    let samples = source.open(begin.saturating_mul(size))?.filter(move |sample| match sample {
        Ok(sample) => wanted(sample.index),
        // What is wrong with the source as a whole is told once, by the first shard.
        Err(error) => shard == 0 || error.is_fatal(),
    });
    let options =
        LoaderOptions { threads: session.threads, strict: args.strict, ..LoaderOptions::default() };
    let loader = prepared(samples, model.clip.preprocess().resize, options)?;
    let mut loader = name_skipped(loader, session, &bar);
    let (mut open, mut waiting): (Option<Part<'_>>, Vec<Prepared>) = (None, Vec::new());
    let (mut parts, mut rows, mut bare) = (0u64, 0u64, 0u64);
    loop {
        if session.stopped() {
            let text = format!("stopped after {parts} parts; the same command goes on from there");
            return Err(Failure::Interrupted(text));
        }
        let next = loader.next().transpose()?;
        if next.as_ref().is_some_and(|picture| pairs && picture.caption.is_none()) {
            bare += 1;
            continue;
        }
        let number = next.as_ref().map(|picture| picture.index / size);
        if let Some(mut part) = open.take_if(|part| Some(part.number) != number) {
            work.add(&mut part, &mut waiting)?;
            rows += part.image.rows();
            parts += 1;
            work.finish(part)?;
        }
        let (Some(picture), Some(number)) = (next, number) else { break };
        let part = match &mut open {
            Some(part) => part,
            None => open.insert(work.begin(number)?),
        };
        waiting.push(picture);
        bar.inc(1);
        if waiting.len() == usize::from(args.batch) {
            work.add(part, &mut waiting)?;
        }
    }
    bar.finish_and_clear();
    let skipped = loader.skipped();
    if rows == 0 && finished(&args.out)?.is_empty() {
        return Err(super::nothing(&args.images, skipped));
    }
    if session.json {
        return print_json(&json!({
            "out": args.out,
            "model": args.model.model,
            "images": rows,
            "parts": parts,
            "texts": if pairs { rows } else { 0 },
            "dimensions": work.columns(),
            "without_caption": bare,
            "skipped": { "count": skipped.count, "first": skipped.first },
        }));
    }
    let mut text = format!("pictures    {rows}\nparts       {parts}\n");
    if skipped.count + bare > 0 {
        text += &format!("skipped     {} ({bare} without a caption)\n", skipped.count + bare);
    }
    let dimensions = work.columns();
    print(&format!("{text}dimensions  {dimensions}\nfolder      {}\n", args.out.display()))
}

/// Makes the folder, or sees that one that is there was made the same way.
fn prepare_folder(work: &Work<'_>) -> Result<(), Failure> {
    let out = &work.args.out;
    let mut names = vec!["img_emb", "metadata"];
    names.extend(work.pairs.then_some("text_emb"));
    for name in names {
        let folder = out.join(name);
        std::fs::create_dir_all(&folder).map_err(|e| Failure::writing(&folder, &e))?;
    }
    let settings = json!({
        "digest": work.model.digest,
        "images": work.args.images,
        "part_size": work.args.part_size,
        "captions": work.pairs,
        "precision": work.args.model.precision.name(),
        "dtype": match work.args.dtype { Bits::F16 => "f16", Bits::F32 => "f32" },
    });
    let path = out.join(SETTINGS);
    let Ok(bytes) = std::fs::read(&path) else {
        let text = format!("{settings:#}\n");
        return Ok(write_whole(&path, text.as_bytes())?);
    };
    let old: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let differs =
        settings.as_object().into_iter().flatten().find(|(key, v)| old.get(key) != Some(v));
    match differs {
        None => Ok(()),
        Some((key, value)) => Err(Failure::Refused(format!(
            "{}: was made with another `{key}` ({} instead of {value}); name a new folder",
            path.display(),
            old.get(key).unwrap_or(&Value::Null),
        ))),
    }
}

/// The parts that are complete.
fn finished(out: &Path) -> Result<HashSet<u64>, Failure> {
    let folder = out.join("metadata");
    let entries = std::fs::read_dir(&folder).map_err(|e| Failure::reading(&folder, &e))?;
    let number = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.strip_prefix("metadata_")?.strip_suffix(".parquet")?.parse().ok()
    };
    Ok(entries.filter_map(number).collect())
}
