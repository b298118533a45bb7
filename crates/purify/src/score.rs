//! Likelihoods of embeddings: what a detector of manipulated pictures would look at.
//!
//! CLIPure rests on two of them, the cosine with a blank prompt and the error of a diffusion prior.
//! That attacked pictures are less likely is measured on pictures made against a model that nobody
//! watched; an attacker who knows of the detector adds the likelihood to what it raises. A
//! [`Watched`] victim hands it to the attack as its bonus, so that the evaluation can say what is
//! left of the detector then.

use std::sync::Arc;

use burn::tensor::Tensor;
use clipguard_data::{
    Stream, parameters,
    spelling::{Method, Parameters, Spelling, find},
};
use clipguard_model::{
    Encoder, Query, Victim,
    prior::{Draw, Prior, Text},
    victim::Answer,
};

use crate::{Defended, PurifyError, catalogue::Material, clipure_diff::fitting};

/// How likely a unit embedding is to come from an unchanged picture, up to a monotone map.
pub trait Score: Send + Sync {
    /// A number a row of unit embeddings `[batch, dimensions]`, higher for likelier ones; `[batch]`.
    /// Differentiable; its draws depend on the row's key alone, so that a picture and its attacked
    /// version see the same noise.
    fn rows(&self, embedding: Tensor<2>, keys: &[String]) -> Tensor<1>;

    /// Name and all settings, as [`parse_score`] reads them.
    fn spelling(&self) -> Spelling;

    /// Digest of the file it was read from, if any.
    fn digest(&self) -> Option<&str> {
        None
    }
}

/// Makes a score from its spelling.
pub type BuildScore = fn(&Spelling, &Material) -> Result<Box<dyn Score>, PurifyError>;

/// Every score, by name.
pub const SCORES: &[Method<BuildScore>] = &[
    Method {
        name: "blank-cosine",
        about: "cosine of the embedding with that of a blank prompt",
        source: "Zhang et al., CLIPure, ICLR 2025",
        parameters: BlankSettings::list,
        build: |spelling, material| Ok(Box::new(BlankCosine::new(spelling, material)?)),
    },
    Method {
        name: "prior-error",
        about: "how well a diffusion prior restores the embedding at a fixed time, negated",
        source: "Zhang et al., CLIPure, ICLR 2025",
        parameters: PriorSettings::list,
        build: |spelling, material| Ok(Box::new(PriorError::new(spelling, material)?)),
    },
];

/// The score that `text` spells, such as `prior-error:prior=prior.safetensors`.
///
/// # Errors
/// A text of another form, an unknown name or setting (with the closest known one), a value out of
/// range, or material that is missing.
pub fn parse_score(text: &str, material: &Material) -> Result<Box<dyn Score>, PurifyError> {
    let spelling: Spelling = text.parse()?;
    (find("score", SCORES, spelling.name())?.build)(&spelling, material)
}

fn blank(material: &Material, purifier: &'static str) -> Result<Tensor<1>, PurifyError> {
    let what = "the embedding of the blank prompt";
    material.blank.clone().ok_or(PurifyError::Material { purifier, what })
}

parameters! {
    /// The cosine has no settings.
    pub struct BlankSettings {}
}

/// `cos(z, t)`, the likelihood of CLIPure-Cos: a von Mises-Fisher density around the blank prompt.
struct BlankCosine {
    /// Unit column `[dimensions, 1]`.
    blank: Tensor<2>,
}

impl BlankCosine {
    const NAME: &'static str = "blank-cosine";

    fn new(spelling: &Spelling, material: &Material) -> Result<Self, PurifyError> {
        let _: BlankSettings = spelling.read()?;
        let blank: Tensor<2> = blank(material, Self::NAME)?.unsqueeze_dim(1);
        let length = blank.clone().square().sum_dim(0).sqrt().clamp_min(1e-12);
        Ok(Self { blank: blank / length })
    }
}

