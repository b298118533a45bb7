//! A safe face for the `gemm` crate's matrix product: the only module with `unsafe`.
#![allow(unsafe_code)]

/// A matrix that lies in a slice with any non-negative strides (in elements).
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// Row-major, rows `stride` elements apart.
    pub(crate) fn strided(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(
            rows == 0 || cols == 0 || (rows - 1) * stride + cols <= data.len(),
            "matrix {rows}x{cols} with row stride {stride} does not fit {} elements",
            data.len()
        );
        Self { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// Row-major without gaps.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// The transpose, without moving anything.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// `dst = scale * a b` or, with `accumulate`, `dst += scale * a b`; `dst` is row-major with rows
/// `stride` elements apart. Single-threaded: callers split the work.
pub(crate) fn product(
    dst: &mut [f32],
    stride: usize,
    a: Mat<'_>,
    b: Mat<'_>,
    scale: f32,
    accumulate: bool,
) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(k, b.rows, "inner dimensions differ");
    if m == 0 || n == 0 {
        return;
    }
    assert!(stride >= n && (m - 1) * stride + n <= dst.len(), "destination too small");
    // SAFETY: `gemm` reads lhs[i, p], rhs[p, j] and reads and writes dst[i, j] for i < m, p < k,
    // j < n at the given strides and nothing else. `Mat` can only be built (and transposed) so
    // that (rows-1)*row_stride + (cols-1)*col_stride + 1 <= data.len(), and the assertion above
    // says the same of `dst`, so all accesses lie inside the three slices. `dst` is borrowed
    // mutably, so it overlaps neither input. All strides fit isize because slices do.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_equal_the_definition_for_odd_shapes_and_transposes() {
        for (m, k, n) in [(1, 1, 1), (3, 5, 2), (17, 33, 9), (64, 27, 48), (7, 1, 130)] {
            let a: Vec<f32> = (0..m * k).map(|i| ((i * 7) % 13) as f32 - 6.0).collect();
            let b: Vec<f32> = (0..k * n).map(|i| ((i * 5) % 11) as f32 - 5.0).collect();
            let bt: Vec<f32> = (0..n * k).map(|i| b[(i % k) * n + i / k]).collect();
            let want: Vec<f32> = (0..m * n)
                .map(|i| (0..k).map(|p| a[i / n * k + p] * b[p * n + i % n]).sum::<f32>())
                .collect();
            let mut got = vec![1.0; m * n];
            product(&mut got, n, Mat::new(&a, m, k), Mat::new(&b, k, n), 1.0, false);
            assert_eq!(got, want);
            product(&mut got, n, Mat::new(&a, m, k), Mat::new(&bt, n, k).t(), 2.0, true);
            assert!(got.iter().zip(&want).all(|(g, w)| *g == 3.0 * w));
        }
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_matrix_beyond_its_slice_is_refused() {
        let _ = Mat::strided(&[0.0; 10], 3, 4, 4);
    }
}
