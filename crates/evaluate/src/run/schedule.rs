//! What a plan comes to on one model and one data source: every unit of work, named by the digest
//! of all that its outcome depends on.
//!
//! The runner computes the units in this order, a merge collects them from shards, and the
//! summary reads them; all three see the same list, so none can forget what another did.

use crate::{
    Certify, Checks, Defence, EvaluateError, Plan, Shard, Threat,
    checks::CATALOGUE,
    classifier::mode_name,
    records::record_file::write_atomic,
    run::subset::digest_of,
    studies::{Detected, Shifted, detected, shifted},
};
use clipguard_attack::{Budget, parse};
use clipguard_data::spelling::number;
use clipguard_model::{GradientMode, checkpoint::hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What is known of one sample without its picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SampleHead {
    pub(crate) key: String,
    /// Its place in the order of the subset.
    pub(crate) position: usize,
    pub(crate) label: usize,
    /// SHA-256 of key, label and prepared picture.
    pub(crate) digest: String,
}

/// One model on one data source, as it is kept in `stages/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StageHead {
    pub(crate) model: String,
    pub(crate) dataset: String,
    /// SHA-256 of the weights.
    pub(crate) weights: String,
    /// SHA-256 of all prompts.
    pub(crate) prompts: String,
    /// Digests of the files that purifiers were read from, by their spelling: a path does not say
    /// what was in it.
    #[serde(default)]
    pub(crate) purifiers: BTreeMap<String, String>,
    /// SHA-256 of the weights of the models that pictures are transferred from, by their spelling.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) surrogates: BTreeMap<String, String>,
    pub(crate) classes: Vec<String>,
    /// Channels, height, width.
    pub(crate) shape: [usize; 3],
    pub(crate) shard: Shard,
    /// Samples of all shards, and the digest of their keys in order.
    pub(crate) chosen: usize,
    pub(crate) chosen_digest: String,
    /// Samples of this shard, in order.
    pub(crate) samples: Vec<SampleHead>,
    /// Place, key and reason of those that could not be read.
    pub(crate) skipped: Vec<(usize, String, String)>,
}

impl StageHead {
    /// The file of stage `number`.
    pub(crate) fn path(folder: &Path, number: usize) -> PathBuf {
        folder.join("stages").join(format!("{number}.json"))
    }

    /// Reads it, if it is there.
    pub(crate) fn read(folder: &Path, number: usize) -> Result<Option<Self>, EvaluateError> {
        let path = Self::path(folder, number);
        let Ok(bytes) = std::fs::read(&path) else { return Ok(None) };
        let refuse = |e: serde_json::Error| EvaluateError::File { path, reason: e.to_string() };
        serde_json::from_slice(&bytes).map(Some).map_err(refuse)
    }

    /// Keeps it; a folder that was made from other data is refused.
    pub(crate) fn keep(&self, folder: &Path, number: usize) -> Result<(), EvaluateError> {
        if let Some(old) = Self::read(folder, number)? {
            return match self.difference(&old) {
                None => Ok(()),
                Some(what) => Err(EvaluateError::Folder {
                    path: folder.to_owned(),
                    reason: format!("was made with another {what}; choose another folder"),
                }),
            };
        }
        let path = Self::path(folder, number);
        Ok(write_atomic(&path, &serde_json::to_vec(self).unwrap_or_default())?)
    }

    /// The first thing in which two heads differ, in words.
    pub(crate) fn difference(&self, other: &Self) -> Option<&'static str> {
        let same = [
            ("model (its weights differ)", self.weights == other.weights),
            ("head (its prompts differ)", self.prompts == other.prompts),
            ("purifier (its file differs)", self.purifiers == other.purifiers),
            ("model to transfer from (its weights differ)", self.surrogates == other.surrogates),
            ("data source", self.dataset == other.dataset),
            ("choice of samples", self.chosen_digest == other.chosen_digest),
            ("shard", self.shard == other.shard),
            ("data (pictures or labels differ)", self.samples == other.samples),
        ];
        same.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
    }

    /// SHA-256 over keys, labels and pictures of all samples.
    pub(crate) fn data_digest(&self) -> String {
        digest_of(self.samples.iter().map(|sample| &sample.digest))
    }
}

