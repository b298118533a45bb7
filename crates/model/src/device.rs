//! Where to compute.

use crate::ModelError;
use burn::tensor::Device;
#[cfg(any(feature = "vulkan", feature = "metal"))]
use burn::tensor::DeviceKind;

/// The device of a spelling: `cpu`; `vulkan` or `metal` for the best card the system shows, with `:N`
/// for its N-th one (from 0) and with `:cpu` for a driver that computes on the processor; `cuda` or
/// `cuda:N`.
///
/// # Errors
/// Another spelling, a kind this program was built without, and a card that does not answer.
///
/// # Example
/// ```
/// assert!(clipguard_model::device("cpu").is_ok());
/// assert!(clipguard_model::device("abacus").is_err());
/// ```
pub fn device(spelling: &str) -> Result<Device, ModelError> {
    let (kind, which) = spelling.split_once(':').map_or((spelling, None), |(k, w)| (k, Some(w)));
    let refuse = |reason: String| ModelError::Device { spelling: spelling.to_owned(), reason };
    if kind == "cpu" && which.is_none() {
        return Ok(Device::flex());
    }
    let known = ["vulkan", "metal", "cuda"].contains(&kind);
    let number = which.is_none_or(|which| which.parse::<usize>().is_ok());
    if !known || !(number || (kind != "cuda" && which == Some("cpu"))) {
        return Err(refuse(
            "expected cpu, vulkan, metal or cuda, the last three with `:N` for their N-th card"
                .to_owned(),
        ));
    }
    let Some(device) = card(kind, which) else {
        return Err(refuse(format!(
            "this program was built without it; build it with `--features {kind}`"
        )));
    };
    // The framework opens a card when it is first used, and panics where there is none.
    match clipguard_data::contained::contained(|| answers(&device)) {
        Some(true) => Ok(device),
        Some(false) => Err(refuse("computes nonsense".to_owned())),
        None => Err(refuse("no such card answers; is its driver installed?".to_owned())),
    }
}

#[cfg(any(feature = "vulkan", feature = "metal"))]
fn shown(which: Option<&str>) -> DeviceKind {
    match which {
        None => DeviceKind::DefaultDevice,
        Some("cpu") => DeviceKind::Cpu,
        Some(number) => DeviceKind::DiscreteGpu(number.parse().unwrap_or_default()),
    }
}

/// The device, not opened yet; `None` for a kind this program was built without.
#[allow(unused_variables, reason = "without features nothing looks at the number")]
fn card(kind: &str, which: Option<&str>) -> Option<Device> {
    match kind {
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(Device::vulkan(shown(which))),
        #[cfg(feature = "metal")]
        "metal" => Some(Device::metal(shown(which))),
        #[cfg(feature = "cuda")]
        "cuda" => Some(Device::cuda(which.and_then(|n| n.parse().ok()).unwrap_or(0usize))),
        _ => None,
    }
}

/// Whether two and two are four there.
fn answers(device: &Device) -> bool {
    let two = burn::tensor::Tensor::<1>::from_floats([2.0], device);
    (two.clone() + two).into_scalar::<f32>() == 4.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_checked() {
        assert_eq!(device("cpu").unwrap(), Device::flex());
        for wrong in ["", "cpu:0", "gpu", "vulkan:", "vulkan:first", "cuda:cpu", "metal:-1"] {
            let refusal = device(wrong).unwrap_err().to_string();
            assert!(refusal.contains("expected cpu, vulkan"), "{refusal}");
        }
        #[cfg(not(feature = "cuda"))]
        {
            let refusal = device("cuda:1").unwrap_err().to_string();
            assert!(refusal.contains("--features cuda"), "{refusal}");
        }
    }
}
