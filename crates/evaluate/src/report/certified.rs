//! What is proved: certified accuracy over the radius, as a curve and a table.

use super::{
    Axis, Block, Cell, LineChart, Point, Section, Series, Share, Table, number, radius::radius,
};
use crate::{
    records::record::{NO_DEFENCE, Record},
    studies::certified::Certified,
};

/// The section of all certified records; `None` without any.
pub(super) fn section(records: &[Record]) -> Option<Section> {
    let proved: Vec<&Record> = records.iter().filter(|r| r.is_certified()).collect();
    let curves: Vec<(&Record, Certified)> =
        proved.iter().filter_map(|r| Some((*r, whole(r)?))).collect();
    if proved.is_empty() {
        return None;
    }
    let mut blocks = vec![Block::Text(
        "A smoothed classifier answers what the model answers most often when noise is added to the \
         picture. No change within the radius, by whatever attack, changes its answer: this is \
         proved, not tried. The price is the accuracy at radius 0."
            .to_owned(),
    )];
    blocks.extend(chart(&curves).map(Block::Lines));
    blocks.push(Block::Table(table(&proved)));
    blocks.push(Block::Table(summary(&curves)));
    Some(Section::new("What is proved", blocks))
}

fn whole(record: &Record) -> Option<Certified> {
    serde_json::from_value(record.extra.get("certified")?.clone()).ok()
}

/// Data, defence and noise, as far as a reader needs them.
fn name(record: &Record, certified: &Certified) -> String {
    let noise = format!("noise {}", certified.sigma);
    match record.defence.as_str() {
        NO_DEFENCE | "" => format!("{}, {noise}", record.dataset),
        defence => format!("{}, {defence}, {noise}", record.dataset),
    }
}

fn chart(curves: &[(&Record, Certified)]) -> Option<LineChart> {
    let series = |(record, certified): &(&Record, Certified)| {
        let share = |at: &crate::At| Point {
            x: at.radius,
            y: at.correct as f64 / record.n.max(1) as f64,
            interval: Some((at.low, at.high)),
        };
        let points = certified.curve.iter().map(share).collect();
        Series { name: name(record, certified), points }
    };
    // More cannot be told apart; the table has them all.
    let series: Vec<Series> = curves.iter().take(6).map(series).collect();
    (!series.is_empty()).then(|| LineChart {
        title: "Share of pictures that nothing within the radius can change".into(),
        note: "Bands: 95% Clopper-Pearson intervals of the share. A curve ends at the largest \
               radius that so many votes can prove."
            .into(),
        x: Axis::linear("L2 radius"),
        y: Axis::percent("certified accuracy"),
        series,
        ..LineChart::default()
    })
}

fn table(proved: &[&Record]) -> Table {
    let mut table =
        Table::new("", &["data", "defence", "votes", "radius", "certified accuracy", "pictures"]);
    for record in proved {
        table.row(vec![
            Cell::Text(record.dataset.clone()),
            Cell::Text(record.defence.clone()),
            Cell::Text(record.attack.clone()),
            Cell::Text(record.threat.as_ref().map_or(String::new(), radius)),
            Cell::Share(Share::of(record)),
            Cell::Count(record.n as u64),
        ]);
    }
    table.note = "Share of all pictures that are answered right and certified at least to the \
                  radius; a picture without an answer counts as wrong."
        .into();
    table
}

fn summary(curves: &[(&Record, Certified)]) -> Table {
    let headings = ["certified", "without an answer", "mean radius", "largest possible", "alpha"];
    let mut table = Table::new("", &headings);
    for (record, certified) in curves {
        let short = |value: f64| Cell::Text(number::number(value, 4));
        table.row(vec![
            Cell::Text(name(record, certified)),
            Cell::Share(Share::counted(certified.abstained, record.n)),
            short(certified.average_radius),
            short(certified.largest_radius),
            short(certified.alpha),
        ]);
    }
    table.note = "Mean radius over all pictures, 0 for wrong ones and those without an answer. \
                  Each certificate is wrong with probability alpha at most."
        .into();
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        At,
        records::record::{CERTIFIED, Threat},
    };

    #[test]
    fn what_is_proved_has_a_section_of_its_own_and_is_never_the_headline() {
        let proved = |radius: f64, correct: usize| Record {
            dataset: "scenes".into(),
            attack: "smoothing:sigma=0.1,n0=100,n=1000,alpha=0.001".into(),
            protocol: CERTIFIED.into(),
            threat: Some(Threat { norm: "l2".into(), eps: Some(radius), space: "pixels".into() }),
            ..Record::default().counted(correct, 20)
        };
        let mut first = proved(0.0, 12);
        let curve = vec![
            At { radius: 0.0, correct: 12, low: 0.36, high: 0.81 },
            At { radius: 0.2, correct: 3, low: 0.03, high: 0.38 },
        ];
        let whole = Certified { sigma: 0.1, alpha: 0.001, curve, ..Certified::default() };
        first.extra.insert("certified".into(), serde_json::json!(whole));
        let clean = Record { dataset: "scenes".into(), ..Record::default() }.counted(15, 20);
        let records = [clean, first, proved(0.1, 0)];
        let report = crate::Report::from_records("r", &records);
        assert!(report.headline.sentence.starts_with("15 of 20"), "{}", report.headline.sentence);
        let html = report.render();
        for said in ["What is proved", "scenes, noise 0.1", "l2\u{a0}0.1", "certified accuracy"] {
            assert!(html.contains(said), "{said}");
        }
        assert_eq!(section(&records[..1]), None);
    }
}
