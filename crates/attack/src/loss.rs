//! What an attack raises: one number a sample, differentiable with respect to the logits.
//!
//! All losses are maximised and summed over the batch, never averaged: a mean over a large batch
//! pushes small gradients below the f32 range.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use clipguard_data::Stream;
use serde::{Deserialize, Serialize};

use crate::tensors::host;

/// The loss that an attack raises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Cross-entropy: `-log softmax(z)_y`, with a target `log softmax(z)_t`.
    #[default]
    Ce,
    /// Difference of logits: `max_{j != y} z_j - z_y`, with a target `z_t - max_{j != t} z_j`.
    Margin,
    /// Difference of logits ratio (Croce & Hein 2020): `-(z_y - m) / (z1 - z3 + 1e-12)`, with a
    /// target `-(z_y - z_t) / (z1 - (z3 + z4) / 2 + 1e-12)`; `z1 >= z2 >= ...` sorted.
    Dlr,
}

/// What the attack works towards, one entry a row.
#[derive(Clone, Copy, Debug)]
pub struct Aim<'a> {
    /// True classes, to be left.
    pub labels: &'a [usize],
    /// Classes to be reached, in a targeted attack, or steered to.
    pub targets: Option<&'a [usize]>,
    /// Whether leaving the true class is a success; then the targets only shape the loss.
    pub any_error: bool,
}

impl<'a> Aim<'a> {
    /// Any class but the true one.
    pub fn leave(labels: &'a [usize]) -> Self {
        Self { labels, targets: None, any_error: true }
    }

    /// These classes and no others.
    pub fn reach(labels: &'a [usize], targets: &'a [usize]) -> Self {
        Self { labels, targets: Some(targets), any_error: false }
    }

    /// The targets that decide about success.
    fn goals(&self) -> Option<&'a [usize]> {
        self.targets.filter(|_| !self.any_error)
    }

    /// Whether predicting `class` for row `row` is a success.
    pub fn is_met(&self, row: usize, class: usize) -> bool {
        self.goals().map_or(class != self.labels[row], |targets| class == targets[row])
    }

    /// By how much the logits of row `row` are past the decision boundary; positive is a success.
    pub fn lead(&self, row: usize, logits: &[f32]) -> f32 {
        let class = self.goals().unwrap_or(self.labels)[row];
        let lead = best_other(logits, class).map_or(0.0, |other| logits[other] - logits[class]);
        if self.goals().is_some() { -lead } else { lead }
    }
}

impl Loss {
    /// This loss, or the margin where the number of classes is too small for it: DLR needs three
    /// classes, four with a target.
    pub fn possible(self, classes: usize, targeted: bool) -> Self {
        match self {
            Self::Dlr if classes < 3 + usize::from(targeted) => Self::Margin,
            loss => loss,
        }
    }

    /// The loss of each row of `logits [batch, classes]`, to be maximised; `[batch]`.
    ///
    /// Which logits are the largest is decided by value, ties of the margin by the lowest index
    /// and ties of the DLR by the highest, as in the original program.
    ///
    /// # Panics
    /// When a class of `aim` is out of range or there are too few classes (see
    /// [`Loss::possible`]).
    pub fn rows(self, logits: Tensor<2>, aim: &Aim<'_>) -> Tensor<1> {
        let numbers = host(logits.clone());
        let [batch, classes] = logits.dims();
        let rows: Vec<&[f32]> = numbers.chunks(classes.max(1)).collect();
        let at = |logits: &Tensor<2>, columns: Vec<usize>| pick(logits, &columns);
        match (self, aim.targets) {
            (Self::Ce, None) => -at(&log_softmax(logits, 1), aim.labels.to_vec()),
            (Self::Ce, Some(targets)) => at(&log_softmax(logits, 1), targets.to_vec()),
            (Self::Margin, targets) => {
                let class = targets.unwrap_or(aim.labels);
                let others = (0..batch).map(|i| best_other(rows[i], class[i]).unwrap_or(class[i]));
                let difference = at(&logits, others.collect()) - at(&logits, class.to_vec());
                if targets.is_some() { -difference } else { difference }
            }
            (Self::Dlr, targets) => {
                let sorted: Vec<Vec<usize>> = rows.iter().map(|row| ascending(row)).collect();
                let rank = |k: usize| sorted.iter().map(move |order| order[classes - k]);
                let top = at(&logits, rank(1).collect());
                let (rival, range) = match targets {
                    None => {
                        let tops = rank(1).zip(rank(2)).zip(aim.labels);
                        let rivals = tops
                            .map(|((first, second), &y)| if first == y { second } else { first });
                        (rivals.collect(), top - at(&logits, rank(3).collect()))
                    }
                    Some(targets) => {
                        let low = at(&logits, rank(3).collect()) + at(&logits, rank(4).collect());
                        (targets.to_vec(), top - low * 0.5)
                    }
                };
                (at(&logits, rival) - at(&logits, aim.labels.to_vec())) / (range + 1e-12)
            }
        }
    }
}

