//! Losses, projections and starts against the golden arrays.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use burn::tensor::{DType, Tensor};
use clipguard_attack::{
    Loss, Norm,
    loss::Aim,
    norm::l1_box,
    start::{ball_l1, ball_l2},
};
use clipguard_model::Encoder;
use clipguard_model::victim::{Query, Victim};

mod networks;
use networks::{Cnn, Golden, SplitMix, ToyClip, Vit, distance, like, models, numbers};

fn wide(v: &[f32]) -> Vec<f64> {
    v.iter().copied().map(f64::from).collect()
}

#[test]
fn the_stream_of_the_recordings() {
    let file = Golden::open("attacks", "reference");
    for (name, drawn) in [
        ("stream_seed0_uniform", SplitMix(0).uniforms(16)),
        ("stream_seed12345_uniform", SplitMix(12345).uniforms(16)),
        ("stream_seed0_normal", SplitMix(0).normals(16)),
    ] {
        assert!(distance(&wide(&drawn), &file.flat(name)) < 1e-6, "{name}");
    }
}

#[test]
fn logits_losses_and_gradients_of_the_networks() {
    let file = Golden::open("attacks", "reference");
    let labels = models().integers("y");
    for (name, victim, pixels) in
        [("cnn", &Cnn::load() as &dyn Victim, "x1"), ("vit", &Vit::load(), "x3")]
    {
        let pixels: Tensor<4> = models().tensor(pixels, DType::F32);
        let query = |pixels| Query { pixels, keys: &[], draw: 0 };
        let logits = victim.logits(query(pixels.clone()));
        let aim = Aim::leave(&labels);
        let losses = numbers(Loss::Ce.rows(logits.clone(), &aim));
        assert!(distance(&numbers(logits), &file.flat(&format!("{name}_logits"))) < 3e-5);
        assert!(distance(&losses, &file.flat(&format!("{name}_ce"))) < 1e-5);
        let first = pixels.narrow(0, 0, 8).autodiff().require_grad();
        let aim = Aim::leave(&labels[..8]);
        let loss = Loss::Ce.rows(victim.logits(query(first.clone())), &aim).sum();
        let gradient = numbers(first.grad_remove(&mut loss.backward()).unwrap());
        let off = distance(&gradient, &file.flat(&format!("{name}_grad_ce_sum_first8")));
        assert!(off < 1e-5, "{name}: {off:e}");
    }
    let pixels: Tensor<4> = models().tensor("x3", DType::F32);
    let vit = Vit::load();
    assert!(distance(&numbers(vit.embed(pixels.clone())), &file.flat("vit_embed")) < 2e-5);
    let logits = ToyClip(vit).logits(Query { pixels, keys: &[], draw: 0 });
    assert!(distance(&numbers(logits), &file.flat("clip_logits")) < 2e-4);
}

#[test]
fn losses_on_fixed_logits_with_gradients() {
    let file = Golden::open("attacks", "losses");
    let (labels, targets) = (file.integers("y"), file.integers("y_target"));
    let away = Aim::leave(&labels);
    let toward = Aim::reach(&labels, &targets);
    let cases = [
        ("ce", Loss::Ce, away),
        ("dlr", Loss::Dlr, away),
        ("ce_targeted", Loss::Ce, toward),
        ("dlr_targeted", Loss::Dlr, toward),
    ];
    for (name, loss, aim) in cases {
        let logits = file.tensor::<2>("logits", DType::F32).autodiff().require_grad();
        let rows = loss.rows(logits.clone(), &aim);
        let off = distance(&numbers(rows.clone()), &file.flat(name));
        assert!(off < 1e-5, "{name}: {off:e}");
        let found = numbers(logits.grad_remove(&mut rows.sum().backward()).unwrap());
        let expected = file.flat(&format!("{name}_grad"));
        for (row, (found, expected)) in found.chunks(10).zip(expected.chunks(10)).enumerate() {
            // Row 20 has all logits equal and a DLR gradient of 1e12.
            let size = expected.iter().fold(1.0, |a: f64, v| a.max(v.abs()));
            let off = distance(found, expected);
            assert!(off < 1e-5 * size, "gradient of {name}, row {row}: {off:e}");
        }
    }
    let three: Tensor<2> = file.tensor("logits_3class", DType::F32);
    let three_labels = file.integers("y_3class");
    let aim = Aim::leave(&three_labels);
    assert!(distance(&numbers(Loss::Dlr.rows(three, &aim)), &file.flat("dlr_3class")) < 1e-5);
}

