//! The theory of purification on real pairs: how likely clean and attacked pictures are in each
//! space, what divergence an attack opens, and what a purifier leaves of it.
//!
//! The purification risk is the divergence between the path of a purifier and that of the attack
//! backwards; it is at least the divergence between purified and clean pictures (data processing),
//! which is estimated here. That a divergence is large says that attacked pictures can be told from
//! clean ones, not that going uphill in likelihood leads to the right class; so the lead of the
//! right class stands beside it.

use crate::{
    studies::detection::{Estimate, auroc},
    studies::gaussian::Gaussian,
    studies::look::{Look, SPACES},
};
use serde::{Deserialize, Serialize};

/// Points of a distribution.
const QUANTILES: usize = 20;

/// What a purifier did to clean and attacked embeddings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shift {
    /// Attacks, the one on the undefended model first.
    pub attacks: Vec<Shifts>,
}

/// The same for one attack.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shifts {
    /// In words.
    pub attack: String,
    /// Pairs of a clean picture and its attacked version.
    pub pairs: usize,
    /// Angle to the blank prompt in degrees: quantiles of clean and attacked pictures.
    pub angle: Curves,
    /// Cosine with the right class minus the largest other: quantiles.
    pub lead: Curves,
    /// Mean angle in degrees by which purification turns a clean embedding.
    pub turn_clean: Option<Estimate>,
    /// The same of an attacked one.
    pub turn_attacked: Option<Estimate>,
    /// Mean angle in degrees by which the attack moved the embedding.
    pub moved: Option<Estimate>,
    /// Mean share of the squared displacement in the plane of clean embedding and blank prompt.
    pub plane: Option<Estimate>,
    /// Mean share of it in the span of the class prompts.
    pub names: Option<Estimate>,
    /// Likelihoods and divergences.
    pub spaces: Vec<Space>,
}

/// Quantiles from 0 to 1 in equal steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Curves {
    /// Clean pictures in front of the purifier.
    pub clean_before: Vec<f64>,
    /// Clean pictures behind it.
    pub clean_after: Vec<f64>,
    /// Attacked pictures in front of it.
    pub attacked_before: Vec<f64>,
    /// Attacked pictures behind it.
    pub attacked_after: Vec<f64>,
}

/// Likelihood and divergence in one space.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Space {
    /// Its name.
    pub space: String,
    /// Mean log-likelihood of a clean picture minus that of its attacked version, in standard
    /// deviations over clean pictures.
    pub gap: Option<Estimate>,
    /// Probability that a clean picture is likelier than an attacked one.
    pub auroc: Option<Estimate>,
    /// `KL(attacked || clean)` in nats, in front of the purifier.
    pub risk_before: Option<Estimate>,
    /// `KL(purified attacked || clean)`: a lower bound of the purification risk.
    pub risk_after: Option<Estimate>,
    /// The same between two halves of the clean pictures: what the estimate takes for 0.
    pub control: Option<Estimate>,
}

/// Clean looks and those of the attacked versions, row by row.
pub(crate) struct Pairs<'a> {
    pub(crate) clean: &'a [Look],
    pub(crate) attacked: &'a [Look],
    pub(crate) seed: u64,
}

