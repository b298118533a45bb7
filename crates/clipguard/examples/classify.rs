//! Load a model and classify pictures: the stages of the library from a source to an answer.
//!
//! The embedded model names what is in forty drawn scenes, among 210 names. Its card says that it
//! gets 57 % of such scenes right; the interval printed here should hold that.
//!
//! `cargo run --release --example classify`

use clipguard::{
    burn::tensor::Device,
    data::{Options, open},
    evaluate::{Classification, Classifier, Interval, Subset, argmax, classifier::template_set},
    model::Checkpoint,
};
use std::error::Error;

/// Pictures to classify.
const SAMPLES: usize = 40;

fn main() -> Result<(), Box<dyn Error>> {
    let right = classify()?;
    let interval = Interval::wilson(right, SAMPLES, 0.95);
    println!("{right} of {SAMPLES} right, 95 % interval {:.2}-{:.2}", interval.low, interval.high);
    Ok(())
}

/// Prints the answers and counts those that are right.
fn classify() -> Result<usize, Box<dyn Error>> {
    let device = Device::flex();
    // A source is opened by its spelling: a folder, `pairs.tar` or `cifar10:PATH` work the same way.
    let source = open("scenes:840:part=instyle", &Options::default())?;
    let classes = source.classes().ok_or("the source has no classes")?;
    let model = Checkpoint::open("embedded")?;
    // Every class name is put into the templates; the mean embedding of its texts is its column.
    let classifier = Classifier::new(&model, classes, &template_set("scenes")?, &device)?;
    // Chosen by the hash of their keys, never the first ones of a sorted source; decoded and resized
    // as this model wants them, to pixels in [0, 1].
    let preprocess = classifier.clip.preprocess();
    let samples = Subset::of(source.as_ref(), SAMPLES, preprocess, &device, 0)?;
    // No defence: `classifier.defended(&["clipure-cos".to_owned()], None)` puts one in front.
    let victim = classifier.defended(&[], None)?;
    let logits = classifier.logits(&victim, &samples.pixels, &samples.keys, 32);
    let probabilities = classifier.probabilities(&logits);

    println!("{:<18} {:<22} {:<22} probability", "sample", "shows", "answer");
    for (i, row) in probabilities.chunks_exact(classes.len()).enumerate() {
        let Some(answer) = argmax(row) else { continue };
        let (key, truth) = (&samples.keys[i], &classes[samples.labels[i]]);
        println!("{key:<18} {truth:<22} {:<22} {:.2}", classes[answer], row[answer]);
    }
    let found = Classification::new(&logits, classes.len(), &samples.labels)?;
    Ok(found.right(&samples.labels).iter().filter(|right| **right).count())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_share_of_right_answers_is_that_of_the_models_card() {
        let right = super::classify().expect("the embedded model classifies drawn scenes");
        let interval = super::Interval::wilson(right, super::SAMPLES, 0.999);
        assert!(interval.low < 0.57 && 0.57 < interval.high, "{right} of {}", super::SAMPLES);
    }
}
