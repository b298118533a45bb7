//! From records to a report: which number is the headline, and what stands beside it.

use super::{
    Block, Cell, Comparison, Headline, Report, Reproduce, Section, Share, Table, ThreatModel, Tone,
    certified, evidence, number, overview,
    radius::{over_eps, radius},
    studies,
};
use crate::records::record::{
    Check, HONEST, NO_DEFENCE, PUBLISHED, Record, Reliability, Threat, Verdict, WORST_CASE,
};

/// What no interval covers; true of every robust accuracy.
const LIMITS: [&str; 3] = [
    "A robust accuracy is an upper bound: an attack that nobody has tried yet may still get through.",
    "The intervals cover the choice of the pictures. They do not cover an attack that was too weak, \
     the choice of the seed, or pictures of another kind.",
    "Only changes within the stated radius were tried. Other changes, such as stickers, blur or \
     rotations, are another question.",
];

impl Report {
    /// The report of an evaluation: the worst case as headline, every record in a table, published
    /// and honest protocol side by side, accuracy over radius where radii vary.
    pub fn from_records(title: impl Into<String>, records: &[Record]) -> Self {
        let mut report = Self { title: title.into(), ..Self::default() };
        let Some(main) = headline_record(records) else { return report };
        report.kicker = [main.model_fullname(), main.dataset.clone()]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" · ");
        report.headline = headline(main, records);
        report.checks = all_checks(main, records);
        if !main.is_clean() {
            report.threat = main.threat.as_ref().map(threat_model);
            report.explanation = explanation(main);
            report.limits = LIMITS.iter().map(|limit| (*limit).to_owned()).collect();
        }
        report.sections.extend(overview::section(records));
        let compared = comparisons(records);
        if !compared.is_empty() {
            report
                .sections
                .push(Section::new("The published protocol and the honest one", compared));
        }
        report.sections.extend(evidence::section(main));
        report.sections.extend(certified::section(records));
        report.sections.extend(studies::shifts(records));
        report.sections.extend(studies::detectors(records));
        // Other radii are what the curve is for; in the table they would hide the comparison.
        let (here, elsewhere): (Vec<Record>, Vec<Record>) = records
            .iter()
            .filter(|r| !r.is_certified() && !studies::is_study(r))
            .cloned()
            .partition(|r| r.is_clean() || main.is_clean() || r.threat == main.threat);
        let mut blocks = vec![Block::Table(Table::of_records(&here))];
        if !elsewhere.is_empty() {
            let mut table = Table::of_records(&elsewhere);
            (table.title, table.note) = ("Other radii".into(), String::new());
            table.rows.iter_mut().for_each(|row| row.strong = false);
            blocks.push(Block::Table(table));
        }
        blocks.extend(over_eps(records).map(Block::Lines));
        report.sections.push(Section::new("All results", blocks));
        report.reproduce = reproduce(main);
        report
    }
}

