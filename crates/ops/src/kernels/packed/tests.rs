use super::{
    super::{
        activation::{self, Activation},
        conv::Shape,
        tests::numbers,
    },
    *,
};

/// Words that are tested: what they make of a value.
trait Rounded: Word {
    fn rounded(value: f32) -> f32;

    /// Every way to multiply that this processor has.
    fn all_ways(packed: &Packed<Self>, x: &[f32], bias: Option<&[f32]>) -> Ways;
}

type Ways = Vec<(&'static str, Vec<f32>)>;

impl Rounded for f32 {
    fn rounded(value: f32) -> f32 {
        value
    }

    fn all_ways(packed: &Packed<f32>, x: &[f32], bias: Option<&[f32]>) -> Ways {
        let (panels, x, finish) = (packed.panels(), Source::Rows(x), Finish::default());
        let product = || Product { panels, x, bias, finish };
        let mut ways = vec![
            ("chosen", packed.product(x, bias, finish)),
            ("plain", product().on::<_, 4, 1>(Exact(Plain))),
            ("plain, wide tiles", product().on::<_, 8, 3>(Exact(Plain))),
        ];
        #[cfg(target_arch = "x86_64")]
        {
            use pulp::x86::{V3, V4};
            let mut add = |name, y: Option<Vec<f32>>| ways.extend(y.map(|y| (name, y)));
            add("AVX2", V3::try_new().map(|unit| product().on::<_, 6, 1>(Exact(unit))));
            add("AVX-512", V4::try_new().map(|unit| product().on::<_, 8, 3>(Exact(unit))));
        }
        ways
    }
}

impl Rounded for Pair {
    fn rounded(value: f32) -> f32 {
        bf16::from_f32(value).to_f32()
    }

    fn all_ways(packed: &Packed<Self>, x: &[f32], bias: Option<&[f32]>) -> Ways {
        let (panels, x, finish) = (packed.panels(), Source::Rows(x), Finish::default());
        let product = || Product { panels, x, bias, finish };
        let mut ways = vec![
            ("chosen", packed.product(x, bias, finish)),
            ("plain", product().on::<_, 4, 1>(Widened(Plain))),
            ("plain, wide tiles", product().on::<_, 8, 3>(Widened(Plain))),
        ];
        #[cfg(target_arch = "x86_64")]
        {
            use pulp::x86::{V3, V4};
            let mut add = |name, y: Option<Vec<f32>>| ways.extend(y.map(|y| (name, y)));
            add("AVX2", V3::try_new().map(|unit| product().on::<_, 6, 1>(Widened(unit))));
            add("AVX-512", V4::try_new().map(|unit| product().on::<_, 8, 3>(Widened(unit))));
            let dot = units::x86::Dot::detected();
            add("bf16", dot.map(|unit| product().on::<_, 8, 3>(unit)));
        }
        ways
    }
}

/// Sums of the products of rounded factors, and of their magnitudes.
fn expected<W: Rounded>(x: &[f32], w: &[f32], bias: &[f32], inputs: usize) -> Vec<[f64; 2]> {
    let wide = |v: &f32| f64::from(W::rounded(*v));
    let outputs = w.len() / inputs;
    let mut y = Vec::new();
    for x in x.chunks_exact(inputs) {
        for (o, w) in w.chunks_exact(inputs).enumerate() {
            let products = x.iter().zip(w).map(|(x, w)| wide(x) * wide(w));
            let start = bias.get(o % outputs).map_or(0.0, |b| f64::from(*b));
            y.push(products.fold([start, start.abs()], |[s, m], p| [s + p, m + p.abs()]));
        }
    }
    y
}

#[test]
fn products_of_every_shape_are_those_of_rounded_factors() {
    every_shape::<f32>();
    every_shape::<Pair>();
}

fn every_shape<W: Rounded>() {
    let shapes = [
        (1, 1, 1),
        (1, 2, 16),
        (3, 7, 5),
        (5, 16, 17),
        (7, 31, 48),
        (23, 33, 49),
        (25, 511, 64),
        (97, 513, 80),
        (200, 1030, 33),
        (0, 4, 4),
    ];
    for (rows, inputs, outputs) in shapes {
        let (x, w) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2));
        let b = numbers(outputs, 3);
        let packed = Packed::<W>::new(&w, inputs);
        for bias in [None, Some(&b[..])] {
            let want = expected::<W>(&x, &w, bias.unwrap_or(&[]), inputs);
            for (way, y) in W::all_ways(&packed, &x, bias) {
                assert_eq!(y.len(), want.len());
                for (y, [want, size]) in y.iter().zip(&want) {
                    let gap = (f64::from(*y) - want).abs();
                    let shape = (rows, inputs, outputs);
                    assert!(gap <= 1e-6 * size + 1e-30, "{way} {shape:?}: {y} for {want}");
                }
            }
        }
    }
}

#[test]
fn windows_are_gathered_task_by_task() {
    windows::<f32>();
    windows::<Pair>();
}