impl Pairs<'_> {
    /// Everything about one attack.
    pub(crate) fn told(&self, attack: &str) -> Shifts {
        let degrees = |look: &Look, i: usize| look.angle[i].to_degrees();
        let lead = |look: &Look, i: usize| look.right[i] - look.other[i];
        let mean = |looks: &[Look], of: &dyn Fn(&Look) -> f64| {
            self.estimate(&|rows| mean(rows.iter().map(|&i| of(&looks[i]))))
        };
        Shifts {
            attack: attack.to_owned(),
            pairs: self.clean.len(),
            angle: self.curves(&degrees),
            lead: self.curves(&lead),
            turn_clean: mean(self.clean, &|look| look.turn.to_degrees()),
            turn_attacked: mean(self.attacked, &|look| look.turn.to_degrees()),
            moved: mean(self.attacked, &|look| look.moved.to_degrees()),
            plane: mean(self.attacked, &|look| look.plane),
            names: mean(self.attacked, &|look| look.names),
            spaces: (0..SPACES.len()).map(|space| self.space(space)).collect(),
        }
    }

    fn estimate(&self, of: &dyn Fn(&[usize]) -> Option<f64>) -> Option<Estimate> {
        Estimate::of(self.clean.len(), self.seed, of)
    }

    fn curves(&self, of: &dyn Fn(&Look, usize) -> f64) -> Curves {
        let curve = |looks: &[Look], i: usize| quantiles(looks.iter().map(|l| of(l, i)).collect());
        Curves {
            clean_before: curve(self.clean, 0),
            clean_after: curve(self.clean, 1),
            attacked_before: curve(self.attacked, 0),
            attacked_after: curve(self.attacked, 1),
        }
    }

    fn space(&self, space: usize) -> Space {
        let likelihood = |rows: &[usize]| -> Option<(Vec<f64>, Vec<f64>)> {
            let both = |of: &dyn Fn(&Look) -> f64| {
                let all = |looks: &[Look]| rows.iter().map(|&i| of(&looks[i])).collect::<Vec<_>>();
                (all(self.clean), all(self.attacked))
            };
            match space {
                0 => Some(both(&|look| look.smooth[0])),
                1 => self.fitted(rows, space),
                // Monotone in the density around the blank prompt.
                _ => Some(both(&|look| look.angle[0].cos())),
            }
        };
        let gap = |rows: &[usize]| {
            let (clean, attacked) = likelihood(rows)?;
            let difference = mean(clean.iter().zip(&attacked).map(|(a, b)| a - b))?;
            Some(difference / deviation(&clean)?)
        };
        let area = |rows: &[usize]| likelihood(rows).and_then(|(a, b)| auroc(&a, &b));
        let risk = |looks: &'_ [Look], i: usize| {
            self.estimate(&|rows| divergence(rows, looks, self.clean, (space, i)))
        };
        Space {
            space: SPACES[space].to_owned(),
            gap: self.estimate(&gap),
            auroc: self.estimate(&area),
            risk_before: risk(self.attacked, 0),
            risk_after: risk(self.attacked, 1),
            control: risk(self.clean, 0),
        }
    }

    /// Log-likelihoods of clean and attacked shadows under a density fitted to the other half of
    /// the clean ones, so that no picture is judged by itself.
    fn fitted(&self, rows: &[usize], space: usize) -> Option<(Vec<f64>, Vec<f64>)> {
        let halves = halves(rows);
        let fit = |half: &[usize]| {
            let rows: Vec<&[f64]> =
                half.iter().map(|&i| self.clean[i].shadows[space][0].as_slice()).collect();
            Gaussian::fit(&rows)
        };
        let (mut clean, mut attacked) = (Vec::new(), Vec::new());
        for (own, other) in [(0, 1), (1, 0)] {
            let density = fit(&halves[other])?;
            let log = |look: &Look| density.log(&look.shadows[space][0]);
            clean.extend(halves[own].iter().map(|&i| log(&self.clean[i])));
            attacked.extend(halves[own].iter().map(|&i| log(&self.attacked[i])));
        }
        Some((clean, attacked))
    }
}

/// Mean over both ways to halve the pictures of `KL(looks of one half || clean of the other)`, of
/// shadows in a space, `i` = 0 before and 1 after purification. A picture and its attacked version
/// are never on both sides.
fn divergence(
    rows: &[usize],
    looks: &[Look],
    clean: &[Look],
    (space, i): (usize, usize),
) -> Option<f64> {
    let halves = halves(rows);
    let fit = |half: &[usize], looks: &[Look], i: usize| {
        let rows: Vec<&[f64]> =
            half.iter().map(|&row| looks[row].shadows[space][i].as_slice()).collect();
        Gaussian::fit(&rows)
    };
    let one = |own: usize, other: usize| {
        let (p, q) = (fit(&halves[own], looks, i)?, fit(&halves[other], clean, 0)?);
        Some(p.divergence(&q))
    };
    Some(0.5 * (one(0, 1)? + one(1, 0)?))
}

