//! The kernels: plain functions on row-major `f32` slices.
//!
//! Work is cut into parts whose number depends on the shape alone, never on the number of
//! threads, and partial sums are added in a fixed order: the bits do not depend on `--threads`.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod finish;
pub(crate) mod fresh;
pub(crate) mod linear;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod packed;
pub(crate) mod pool;
pub(crate) mod winograd;

/// Multiplications from which a task is worth another thread: some 20 microseconds.
const WORTH: usize = 1 << 19;

/// Rows of a task of a product: at most `most`, fewer where threads would have nothing to do, but enough
/// to be worth it. Only for products whose bits do not depend on how their rows are cut.
pub(crate) fn task_rows(rows: usize, most: usize, multiplications_a_row: usize) -> usize {
    let share = rows.div_ceil(2 * rayon::current_num_threads());
    let least = WORTH.div_ceil(multiplications_a_row.max(1));
    share.max(least).min(most).max(1)
}

/// Runs `work` compiled for the best instruction set this processor has (AVX-512, AVX2 with FMA,
/// or plain). The compiler vectorises the loops inside; the binary stays portable.
#[inline(always)]
pub(crate) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    struct Task<F>(F);
    impl<R, F: FnOnce() -> R> pulp::WithSimd for Task<F> {
        type Output = R;
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _simd: S) -> R {
            (self.0)()
        }
    }
    pulp::Arch::new().dispatch(Task(work))
}

/// Sum of `x * y` in sixteen lanes: wide enough for AVX-512 and the same bits on every processor.
#[inline(always)]
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (xs, ys) = (x.chunks_exact(16), y.chunks_exact(16));
    let tail: f32 = xs.remainder().iter().zip(ys.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in xs.zip(ys) {
        for i in 0..16 {
            lanes[i] += a[i] * b[i];
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// Sum of `x` in sixteen lanes.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let chunks = x.chunks_exact(16);
    let tail: f32 = chunks.remainder().iter().sum();
    for a in chunks {
        for i in 0..16 {
            lanes[i] += a[i];
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// Largest of `x`, in sixteen lanes; negative infinity for none. A NaN may be passed over.
#[inline(always)]
pub(crate) fn largest(x: &[f32]) -> f32 {
    let more = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = x.chunks_exact(16);
    let tail = chunks.remainder().iter().fold(f32::NEG_INFINITY, |a, b| more(a, *b));
    for a in chunks {
        for i in 0..16 {
            lanes[i] = more(lanes[i], a[i]);
        }
    }
    lanes.iter().fold(tail, |a, b| more(a, *b))
}

/// `exp(x)` to 2e-7 relative, flushed to 0 below -87; the standard reduction by powers of two
/// with a polynomial of degree 6 on [-ln2/2, ln2/2] (Cephes' `expf` coefficients).
///
/// Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits: a conversion to `i32` would
/// saturate, which no vector instruction does, and the loop would fall apart into single values.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    p * f32::from_bits((rounded.to_bits() << 23).wrapping_add(0x3f80_0000))
}

#[cfg(test)]
mod tests {
    /// Numbers in [-1, 1).
    pub(super) fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9) ^ 0x85eb_ca6b;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 * 2.0 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn the_largest_is_found_wherever_it_stands() {
        for length in [1, 2, 15, 16, 17, 40] {
            for place in 0..length {
                let values: Vec<f32> =
                    (0..length).map(|i| if i == place { 2.5 } else { -(i as f32) }).collect();
                assert_eq!(super::largest(&values), 2.5);
            }
        }
        assert_eq!(super::largest(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn exp_is_exact_to_a_few_ulp_over_its_range() {
        let mut worst = 0f64;
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let want = f64::from(x).exp();
            worst = worst.max(((f64::from(super::exp(x)) - want) / want).abs());
        }
        assert!(worst < 3e-7, "{worst}");
    }
}
