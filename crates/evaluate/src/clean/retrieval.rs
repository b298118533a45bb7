//! Retrieval between captions and pictures: recall at k by counting ranks, block by block.
//!
//! Nothing of size texts x pictures is kept, so the 25,000 captions of COCO fit anywhere. Who
//! stands before whom is decided by the score and, at a tie, by the lower index.

use crate::clean::metrics::MetricError;

/// Texts whose scores are computed at a time, so that each picture's embedding is read once for
/// all of them.
const BLOCK: usize = 16;

/// Ranks of everything that belongs together; every recall follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retrieval {
    /// Pictures, with and without captions.
    pub images: usize,
    /// Which picture each text belongs to.
    pub owner: Vec<usize>,
    /// For each text, the place of its picture among all pictures, from 0.
    pub image_rank: Vec<usize>,
    /// For each text, its place among all texts for its picture, from 0.
    pub text_rank: Vec<usize>,
}

impl Retrieval {
    /// Ranks from embeddings of equal length: `texts` `[owner.len(), dim]` and `images`
    /// `[_, dim]`, row-major; `owner[i]` is the picture of text i.
    pub fn new(
        texts: &[f32],
        images: &[f32],
        dim: usize,
        owner: &[usize],
    ) -> Result<Self, MetricError> {
        let count = images.len() / dim.max(1);
        for (len, rows) in [(texts.len(), owner.len()), (images.len(), count)] {
            if rows.checked_mul(dim) != Some(len) {
                return Err(MetricError::Shape { scores: len, rows, columns: dim });
            }
        }
        let text = |t: usize| &texts[t * dim..(t + 1) * dim];
        let image = |i: usize| &images[i * dim..(i + 1) * dim];
        Self::count(owner, count, |t, i| dot(text(t), image(i)))
    }

    /// Ranks from ready scores `[owner.len(), images]`, row-major.
    pub fn from_scores(
        scores: &[f32],
        images: usize,
        owner: &[usize],
    ) -> Result<Self, MetricError> {
        if owner.len().checked_mul(images) != Some(scores.len()) {
            let (rows, columns) = (owner.len(), images);
            return Err(MetricError::Shape { scores: scores.len(), rows, columns });
        }
        Self::count(owner, images, |t, i| scores[t * images + i])
    }

    fn count(
        owner: &[usize],
        images: usize,
        score: impl Fn(usize, usize) -> f32,
    ) -> Result<Self, MetricError> {
        if let Some((index, &value)) = owner.iter().enumerate().find(|(_, o)| **o >= images) {
            return Err(MetricError::OutOfRange { index, value, limit: images });
        }
        let own: Vec<f32> = owner.iter().enumerate().map(|(t, &i)| score(t, i)).collect();
        let mut captions = vec![Vec::new(); images];
        for (t, &i) in owner.iter().enumerate() {
            captions[i].push(t);
        }
        let (mut image_rank, mut text_rank) = (vec![0; owner.len()], vec![0; owner.len()]);
        for start in (0..owner.len()).step_by(BLOCK) {
            for (i, mine) in captions.iter().enumerate() {
                for t in start..owner.len().min(start + BLOCK) {
                    let value = score(t, i);
                    if i != owner[t] && stands_before(value, i, own[t], owner[t]) {
                        image_rank[t] += 1;
                    }
                    for &caption in mine {
                        if t != caption && stands_before(value, t, own[caption], caption) {
                            text_rank[caption] += 1;
                        }
                    }
                }
            }
        }
        Ok(Self { images, owner: owner.to_vec(), image_rank, text_rank })
    }

    /// Number of texts.
    pub fn texts(&self) -> usize {
        self.owner.len()
    }

    /// Pictures that have no caption; recalls leave them out.
    pub fn without_captions(&self) -> usize {
        self.best_caption().iter().filter(|best| best.is_none()).count()
    }

    /// `image_retrieval_recall@k`: share of texts whose picture is among the best k.
    pub fn image_recall(&self, k: usize) -> Result<Option<f64>, MetricError> {
        enough(k, self.images)?;
        Ok(share(self.image_rank.iter().map(|&rank| rank < k)))
    }

    /// `text_retrieval_recall@k`: share of pictures with any own caption among the best k.
    pub fn text_recall(&self, k: usize) -> Result<Option<f64>, MetricError> {
        enough(k, self.texts())?;
        Ok(share(self.best_caption().into_iter().flatten().map(|rank| rank < k)))
    }

    /// Mean over pictures of the share of own captions among the best k: what "recall" means
    /// elsewhere, and stricter than [`Retrieval::text_recall`].
    pub fn true_text_recall(&self, k: usize) -> Result<Option<f64>, MetricError> {
        enough(k, self.texts())?;
        let mut found = vec![(0_usize, 0_usize); self.images];
        for (&image, &rank) in self.owner.iter().zip(&self.text_rank) {
            found[image].0 += usize::from(rank < k);
            found[image].1 += 1;
        }
        let shares: Vec<f64> = found
            .iter()
            .filter(|(_, all)| *all > 0)
            .map(|(hits, all)| *hits as f64 / *all as f64)
            .collect();
        Ok((!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64))
    }

