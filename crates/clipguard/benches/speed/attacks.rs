//! Attacks: what a step of PGD costs beside the two passes it needs, and AutoAttack.

#[path = "../../../../tests/golden/reader.rs"]
mod reader;

use burn::tensor::{
    DType, Device, Int, Tensor, TensorData,
    activation::{log_softmax, relu},
};
use clipguard_attack::{AutoAttack, Batch, parse};
use clipguard_data::{Options, Stream, open};
use clipguard_evaluate::{Classifier, Subset, classifier::template_set};
use clipguard_model::{
    Architecture, Array, Checkpoint, Clip, Precision, Preprocess, Query, Victim, Weights,
    normalise, parameters::initial_weights, weights::write_safetensors,
};
use clipguard_ops as ops;
use clipguard_purify::Defended;
use reader::{Golden, numbers};
use std::path::PathBuf;

use crate::{Case, towers::pixels};

const CLASSES: usize = 10;
const ROWS: usize = 8;

/// ViT-B-32 with random weights and a random head, and as labels what it says.
fn classifier() -> (Defended<Clip>, Tensor<4>, Vec<usize>) {
    let device = Device::flex();
    let architecture = Architecture::named("ViT-B-32").unwrap();
    let weights = initial_weights(&architecture, 0);
    let clip = Clip::new(&architecture, &Preprocess::openai(224), &weights, &device).unwrap();
    let mut stream = Stream::counted(0, "head", 0);
    let values: Vec<f32> = (0..CLASSES * 512).map(|_| stream.normal()).collect();
    let head = Tensor::from_data(TensorData::new(values, [CLASSES, 512]), &device);
    let victim = Defended::new(clip, normalise(head).transpose(), 100.0);
    let x = pixels(ROWS, 224, &device);
    let keys = keys();
    let said = victim.logits(Query { pixels: x.clone(), keys: &keys, draw: 0 }).argmax(1);
    let labels = said.into_data().iter::<i64>().map(|label| label as usize).collect();
    (victim, x, labels)
}

fn keys() -> Vec<String> {
    (0..ROWS).map(|row| row.to_string()).collect()
}

/// Pictures of an AutoAttack run.
const PICTURES: usize = 64;

/// Where the peer finds pictures, labels and head, and where flags are left.
fn room() -> PathBuf {
    std::env::var_os("SPEED_ROOM").expect("SPEED_ROOM names a folder").into()
}

/// The golden network, `Conv(1, 8, 3) - ReLU - Conv(8, 16, 3, stride 2) - ReLU - Linear(1024, 10)` on
/// `(x - .5) / .5`, of this program's operations.
struct Cnn {
    conv: [(Tensor<4>, Tensor<1>); 2],
    fc: (Tensor<2>, Tensor<1>),
}

impl Cnn {
    fn load(file: &Golden) -> Self {
        let conv = |name: &str| {
            let weight = file.tensor(&format!("cnn.{name}.weight"), DType::F32);
            (weight, file.tensor(&format!("cnn.{name}.bias"), DType::F32))
        };
        // Inside, pictures are channels-last: the columns of the last layer change their order.
        let weight: Tensor<2> = file.tensor("cnn.fc.weight", DType::F32);
        let weight = weight.reshape([10, 16, 8, 8]).permute([0, 2, 3, 1]).reshape([10, 1024]);
        let fc = (weight, file.tensor("cnn.fc.bias", DType::F32));
        Self { conv: [conv("conv1"), conv("conv2")], fc }
    }
}

impl Victim for Cnn {
    fn classes(&self) -> usize {
        10
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        let [batch, ..] = query.pixels.dims();
        let mut x = ((query.pixels - 0.5) / 0.5).permute([0, 2, 3, 1]);
        for ((weight, bias), stride) in self.conv.iter().zip([1, 2]) {
            let y = ops::conv2d(x, weight.clone(), stride, 1);
            x = relu(y + bias.clone().unsqueeze());
        }
        ops::linear(x.reshape([batch, 1024]), self.fc.0.clone(), Some(self.fc.1.clone()))
    }
}

/// A victim, its pictures and their labels.
struct Scene {
    victim: Box<dyn Victim>,
    pixels: Tensor<4>,
    labels: Vec<usize>,
    keys: Vec<String>,
    eps: &'static str,
}