/// What a unit does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Classifies the unchanged pictures.
    Clean,
    /// Attacks.
    Attack,
    /// Classifies the pictures that another unit made.
    Transfer {
        /// That unit.
        source: String,
    },
    /// Classifies pictures from a file.
    Foreign {
        /// The file.
        file: String,
    },
    /// Counts votes under noise.
    Certify {
        /// How much noise, how many votes.
        of: Certify,
    },
    /// Scores the embeddings of pictures.
    Score {
        /// The score's spelling.
        score: String,
        /// The unit that made the pictures; none for the clean ones.
        source: Option<String>,
    },
    /// Looks at the embeddings of pictures, before and after purification.
    Look {
        /// The unit that made the pictures; none for the clean ones.
        source: Option<String>,
    },
    /// Measures for a plausibility check.
    Check {
        /// Its id.
        id: &'static str,
        /// Attacks of its case.
        attacks: Vec<String>,
        gradients: Vec<GradientMode>,
    },
}

/// A unit of work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Task {
    pub(crate) kind: Kind,
    pub(crate) purify: Vec<String>,
    pub(crate) gradient: Option<GradientMode>,
    /// With all settings; empty where nothing is attacked.
    pub(crate) attack: String,
    /// Pictures at once, where the result depends on it.
    pub(crate) batch: Option<usize>,
    /// What an attack raises beside its loss; such an attack is part of a study and of no worst
    /// case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) beside: Option<Beside>,
    /// The model that is attacked, where it is not the stage's own; its weights stand for it in
    /// the name.
    #[serde(skip)]
    pub(crate) on: Option<String>,
}

/// A score and its weight; without weight the score is empty.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Beside {
    pub(crate) score: String,
    pub(crate) weight: f64,
}

impl Task {
    pub(crate) fn new(kind: Kind, purify: &[String]) -> Self {
        let (purify, attack) = (purify.to_vec(), String::new());
        Self { kind, purify, gradient: None, attack, batch: None, beside: None, on: None }
    }

    /// The name of its files: a digest of all that the outcome for a sample depends on.
    pub(crate) fn id(&self, head: &StageHead, seed: u64) -> String {
        let other = self.on.as_ref().and_then(|on| head.surrogates.get(on));
        let of = serde_json::json!({
            "weights": other.unwrap_or(&head.weights), "prompts": head.prompts, "dataset": head.dataset,
            "task": self, "seed": seed, "version": env!("CARGO_PKG_VERSION"),
        });
        hex(&Sha256::digest(of.to_string())).chars().take(24).collect()
    }

    /// Its files in a run folder, without extension.
    pub(crate) fn stem(&self, folder: &Path, head: &StageHead, seed: u64) -> PathBuf {
        folder.join("units").join(self.id(head, seed))
    }

    /// How many of the stage's samples it looks at: checks take the first of the subset.
    pub(crate) fn count(&self, head: &StageHead, plan: &Plan) -> usize {
        let Kind::Check { id, .. } = self.kind else { return head.samples.len() };
        let wanted = if plan.check_samples > 0 { plan.check_samples } else { usize::MAX };
        let probe = CATALOGUE.iter().find(|probe| probe.id() == id);
        let most = probe.map_or(wanted, |probe| probe.samples(wanted));
        head.samples.iter().filter(|sample| sample.position < most).count()
    }

    /// Whether a sample it gets wrong is lost for its defence.
    pub(crate) fn counts(&self) -> bool {
        let asks = matches!(
            self.kind,
            Kind::Clean | Kind::Attack | Kind::Transfer { .. } | Kind::Foreign { .. }
        );
        asks && self.beside.is_none()
    }

    /// Numbers of a picture it keeps.
    pub(crate) fn picture(&self, head: &StageHead) -> usize {
        match self.kind {
            Kind::Attack => head.shape.iter().product(),
            _ => 0,
        }
    }
}

/// The units of one attack on one defence.
pub(crate) struct Attacked {
    /// As the plan spells it.
    pub(crate) attack: String,
    /// Pictures made against the undefended model.
    pub(crate) bare: Option<Task>,
    /// The attack itself, through every gradient mode; `None` without a defence.
    pub(crate) direct: Vec<(Option<GradientMode>, Task)>,
    /// The defence on the pictures of `bare`.
    pub(crate) transfer: Option<Task>,
    /// For each model of `transfer-from` its spelling, the attack on it, and the defence on those
    /// pictures.
    pub(crate) surrogates: Vec<(String, Task, Task)>,
    /// The publication's protocol, and that on the pictures of `bare`.
    pub(crate) published: Option<(Task, Option<Task>)>,
}

