//! How a processor multiplies: sixteen outputs at a time, in f32 or in pairs of bf16.

use super::{Pair, WIDE, Word, tile::Lines};

/// Sixteen f32.
pub(crate) trait Lanes: Copy + Send + Sync {
    type Values: Copy;

    /// Calls `work` compiled for this processor.
    fn run<T>(self, work: impl FnOnce() -> T) -> T;
    fn load(self, values: &[f32; WIDE]) -> Self::Values;
    fn store(self, values: Self::Values) -> [f32; WIDE];
    /// The first halves of sixteen pairs of bf16, or the second.
    fn half(self, pairs: &[Pair; WIDE], second: bool) -> Self::Values;
    fn multiply_add(self, sum: Self::Values, x: f32, w: Self::Values) -> Self::Values;
}

/// How words are multiplied.
pub(crate) trait Unit: Copy + Send + Sync {
    /// What weights are kept in.
    type Word: Word;
    /// What belongs to a word in a row of inputs.
    type Input: Copy + Send + Sync;
    /// Sixteen words of weights, or one half of each.
    type Weight: Copy;
    /// Sixteen sums.
    type Sum: Copy;
    /// Steps a word takes.
    const STEPS: usize;

    /// Calls `work` compiled for this processor.
    fn run<T>(self, work: impl FnOnce() -> T) -> T;
    /// Of rows of `width` values the part that belongs to words `from..to`.
    fn inputs<'a>(
        x: Lines<'a, f32>,
        width: usize,
        words: [usize; 2],
        space: &'a mut Vec<Self::Input>,
    ) -> Lines<'a, Self::Input>;
    fn weight(self, words: &[Self::Word; WIDE], step: usize) -> Self::Weight;
    fn sum(self, values: &[f32; WIDE]) -> Self::Sum;
    fn values(self, sum: Self::Sum) -> [f32; WIDE];
    fn multiply_add(
        self,
        sum: Self::Sum,
        x: Self::Input,
        w: Self::Weight,
        step: usize,
    ) -> Self::Sum;
}

/// Products in f32.
#[derive(Clone, Copy)]
pub(super) struct Exact<L>(pub(super) L);

impl<L: Lanes> Unit for Exact<L> {
    type Word = f32;
    type Input = f32;
    type Weight = L::Values;
    type Sum = L::Values;
    const STEPS: usize = 1;

    #[inline(always)]
    fn run<T>(self, work: impl FnOnce() -> T) -> T {
        self.0.run(work)
    }

    #[inline(always)]
    fn inputs<'a>(
        x: Lines<'a, f32>,
        _: usize,
        [from, _]: [usize; 2],
        _: &'a mut Vec<f32>,
    ) -> Lines<'a, f32> {
        Lines { values: &x.values[from.min(x.values.len())..], ..x }
    }

    #[inline(always)]
    fn weight(self, words: &[f32; WIDE], _: usize) -> L::Values {
        self.0.load(words)
    }

    #[inline(always)]
    fn sum(self, values: &[f32; WIDE]) -> L::Values {
        self.0.load(values)
    }

    #[inline(always)]
    fn values(self, sum: L::Values) -> [f32; WIDE] {
        self.0.store(sum)
    }

    #[inline(always)]
    fn multiply_add(self, sum: L::Values, x: f32, w: L::Values, _: usize) -> L::Values {
        self.0.multiply_add(sum, x, w)
    }
}

/// Products of bf16 where a processor only has those of f32: one half of the pairs after the other.
#[derive(Clone, Copy)]
pub(super) struct Widened<L>(pub(super) L);

impl<L: Lanes> Unit for Widened<L> {
    type Word = Pair;
    type Input = [f32; 2];
    type Weight = L::Values;
    type Sum = L::Values;
    const STEPS: usize = 2;

    #[inline(always)]
    fn run<T>(self, work: impl FnOnce() -> T) -> T {
        self.0.run(work)
    }

