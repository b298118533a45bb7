//! All systems at a glance, a row each; and each beside what it has to beat.

use super::{Block, Cell, Section, Share, Table, number, radius::radius};
use crate::{
    records::against::{Against, KEY},
    records::record::{HONEST, NO_DEFENCE, PUBLISHED, Record, Threat, WORST_CASE},
};

/// The section, where there are two systems or more; a system is a model with a defence.
pub(super) fn section(records: &[Record]) -> Option<Section> {
    let tables = Table::overviews(records);
    let blocks: Vec<Block> =
        tables.into_iter().chain(Table::of_pairs(records)).map(Block::Table).collect();
    (!blocks.is_empty()).then(|| Section::new("All systems", blocks))
}

/// The records of worst cases and clean pictures, by system, in the order of their first record.
fn systems<'a>(records: &[&'a Record]) -> Vec<Vec<&'a Record>> {
    let mut systems: Vec<Vec<&Record>> = Vec::new();
    for record in records {
        match systems.iter_mut().find(|system| system[0].is_same_system(record)) {
            Some(system) => system.push(record),
            None => systems.push(vec![record]),
        }
    }
    systems
}

fn defence(name: &str) -> Cell {
    Cell::text(if name == NO_DEFENCE { "no defence" } else { name })
}

/// Each different value once, in order.
fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    all.fold(Vec::new(), |mut seen, one| {
        if !seen.contains(&one) {
            seen.push(one);
        }
        seen
    })
}

impl Table {
    /// Clean accuracy, published protocol and worst case of every system, a table for each data
    /// set that two systems or more were attacked on.
    pub fn overviews(records: &[Record]) -> Vec<Self> {
        let attacked = records.iter().filter(|r| r.attack == WORST_CASE);
        let data = distinct(attacked.map(|r| r.dataset.as_str()));
        let several = data.len() > 1;
        let tables = data.into_iter().filter_map(|data| {
            let own: Vec<&Record> = records.iter().filter(|r| r.dataset == data).collect();
            let mut table = overview(&own)?;
            table.title = if several { data.to_owned() } else { String::new() };
            Some(table)
        });
        tables.collect()
    }

    /// Every system beside the plan's baselines, picture by picture; `None` without a baseline.
    pub fn of_pairs(records: &[Record]) -> Option<Self> {
        let several = |of: fn(&Record) -> &str| {
            distinct(records.iter().filter(|r| r.extra.contains_key(KEY)).map(of)).len() > 1
        };
        let (models, data) = (several(|r| &r.model), several(|r| &r.dataset));
        let mut headings = Vec::new();
        headings.extend(models.then_some("model"));
        headings.push("defence");
        headings.extend(data.then_some("data"));
        headings.extend([
            "radius",
            "difference",
            "95% interval",
            "gained",
            "lost",
            "p",
            "corrected",
        ]);
        let mut table = Self::new("Beside the baseline, picture by picture", &headings);
        let found: Vec<(&Record, Against)> = records
            .iter()
            .flat_map(|record| {
                let list = record.extra.get(KEY).cloned();
                let list = list.and_then(|list| serde_json::from_value::<Vec<Against>>(list).ok());
                list.unwrap_or_default().into_iter().map(move |one| (record, one))
            })
            .collect();
        for (model, name) in distinct(found.iter().map(|(_, one)| (&one.model, &one.defence))) {
            table.group(match name.as_str() {
                NO_DEFENCE => format!("beside {model} without a defence"),
                name => format!("beside {model} with {name}"),
            });
            let rows = found.iter().filter(|(_, one)| (&one.model, &one.defence) == (model, name));
            for (record, one) in rows {
                let mut cells = Vec::new();
                cells.extend(models.then(|| Cell::text(&record.model)));
                cells.push(defence(&record.defence));
                cells.extend(data.then(|| Cell::text(&record.dataset)));
                let at = record.threat.as_ref().map_or(String::new(), radius);
                let (low, high) = one.interval;
                let interval = format!("{} to {}", number::points(low), number::points(high));
                cells.extend([
                    Cell::Text(at),
                    Cell::Points(one.difference),
                    Cell::Text(interval),
                    Cell::Count(one.only_here as u64),
                    Cell::Count(one.only_there as u64),
                    Cell::Text(probability(one.p)),
                    Cell::Text(probability(one.holm)),
                ]);
                match one.holm < 0.05 && one.difference > 0.0 {
                    true => table.strong_row(cells),
                    false => table.row(cells),
                };
            }
        }
        table.note = "Difference of the worst cases in percentage points. Gained: pictures that only \
                      the row has right; lost: those that only the baseline has right. p: McNemar's \
                      exact test; corrected: after Holm, for all rows of the same data and radius \
                      beside the same baseline. Rows in bold are better at 5 % after correction."
            .into();
        (!found.is_empty()).then_some(table)
    }
}

/// A p-value as it is read.
fn probability(p: f64) -> String {
    if p < 0.0005 { "< 0.001".into() } else { number::number(p, 3) }
}

fn overview(records: &[&Record]) -> Option<Table> {
    let systems = systems(records);
    let worst = |r: &&&Record| r.attack == WORST_CASE && r.protocol == HONEST;
    if systems.iter().filter(|system| system.iter().any(|r| worst(&r))).count() < 2 {
        return None;
    }
    let threats: Vec<&Threat> =
        distinct(records.iter().filter(worst).filter_map(|r| r.threat.as_ref()));
    let published = |r: &&&Record| r.protocol == PUBLISHED && !r.is_clean();
    let shown = |threat: &Threat| {
        records.iter().filter(published).any(|r| r.threat.as_ref() == Some(threat))
    };
    let models = distinct(records.iter().map(|r| &r.model)).len() > 1;
    let mut headings: Vec<String> = Vec::new();
    headings.extend(models.then(|| "model".to_owned()));
    headings.extend(["defence".to_owned(), "clean".to_owned()]);
    for threat in &threats {
        headings.extend(shown(threat).then(|| format!("published, {}", radius(threat))));
        headings.push(format!("worst case, {}", radius(threat)));
    }
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut table = Table::new("", &headings);
    let best = |threat: &Threat| {
        let own = records.iter().filter(worst).filter(|r| r.threat.as_ref() == Some(threat));
        own.map(|r| r.correct).max().unwrap_or(0)
    };
    let first = threats.first().map(|threat| (*threat, best(threat)));
    for system in &systems {
        if !system.iter().any(|r| worst(&r)) {
            continue;
        }
        let cell = |record: Option<&&Record>| match record {
            Some(record) => Cell::Share(Share::of(record)),
            None => Cell::Missing,
        };
        let mut cells = Vec::new();
        cells.extend(models.then(|| Cell::text(&system[0].model)));
        cells.push(defence(&system[0].defence));
        cells.push(cell(system.iter().find(|r| r.is_clean())));
        let mut is_best = false;
        for threat in &threats {
            let here = |r: &&&Record| r.threat.as_ref() == Some(*threat);
            if shown(threat) {
                let own = system.iter().filter(published).filter(here);
                cells.push(cell(own.min_by_key(|r| r.correct)));
            }
            let own = system.iter().filter(worst).find(here);
            is_best |= own.is_some_and(|r| Some((*threat, r.correct)) == first && r.correct > 0);
            cells.push(cell(own));
        }
        match is_best {
            true => table.strong_row(cells),
            false => table.row(cells),
        };
    }
    table.note =
        "Accuracy in percent of all pictures, with its interval. Worst case: right at the \
                  start and after every attack that was tried, those that know the defence among \
                  them. In bold: the most that is left at the radius named first."
            .into();
    Some(table)
}