/// The golden network on its pictures, or the embedded model on scenes; the latter's pictures, labels
/// and head are written for the peer.
fn scene(model: &str) -> Scene {
    if model == "cnn" {
        let file = Golden::open("attacks", "models");
        return Scene {
            victim: Box::new(Cnn::load(&file)),
            pixels: file.tensor("x1", DType::F32),
            labels: file.integers("y"),
            keys: (0..PICTURES).map(|i| i.to_string()).collect(),
            eps: "0.15",
        };
    }
    let device = Device::flex();
    let source = open("scenes:840:part=instyle", &Options::default()).unwrap();
    let checkpoint = Checkpoint::embedded().unwrap();
    let templates = template_set("scenes").unwrap();
    let classes = source.classes().unwrap();
    let classifier = Classifier::new(&checkpoint, classes, &templates, &device).unwrap();
    let preprocess = classifier.clip.preprocess();
    let samples = Subset::of(source.as_ref(), PICTURES, preprocess, &device, 0).unwrap();
    let values = |shape: &[usize], values: Vec<f64>| {
        Array::new(shape.to_vec(), values.into_iter().map(|v| v as f32).collect())
    };
    let head = classifier.head.matrix.clone();
    let scale = f64::from(classifier.clip.scale());
    let labels = samples.labels.iter().map(|label| *label as f64).collect();
    let written = Weights::from([
        ("pixels".into(), values(&samples.pixels.dims(), numbers(samples.pixels.clone()))),
        ("head".into(), values(&head.dims(), numbers(head.clone()))),
        ("labels".into(), values(&[PICTURES], labels)),
        ("scale".into(), values(&[1], vec![scale])),
    ]);
    write_safetensors(&room().join("scene.safetensors"), &written, Precision::F32, None).unwrap();
    checkpoint.save(&room().join("embedded"), Precision::F32).unwrap();
    Scene {
        victim: Box::new(classifier.defended(&[], None).unwrap()),
        pixels: samples.pixels,
        labels: samples.labels,
        keys: samples.keys,
        eps: "0.5/255",
    }
}

/// AutoAttack `standard`; who survives is left in `flags.json`.
fn autoattack(model: &str, seed: u64) -> Case {
    let Scene { victim, pixels, labels, keys, eps } = scene(model);
    let spelling = format!("autoattack:eps={eps}").parse().unwrap();
    let attack = AutoAttack::from_spelling(&spelling).unwrap();
    Box::new(move || {
        let batch = Batch { pixels: pixels.clone(), labels: &labels, keys: &keys };
        let found = clipguard_attack::Attack::run(&attack, victim.as_ref(), &batch, seed);
        let left: Vec<bool> =
            (0..PICTURES).map(|i| found.correct[i] && !found.success[i]).collect();
        let text = serde_json::json!({ "clean": found.correct, "robust": left });
        std::fs::write(room().join("flags.json"), text.to_string()).unwrap();
    })
}

/// `passes-N` is N times one forward and one backward pass of the victim, as bare as they can be
/// written; `pgd-N` an attack of N steps on pictures that it cannot break, so that no row leaves the
/// batch.
pub(crate) fn case(work: &str, model: &str) -> Case {
    if let Some(seed) = work.strip_prefix("autoattack-") {
        return autoattack(model, seed.parse().unwrap());
    }
    assert_eq!(model, "vit-b-32");
    let (victim, x, labels) = classifier();
    let keys = keys();
    let (kind, count) = work.split_once('-').expect("passes-N or pgd-N");
    if kind == "passes" {
        let count: usize = count.parse().unwrap();
        let picked: Vec<i64> = labels.iter().map(|label| *label as i64).collect();
        let pass = move || {
            let x = x.clone().autodiff().require_grad();
            let z = victim.logits(Query { pixels: x.clone(), keys: &keys, draw: 0 });
            let data = TensorData::new(picked.clone(), [ROWS, 1]);
            let at = Tensor::<2, Int>::from_data(data, &z.device());
            let loss = -log_softmax(z, 1).gather(1, at).sum();
            drop(x.grad(&loss.backward()).unwrap().into_data());
        };
        return Box::new(move || (0..count).for_each(|_| pass()));
    }
    assert_eq!(kind, "pgd");
    let attack = parse(&format!("pgd:eps=1e-6,alpha=1e-7,steps={count}")).unwrap();
    Box::new(move || {
        let batch = Batch { pixels: x.clone(), labels: &labels, keys: &keys };
        let found = attack.run(&victim, &batch, 0);
        assert!(found.success.iter().all(|broken| !broken), "a row left the batch");
    })
}
