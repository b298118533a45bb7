//! Contrastive losses on a batch of pairs.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};

/// CLIP's loss (Radford et al. 2021): mean of the cross-entropies of rows and columns of
/// `s X Y^T (+ b)` against the diagonal. `x`, `y`: unit rows `[n, dim]`; `scale`: the factor `s`,
/// `[1]`. Returns `[1]`.
pub fn clip_loss(x: Tensor<2>, y: Tensor<2>, scale: Tensor<1>) -> Tensor<1> {
    let logits = x.matmul(y.transpose()) * scale.unsqueeze();
    (surprise(logits.clone()) + surprise(logits.transpose())) * 0.5
}

/// The in-modal loss of CleanCLIP (Bansal et al. 2023): the mean of the cross-entropies of
/// `s X X'^T` and `s Y Y'^T` against the diagonal, each in one direction: a row is found among the
/// second views of all rows. `x`, `y`: unit rows `[n, dim]` of pictures and captions; `x_view`,
/// `y_view`: those of their second views; `scale`: the factor `s`, `[1]`. Returns `[1]`.
pub fn in_modal_loss(
    [x, x_view]: [Tensor<2>; 2],
    [y, y_view]: [Tensor<2>; 2],
    scale: Tensor<1>,
) -> Tensor<1> {
    let found = |rows: Tensor<2>, views: Tensor<2>| {
        surprise(rows.matmul(views.transpose()) * scale.clone().unsqueeze())
    };
    (found(x, x_view) + found(y, y_view)) * 0.5
}

/// The mean cross-entropy of the rows of `logits [n, n]` against the diagonal, `[1]`.
fn surprise(logits: Tensor<2>) -> Tensor<1> {
    let (n, device) = (logits.dims()[0], logits.device());
    let at = TensorData::new((0..n as i64).collect::<Vec<_>>(), [n, 1]);
    -log_softmax(logits, 1).gather(1, Tensor::<2, Int>::from_data(at, &device)).mean()
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
