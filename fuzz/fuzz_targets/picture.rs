//! Pictures: every format that is decoded.
#![no_main]

use clipguard_data::{Limits, Picture};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    clipguard_fuzz::prepare();
    if let Ok(decoded) = Picture::decode(bytes, &LIMITS) {
        let picture = decoded.into_picture();
        assert_eq!(picture.rgb.len(), picture.width as usize * picture.height as usize * 3);
        assert!(u64::from(picture.width) * u64::from(picture.height) <= LIMITS.pixels);
    }
});

/// Small enough that a header alone cannot make a run slow.
const LIMITS: Limits = Limits { pixels: 1 << 20, side: 4096, bytes: 1 << 20 };