    #[inline(always)]
    fn inputs<'a>(
        x: Lines<'a, f32>,
        width: usize,
        words: [usize; 2],
        space: &'a mut Vec<[f32; 2]>,
    ) -> Lines<'a, [f32; 2]> {
        rounded(x, width, words, space, [0.0; 2], |low, high| [low, high])
    }

    #[inline(always)]
    fn weight(self, words: &[Pair; WIDE], step: usize) -> L::Values {
        self.0.half(words, step == 1)
    }

    #[inline(always)]
    fn sum(self, values: &[f32; WIDE]) -> L::Values {
        self.0.load(values)
    }

    #[inline(always)]
    fn values(self, sum: L::Values) -> [f32; WIDE] {
        self.0.store(sum)
    }

    #[inline(always)]
    fn multiply_add(self, sum: L::Values, x: [f32; 2], w: L::Values, step: usize) -> L::Values {
        self.0.multiply_add(sum, x[step], w)
    }
}

/// Rows of pairs of values that are rounded to bf16; zero behind the last of an odd number.
#[inline(always)]
fn rounded<'a, I: Copy>(
    x: Lines<'_, f32>,
    width: usize,
    [from, to]: [usize; 2],
    space: &'a mut Vec<I>,
    zero: I,
    input: impl Fn(f32, f32) -> I,
) -> Lines<'a, I> {
    let pairs = to - from;
    space.resize(x.rows * pairs, zero);
    for (to_row, row) in space.chunks_exact_mut(pairs).zip(x.values.chunks(x.apart)) {
        let row = &row[2 * from..(2 * to).min(width)];
        let (whole, rest) = row.as_chunks::<2>();
        for (to, [low, high]) in to_row.iter_mut().zip(whole) {
            *to = input(round(*low), round(*high));
        }
        if let (Some(to), [last]) = (to_row.last_mut(), rest) {
            *to = input(round(*last), 0.0);
        }
    }
    Lines { values: space, rows: x.rows, apart: pairs }
}

/// The nearest number of bf16, of two the one with an even last place. Without branches, so that the loop
/// around it is vectorised.
#[inline(always)]
pub(super) fn round(x: f32) -> f32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // A NaN keeps a bit that rounding cannot carry away.
    let bits = if x.is_nan() { bits | 0x40_0000 } else { nearest };
    f32::from_bits(bits & 0xffff_0000)
}