impl Score for BlankCosine {
    fn rows(&self, embedding: Tensor<2>, _keys: &[String]) -> Tensor<1> {
        embedding.matmul(self.blank.clone()).flatten(0, 1)
    }

    fn spelling(&self) -> Spelling {
        BlankSettings {}.spelled(Self::NAME)
    }
}

parameters! {
    /// Which error of a prior.
    pub struct PriorSettings {
        /// File of the prior (safetensors), made for the model that is watched.
        prior: String = String::new(),
        /// Time of the noise schedule; at the published 900 and more the prior hardly sees the
        /// embedding.
        time: usize = 300,
        /// Draws of noise whose errors are averaged, at least 1.
        draws: usize = 8,
        /// Seed of the noise.
        seed: u64 = 0,
    }
}

/// The negative error of a prior at a fixed time: a term of the likelihood's bound, without its
/// weight.
struct PriorError {
    settings: PriorSettings,
    prior: Arc<Prior>,
    text: Text,
    none: Text,
}

impl PriorError {
    const NAME: &'static str = "prior-error";

    fn new(spelling: &Spelling, material: &Material) -> Result<Self, PurifyError> {
        let settings: PriorSettings = spelling.read()?;
        spelling.demand([
            ("prior", !settings.prior.is_empty(), "the path of a prior's file is needed"),
            ("draws", settings.draws > 0, "at least one"),
        ])?;
        let blank = blank(material, Self::NAME)?;
        let prior = fitting(&settings.prior, settings.time, &blank)?;
        let text = prior.text(blank.unsqueeze(), None);
        Ok(Self { settings, text, none: prior.no_text(), prior })
    }
}

impl Score for PriorError {
    fn rows(&self, embedding: Tensor<2>, keys: &[String]) -> Tensor<1> {
        let PriorSettings { time, draws, seed, .. } = self.settings;
        let like = embedding.clone().detach();
        let clean = embedding * self.prior.scale();
        let one = |draw: usize| {
            let purpose = format!("{}/{draw}", Self::NAME);
            let streams = keys.iter().map(|key| Stream::keyed(seed, &purpose, key));
            let noise = Draw::new(streams, (time, time), (0.0, 0.0), &like);
            self.prior.errors(clean.clone(), &noise, &self.text, &self.none)
        };
        let sum = (1..draws).fold(one(0), |sum, draw| sum + one(draw));
        (sum / draws as f64).neg().flatten(0, 1)
    }

    fn spelling(&self) -> Spelling {
        self.settings.spelled(Self::NAME)
    }

    fn digest(&self) -> Option<&str> {
        Some(self.prior.digest())
    }
}

/// A victim whose embeddings are watched by an attacker who wants them likely, too.
///
/// The score is that of the embedding in front of the embedding stations: purified ones are likely by
/// construction.
pub struct Watched<E> {
    victim: Defended<E>,
    score: Arc<dyn Score>,
    weight: f64,
}

impl<E: Encoder> Watched<E> {
    /// With the weight of the score in what the attack raises.
    pub fn new(victim: Defended<E>, score: Arc<dyn Score>, weight: f64) -> Self {
        Self { victim, score, weight }
    }
}

impl<E: Encoder> Victim for Watched<E> {
    fn classes(&self) -> usize {
        self.victim.classes()
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        self.victim.logits(query)
    }

    fn answer(&self, query: Query<'_>) -> Answer {
        let (keys, draw) = (query.keys, query.draw);
        let raw = self.victim.raw(query);
        let bonus = self.score.rows(raw.clone(), keys) * self.weight;
        let logits = self.victim.classify(self.victim.purified(raw, keys, draw));
        Answer { logits, bonus: Some(bonus) }
    }

