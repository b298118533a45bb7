//! Other people's code where it meets what nobody has checked, parsers of hostile bytes above all: a panic
//! there costs what it was doing, not the run.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives; `None` when it panicked.
pub fn contained<T>(work: impl FnOnce() -> T) -> Option<T> {
    let outer = INSIDE.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(outer);
    result.ok()
}

/// From now on panics that are caught here are not told on standard error: what they cost is an error
/// like any other. For programs, once at their start; a library leaves the hook alone.
pub fn quiet() {
    let told = take_hook();
    set_hook(Box::new(move |panic| {
        if !INSIDE.get() {
            told(panic);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_and_the_outside_is_outside_again() {
        assert_eq!(contained(|| 7), Some(7));
        let nested = contained(|| {
            assert_eq!(contained(|| -> u32 { panic!("inner") }), None);
            INSIDE.get()
        });
        assert_eq!(nested, Some(true));
        assert_eq!(contained(|| -> u32 { panic!("outer") }), None);
        assert!(!INSIDE.get());
    }
}
