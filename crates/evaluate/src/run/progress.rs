//! What an evaluation tells while it runs, and when it has to stop.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

/// What an evaluation tells while it runs.
pub trait Follow {
    /// A unit begins: what it is, and how many of how many are done.
    fn unit(&mut self, what: &str, done: usize, total: usize);

    /// A batch is done.
    fn batch(&mut self, state: &State) {
        let _ = state;
    }

    /// Something worth a line.
    fn note(&mut self, text: &str);
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct State {
    /// Samples of the unit that are done.
    pub done: usize,
    /// Samples of the unit.
    pub samples: usize,
    /// Samples that no attack on this defence has broken so far.
    pub alive: usize,
    /// Samples this unit has broken.
    pub kills: usize,
    /// Seconds left, at most, where they can be told.
    pub left: Option<f64>,
}

/// Until when a run may go on.
#[derive(Clone, Copy, Debug)]
pub struct Until<'a> {
    /// Set when somebody asks to stop.
    pub stop: &'a AtomicBool,
    /// When it has to stop by itself.
    pub deadline: Option<Instant>,
}

impl Until<'_> {
    /// Whether somebody asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the time is up.
    pub fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}
