//! How much memory a call needs at its peak, as Linux counts it.

use std::fs;

/// A field of `/proc/self/status` in bytes.
fn status(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    1024 * line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
}

/// The most bytes that were resident during the call, with all that lay there before: what the allocator
/// has kept from the making of the weights is used again, so a difference would flatter.
pub(crate) fn peak(call: &mut impl FnMut()) -> u64 {
    // Sets the peak back to what is resident now.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    call();
    status("VmHWM:")
}
