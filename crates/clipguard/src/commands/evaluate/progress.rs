//! The progress of an evaluation on a terminal.

use crate::session::Session;
use clipguard_evaluate::{
    Plan,
    report::duration,
    run::progress::{Follow, State},
};
use indicatif::ProgressBar;

/// A bar over the units, with the survivors of the one under way.
pub(super) struct Progress<'a> {
    bar: ProgressBar,
    session: &'a Session,
    what: String,
}

impl<'a> Progress<'a> {
    pub(super) fn new(plan: &Plan, session: &'a Session) -> Self {
        let bar = session.bar(plan.units() as u64, "evaluating");
        Self { bar, session, what: String::new() }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Follow for Progress<'_> {
    fn unit(&mut self, what: &str, done: usize, total: usize) {
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message(what.to_owned());
        what.clone_into(&mut self.what);
    }

    fn batch(&mut self, state: &State) {
        let left = state.left.map_or(String::new(), |left| format!(", {} left", duration(left)));
        self.bar.set_message(format!(
            "{} {}/{}: {} alive, {} killed{left}",
            self.what, state.done, state.samples, state.alive, state.kills
        ));
    }

    fn note(&mut self, text: &str) {
        let session = self.session;
        self.bar.suspend(|| session.say(text));
    }
}