#[test]
fn the_margin_is_that_of_square_and_of_carlini_and_wagner() {
    let file = Golden::open("attacks", "losses");
    let labels = file.integers("y");
    let aim = Aim::leave(&labels);
    let logits = file.tensor::<2>("logits", DType::F32).autodiff().require_grad();
    let margin = Loss::Margin.rows(logits.clone(), &aim);
    let found = numbers(margin.clone());
    let negative: Vec<f64> = found.iter().map(|m| -m).collect();
    assert!(distance(&negative, &file.flat("square_margin")) < 1e-5);
    let gradient = numbers(logits.grad_remove(&mut margin.sum().backward()).unwrap());
    let clipped = file.flat("cw_f_kappa2");
    let clipped_gradient = file.flat("cw_f_kappa2_grad");
    // That program takes maxima over products with a 0/1 mask, so it reads negative logits as 0:
    // these rows of the recording are wrong, and are there to show it.
    const WRONG: [usize; 4] = [15, 19, 22, 23];
    for row in 0..24 {
        let off = ((-found[row]).max(-2.0) - clipped[row]).abs();
        assert_eq!(off > 1e-5, WRONG.contains(&row), "row {row}: {off:e}");
    }
    let logits = file.flat("logits");
    let positive = |row: usize| {
        let own = logits[row * 10 + aim.labels[row]];
        own >= 0.0 && own + found[row] >= 0.0
    };
    let rows: Vec<usize> = (0..24).filter(|&row| positive(row)).collect();
    assert_eq!(rows.len(), 12);
    for row in rows {
        // Row 20 has all logits equal: which one is the largest is a matter of taste.
        if found[row] < 2.0 && row != 20 {
            let mine: Vec<f64> = gradient[row * 10..][..10].iter().map(|g| -g).collect();
            assert!(distance(&mine, &clipped_gradient[row * 10..][..10]) < 1e-5, "row {row}");
        }
    }
}

#[test]
fn projections_and_directions() {
    let file = Golden::open("attacks", "projections");
    let (centre, delta) = (file.flat("l1box_center"), file.flat("l1box_delta"));
    let narrow = |v: &[f64]| v.iter().map(|&v| v as f32).collect::<Vec<f32>>();
    for eps in ["0.5", "2.0", "6.0"] {
        let correction = file.flat(&format!("l1box_out_eps{eps}"));
        for row in 0..12 {
            let part = row * 40..(row + 1) * 40;
            let mut found = narrow(&delta[part.clone()]);
            l1_box(&narrow(&centre[part.clone()]), &mut found, eps.parse().unwrap());
            let sum = delta[part.clone()].iter().zip(&correction[part]).map(|(d, c)| d + c);
            let expected: Vec<f64> = sum.collect();
            let off = distance(&wide(&found), &expected);
            assert!(off < 1e-5, "eps {eps}, row {row}: {off:e}");
        }
    }
    let delta = like([12, 1, 1, 40], narrow(&file.flat("clip_in")));
    let check = |found: Tensor<4>, name: &str| {
        let off = distance(&numbers(found), &file.flat(name));
        assert!(off < 1e-5, "{name}: {off:e}");
    };
    check(Norm::L2.project(delta.clone(), 1.5), "foolbox_clip_l2_norm1.5");
    check(Norm::L2.project(delta.clone(), 1.5), "renorm_l2_1.5");
    check(Norm::L2.steepest(delta.clone()), "foolbox_normalize_l2");
    check(Norm::L2.steepest(delta), "apgd_normalize_L2");
}

#[test]
fn uniform_points_of_the_balls() {
    let file = Golden::open("attacks", "projections");
    let mut stream = SplitMix(5);
    let normals = stream.normals(20);
    let found: Vec<f32> = normals.chunks(10).flat_map(|row| ball_l2(row.to_vec())).collect();
    assert!(distance(&wide(&found), &file.flat("uniform_l2_ball_seed5_2x8")) < 1e-6);
    let mut stream = SplitMix(5);
    let spread = stream.uniforms(16);
    let signs: Vec<f32> = stream.uniforms(16).iter().map(|u| 2.0 * u - 1.0).collect();
    let rows = spread.chunks(8).zip(signs.chunks(8));
    let found: Vec<f32> = rows.flat_map(|(u, s)| ball_l1(u.to_vec(), s)).collect();
    assert!(distance(&wide(&found), &file.flat("uniform_l1_ball_seed5_2x8")) < 1e-6);
}
