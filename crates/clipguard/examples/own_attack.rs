//! An attack of one's own: a loss and a step rule on the library's descent.
//!
//! The skeleton ([`Descent`]) chooses whom to attack, keeps the best point, brings it inside budget
//! and box and puts it to the victim once more. What is new about an attack is all there is to
//! write: here the loss is the log-odds of any wrong answer, whose gradient does not vanish when
//! the softmax is saturated, and the step length falls along a half cosine.
//!
//! `cargo run --release --example own_attack`

use clipguard::{
    attack::{
        Attack, Attacked, Batch, Keep, Norm, Terms,
        descent::{Bookkeeping, Descent, Rule, View},
        loss::Aim,
        parse,
    },
    burn::tensor::{Device, Tensor, TensorData},
    data::{
        Options, open, parameters,
        spelling::{Parameters, Spelling},
    },
    evaluate::{Classifier, Subset, classifier::template_set},
    model::{Checkpoint, Victim},
};
use std::{error::Error, f32::consts::PI};

parameters! {
    /// Sign descent on the log-odds with a falling step length.
    struct LogOdds {
        /// Radius of the Linf budget, in pixel units.
        eps: f32 = 2.0 / 255.0,
        /// Steps; the first one has the length eps.
        steps: usize = 10,
    }
}

impl Attack for LogOdds {
    fn run(&self, victim: &dyn Victim, batch: &Batch<'_>, seed: u64) -> Attacked {
        Descent {
            terms: Terms::ball(Norm::Linf, self.eps, Keep::Best, None),
            steps: self.steps,
            restarts: 1,
            scouting: 0,
            towards: &[],
            draws: 1,
            bookkeeping: Bookkeeping::Mean,
            early_exit: true,
            flag_zero_starts: false,
            objective: &log_odds,
            through: None,
            opening: &|clean, _keys, _restart| clean.clone(),
            rule: &|_keys, _restart| Box::new(Cosine { settings: self.clone(), done: 0 }),
        }
        .run(victim, batch, seed)
    }

    /// The name under which the attack stands in records.
    fn spelling(&self) -> Spelling {
        self.spelled("log-odds")
    }
}

/// `log sum_{j != y} exp z_j - z_y` of each row, `[batch]`: positive where a wrong answer is likelier
/// than the right one.
fn log_odds(logits: Tensor<2>, aim: &Aim<'_>) -> Tensor<1> {
    let [rows, classes] = logits.dims();
    let mut truth = vec![0.0f32; rows * classes];
    aim.labels.iter().enumerate().for_each(|(row, label)| truth[row * classes + label] = 1.0);
    let truth = Tensor::<2>::from_data(TensorData::new(truth, [rows, classes]), &logits.device());
    let right = (logits.clone() * truth.clone()).sum_dim(1);
    // Low enough that the right class has no part in the sum of the others.
    let wrong = logits - truth * 1e4;
    let top = wrong.clone().detach().max_dim(1);
    let wrong = (wrong - top.clone()).exp().sum_dim(1).log() + top;
    (wrong - right).reshape([rows])
}

/// Steps along the sign of the gradient, `eps (1 + cos(pi t / steps)) / 2` long.
struct Cosine {
    settings: LogOdds,
    done: usize,
}

impl Rule for Cosine {
    fn step(&mut self, view: &View<'_>) -> Tensor<4> {
        let LogOdds { eps, steps } = self.settings;
        let length = eps * 0.5 * (1.0 + (PI * self.done as f32 / steps as f32).cos());
        self.done += 1;
        let direction = Norm::Linf.steepest(view.gradient.clone());
        Norm::Linf.confine(view.clean, view.point.clone() + direction * length, eps)
    }

    /// Nothing is remembered of single samples.
    fn retain(&mut self, _rows: &[usize]) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    compare().map(|_| ())
}

/// The attack beside one of the catalogue, on the same pictures with the same budget.
fn compare() -> Result<[Attacked; 2], Box<dyn Error>> {
    let device = Device::flex();
    let source = open("scenes:840:part=instyle", &Options::default())?;
    let classes = source.classes().ok_or("the source has no classes")?;
    let model = Checkpoint::open("embedded")?;
    let classifier = Classifier::new(&model, classes, &template_set("scenes")?, &device)?;
    let samples = Subset::of(source.as_ref(), 24, classifier.clip.preprocess(), &device, 0)?;
    let victim = classifier.defended(&[], None)?;
    let batch =
        Batch { pixels: samples.pixels.clone(), labels: &samples.labels, keys: &samples.keys };

    let own = LogOdds { eps: 0.5 / 255.0, ..LogOdds::default() }.run(&victim, &batch, 0);
    let fgsm = parse("fgsm:eps=0.5/255")?.run(&victim, &batch, 0);
    for (name, attacked) in [("fgsm", &fgsm), ("log-odds", &own)] {
        let clean = attacked.correct.iter().filter(|correct| **correct).count();
        let robust = attacked.robust_accuracy() * samples.len() as f32;
        let largest = attacked.norm.iter().fold(0.0f32, |a, b| a.max(*b)) * 255.0;
        println!("{name:<8}: {clean} right, {robust:.0} after it; changes up to {largest:.2}/255");
    }
    Ok([fgsm, own])
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_breaks_as_much_as_one_step_does_and_keeps_its_budget() {
        let [fgsm, own] = super::compare().expect("the attacks run");
        assert!(own.robust_accuracy() <= fgsm.robust_accuracy());
        assert!(own.success.iter().zip(&own.correct).any(|(broken, correct)| *broken && *correct));
        assert!(own.norm.iter().all(|size| *size <= 0.5 / 255.0 + 1e-6));
    }
}