impl Table {
    /// Records as a table, grouped by defence in the order of their first record; a column in
    /// which all records agree is left out.
    pub fn of_records(records: &[Record]) -> Self {
        type Column = (&'static str, fn(&Record) -> String);
        let columns: [Column; 6] = [
            ("model", Record::model_fullname),
            ("data", |r| r.dataset.clone()),
            ("attack", attack_name),
            ("radius", |r| r.threat.as_ref().map_or(String::new(), radius)),
            ("gradient", |r| r.gradient.clone().unwrap_or_default()),
            ("protocol", |r| if r.is_clean() { String::new() } else { r.protocol.clone() }),
        ];
        // An empty text says nothing, so it is no difference.
        let varies = |of: &fn(&Record) -> String| {
            let mut said = records.iter().map(of).filter(|text| !text.is_empty());
            said.next().is_some_and(|first| said.any(|text| text != first))
        };
        let shown: Vec<Column> =
            columns.into_iter().filter(|(name, of)| *name == "attack" || varies(of)).collect();
        let mut headings: Vec<&str> = shown.iter().map(|(name, _)| *name).collect();
        headings.extend(["accuracy", "lost", "pictures"]);
        let others = other_metrics(records);
        headings.extend(others.iter().copied());
        let mut table = Self::new("", &headings);
        let mut defences: Vec<&str> = Vec::new();
        for record in records {
            if !defences.contains(&record.defence.as_str()) {
                defences.push(&record.defence);
            }
        }
        let grouped = defences.iter().flat_map(|defence| {
            let name = if *defence == NO_DEFENCE { "no defence" } else { defence };
            let of_it = records.iter().filter(move |r| r.defence == *defence);
            std::iter::once(Err(name)).chain(of_it.map(Ok))
        });
        for line in grouped {
            let record = match line {
                Ok(record) => record,
                Err(_) if defences.len() < 2 => continue,
                Err(name) => {
                    table.group(name);
                    continue;
                }
            };
            let mut cells: Vec<Cell> = shown
                .iter()
                .map(|(_, of)| match of(record) {
                    text if text.is_empty() => Cell::Missing,
                    text => Cell::Text(text),
                })
                .collect();
            cells.push(Cell::Share(Share::of(record)));
            let loss = record.base.zip(record.share()).filter(|_| !record.is_clean());
            cells.push(loss.map_or(Cell::Missing, |(base, share)| Cell::Points(share - base)));
            cells.push(if record.n > 0 { Cell::Count(record.n as u64) } else { Cell::Missing });
            cells.extend(others.iter().map(|name| match record.metrics.get(name) {
                Some(value) => Cell::Share(Share::bare(value)),
                None => Cell::Missing,
            }));
            if record.attack == WORST_CASE {
                table.strong_row(cells);
            } else {
                table.row(cells);
            }
        }
        table.note = "Accuracy in percent of all pictures, with its interval. Lost: percentage \
                      points below the accuracy on the same pictures unchanged."
            .into();
        table
    }
}

/// The attack as a table names it. A number that cannot be trusted never stands there without
/// these words.
fn attack_name(record: &Record) -> String {
    match record.is_clean() {
        true => "none (clean)".into(),
        false if record.is_unreliable() => format!("{} (not reliable)", record.attack),
        false => record.attack.clone(),
    }
}

/// Metrics of tasks that have no accuracy, such as retrieval; a handful, by name.
fn other_metrics(records: &[Record]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for record in records.iter().filter(|r| r.share().is_none()) {
        let fractions =
            record.metrics.0.iter().filter(|(_, value)| {
                value.as_f64().is_some_and(|value| (0.0..=1.0).contains(&value))
            });
        for (name, _) in fractions {
            if names.len() < 5 && !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    names
}

/// The honest worst case, else any worst case, else the attacked record with the least left, else
/// the first. This is the number a report is about.
pub fn headline_record(records: &[Record]) -> Option<&Record> {
    let share = |record: &Record| record.share().unwrap_or(f64::INFINITY);
    let worst = |honest: bool| {
        records
            .iter()
            .filter(|r| r.attack == WORST_CASE && (!honest || r.protocol == HONEST))
            // Of several the first one: a plan names the radius it is about first.
            .rev()
            .max_by_key(|r| r.is_defended())
    };
    let counted = |r: &&Record| !r.is_clean() && !r.is_certified() && !studies::is_study(r);
    let attacked = records.iter().filter(counted);
    worst(true)
        .or_else(|| worst(false))
        .or_else(|| attacked.min_by(|a, b| share(a).total_cmp(&share(b))))
        .or_else(|| records.first())
}

fn headline(main: &Record, records: &[Record]) -> Headline {
    let share = Share::of(main);
    if share.value.is_none() {
        let said = other_metrics(std::slice::from_ref(main)).into_iter().filter_map(|name| {
            Some(format!("{name} {}", number::percent(main.metrics.get(name)?)))
        });
        let sentence = format!("{}: {}.", main.task, said.collect::<Vec<_>>().join(", "));
        return Headline { sentence, ..Headline::default() };
    }
    let counted = match share.counts {
        Some((k, n)) => format!(
            "{} of {} pictures ({}, 95% interval {})",
            number::count(k as u64),
            number::count(n as u64),
            share.percent(),
            share.range().replace('–', " to ")
        ),
        None => format!("{} of the pictures", share.percent()),
    };
    let survived = match main.attack.as_str() {
        WORST_CASE => "every attack".to_owned(),
        attack => format!("the attack {attack}"),
    };
    let at =
        main.threat.as_ref().map_or(String::new(), |threat| format!("At {}, ", radius(threat)));
    let sentence = if main.is_clean() {
        format!("{counted} are classified right.")
    } else {
        let doubt = if main.is_unreliable() { "; this number is not reliable" } else { "" };
        format!("{at}{counted} survive {survived}{doubt}.")
    };
    let clean = records.iter().find(|r| r.is_clean() && r.is_same_system(main));
    let published = records
        .iter()
        .find(|r| r.protocol == PUBLISHED && !r.is_clean() && r.is_same_system(main) && *r != main);
    let reliability = (!main.is_clean()).then(|| Reliability::of(&main.checks));
    let tone = tone(main, reliability);
    let mut strip = Vec::new();
    if !main.is_clean() {
        strip.extend(clean.map(|r| ("clean".to_owned(), Share::of(r), Tone::Neutral)));
        let name = "published protocol".to_owned();
        strip.extend(published.map(|r| (name, Share::of(r), Tone::Mixed)));
        let name = if main.attack == WORST_CASE { "worst case" } else { "under attack" };
        strip.push((name.to_owned(), share, tone));
    }
    let caption = match (main.is_clean(), main.attack == WORST_CASE) {
        (true, _) => "of the pictures are classified right",
        (_, true) => "of the pictures are still classified right after every attack",
        _ => "of the pictures are still classified right after the attack",
    };
    Headline {
        sentence,
        tone,
        figure: Some((share, caption.into())),
        reliability,
        strip,
        ..Headline::default()
    }
}

/// Good when four fifths of the clean accuracy are left, bad below two fifths; a number that
/// cannot be trusted is never good news.
fn tone(main: &Record, reliability: Option<Reliability>) -> Tone {
    let Some(share) = main.share().filter(|_| !main.is_clean()) else { return Tone::Neutral };
    let left = share / main.base.unwrap_or(1.0).max(1e-9);
    match reliability {
        _ if left < 0.4 => Tone::Bad,
        Some(Reliability::NotReliable) => Tone::Bad,
        Some(Reliability::Plausible) if left >= 0.8 => Tone::Good,
        _ => Tone::Mixed,
    }
}

fn explanation(main: &Record) -> Vec<String> {
    let mut texts = vec![
        "An attacker changed every picture a little, so little that people still see the same \
         thing, in order to make the model give a wrong answer. The number above is the share of \
         all pictures that the model still gets right."
            .to_owned(),
    ];
    if main.attack == WORST_CASE {
        texts.push(
            "Several attacks were tried on every picture. A picture counts as right only if it was \
             right at the start and stayed right under each of them."
                .into(),
        );
    }
    let bad = main.checks.iter().filter(|c| matches!(c.verdict, Verdict::Fail | Verdict::Suspect));
    let names: Vec<String> =
        bad.map(|check: &Check| format!("{} {}", check.id, check.name)).collect();
    if !names.is_empty() {
        texts.push(format!(
            "Some checks suggest that the attack was weaker than it should be ({}). The true number \
             may be lower.",
            names.join("; ")
        ));
    }
    texts
}

fn threat_model(threat: &Threat) -> ThreatModel {
    ThreatModel {
        goal: "any wrong answer".into(),
        knowledge: "everything: weights, classes, defence".into(),
        capability: format!("changes of at most {} ({})", radius(threat), threat.space),
        more: Vec::new(),
    }
}

fn comparisons(records: &[Record]) -> Vec<Block> {
    let published = records.iter().filter(|r| r.protocol == PUBLISHED && !r.is_clean());
    published
        .filter_map(|published| {
            let honest = records.iter().find(|r| {
                let same = r.is_same_system(published) && r.threat == published.threat;
                same && r.attack == WORST_CASE && r.protocol == HONEST
            })?;
            let mut comparison = Comparison::of(published, honest);
            let parts = records.iter().filter(|r| {
                let part = !r.is_clean() && r.attack != WORST_CASE && r.protocol == HONEST;
                part && r.is_same_system(honest) && r.threat == honest.threat
            });
            comparison.honest.facts.extend(parts.map(|r| match &r.gradient {
                Some(mode) => format!("{}, {mode} gradient: {}", r.attack, Share::of(r).percent()),
                None => format!("{}: {}", r.attack, Share::of(r).percent()),
            }));
            Some(Block::Comparison(comparison))
        })
        .collect()
}

/// The headline's checks, and those of the published protocol marked as such.
fn all_checks(main: &Record, records: &[Record]) -> Vec<Check> {
    let mut checks = main.checks.clone();
    let published =
        records.iter().filter(|r| r.protocol == PUBLISHED && *r != main && r.is_same_system(main));
    checks.extend(published.flat_map(|r| &r.checks).map(|check| Check {
        name: format!("{} (published protocol)", check.name),
        ..check.clone()
    }));
    checks
}

fn reproduce(main: &Record) -> Reproduce {
    let digests = &main.digests;
    let named = [
        ("model", &digests.model),
        ("data", &digests.data),
        ("head", &digests.head),
        ("plan", &digests.plan),
    ];
    let digests = named
        .into_iter()
        .filter_map(|(name, digest)| Some((name.to_owned(), digest.clone()?)))
        .collect();
    Reproduce { command: String::new(), seed: main.seed, version: main.version.clone(), digests }
}
