//! `clipguard classify`.

use crate::{
    failure::Failure,
    output::{WIDTH, print},
    pictures::{Prepared, load_all, name_skipped, next_batch, pixels, values},
    session::{ModelArgs, Session},
};
use clipguard_data::{LoaderOptions, scenes, shown};
use clipguard_evaluate::{
    Classifier,
    classifier::template_set,
    report::{Cell, Table},
};
use clipguard_model::{ClassList, Query, TemplateSet, Victim, prompts::class_names};
use serde_json::json;
use std::path::Path;

/// Pictures computed at once.
const BATCH: usize = 32;
/// Lines of a table that are held before it is printed.
const ROWS: usize = 500;

/// Say what pictures show, among classes of your choice.
///
/// Every class name is put into the templates, the texts are embedded, and their average stands
/// for the class (zero-shot classification). With `--json` one JSON object a picture is printed,
/// each on its own line. Unreadable pictures are left out, counted and named on stderr.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    clipguard classify cat.jpg\n  \
    clipguard classify --classes cat,dog,\"great white shark\" photos/\n  \
    clipguard classify --model ViT-B-32@weights.safetensors --classes imagenet1k --top 5 *.jpg\n  \
    clipguard classify --purify clipure-cos:steps=10,eta=30 --json upload.png\n\n\
    Classes: names separated by commas, a file with one name a line, or a built-in list \
    (imagenet1k, cifar10, scenes, ...).")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Names with commas between, a file, or a built-in list; the embedded model has its own.
    #[arg(long, value_name = "a,b,c|FILE|LIST")]
    classes: Option<String>,
    /// A built-in template set or a file with one template a line (`a photo of a {}.`).
    #[arg(long, value_name = "SET|FILE")]
    templates: Option<String>,
    /// A defence (`clipguard methods` lists them).
    #[arg(long, value_name = "METHOD")]
    purify: Vec<String>,
    /// How many classes to show for a picture.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Fail at the first unreadable picture instead of leaving it out.
    #[arg(long)]
    strict: bool,
    /// Pictures: files, folders, WebDataset shards, `scenes:COUNT`, `embedded`, ...
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

impl Args {
    fn classes(&self) -> Result<ClassList, Failure> {
        let Some(asked) = &self.classes else {
            return match self.model.model.as_str() {
                "embedded" => Ok(scene_names()?),
                _ => Err(Failure::Usage(
                    "--classes is missing: names such as `--classes cat,dog`, a file with one \
                     name a line, or a built-in list such as `imagenet1k`"
                        .to_owned(),
                )),
            };
        };
        Ok(if Path::new(asked).is_file() {
            ClassList::read(asked)?
        } else if asked.contains(',') {
            ClassList::parse("--classes", asked)?
        } else if asked == "scenes" {
            scene_names()?
        } else {
            class_names(asked)?.clone()
        })
    }

    fn templates(&self, classes: &ClassList) -> Result<TemplateSet, Failure> {
        Ok(match &self.templates {
            Some(asked) => template_set(asked)?,
            // The embedded model's own set knows articles and plurals.
            None if self.model.model == "embedded" => template_set("scenes")?,
            // A published list comes with its published templates.
            None => template_set(classes.name()).or_else(|_| template_set("simple"))?,
        })
    }
}

fn scene_names() -> Result<ClassList, Failure> {
    Ok(ClassList::new("scenes", scenes::test_names(), Default::default())?)
}

/// One line of the answer: class and probability.
struct Guess<'a> {
    class: &'a str,
    label: usize,
    probability: f64,
}

/// The most probable classes of one row of logits; of equals the first.
fn best<'a>(classes: &'a ClassList, logits: &[f32], top: usize) -> Vec<Guess<'a>> {
    let highest = logits.iter().fold(f64::NEG_INFINITY, |m, v| m.max(f64::from(*v)));
    let weights: Vec<f64> = logits.iter().map(|v| (f64::from(*v) - highest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let guess = |(label, weight): (usize, &f64)| Guess {
        class: &classes.names()[label],
        label,
        probability: weight / sum,
    };
    let mut guesses: Vec<Guess<'a>> = weights.iter().enumerate().map(guess).collect();
    guesses.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    guesses.truncate(top);
    guesses
}

/// Prints answers as they come: lines of JSON, or a table every few hundred rows.
struct Printer<'a> {
    json: bool,
    paths: &'a [String],
    table: Table,
}