/// All attacks of one budget on one defence: what the worst case is taken over.
pub(crate) struct Group {
    pub(crate) threat: Threat,
    pub(crate) attacks: Vec<Attacked>,
    /// Files of pictures.
    pub(crate) foreign: Vec<Task>,
    pub(crate) checks: Vec<Task>,
}

impl Group {
    /// The units whose failures count for the worst case.
    pub(crate) fn counted(&self) -> impl Iterator<Item = &Task> {
        self.attacks
            .iter()
            .flat_map(|of| {
                let direct = of.direct.iter().map(|(_, task)| task);
                direct.chain(&of.transfer).chain(of.surrogates.iter().map(|(_, _, task)| task))
            })
            .chain(&self.foreign)
    }

    /// The transfers from named models, each with its attack.
    pub(crate) fn surrogates(&self) -> impl Iterator<Item = (&str, &(String, Task, Task))> {
        self.attacks.iter().flat_map(|of| of.surrogates.iter().map(|s| (of.attack.as_str(), s)))
    }
}

/// All units of one defence.
pub(crate) struct Work<'a> {
    pub(crate) defence: &'a Defence,
    pub(crate) clean: Task,
    pub(crate) groups: Vec<Group>,
    pub(crate) certify: Vec<(Certify, Task)>,
    pub(crate) detect: Vec<Detected>,
    pub(crate) shift: Option<Shifted>,
}

impl Work<'_> {
    /// Every unit with a few words, in the order they are computed; a unit may come twice.
    pub(crate) fn tasks(&self) -> Vec<(String, &Task)> {
        let name = &self.defence.name;
        let mut all = vec![(format!("{name} · clean"), &self.clean)];
        for group in &self.groups {
            for of in &group.attacks {
                let what = |how: &str| format!("{name} · {} · {how}", of.attack);
                all.extend(of.bare.iter().map(|task| (what("on the undefended model"), task)));
                for (mode, task) in &of.direct {
                    all.push((what(mode.map_or("exact", mode_name)), task));
                }
                all.extend(of.transfer.iter().map(|task| (what("transfer"), task)));
                for (model, made, transfer) in &of.surrogates {
                    all.push((what(&format!("on {model}")), made));
                    all.push((what(&format!("transfer from {model}")), transfer));
                }
                if let Some((direct, transfer)) = &of.published {
                    all.push((what("published protocol"), direct));
                    all.extend(transfer.iter().map(|task| (what("published, transfer"), task)));
                }
            }
            all.extend(group.foreign.iter().map(|task| (format!("{name} · handed in"), task)));
            for task in &group.checks {
                if let Kind::Check { id, .. } = task.kind {
                    all.push((format!("{name} · check {id}"), task));
                }
            }
        }
        let proof = |of: &Certify| format!("{name} · {}", of.spelling());
        all.extend(self.certify.iter().map(|(of, task)| (proof(of), task)));
        let studies = self.detect.iter().flat_map(Detected::tasks);
        let studies = studies.chain(self.shift.iter().flat_map(Shifted::tasks));
        all.extend(studies.map(|(what, task)| (format!("{name} · {what}"), task)));
        all
    }
}

/// All units of a plan on one stage.
pub(crate) fn schedule<'a>(
    plan: &'a Plan,
    head: &StageHead,
) -> Result<Vec<Work<'a>>, EvaluateError> {
    plan.defences_of(&head.model).map(|defence| work(plan, head, defence)).collect()
}

