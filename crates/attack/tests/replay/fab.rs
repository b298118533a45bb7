//! FAB and FAB-T against runs of the auto-attack program.

use std::sync::Mutex;

use burn::tensor::{DType, Tensor};
use clipguard_attack::{Attack, Attacked, Batch, Fab, Norm, fab::hyperplane};
use clipguard_model::victim::{Query, Victim};

use crate::networks::{Cnn, Golden, distance, keys, models, numbers};

const NORMS: [(&str, Norm, f32); 3] =
    [("Linf", Norm::Linf, 0.15), ("L2", Norm::L2, 1.0), ("L1", Norm::L1, 6.0)];

/// The network, noting the points at which it is differentiated.
pub(crate) struct Spy(pub(crate) Cnn, pub(crate) Mutex<Vec<Tensor<4>>>);

impl Victim for Spy {
    fn classes(&self) -> usize {
        10
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        if query.pixels.is_tracked() {
            self.1.lock().unwrap().push(query.pixels.clone().inner());
        }
        self.0.logits(query)
    }
}

fn attack(fab: &Fab, samples: &[usize]) -> (Attacked, Vec<Tensor<4>>) {
    let all = models().tensor::<4>("x1", DType::F32);
    let pixels = samples.iter().map(|&i| all.clone().narrow(0, i, 1)).collect();
    let labels = models().integers("y");
    let labels: Vec<usize> = samples.iter().map(|&i| labels[i]).collect();
    let batch =
        Batch { pixels: Tensor::cat(pixels, 0), labels: &labels, keys: &keys(samples.len()) };
    let spy = Spy(Cnn::load(), Mutex::new(Vec::new()));
    let found = fab.run(&spy, &batch, 0);
    (found, spy.1.into_inner().unwrap())
}

#[test]
fn the_step_to_a_hyperplane() {
    let file = Golden::open("attacks", "projections");
    let narrow =
        |name: &str| -> Vec<f32> { file.flat(name).into_iter().map(|v| v as f32).collect() };
    let (points, normals, offsets) = (narrow("fab_x"), narrow("fab_w"), file.flat("fab_b"));
    for (name, norm) in [("linf", Norm::Linf), ("l2", Norm::L2), ("l1", Norm::L1)] {
        let expected = file.flat(&format!("fab_{name}"));
        for (row, offset) in offsets.iter().take(12).enumerate() {
            let part = row * 40..(row + 1) * 40;
            let (t, w) = (&points[part.clone()], &normals[part.clone()]);
            let along: f64 = t.iter().zip(w).map(|(t, w)| f64::from(*t) * f64::from(*w)).sum();
            let step = hyperplane::step(norm, t, w, along - offset);
            let found: Vec<f64> = step.into_iter().map(f64::from).collect();
            let off = distance(&found, &expected[part]);
            assert!(off < 5e-6, "{name}, row {row}: {off:e}");
        }
    }
}

#[test]
fn towards_the_nearest_of_all_classes() {
    let file = Golden::open("attacks", "fab");
    let samples: Vec<usize> = (0..17).filter(|&i| i != 13).collect();
    for (name, norm, eps) in NORMS {
        // The program keeps the smallest error of any size here: so does a budget of the whole box.
        let fab = Fab { norm, eps: 256.0, steps: 20, target_classes: 0, ..Fab::default() };
        let (found, points) = attack(&fab, &samples);
        let key = format!("cnn.{name}.untargeted");
        let first = points.chunks(9).flat_map(|x| numbers(x[0].clone().narrow(0, 0, 2)));
        let off = distance(&first.collect::<Vec<f64>>(), &file.flat(&format!("{key}.x1_first2")));
        assert!(off < 1e-4, "{key}: {off:e} (eps {eps})");
        let clean = models().tensor::<4>("x1", DType::F32);
        let expected: Tensor<4> = file.tensor(&format!("{key}.adv_first16ok"), DType::F32);
        for (i, &sample) in samples.iter().enumerate() {
            let delta = expected.clone().narrow(0, i, 1) - clean.clone().narrow(0, sample, 1);
            let size = norm.measure(delta)[0];
            let off = (f64::from(found.norm[i]) - size).abs() / size;
            assert!(off < 2e-2, "{key}, sample {i}: {} instead of {size}", found.norm[i]);
        }
    }
}

#[test]
fn towards_nine_classes_in_turn() {
    let file = Golden::open("attacks", "fab");
    let samples: Vec<usize> = (0..64).collect();
    for (name, norm, eps) in NORMS {
        let fab = Fab { norm, eps, steps: 20, ..Fab::default() };
        let (found, _) = attack(&fab, &samples);
        let key = format!("cnn.{name}.fab_t");
        let robust: Vec<usize> = found.success.iter().map(|&s| usize::from(!s)).collect();
        assert_eq!(robust, file.integers(&format!("{key}.correct_after")), "{key}");
        let sizes: Vec<f64> = found.norm.iter().copied().map(f64::from).collect();
        // In L1 one search goes another way and finds a class that is nearer.
        let want = file.flat(&format!("{key}.norm"));
        let gaps = sizes.iter().zip(&want).map(|(own, theirs)| own - theirs);
        assert!(gaps.clone().all(|gap| gap < 3e-3), "{key}: {sizes:?}");
        assert!(gaps.filter(|gap| *gap < -3e-3).count() <= 1, "{key}: {sizes:?}");
        let early = Fab { early_exit: true, ..fab };
        let (faster, _) = attack(&early, &samples);
        assert!(faster.backwards < found.backwards);
        assert_eq!(faster.success, found.success, "{key}");
    }
}
