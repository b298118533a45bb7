//! A place to compute that answers.

use crate::ModelError;
use burn::tensor::{Device, Tensor};
use clipguard_data::contained::contained;
use std::{sync::mpsc, thread, time::Duration};

/// How long a card may take for its first small product, compiling it included.
const PATIENCE: Duration = Duration::from_secs(120);

/// The device of a spelling such as `cpu` or `wgpu:1` (see [`clipguard_ops::device`]), opened.
///
/// # Errors
/// Another spelling, a kind this program was built without, and a card that does not answer, answers
/// wrongly, or does not come back from a small product (Mesa's software driver does not).
pub fn device(spelling: &str) -> Result<Device, ModelError> {
    let refuse = |reason: &str| ModelError::Device {
        spelling: spelling.to_owned(),
        reason: reason.to_owned(),
    };
    let device = clipguard_ops::device(spelling).map_err(|reason| refuse(&reason))?;
    if device == Device::flex() {
        return Ok(device);
    }
    // On a thread of its own: who waits for a card that hangs cannot be stopped.
    let (tell, told) = mpsc::channel();
    let asked = device.clone();
    thread::spawn(move || tell.send(contained(|| product(&asked))));
    match told.recv_timeout(PATIENCE) {
        Ok(Some(PRODUCT)) => Ok(device),
        Ok(Some(_)) => Err(refuse("computes nonsense")),
        Ok(None) => Err(refuse("no such card answers; is its driver installed?")),
        Err(_) => Err(refuse("does not come back from a small product of matrices")),
    }
}

/// The sum of the entries of `2 A A^T` with `A` three rows of five ones.
const PRODUCT: f32 = 90.0;

fn product(device: &Device) -> f32 {
    let ones = Tensor::<2>::ones([3, 5], device);
    (ones.clone().matmul(ones.transpose()) * 2.0).sum().into_scalar()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_answered_on_the_processor() {
        assert_eq!(product(&Device::flex()), PRODUCT);
        assert_eq!(device("cpu").unwrap(), Device::flex());
    }
}
