//! Carlini-Wagner, DeepFool and HopSkipJump against runs of foolbox and torchattacks.

use std::sync::Mutex;

use burn::tensor::{DType, Tensor};
use clipguard_attack::{
    Attack, Attacked, Batch, Cw, DeepFool, HopSkipJump, Norm,
    deepfool::Variant,
    hopskipjump::{OUTWARD, Probes},
};
use clipguard_model::victim::{Query, Victim};

use crate::fab::Spy;
use crate::networks::{Cnn, Golden, SplitMix, distance, keys, models, numbers};

/// A radius that everything is within: the programs return the smallest error of any size.
const WHOLE: f32 = 256.0;

/// The first eight pictures, which are all classified correctly.
const COUNT: usize = 8;

fn pixels() -> Tensor<4> {
    models().tensor::<4>("x1", DType::F32).narrow(0, 0, COUNT)
}

/// Runs on `pixels`; the result and the points at which the network was differentiated.
fn run(pixels: Tensor<4>, attack: impl FnOnce(&Spy, &Batch<'_>) -> Attacked) -> (Attacked, Points) {
    let labels = models().integers("y");
    let keys = keys(COUNT);
    let batch = Batch { pixels, labels: &labels[..COUNT], keys: &keys };
    let spy = Spy(Cnn::load(), Mutex::new(Vec::new()));
    let found = attack(&spy, &batch);
    (found, spy.1.into_inner().unwrap())
}

type Points = Vec<Tensor<4>>;

fn sizes_of(found: &Attacked) -> Vec<f64> {
    found.norm.iter().copied().map(f64::from).collect()
}

fn nearest_of(found: &Attacked) -> Vec<f64> {
    found.nearest.iter().map(|size| size.unwrap().into()).collect()
}

#[test]
fn carlini_and_wagner_with_a_search_for_the_weight() {
    let file = Golden::open("attacks", "minimal");
    let cw = Cw { eps: WHOLE, searches: 5, steps: 60, lr: 0.05, c: 0.1, ..Cw::default() };
    // The program looks at the sum over the batch.
    let joint = |now: &[f32], before: &[f32]| {
        let [now, before] = [now, before].map(|losses| losses.iter().sum::<f32>());
        vec![now > 0.9999 * before; COUNT]
    };
    let (found, _) = run(pixels(), |victim, batch| cw.run_with(&joint, victim, batch, 0));
    assert!(found.success.iter().all(|success| *success));
    let off = distance(&sizes_of(&found), &file.flat("cw_foolbox.norm"));
    assert!(off < 5e-5, "norms differ by {off:e}");
    let off = distance(&numbers(found.pixels.clone()), &file.flat("cw_foolbox.adv"));
    assert!(off < 5e-4, "pictures differ by {off:e}");
    assert!(distance(&nearest_of(&found), &file.flat("cw_foolbox.norm")) < 5e-5);
    // By itself every row has its own end; without any the errors are as small and need more steps.
    // With looks only six steps apart a row may end where its loss happens to rise.
    let (own, own_points) = run(pixels(), |victim, batch| cw.run(victim, batch, 0));
    let long = Cw { abort_early: false, ..cw };
    let (long, long_points) = run(pixels(), |victim, batch| long.run(victim, batch, 0));
    assert!(own.success.iter().all(|success| *success));
    let steps = |points: &Points| points.iter().map(|x| x.dims()[0]).sum::<usize>();
    assert!(steps(&own_points) < steps(&long_points));
    assert_eq!(steps(&long_points), 5 * 60 * COUNT);
    let theirs = file.flat("cw_foolbox.norm");
    let (own, long) = (sizes_of(&own), sizes_of(&long));
    let worse = |sizes: &[f64]| sizes.iter().zip(&theirs).map(|(a, b)| a / b).fold(0.0, f64::max);
    assert!(worse(&long) < 1.02, "{long:?} {theirs:?}");
    assert!(worse(&own) < 1.5, "{own:?} {theirs:?}");
}

#[test]
fn carlini_and_wagner_with_one_weight() {
    let file = Golden::open("attacks", "minimal");
    let cw = Cw { eps: WHOLE, searches: 1, steps: 50, lr: 0.01, c: 1.0, ..Cw::default() };
    // The recording ran to its end, and on pictures drawn a little into the box.
    let cw = Cw { abort_early: false, ..cw };
    let inside = pixels().clamp(1e-6, 1.0 - 1e-6);
    let (found, points) = run(inside, |victim, batch| cw.run(victim, batch, 0));
    let first = points.iter().flat_map(|x| numbers(x.clone().narrow(0, 0, 1)));
    let iterates = file.flat("cw_torchattacks.iterates_first1");
    assert_eq!(points.len(), 50);
    let off = distance(&first.collect::<Vec<f64>>(), &iterates);
    assert!(off < 1e-4, "iterates differ by {off:e}");
    // That program takes maxima over products with a 0/1 mask, so it reads negative logits as 0:
    // where all wrong classes have one it goes another way at first.
    let query = Query { pixels: pixels(), keys: &keys(COUNT), draw: 0 };
    let clean = numbers(Cnn::load().logits(query));
    let labels = models().integers("y");
    let others = |i: usize| {
        let row = clean[10 * i..10 * i + 10].iter().enumerate();
        row.filter(|(class, _)| *class != labels[i]).map(|(_, z)| *z).fold(f64::MIN, f64::max)
    };
    let misread: Vec<usize> = (0..COUNT).filter(|&i| others(i) < 0.0).collect();
    let wanted = file.flat("cw_torchattacks.l2");
    let mut found_by_both = 0;
    for (i, size) in sizes_of(&found).into_iter().enumerate() {
        let tolerance = if misread.contains(&i) { 2e-2 } else { 1e-4 };
        assert!((size - wanted[i]).abs() < tolerance, "picture {i}: {size} {}", wanted[i]);
        found_by_both += usize::from(size > 1e-3 && !misread.contains(&i));
    }
    assert!(misread.contains(&5) && found_by_both == 2, "{misread:?} {found_by_both}");
}

#[test]
fn deepfool_in_both_variants_and_norms() {
    let file = Golden::open("attacks", "minimal");
    for (name, size, norm, variant) in [
        ("deepfool_torchattacks", "l2", Norm::L2, Variant::Move),
        ("deepfool_l2_foolbox", "norm", Norm::L2, Variant::Sum),
        ("deepfool_linf_foolbox", "norm", Norm::Linf, Variant::Sum),
    ] {
        let fool = DeepFool { norm, eps: WHOLE, variant, ..DeepFool::default() };
        let (found, points) = run(pixels(), |victim, batch| fool.run(victim, batch, 0));
        let off = distance(&numbers(found.pixels.clone()), &file.flat(&format!("{name}.adv")));
        assert!(off < 1e-4, "{name}: pictures differ by {off:e}");
        let off = distance(&sizes_of(&found), &file.flat(&format!("{name}.{size}")));
        assert!(off < 1e-4, "{name}: norms differ by {off:e}");
        // Nine boundaries a step, and every gradient is counted.
        assert_eq!(points.len() % 9, 0);
        assert_eq!(found.backwards, points.iter().map(|x| x.dims()[0]).sum::<usize>());
    }
}

/// Numbers of a picture.
const WIDTH: usize = 256;

/// Pictures of the recorded runs of HopSkipJump, and the steps and first probes of each.
const WALKS: usize = 4;
const STEPS: usize = 6;
const PROBES: usize = 20;

/// The start and the directions of one picture of a recorded run.
struct Recorded {
    start: Vec<f32>,
    directions: Vec<Vec<Vec<f32>>>,
}

impl Probes for Recorded {
    fn start(&mut self, _: &[f32], _: usize) -> Vec<f32> {
        self.start.clone()
    }

    fn directions(&mut self, _: Norm, count: usize, _: usize) -> Vec<Vec<f32>> {
        let directions = self.directions.remove(0);
        assert_eq!(directions.len(), count);
        directions
    }
}

/// The directions of every picture, from the program's one stream. It divides each probe by its
/// length over the whole batch, not over the picture.
fn recorded(norm: Norm, starts: &[f64]) -> Vec<Recorded> {
    let mut stream = SplitMix(31);
    let mut all: Vec<Recorded> = starts
        .chunks(WIDTH)
        .map(|start| Recorded {
            start: start.iter().map(|v| *v as f32).collect(),
            directions: Vec::new(),
        })
        .collect();
    for step in 0..STEPS {
        let count = (PROBES as f64 * (step as f64 + 1.0).sqrt()).min(100.0) as usize;
        let drawn = count * WALKS * WIDTH;
        let drawn = match norm {
            Norm::Linf => stream.uniforms(drawn).into_iter().map(|u| 2.0 * u - 1.0).collect(),
            _ => stream.normals(drawn),
        };
        all.iter_mut().for_each(|one| one.directions.push(Vec::new()));
        for probe in drawn.chunks(WALKS * WIDTH) {
            let length = probe.iter().map(|u| f64::from(*u).powi(2)).sum::<f64>().sqrt() + 1e-12;
            for (one, part) in all.iter_mut().zip(probe.chunks(WIDTH)) {
                let unit = part.iter().map(|u| (f64::from(*u) / length) as f32).collect();
                one.directions[step].push(unit);
            }
        }
    }
    all
}

/// The network, noting all it is asked.
struct Ear(Cnn, Mutex<Points>);

impl Victim for Ear {
    fn classes(&self) -> usize {
        10
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        self.1.lock().unwrap().push(query.pixels.clone());
        self.0.logits(query)
    }
}

/// The recorded walk of the first pictures over so many steps; what was found, and what was asked
/// of each.
fn walk(norm: Norm, steps: usize, samples: usize) -> (Attacked, Points) {
    let starts = Golden::open("attacks", "minimal").flat("hsj.start");
    let jump = HopSkipJump {
        norm,
        eps: WHOLE,
        queries: 100_000,
        steps,
        probes: PROBES,
        most_probes: 100,
        ..HopSkipJump::default()
    };
    let all = Mutex::new(recorded(norm, &starts).into_iter().map(Some).collect::<Vec<_>>());
    let opening = |key: &str, _: usize| -> Box<dyn Probes> {
        Box::new(all.lock().unwrap()[key.parse::<usize>().unwrap()].take().unwrap())
    };
    let labels = models().integers("y");
    let keys = keys(samples);
    let batch =
        Batch { pixels: pixels().narrow(0, 0, samples), labels: &labels[..samples], keys: &keys };
    let ear = Ear(Cnn::load(), Mutex::new(Vec::new()));
    let found = jump.run_with(&opening, &ear, &batch, 0);
    (found, ear.1.into_inner().unwrap())
}

#[test]
fn hopskipjump_walks_to_the_recorded_boundary() {
    let file = Golden::open("attacks", "minimal");
    for (name, norm) in [("hsj_l2", Norm::L2), ("hsj_linf", Norm::Linf)] {
        let (found, _) = walk(norm, 0, WALKS);
        let first = &file.flat(&format!("{name}.after_binary_search"))[..2 * WIDTH];
        // What is handed back lies a little further out, so that rounding cannot take it back.
        let delta = (found.pixels.clone() - pixels().narrow(0, 0, WALKS)) / (1.0 + OUTWARD);
        let point = numbers((pixels().narrow(0, 0, WALKS) + delta).narrow(0, 0, 2));
        // The box cuts off what is further out than the box.
        let is_inside = |p: f64| (0.001..0.999).contains(&p);
        let off = |(a, b): (&f64, &f64)| if is_inside(*b) { (a - b).abs() } else { 0.0 };
        let worst = point.iter().zip(first).map(off).fold(0.0, f64::max);
        assert!(worst < 2e-5, "{name}: {worst:e}");
        assert!(first.iter().filter(|p| is_inside(**p)).count() > WIDTH / 2, "{name}");
        let sizes = &file.flat(&format!("{name}.distance"))[..WALKS];
        assert!(distance(&nearest_of(&found), sizes) < 1e-5, "{name}");
    }
    // Along the sign of the direction its length does not matter: the second point is the same, too.
    // The program keeps the last point, even where it is farther; the smaller one is kept here.
    let (found, _) = walk(Norm::Linf, 1, WALKS);
    let sizes = file.flat("hsj_linf.distance");
    let least: Vec<f64> = (0..WALKS).map(|i| sizes[i].min(sizes[WALKS + i])).collect();
    let off = distance(&nearest_of(&found), &least);
    assert!(off < 1e-4, "{off:e}");
    assert!((0..WALKS).any(|i| sizes[WALKS + i] < sizes[i] - 1e-3), "the step is of use");
}

#[test]
fn hopskipjump_finds_the_recorded_direction() {
    let file = Golden::open("attacks", "minimal");
    for (name, norm) in [("hsj_l2", Norm::L2), ("hsj_linf", Norm::Linf)] {
        let directions = file.flat(&format!("{name}.direction"));
        let (points, sizes) = (
            file.flat(&format!("{name}.after_binary_search")),
            file.flat(&format!("{name}.distance")),
        );
        let (_, asked) = walk(norm, 1, 2);
        let probes: Vec<usize> =
            (0..asked.len()).filter(|&i| asked[i].dims()[0] == PROBES).collect();
        assert_eq!(probes.len(), 2, "one estimate a picture");
        for (sample, at) in probes.into_iter().enumerate() {
            let part = sample * WIDTH..(sample + 1) * WIDTH;
            let direction = &directions[part.clone()];
            let length = direction.iter().map(|d| d * d).sum::<f64>().sqrt();
            // The picture after the probes is the first stride; the box hides some of it.
            let stride = numbers(asked[at + 1].clone());
            let mut compared = 0;
            for ((s, p), d) in stride.iter().zip(&points[part]).zip(direction) {
                let unit = if norm == Norm::Linf { d.signum() } else { d / length };
                let want = p + sizes[sample] * unit;
                if (0.01..0.99).contains(&want) && (norm == Norm::L2 || d.abs() > 1e-4) {
                    assert!((s - want).abs() < 1e-3, "{name}, sample {sample}: {s} {want}");
                    compared += 1;
                }
            }
            assert!(compared > WIDTH / 8, "{name}: {compared}");
        }
    }
}
