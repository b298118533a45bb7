//! Tests of whole reports.

use super::*;
use crate::{
    records::record::{Check, PUBLISHED, Record, Threat, Verdict, WORST_CASE},
    records::record_file::write_records,
};

const HOSTILE: &str = "\"><script src='http://evil.example/x.js'></script>&\u{202e}\u{0}";

fn record(attack: &str, eps: f64, correct: usize) -> Record {
    let threat = Threat { norm: "linf".into(), eps: Some(eps / 255.0), space: "pixels".into() };
    Record {
        dataset: "cifar10".into(),
        model: "ViT-B-32".into(),
        defence: "clipure-cos".into(),
        attack: attack.into(),
        threat: (attack != "none").then_some(threat),
        base: Some(0.985),
        seed: Some(3),
        ..Record::default()
    }
    .counted(correct, 200)
}

fn records() -> Vec<Record> {
    let check = |id: &str, verdict| Check { id: id.into(), verdict, ..Check::default() };
    let published = Record { protocol: PUBLISHED.into(), ..record("apgd-ce", 4.0, 187) };
    let published = Record { checks: vec![check("O7", Verdict::Fail)], ..published };
    let worst = Record { checks: vec![check("O3", Verdict::Ok)], ..record(WORST_CASE, 4.0, 5) };
    let clean = record("none", 0.0, 197);
    vec![clean, published, worst, record(WORST_CASE, 2.0, 60), record(WORST_CASE, 8.0, 0)]
}

/// A report in which every text is hostile and every number odd.
fn hostile() -> Report {
    let bad = || HOSTILE.to_owned();
    let check = Check {
        id: bad(),
        name: bad(),
        value: Some(f64::NAN),
        threshold: Some(f64::INFINITY),
        verdict: Verdict::Fail,
        explanation: bad(),
        remedy: bad(),
        ..Check::default()
    };
    let mut table = Table::new(bad(), &[HOSTILE, HOSTILE]);
    table.group(bad());
    table.row(vec![Cell::Text(bad()), Cell::Code(bad())]);
    table.strong_row(vec![Cell::Share(Share::bare(f64::NAN)), Cell::Number(f64::NAN, 2)]);
    table.row(vec![]);
    table.note = bad();
    table.columns[0].hint = bad();
    let odd = [(0.0, f64::NAN), (f64::INFINITY, 1.0), (1.0, 2.0), (2.0, f64::NEG_INFINITY)];
    let axis = Axis { ticks: vec![(1.0, bad())], ..Axis::log(bad()) };
    let lines = LineChart {
        title: bad(),
        note: bad(),
        x: axis.clone(),
        y: axis,
        series: vec![Series::new(bad(), odd), Series::new(bad(), [])],
        rules: vec![(f64::NAN, bad()), (1.5, bad())],
    };
    let bar = |value, interval| Bar { label: bad(), value, interval, strong: true };
    let bars = vec![bar(Some(f64::NAN), Some((f64::NAN, 1.0))), bar(None, None)];
    let bars = BarChart { title: bad(), note: bad(), label: bad(), percent: false, bars };
    let said = vec![Prediction { label: bad(), confidence: f64::NAN }];
    let triple =
        Triple { key: bad(), truth: bad(), before: said.clone(), after: said, ..Triple::default() };
    let gallery = Gallery { title: bad(), note: bad(), amplify: f32::NAN, triples: vec![triple] };
    let side = Side { label: bad(), facts: vec![bad()], ..Side::default() };
    let comparison = Comparison {
        title: bad(),
        published: side.clone(),
        honest: side,
        conclusion: bad(),
        tone: Tone::Good,
    };
    let blocks = vec![
        Block::Text(bad()),
        Block::Table(table),
        Block::Lines(lines),
        Block::Bars(bars),
        Block::Gallery(gallery),
        Block::Comparison(comparison),
    ];
    Report {
        title: bad(),
        kicker: bad(),
        headline: Headline {
            sentence: bad(),
            figure: Some((Share::default(), bad())),
            strip: vec![(bad(), Share::bare(2.0), Tone::Bad)],
            chance: Some(f64::NAN),
            details: vec![bad()],
            ..Headline::default()
        },
        explanation: vec![bad()],
        threat: Some(ThreatModel {
            goal: bad(),
            more: vec![(bad(), bad())],
            ..ThreatModel::default()
        }),
        sections: vec![Section::new(bad(), blocks)],
        checks: vec![check],
        limits: vec![bad()],
        reproduce: Reproduce {
            command: bad(),
            digests: vec![(bad(), bad())],
            ..Reproduce::default()
        },
    }
}

