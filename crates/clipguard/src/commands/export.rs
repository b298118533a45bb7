//! `clipguard export`.

use crate::{
    failure::Failure,
    output::{print, print_json},
    session::Session,
};
use clipguard_data::{
    DataError, Limits,
    write::{Export, Format},
};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Write a data source in a format that other programs read.
///
/// Whatever the source is, it leaves as WebDataset shards, as Parquet files in the layout of
/// Hugging Face's `datasets`, or as a folder of PNG with captions beside them. Pictures that are
/// files already stay the bytes they are (but for PNG); broken ones are left out and named.
///
/// The same source gives the same bytes. A shard appears when it is whole, and the same command
/// goes on where an interrupted one stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    clipguard export photos/ --out shards/                         WebDataset\n  \
    clipguard export pairs.csv --format parquet --out parquet/     for Hugging Face's datasets\n  \
    clipguard export scenes:1000 --format png --out drawn/         to look at\n  \
    clipguard export \"s3://bucket/{000..009}.tar\" --side 256 --out small/")]
pub(crate) struct Args {
    /// The data, spelled as everywhere.
    #[arg(value_name = "DATA")]
    data: String,
    /// Folder to write; new, or one that this command began.
    #[arg(short, long, value_name = "FOLDER")]
    out: PathBuf,
    /// What to write.
    #[arg(long, value_enum, default_value = "webdataset")]
    format: Kind,
    /// Positions of the source in a shard.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    per_shard: u64,
    /// Shrink larger pictures to this shorter side and keep their shape; all become PNG.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    side: Option<u32>,
    /// Fail at the first unreadable sample instead of leaving it out.
    #[arg(long)]
    strict: bool,
}

/// Formats that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Tar archives of `KEY.jpg`, `KEY.txt`, `KEY.cls`, `KEY.json`.
    #[value(name = "webdataset")]
    WebDataset,
    /// Columns `key`, `image`, `caption`, `label`.
    Parquet,
    /// PNG files with a text file beside each, in a folder for each class.
    Png,
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let source = clipguard_data::open(&args.data, &clipguard_data::Options::default())?;
    let export = Export {
        format: match args.format {
            Kind::WebDataset => Format::WebDataset,
            Kind::Parquet => Format::Parquet,
            Kind::Png => Format::Png,
        },
        per_shard: args.per_shard,
        side: args.side,
        limits: Limits::default(),
        threads: session.threads,
        strict: args.strict,
    };
    let bar = session.bar(source.len().unwrap_or(0), "exporting");
    let (told, shown, mut count) = (session.clone(), bar.clone(), 0);
    let on_skip = move |error: &DataError| {
        count += 1;
        if told.verbose || count <= 20 {
            shown.suspend(|| told.say(format!("skipped {error}")));
        }
    };
    let done = export.run(&*source, &args.out, session.stop_flag(), || bar.inc(1), on_skip)?;
    bar.finish_and_clear();
    if !done.finished {
        let text =
            format!("stopped after {} samples; the same command goes on from there", done.samples);
        return Err(Failure::Interrupted(text));
    }
    if done.samples == 0 {
        let reason = match done.skipped.first.first() {
            Some((_, reason)) => format!("all samples were skipped; {reason}"),
            None => "there are no samples".to_owned(),
        };
        return Err(Failure::Refused(format!("{}: {reason}", args.data)));
    }
    let data = spelling(args.format, &args.out, done.shards);
    if session.json {
        return print_json(&json!({
            "out": args.out,
            "data": data,
            "samples": done.samples,
            "shards": done.shards,
            "skipped": { "count": done.skipped.count, "first": done.skipped.first },
        }));
    }
    let mut text = format!("samples  {}\n", done.samples);
    if done.skipped.count > 0 {
        text += &format!("skipped  {}\n", done.skipped.count);
    }
    print(&format!("{text}data     {data}\n"))
}

/// How the result is spelled as a source.
fn spelling(format: Kind, out: &Path, shards: u64) -> String {
    let extension = match format {
        Kind::WebDataset => "tar",
        Kind::Parquet => "parquet",
        Kind::Png => return out.display().to_string(),
    };
    let names = match shards {
        0 | 1 => "00000".to_owned(),
        n => format!("{{00000..{:05}}}", n - 1),
    };
    out.join(format!("{names}.{extension}")).display().to_string()
}
