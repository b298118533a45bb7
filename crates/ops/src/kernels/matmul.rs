//! A safe face for the `gemm` crate's matrix product, on one thread and on all.
#![allow(unsafe_code)]

use rayon::prelude::*;

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

    /// Columns `start..end`.
    fn columns(self, start: usize, end: usize) -> Self {
        let offset = (start * self.col_stride).min(self.data.len());
        Self { data: &self.data[offset..], cols: end - start, ..self }
    }

    /// Rows `start..end`.
    fn rows(self, start: usize, end: usize) -> Self {
        self.t().columns(start, end).t()
    }

    fn at(&self, row: usize, col: usize) -> f32 {
        self.data[row * self.row_stride + col * self.col_stride]
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
    check(dst, stride, a, b);
    // SAFETY: `check` says that the product fits `dst`, which is borrowed mutably.
    unsafe { multiply(dst.as_mut_ptr(), stride, a, b, scale, accumulate) };
}

/// As [`rows`] on all threads, but what matters here are not rows: those of a weight's gradient are its
/// outputs.
///
/// A task packs its part of both factors anew, so tasks are large and as square as they can be.
pub(crate) fn product_together(dst: &mut [f32], stride: usize, a: Mat<'_>, b: Mat<'_>) {
    let (mut down, mut across) = (1, 1);
    while down * across < 2 * rayon::current_num_threads() {
        let (tall, wide) = (a.rows / down, b.cols / across);
        if tall.max(wide) < 2 * LEAST {
            break;
        }
        if tall > wide { down *= 2 } else { across *= 2 }
    }
    if a.rows / down < LEAST || b.cols / across < LEAST || is_shallow(a.cols) {
        return rows_together(dst, stride, a, b, false);
    }
    in_tiles(dst, stride, a, b, [down, across], |target, a, b| {
        for (start, a, b) in in_depth(a, b) {
            // SAFETY: as `in_tiles` promises; parts along the sum have the same rows and columns.
            unsafe { multiply(target, stride, a, b, 1.0, start > 0) };
        }
    });
}

/// Rows and columns that a task of [`product_together`] has at least.
const LEAST: usize = 48;
const _: () = assert!(LEAST >= 2 && LEAST * LEAST > SMALL);

/// Columns of a task of [`rows_together`].
const COLUMNS: usize = 192;

/// The first element of a matrix.
#[derive(Clone, Copy)]
struct Target(*mut f32);

// SAFETY: tasks write to different elements of a matrix that the caller has borrowed mutably, and to
// nothing else (see `in_tiles`).
unsafe impl Send for Target {}
unsafe impl Sync for Target {}

/// Calls `task` on all threads for `down` parts of the rows of `a` with each of `across` parts of the columns
/// of `b`. It may write what [`multiply`] writes for these factors at the target: as many rows as its `a`
/// has, `stride` apart, of as many columns as its `b` has.
fn in_tiles(
    dst: &mut [f32],
    stride: usize,
    a: Mat<'_>,
    b: Mat<'_>,
    [down, across]: [usize; 2],
    task: impl Fn(*mut f32, Mat<'_>, Mat<'_>) + Sync,
) {
    check(dst, stride, a, b);
    let (m, n, end) = (a.rows, b.cols, dst_end(a, stride, b.cols));
    let start = Target(dst.as_mut_ptr());
    (0..down * across).into_par_iter().for_each(|part| {
        // The whole of it, not only the pointer inside, moves into the closure.
        let Target(start) = { start };
        let (i, j) = (part / across, part % across);
        let rows = [i * m / down, (i + 1) * m / down];
        let columns = [j * n / across, (j + 1) * n / across];
        // SAFETY: `check` says that rows 0 to m, columns 0 to n, lie inside `dst`, and so do those of the
        // part; where it has none, the offset may lie behind the end, is cut to it, and nothing is
        // written. Two parts have no row or no column in common, so no two tasks have an element in
        // common.
        let target = unsafe { start.add((rows[0] * stride + columns[0]).min(end)) };
        task(target, a.rows(rows[0], rows[1]), b.columns(columns[0], columns[1]));
    });
}

