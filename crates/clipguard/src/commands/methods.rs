//! `clipguard methods`.

use crate::{
    failure::Failure,
    output::{WIDTH, print, print_json},
    session::Session,
};
use clipguard_data::spelling::{Method, Parameter};
use clipguard_evaluate::report::{Cell, Table};
use serde_json::{Value, json};

/// List attacks, purifiers, scores, training objectives and augmentations, or explain one.
///
/// A method is spelled `name` or `name:key=value,key=value`; what is left out takes its default.
/// The same text works on the command line, in plans and in records.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    clipguard methods                everything, with where it comes from\n  \
    clipguard methods pgd            one method: its settings, defaults and how to write it\n  \
    clipguard methods --json         the same for a program")]
pub(crate) struct Args {
    /// One method to explain.
    name: Option<String>,
}

/// A method of any kind.
struct Entry {
    kind: &'static str,
    name: &'static str,
    about: &'static str,
    source: &'static str,
    parameters: Vec<Parameter>,
    /// What a recipe has for it, as TOML.
    recipe: String,
    /// How it is used, `{}` standing for its spelling.
    usage: &'static str,
}

/// Every method of every catalogue.
fn all() -> Vec<Entry> {
    fn of<B>(kind: &'static str, usage: &'static str, catalogue: &[Method<B>]) -> Vec<Entry> {
        let entry = |m: &Method<B>| Entry {
            kind,
            name: m.name,
            about: m.about,
            source: m.source,
            parameters: (m.parameters)(),
            recipe: String::new(),
            usage,
        };
        catalogue.iter().map(entry).collect()
    }
    let attack = "clipguard attack --data embedded --attack {} --out adversarial";
    let purify = "clipguard classify --purify {} photo.jpg";
    let train = "clipguard train --objective {} --model ViT-B-32 --data pairs.tar --out run";
    let objective = |o: &clipguard_train::ObjectiveInfo| Entry {
        kind: "objective",
        name: o.name,
        about: o.summary,
        source: o.source,
        parameters: Vec::new(),
        recipe: o.settings(),
        usage: train,
    };
    let mut all = of("attack", attack, clipguard_attack::CATALOGUE);
    all.extend(of("purifier", purify, clipguard_purify::CATALOGUE));
    all.extend(of("score", "score = \"{}\" under [[detect]] in a plan", clipguard_purify::SCORES));
    all.extend(clipguard_train::objectives().iter().map(objective));
    let augment = "clipguard train --augment {} --model ViT-B-32 --data pairs.tar --out run";
    let captions = "clipguard train --captions {} --model ViT-B-32 --data pairs.tar --out run";
    all.extend(of("augmentation", augment, clipguard_data::augment::CATALOGUE));
    all.extend(of("rewording", captions, clipguard_data::text::CATALOGUE));
    all
}

impl Entry {
    fn json(&self) -> Value {
        let parameter = |p: &Parameter| json!({ "key": p.key, "default": p.default, "doc": p.doc });
        json!({
            "kind": self.kind,
            "name": self.name,
            "about": self.about,
            "source": self.source,
            "parameters": self.parameters.iter().map(parameter).collect::<Vec<_>>(),
            "recipe": self.recipe,
        })
    }

    /// The spelling with every default written out.
    fn complete(&self) -> String {
        let settings: Vec<String> =
            self.parameters.iter().map(|p| format!("{}={}", p.key, p.default)).collect();
        match settings.is_empty() {
            true => self.name.to_owned(),
            false => format!("{}:{}", self.name, settings.join(",")),
        }
    }

    fn explain(&self) -> String {
        let mut out = format!("{} ({})\n  {}\n", self.name, self.kind, self.about);
        out += &format!("  {}\n\n", self.source);
        if !self.recipe.is_empty() {
            out += "In a recipe, with its defaults:\n\n";
            for line in self.recipe.lines() {
                out += format!("    {line}").trim_end();
                out += "\n";
            }
        } else if self.parameters.is_empty() {
            out += "It has no settings of its own.\n";
        } else {
            let mut table = Table::new("", &["setting", "default", "meaning"]);
            for p in &self.parameters {
                let text = |text: &str| Cell::Text(text.to_owned());
                table.row(vec![text(&p.key), text(&p.default), text(&p.doc)]);
            }
            out += &table.text(WIDTH);
        }
        out += &format!("\nWritten out:  {}\n", self.complete());
        out + &format!("For example:  {}\n", self.usage.replace("{}", self.name))
    }
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let all = all();
    let Some(asked) = &args.name else {
        return match session.json {
            true => print_json(&all.iter().map(Entry::json).collect::<Vec<_>>()),
            false => print(&list(&all)),
        };
    };
    // Whoever pastes a whole spelling wants to know about its method.
    let name = asked.split_once(':').map_or(asked.as_str(), |(name, _)| name);
    let found: Vec<&Entry> = all.iter().filter(|entry| entry.name == name).collect();
    if found.is_empty() {
        return Err(Failure::Usage(unknown(name, &all)));
    }
    if session.json {
        return print_json(&found.iter().map(|entry| entry.json()).collect::<Vec<_>>());
    }
    print(&found.iter().map(|entry| entry.explain()).collect::<Vec<_>>().join("\n"))
}

fn list(all: &[Entry]) -> String {
    let mut table = Table::new("", &["method", "what it does", "source"]);
    let mut kind = "";
    for entry in all {
        let text = |text: &str| Cell::Text(text.to_owned());
        if entry.kind != kind {
            kind = entry.kind;
            table.group(format!("{kind}s"));
        }
        table.row(vec![text(entry.name), text(entry.about), text(entry.source)]);
    }
    table.note = "`clipguard methods NAME` explains the settings of one.".to_owned();
    table.text(WIDTH)
}

fn unknown(name: &str, all: &[Entry]) -> String {
    // Jaro-Winkler misses swapped letters in short words.
    let likeness = |entry: &&Entry| match strsim::osa_distance(name, entry.name) {
        0 | 1 => 1.0,
        _ => strsim::jaro_winkler(name, entry.name),
    };
    let nearest = all.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let hint = match nearest.filter(|entry| likeness(entry) > 0.7) {
        Some(entry) => format!("did you mean `{}`?", entry.name),
        None => "`clipguard methods` lists all".to_owned(),
    };
    format!("there is no method called `{name}`; {hint}")
}
