//! The victim on the bench: what checks may do with it.

use super::right;
use burn::tensor::{Tensor, TensorData};
use clipguard_attack::{Attack, Batch, CATALOGUE, Loss, Norm, Scale, Start, loss::Aim, parse};
use clipguard_data::{
    Stream,
    spelling::{find, written},
};
use clipguard_model::{Encoder, Query, Victim};
use clipguard_purify::Defended;

/// A victim that also shows what its head sees and what it knows about itself.
pub trait Subject: Victim {
    /// What the head gets, `[batch, dimensions]`, differentiable; `None` when the head cannot be
    /// taken off.
    fn features(&self, query: Query<'_>) -> Option<Tensor<2>> {
        let _ = query;
        None
    }

    /// Parts through which no useful gradient passes, in words: rounding, inner optimisation with
    /// constants for gradients, rows that depend on each other.
    fn declares(&self) -> Vec<String> {
        Vec::new()
    }
}

impl<E: Encoder> Subject for Defended<E> {
    fn features(&self, query: Query<'_>) -> Option<Tensor<2>> {
        Some(self.embedding(query))
    }

    fn declares(&self) -> Vec<String> {
        let mut said = Vec::new();
        for purifier in self.purifiers() {
            let spelling = purifier.spelling();
            if spelling.get("gradient") == Some("detached") {
                let name = spelling.name();
                said.push(format!("{name}: inner gradients are constants for the attacker"));
            }
            if let Some(limit) = purifier.limit() {
                said.push(format!("{}: {}", spelling.name(), limit.reason));
            }
        }
        said
    }
}

/// How much work the checks do.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Random points around each picture.
    pub points: usize,
    /// Points inside the ball for the planted adversarial; 0: a quarter more than the features
    /// have dimensions, at least 200.
    pub inner: usize,
    /// Pictures put through the victim at once where a check makes many from one.
    pub batch: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self { points: 1000, inner: 0, batch: 256 }
    }
}

/// What is examined, and the number in question.
pub struct Bench<'a> {
    /// The victim under every way its gradient may pass, by name; at least one.
    pub modes: Vec<(&'a str, &'a dyn Subject)>,
    /// The model without its defence, where there is one.
    pub bare: Option<&'a dyn Subject>,
    /// Norm of the budget.
    pub norm: Norm,
    /// Radius of the budget.
    pub eps: f32,
    /// The attacks whose number is in question.
    pub attacks: &'a [String],
    /// Seed of every draw.
    pub seed: u64,
    /// Whether the victim answers at random; found out where it is not said. An attack then does
    /// not stop at the first success, which may have been luck.
    pub random: bool,
    /// How much work is done.
    pub effort: Effort,
}

