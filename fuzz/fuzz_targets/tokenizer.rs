//! Captions: cleaning and byte-pair encoding.
#![no_main]

use clipguard_model::Tokenizer;
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

fuzz_target!(|text: &str| {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    let tokenizer = TOKENIZER.get_or_init(Tokenizer::clip);
    let row = tokenizer.row(text, 77);
    assert_eq!(row.len(), 77);
    assert!(row.iter().all(|id| (*id as usize) < 49408));
});