/// Elements from the first to behind the last one that is written.
fn dst_end(a: Mat<'_>, stride: usize, n: usize) -> usize {
    if a.rows == 0 || n == 0 { 0 } else { (a.rows - 1) * stride + n }
}

/// Panics unless the product fits the destination.
fn check(dst: &[f32], stride: usize, a: Mat<'_>, b: Mat<'_>) {
    assert_eq!(a.cols, b.rows, "inner dimensions differ");
    assert!(stride >= b.cols, "rows of the destination overlap");
    assert!(dst_end(a, stride, b.cols) <= dst.len(), "destination too small");
}

/// The product of `gemm`.
///
/// # Safety
/// `dst` must be valid for reads and writes of `a.rows` rows of `b.cols` elements, `stride` apart, which
/// nothing else reads or writes meanwhile; the inner dimensions must be equal.
unsafe fn multiply(
    dst: *mut f32,
    stride: usize,
    a: Mat<'_>,
    b: Mat<'_>,
    scale: f32,
    accumulate: bool,
) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: `gemm` reads lhs[i, p], rhs[p, j] and reads and writes dst[i, j] for i < m, p < k,
    // j < n at the given strides and nothing else. `Mat` can only be built, transposed and cut so
    // that (rows-1)*row_stride + (cols-1)*col_stride + 1 <= data.len(), and the caller says the same
    // of `dst`, so all accesses lie inside the three. `dst` is nobody else's, so it overlaps neither
    // input. All strides fit isize because slices do.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst,
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

/// Largest inner dimension of one product in [`rows`].
const DEPTH: usize = 512;

/// Products of at most so many elements are summed in another order by `gemm` when both factors
/// are contiguous along the sum.
const SMALL: usize = 256;

/// Sums of fewer terms are rounded in another way by `gemm`: each product on its own.
const SHALLOW: usize = 3;

/// As [`product`], for rows that are samples or parts of samples: the bits of a row of `dst`
/// depend on that row of `a` and on `b` alone, not on how many other rows there are; and zeros
/// behind the terms of a sum change nothing.
///
/// `gemm` sums in another order when there is one row or one column, when the product is
/// [`SMALL`] or [`SHALLOW`], and when its block size along the sum, which follows from the other
/// sizes and the caches, comes into play. All but the last are avoided by copying into another
/// layout, the last by cutting the sum into parts of a fixed size.
pub(crate) fn rows(dst: &mut [f32], stride: usize, a: Mat<'_>, b: Mat<'_>, accumulate: bool) {
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    for (start, a, b) in in_depth(a, b) {
        let along = a.col_stride == 1 && b.row_stride == 1;
        let accumulate = accumulate || start > 0;
        let small = along && a.rows * b.cols <= SMALL;
        if a.rows == 1 || b.cols == 1 || a.cols < SHALLOW || small {
            product_of_copies(dst, stride, a, b, accumulate);
        } else {
            product(dst, stride, a, b, 1.0, accumulate);
        }
    }
}

/// Whether the last part along the sum has too few terms, whatever the whole has.
fn is_shallow(k: usize) -> bool {
    k == 0 || (1..SHALLOW).contains(&(k % DEPTH))
}

/// The parts of a product along the sum, with where they start; one of length 0 for no terms.
fn in_depth<'a>(a: Mat<'a>, b: Mat<'a>) -> impl Iterator<Item = (usize, Mat<'a>, Mat<'a>)> {
    (0..a.cols.max(1)).step_by(DEPTH).map(move |start| {
        let end = (start + DEPTH).min(a.cols);
        (start, a.columns(start, end), b.t().columns(start, end).t())
    })
}

/// With so many rows and columns a product, and each of its tasks of columns, is neither flat nor [`SMALL`].
const FEW: usize = 3;
const WIDE: usize = COLUMNS / 2;
const _: () = assert!(FEW >= 2 && FEW * WIDE > SMALL);

