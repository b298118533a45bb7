//! The optimiser and the schedule against the reference.

use super::*;
use crate::gradients::global_norm;
use crate::reader::Golden;
use clipguard_model::Array;

#[test]
fn schedule_warms_up_and_ends_near_zero() {
    assert_eq!(learning_rate(1.0, 0, 10, 100), 0.1);
    assert_eq!(learning_rate(1.0, 9, 10, 100), 1.0);
    assert_eq!(learning_rate(1.0, 10, 10, 100), 1.0);
    assert!((learning_rate(1.0, 55, 10, 100) - 0.5).abs() < 1e-12);
    assert!(learning_rate(1.0, 99, 10, 100) < 1e-3);
}

#[test]
fn vectors_norms_and_biases_do_not_decay() {
    for (name, shape, want) in [
        ("visual.conv1.weight", &[8, 3, 3, 3][..], true),
        ("token_embedding.weight", &[64, 8], true),
        ("visual.class_embedding", &[8], false),
        ("visual.bn1.weight", &[8], false),
        ("visual.layer1.0.downsample.1.weight", &[8], false),
        ("ln_final.weight", &[8], false),
        ("logit_scale", &[], false),
    ] {
        assert_eq!(decays(name, shape), want, "{name}");
    }
}

#[test]
fn adamw_equals_the_reference_step_by_step() {
    let golden = Golden::open("clip", "misc_expect");
    let single = |numbers: &[f64]| numbers.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let (shape, start) = golden.numbers("adamw.p0");
    let (gradients, wanted) = (golden.flat("adamw.grads"), golden.flat("adamw.after_each_step"));
    let named = |data| Weights::from([("weight".to_owned(), Array::new(shape.clone(), data))]);
    let mut weights = named(single(&start));
    let mut first = named(vec![0.0; start.len()]);
    let mut second = first.clone();
    let adamw = AdamW { beta1: 0.9, beta2: 0.98, epsilon: 1e-6, weight_decay: 0.2 };
    let steps = gradients.chunks(start.len()).zip(wanted.chunks(start.len()));
    for (step, (gradient, wanted)) in (1..).zip(steps) {
        // Doubled, and halved again by the factor of clipping.
        let doubled = gradient.iter().map(|g| *g as f32 * 2.0).collect();
        let gradients = Gradients::from([("weight".to_owned(), doubled)]);
        adamw.update(&mut weights, (&mut first, &mut second), &gradients, 5e-4, step, 0.5, &decays);
        for (got, want) in weights["weight"].data.iter().zip(wanted) {
            assert!((f64::from(*got) - want).abs() < 5e-7, "step {step}: {got} against {want}");
        }
    }
}

#[test]
fn parameters_without_a_gradient_decay_and_buffers_rest() {
    let one = || Array::new(vec![1, 1], vec![1.0]);
    let mut weights = Weights::from([
        ("a.weight".to_owned(), one()),
        ("bn1.running_mean".to_owned(), one()),
        ("ln.weight".to_owned(), one()),
    ]);
    let zero = Array::new(vec![1, 1], vec![0.0]);
    let mut first: Weights = weights.keys().map(|name| (name.clone(), zero.clone())).collect();
    let mut second = first.clone();
    let adamw = AdamW { beta1: 0.9, beta2: 0.98, epsilon: 1e-6, weight_decay: 0.5 };
    adamw.update(&mut weights, (&mut first, &mut second), &Gradients::new(), 0.1, 1, 1.0, &decays);
    let got: Vec<f32> = weights.values().map(|array| array.data[0]).collect();
    assert_eq!(got, [0.95, 1.0, 1.0]);
}

#[test]
fn the_schedule_equals_the_reference() {
    let wanted = Golden::open("clip", "misc_expect").flat("cosine_lr.base5e-4_warm10_total100");
    for (step, wanted) in (0..).zip(&wanted) {
        let got = learning_rate(5e-4, step, 10, 100);
        assert!((got - wanted).abs() <= 1e-15, "step {step}: {got} against {wanted}");
    }
}

#[test]
fn the_global_norm_is_that_of_all_gradients_together() {
    let gradients = Gradients::from([
        ("a".to_owned(), vec![1.0; 70_000]),
        ("b".to_owned(), vec![-2.0; 30_000]),
    ]);
    assert!((global_norm(&gradients) - 190_000f64.sqrt()).abs() < 1e-9);
}

/// The golden step of the prior's training: clipped at 0.5, then AdamW with the public recipe's
/// numbers.
#[test]
fn a_step_on_the_prior_equals_the_reference() {
    let state = Golden::open("clipure", "prior_tiny_state");
    let golden = Golden::open("clipure", "prior_tiny_f64");
    let names = ["net.learned_query", "net.causal_transformer.layers.0.0.to_kv.weight"];
    let array = |file: &Golden, name: &str| {
        let (shape, values) = file.numbers(name);
        Array::new(shape, values.into_iter().map(|v| v as f32).collect())
    };
    let mut weights: Weights =
        names.iter().map(|name| ((*name).to_owned(), array(&state, name))).collect();
    let gradients: Gradients = names
        .iter()
        .map(|name| ((*name).to_owned(), array(&golden, &format!("train.grad.{name}")).data))
        .collect();
    let zeros = |weights: &Weights| -> Weights {
        let zero = |a: &Array| Array::new(a.shape.clone(), vec![0.0; a.data.len()]);
        weights.iter().map(|(name, a)| (name.clone(), zero(a))).collect()
    };
    let (mut first, mut second) = (zeros(&weights), zeros(&weights));
    let adamw = AdamW { beta1: 0.9, beta2: 0.99, epsilon: 1e-6, weight_decay: 6.02e-2 };
    let factor = 0.5 / (golden.flat("train.grad_norm")[0] + 1e-6);
    let decays = |_: &str, shape: &[usize]| shape.len() >= 2;
    let moments = (&mut first, &mut second);
    adamw.update(&mut weights, moments, &gradients, 1.1e-4, 1, factor.min(1.0), &decays);
    for name in names {
        let want = golden.flat(&format!("train.after_one_adamw.{name}"));
        for (got, want) in weights[name].data.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 5e-7, "{name}: {got} against {want}");
        }
    }
}
