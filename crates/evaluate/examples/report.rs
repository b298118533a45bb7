//! Writes a report filled with invented numbers, to see how reports look:
//! `cargo run --example report -- report.html`.

use clipguard_evaluate::{
    Check, Digests, Record, Threat, Verdict,
    records::record::{PUBLISHED, WORST_CASE},
    report::{
        Axis, Bar, BarChart, Block, Gallery, LineChart, Pixels, Point, Prediction, Report, Section,
        Series, Share, Table, Triple,
    },
};

fn main() -> std::io::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "report.html".into());
    let records = records();
    println!("{}", Table::of_records(&records).text(100));
    std::fs::write(path, report(&records).render())
}

fn record(defence: &str, attack: &str, eps: Option<f64>, correct: usize) -> Record {
    let threat = |eps| Threat { norm: "linf".into(), eps: Some(eps), space: "pixels".into() };
    Record {
        dataset: "cifar10".into(),
        model: "ViT-B-32".into(),
        pretrained: "laion400m_e32".into(),
        defence: defence.into(),
        attack: attack.into(),
        threat: eps.map(threat),
        base: Some(if defence == "none" { 0.99 } else { 0.985 }),
        seed: Some(7),
        version: "0.1.0".into(),
        digests: Digests {
            model: Some("9f2c61d0a3b4".repeat(5)),
            data: Some("04c7f19e2d5b".repeat(5)),
            head: Some("7be0a1c93f42".repeat(5)),
            plan: Some("d2185c0e77aa".repeat(5)),
        },
        ..Record::default()
    }
    .counted(correct, 200)
}

fn records() -> Vec<Record> {
    let (defence, eps) = ("clipure-cos:steps=10,eta=30", Some(4.0 / 255.0));
    let mut published = record(defence, "apgd-ce + apgd-t", eps, 187);
    published.protocol = PUBLISHED.into();
    published.gradient = Some("detached".into());
    published.checks = masked();
    let with = |gradient: &str, record| Record { gradient: Some(gradient.into()), ..record };
    let mut worst = record(defence, WORST_CASE, eps, 5);
    worst.checks = checks();
    let mut records = vec![
        record("none", "none", None, 198),
        record("none", WORST_CASE, eps, 5),
        record(defence, "none", None, 197),
        published,
        with("exact", record(defence, "apgd-ce", eps, 9)),
        with("exact", record(defence, "apgd-t", eps, 7)),
        with("straight-through", record(defence, "apgd-ce", eps, 6)),
        record(defence, "transfer from the bare model", eps, 5),
        record(defence, "square:queries=5000", eps, 61),
        worst,
    ];
    for (steps, correct) in [(1.0, 131), (2.0, 52), (8.0, 0), (16.0, 0)] {
        records.push(record(defence, WORST_CASE, Some(steps / 255.0), correct));
    }
    records
}

fn check(id: &str, name: &str, value: Option<f64>, limit: Option<f64>, verdict: Verdict) -> Check {
    let (id, name) = (id.into(), name.into());
    Check { id, name, value, threshold: limit, verdict, ..Check::default() }
}

fn masked() -> Vec<Check> {
    let mut masked = check("O7", "zero gradients", Some(0.986), Some(0.05), Verdict::Fail);
    masked.explanation =
        "For 98.6% of the pictures the published gradient is exactly zero, so the \
                          attack did not know where to go."
            .into();
    masked.remedy =
        "Use the exact gradient or straight-through; both are in the worst case.".into();
    vec![masked]
}

fn checks() -> Vec<Check> {
    vec![
        check("O1", "one step does not beat many", Some(0.0), Some(0.02), Verdict::Ok),
        check("O3", "an unbounded attack succeeds", Some(0.0), Some(0.0), Verdict::Ok),
        check("O4", "accuracy falls with the radius", Some(0.0), Some(0.0), Verdict::Ok),
        check("O7", "gradients are not zero", Some(0.0), Some(0.05), Verdict::Ok),
        check("O11", "transfer does not beat the attack", Some(0.32), Some(0.05), Verdict::Ok),
        check("O14", "a planted solution is found", None, None, Verdict::NotRun),
    ]
}

fn report(records: &[Record]) -> Report {
    let mut report =
        Report::from_records("Does CLIPure-Cos protect a zero-shot classifier?", records);
    report.headline.chance = Some(0.1);
    report.headline.details = vec![
        "The defence is published with 93.5% under attack. That number comes from an attack that \
         could not see through the defence. Without any defence, 2.5% remain."
            .into(),
    ];
    report.explanation.push(
        "CLIPure-Cos moves a picture's embedding towards the embedding of an empty prompt before \
         it is compared with the classes. With ten steps of size 30 each step turns the embedding \
         by 88 degrees and the next one turns it back: what comes out is what went in."
            .into(),
    );
    report.sections.push(Section::new(
        "Was the attack strong enough?",
        vec![Block::Lines(loss()), Block::Lines(rate()), Block::Bars(classes())],
    ));
    report.sections.push(Section::new("What the attack changes", vec![Block::Gallery(gallery())]));
    report.reproduce.command =
        "clipguard --seed 7 evaluate experiments/clipure.toml --out runs/clipure".into();
    report
}