impl Printer<'_> {
    fn table() -> Table {
        Table::new("", &["picture", "class", "probability %"])
    }

    fn picture(&mut self, picture: &Prepared, guesses: &[Guess<'_>]) -> Result<(), Failure> {
        let source = &self.paths[picture.index as usize];
        if self.json {
            let guess = |g: &Guess<'_>| json!({ "class": g.class, "label": g.label, "probability": g.probability });
            let top: Vec<_> = guesses.iter().map(guess).collect();
            return print(&format!(
                "{}\n",
                json!({ "source": source, "key": picture.key, "top": top })
            ));
        }
        let mut name = display(self.paths, picture);
        for guess in guesses {
            let probability = Cell::Number(100.0 * guess.probability, 1);
            let class = Cell::Text(guess.class.to_owned());
            self.table.row(vec![Cell::Text(std::mem::take(&mut name)), class, probability]);
        }
        if self.table.rows.len() >= ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let table = std::mem::replace(&mut self.table, Self::table());
        if table.rows.is_empty() { Ok(()) } else { print(&table.text(WIDTH)) }
    }
}

/// A picture as people call it: by its path, or by source and key.
fn display(paths: &[String], picture: &Prepared) -> String {
    let source = &paths[picture.index as usize];
    let file = Path::new(source).file_name().is_some_and(|name| *name == *picture.key);
    match (file, paths.len()) {
        (true, _) => shown(source),
        (false, 1) => shown(&picture.key),
        _ => shown(&format!("{source} {}", picture.key)),
    }
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let classes = args.classes()?;
    let open = |path: &String| clipguard_data::open(path, &clipguard_data::Options::default());
    let sources = args.paths.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let checkpoint = args.model.open(session)?;
    let templates = args.templates(&classes)?;
    let classifier = Classifier::new(&checkpoint, classes.names(), &templates, &session.device)?;
    let resize = classifier.clip.preprocess().resize;
    let victim = classifier.defended(args.purify.as_slice(), None)?;

    let total = sources.iter().map(|source| source.len().unwrap_or(0)).sum();
    let bar = session.bar(total, "classifying");
    let options =
        LoaderOptions { threads: session.threads, strict: args.strict, ..Default::default() };
    let mut loader = name_skipped(load_all(sources, resize, options)?, session, &bar);
    let batch = victim.limit().map_or(BATCH, |limit| BATCH.min(limit.rows));
    let mut printer = Printer { json: session.json, paths: &args.paths, table: Printer::table() };
    let mut count = 0;
    loop {
        if session.stopped() {
            printer.flush()?;
            return Err(Failure::Interrupted(format!("stopped after {count} pictures")));
        }
        let pictures = next_batch(&mut loader, batch)?;
        if pictures.is_empty() {
            break;
        }
        let pixels = pixels(&classifier.clip, &pictures);
        let keys: Vec<String> = pictures.iter().map(|picture| picture.key.clone()).collect();
        let logits = values(victim.logits(Query { pixels, keys: &keys, draw: 0 }))?;
        bar.inc(pictures.len() as u64);
        count += pictures.len();
        bar.suspend(|| {
            let logits = logits.chunks_exact(classes.len());
            pictures.iter().zip(logits).try_for_each(|(picture, logits)| {
                printer.picture(picture, &best(&classes, logits, usize::from(args.top)))
            })
        })?;
    }
    bar.finish_and_clear();
    printer.flush()?;
    match (count, loader.skipped()) {
        (_, skipped) if skipped.count > 0 && count > 0 => {
            session.say(format!("{} of {} skipped", skipped.count, count as u64 + skipped.count));
            Ok(())
        }
        (0, skipped) => Err(Failure::Refused(match skipped.first.first() {
            Some((_, reason)) => {
                format!("none of {} pictures is readable; {reason}", skipped.count)
            }
            None => "there are no pictures".to_owned(),
        })),
        _ => Ok(()),
    }
}