    /// `(hits, captions)` of each picture at k, for
    /// [`Interval::cluster_bootstrap`](crate::statistics::interval::Interval::cluster_bootstrap): the
    /// captions of one picture are not independent samples.
    pub fn clusters(&self, k: usize) -> Vec<(usize, usize)> {
        let mut clusters = vec![(0, 0); self.images];
        for (&image, &rank) in self.owner.iter().zip(&self.image_rank) {
            clusters[image].0 += usize::from(rank < k);
            clusters[image].1 += 1;
        }
        clusters.retain(|cluster| cluster.1 > 0);
        clusters
    }

    fn best_caption(&self) -> Vec<Option<usize>> {
        let mut best = vec![None; self.images];
        for (&image, &rank) in self.owner.iter().zip(&self.text_rank) {
            best[image] = Some(best[image].map_or(rank, |known: usize| known.min(rank)));
        }
        best
    }
}

/// Whether a candidate comes before the one searched for: greater score, or equal score and lower
/// index. A score that is no number must not look like a good match: it stands behind everything.
fn stands_before(score: f32, index: usize, own: f32, own_index: usize) -> bool {
    own.is_nan() || score > own || (score == own && index < own_index)
}

fn enough(k: usize, candidates: usize) -> Result<(), MetricError> {
    if k > candidates { Err(MetricError::TooFew { k, candidates }) } else { Ok(()) }
}

fn share(flags: impl Iterator<Item = bool>) -> Option<f64> {
    let (hits, all) = flags.fold((0, 0), |(hits, all), hit| (hits + usize::from(hit), all + 1));
    (all > 0).then(|| hits as f64 / all as f64)
}

/// Inner product in eight running sums: fast, and in one fixed order, so that the same pair has
/// the same score wherever it is asked for.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a8.zip(b8) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn golden_recalls() {
        let owner = golden::indices("ret_owner");
        let by_scores =
            Retrieval::from_scores(&golden::floats32("ret_scores"), 20, &owner).unwrap();
        let (texts, images) = (golden::floats32("ret_text"), golden::floats32("ret_image"));
        let by_embedding = Retrieval::new(&texts, &images, 16, &owner).unwrap();
        assert_eq!(by_scores, by_embedding);
        let golden = &golden::json()["retrieval"];
        for k in [1, 5, 10] {
            for (name, ours) in [
                ("image_retrieval_recall", by_scores.image_recall(k)),
                ("text_retrieval_recall", by_scores.text_recall(k)),
                ("true_text_recall", by_scores.true_text_recall(k)),
            ] {
                let key = format!("{name}@{k}");
                golden::close(ours.unwrap().unwrap(), &golden[&key], 1e-7, &key);
            }
            let (hits, all) =
                by_scores.clusters(k).iter().fold((0, 0), |s, c| (s.0 + c.0, s.1 + c.1));
            assert_eq!(Some(hits as f64 / all as f64), by_scores.image_recall(k).unwrap());
        }
    }

    #[test]
    fn too_large_k_is_an_error() {
        let ranks = Retrieval::from_scores(&[0.0; 6], 2, &[0, 0, 1]).unwrap();
        assert_eq!(ranks.image_recall(3), Err(MetricError::TooFew { k: 3, candidates: 2 }));
        assert!(ranks.text_recall(3).is_ok() && ranks.text_recall(4).is_err());
    }

    #[test]
    fn ties_and_pictures_without_captions() {
        // All scores equal: order of index. Picture 1 has no caption.
        let ranks = Retrieval::from_scores(&[0.5; 6], 3, &[2, 0]).unwrap();
        assert_eq!(ranks.image_rank, [2, 0]);
        assert_eq!(ranks.text_rank, [0, 1]);
        assert_eq!(ranks.without_captions(), 1);
        assert_eq!(ranks.text_recall(1).unwrap(), Some(0.5));
        let nothing = Retrieval::from_scores(&[], 0, &[]).unwrap();
        assert_eq!(nothing.image_recall(0).unwrap(), None);
    }

    #[test]
    fn a_score_that_is_no_number_comes_last() {
        let ranks = Retrieval::from_scores(&[f32::NAN, 0.1, 0.2], 3, &[0]).unwrap();
        assert_eq!(ranks.image_rank, [2]);
        let ranks = Retrieval::from_scores(&[f32::NAN; 3], 3, &[0]).unwrap();
        assert_eq!(ranks.image_rank, [2]);
        let ranks = Retrieval::from_scores(&[f32::NAN, 0.1, f32::NAN], 3, &[1]).unwrap();
        assert_eq!(ranks.image_rank, [0]);
    }

    #[test]
    fn wrong_shapes_and_owners_are_refused() {
        assert!(Retrieval::from_scores(&[0.0; 5], 2, &[0, 1]).is_err());
        assert!(Retrieval::new(&[0.0; 8], &[0.0; 7], 4, &[0, 0]).is_err());
        assert_eq!(
            Retrieval::from_scores(&[0.0; 4], 2, &[0, 2]),
            Err(MetricError::OutOfRange { index: 1, value: 2, limit: 2 })
        );
    }
}
