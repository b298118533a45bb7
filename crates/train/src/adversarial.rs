//! What the adversarial objectives share: the inner attack, and the two terms of their losses.

use crate::{Step, recipe::Adversarial};
use burn::tensor::Tensor;
use clipguard_attack::{
    Norm, Pgd, Start,
    descent::{Rule, View},
    pgd::Momentum,
};
use clipguard_data::Stream;
use clipguard_model::{Clip, ModelError};

/// Pictures near `clean` at which `loss`, a sum over rows of embeddings, is high.
///
/// Projected ascent by accumulated signs from a uniform random start (the training attack of
/// Schlarmann et al. 2024), with the model in evaluation mode. The start matters: FARE's loss has
/// no gradient at the clean picture while the model is still the original. A row's draws depend on
/// the seed, the step and the sample's key.
pub(crate) fn attacked(
    step: &Step<'_>,
    clip: &Clip,
    clean: &Tensor<4>,
    settings: &Adversarial,
    loss: impl Fn(Tensor<2>) -> Tensor<1>,
) -> Tensor<4> {
    let pgd = Pgd {
        eps: settings.eps,
        alpha: Some(settings.step),
        steps: settings.steps,
        momentum: Momentum::SignMomentum,
        decay: Some(settings.momentum),
        ..Pgd::default()
    };
    let purpose = format!("adversarial/{}", step.step);
    let mut streams: Vec<Stream> =
        step.batch.keys.iter().map(|key| Stream::keyed(step.seed, &purpose, key)).collect();
    let mut point = Start::Ball.points(Norm::Linf, clean, settings.eps, &mut streams);
    let mut rule = pgd.rule();
    for _ in 0..settings.steps {
        let leaf = point.clone().autodiff().require_grad();
        let loss = loss(clip.encode_image(leaf.clone()));
        let Some(gradient) = leaf.grad_remove(&mut loss.backward()) else { break };
        let broken = gradient.clone().is_finite().bool_not();
        let gradient = gradient.mask_fill(broken, 0.0);
        point = rule.step(&View { clean, point: &point, gradient: &gradient, loss: &[] });
    }
    point
}

/// The outer loss `w clean + (1 - w) adversarial`, of embeddings in training mode.
///
/// `clean` gets the embeddings of the clean pictures, `adversarial` those of the attacked ones and,
/// with the TRADES option (Zhang et al. 2019), the clean ones of the same model as constants. What
/// is not asked for is not computed.
pub(crate) fn outer(
    step: &Step<'_>,
    settings: &Adversarial,
    [clean, attacked]: [Tensor<4>; 2],
    clean_loss: impl Fn(Tensor<2>) -> Tensor<1>,
    adversarial_loss: impl Fn(Tensor<2>, Option<Tensor<2>>) -> Tensor<1>,
) -> Result<Tensor<1>, ModelError> {
    let clip = step.clip()?;
    let weight = settings.clean_weight;
    let embed = |pixels: Tensor<4>| clip.encode_image_in(pixels.autodiff(), step.pass);
    let own = (weight > 0.0 || settings.trades).then(|| embed(clean));
    let target = own.clone().filter(|_| settings.trades).map(|own| own.detach());
    let loss = adversarial_loss(embed(attacked), target) * (1.0 - weight);
    Ok(match own.filter(|_| weight > 0.0) {
        Some(own) => loss + clean_loss(own) * weight,
        None => loss,
    })
}

/// Whether adversarial fine-tuning changes a parameter: those of the picture tower.
pub(crate) fn is_tuned(name: &str) -> bool {
    name.starts_with("visual.") && !clipguard_model::parameters::is_buffer(name)
}
