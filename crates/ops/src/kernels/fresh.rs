//! Results that are written by all threads into memory nobody has cleared before: with `vec![0.0; n]` one
//! thread would first walk through all of it, which took a tenth of a forward pass.
#![allow(unsafe_code)]

use rayon::prelude::*;
use std::mem::MaybeUninit;

/// `len` values that `write` makes, task by task on all threads; it gets the number of the task and the
/// `task` values (the last time what is left of them) that are its own, all zero.
pub(crate) fn in_tasks(
    len: usize,
    task: usize,
    write: impl Fn(usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    in_tasks_with(len, task, || (), |(), i, piece| write(i, piece))
}

/// As [`in_tasks`], with something of `make` that tasks can share one after the other.
pub(crate) fn in_tasks_with<T>(
    len: usize,
    task: usize,
    make: impl Fn() -> T + Sync + Send,
    write: impl Fn(&mut T, usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    let room = &mut values.spare_capacity_mut()[..len];
    let pieces = room.par_chunks_mut(task.max(1)).enumerate();
    pieces.for_each_init(make, |own, (i, piece)| write(own, i, cleared(piece)));
    // SAFETY: the capacity is at least `len`, and the pieces cover the first `len` values, each of which
    // `cleared` has written; a panic in a task does not come here.
    unsafe { values.set_len(len) };
    values
}

/// The same memory, written with zeros; a task's piece stays in the cache for what follows.
fn cleared(piece: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    piece.fill(MaybeUninit::new(0.0));
    // SAFETY: the line above has written every value.
    unsafe { piece.assume_init_mut() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_zero_or_what_its_task_wrote() {
        for (len, task) in [(0, 4), (1, 4), (4, 4), (10, 4), (1_000, 7), (5, 100), (3, 0)] {
            let values = in_tasks(len, task, |i, piece| {
                assert!(piece.iter().all(|v| *v == 0.0));
                piece[0] = i as f32 + 1.0;
            });
            assert_eq!(values.len(), len);
            for (at, value) in values.iter().enumerate() {
                let (i, rest) = (at / task.max(1), at % task.max(1));
                let want = if rest == 0 { i as f32 + 1.0 } else { 0.0 };
                assert_eq!(*value, want, "{at} of {len} in tasks of {task}");
            }
        }
    }
}
