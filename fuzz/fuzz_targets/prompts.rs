//! Files of templates and of class names.
#![no_main]

use clipguard_model::{ClassList, TemplateSet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(set) = TemplateSet::parse("fuzz", text) {
        assert!(set.prompts("cat").all(|prompt| prompt.contains("cat")));
    }
    if let Ok(list) = ClassList::parse("fuzz", text) {
        assert!(!list.names().is_empty());
    }
});