fn loss() -> LineChart {
    let curve = |name: &str, height: f64, speed: f64| Series {
        name: name.into(),
        points: (0..=20)
            .map(|i| {
                let (x, y) = (5.0 * f64::from(i), height * (1.0 - (-speed * f64::from(i)).exp()));
                Point { x, y: y + 0.1, interval: Some((y * 0.9 + 0.05, y * 1.1 + 0.2)) }
            })
            .collect(),
    };
    LineChart {
        title: "The attack finds its way only with a useful gradient".into(),
        note: "Mean loss over 200 pictures; bands from the 10th to the 90th percentile.".into(),
        x: Axis::linear("attack step"),
        y: Axis::linear("loss"),
        ..LineChart::default()
    }
    .with(curve("exact", 9.0, 0.35))
    .with(curve("straight-through", 8.4, 0.3))
    .with(curve("detached", 0.5, 0.1))
}

fn rate() -> LineChart {
    let points = (0..2000).map(|i| {
        let t = f64::from(i) / 2000.0;
        let warm = (t / 0.05).min(1.0);
        (f64::from(i), 1e-3 * warm * 0.5 * (1.0 + (std::f64::consts::PI * t).cos()))
    });
    LineChart {
        title: "Learning rate".into(),
        x: Axis::linear("step"),
        y: Axis::linear("learning rate"),
        ..LineChart::default()
    }
    .with(Series::new("learning rate", points).thinned(200))
}

fn classes() -> BarChart {
    let names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse"];
    let bars = names.iter().zip([9, 8, 3, 1, 2, 0, 5, 6]).map(|(name, right)| {
        let share = Share::counted(right, 20);
        Bar {
            label: (*name).into(),
            value: share.value,
            interval: share.interval,
            strong: right == 0,
        }
    });
    BarChart {
        title: "Which classes suffer most at 2/255".into(),
        label: "accuracy under attack".into(),
        percent: true,
        bars: bars.collect(),
        ..BarChart::default()
    }
}

/// A shape on a gradient, and the same with a pattern nobody sees.
fn pixels(seed: usize, noise: f32) -> Pixels {
    let size = 32;
    let mut planes = Vec::new();
    for channel in 0..3 {
        for y in 0..size {
            for x in 0..size {
                let (dx, dy) = (x as f32 - 15.5, y as f32 - 14.0 - seed as f32);
                let inside = dx * dx / (1.0 + seed as f32 * 0.3) + dy * dy < 70.0;
                let base = 0.35 + 0.4 * (y as f32 / 32.0) * [0.5, 0.8, 1.1][channel];
                let shape = [0.85, 0.55 - 0.1 * seed as f32, 0.2][channel];
                let sign = if (x * 7 + y * 13 + channel * 5 + x * y * (seed + 1)) % 5 < 2 {
                    1.0
                } else {
                    -1.0
                };
                planes.push((if inside { shape } else { base } + noise * sign).clamp(0.0, 1.0));
            }
        }
    }
    Pixels { width: size, height: size, planes }
}

fn gallery() -> Gallery {
    let says = |pairs: &[(&str, f64)]| -> Vec<Prediction> {
        let prediction = |(label, confidence): &(&str, f64)| Prediction {
            label: (*label).into(),
            confidence: *confidence,
        };
        pairs.iter().map(prediction).collect()
    };
    let triple = |seed: usize, key: &str, truth: &str, before, after| Triple {
        key: key.into(),
        truth: truth.into(),
        clean: pixels(seed, 0.0),
        adversarial: pixels(seed, 4.0 / 255.0),
        before: says(before),
        after: says(after),
    };
    Gallery {
        title: "The first four pictures of the fixed list".into(),
        note: "Chosen by their place in the list, not by their looks. Left: as it was. Middle: \
               after the attack. Right: the difference, enlarged ten times around grey."
            .into(),
        amplify: 10.0,
        triples: vec![
            triple(
                0,
                "test/0412.png",
                "ship",
                &[("ship", 0.93), ("airplane", 0.04), ("frog", 0.01)],
                &[("frog", 0.99), ("ship", 0.01)],
            ),
            triple(
                1,
                "test/1127.png",
                "cat",
                &[("cat", 0.71), ("dog", 0.22), ("deer", 0.03)],
                &[("dog", 0.97), ("cat", 0.02)],
            ),
            triple(
                2,
                "test/2208.png",
                "frog",
                &[("frog", 0.88), ("bird", 0.06)],
                &[("frog", 0.51), ("bird", 0.44)],
            ),
            triple(
                3,
                "<script>alert(1)</script>.png",
                "a \"hostile\" caption",
                &[("truck", 0.6), ("ship", 0.3)],
                &[("automobile", 0.9), ("truck", 0.1)],
            ),
        ],
    }
}
