//! `clipguard purify`.

use crate::{
    failure::Failure,
    output::{WIDTH, print, print_json},
    session::Session,
    tensor_file::{Spool, assemble},
};
use burn::tensor::Tensor;
use clipguard_evaluate::{
    clean::stored::{Outcome, Place, Rows, Stored, labels},
    report::{Cell, Share, Table},
};
use clipguard_purify::{Material, Purifier, parse};
use serde_json::json;
use std::path::PathBuf;

/// Apply purifiers to stored embeddings and say what that changes.
///
/// Embeddings are tensors of safetensors files, a row each: FILE, or FILE:TENSOR where the name is
/// not the usual one. `clipguard embed` writes such files, and so do other programs. Told are the
/// zero-shot accuracy, the angle to the blank prompt, the angle by which a row was turned, the lead of
/// the right class and how far the nearest border of its class is, before and after.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    clipguard purify photos.safetensors --head texts.safetensors:classes --purify clipure-cos\n  \
    clipguard purify pairs.safetensors --head pairs.safetensors --purify clipure-cos:steps=9\n  \
    clipguard purify photos.safetensors --head texts.safetensors --blank blank.safetensors:text \\\n    \
    --purify clipure-diff:prior=prior.safetensors --out purified.safetensors")]
pub(crate) struct Args {
    /// Picture embeddings; the usual tensor is `image`.
    #[arg(value_name = "FILE[:TENSOR]")]
    embeddings: String,
    /// Embeddings of the classes, a row a class; the usual tensor is `text`.
    #[arg(long, value_name = "FILE[:TENSOR]")]
    head: String,
    /// True class of each picture; left out: the tensor `label` beside the embeddings, else row k
    /// of the pictures belongs to row k of the head.
    #[arg(long, value_name = "FILE:TENSOR")]
    labels: Option<String>,
    /// Texts whose mean is the blank prompt; left out: the mean of the head stands in for it.
    #[arg(long, value_name = "FILE[:TENSOR]")]
    blank: Option<String>,
    /// A purifier of embeddings; may be given several times, each is applied alone.
    #[arg(long, value_name = "METHOD", required = true)]
    purify: Vec<String>,
    /// Write what the only purifier made of the embeddings (.safetensors, tensor `image`).
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    if args.out.is_some() && args.purify.len() > 1 {
        let text = "--out: one purifier is needed, each is applied alone".to_owned();
        return Err(Failure::Usage(text));
    }
    let stored = read(args)?;
    let device = session.device.clone();
    let blank = Tensor::<1>::from_floats(stored.blank.as_slice(), &device);
    let material = Material { blank: Some(blank), ..Material::default() };
    let mut outcomes = vec![stored.outcome("none", &stored.rows)];
    for text in &args.purify {
        let purifier = of_embeddings(text, &material)?;
        let after = stored.rows.purified(&*purifier, &device);
        // As it was asked for: the settings that were left out would hide those that differ.
        outcomes.push(stored.outcome(text, &after));
        if let Some(out) = &args.out {
            let mut spool = Spool::beside(out, after.width)?;
            spool.push(&after.values)?;
            let about =
                json!({ "purifier": purifier.spelling().to_string(), "of": args.embeddings });
            assemble(out, &about.to_string(), vec![("image", spool)])?;
        }
    }
    let stand_in = args.blank.is_none();
    if session.json {
        return print_json(&json!({
            "embeddings": args.embeddings,
            "head": args.head,
            "blank": args.blank,
            "blank_is_stand_in": stand_in,
            "outcomes": outcomes,
        }));
    }
    print(&table(&outcomes, stand_in).text(WIDTH))
}

/// A purifier that can do something without pictures.
fn of_embeddings(text: &str, material: &Material) -> Result<Box<dyn Purifier>, Failure> {
    let purifier = parse(text, material)?;
    match purifier.needs_pictures() {
        false => Ok(purifier),
        true => Err(Failure::Usage(format!(
            "{text}: acts on pictures, and there are only embeddings here; `clipguard classify` has \
             pictures"
        ))),
    }
}

fn read(args: &Args) -> Result<Stored, Failure> {
    let place = Place::parse(&args.embeddings);
    let rows = Rows::read(&place, "image")?;
    let head = Rows::read(&Place::parse(&args.head), "text")?;
    let found = match &args.labels {
        Some(text) => labels(&Place::parse(text))?,
        None => labels(&Place { tensor: None, ..place })?,
    };
    let labels = match found {
        Some(labels) => labels,
        None if rows.len() == head.len() => (0..rows.len()).collect(),
        None => {
            return Err(Failure::Refused(format!(
                "{}: no labels: a tensor `label` is needed beside the embeddings or by --labels, or \
                 as many classes ({}) as embeddings ({})",
                args.embeddings,
                head.len(),
                rows.len()
            )));
        }
    };
    let blank = match &args.blank {
        Some(text) => Rows::read(&Place::parse(text), "text")?.mean(),
        None => head.mean(),
    };
    let stored = Stored { rows, head, labels, blank };
    stored.check().map_err(|e| Failure::Refused(format!("{}: {e}", args.embeddings)))?;
    Ok(stored)
}

fn table(outcomes: &[Outcome], stand_in: bool) -> Table {
    let headings =
        ["purifier", "accuracy", "changed", "to the blank", "turned", "lead", "to the border"];
    let mut table = Table::new("", &headings);
    for out in outcomes {
        let range = |[low, middle, high]: [f64; 3], digits: usize| {
            Cell::Text(format!("{middle:.digits$} ({low:.digits$} to {high:.digits$})"))
        };
        table.row(vec![
            Cell::Text(out.purifier.clone()),
            Cell::Share(Share::counted(out.correct, out.n)),
            Cell::Count(out.changed as u64),
            range(out.angle, 1),
            range(out.turn, 1),
            range(out.lead, 3),
            range(out.border, 1),
        ]);
    }
    table.note = "Accuracy in percent of all embeddings; changed: how many got another class. \
                  Angles in degrees, the lead as a difference of cosines: median, and from the 5th \
                  to the 95th percentile; the border from rows that are right."
        .into();
    if stand_in {
        table.note += " The mean of the classes stands in for the blank prompt (--blank).";
    }
    table
}
