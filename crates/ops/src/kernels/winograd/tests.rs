use super::{
    super::{conv::forward, tests::numbers},
    *,
};

/// For every result, input and weight of a product of the convolution their places.
fn products(s: &Shape, mut visit: impl FnMut(usize, usize, usize)) {
    for picture in 0..s.n {
        for (y, x) in (0..s.out_h()).flat_map(|y| (0..s.out_w()).map(move |x| (y, x))) {
            for (ky, kx) in (0..3).flat_map(|ky| (0..3).map(move |kx| (ky, kx))) {
                let from = ((y + ky).wrapping_sub(s.pad), (x + kx).wrapping_sub(s.pad));
                if from.0 >= s.h || from.1 >= s.w {
                    continue;
                }
                let pixel = (picture * s.h + from.0) * s.w + from.1;
                let result = (picture * s.out_h() + y) * s.out_w() + x;
                for (o, i) in (0..s.out).flat_map(|o| (0..s.c).map(move |i| (o, i))) {
                    let weight = (o * s.c + i) * 9 + ky * 3 + kx;
                    visit(result * s.out + o, pixel * s.c + i, weight);
                }
            }
        }
    }
}

#[track_caller]
fn close(got: &[f32], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let top = want.iter().fold(0f64, |m, v| m.max(v.abs()));
    let off = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).abs()).fold(0f64, f64::max);
    assert!(off <= 2e-6 * top, "{what}: off by {off:e} of {top:e}");
}

#[test]
fn results_and_gradients_are_those_of_the_definition() {
    for (n, [h, w], c, out, pad) in [
        (1, [4, 4], 16, 16, 1),
        (3, [7, 5], 16, 32, 1),
        (2, [8, 9], 48, 16, 0),
        (2, [3, 3], 32, 16, 0),
        (1, [1, 1], 16, 16, 1),
        (1, [2, 30], 16, 64, 2),
        (5, [16, 16], 32, 16, 1),
    ] {
        let s = Shape { n, h, w, c, out, kernel: 3, stride: 1, pad };
        assert!(is_for(&s));
        let results = n * s.windows() * out;
        let (x, weight) = (numbers(n * h * w * c, 1), numbers(9 * c * out, 2));
        let g = numbers(results, 3);
        let mut want = [vec![0f64; results], vec![0f64; x.len()], vec![0f64; weight.len()]];
        products(&s, |y, at, k| {
            want[0][y] += f64::from(x[at]) * f64::from(weight[k]);
            want[1][at] += f64::from(g[y]) * f64::from(weight[k]);
            want[2][k] += f64::from(g[y]) * f64::from(x[at]);
        });
        close(&forward(&s, &x, &weight), &want[0], &format!("results of {s:?}"));
        close(&input_gradient(&s, &g, &weight), &want[1], &format!("pixels of {s:?}"));
        close(&weight_gradient(&s, &g, &x), &want[2], &format!("weights of {s:?}"));
    }
}

#[test]
fn a_picture_depends_neither_on_others_nor_on_threads() {
    let shape = |n: usize| Shape { n, h: 9, w: 10, c: 32, out: 48, kernel: 3, stride: 1, pad: 1 };
    let (x, weight) = (numbers(7 * 90 * 32, 4), numbers(9 * 32 * 48, 5));
    let on = |threads: usize, n: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| forward(&shape(n), &x[..n * 90 * 32], &weight))
    };
    let all = on(1, 7);
    for (threads, n) in [(1, 1), (2, 7), (3, 4)] {
        assert!(on(threads, n) == all[..n * 90 * 48], "{threads} threads, {n} pictures");
    }
    let g = numbers(7 * 90 * 48, 6);
    let weights = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| weight_gradient(&shape(7), &g, &x))
    };
    assert!(weights(1) == weights(2));
}
