//! Square against runs of the auto-attack program.

use std::sync::{Arc, Mutex};

use burn::tensor::{DType, Tensor};
use clipguard_attack::{
    Attacked, Batch, Norm, Square,
    square::{Draws, pattern},
};
use clipguard_model::victim::{Query, Victim};

use crate::networks::{Cnn, Golden, SplitMix, Vit, distance, keys, models, numbers};

/// The draws of the program: one stream for the whole batch.
struct Shared(SplitMix);

impl Draws for Shared {
    fn draw(&mut self, rows: &[usize], common: usize, own: usize) -> Vec<Vec<f32>> {
        let common = self.0.uniforms(common);
        rows.iter().map(|_| [common.clone(), self.0.uniforms(own)].concat()).collect()
    }
}

/// Writes down what it is asked.
struct Spy(Box<dyn Victim>, Arc<Mutex<Vec<Tensor<4>>>>);

impl Victim for Spy {
    fn classes(&self) -> usize {
        10
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        self.1.lock().unwrap().push(query.pixels.clone());
        self.0.logits(query)
    }
}

fn attack(network: &str, norm: Norm, eps: f32) -> (Attacked, Vec<Tensor<4>>) {
    let (victim, pixels): (Box<dyn Victim>, _) = match network {
        "vit" => (Box::new(Vit::load()), "x3"),
        _ => (Box::new(Cnn::load()), "x1"),
    };
    let asked = Arc::new(Mutex::new(Vec::new()));
    let spy = Spy(victim, asked.clone());
    let pixels = models().tensor::<4>(pixels, DType::F32).narrow(0, 0, 8);
    let batch = Batch { pixels, labels: &models().integers("y")[..8], keys: &keys(8) };
    let square = Square { norm, eps, queries: 300, rescale: true, ..Square::default() };
    let mut opening = |_: &[String], _| Box::new(Shared(SplitMix(9))) as Box<dyn Draws>;
    let found = square.run_with(&mut opening, &spy, &batch, 0);
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    (found, asked)
}

#[test]
fn whole_runs_from_their_seeds() {
    let file = Golden::open("attacks", "square");
    // Iterations until a decision flips by rounding in the recorded program already.
    let runs = [
        ("cnn", Norm::Linf, 0.15, 300),
        ("cnn", Norm::L2, 1.5, 50),
        ("cnn", Norm::L1, 8.0, 300),
        ("vit", Norm::Linf, 0.04, 300),
        ("vit", Norm::L2, 0.6, 50),
    ];
    for (network, norm, eps, sure) in runs {
        let name = match norm {
            Norm::Linf => "Linf",
            Norm::L2 => "L2",
            Norm::L1 => "L1",
        };
        let key = format!("{network}.{name}");
        let (found, asked) = attack(network, norm, eps);
        // The first question is about the clean pictures.
        let start = numbers(asked[1].clone().narrow(0, 0, 2));
        let off = distance(&start, &file.flat(&format!("{key}.x_init_first2")));
        assert!(off < 1e-5, "start of {key}: {off:e}");
        let tried: Vec<f64> =
            asked[2..12].iter().flat_map(|x| numbers(x.clone().narrow(0, 0, 1))).collect();
        let off = distance(&tried, &file.flat(&format!("{key}.candidate_first10_of_sample0")));
        assert!(off < 1e-5, "candidates of {key}: {off:e}");
        let margins = file.flat(&format!("{key}.margin_before_iter"));
        let queries = file.flat(&format!("{key}.n_queries"));
        for i in 0..8 {
            let mut lead = f32::NEG_INFINITY;
            for (t, new) in found.loss[i].iter().take(sure).enumerate() {
                lead = lead.max(*new);
                let off = (f64::from(lead) + margins[8 * t + i]).abs();
                assert!(off < 1e-3, "{key}, sample {i}, iteration {t}: {off:e}");
            }
            let (asked, expected) = (found.queries(i) as f64, queries[i]);
            if sure == 300 {
                assert_eq!(asked, expected, "{key}, sample {i}");
                assert_eq!(found.first_success[i].is_some(), asked < 301.0, "{key}, sample {i}");
            }
        }
    }
}

#[test]
fn shapes_and_schedules_of_the_program() {
    let file = Golden::open("attacks", "projections");
    for (name, norm) in [("L2", Norm::L2), ("L1", Norm::L1)] {
        let shape = pattern::pyramids(norm, 7, SplitMix(0).uniform() > 0.5);
        let found: Vec<f64> = shape.into_iter().map(f64::from).collect();
        let off = distance(&found, &file.flat(&format!("square_{name}_eta7_seed0")));
        assert!(off < 1e-6, "{name}: {off:e}");
    }
    let iterations = file.integers("square_p_iters");
    for (name, rescale) in [("square_p_fixed", false), ("square_p_rescaled_5000", true)] {
        let share = |&i: &usize| pattern::share(0.8, i, 5000, rescale);
        let found: Vec<f64> = iterations.iter().map(share).collect();
        assert!(distance(&found, &file.flat(name)) < 1e-6, "{name}");
    }
}
