//! Which parameters a run trains: the objective's, less what the recipe freezes.

use crate::{Objective, Recipe};
use clipguard_model::{Weights, config::suggestion};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The part of a CLIP model that is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Everything that the objective trains.
    #[default]
    All,
    /// The picture tower, with the logit scale and bias.
    Image,
    /// The text tower, with the logit scale and bias.
    Text,
    /// The projections into the shared space, with the logit scale and bias.
    Head,
}

impl Part {
    fn has(self, name: &str) -> bool {
        let (scale, image) = (name.starts_with("logit_"), name.starts_with("visual."));
        let bare = name.strip_prefix("text.").unwrap_or(name);
        match self {
            Self::All => true,
            Self::Image => scale || image,
            Self::Text => scale || !image,
            Self::Head => {
                scale
                    || name == "visual.proj"
                    || name.starts_with("visual.attnpool.c_proj.")
                    || bare == "text_projection"
                    || bare.starts_with("text_projection.")
            }
        }
    }
}

/// What a recipe freezes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    part: Part,
    freeze: Vec<String>,
}

impl Selection {
    pub(crate) fn of(recipe: &Recipe) -> Self {
        Self { part: recipe.train, freeze: recipe.freeze.clone() }
    }

    /// Whether the recipe leaves the array `name` alone.
    pub(crate) fn leaves(&self, name: &str) -> bool {
        self.part.has(name) && !self.freeze.iter().any(|pattern| matches(pattern, name))
    }

    /// Whether the run trains the parameter `name`.
    pub(crate) fn trains(&self, objective: &dyn Objective, name: &str) -> bool {
        objective.trains(name) && self.leaves(name)
    }

    /// BatchNorms of which something is frozen. They normalise with their running averages, which
    /// stay as they are: statistics of the batch would change what frozen layers compute.
    pub(crate) fn frozen_norms(&self, weights: &Weights) -> BTreeSet<String> {
        let norms = weights.keys().filter_map(|name| name.strip_suffix(".running_mean"));
        let frozen = |norm: &&str| {
            let prefix = format!("{norm}.");
            weights.keys().any(|name| name.starts_with(&prefix) && !self.leaves(name))
        };
        norms.filter(frozen).map(str::to_owned).collect()
    }

    /// Refuses a pattern that matches nothing, and a run in which nothing is left to train.
    pub(crate) fn check(&self, objective: &dyn Objective, weights: &Weights) -> Result<(), String> {
        for pattern in &self.freeze {
            if !weights.keys().any(|name| matches(pattern, name)) {
                let near = suggestion(pattern, spellings(weights).iter());
                let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                return Err(format!("freeze: no parameter matches `{pattern}`{near}"));
            }
        }
        if self.part != Part::All && !weights.contains_key("logit_scale") {
            return Err("train: the parts are those of a CLIP model; this objective trains \
                        another, use `freeze`"
                .to_owned());
        }
        match weights.keys().any(|name| self.trains(objective, name)) {
            true => Ok(()),
            false => Err("`train` and `freeze` leave nothing that is trained".to_owned()),
        }
    }
}

/// Whether `name` is of the form `pattern`, as a whole: `*` stands for any characters (dots too,
/// none too), `?` for one, everything else for itself.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    // Where the last star stood and how much of the name it has taken: going back there once more
    // is enough, earlier stars need not take more.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        if p < pattern.len() && (pattern[p] == '?' || pattern[p] == name[n]) && pattern[p] != '*' {
            (p, n) = (p + 1, n + 1);
        } else if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some((at, taken)) = star {
            (p, n) = (at + 1, taken + 1);
            star = Some((at, taken + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Every parameter, and every group of them as a pattern.
fn spellings(weights: &Weights) -> BTreeSet<String> {
    let groups = weights
        .keys()
        .flat_map(|name| name.match_indices('.').map(|(dot, _)| format!("{}.*", &name[..dot])));
    weights.keys().cloned().chain(groups).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClipObjective;
    use clipguard_model::{Architecture, parameters::initial_weights};

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, want) in [
            ("visual.*", "visual.proj", true),
            ("visual.*", "visual.transformer.resblocks.0.ln_1.weight", true),
            ("visual", "visual.proj", false),
            ("*.weight", "ln_final.weight", true),
            ("*.weight", "ln_final.weights", false),
            ("*resblocks.?.ln_?.*", "transformer.resblocks.1.ln_2.bias", true),
            ("*resblocks.?.ln_?.*", "transformer.resblocks.11.ln_2.bias", false),
            ("*a*ab", "aaab", true),
            ("logit_scale", "logit_scale", true),
            ("logit_scale?", "logit_scale", false),
            ("visualXproj", "visual.proj", false),
            ("", "x", false),
            ("**", "", true),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }

    fn selection(part: Part, freeze: &[&str]) -> Selection {
        Selection { part, freeze: freeze.iter().map(|s| (*s).to_owned()).collect() }
    }

    /// One block a tower: 20 arrays of the picture tower, 18 of the other, and the scale.
    fn weights() -> Weights {
        let config = serde_json::json!({
            "embed_dim": 8,
            "vision_cfg": {"image_size": 8, "layers": 1, "width": 8, "head_width": 8, "patch_size": 8},
            "text_cfg": {"context_length": 4, "vocab_size": 9, "width": 8, "heads": 1, "layers": 1},
        });
        let tiny = Architecture::from_json(&config, "tiny".as_ref()).unwrap();
        initial_weights(&tiny, 0)
    }

    #[test]
    fn parts_are_towers_and_projections() {
        let weights = weights();
        let names = |part| -> Vec<&str> {
            let chosen = selection(part, &[]);
            weights.keys().map(String::as_str).filter(|n| chosen.leaves(n)).collect()
        };
        assert_eq!(names(Part::Head), ["logit_scale", "text_projection", "visual.proj"]);
        assert_eq!((names(Part::Image).len(), names(Part::Text).len()), (20 + 1, 17 + 1));
        assert_eq!(names(Part::All).len(), weights.len());
    }

    #[test]
    fn what_matches_nothing_or_everything_is_refused() {
        let weights = weights();
        let refused = |part, freeze: &[&str]| {
            selection(part, freeze).check(&ClipObjective, &weights).unwrap_err()
        };
        let text = refused(Part::All, &["visual.*", "visaul.*"]);
        assert_eq!(text, "freeze: no parameter matches `visaul.*`; did you mean `visual.*`?");
        let text = refused(Part::All, &["text_projektion"]);
        assert!(text.contains("did you mean `text_projection`?"), "{text}");
        assert!(refused(Part::Head, &["*"]).contains("leave nothing"));
        selection(Part::Text, &["token_embedding.weight"]).check(&ClipObjective, &weights).unwrap();
        let prior = Weights::from([("net.weight".to_owned(), weights["visual.proj"].clone())]);
        let text = selection(Part::Image, &[]).check(&ClipObjective, &prior).unwrap_err();
        assert!(text.contains("parts are those of a CLIP model"), "{text}");
    }
}