/// Entry `columns[i]` of each row `i`, `[batch]`.
pub(crate) fn pick(logits: &Tensor<2>, columns: &[usize]) -> Tensor<1> {
    let columns: Vec<i64> = columns.iter().map(|&c| c as i64).collect();
    let count = columns.len();
    let data = TensorData::new(columns, [count, 1]);
    let index = Tensor::<2, Int>::from_data(data, &logits.device());
    logits.clone().gather(1, index).reshape([count])
}

/// Lowest index of the largest entry other than `class`.
fn best_other(row: &[f32], class: usize) -> Option<usize> {
    let others = row.iter().enumerate().filter(|(j, _)| *j != class);
    others.reduce(|best, other| if other.1 > best.1 { other } else { best }).map(|(j, _)| j)
}

/// Indices by rising value, ties in the order of indices.
fn ascending(row: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[a].total_cmp(&row[b]));
    order
}

/// What the logits are divided by before a cross-entropy.
///
/// CLIP multiplies its cosines by 100; the softmax of a confident picture is then 1 in f32 and
/// its cross-entropy has no gradient. Margin and DLR do not need this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scale {
    /// Nothing: the logits as the victim gives them.
    #[default]
    Model,
    /// The difference of the two largest logits of the row (as a constant) where it exceeds 10.
    Auto,
    /// A positive number, such as the victim's own logit scale.
    By(f32),
}

impl Scale {
    /// The divided logits.
    pub fn apply(self, logits: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Model => logits,
            Self::By(divisor) => logits / divisor,
            Self::Auto => {
                let [batch, classes] = logits.dims();
                let numbers = host(logits.clone());
                let lead = |row: &[f32]| {
                    let order = ascending(row);
                    let lead = row[order[classes - 1]] - row[order[classes.saturating_sub(2)]];
                    if lead > 10.0 { lead } else { 1.0 }
                };
                let leads: Vec<f32> = numbers.chunks(classes.max(1)).map(lead).collect();
                let data = TensorData::new(leads, [batch, 1]);
                let device = logits.device();
                logits / Tensor::<2>::from_data(data, &device)
            }
        }
    }
}

impl TryFrom<String> for Scale {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "model" => Ok(Self::Model),
            "auto" => Ok(Self::Auto),
            other => match clipguard_data::spelling::number(other) {
                Some(divisor) if divisor > 0.0 => Ok(Self::By(divisor as f32)),
                _ => Err("expected model, auto or a positive number".to_owned()),
            },
        }
    }
}

impl From<Scale> for String {
    fn from(scale: Scale) -> Self {
        match scale {
            Scale::Model => "model".to_owned(),
            Scale::Auto => "auto".to_owned(),
            Scale::By(divisor) => clipguard_data::spelling::written(divisor),
        }
    }
}

/// Which class a targeted attack works towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// The class after the true one, cyclically.
    Next,
    /// The largest logit of the clean picture besides the true class.
    Likely,
    /// The n-th largest logit of the clean picture besides the true class, counted from 1.
    Ranked(usize),
    /// The smallest logit of the clean picture besides the true class.
    Least,
    /// A class drawn for each sample from its own stream.
    Random,
    /// One class for all; samples of that class are not attacked.
    Class(usize),
}

