//! ResNet-18 in the plan for small pictures (a 3x3 stem without pooling), composed of the operations:
//! the family of this program has ModifiedResNets only, and this is what people time.

use burn::tensor::{Device, Tensor, TensorData};
use clipguard_data::Stream;
use clipguard_ops::{self as ops, BatchNorm, ColumnStatistics, Precision, Weight};

use crate::{
    Case,
    towers::{Work, finish, pixels},
};

/// Makes parameters and keeps them flat, as leaves where they learn.
struct Maker {
    device: Device,
    learns: bool,
    stream: Stream,
    leaves: Vec<Tensor<1>>,
}

impl Maker {
    fn flat(&mut self, values: Vec<f32>) -> Tensor<1> {
        let size = values.len();
        let leaf = Tensor::<1>::from_data(TensorData::new(values, [size]), &self.device);
        let leaf = if self.learns { leaf.require_grad() } else { leaf };
        self.leaves.push(leaf.clone());
        leaf
    }

    fn layer(&mut self, inputs: usize, out: usize, kernel: usize, stride: usize) -> Layer {
        let bound = 1.0 / ((inputs * kernel * kernel) as f32).sqrt();
        let count = out * inputs * kernel * kernel;
        let values = (0..count).map(|_| self.stream.within(-bound, bound)).collect();
        let weight = self.flat(values);
        let filters = weight.clone().reshape([out, inputs, kernel, kernel]);
        Layer {
            leaf: weight,
            weight: Weight::filters(filters, stride, kernel / 2, Precision::F32),
            gamma: self.flat(vec![1.0; out]),
            beta: self.flat(vec![0.0; out]),
            running: ColumnStatistics {
                mean: Tensor::zeros([out], &Device::flex()),
                variance: Tensor::ones([out], &Device::flex()),
            },
        }
    }
}

struct Layer {
    /// The filters, flat.
    leaf: Tensor<1>,
    weight: Weight<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    running: ColumnStatistics,
}

impl Layer {
    fn forward(
        &self,
        x: Tensor<4>,
        of_batch: bool,
        relu: bool,
        shortcut: Option<Tensor<4>>,
    ) -> Tensor<4> {
        let (statistics, gamma, beta) = (&self.running, &self.gamma, &self.beta);
        let norm = BatchNorm { statistics, gamma, beta, eps: 1e-5, of_batch, relu };
        if !of_batch {
            return ops::conv2d_norm(x, &self.weight, norm, shortcut);
        }
        let (stride, pad) = self.weight.window();
        let weight = self.leaf.clone().reshape(self.weight.tensor().dims());
        let x = ops::conv2d(x, weight, stride, pad);
        let statistics = &ops::column_statistics(&x);
        ops::batch_norm(x, BatchNorm { statistics, ..norm }, shortcut)
    }
}

struct Block {
    first: Layer,
    second: Layer,
    shortcut: Option<Layer>,
}

pub(crate) fn case(batch: usize, work: Work) -> Case {
    let of_batch = work == Work::Parameters;
    let device = match work {
        Work::Forward => Device::flex(),
        _ => Device::flex().autodiff(),
    };
    let stream = Stream::counted(0, "resnet-18", 0);
    let mut maker = Maker { device: device.clone(), learns: of_batch, stream, leaves: Vec::new() };
    let stem = maker.layer(3, 64, 3, 1);
    let mut blocks = Vec::new();
    let mut inputs = 64;
    for (stage, out) in [64, 128, 256, 512].into_iter().enumerate() {
        for block in 0..2 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            blocks.push(Block {
                first: maker.layer(inputs, out, 3, stride),
                second: maker.layer(out, out, 3, 1),
                shortcut: (inputs != out).then(|| maker.layer(inputs, out, 1, stride)),
            });
            inputs = out;
        }
    }
    let (head, bias) = (maker.flat(vec![0.01; 5_120]), maker.flat(vec![0.0; 10]));
    let leaves = maker.leaves;
    let x = pixels(batch, 32, &device);
    Box::new(move || {
        let x = match work {
            Work::Pixels => x.clone().require_grad(),
            _ => x.clone(),
        };
        let mut y = stem.forward(x.clone().permute([0, 2, 3, 1]), of_batch, true, None);
        for block in &blocks {
            let straight = match &block.shortcut {
                Some(layer) => layer.forward(y.clone(), of_batch, false, None),
                None => y.clone(),
            };
            let bent = block.first.forward(y, of_batch, true, None);
            y = block.second.forward(bent, of_batch, true, Some(straight));
        }
        let pooled = y.mean_dims(&[1, 2]).reshape([batch, 512]);
        let z = ops::linear(pooled, head.clone().reshape([10, 512]), Some(bias.clone()));
        finish(z, &x, &leaves, work);
    })
}
