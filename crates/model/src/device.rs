//! A place to compute that answers.

use crate::ModelError;
use burn::tensor::{Device, Tensor};
use clipguard_data::contained::contained;

/// The device of a spelling such as `cpu` or `vulkan:1` (see [`clipguard_ops::device`]), opened.
///
/// # Errors
/// Another spelling, a kind this program was built without, and a card that does not answer.
pub fn device(spelling: &str) -> Result<Device, ModelError> {
    let refuse = |reason: &str| ModelError::Device {
        spelling: spelling.to_owned(),
        reason: reason.to_owned(),
    };
    let device = clipguard_ops::device(spelling).map_err(|reason| refuse(&reason))?;
    let two_and_two = || {
        let two = Tensor::<1>::from_floats([2.0], &device);
        (two.clone() + two).into_scalar::<f32>()
    };
    match contained(two_and_two) {
        Some(4.0) => Ok(device),
        Some(_) => Err(refuse("computes nonsense")),
        None => Err(refuse("no such card answers; is its driver installed?")),
    }
}