/// As [`rows`], with the same bits, on all threads.
pub(crate) fn rows_together(
    dst: &mut [f32],
    stride: usize,
    a: Mat<'_>,
    b: Mat<'_>,
    accumulate: bool,
) {
    if a.rows < FEW || b.cols < WIDE || is_shallow(a.cols) {
        return rows(dst, stride, a, b, accumulate);
    }
    let across = b.cols.div_ceil(COLUMNS);
    in_tiles(dst, stride, a, b, [1, across], |target, a, b| {
        for (start, a, b) in in_depth(a, b) {
            // SAFETY: as `in_tiles` promises; parts along the sum have the same rows and columns.
            unsafe { multiply(target, stride, a, b, 1.0, accumulate || start > 0) };
        }
    });
}

/// [`product`] with at least two rows and columns and [`SHALLOW`] terms, `a` column by column.
fn product_of_copies(dst: &mut [f32], stride: usize, a: Mat<'_>, b: Mat<'_>, accumulate: bool) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let (tall, deep, wide) = (m.max(2), k.max(SHALLOW), n.max(2));
    let mut left = vec![0.0; deep * tall];
    for (p, column) in left.chunks_exact_mut(tall).enumerate().take(k) {
        (0..m).for_each(|i| column[i] = a.at(i, p));
    }
    let mut right = Vec::new();
    let b = if n < wide || k < deep {
        right.resize(deep * wide, 0.0);
        for (p, row) in right.chunks_exact_mut(wide).enumerate().take(k) {
            (0..n).for_each(|j| row[j] = b.at(p, j));
        }
        Mat::new(&right, deep, wide)
    } else {
        b
    };
    let mut result = vec![0.0; tall * wide];
    if accumulate {
        for (to, from) in result.chunks_exact_mut(wide).zip(dst.chunks(stride)).take(m) {
            to[..n].copy_from_slice(&from[..n]);
        }
    }
    product(&mut result, wide, Mat::new(&left, deep, tall).t(), b, 1.0, accumulate);
    for (to, from) in dst.chunks_mut(stride).zip(result.chunks_exact(wide)).take(m) {
        to[..n].copy_from_slice(&from[..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_equal_the_definition_for_odd_shapes_and_transposes() {
        let odd = [(1, 1, 1), (3, 5, 2), (17, 33, 9), (64, 27, 48), (7, 1, 130), (33, 4, 500)];
        for (m, k, n) in odd.into_iter().chain([(0, 3, 4), (4, 3, 0), (2, 0, 400)]) {
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
            // Rows that are further apart than they are long: nothing between them is touched.
            let stride = n + 3;
            let mut got = vec![9.0; m * stride];
            product_together(&mut got, stride, Mat::new(&a, m, k), Mat::new(&bt, n, k).t());
            for (row, want) in got.chunks(stride).zip(want.chunks(n.max(1))) {
                assert_eq!((&row[..n], &row[n..]), (&want[..n], &[9.0; 3][..]));
            }
        }
    }

    #[test]
    fn products_of_any_shape_and_layout_equal_their_definition() {
        // Small whole numbers: every order of summation gives the same.
        let mut state = 1u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for _ in 0..300 {
            let [m, n] = [next(70), next(450)];
            let k = if next(4) == 0 { next(1_100) } else { next(40) };
            let stride = n + next(5);
            let a: Vec<f32> = (0..m * k).map(|_| next(7) as f32 - 3.0).collect();
            let b: Vec<f32> = (0..k * n).map(|_| next(7) as f32 - 3.0).collect();
            let left = if next(2) == 0 { Mat::new(&a, m, k) } else { Mat::new(&a, k, m).t() };
            let right = if next(2) == 0 { Mat::new(&b, k, n) } else { Mat::new(&b, n, k).t() };
            let sum = |i, j| (0..k).map(|p| left.at(i, p) * right.at(p, j)).sum::<f32>();
            let want: Vec<f32> = (0..m * n).map(|e| sum(e / n, e % n)).collect();
            let holds = |got: &[f32], start: f32, what: &str| {
                let name = format!("{what}: {m}x{k}x{n}, stride {stride}");
                assert_eq!(got.len(), m * stride + 1, "{name}");
                for (e, value) in got.iter().enumerate() {
                    let (i, j) = (e / stride.max(1), e % stride.max(1));
                    let inside = i < m && j < n;
                    let want = if inside { start + want[i * n + j] } else { 9.0 };
                    assert_eq!(*value, want, "{name}, element {e}");
                }
            };
            type Way = fn(&mut [f32], usize, Mat<'_>, Mat<'_>);
            let ways: [(&str, f32, Way); 5] = [
                ("product", 0.0, |y, s, a, b| product(y, s, a, b, 1.0, false)),
                ("product_together", 0.0, |y, s, a, b| product_together(y, s, a, b)),
                ("rows", 9.0, |y, s, a, b| rows(y, s, a, b, true)),
                ("rows_together", 0.0, |y, s, a, b| rows_together(y, s, a, b, false)),
                ("rows_together, more", 9.0, |y, s, a, b| rows_together(y, s, a, b, true)),
            ];
            for (what, start, way) in ways {
                let mut got = vec![9.0; m * stride + 1];
                way(&mut got, stride, left, right);
                holds(&got, start, what);
            }
        }
    }

    #[test]
    fn bits_of_a_row_do_not_depend_on_the_other_rows() {
        let number = |i: usize| (i * 2_654_435_761 % 1_009) as f32 / 500.0 - 1.0;
        for (k, n) in
            [(1, 1), (2, 3), (3, 1), (17, 8), (64, 70), (700, 9), (1_300, 130), (768, 700)]
        {
            let b: Vec<f32> = (0..k * n).map(number).collect();
            let a: Vec<f32> = (0..300 * k).map(|i| number(i + 77)).collect();
            for b in [Mat::new(&b, k, n), Mat::new(&b, n, k).t()] {
                let first_rows = |m: usize, accumulate: bool| {
                    let mut y = vec![0.25; m * n];
                    rows(&mut y, n, Mat::new(&a[..m * k], m, k), b, accumulate);
                    y
                };
                let first = |m: usize, accumulate: bool| first_rows(m, accumulate)[..n].to_vec();
                for accumulate in [false, true] {
                    let want = first(300, accumulate);
                    let mut together = vec![0.25; 300 * n];
                    rows_together(&mut together, n, Mat::new(&a, 300, k), b, accumulate);
                    assert_eq!(together, first_rows(300, accumulate), "{k}x{n}, all threads");
                    for m in [1, 2, 3, 5, 16, 17, 28, 64, 65, 256] {
                        assert_eq!(first(m, accumulate), want, "{m}x{k}x{n}, {accumulate}");
                    }
                    let exact: f64 = (0..k).map(|p| f64::from(a[p]) * f64::from(b.at(p, 0))).sum();
                    let start = if accumulate { 0.25 } else { 0.0 };
                    assert!((f64::from(want[0]) - exact - start).abs() < 1e-3);
                }
            }
        }
    }

    #[test]
    fn zeros_behind_the_terms_of_a_sum_change_no_bit() {
        let number = |i: usize| (i * 2_654_435_761 % 1_009) as f32 / 500.0 - 1.0;
        let (depth, n) = (100, 16);
        let b: Vec<f32> = (0..depth * n).map(number).collect();
        // Row `i` has `i + 1` terms.
        let triangle = |size: usize| -> Vec<f32> {
            let at = |i: usize, p: usize| if p <= i { number(i * depth + p + 7) } else { 0.0 };
            let a: Vec<f32> = (0..size * size).map(|e| at(e / size, e % size)).collect();
            let mut y = vec![0.0; size * n];
            let b = Mat::new(&b[..size * n], size, n);
            rows(&mut y, n, Mat::new(&a, size, size), b, false);
            y
        };
        let want = triangle(depth);
        for size in 1..depth {
            assert_eq!(triangle(size), want[..size * n], "{size}");
        }
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_matrix_beyond_its_slice_is_refused() {
        let _ = Mat::strided(&[0.0; 10], 3, 4, 4);
    }
}
