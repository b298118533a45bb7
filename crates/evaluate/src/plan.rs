//! The plan of an evaluation: models, data, attacks, defences, as TOML.

mod sections;

use crate::{
    EvaluateError, MultiLabel, Probe,
    checks::CATALOGUE,
    clean::captions,
    records::record::NO_DEFENCE,
    studies::{SHIFTS, persistent},
};
use clipguard_model::GradientMode;
use serde::{Deserialize, Serialize};
use std::path::Path;

pub use sections::{Baseline, Certify, Detect};

/// What is evaluated. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Plan {
    /// Heading of the report.
    pub title: String,
    /// Seed of every random stream.
    pub seed: u64,
    /// Samples of each data source, chosen by the hash of their keys; 0 means all.
    pub samples: usize,
    /// Pictures put through a model at once; results do not depend on it.
    pub batch: usize,
    /// Model spellings.
    pub models: Vec<String>,
    /// Labelled data sources.
    pub data: Vec<String>,
    /// Captioned data sources for retrieval on clean pictures.
    pub retrieval: Vec<String>,
    /// Scenes of relations (`scenes:part=relations-seen`): the right caption against the exchanged
    /// one.
    pub relations: Vec<String>,
    /// Linear probes of clean pictures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub probe: Vec<Probe>,
    /// Clean pictures with several classes each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub multi_label: Vec<MultiLabel>,
    /// Class names: empty for the source's own, else a built-in list or a file.
    pub classes: String,
    /// A built-in template set or a file.
    pub templates: String,
    /// Attacks every defence has to face, the radius that matters most first.
    pub attacks: Vec<String>,
    /// Files of adversarial pictures made elsewhere, against the radius named first; they count
    /// like an attack on every defence.
    pub adversarial: Vec<String>,
    /// Models whose adversarial pictures count, too: every attack is run on each of them, with the
    /// same classes and without a defence, and its pictures are put to every defence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transfer_from: Vec<String>,
    /// Defences; without any, the undefended model alone.
    pub defence: Vec<Defence>,
    /// What every other system is compared with, picture by picture.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub baseline: Vec<Baseline>,
    /// What is proved by votes under noise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certify: Vec<Certify>,
    /// Scores of embeddings as detectors of attacked pictures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub detect: Vec<Detect>,
    /// Whether the report shows what the purifiers did to embeddings, under the first attack.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub embeddings: bool,
    /// Which plausibility checks are run: those that cost nothing, or all.
    pub checks: Checks,
    /// Samples the costly checks look at, the first of the subset; 0 means all.
    pub check_samples: usize,
    /// Pictures shown in the report.
    pub pictures: usize,
}

/// Which plausibility checks are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checks {
    /// Those that follow from the attacks of the plan.
    #[default]
    Cheap,
    /// All of them, on the radius the plan names first. Takes many times as long.
    All,
}

/// A defence and how it is to be attacked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defence {
    /// Its name in tables.
    pub name: String,
    /// The models it is put around, as the plan spells them; none for all. What belongs to one
    /// model, such as a diffusion prior, fits no other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Purifiers in order; none for the undefended model.
    pub purify: Vec<String>,
    /// How the attacker's gradient passes the purifiers; the worst case is taken over all.
    pub gradients: Vec<GradientMode>,
    /// Attacks that this defence faces besides the plan's, such as one that averages its gradient
    /// over the draws of a random defence. At a radius of the plan's they join its worst case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attacks: Vec<String>,
    /// Whether pictures made against the undefended model count too.
    pub transfer: bool,
    /// The evaluation of the publication, for comparison.
    pub published: Option<Published>,
}

/// A publication's own way to evaluate a defence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Published {
    /// Purifiers as released.
    pub purify: Vec<String>,
    /// Gradient mode as released.
    pub gradient: GradientMode,
    /// Batch as released (it matters where rows are coupled).
    pub batch: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            title: "Evaluation".to_owned(),
            seed: 0,
            samples: 200,
            batch: 50,
            models: vec!["embedded".to_owned()],
            data: Vec::new(),
            retrieval: Vec::new(),
            relations: Vec::new(),
            probe: Vec::new(),
            multi_label: Vec::new(),
            classes: String::new(),
            templates: "simple".to_owned(),
            attacks: Vec::new(),
            adversarial: Vec::new(),
            transfer_from: Vec::new(),
            defence: vec![Defence::default()],
            baseline: Vec::new(),
            certify: Vec::new(),
            detect: Vec::new(),
            embeddings: false,
            checks: Checks::Cheap,
            check_samples: 64,
            pictures: 6,
        }
    }
}