#[test]
fn hostile_texts_stay_texts() {
    let page = hostile().render();
    assert!(!page.contains("<script") && !page.contains('\u{202e}') && !page.contains('\0'));
    assert!(page.contains("&lt;script src=&#39;http:"));
    let page = page.split("</style>").nth(1).unwrap();
    // Between two tags and inside attributes alike, a quote or bracket of a stranger is escaped:
    // what is left are our own, and those come in pairs.
    assert_eq!(page.matches('<').count(), page.matches('>').count());
    assert_eq!(page.matches('"').count() % 2, 0);
    assert!(!page.contains("NaN") && !page.contains("inf"), "odd numbers show");
}

#[test]
fn nothing_is_loaded() {
    let page = Report::from_records("x", &records()).render();
    for load in ["http:", "https:", "src=\"/", "url(", "@import", "<script", "<link", "<iframe"] {
        assert!(!page.contains(load), "{load}");
    }
    let hostile = hostile().render();
    assert!(!hostile.contains("src=\"http") && !hostile.contains("href="));
}

#[test]
fn the_same_value_gives_the_same_bytes() {
    let make = || Report::from_records("x", &records()).render();
    assert_eq!(make(), make());
    assert!(Report::default().render().contains("</html>"));
}

#[test]
fn the_story_of_a_masked_defence() {
    let report = Report::from_records("title", &records());
    let sentence = &report.headline.sentence;
    assert_eq!(
        sentence,
        "At linf\u{a0}4/255, 5 of 200 pictures (2.5%, 95% interval 1.1 to 5.7) survive every attack."
    );
    assert_eq!(report.headline.tone, Tone::Bad);
    assert_eq!(report.headline.strip.len(), 3);
    let page = report.render();
    assert!(page.contains("91.0 points of robustness disappear: gradient masking."));
    assert!(page.contains("Not reliable") && page.contains("passed its plausibility checks"));
    assert!(page.contains("Other radii") && page.contains("8/255"));
    assert!(page.contains("role=\"img\" aria-label="));
}

#[test]
fn clean_records_and_none_at_all() {
    let clean = Report::from_records("t", &records()[..1]);
    assert_eq!(
        clean.headline.sentence,
        "197 of 200 pictures (98.5%, 95% interval 95.7 to 99.5) are classified right."
    );
    assert!(clean.limits.is_empty() && clean.threat.is_none());
    assert_eq!(Report::from_records("t", &[]).sections, []);
}

#[test]
fn tasks_without_an_accuracy() {
    let mut retrieval = Record { task: "zeroshot_retrieval".into(), ..Record::default() };
    retrieval.metrics.set("image_retrieval_recall@5", 0.85);
    retrieval.metrics.set("text_retrieval_recall@5", None);
    let report = Report::from_records("t", &[retrieval]);
    let sentence = &report.headline.sentence;
    assert_eq!(sentence, "zeroshot_retrieval: image_retrieval_recall@5 85.0%.");
    assert!(report.render().contains("<th scope=\"col\" class=\"sh\">image_retrieval_recall@5"));
}

#[test]
fn a_run_folder() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Report::from_run(folder.path()).is_err());
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let mut log = String::new();
    for step in 0..1000 {
        log += &format!(
            "{{\"step\":{step},\"loss\":{},\"lr\":0.001,\"logit_scale\":14.3",
            1000 - step
        );
        log += if step % 100 == 0 { ",\"eval\":{\"acc1\":0.5,\"asr\":null}}\n" } else { "}\n" };
    }
    write("metrics.jsonl", &log);
    write(
        "summary.json",
        r#"{"title":"A training","verdict":"It learned.","command":"clipguard train","seed":5,
            "digests":{"model":"abc","data":null},"other":[1]}"#,
    );
    let report = Report::from_run(folder.path()).unwrap();
    assert_eq!((report.title.as_str(), report.reproduce.seed), ("A training", Some(5)));
    let Block::Lines(chart) = &report.sections[0].blocks[2] else { panic!("no chart") };
    assert_eq!(chart.title, "Loss");
    assert!(chart.series[0].points.len() <= 300);
    assert_eq!(report.sections[0].blocks.len(), 5);
    write_records(&folder.path().join("records.jsonl"), &records()).unwrap();
    let report = Report::from_run(folder.path()).unwrap();
    assert_eq!(report.headline.sentence, "It learned.");
    assert!(report.sections.len() >= 3);
    write("summary.json", "{");
    let message = Report::from_run(folder.path()).unwrap_err().to_string();
    assert!(message.contains("summary.json"), "{message}");
}

#[test]
fn thinning_keeps_the_range() {
    let series = Series::new("s", (0..1000).map(|i| (f64::from(i), f64::from(i % 10))));
    let thin = series.thinned(100);
    assert_eq!(thin.points.len(), 100);
    assert_eq!(thin.points[3].interval, Some((0.0, 9.0)));
    assert_eq!(thin.points[3].y, 4.5);
    assert_eq!(series.thinned(1000), series);
}
