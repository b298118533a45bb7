//! Whole runs of the recorded programs, replayed from their seeds.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod apgd;
mod autoattack;
mod fab;
mod minimal;
#[path = "../networks/mod.rs"]
mod networks;
mod pgd;
mod square;