    fn optimises(&self) -> Option<String> {
        self.victim.optimises()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ttc::tests::{pictures, tiny};
    use burn::tensor::Device;
    use clipguard_model::{Precision, normalise, prior::Layout, weights::to_safetensors};

    fn host(x: Tensor<1>) -> Vec<f32> {
        x.into_data().try_to_vec::<f32>().unwrap()
    }

    fn material() -> Material {
        let mut stream = Stream::counted(4, "blank", 0);
        let values: Vec<f32> = (0..16).map(|_| stream.normal()).collect();
        let blank = Tensor::<1>::from_floats(values.as_slice(), &Device::flex());
        Material { blank: Some(blank), ..Material::default() }
    }

    fn prior(folder: &std::path::Path) -> String {
        let layout = Layout {
            dim: 16,
            depth: 1,
            heads: 2,
            head_width: 8,
            inner: 32,
            text: 0,
            steps: 1000,
            normformer: true,
        };
        let path = folder.join("prior.safetensors");
        let bytes = to_safetensors(&layout.initial_weights(2), Precision::F32, None).unwrap();
        std::fs::write(&path, bytes).unwrap();
        format!("prior-error:prior={}", path.to_str().unwrap())
    }

    #[test]
    fn scores_are_those_of_the_row_and_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let (clip, material) = (tiny(), material());
        let z = normalise(clip.encode_image(pictures(3)));
        let keys = ["a", "b", "c"].map(str::to_owned);
        for text in ["blank-cosine".to_owned(), prior(folder.path())] {
            let score = parse_score(&text, &material).unwrap();
            let again = score.spelling().to_string();
            assert_eq!(parse_score(&again, &material).unwrap().spelling().to_string(), again);
            let all = host(score.rows(z.clone(), &keys));
            let alone = host(score.rows(z.clone().narrow(0, 1, 1), &keys[1..2]));
            assert!((alone[0] - all[1]).abs() < 1e-6, "{text}");
            assert!(all[0] != all[1]);
            // What follows the gradient becomes likelier.
            let leaf = z.clone().autodiff().require_grad();
            let sum = score.rows(leaf.clone(), &keys).sum();
            let gradient = leaf.grad_remove(&mut sum.backward()).unwrap();
            let moved = normalise(z.clone() + gradient * 0.01);
            let after = host(score.rows(moved, &keys));
            assert!(after.iter().zip(&all).all(|(a, b)| a > b), "{text}: {all:?} {after:?}");
        }
    }

    #[test]
    fn the_cosine_with_the_blank_prompt_is_one_at_the_blank_prompt() {
        let material = material();
        let score = parse_score("blank-cosine", &material).unwrap();
        let t = normalise(material.blank.clone().unwrap().unsqueeze());
        let rows = host(score.rows(Tensor::cat(vec![t.clone(), -t], 0), &[]));
        assert!((rows[0] - 1.0).abs() < 1e-6 && (rows[1] + 1.0).abs() < 1e-6);
        let say = |text: &str| parse_score(text, &material).err().unwrap().to_string();
        assert!(say("blank-cosin").contains("did you mean `blank-cosine`?"));
        assert!(say("prior-error").contains("path of a prior's file"));
        assert!(parse_score("blank-cosine", &Material::default()).is_err());
    }

    #[test]
    fn a_watched_victim_answers_the_same_and_adds_its_bonus() {
        let (material, keys) = (material(), ["a".to_owned(), "b".to_owned()]);
        let clip = Arc::new(tiny());
        let head = normalise(clip.encode_image(pictures(4))).transpose();
        let defended = || Defended::new(clip.clone(), head.clone(), 10.0);
        let score: Arc<dyn Score> = parse_score("blank-cosine", &material).unwrap().into();
        let watched = Watched::new(defended(), score.clone(), 3.0);
        let query = Query { pixels: pictures(2), keys: &keys, draw: 0 };
        let answer = watched.answer(query.clone());
        let plain = defended().logits(query.clone());
        assert_eq!((answer.logits - plain).abs().max().into_scalar::<f32>(), 0.0);
        let want = score.rows(defended().embedding(query), &keys) * 3.0;
        assert_eq!(host(answer.bonus.unwrap()), host(want));
    }
}
