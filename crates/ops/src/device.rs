//! Where to compute, spelled out.

use burn::tensor::Device;
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
use burn::tensor::DeviceKind;

/// The device of a spelling: `cpu`; `wgpu`, `vulkan` or `metal` for the best card the system shows, with
/// `:N` for its N-th one (from 0) and with `:cpu` for a driver that computes on the processor; `cuda` or
/// `cuda:N`. It is opened when it is first used, and the framework panics where there is none.
///
/// # Errors
/// What would be right, for another spelling and for a kind this program was built without.
///
/// # Example
/// ```
/// assert!(clipguard_ops::device("cpu").is_ok());
/// assert!(clipguard_ops::device("abacus").is_err());
/// ```
pub fn device(spelling: &str) -> Result<Device, String> {
    let (kind, which) = spelling.split_once(':').map_or((spelling, None), |(k, w)| (k, Some(w)));
    if kind == "cpu" && which.is_none() {
        return Ok(Device::flex());
    }
    let known = ["wgpu", "vulkan", "metal", "cuda"].contains(&kind);
    let number = which.is_none_or(|which| which.parse::<usize>().is_ok());
    if !known || !(number || (kind != "cuda" && which == Some("cpu"))) {
        return Err(
            "expected cpu, wgpu, vulkan, metal or cuda, all but the first with `:N` for their N-th card"
                .to_owned(),
        );
    }
    card(kind, which).ok_or_else(|| {
        format!("this program was built without it; build it with `--features {kind}`")
    })
}

#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
fn shown(which: Option<&str>) -> DeviceKind {
    match which {
        None => DeviceKind::DefaultDevice,
        Some("cpu") => DeviceKind::Cpu,
        Some(number) => DeviceKind::DiscreteGpu(number.parse().unwrap_or_default()),
    }
}

/// `None` for a kind this program was built without.
#[allow(unused_variables, reason = "without features nothing looks at the number")]
fn card(kind: &str, which: Option<&str>) -> Option<Device> {
    match kind {
        #[cfg(feature = "wgpu")]
        "wgpu" => Some(Device::wgpu(shown(which))),
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(Device::vulkan(shown(which))),
        #[cfg(feature = "metal")]
        "metal" => Some(Device::metal(shown(which))),
        #[cfg(feature = "cuda")]
        "cuda" => Some(Device::cuda(which.and_then(|n| n.parse().ok()).unwrap_or(0usize))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_checked() {
        assert_eq!(device("cpu").unwrap(), Device::flex());
        for wrong in ["", "cpu:0", "gpu", "vulkan:", "vulkan:first", "cuda:cpu", "metal:-1"] {
            let refusal = device(wrong).unwrap_err();
            assert!(refusal.contains("expected cpu, wgpu"), "{refusal}");
        }
        #[cfg(not(feature = "cuda"))]
        {
            let refusal = device("cuda:1").unwrap_err();
            assert!(refusal.contains("--features cuda"), "{refusal}");
        }
    }
}
