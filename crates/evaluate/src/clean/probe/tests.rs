//! Probes on features made for the purpose, and on pictures.

use super::*;

/// Two classes a step apart in the first of four dimensions, the others noise.
fn separable(n: usize, noise: f32) -> Features {
    let mut found = Features::default();
    for i in 0..n {
        let key = format!("{i}");
        let mut stream = Stream::keyed(3, "features", &key);
        let label = i % 2;
        found.rows.push(label as f32 * 2.0 - 1.0 + noise * stream.normal());
        found.rows.extend((0..3).map(|_| stream.normal()));
        found.labels.push(label);
        found.keys.push(key);
    }
    found
}

#[test]
fn both_methods_find_what_is_linear() {
    let (train, test) = (separable(300, 0.1), separable(100, 0.1));
    for method in [Method::Logistic, Method::Reference] {
        let linear = method.fit(&train.problem(4, 2), method.strength().1.max(0.0), 0);
        let found = linear.measured(&test, 2).unwrap();
        assert!(found.acc1.unwrap() > 0.98, "{method:?}: {:?}", found.acc1);
        let pull = linear.weights[4] - linear.weights[0];
        assert!((1..4).all(|i| (linear.weights[4 + i] - linear.weights[i]).abs() < 0.3 * pull));
    }
}

/// Newton's method in numpy on the same arrays (`bench/peers/logistic.py`) ends at these numbers.
#[test]
fn the_logistic_fit_equals_that_of_another_method() {
    let rows = crate::golden::floats32("cls_logits");
    let labels = crate::golden::indices("cls_target");
    let problem = Problem { rows: &rows, labels: &labels, dim: 10, classes: 10 };
    let linear = logistic::fit(&problem, 0.316, 1000);
    let squares: f64 = linear.weights.iter().map(|w| f64::from(*w).powi(2)).sum();
    assert!((squares.sqrt() - 2.131_899_880).abs() < 1e-4, "{}", squares.sqrt());
    let mut loss = 0.0;
    for (row, &label) in rows.chunks_exact(10).zip(&labels) {
        let scores: Vec<f64> = linear.scores(row).into_iter().map(f64::from).collect();
        loss += scores.iter().map(|s| s.exp()).sum::<f64>().ln() - scores[label];
    }
    let n = labels.len() as f64;
    let value = loss / n + squares / (2.0 * 0.316 * n);
    assert!((value - 0.189_112_516_967).abs() < 1e-6, "{value}");
}

#[test]
fn the_reference_draws_from_its_seed_and_decay_shrinks_it() {
    let train = separable(200, 0.8);
    let fit = |decay, seed| reference::fit(&train.problem(4, 2), decay, seed);
    assert_eq!(fit(0.0, 1), fit(0.0, 1));
    assert_ne!(fit(0.0, 1), fit(0.0, 2));
    let size = |linear: &Linear| linear.weights.iter().map(|w| w * w).sum::<f32>();
    assert!(size(&fit(10.0, 1)) < 0.2 * size(&fit(0.0, 1)));
}

#[test]
fn the_search_goes_from_coarse_to_fine_and_keeps_the_first_of_equals() {
    let mut asked = Vec::new();
    let best = peak(|place| {
        asked.push(place);
        Ok(-(place as f64 - 53.0).abs())
    });
    assert_eq!(best.unwrap(), 53);
    assert_eq!(asked[..7], [0, 16, 32, 48, 64, 80, 96]);
    assert_eq!(asked[7..], [40, 56, 52, 60, 50, 54, 51, 53]);
    assert_eq!(peak(|_| Ok(0.5)).unwrap(), 0);
    assert_eq!(peak(|place| Ok(place as f64)).unwrap(), 96);
    assert_eq!(grid(0, (-6.0, 2.0)), 1e-6);
    assert!((grid(96, (-6.0, 2.0)) - 100.0).abs() < 1e-9);
    assert!((grid(72, (-6.0, 2.0)) - 1.0).abs() < 1e-12);
}

#[test]
fn few_shots_do_not_depend_on_the_order_and_need_enough_pictures() {
    let all = separable(40, 0.5);
    let classes = ["a", "b"].map(str::to_owned);
    let few = all.few(5, 4, &classes, 7).unwrap();
    assert_eq!(few.labels, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
    let mut reversed = Features::default();
    for i in (0..40).rev() {
        reversed.rows.extend(&all.rows[4 * i..4 * i + 4]);
        reversed.labels.push(all.labels[i]);
        reversed.keys.push(all.keys[i].clone());
    }
    let again = reversed.few(5, 4, &classes, 7).unwrap();
    assert_eq!((&again.rows, &again.keys), (&few.rows, &few.keys));
    assert_ne!(all.few(5, 4, &classes, 8).unwrap().keys, few.keys);
    let refused = all.few(21, 4, &classes, 7).unwrap_err();
    assert!(refused.contains("class `a` has only 20 pictures"), "{refused}");
}

#[test]
fn a_probe_of_pictures_beats_chance_and_is_the_same_again() {
    let checkpoint = Checkpoint::embedded().unwrap();
    let plan = Plan::default();
    let probe = Probe {
        train: "scenes:120:side=32,part=instyle".to_owned(),
        test: "scenes:60:side=32,part=instyle".to_owned(),
        validation: "scenes:60:side=32,part=instyle".to_owned(),
        shots: 500,
        ..Probe::default()
    };
    let record = |probe: &Probe, batch, threads| {
        let plan = Plan { batch, ..plan.clone() };
        measure(probe, &checkpoint, &plan, &Device::flex(), threads)
    };
    let refused = record(&probe, 50, 1).unwrap_err().to_string();
    assert!(refused.contains("shots = 500: class"), "{refused}");
    let probe = Probe { shots: 0, validation: String::new(), ..probe };
    let found = record(&probe, 50, 1).unwrap();
    assert_eq!(found.task, "linear_probe_logistic");
    assert_eq!(found.metrics.get("c"), Some(0.316));
    assert!(found.metrics.get("lp_acc1").unwrap() > 0.2, "{:?}", found.metrics);
    let again = record(&probe, 7, 2).unwrap();
    assert_eq!(again.correct, found.correct);
}
