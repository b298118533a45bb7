//! A defence of one's own, measured by an attack that differentiates through it.
//!
//! The purifier blurs the picture in front of the encoder. It is written with tensor functions, so
//! its exact gradient comes with it, and a defended model is a victim like any other: the attack
//! needs no line about the defence. Pictures that were made without the defence are put to it, too.
//! The first number looks like robustness; the second is what is left of it.
//!
//! `cargo run --release --example own_purifier`

use clipguard::{
    attack::{Attack, Batch, Pgd},
    burn::tensor::{Device, Tensor, TensorData},
    data::{
        Options, open, parameters,
        spelling::{Parameters, Spelling},
    },
    evaluate::{Classifier, Subset, argmax, classifier::template_set},
    model::{Checkpoint, Victim},
    purify::{Defended, Purifier},
};
use std::error::Error;

parameters! {
    /// A blur with the kernel `[side, 1 - 2 side, side]` in both directions.
    struct Blur {
        /// Weight of each neighbour, between 0 (the picture as it is) and 1/3 (their mean).
        side: f32 = 0.25,
    }
}

impl Blur {
    /// The blur along a line of `n` pixels as a matrix `[1, 1, n, n]`; rows add up to 1, so that
    /// pixels stay in `[0, 1]`.
    fn matrix(&self, n: usize, device: &Device) -> Tensor<4> {
        let mut rows = vec![0.0f32; n * n];
        for i in 0..n {
            // The border repeats itself.
            let (before, behind) = (i.saturating_sub(1), (i + 1).min(n - 1));
            rows[i * n + before] += self.side;
            rows[i * n + i] += 1.0 - 2.0 * self.side;
            rows[i * n + behind] += self.side;
        }
        Tensor::from_data(TensorData::new(rows, [1, 1, n, n]), device)
    }
}

impl Purifier for Blur {
    fn pixels(&self, pixels: Tensor<4>, _keys: &[String], _draw: u64) -> Tensor<4> {
        let [_, _, height, width] = pixels.dims();
        let device = pixels.device();
        let along = self.matrix(width, &device).transpose();
        self.matrix(height, &device).matmul(pixels).matmul(along)
    }

    fn needs_pictures(&self) -> bool {
        true
    }

    fn spelling(&self) -> Spelling {
        self.spelled("blur")
    }
}

/// Pictures of so many that are answered rightly.
#[derive(Debug)]
struct Right {
    undefended: usize,
    clean: usize,
    transferred: usize,
    adaptive: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    measure().map(|_| ())
}

fn measure() -> Result<Right, Box<dyn Error>> {
    let device = Device::flex();
    let source = open("scenes:840:part=instyle", &Options::default())?;
    let classes = source.classes().ok_or("the source has no classes")?;
    let model = Checkpoint::open("embedded")?;
    let classifier = Classifier::new(&model, classes, &template_set("scenes")?, &device)?;
    let samples = Subset::of(source.as_ref(), 32, classifier.clip.preprocess(), &device, 0)?;
    let batch =
        Batch { pixels: samples.pixels.clone(), labels: &samples.labels, keys: &samples.keys };
    let right = |victim: &dyn Victim, pixels: &Tensor<4>| {
        let logits = classifier.logits(victim, pixels, &samples.keys, 32);
        let answers = logits.chunks_exact(classes.len()).map(argmax);
        answers.zip(&samples.labels).filter(|(answer, label)| *answer == Some(**label)).count()
    };

    let plain = classifier.defended(&[], None)?;
    let head = classifier.head.matrix.clone();
    let blur = Blur::default();
    let spelling = blur.spelling();
    let defended = Defended::new(classifier.clip.clone(), head, classifier.clip.scale()).with(blur);
    let attack = Pgd { eps: 1.0 / 255.0, steps: 10, ..Pgd::default() };
    let unaware = attack.run(&plain, &batch, 0).pixels;
    let aware = attack.run(&defended, &batch, 0).pixels;
    let found = Right {
        undefended: right(&plain, &unaware),
        clean: right(&defended, &batch.pixels),
        transferred: right(&defended, &unaware),
        adaptive: right(&defended, &aware),
    };
    println!(
        "right of {} pictures, {} against {spelling}",
        samples.len(),
        attack.spelling().name()
    );
    println!("no defence, attacked            {:>3}", found.undefended);
    println!("defended, clean                 {:>3}", found.clean);
    println!("defended, attack unaware of it  {:>3}", found.transferred);
    println!("defended, attack through it     {:>3}", found.adaptive);
    Ok(found)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_exact_gradient_takes_away_what_the_unaware_attack_left() {
        let found = super::measure().expect("the measurement runs");
        assert!(found.transferred > found.undefended, "{found:?}");
        assert!(found.adaptive < found.transferred, "{found:?}");
    }
}
