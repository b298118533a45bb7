//! `clipguard inspect`: what is this, told without executing anything in it.

mod data;
mod model;
mod run;
mod tensors;
mod views;

use crate::{
    failure::Failure,
    output::{WIDTH, print, print_json},
    session::Session,
};
use clipguard_data::shown;
use clipguard_evaluate::report::{Cell, Table};
use clipguard_model::{Container, checkpoint::CONFIG, hugging_face};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Say what a file or folder is: a model, a data source, a run.
///
/// Of large weight files only the header is read; `--deep` reads every number. Nothing is
/// executed. Several paths get a section each; if one is refused the others are still shown.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    clipguard inspect models/vit-b-32/                       an open_clip folder\n  \
    clipguard inspect ViT-B-32@weights.safetensors --deep    weights of a known architecture\n  \
    clipguard inspect weights.safetensors photos/ a.tar      several, of any kind\n  \
    clipguard inspect runs/mine                              how far a run is\n  \
    clipguard inspect photos/ --augment simclr --out s.png   random views of the first pictures\n  \
    clipguard inspect pairs.tar --captions eda               rewordings of the first captions\n  \
    clipguard inspect --architectures                        the built-in architectures")]
pub(crate) struct Args {
    /// Models, data sources and run folders, spelled as everywhere.
    #[arg(required_unless_present = "architectures", value_name = "PATH")]
    paths: Vec<String>,
    /// List the built-in architectures.
    #[arg(long, conflicts_with = "paths")]
    architectures: bool,
    /// Read all weights of large models too: SHA-256, and whether every number is finite.
    #[arg(long)]
    deep: bool,
    /// Draw random views of the first pictures of a data source on a sheet, as training would see
    /// them: `simclr`, `autoaugment`, ... (`clipguard methods`).
    #[arg(long, requires = "out", conflicts_with_all = ["captions", "architectures", "deep"])]
    augment: Option<String>,
    /// The sheet (PNG).
    #[arg(long, requires = "augment")]
    out: Option<PathBuf>,
    /// Reword the first captions of a data source, as training would read them: `eda`.
    #[arg(long, conflicts_with_all = ["architectures", "deep"])]
    captions: Option<String>,
}

impl Args {
    /// The one data source that augmentations are shown of.
    fn data(&self) -> Result<&str, Failure> {
        match self.paths.as_slice() {
            [data] => Ok(data),
            more => Err(Failure::Usage(format!(
                "{} paths: `--augment` and `--captions` take one data source",
                more.len()
            ))),
        }
    }
}

/// What is said about one path.
struct Section {
    /// The kind of thing it is.
    kind: String,
    /// What is known, in the order shown: key, value for programs, text for people.
    facts: Vec<(&'static str, Value, String)>,
    /// Shown below the facts.
    table: Option<(&'static str, Table, Value)>,
    /// Everything that should be known about it.
    warnings: Vec<String>,
}

impl Section {
    fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), facts: Vec::new(), table: None, warnings: Vec::new() }
    }

    /// A fact whose text is its value.
    fn fact(&mut self, key: &'static str, value: impl Into<Value>) {
        let value = value.into();
        let text = match &value {
            Value::String(text) => text.clone(),
            Value::Number(n) => match n.as_u64() {
                Some(count) => Cell::Count(count).plain(),
                None => n.to_string(),
            },
            other => other.to_string(),
        };
        self.facts.push((key, value, text));
    }

    /// A fact told differently to people and to programs.
    fn told(&mut self, key: &'static str, value: impl Into<Value>, text: impl Into<String>) {
        self.facts.push((key, value.into(), text.into()));
    }

    fn json(self, path: &str) -> Value {
        let mut map = Map::new();
        map.insert("path".to_owned(), json!(path));
        map.insert("kind".to_owned(), json!(self.kind));
        map.extend(self.facts.into_iter().map(|(key, value, _)| (key.replace(' ', "_"), value)));
        if let Some((key, _, value)) = self.table {
            map.insert(key.to_owned(), value);
        }
        map.insert("warnings".to_owned(), json!(self.warnings));
        Value::Object(map)
    }

    fn text(&self, path: &str) -> String {
        let mut out = format!("{}: {}\n", shown(path), self.kind);
        let width = self.facts.iter().map(|(key, ..)| key.len()).max().unwrap_or(0);
        for (key, _, text) in &self.facts {
            out += &format!("  {key:width$}  {}\n", Cell::Text(text.clone()).plain());
        }
        for warning in &self.warnings {
            out += &format!("  warning: {}\n", Cell::Text(warning.clone()).plain());
        }
        if let Some((_, table, _)) = &self.table {
            let table = table.text(WIDTH - 2);
            out.push('\n');
            table.lines().for_each(|line| out += &format!("  {line}\n"));
        }
        out
    }
}

/// A size as people read it.
fn bytes(n: u64) -> String {
    let units = [("GB", 1u64 << 30), ("MB", 1 << 20), ("kB", 1 << 10)];
    match units.iter().find(|(_, unit)| n >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", n as f64 / *unit as f64),
        None => format!("{n} bytes"),
    }
}

/// What a path is, by the marks that cannot be mistaken first.
fn sections(path: &str, deep: bool) -> Result<Vec<Section>, Failure> {
    let at = Path::new(path);
    let architecture = path.split_once('@').filter(|_| !at.exists());
    if path == "embedded" {
        return Ok(vec![model::embedded()?, data::section(path)?]);
    }
    let configs = [CONFIG, hugging_face::CONFIG];
    let on_hub = path.starts_with("hf:") && !at.exists();
    if on_hub || architecture.is_some() || configs.iter().any(|name| at.join(name).is_file()) {
        return Ok(vec![model::section(path, deep)?]);
    }
    if at.join("plan.toml").is_file() {
        return Ok(vec![run::section(at)?]);
    }
    if at.is_file() && Container::looks_like_one(at) {
        let whole = model::is_whole(at);
        return Ok(vec![if whole { model::section(path, deep)? } else { tensors::section(at)? }]);
    }
    Ok(vec![data::section(path)?])
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    if args.architectures {
        return model::architectures(session);
    }
    if let (Some(augmentation), Some(out)) = (&args.augment, &args.out) {
        return views::sheet(args.data()?, augmentation, out, session);
    }
    if let Some(rewording) = &args.captions {
        return views::captions(args.data()?, rewording, session);
    }
    let (mut documents, mut refused) = (Vec::new(), Vec::new());
    for (place, path) in args.paths.iter().enumerate() {
        if !session.json && place > 0 {
            print("\n")?;
        }
        match sections(path, args.deep) {
            Ok(sections) if session.json => {
                documents.extend(sections.into_iter().map(|section| section.json(path)));
            }
            Ok(sections) => {
                let texts: Vec<String> = sections.iter().map(|s| s.text(path)).collect();
                print(&texts.join("\n"))?;
            }
            // With one path there is nothing else to show.
            Err(failure) if args.paths.len() == 1 && !session.json => return Err(failure),
            Err(failure) => {
                documents.push(json!({ "path": path, "error": failure.to_string() }));
                if !session.json {
                    print(&format!("{}: refused\n  {failure}\n", shown(path)))?;
                }
                refused.push((path, failure));
            }
        }
    }
    if session.json {
        print_json(&documents)?;
    }
    match refused.len() {
        0 => Ok(()),
        1 => Err(refused.swap_remove(0).1),
        n => {
            let names: Vec<String> = refused.iter().map(|(path, _)| shown(path)).collect();
            let of = args.paths.len();
            Err(Failure::Refused(format!("{n} of {of} refused: {}", names.join(", "))))
        }
    }
}
