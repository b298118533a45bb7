//! Contrastive losses on a batch of pairs.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};

/// CLIP's loss (Radford et al. 2021): mean of the cross-entropies of rows and columns of
/// `s X Y^T (+ b)` against the diagonal. `x`, `y`: unit rows `[n, dim]`; `scale`: the factor `s`,
/// `[1]`. Returns `[1]`.
pub fn clip_loss(x: Tensor<2>, y: Tensor<2>, scale: Tensor<1>) -> Tensor<1> {
    let n = x.dims()[0];
    let logits = x.matmul(y.transpose()) * scale.unsqueeze();
    let diagonal = |z: Tensor<2>| {
        let device = z.device();
        let at = TensorData::new((0..n as i64).collect::<Vec<_>>(), [n, 1]);
        log_softmax(z, 1).gather(1, Tensor::<2, Int>::from_data(at, &device)).mean()
    };
    (diagonal(logits.clone()) + diagonal(logits.transpose())) * -0.5
}

/// SigLIP's loss (Zhai et al. 2023): `sum_ij softplus(-t_ij (s x_i.y_j + b)) / n`, `t` is +1 on
/// the diagonal and -1 elsewhere. Returns `[1]`.
pub fn siglip_loss(x: Tensor<2>, y: Tensor<2>, scale: Tensor<1>, bias: Tensor<1>) -> Tensor<1> {
    let n = x.dims()[0];
    let logits = x.matmul(y.transpose()) * scale.unsqueeze() + bias.unsqueeze();
    let signs: Vec<f32> = (0..n * n).map(|i| if i / n == i % n { -1.0 } else { 1.0 }).collect();
    let signs = Tensor::<2>::from_data(TensorData::new(signs, [n, n]), &logits.device());
    let z = logits * signs;
    // softplus(z) = max(z, 0) + ln(1 + exp(-|z|)), which never overflows.
    let softplus = z.clone().clamp_min(0.0) + (z.abs().neg().exp() + 1.0).log();
    softplus.sum() / n as f32
}
