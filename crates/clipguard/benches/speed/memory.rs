//! How much memory a call needs at its peak, as Linux counts it.

use std::fs;

/// A field of `/proc/self/status` in bytes.
fn status(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    1024 * line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
}

/// Bytes beyond what is resident before the call.
pub(crate) fn peak(call: &mut impl FnMut()) -> u64 {
    let before = status("VmRSS:");
    // Sets the peak back to what is resident now.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    call();
    status("VmHWM:").saturating_sub(before)
}