fn windows<W: Rounded>() {
    for (n, side, kernel, stride, pad) in [(1, 5, 3, 1, 1), (7, 9, 3, 2, 1), (3, 40, 5, 1, 0)] {
        let (c, out) = (6, 20);
        let shape = Shape { n, h: side, w: side, c, out, kernel, stride, pad };
        let x = numbers(n * side * side * c, 9);
        let weight = numbers(out * shape.window(), 10);
        let packed = Packed::<W>::new(&weight, shape.window());
        let mut windows = Vec::new();
        shape.gather(&x, &mut windows);
        let want = packed.product(Source::Rows(&windows), None, Finish::default());
        assert_eq!(packed.product(Source::Windows(&shape, &x), None, Finish::default()), want);
    }
}

#[test]
fn a_row_depends_on_itself_alone() {
    alone::<f32>();
    alone::<Pair>();
}

fn alone<W: Rounded>() {
    let (inputs, outputs) = (600, 100);
    let (x, w) = (numbers(150 * inputs, 4), numbers(outputs * inputs, 5));
    let packed = Packed::<W>::new(&w, inputs);
    for (way, whole) in W::all_ways(&packed, &x, None) {
        for rows in [1, 2, 7, 24, 149] {
            let alone = W::all_ways(&packed, &x[inputs..(1 + rows) * inputs], None);
            let (_, alone) = alone.into_iter().find(|(name, _)| *name == way).unwrap();
            let same = alone.iter().zip(&whole[outputs..]);
            assert!(same.into_iter().all(|(a, b)| a.to_bits() == b.to_bits()), "{way} {rows}");
        }
    }
}

#[test]
fn rounding_is_that_of_the_standard() {
    let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-40];
    let ties = [0x3f80_8000, 0x3f81_8000, 0x3f80_7fff, 0x3f80_8001].map(f32::from_bits);
    for x in special.into_iter().chain(ties).chain(numbers(10_000, 6)) {
        assert_eq!(units::round(x).to_bits(), bf16::from_f32(x).to_f32().to_bits(), "{x}");
    }
    for bits in [0x7f80_0001, 0xff80_0001, 0x7fff_ffff, 0xffff_ffff] {
        assert!(units::round(f32::from_bits(bits)).is_nan(), "{bits:x}");
    }
}

#[test]
fn what_is_not_finite_stays_in_its_row() {
    not_finite::<f32>();
    not_finite::<Pair>();
}

fn not_finite<W: Rounded>() {
    let mut x = numbers(30 * 40, 7);
    x[40] = f32::NAN;
    x[80] = f32::INFINITY;
    let packed = Packed::<W>::new(&numbers(20 * 40, 8), 40);
    for (way, y) in W::all_ways(&packed, &x, None) {
        for (i, row) in y.chunks_exact(20).enumerate() {
            assert!(row.iter().all(|v| v.is_finite() == (i != 1 && i != 2)), "{way} {i}");
        }
    }
}

#[test]
fn what_follows_has_the_bits_of_steps_on_their_own() {
    follows::<f32>();
    follows::<Pair>();
}

fn follows<W: Rounded>() {
    for (rows, inputs, outputs) in [(0, 3, 4), (1, 9, 70), (40, 300, 50), (300, 20, 19)] {
        let (x, w) = (numbers(rows * inputs, 14), numbers(outputs * inputs, 15));
        let (slope, offset) = (numbers(outputs, 16), numbers(outputs, 17));
        let add = numbers(rows * outputs, 18);
        let packed = Packed::<W>::new(&w, inputs);
        let plain = packed.product(Source::Rows(&x), Some(&offset), Finish::default());
        for line in [None, Some([&slope[..], &offset[..]])] {
            for add in [None, Some(&add[..])] {
                for (relu, activation) in
                    [(true, None), (false, None), (false, Some(Activation::QuickGelu))]
                {
                    let finish = Finish { line, add, relu, activation };
                    let got = packed.product(Source::Rows(&x), Some(&offset), finish);
                    let mut want = plain.clone();
                    for (i, y) in want.iter_mut().enumerate() {
                        if line.is_some() {
                            *y = *y * slope[i % outputs] + offset[i % outputs];
                        }
                        *y += add.map_or(0.0, |add| add[i]);
                        *y = if relu { y.max(0.0) } else { *y };
                    }
                    if let Some(kind) = activation {
                        want = activation::forward(kind, &want);
                    }
                    assert_eq!(got, want, "{finish:?} of {rows} x {inputs} x {outputs}");
                }
            }
        }
    }
}

#[test]
fn several_weights_lie_together() {
    let (inputs, outputs, rows) = (21, 37, 11);
    let weights = [numbers(outputs * inputs, 11), numbers(outputs * inputs, 12)];
    let packed = weights.each_ref().map(|w| Packed::<f32>::new(w, inputs));
    let panels = packed.each_ref().map(|p| p.words.chunks_exact(inputs));
    let [first, second] = panels;
    let together: Vec<[f32; WIDE]> =
        first.zip(second).flat_map(|(a, b)| a.iter().chain(b).copied()).collect();
    let x = numbers(rows * inputs, 13);
    for (i, packed) in packed.iter().enumerate() {
        let mut y = vec![0.5; rows * outputs];
        Panels::new(&together[i * inputs..], 2 * inputs, outputs, inputs).rows(&x, &mut y);
        assert_eq!(y, packed.product(Source::Rows(&x), None, Finish::default()));
    }
}

#[test]
#[should_panic(expected = "do not fit")]
fn panels_beyond_their_words_are_refused() {
    let _ = Panels::new(&[[0.0; WIDE]; 9], 5, 17, 5);
}