/// What every processor can.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Lanes for Plain {
    type Values = [f32; WIDE];

    #[inline(always)]
    fn run<T>(self, work: impl FnOnce() -> T) -> T {
        work()
    }

    #[inline(always)]
    fn load(self, values: &[f32; WIDE]) -> [f32; WIDE] {
        *values
    }

    #[inline(always)]
    fn store(self, values: [f32; WIDE]) -> [f32; WIDE] {
        values
    }

    #[inline(always)]
    fn half(self, pairs: &[Pair; WIDE], second: bool) -> [f32; WIDE] {
        pairs.map(|pair| f32::from_bits(if second { pair & 0xffff_0000 } else { pair << 16 }))
    }

    #[inline(always)]
    fn multiply_add(self, mut sum: [f32; WIDE], x: f32, w: [f32; WIDE]) -> [f32; WIDE] {
        sum.iter_mut().zip(w).for_each(|(sum, w)| *sum += x * w);
        sum
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::{Lanes, Lines, Pair, Unit, WIDE, rounded};
    use core::arch::x86_64 as arch;
    use pulp::{
        Simd, WithSimd, cast, f32x8, f32x16, u32x8, u32x16,
        x86::{V3, V4},
    };

    /// Work for one of `pulp`'s instruction sets.
    struct Task<F>(F);

    impl<T, F: FnOnce() -> T> WithSimd for Task<F> {
        type Output = T;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> T {
            (self.0)()
        }
    }

    /// AVX2 and FMA.
    impl Lanes for V3 {
        type Values = [f32x8; 2];

        #[inline(always)]
        fn run<T>(self, work: impl FnOnce() -> T) -> T {
            Simd::vectorize(self, Task(work))
        }

        #[inline(always)]
        fn load(self, values: &[f32; WIDE]) -> [f32x8; 2] {
            cast(*values)
        }

        #[inline(always)]
        fn store(self, values: [f32x8; 2]) -> [f32; WIDE] {
            cast(values)
        }

        #[inline(always)]
        fn half(self, pairs: &[Pair; WIDE], second: bool) -> [f32x8; 2] {
            let [a, b]: [u32x8; 2] = cast(*pairs);
            if second {
                let high = self.splat_u32x8(0xffff_0000);
                cast([self.and_u32x8(a, high), self.and_u32x8(b, high)])
            } else {
                cast([self.shl_const_u32x8::<16>(a), self.shl_const_u32x8::<16>(b)])
            }
        }

        #[inline(always)]
        fn multiply_add(self, [a, b]: [f32x8; 2], x: f32, w: [f32x8; 2]) -> [f32x8; 2] {
            let x = self.splat_f32x8(x);
            [self.mul_add_f32x8(x, w[0], a), self.mul_add_f32x8(x, w[1], b)]
        }
    }

    /// AVX-512.
    impl Lanes for V4 {
        type Values = f32x16;

        #[inline(always)]
        fn run<T>(self, work: impl FnOnce() -> T) -> T {
            Simd::vectorize(self, Task(work))
        }

        #[inline(always)]
        fn load(self, values: &[f32; WIDE]) -> f32x16 {
            cast(*values)
        }

        #[inline(always)]
        fn store(self, values: f32x16) -> [f32; WIDE] {
            cast(values)
        }

        #[inline(always)]
        fn half(self, pairs: &[Pair; WIDE], second: bool) -> f32x16 {
            let pairs: u32x16 = cast(*pairs);
            if second {
                cast(self.and_u32x16(pairs, self.splat_u32x16(0xffff_0000)))
            } else {
                cast(self.shl_const_u32x16::<16>(pairs))
            }
        }

        #[inline(always)]
        fn multiply_add(self, sum: f32x16, x: f32, w: f32x16) -> f32x16 {
            self.mul_add_f32x16(self.splat_f32x16(x), w, sum)
        }
    }

    /// AVX-512 that multiplies pairs of bf16. Only [`Dot::detected`] makes one.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Dot(());

    impl Dot {
        pub(in super::super) fn detected() -> Option<Self> {
            let here = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bf16")
                && V4::is_available();
            here.then_some(Self(()))
        }
    }

    impl Unit for Dot {
        type Word = Pair;
        type Input = Pair;
        type Weight = arch::__m512;
        type Sum = arch::__m512;
        const STEPS: usize = 1;

        #[inline(always)]
        fn run<T>(self, work: impl FnOnce() -> T) -> T {
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
            fn compiled<T>(work: impl FnOnce() -> T) -> T {
                work()
            }
            // SAFETY: a `Dot` exists only where the processor has avx512f and avx512bf16, and all of
            // `V4`, to which the others belong.
            unsafe { compiled(work) }
        }

        #[inline(always)]
        fn inputs<'a>(
            x: Lines<'a, f32>,
            width: usize,
            words: [usize; 2],
            space: &'a mut Vec<Pair>,
        ) -> Lines<'a, Pair> {
            let pair = |low: f32, high: f32| low.to_bits() >> 16 | high.to_bits() & 0xffff_0000;
            rounded(x, width, words, space, 0, pair)
        }

        #[inline(always)]
        fn weight(self, words: &[Pair; WIDE], _: usize) -> arch::__m512 {
            cast(*words)
        }

        #[inline(always)]
        fn sum(self, values: &[f32; WIDE]) -> arch::__m512 {
            cast(*values)
        }

        #[inline(always)]
        fn values(self, sum: arch::__m512) -> [f32; WIDE] {
            cast(sum)
        }

        #[inline(always)]
        fn multiply_add(
            self,
            sum: arch::__m512,
            x: Pair,
            w: arch::__m512,
            _: usize,
        ) -> arch::__m512 {
            // SAFETY: a `Dot` exists only where the processor has avx512f and avx512bf16; the casts are
            // between 512 bits and 512 bits.
            unsafe {
                let x = arch::_mm512_set1_epi32(x.cast_signed());
                let x = std::mem::transmute::<arch::__m512i, arch::__m512bh>(x);
                let w = std::mem::transmute::<arch::__m512, arch::__m512bh>(w);
                arch::_mm512_dpbf16_ps(sum, x, w)
            }
        }
    }
}
