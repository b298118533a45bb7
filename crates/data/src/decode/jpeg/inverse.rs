//! The inverse cosine transform of a block: the accurate integer method of libjpeg (Loeffler, Ligtenberg and
//! Moschytz 1989, with 11 multiplications and 13 bits of fraction).
//!
//! Sums wrap: coefficients of a real picture never come near, and those of a hostile one may be any number. So
//! the way through AVX2 gives the same samples, whatever the block.

/// Samples of a block `[8, 8]` of coefficients, written to `out` with `stride` samples in a row.
pub(super) fn inverse(block: &[i16; 64], steps: &[u16; 64], out: &mut [u8], stride: usize) {
    if block[1..].iter().all(|&c| c == 0) {
        // One value for the whole block; the full computation gives the same where it does not wrap.
        let value = i32::from(block[0]).wrapping_mul(steps[0].into());
        let value = level((value.wrapping_shl(2).wrapping_add(1 << 4)) >> 5);
        for line in out.chunks_mut(stride).take(8) {
            line[..8].fill(value);
        }
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = crate::vector::avx2() {
        crate::vector::with(
            simd,
            #[inline(always)]
            || transform(simd, block, steps, out, stride),
        );
        return;
    }
    transform(Plain, block, steps, out, stride);
}

/// A sample out of its difference from mid-grey.
fn level(value: i32) -> u8 {
    value.wrapping_add(128).clamp(0, 255) as u8
}

/// How a processor works on eight values side by side.
trait Eight: Copy {
    type Lanes: Copy;

    /// Coefficients times the steps of their quantisation.
    fn read(self, values: &[i16; 8], steps: &[u16; 8]) -> Self::Lanes;
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    fn mul(self, a: Self::Lanes, b: i32) -> Self::Lanes;
    /// Times 2^13.
    fn up(self, a: Self::Lanes) -> Self::Lanes;
    /// Divided by 2^SHIFT, to the nearest.
    fn down<const SHIFT: i32>(self, a: Self::Lanes) -> Self::Lanes;
    fn transpose(self, rows: &mut [Self::Lanes; 8]);
    /// Samples out of their differences from mid-grey.
    fn levels(self, rows: &[Self::Lanes; 8]) -> [[u8; 8]; 8];
}

#[inline(always)]
fn transform<E: Eight>(e: E, block: &[i16; 64], steps: &[u16; 64], out: &mut [u8], stride: usize) {
    let ((block, _), (steps, _)) = (block.as_chunks(), steps.as_chunks());
    let mut rows = [e.read(&block[0], &steps[0]); 8];
    for k in 1..8 {
        rows[k] = e.read(&block[k], &steps[k]);
    }
    // Columns first, keeping two extra bits; then rows, dropping those and the scale of 8.
    one_dimension::<E, 11>(e, &mut rows);
    e.transpose(&mut rows);
    one_dimension::<E, 18>(e, &mut rows);
    e.transpose(&mut rows);
    for (line, samples) in out.chunks_mut(stride).zip(&e.levels(&rows)) {
        line[..8].copy_from_slice(samples);
    }
}

/// The one-dimensional transform over the rows, for all lanes, rounded to drop `SHIFT` bits.
#[inline(always)]
fn one_dimension<E: Eight, const SHIFT: i32>(e: E, v: &mut [E::Lanes; 8]) {
    // Constants of the method times 2^13.
    const C0_298: i32 = 2446;
    const C0_390: i32 = 3196;
    const C0_541: i32 = 4433;
    const C0_765: i32 = 6270;
    const C0_899: i32 = 7373;
    const C1_175: i32 = 9633;
    const C1_501: i32 = 12299;
    const C1_847: i32 = 15137;
    const C1_961: i32 = 16069;
    const C2_053: i32 = 16819;
    const C2_562: i32 = 20995;
    const C3_072: i32 = 25172;
    let [i0, i1, i2, i3, i4, i5, i6, i7] = *v;
    // Even part.
    let z1 = e.mul(e.add(i2, i6), C0_541);
    let t2 = e.sub(z1, e.mul(i6, C1_847));
    let t3 = e.add(z1, e.mul(i2, C0_765));
    let t0 = e.up(e.add(i0, i4));
    let t1 = e.up(e.sub(i0, i4));
    let (e0, e3, e1, e2) = (e.add(t0, t3), e.sub(t0, t3), e.add(t1, t2), e.sub(t1, t2));
    // Odd part.
    let z5 = e.mul(e.add(e.add(i7, i3), e.add(i5, i1)), C1_175);
    let z1 = e.mul(e.add(i7, i1), -C0_899);
    let z2 = e.mul(e.add(i5, i3), -C2_562);
    let z3 = e.add(e.mul(e.add(i7, i3), -C1_961), z5);
    let z4 = e.add(e.mul(e.add(i5, i1), -C0_390), z5);
    let o0 = e.add(e.mul(i7, C0_298), e.add(z1, z3));
    let o1 = e.add(e.mul(i5, C2_053), e.add(z2, z4));
    let o2 = e.add(e.mul(i3, C3_072), e.add(z2, z3));
    let o3 = e.add(e.mul(i1, C1_501), e.add(z1, z4));
    v[0] = e.down::<SHIFT>(e.add(e0, o3));
    v[7] = e.down::<SHIFT>(e.sub(e0, o3));
    v[1] = e.down::<SHIFT>(e.add(e1, o2));
    v[6] = e.down::<SHIFT>(e.sub(e1, o2));
    v[2] = e.down::<SHIFT>(e.add(e2, o1));
    v[5] = e.down::<SHIFT>(e.sub(e2, o1));
    v[3] = e.down::<SHIFT>(e.add(e3, o0));
    v[4] = e.down::<SHIFT>(e.sub(e3, o0));
}

/// What every processor can.
#[derive(Clone, Copy)]
struct Plain;

impl Eight for Plain {
    type Lanes = [i32; 8];

    fn read(self, values: &[i16; 8], steps: &[u16; 8]) -> [i32; 8] {
        std::array::from_fn(|i| i32::from(values[i]).wrapping_mul(steps[i].into()))
    }

    fn add(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }

    fn sub(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }

    fn mul(self, a: [i32; 8], b: i32) -> [i32; 8] {
        a.map(|a| a.wrapping_mul(b))
    }

    fn up(self, a: [i32; 8]) -> [i32; 8] {
        a.map(|a| a.wrapping_shl(13))
    }

    fn down<const SHIFT: i32>(self, a: [i32; 8]) -> [i32; 8] {
        a.map(|a| a.wrapping_add(1 << (SHIFT - 1)) >> SHIFT)
    }

    fn transpose(self, rows: &mut [[i32; 8]; 8]) {
        let old = *rows;
        *rows = std::array::from_fn(|i| old.map(|row| row[i]));
    }

    fn levels(self, rows: &[[i32; 8]; 8]) -> [[u8; 8]; 8] {
        rows.map(|row| row.map(level))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Eight;
    use core::arch::x86_64::__m256i;
    use pulp::{cast, x86::V3};

    impl Eight for V3 {
        type Lanes = __m256i;

        #[inline(always)]
        fn read(self, values: &[i16; 8], steps: &[u16; 8]) -> __m256i {
            let values = self.avx2._mm256_cvtepi16_epi32(cast(*values));
            self.avx2._mm256_mullo_epi32(values, self.avx2._mm256_cvtepu16_epi32(cast(*steps)))
        }

        #[inline(always)]
        fn add(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_add_epi32(a, b)
        }

        #[inline(always)]
        fn sub(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_sub_epi32(a, b)
        }

        #[inline(always)]
        fn mul(self, a: __m256i, b: i32) -> __m256i {
            self.avx2._mm256_mullo_epi32(a, cast([b; 8]))
        }

        #[inline(always)]
        fn up(self, a: __m256i) -> __m256i {
            self.avx2._mm256_slli_epi32::<13>(a)
        }

        #[inline(always)]
        fn down<const SHIFT: i32>(self, a: __m256i) -> __m256i {
            let half: __m256i = cast([1i32 << (SHIFT - 1); 8]);
            self.avx2._mm256_srai_epi32::<SHIFT>(self.avx2._mm256_add_epi32(a, half))
        }

        #[inline(always)]
        fn transpose(self, rows: &mut [__m256i; 8]) {
            let avx2 = self.avx2;
            let [r0, r1, r2, r3, r4, r5, r6, r7] = *rows;
            // Neighbours, then pairs of them, then halves.
            let pairs = |a, b| (avx2._mm256_unpacklo_epi32(a, b), avx2._mm256_unpackhi_epi32(a, b));
            let ((a0, a1), (a2, a3)) = (pairs(r0, r1), pairs(r2, r3));
            let ((a4, a5), (a6, a7)) = (pairs(r4, r5), pairs(r6, r7));
            let fours = |a, b| (avx2._mm256_unpacklo_epi64(a, b), avx2._mm256_unpackhi_epi64(a, b));
            let ((b0, b1), (b2, b3)) = (fours(a0, a2), fours(a1, a3));
            let ((b4, b5), (b6, b7)) = (fours(a4, a6), fours(a5, a7));
            let low = |a, b| avx2._mm256_permute2x128_si256::<0x20>(a, b);
            let high = |a, b| avx2._mm256_permute2x128_si256::<0x31>(a, b);
            *rows = [
                low(b0, b4),
                low(b1, b5),
                low(b2, b6),
                low(b3, b7),
                high(b0, b4),
                high(b1, b5),
                high(b2, b6),
                high(b3, b7),
            ];
        }

        #[inline(always)]
        fn levels(self, rows: &[__m256i; 8]) -> [[u8; 8]; 8] {
            let avx2 = self.avx2;
            let grey: __m256i = cast([128i32; 8]);
            let two = |i: usize| {
                let (a, b) = (rows[i], rows[i + 1]);
                avx2._mm256_packs_epi32(
                    avx2._mm256_add_epi32(a, grey),
                    avx2._mm256_add_epi32(b, grey),
                )
            };
            // In halves of rows: of each four the left ones, then the right ones.
            let four =
                |i: usize| -> [[u8; 4]; 8] { cast(avx2._mm256_packus_epi16(two(i), two(i + 2))) };
            let mut levels = [[0; 8]; 8];
            for half in 0..2 {
                let four = four(4 * half);
                for i in 0..4 {
                    levels[4 * half + i][..4].copy_from_slice(&four[i]);
                    levels[4 * half + i][4..].copy_from_slice(&four[4 + i]);
                }
            }
            levels
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples of a block, both ways.
    fn both(block: &[i16; 64], steps: &[u16; 64]) -> [[u8; 64]; 2] {
        let mut samples = [[0; 64]; 2];
        transform(Plain, block, steps, &mut samples[0], 8);
        inverse(block, steps, &mut samples[1], 8);
        samples
    }

    #[test]
    fn both_ways_give_the_same_samples() {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        for round in 0..500u32 {
            // From a few small coefficients to numbers of no picture, whose sums wrap.
            let share = 1 + round % 7;
            let block: [i16; 64] = std::array::from_fn(|_| match next() % share {
                0 => (next() as i16) >> (round % 14),
                _ => 0,
            });
            let steps: [u16; 64] = std::array::from_fn(|_| (next() as u16) >> (round % 11));
            let [plain, chosen] = both(&block, &steps);
            assert_eq!(plain, chosen, "{block:?} by {steps:?}");
        }
    }

    #[test]
    fn one_value_for_the_whole_block_is_what_the_full_computation_gives() {
        // As long as no sum wraps: a hostile picture may have another grey there.
        for value in [0, 1, -1, 7, 100, -1000, 2047, -2048] {
            for step in [0, 1, 3, 16, 31] {
                let mut block = [0; 64];
                block[0] = value;
                let [plain, chosen] = both(&block, &[step; 64]);
                assert_eq!(plain, chosen, "{value} by {step}");
            }
        }
    }
}