/// Pictures of even and of odd places. The place decides and not the order, so that a picture that
/// was drawn twice is in one half only.
fn halves(rows: &[usize]) -> [Vec<usize>; 2] {
    let (even, odd) = rows.iter().partition(|row| *row % 2 == 0);
    [even, odd]
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, n), v| (sum + v, n + 1));
    (count > 0).then(|| sum / count as f64)
}

fn deviation(values: &[f64]) -> Option<f64> {
    let centre = mean(values.iter().copied())?;
    let variance = mean(values.iter().map(|v| (v - centre).powi(2)))?;
    (variance > 0.0).then(|| variance.sqrt())
}

fn quantiles(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return Vec::new() };
    let at = |i: usize| values[(last as f64 * i as f64 / QUANTILES as f64).round() as usize];
    (0..=QUANTILES).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::studies::look::SHADOW;
    use clipguard_data::Stream;

    /// Looks whose image shadow is shifted before and after purification.
    fn looks(count: usize, shift: [f64; 2], seed: u64) -> Vec<Look> {
        let mut stream = Stream::counted(seed, "looks", 0);
        let mut look = || {
            let noise: Vec<f64> = (0..SHADOW).map(|_| f64::from(stream.normal())).collect();
            let moved = |by: f64| noise.iter().map(|v| v + by).collect::<Vec<f64>>();
            let pair = [moved(shift[0]), moved(shift[1])];
            let still = [noise.clone(), noise.clone()];
            Look {
                angle: [1.0 + 0.01 * noise[0] + shift[0], 1.0 + 0.01 * noise[0] + shift[1]],
                right: [0.3; 2],
                other: [0.3 + shift[0], 0.3 + shift[1]],
                turn: 0.1,
                plane: 0.25,
                smooth: [noise[1]; 2],
                shadows: [still.clone(), pair, still],
                ..Look::default()
            }
        };
        (0..count).map(|_| look()).collect()
    }

    #[test]
    fn a_shift_is_seen_where_it_is_and_a_purifier_that_undoes_it_leaves_no_risk() {
        let (clean, attacked) = (looks(300, [0.0; 2], 1), looks(300, [1.0, 0.0], 1));
        let told = Pairs { clean: &clean, attacked: &attacked, seed: 0 }.told("on the defence");
        assert_eq!((told.attack.as_str(), told.pairs), ("on the defence", 300));
        let [pixels, image, text] = &told.spaces[..] else { panic!("three spaces") };
        let value = |e: Option<Estimate>| {
            let e = e.unwrap();
            assert!(e.low <= e.value && e.value <= e.high);
            e.value
        };
        // The same noise without a shift: nothing to see in pixels.
        assert_eq!(value(pixels.gap), 0.0);
        assert_eq!(value(pixels.auroc), 0.5);
        // Squared lengths of 8 against 16 with deviations of 4 and 7: an area of about 0.84.
        assert!(value(image.gap) > 1.0 && (0.75..0.93).contains(&value(image.auroc)));
        // Eight dimensions shifted by one deviation: 8 / 2 nats, and the bias of the control.
        let control = value(image.control);
        assert!((value(image.risk_before) - control - 4.0).abs() < 0.8, "{image:?}");
        assert!((value(image.risk_after) - control).abs() < 1e-9, "{image:?}");
        assert_eq!(value(text.auroc), 1.0);
        assert_eq!(value(told.plane), 0.25);
        let lead = &told.lead;
        assert_eq!(lead.clean_before.len(), QUANTILES + 1);
        assert!(lead.attacked_before.iter().all(|l| *l < -0.9));
        assert!(lead.attacked_after.iter().all(|l| l.abs() < 1e-9));
        assert!(told.angle.attacked_before[10] > told.angle.attacked_after[10] + 50.0);
    }

    #[test]
    fn nothing_is_said_of_no_pictures() {
        let told = Pairs { clean: &[], attacked: &[], seed: 0 }.told("a");
        assert!(told.moved.is_none() && told.angle.clean_before.is_empty());
        assert!(told.spaces.iter().all(|space| space.gap.is_none() && space.control.is_none()));
    }
}