impl Default for Defence {
    fn default() -> Self {
        Self {
            name: NO_DEFENCE.to_owned(),
            models: Vec::new(),
            purify: Vec::new(),
            gradients: vec![GradientMode::Exact],
            attacks: Vec::new(),
            transfer: true,
            published: None,
        }
    }
}

impl Default for Published {
    fn default() -> Self {
        Self { purify: Vec::new(), gradient: GradientMode::Detached, batch: 2 }
    }
}

impl Plan {
    /// Reads a plan; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, EvaluateError> {
        let refuse = |reason: String| EvaluateError::Plan { path: path.to_owned(), reason };
        let plan: Self = toml::from_str(text).map_err(|e| refuse(e.to_string()))?;
        plan.check().map_err(refuse)?;
        Ok(plan)
    }

    /// Complete, as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_default()
    }

    /// The first key in which two plans differ, with both values; `None` for the same plan.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let table = |plan: &Self| toml::Table::try_from(plan).unwrap_or_default();
        let (here, there) = (table(self), table(other));
        let short = |value: Option<&toml::Value>| {
            let text = value.map_or("nothing".to_owned(), ToString::to_string);
            let cut: String = text.chars().take(80).collect();
            if cut.len() < text.len() { format!("{cut}...") } else { cut }
        };
        let keys = here.keys().chain(there.keys());
        keys.into_iter().find(|key| here.get(*key) != there.get(*key)).map(|key| {
            format!("`{key}` is {} here and {} there", short(here.get(key)), short(there.get(key)))
        })
    }

    /// The defences that are put around a model, in order.
    pub fn defences_of<'a, 'm>(
        &'a self,
        model: &'m str,
    ) -> impl Iterator<Item = &'a Defence> + use<'a, 'm> {
        let fits = move |d: &&Defence| d.models.is_empty() || d.models.iter().any(|m| m == model);
        self.defence.iter().filter(fits)
    }

    /// Units of work on all models and data, for a progress bar.
    pub fn units(&self) -> usize {
        let captions = captions::of_plan(self).len();
        let of = |model: &String| self.data.len() * self.units_of(model) + captions;
        self.models.iter().map(of).sum()
    }

    /// Units of work on one model and one data source.
    fn units_of(&self, model: &str) -> usize {
        let of = |d: &Defence| {
            let undefended = d.purify.is_empty();
            let modes = if undefended { 1 } else { d.gradients.len() };
            let transfer = if d.transfer && !undefended { 2 } else { 0 };
            let published = match d.published {
                Some(_) => 1 + transfer / 2,
                None => 0,
            };
            let checks = match self.checks {
                Checks::All if !self.attacks.is_empty() => CATALOGUE.len(),
                _ => 0,
            };
            let transfer = transfer + 2 * self.transfer_from.len();
            let foreign = if self.attacks.is_empty() { 0 } else { self.adversarial.len() };
            let own = d.attacks.len() * modes;
            1 + self.attacks.len() * (modes + transfer + published) + own + foreign + checks
        };
        let own: Vec<&Defence> = self.defences_of(model).collect();
        let shifts =
            |d: &&&Defence| self.embeddings && !self.attacks.is_empty() && !d.purify.is_empty();
        let shifts = own.iter().filter(shifts).count() * (1 + 2 * SHIFTS.len());
        let has = |name: &str| own.iter().any(|d| d.name == name);
        let detect = self.detect.iter().filter(|of| has(&of.defence));
        let detectors: usize = detect.map(|of| 3 * of.weights.len()).sum();
        let proofs = self.certify.iter().filter(|of| has(&of.defence)).count();
        own.iter().map(|d| of(d)).sum::<usize>() + proofs + detectors + shifts
    }

    /// Says which value makes no sense and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let sources = self.data.len() + captions::of_plan(self).len();
        if self.models.is_empty() || sources == 0 {
            return Err("at least one model and one data source are needed".to_owned());
        }
        if self.batch == 0 {
            return Err("batch = 0: at least 1 is needed".to_owned());
        }
        self.probe.iter().try_for_each(Probe::check)?;
        self.multi_label.iter().try_for_each(MultiLabel::check)?;
        let own = self.defence.iter().flat_map(|d| &d.attacks);
        for attack in self.attacks.iter().chain(own) {
            clipguard_attack::parse(attack).map_err(|e| format!("attacks: {e}"))?;
        }
        let named = |i: usize| self.transfer_from[..i].contains(&self.transfer_from[i]);
        if let Some(twice) = (0..self.transfer_from.len()).find(|&i| named(i)) {
            return Err(format!("transfer-from names `{}` twice", self.transfer_from[twice]));
        }
        if self.attacks.is_empty() && !self.transfer_from.is_empty() {
            return Err("transfer-from: at least one attack is needed, to run there".to_owned());
        }
        if self.attacks.is_empty() && !self.adversarial.is_empty() {
            let need = "adversarial: at least one attack is needed, its radius is the budget";
            return Err(need.to_owned());
        }
        let mut names: Vec<&str> = self.defence.iter().map(|d| d.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("two defences are called `{}`", twice[0]));
        }
        for (place, certify) in self.certify.iter().enumerate() {
            certify.check(&names)?;
            if self.certify[..place].contains(certify) {
                return Err(format!("certify: {} comes twice", certify.spelling()));
            }
        }
        for detect in &self.detect {
            detect.check(self, &names)?;
        }
        for baseline in &self.baseline {
            baseline.check(self, &names)?;
        }
        if self.embeddings
            && let Some(first) = self.attacks.first()
        {
            persistent(first).map_err(|e| e.to_string().replace("detect", "embeddings"))?;
        }
        for defence in &self.defence {
            if let Some(other) = defence.models.iter().find(|m| !self.models.contains(m)) {
                let name = &defence.name;
                return Err(format!("defence `{name}`: `{other}` is no model of the plan"));
            }
            if defence.gradients.is_empty() {
                return Err(format!("defence `{}` has no gradient mode", defence.name));
            }
            if defence.published.as_ref().is_some_and(|p| p.batch == 0) {
                return Err(format!("defence `{}`: published batch = 0", defence.name));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_survive_writing_and_refuse_nonsense() {
        let plan = Plan {
            data: vec!["embedded".to_owned()],
            probe: vec![Probe { train: "a".to_owned(), test: "b".to_owned(), ..Probe::default() }],
            defence: vec![Defence { published: Some(Published::default()), ..Defence::default() }],
            ..Plan::default()
        };
        let at = Path::new("plan.toml");
        assert_eq!(Plan::parse(&plan.to_toml(), at).unwrap(), plan);
        assert_eq!(plan.difference(&plan), None);
        let other = Plan { samples: 7, ..plan.clone() };
        let said = plan.difference(&other).unwrap();
        assert!(said.contains("`samples` is 200 here and 7 there"), "{said}");
        for (text, said) in [
            ("sampels = 3", "unknown field `sampels`"),
            ("models = []", "at least one model"),
            ("data = [\"x\"]\nattacks = [\"pdg\"]", "did you mean `pgd`?"),
            ("data = [\"x\"]\nbatch = 0", "at least 1"),
            ("[[probe]]\ntrain = \"x\"", "`test` is missing"),
            ("[[probe]]\nmethod = \"exact\"", "unknown variant"),
            ("[[multi-label]]\ndata = \"x\"", "`data` and `labels` are needed"),
            ("data = [\"x\"]\ntransfer-from = [\"m\"]", "at least one attack"),
            ("data = [\"x\"]\nattacks = [\"pgd\"]\ntransfer-from = [\"m\", \"m\"]", "twice"),
            ("data = [\"x\"]\n[[defence]]\n[[defence]]", "two defences"),
            ("[[defence]]\ngradients = [\"exakt\"]", "unknown variant"),
            ("data = [\"x\"]\n[[defence]]\nmodels = [\"m\"]", "`m` is no model of the plan"),
            ("data = [\"x\"]\n[[baseline]]\ndefence = \"ttc\"", "there are `none`"),
            ("data = [\"x\"]\n[[defence]]\nattacks = [\"pdg\"]", "did you mean `pgd`?"),
            ("data = [\"x\"]\n[[baseline]]\nmodel = \"m\"", "there are `embedded`"),
        ] {
            let error = Plan::parse(text, at).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("plan.toml"), "{text}: {error}");
        }
    }
}
