//! Normal densities fitted to a few samples: likelihoods and divergences.
//!
//! Covariances are shrunk towards a multiple of the identity, because a few dozen samples do not
//! settle a matrix; what is left of the bias shows in the divergence of two halves of the same
//! samples, which belongs beside every divergence.

/// Weight of the identity.
const SHRINKAGE: f64 = 0.1;

/// A fitted density.
pub(crate) struct Gaussian {
    mean: Vec<f64>,
    /// Lower triangular root of the covariance.
    root: Vec<Vec<f64>>,
}

impl Gaussian {
    /// Fitted to rows of one width; `None` for fewer than two rows or rows without any spread.
    pub(crate) fn fit(rows: &[&[f64]]) -> Option<Self> {
        let (n, d) = (rows.len(), rows.first()?.len());
        if n < 2 {
            return None;
        }
        let mean: Vec<f64> =
            (0..d).map(|i| rows.iter().map(|row| row[i]).sum::<f64>() / n as f64).collect();
        let mut covariance = vec![vec![0.0; d]; d];
        for row in rows {
            for i in 0..d {
                for j in 0..d {
                    covariance[i][j] += (row[i] - mean[i]) * (row[j] - mean[j]) / (n - 1) as f64;
                }
            }
        }
        let spread = (0..d).map(|i| covariance[i][i]).sum::<f64>() / d.max(1) as f64;
        for (i, row) in covariance.iter_mut().enumerate() {
            row.iter_mut().for_each(|v| *v *= 1.0 - SHRINKAGE);
            row[i] += SHRINKAGE * spread;
        }
        let root = cholesky(&covariance)?;
        Some(Self { mean, root })
    }

    /// Logarithm of the density, without its constant.
    pub(crate) fn log(&self, row: &[f64]) -> f64 {
        let off: Vec<f64> = row.iter().zip(&self.mean).map(|(a, b)| a - b).collect();
        let scaled = solve(&self.root, &off);
        -0.5 * scaled.iter().map(|v| v * v).sum::<f64>() - self.half_log_determinant()
    }

    fn half_log_determinant(&self) -> f64 {
        self.root.iter().enumerate().map(|(i, row)| row[i].ln()).sum()
    }

    /// `KL(self || other)` in nats.
    pub(crate) fn divergence(&self, other: &Self) -> f64 {
        let d = self.mean.len();
        let off: Vec<f64> = self.mean.iter().zip(&other.mean).map(|(a, b)| a - b).collect();
        let distance: f64 = solve(&other.root, &off).iter().map(|v| v * v).sum();
        // Trace of the inverse times a matrix, column by column of its root.
        let columns = (0..d).map(|j| {
            let column: Vec<f64> = (0..d).map(|i| self.root[i][j]).collect();
            solve(&other.root, &column).iter().map(|v| v * v).sum::<f64>()
        });
        let trace: f64 = columns.sum();
        let volumes = other.half_log_determinant() - self.half_log_determinant();
        0.5 * (trace + distance - d as f64) + volumes
    }
}

/// `None` for a matrix that is not positive definite.
fn cholesky(matrix: &[Vec<f64>]) -> Option<Vec<Vec<f64>>> {
    let d = matrix.len();
    let mut root = vec![vec![0.0; d]; d];
    for i in 0..d {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| root[i][k] * root[j][k]).sum();
            let rest = matrix[i][j] - sum;
            root[i][j] = match i == j {
                true if rest > 0.0 => rest.sqrt(),
                true => return None,
                false => rest / root[j][j],
            };
        }
    }
    Some(root)
}

/// `root^-1 b` by forward substitution.
fn solve(root: &[Vec<f64>], b: &[f64]) -> Vec<f64> {
    let mut x: Vec<f64> = Vec::with_capacity(b.len());
    for (i, row) in root.iter().enumerate() {
        let known: f64 = row.iter().zip(&x).map(|(r, x)| r * x).sum();
        x.push((b[i] - known) / row[i]);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipguard_data::Stream;

    fn rows(count: usize, shift: f64, stretch: f64, seed: u64) -> Vec<Vec<f64>> {
        let mut stream = Stream::counted(seed, "gaussian", 0);
        let mut row = || {
            let (a, b) = (f64::from(stream.normal()), f64::from(stream.normal()));
            vec![stretch * a + shift, stretch * (0.6 * a + 0.8 * b)]
        };
        (0..count).map(|_| row()).collect()
    }

    fn fit(rows: &[Vec<f64>]) -> Gaussian {
        Gaussian::fit(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn divergences_are_those_of_the_formula() {
        let (p, same) = (fit(&rows(20_000, 0.0, 1.0, 1)), fit(&rows(20_000, 0.0, 1.0, 2)));
        assert!(p.divergence(&p).abs() < 1e-12 && p.divergence(&same) < 1e-3);
        // A shift of one along the first axis: off^2 / 2 by the inverse of the shrunk covariance
        // [[1, .54], [.54, 1]], whose first entry is 1 / (1 - .54^2).
        let moved = fit(&rows(20_000, 1.0, 1.0, 3));
        let want = 0.5 / (1.0 - 0.54f64.powi(2));
        assert!((moved.divergence(&p) - want).abs() < 0.03, "{}", moved.divergence(&p));
        // Twice as wide in two dimensions: (4 * 2 - 2) / 2 - 2 ln 2.
        let wide = fit(&rows(20_000, 0.0, 2.0, 4));
        let want = 3.0 - 2.0 * 2f64.ln();
        assert!((wide.divergence(&p) - want).abs() < 0.1, "{}", wide.divergence(&p));
        // The mean is likelier than what lies far from it.
        assert!(p.log(&[0.0, 0.0]) > p.log(&[2.0, 0.0]));
    }

    #[test]
    fn what_has_no_spread_has_no_density() {
        assert!(Gaussian::fit(&[]).is_none());
        let row = [1.0, 2.0];
        assert!(Gaussian::fit(&[&row]).is_none() && Gaussian::fit(&[&row, &row]).is_none());
    }
}
