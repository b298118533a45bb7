//! The two passes of the resampler, in fixed point with 22 fractional bits. Sums of integers have one value, in
//! whatever order they are added up: the way through AVX2 gives the same bytes.

use crate::vector::vectorised;

/// Where a pixel of the result comes from.
pub(super) struct Tap {
    /// The first pixel of the source.
    pub(super) low: usize,
    /// The weights of that one and the next ones, in units of 2^-22.
    pub(super) weights: Vec<i32>,
}

/// Half a unit of the fixed point, so that shifting rounds.
const HALF: i32 = 1 << 21;

fn to_byte(sum: i32) -> u8 {
    (sum >> 22).clamp(0, 255) as u8
}

/// Resamples rows of `C` interleaved channels that begin with column `first` of the source.
pub(super) fn horizontal<const C: usize>(rows: &[&[u8]], first: usize, taps: &[Tap]) -> Vec<u8> {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = crate::vector::avx2() {
        return x86::horizontal::<C>(simd, rows, first, taps);
    }
    plain::<C>(rows, first, taps)
}

fn plain<const C: usize>(rows: &[&[u8]], first: usize, taps: &[Tap]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * C * taps.len());
    for row in rows {
        for Tap { low, weights } in taps {
            let mut sums = [HALF; C];
            for (pixel, &weight) in row[C * (low - first)..].chunks_exact(C).zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += weight * i32::from(value);
                }
            }
            out.extend(sums.map(to_byte));
        }
    }
    out
}