impl Bench<'_> {
    /// The victim under the first gradient mode.
    pub(crate) fn subject(&self) -> &dyn Subject {
        self.modes[0].1
    }

    /// Pictures that are right, in draw 0.
    pub(crate) fn correct(&self, batch: &Batch<'_>) -> Vec<usize> {
        let right = right(&self.logits(&batch.pixels, batch.keys, 0), batch.labels);
        (0..right.len()).filter(|&i| right[i]).collect()
    }

    /// Whether two draws differ.
    pub(crate) fn answers_at_random(&self, batch: &Batch<'_>) -> bool {
        let draw = |draw| self.logits(&batch.pixels, batch.keys, draw);
        draw(0) != draw(1)
    }

    /// Logits row by row.
    pub(crate) fn logits(&self, pixels: &Tensor<4>, keys: &[String], draw: u64) -> Vec<f32> {
        values(self.subject().logits(Query { pixels: pixels.clone(), keys, draw }))
    }

    /// Which pictures the attack breaks.
    pub(crate) fn broken(
        &self,
        attack: &dyn Attack,
        victim: &dyn Victim,
        batch: &Batch<'_>,
    ) -> Vec<bool> {
        attack.run(victim, batch, self.seed).success
    }

    /// Which pictures any attack of the plan breaks under any gradient mode.
    pub(crate) fn broken_by_plan(&self, batch: &Batch<'_>) -> Result<Vec<bool>, String> {
        let mut broken = vec![false; batch.labels.len()];
        for attack in self.attacks {
            let attack = parse(attack).map_err(|e| e.to_string())?;
            for (_, subject) in &self.modes {
                let now = self.broken(&*attack, *subject, batch);
                broken.iter_mut().zip(now).for_each(|(b, n)| *b |= n);
            }
        }
        Ok(broken)
    }

    /// Projected gradient descent with the plan's loss, at `eps` and with further settings.
    pub(crate) fn descent(&self, eps: f32, more: &str) -> Result<Box<dyn Attack>, String> {
        let (loss, scale) = self.loss();
        // A setting that `more` names itself must not come twice.
        let given = |key: &str| more.split(',').any(|setting| setting.starts_with(key));
        let mut text = format!("pgd:norm={},eps={}", self.norm, written(eps));
        let exit = (!self.random).to_string();
        for (key, value) in [("loss", loss), ("scale", scale), ("early-exit", exit)] {
            if !given(key) {
                text += &format!(",{key}={value}");
            }
        }
        parse(&format!("{text},{more}")).map_err(|e| e.to_string())
    }

    /// Loss and scale of the first attack of the plan that says them; the margin if none does.
    pub(crate) fn loss(&self) -> (String, String) {
        let full = self.attacks.iter().filter_map(|text| parse(text).ok()).map(|a| a.spelling());
        let named = full.into_iter().find_map(|s| {
            let scale = s.get("scale").unwrap_or("model").to_owned();
            Some((
                s.get("loss").filter(|loss| ["ce", "margin", "dlr"].contains(loss))?.into(),
                scale,
            ))
        });
        named.unwrap_or_else(|| ("margin".to_owned(), "model".to_owned()))
    }

    /// The attack `name` in this norm and radius, with those of `settings` it knows; an error says
    /// that there is no such attack.
    pub(crate) fn named(
        &self,
        name: &str,
        settings: &[(&str, String)],
    ) -> Result<Box<dyn Attack>, String> {
        let method = find("attack", CATALOGUE, name)
            .map_err(|_| format!("this version has no attack `{name}`"))?;
        let known = (method.parameters)();
        let mut text = format!("{name}:norm={},eps={}", self.norm, written(self.eps));
        for (key, value) in settings {
            if known.iter().any(|parameter| parameter.key == *key) {
                text += &format!(",{key}={value}");
            }
        }
        parse(&text).map_err(|e| e.to_string())
    }

    /// Loss of each row and its gradient with respect to the pixels, in one draw.
    pub(crate) fn gradient(
        &self,
        pixels: &Tensor<4>,
        batch: &Batch<'_>,
        draw: u64,
        loss: Loss,
    ) -> (Vec<f32>, Tensor<4>) {
        let tracked = pixels.clone().autodiff().require_grad();
        let query = Query { pixels: tracked.clone(), keys: batch.keys, draw };
        let logits = Scale::Model.apply(self.subject().logits(query));
        let loss = loss.possible(self.subject().classes(), false);
        let rows = loss.rows(logits, &Aim::leave(batch.labels));
        let numbers = values(rows.clone());
        let gradient = match rows.is_tracked() {
            true => tracked.grad_remove(&mut rows.sum().backward()),
            false => None,
        };
        let gradient = gradient.unwrap_or_else(|| Tensor::zeros(pixels.shape(), &pixels.device()));
        (numbers, gradient)
    }

    /// Loss of each row.
    pub(crate) fn losses(
        &self,
        pixels: &Tensor<4>,
        batch: &Batch<'_>,
        draw: u64,
        loss: Loss,
    ) -> Vec<f32> {
        let query = Query { pixels: pixels.clone(), keys: batch.keys, draw };
        let loss = loss.possible(self.subject().classes(), false);
        let aim = Aim::leave(batch.labels);
        values(loss.rows(self.subject().logits(query), &aim))
    }

    /// Random points: uniform in the ball for even numbers, on its corners (or its sphere) for odd
    /// ones; the draws belong to `purpose`, number and key.
    pub(crate) fn random(
        &self,
        purpose: &str,
        number: usize,
        pixels: &Tensor<4>,
        keys: &[String],
        eps: f32,
    ) -> Tensor<4> {
        let purpose = format!("check/{purpose}/{number}");
        let mut streams: Vec<Stream> =
            keys.iter().map(|key| Stream::keyed(self.seed, &purpose, key)).collect();
        match (number % 2, self.norm) {
            (0, norm) => Start::Ball.points(norm, pixels, eps, &mut streams),
            (_, Norm::Linf) => corners(pixels, eps, &mut streams),
            (_, norm) => Start::Sphere.points(norm, pixels, eps, &mut streams),
        }
    }
}

/// Random corners of the Linf ball, cut to the box.
pub(crate) fn corners(pixels: &Tensor<4>, eps: f32, streams: &mut [Stream]) -> Tensor<4> {
    let (shape, device) = (pixels.dims(), pixels.device());
    let width = shape[1..].iter().product::<usize>().max(1);
    let mut numbers = values(pixels.clone());
    for (row, stream) in numbers.chunks_exact_mut(width).zip(streams) {
        for chunk in row.chunks_mut(32) {
            // One draw has the signs of 32 entries.
            let mut bits = stream.bits();
            for value in chunk {
                *value += if bits & 1 == 1 { eps } else { -eps };
                *value = value.clamp(0.0, 1.0);
                bits >>= 1;
            }
        }
    }
    Tensor::from_data(TensorData::new(numbers, shape), &device)
}

/// The numbers of a tensor, row by row.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let tensor = if tensor.is_autodiff() { tensor.inner() } else { tensor };
    tensor.into_data().try_to_vec::<f32>().unwrap_or_default()
}

/// `numbers` as rows of pictures like those of `like`, `rows` of them.
pub(crate) fn pictures(numbers: Vec<f32>, rows: usize, like: &Tensor<4>) -> Tensor<4> {
    let [_, c, h, w] = like.dims();
    Tensor::from_data(TensorData::new(numbers, [rows, c, h, w]), &like.device())
}
