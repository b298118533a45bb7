//! Recipes of training and plans of evaluation.
#![no_main]

use clipguard_evaluate::Plan;
use clipguard_train::Recipe;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    let at = Path::new("fuzz.toml");
    if let Ok(plan) = Plan::parse(text, at) {
        // What was read is written and read again as the same.
        assert_eq!(Plan::parse(&plan.to_toml(), at).ok(), Some(plan));
    }
    if let Ok(recipe) = Recipe::parse(text, at) {
        assert_eq!(Recipe::parse(&recipe.to_toml(), at).ok(), Some(recipe));
    }
});