/// Resamples columns; `rows` begin with row `first` of the source. A whole row is one long vector: the inner
/// loop has neither branches nor gathers.
pub(super) fn vertical(rows: &[&[u8]], first: usize, taps: &[Tap]) -> Vec<u8> {
    let width = rows.first().map_or(0, |row| row.len());
    let mut out = vec![0; taps.len() * width];
    let mut sums = vec![HALF; width];
    vectorised(
        #[inline(always)]
        || {
            for (Tap { low, weights }, out) in taps.iter().zip(out.chunks_exact_mut(width.max(1))) {
                sums.fill(HALF);
                for (row, &weight) in rows[low - first..].iter().zip(weights) {
                    for (sum, &value) in sums.iter_mut().zip(*row) {
                        *sum += weight * i32::from(value);
                    }
                }
                for (out, &sum) in out.iter_mut().zip(&sums) {
                    *out = to_byte(sum);
                }
            }
        },
    );
    out
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{HALF, Tap};
    use crate::vector::with;
    use core::arch::x86_64::{__m128i, __m256i};
    use pulp::{cast, x86::V3};

    /// Rows that are resampled together.
    const ROWS: usize = 4;
    /// Bytes that are read at once: four pixels, or more than that.
    const READ: usize = 16;
    /// A weight is `high * 2^SPLIT + low`: two numbers that 16 bits hold.
    const SPLIT: u32 = 11;

    /// Weights of four pixels as the multiplication reads them: those of the first two for every channel, then
    /// those of the next two; their high parts and their low ones.
    type Four = [__m256i; 2];

    fn four(weights: &[i32]) -> Four {
        let mut parts = [[0i16; 16]; 2];
        for (i, &weight) in weights.iter().enumerate() {
            for channel in 0..4 {
                let at = 8 * (i / 2) + 2 * channel + i % 2;
                parts[0][at] = (weight >> SPLIT) as i16;
                parts[1][at] = (weight & ((1 << SPLIT) - 1)) as i16;
            }
        }
        parts.map(cast)
    }

    /// Which of the bytes read come in which place: of every channel the first two pixels, then the next two,
    /// each as 16 bits.
    fn order<const C: usize>() -> __m256i {
        let mut places = [-1i8; 32];
        for pixel in 0..4 {
            for channel in 0..C {
                let place = 16 * (pixel / 2) + 4 * channel + 2 * (pixel % 2);
                places[place] = (pixel * C + channel) as i8;
            }
        }
        cast(places)
    }

    /// See [`super::horizontal`]; at most four channels.
    pub(super) fn horizontal<const C: usize>(
        simd: V3,
        rows: &[&[u8]],
        first: usize,
        taps: &[Tap],
    ) -> Vec<u8> {
        const { assert!(C <= 4) };
        let width = rows.first().map_or(0, |row| row.len());
        let (line, order) = (C * taps.len(), order::<C>());
        let columns: Vec<(usize, Vec<Four>)> = taps
            .iter()
            .map(|tap| (C * (tap.low - first), tap.weights.chunks(4).map(four).collect()))
            .collect();
        let mut out = vec![0; rows.len() * line];
        // With room for reading beyond the end of a row, where weights are zero.
        let mut own = [(); ROWS].map(|()| vec![0; width + READ]);
        for (rows, out) in rows.chunks(ROWS).zip(out.chunks_mut(ROWS * line.max(1))) {
            for (own, row) in own.iter_mut().zip(rows) {
                own[..width].copy_from_slice(row);
            }
            with(
                simd,
                #[inline(always)]
                || {
                    for (i, (at, fours)) in columns.iter().enumerate() {
                        let bytes = pixel::<C>(simd, &own, *at, fours, order);
                        for (out, bytes) in out.chunks_exact_mut(line).zip(&bytes) {
                            out[C * i..][..C].copy_from_slice(&bytes[..C]);
                        }
                    }
                },
            );
        }
        out
    }

    /// A pixel of every row, whose sources begin at byte `at`.
    #[inline(always)]
    fn pixel<const C: usize>(
        simd: V3,
        rows: &[Vec<u8>; ROWS],
        at: usize,
        fours: &[Four],
        order: __m256i,
    ) -> [[u8; 4]; ROWS] {
        let avx2 = simd.avx2;
        let zero: __m256i = cast([0u8; 32]);
        let mut sums = [[zero; 2]; ROWS];
        for (i, four) in fours.iter().enumerate() {
            for r in 0..ROWS {
                let bytes: &[u8; READ] = match rows[r][at + 4 * C * i..].first_chunk() {
                    Some(bytes) => bytes,
                    None => &[0; READ],
                };
                let bytes = avx2._mm256_broadcastsi128_si256(cast(*bytes));
                let values = avx2._mm256_shuffle_epi8(bytes, order);
                for part in 0..2 {
                    let products = avx2._mm256_madd_epi16(values, four[part]);
                    sums[r][part] = avx2._mm256_add_epi32(sums[r][part], products);
                }
            }
        }
        let mut whole: [__m128i; ROWS] = [cast([HALF; 4]); ROWS];
        for r in 0..ROWS {
            let high = avx2._mm256_slli_epi32::<{ SPLIT as i32 }>(sums[r][0]);
            let [a, b]: [__m128i; 2] = cast(avx2._mm256_add_epi32(high, sums[r][1]));
            let sum = simd.sse2._mm_add_epi32(whole[r], simd.sse2._mm_add_epi32(a, b));
            whole[r] = simd.sse2._mm_srai_epi32::<22>(sum);
        }
        let low = simd.sse2._mm_packs_epi32(whole[0], whole[1]);
        let high = simd.sse2._mm_packs_epi32(whole[2], whole[3]);
        cast(simd.sse2._mm_packus_epi16(low, high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_give_the_same_bytes() {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        for (width, count) in [(1, 1), (3, 2), (17, 5), (40, 9), (101, 4)] {
            let taps: Vec<Tap> = (0..30)
                .map(|_| {
                    let low = next() as usize % width;
                    let many = 1 + next() as usize % (width - low);
                    let many = many.min(70);
                    // As large as a sum has room for, to both sides.
                    let weight = |_| ((next() << 7) as i32 - (1 << 22)) / many as i32;
                    Tap { low: low + 5, weights: (0..many).map(weight).collect() }
                })
                .collect();
            check::<1>(width, count, &taps);
            check::<2>(width, count, &taps);
            check::<3>(width, count, &taps);
            check::<4>(width, count, &taps);
        }
    }

    fn check<const C: usize>(width: usize, count: usize, taps: &[Tap]) {
        let bytes: Vec<u8> = (0..count * C * width).map(|i| (i * 151 % 256) as u8).collect();
        let rows: Vec<&[u8]> = bytes.chunks_exact(C * width).collect();
        assert_eq!(horizontal::<C>(&rows, 5, taps), plain::<C>(&rows, 5, taps), "{width} of {C}");
    }
}