impl Target {
    /// The target of one sample from its clean logits.
    pub fn choose(self, clean: &[f32], label: usize, key: &str, seed: u64) -> usize {
        let classes = clean.len();
        let others = || ascending(clean).into_iter().filter(move |&class| class != label);
        match self {
            Self::Next => (label + 1) % classes.max(1),
            Self::Likely => best_other(clean, label).unwrap_or(label),
            Self::Ranked(rank) => others().rev().nth(rank.max(1) - 1).unwrap_or(label),
            Self::Least => others().next().unwrap_or(label),
            Self::Random => {
                let draw = Stream::keyed(seed, "attack-target", key).below(classes.max(2) - 1);
                (label + 1 + draw) % classes.max(1)
            }
            Self::Class(class) => class,
        }
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "next" => Ok(Self::Next),
            "likely" => Ok(Self::Likely),
            "least" => Ok(Self::Least),
            "random" => Ok(Self::Random),
            other => {
                let rank = other.strip_prefix("likely-").map(str::parse);
                match (rank, other.parse()) {
                    (Some(Ok(rank)), _) if rank > 0 => Ok(Self::Ranked(rank)),
                    (None, Ok(class)) => Ok(Self::Class(class)),
                    _ => Err("expected next, likely, likely-2 (and so on), least, random or the \
                              number of a class"
                        .to_owned()),
                }
            }
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        match target {
            Target::Next => "next".to_owned(),
            Target::Likely => "likely".to_owned(),
            Target::Ranked(rank) => format!("likely-{rank}"),
            Target::Least => "least".to_owned(),
            Target::Random => "random".to_owned(),
            Target::Class(class) => class.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn gradient(scale: Scale, loss: Loss) -> Vec<f32> {
        let z = Tensor::<2>::from_data([[90.0, 10.0, 5.0, 0.0]], &Device::flex());
        let z = z.autodiff().require_grad();
        let value = loss.rows(scale.apply(z.clone()), &Aim::leave(&[0]));
        host(z.grad_remove(&mut value.sum().backward()).unwrap())
    }

    #[test]
    fn a_saturated_cross_entropy_gets_its_gradient_back_by_scaling() {
        let size = |g: Vec<f32>| g.iter().map(|v| v.abs()).sum::<f32>();
        assert!(size(gradient(Scale::Model, Loss::Ce)) < 1e-30);
        assert!(size(gradient(Scale::Auto, Loss::Ce)) > 1e-3);
        assert!(size(gradient(Scale::By(100.0), Loss::Ce)) > 1e-3);
        assert_eq!(gradient(Scale::Model, Loss::Margin), [-1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn too_few_classes_fall_back_to_the_margin() {
        assert_eq!(Loss::Dlr.possible(2, false), Loss::Margin);
        assert_eq!(Loss::Dlr.possible(3, false), Loss::Dlr);
        assert_eq!(Loss::Dlr.possible(3, true), Loss::Margin);
        assert_eq!(Loss::Ce.possible(1, true), Loss::Ce);
    }

    #[test]
    fn targets_are_never_the_label_unless_asked_for() {
        let clean = [0.3, 2.0, -1.0, 2.0];
        assert_eq!(Target::Next.choose(&clean, 3, "k", 0), 0);
        assert_eq!(Target::Likely.choose(&clean, 1, "k", 0), 3);
        assert_eq!(Target::Least.choose(&clean, 2, "k", 0), 0);
        for label in 0..4 {
            for seed in 0..20 {
                assert_ne!(Target::Random.choose(&clean, label, "k", seed), label);
            }
        }
        assert_eq!(Target::Ranked(1).choose(&clean, 1, "k", 0), 3);
        assert_eq!(Target::Ranked(3).choose(&clean, 1, "k", 0), 2);
        assert!(Target::try_from("likely-0".to_owned()).is_err());
        for text in ["next", "likely", "likely-2", "least", "random", "7"] {
            let target = Target::try_from(text.to_owned()).unwrap();
            assert_eq!(String::from(target), text);
        }
    }
}
