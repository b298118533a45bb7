//! Gaussian noise on pictures, each row from a stream of its own.
//!
//! Training with noise, averaging over noise and certifying under noise must mean the same noise,
//! or a certificate would be about another classifier than the one that was trained.

use burn::tensor::{Tensor, TensorData};
use clipguard_data::Stream;

/// `pixels + sigma * n` with standard normal `n`, `[batch, 3, height, width]`; row `i` depends on
/// `seed`, `purpose` and `keys[i]` alone.
///
/// The sum is not brought back to `[0, 1]`: what is proved of a smoothed classifier (Cohen et al.
/// 2019) holds for noise that nobody cut off.
///
/// # Panics
/// When there are not as many keys as rows.
pub fn noisy(
    pixels: &Tensor<4>,
    sigma: f64,
    seed: u64,
    purpose: &str,
    keys: &[String],
) -> Tensor<4> {
    let shape = pixels.dims();
    assert_eq!(keys.len(), shape[0], "one key a row");
    let entries = shape[1..].iter().product::<usize>();
    let mut values = Vec::with_capacity(shape[0] * entries);
    for key in keys {
        let mut stream = Stream::keyed(seed, purpose, key);
        values.extend((0..entries).map(|_| (f64::from(stream.normal()) * sigma) as f32));
    }
    // The noise is a constant, also where the pixels are tracked.
    let device = pixels.device().inner();
    let noise = Tensor::<4>::from_data(TensorData::new(values, shape), &device);
    pixels.clone() + noise
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn noise_has_its_size_and_belongs_to_the_key() {
        let keys = ["a", "b"].map(str::to_owned);
        let grey = Tensor::<4>::full([2, 3, 40, 40], 0.5, &Device::flex());
        let host = |x: Tensor<4>| x.into_data().try_to_vec::<f32>().unwrap();
        let both = host(noisy(&grey, 0.25, 1, "test", &keys));
        let mean = both.iter().map(|v| f64::from(*v)).sum::<f64>() / both.len() as f64;
        let square = |v: &f32| (f64::from(*v) - mean).powi(2);
        let deviation = (both.iter().map(square).sum::<f64>() / both.len() as f64).sqrt();
        assert!((mean - 0.5).abs() < 0.01 && (deviation - 0.25).abs() < 0.01);
        assert!(both.iter().any(|v| *v < 0.0), "nothing is cut off");
        let alone = host(noisy(&grey.clone().narrow(0, 1, 1), 0.25, 1, "test", &keys[1..]));
        assert_eq!(alone, both[4800..]);
        assert_ne!(host(noisy(&grey, 0.25, 1, "other", &keys)), both);
        assert_eq!(host(noisy(&grey, 0.0, 1, "test", &keys)), host(grey));
    }

    #[test]
    fn gradients_pass_the_noise_as_if_it_were_not_there() {
        let leaf = Tensor::<4>::zeros([1, 3, 2, 2], &Device::flex()).autodiff().require_grad();
        let sum = noisy(&leaf, 1.0, 0, "test", &["a".to_owned()]).sum();
        let gradient = leaf.grad_remove(&mut sum.backward()).unwrap();
        assert_eq!(gradient.into_data().try_to_vec::<f32>().unwrap(), [1.0; 12]);
    }
}
