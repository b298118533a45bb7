//! Rows of a product: of a matrix, or the windows of a convolution, gathered task by task.

use super::{
    super::{conv::Shape, task_rows},
    ROWS,
};

/// Where the rows of a product come from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// A matrix.
    Rows(&'a [f32]),
    /// The windows of pictures.
    Windows(&'a Shape, &'a [f32]),
}

impl Source<'_> {
    pub(super) fn rows(&self, inputs: usize) -> usize {
        match self {
            Self::Rows(x) => {
                assert!(x.len().is_multiple_of(inputs), "whole rows of inputs");
                x.len() / inputs
            }
            Self::Windows(shape, _) => {
                assert_eq!(shape.window(), inputs, "windows of another size");
                shape.n * shape.windows()
            }
        }
    }

    /// Whether rows lie ready, and need not be gathered.
    pub(super) fn are_read(&self) -> bool {
        matches!(self, Self::Rows(_))
    }

    /// Rows a task should have.
    pub(super) fn task(&self, rows: usize, multiplications_a_row: usize) -> usize {
        match self {
            Self::Rows(_) => task_rows(rows, ROWS, multiplications_a_row),
            Self::Windows(shape, _) => shape.pictures() * shape.windows(),
        }
    }

    /// Tasks have a multiple of so many.
    pub(super) fn unit(&self, tile: usize) -> usize {
        match self {
            Self::Rows(_) => tile,
            Self::Windows(shape, _) => shape.windows().max(1),
        }
    }

    /// Rows `from..to`.
    pub(super) fn read<'a>(
        &'a self,
        [from, to]: [usize; 2],
        inputs: usize,
        space: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        match self {
            Self::Rows(x) => &x[from * inputs..to * inputs],
            Self::Windows(shape, x) => {
                let size = shape.h * shape.w * shape.c;
                let picture = |row: usize| row / shape.windows().max(1) * size;
                shape.gather(&x[picture(from)..picture(to)], space);
                space
            }
        }
    }
}