fn work<'a>(
    plan: &'a Plan,
    head: &StageHead,
    defence: &'a Defence,
) -> Result<Work<'a>, EvaluateError> {
    let mut groups: Vec<Group> = Vec::new();
    let all = plan.attacks.iter().map(|attack| (attack, attacked(plan, head, defence, attack)));
    let own = defence.attacks.iter().map(|attack| (attack, alone(defence, attack)));
    for (attack, tasks) in all.chain(own) {
        let (threat, tasks) = (threat(attack)?, tasks?);
        match groups.iter_mut().find(|group| group.threat == threat) {
            Some(group) => group.attacks.push(tasks),
            None => groups.push(Group {
                threat,
                attacks: vec![tasks],
                foreign: Vec::new(),
                checks: Vec::new(),
            }),
        }
    }
    let foreign = |file: &String| Task {
        // The budget belongs to the unit: pictures outside it do not count.
        attack: format!("within {}", plan.attacks.first().map_or("", String::as_str)),
        ..Task::new(Kind::Foreign { file: file.clone() }, &defence.purify)
    };
    if let Some(first) = groups.first_mut() {
        first.foreign = plan.adversarial.iter().map(foreign).collect();
        if plan.checks == Checks::All {
            let attacks: Vec<String> = first.attacks.iter().map(|of| of.attack.clone()).collect();
            let check = |id| {
                let (attacks, gradients) = (attacks.clone(), defence.gradients.clone());
                Task::new(Kind::Check { id, attacks, gradients }, &defence.purify)
            };
            first.checks = CATALOGUE.iter().map(|probe| check(probe.id())).collect();
        }
    }
    let certify = plan.certify.iter().filter(|of| of.defence == defence.name).map(|of| {
        // Which radii are told does not change the votes.
        let votes = Certify { radii: Vec::new(), ..of.clone() };
        (of.clone(), Task::new(Kind::Certify { of: votes }, &defence.purify))
    });
    let (clean, certify) = (Task::new(Kind::Clean, &defence.purify), certify.collect());
    let (detect, shift) = (detected(plan, head, defence)?, shifted(plan, head, defence)?);
    Ok(Work { defence, clean, groups, certify, detect, shift })
}

/// An attack on `purify`.
fn one(full: &str, purify: &[String], gradient: Option<GradientMode>) -> Task {
    Task { gradient, attack: full.to_owned(), ..Task::new(Kind::Attack, purify) }
}

/// An attack on a defence and on nothing else.
fn alone(defence: &Defence, attack: &str) -> Result<Attacked, EvaluateError> {
    let full = parse(attack)?.spelling().to_string();
    let modes: Vec<Option<GradientMode>> = match defence.purify.is_empty() {
        true => vec![None],
        false => defence.gradients.iter().copied().map(Some).collect(),
    };
    Ok(Attacked {
        attack: attack.to_owned(),
        bare: None,
        direct: modes.into_iter().map(|mode| (mode, one(&full, &defence.purify, mode))).collect(),
        transfer: None,
        surrogates: Vec::new(),
        published: None,
    })
}

/// An attack on a defence, and what is transferred to it.
fn attacked(
    plan: &Plan,
    head: &StageHead,
    defence: &Defence,
    attack: &str,
) -> Result<Attacked, EvaluateError> {
    let alone = alone(defence, attack)?;
    let full = parse(attack)?.spelling().to_string();
    let undefended = defence.purify.is_empty();
    let task = |purify: &[String], gradient| one(&full, purify, gradient);
    let bare = (defence.transfer && !undefended).then(|| task(&[], None));
    let transfer = |purify: &[String], batch| {
        let source = bare.as_ref()?.id(head, plan.seed);
        Some(Task { batch, ..Task::new(Kind::Transfer { source }, purify) })
    };
    let published = defence.published.as_ref().map(|published| {
        let batch = Some(published.batch);
        let direct = Task { batch, ..task(&published.purify, Some(published.gradient)) };
        (direct, transfer(&published.purify, batch))
    });
    let surrogate = |model: &String| {
        let made = Task { on: Some(model.clone()), ..task(&[], None) };
        let source = made.id(head, plan.seed);
        let transfer = Task::new(Kind::Transfer { source }, &defence.purify);
        (model.clone(), made, transfer)
    };
    Ok(Attacked {
        surrogates: plan.transfer_from.iter().map(surrogate).collect(),
        transfer: transfer(&defence.purify, None),
        published,
        bare,
        ..alone
    })
}

/// The budget of an attack's spelling.
pub(crate) fn budget(attack: &str) -> Result<Budget, EvaluateError> {
    Ok(Budget::of(&parse(attack)?.spelling()))
}

/// The budget as records keep it. The radius is read from the spelling: it has more digits there.
pub(crate) fn threat(attack: &str) -> Result<Threat, EvaluateError> {
    let full = parse(attack)?.spelling();
    let limit = full.get("share").or_else(|| full.get("eps"));
    Ok(Threat {
        norm: Budget::of(&full).name(),
        eps: limit.and_then(number),
        space: "pixels".to_owned(),
    })
}
