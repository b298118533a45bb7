//! Results that are written by all threads into memory nobody has cleared before: with `vec![0.0; n]` one
//! thread would first walk through all of it, which took a tenth of a forward pass.
#![allow(unsafe_code)]

use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Memory of a task's result, not written yet.
pub(crate) struct Room<'a>(&'a mut [MaybeUninit<f32>]);

impl<'a> Room<'a> {
    /// Values it has room for.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Room for values `from..to` of it.
    pub(crate) fn part(&mut self, from: usize, to: usize) -> Room<'_> {
        Room(&mut self.0[from..to])
    }

    /// The memory as values.
    ///
    /// # Safety
    /// Every value has been written.
    pub(crate) unsafe fn written(self) -> &'a mut [f32] {
        // SAFETY: as the caller says.
        unsafe { self.0.assume_init_mut() }
    }

    /// All zero; a task's piece stays in the cache for what follows.
    pub(crate) fn cleared(self) -> &'a mut [f32] {
        self.0.fill(MaybeUninit::new(0.0));
        // SAFETY: the line above has written every value.
        unsafe { self.written() }
    }

    /// `row` again and again.
    ///
    /// # Panics
    /// When it has no room for whole rows.
    pub(crate) fn rows_of(self, row: &[f32]) -> &'a mut [f32] {
        assert_eq!(self.0.len() % row.len(), 0, "room for {} values of whole rows", self.0.len());
        for to in self.0.chunks_exact_mut(row.len()) {
            to.write_copy_of_slice(row);
        }
        // SAFETY: as the length is a multiple of the row's, the loop has written every value.
        unsafe { self.written() }
    }
}

/// `len` values that `write` makes, task by task on all threads; it gets the number of the task and the
/// `task` values (the last time what is left of them) that are its own, all zero.
pub(crate) fn in_tasks(
    len: usize,
    task: usize,
    write: impl Fn(usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    in_rooms(
        len,
        task,
        || (),
        |(), i, room| {
            let piece = room.cleared();
            write(i, piece);
            piece
        },
    )
}

/// As [`in_tasks`], with something of `make` that tasks can share one after the other; and `write` gets
/// memory that nobody has written yet, and hands it back as values.
pub(crate) fn in_rooms<T>(
    len: usize,
    task: usize,
    make: impl Fn() -> T + Sync + Send,
    write: impl for<'a> Fn(&mut T, usize, Room<'a>) -> &'a mut [f32] + Sync,
) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    let room = &mut values.spare_capacity_mut()[..len];
    let pieces = room.par_chunks_mut(task.max(1)).enumerate();
    pieces.for_each_init(make, |own, (i, piece)| {
        let place = (piece.as_ptr().addr(), piece.len());
        let written = write(own, i, Room(piece));
        assert_eq!((written.as_ptr().addr(), written.len()), place, "another piece of memory");
    });
    // SAFETY: the capacity is at least `len`, and the pieces cover the first `len` values. Of each there
    // was a slice of values, at its place and of its length, and a slice of values has been written. A
    // panic in a task does not come here.
    unsafe { values.set_len(len) };
    values
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

    #[test]
    fn rows_are_repeated() {
        let values = in_rooms(12, 6, || (), |(), _, room| room.rows_of(&[1.0, 2.0, 3.0]));
        assert_eq!(values, [1.0, 2.0, 3.0].repeat(4));
    }

    #[test]
    #[should_panic(expected = "another piece of memory")]
    fn a_task_cannot_hand_back_something_else() {
        in_rooms(4, 4, || (), |(), _, room| &mut room.cleared()[..3]);
    }
}
