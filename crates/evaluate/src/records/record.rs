//! Records: one evaluation result a line, readable by CLIP_benchmark's tools.
//!
//! A record carries CLIP_benchmark's keys under their own names and ours beside them, because a
//! number without its threat, its interval and its checks is the thing this program exists to
//! prevent. What does not apply is `null` (never NaN, which is not JSON), and keys that a later
//! version or another tool added survive reading and writing.

use crate::statistics::interval::Interval;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The `attack` of a record without one.
pub const NO_ATTACK: &str = "none";
/// The `attack` of the record that counts a sample only if it survived every attack.
pub const WORST_CASE: &str = "worst-case";
/// The `defence` of a record without one.
pub const NO_DEFENCE: &str = "none";
/// The `protocol` of a record computed as the method's publication did.
pub const PUBLISHED: &str = "published";
/// The `protocol` of a record computed by our worst case over adaptive attacks.
pub const HONEST: &str = "honest";

/// The `protocol` of a record that is proved by votes under noise and holds against every attack.
pub const CERTIFIED: &str = "certified";

/// One result: a model with a defence, on a data set, under an attack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Data set, as CLIP_benchmark names it.
    pub dataset: String,
    /// Architecture, such as `ViT-B-32`.
    pub model: String,
    /// Weights, such as `laion400m_e32`.
    pub pretrained: String,
    /// `zeroshot_classification`, `zeroshot_retrieval`, `linear_probe`, ...
    pub task: String,
    /// Metrics by CLIP_benchmark's names, as fractions.
    pub metrics: Metrics,
    /// Language of the prompts.
    pub language: String,
    /// Defence with its parameters, or [`NO_DEFENCE`].
    pub defence: String,
    /// Attack with its parameters, [`NO_ATTACK`] or [`WORST_CASE`].
    pub attack: String,
    /// [`PUBLISHED`], [`HONEST`] or another name of how the number was obtained.
    pub protocol: String,
    /// What the attacker may do; `None` without an attack.
    pub threat: Option<Threat>,
    /// How the attacker's gradient passed the defence (`exact`, `detached`, `straight-through`).
    pub gradient: Option<String>,
    /// Samples, all of them: those that were wrong before the attack too.
    pub n: usize,
    /// Samples that are right (after the attack, if there is one).
    pub correct: usize,
    /// Interval of `correct / n`.
    pub interval: Option<Interval>,
    /// Clean accuracy on the same samples, as a fraction.
    pub base: Option<f64>,
    /// Plausibility checks that bear on this number.
    pub checks: Vec<Check>,
    /// What follows from them, in words ([`Reliability::words`]); `None` where none was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reliability: Option<String>,
    /// Wall time.
    pub seconds: Option<f64>,
    /// SHA-256 of what the number depends on.
    pub digests: Digests,
    /// The seed every random stream was derived from.
    pub seed: Option<u64>,
    /// Version of the program.
    pub version: String,
    /// Keys this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            dataset: String::new(),
            model: String::new(),
            pretrained: String::new(),
            task: "zeroshot_classification".into(),
            metrics: Metrics::default(),
            language: "en".into(),
            defence: NO_DEFENCE.into(),
            attack: NO_ATTACK.into(),
            protocol: HONEST.into(),
            threat: None,
            gradient: None,
            n: 0,
            correct: 0,
            interval: None,
            base: None,
            checks: Vec::new(),
            reliability: None,
            seconds: None,
            digests: Digests::default(),
            seed: None,
            version: String::new(),
            extra: Map::new(),
        }
    }
}

impl Record {
    /// Sets `n`, `correct`, a Wilson interval at 95 percent and the metric `acc1`.
    pub fn counted(mut self, correct: usize, n: usize) -> Self {
        (self.n, self.correct) = (n, correct);
        self.interval = (n > 0).then(|| Interval::wilson(correct, n, 0.95));
        self.metrics.set("acc1", self.share());
        self
    }

    /// With these checks, and with what follows from them said in words.
    pub fn judged(mut self, checks: Vec<Check>) -> Self {
        let reliability = Reliability::of(&checks);
        self.reliability =
            (reliability != Reliability::Unchecked).then(|| reliability.words().to_owned());
        self.checks = checks;
        self
    }

    /// Whether another record is about the same model with the same defence on the same data.
    pub fn is_same_system(&self, other: &Self) -> bool {
        let own = (&self.model, &self.pretrained, &self.defence, &self.dataset);
        own == (&other.model, &other.pretrained, &other.defence, &other.dataset)
    }

    /// Whether its checks say that the number cannot be trusted.
    pub fn is_unreliable(&self) -> bool {
        Reliability::of(&self.checks) == Reliability::NotReliable
    }

    /// `correct / n`, or the metric `acc1` where nothing was counted (files of other tools).
    pub fn share(&self) -> Option<f64> {
        if self.n > 0 {
            return Some(self.correct as f64 / self.n as f64);
        }
        self.metrics.get("acc1")
    }

    /// Whether the record is about unchanged pictures.
    pub fn is_clean(&self) -> bool {
        self.attack == NO_ATTACK || self.attack.is_empty()
    }

    /// Whether the record is proved for every change within its radius, not measured by attacks.
    pub fn is_certified(&self) -> bool {
        self.protocol == CERTIFIED
    }

    /// Whether a defence was in place.
    pub fn is_defended(&self) -> bool {
        !(self.defence == NO_DEFENCE || self.defence.is_empty())
    }

    /// `model` and `pretrained` as CLIP_benchmark's `model_fullname`.
    pub fn model_fullname(&self) -> String {
        format!("{} {}", self.model, self.pretrained).trim().to_owned()
    }

    /// The name of the file in which CLIP_benchmark would keep this record:
    /// `{dataset}_{pretrained}_{model}_{language}_{task}.json`.
    ///
    /// Slashes become underscores, as there; so does whatever else could lead out of a folder.
    pub fn clip_benchmark_name(&self) -> String {
        let parts = [&self.dataset, &self.pretrained, &self.model, &self.language, &self.task];
        let name = parts.map(|part| part.as_str()).join("_");
        let safe = |c: char| {
            let hostile = c.is_control() || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '|');
            if hostile { '_' } else { c }
        };
        let name: String = name.chars().map(safe).collect();
        let name = name.strip_prefix('.').map(|rest| format!("_{rest}")).unwrap_or(name);
        format!("{name}.json")
    }

    /// The same for CLIP_benchmark, whose form has no place for a defence: it is appended to the
    /// model's name.
    pub(crate) fn as_clip_benchmark(&self) -> Self {
        let mut record = self.clone();
        if record.is_defended() {
            record.model = format!("{}+{}", record.model, record.defence);
        }
        record
    }

    /// The record with CLIP_benchmark's keys only, in its order.
    pub fn clip_benchmark(&self) -> Value {
        serde_json::json!({
            "dataset": self.dataset,
            "model": self.model,
            "pretrained": self.pretrained,
            "task": self.task,
            "metrics": self.metrics.0,
            "language": self.language,
        })
    }
}

/// Metric names and values in the order they were set; a missing number is `null`.
///
/// Values that are not numbers (`linear_probe` writes some) are kept as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metrics(pub Map<String, Value>);

impl Metrics {
    /// Sets a metric; `None`, NaN and infinities become `null`.
    pub fn set(&mut self, name: &str, value: impl Into<Option<f64>>) {
        let number = value.into().and_then(serde_json::Number::from_f64);
        self.0.insert(name.to_owned(), number.map_or(Value::Null, Value::Number));
    }

    /// A metric, unless it is missing, `null` or not a number.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(Value::as_f64)
    }
}

/// What the attacker may do to a picture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Threat {
    /// `linf`, `l2`, `l1`, ...
    pub norm: String,
    /// Radius in the units of `space`; `None` means unbounded.
    pub eps: Option<f64>,
    /// Where the radius is measured: `pixels` (`[0, 1]`) or `embedding`.
    pub space: String,
}

impl Threat {
    /// Whether whatever this budget allows, a larger one of the same norm allows as well.
    pub fn is_within(&self, larger: &Self) -> bool {
        let same = (&self.norm, &self.space) == (&larger.norm, &larger.space);
        let smaller = match (self.eps, larger.eps) {
            (Some(own), Some(other)) => own < other,
            (own, None) => own.is_some(),
            (None, Some(_)) => false,
        };
        same && smaller
    }
}

/// Outcome of a plausibility check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Alone no proof, together with another one enough to distrust the number.
    Suspect,
    /// The number cannot be trusted.
    Fail,
    /// Not done, or not possible here.
    #[default]
    NotRun,
}

/// A plausibility check of a number, such as "an unbounded attack must succeed".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Check {
    /// Short stable name, such as `O3`.
    pub id: String,
    /// What was checked, in a few words.
    pub name: String,
    /// What came out; `None` when the check did not run.
    pub value: Option<f64>,
    /// The limit it was compared with.
    pub threshold: Option<f64>,
    /// p-value, where the verdict is a test's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// Pictures it looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<usize>,
    /// The outcome.
    pub verdict: Verdict,
    /// Why the outcome matters, for people who see such a check for the first time.
    pub explanation: String,
    /// What to do about it.
    pub remedy: String,
}

/// How far a number may be trusted, after its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reliability {
    /// Every check that ran was passed.
    Plausible,
    /// One check is suspect.
    Doubtful,
    /// One check failed, or two or more are suspect.
    NotReliable,
    /// No check was run.
    Unchecked,
}

impl Reliability {
    /// The label that follows from checks: any failure or two suspects make a number unreliable.
    pub fn of<'a>(checks: impl IntoIterator<Item = &'a Check>) -> Self {
        let (mut ran, mut suspects) = (0, 0);
        for check in checks {
            match check.verdict {
                Verdict::Fail => return Self::NotReliable,
                Verdict::Suspect => (ran, suspects) = (ran + 1, suspects + 1),
                Verdict::Ok => ran += 1,
                Verdict::NotRun => {}
            }
        }
        match (ran, suspects) {
            (0, _) => Self::Unchecked,
            (_, 0) => Self::Plausible,
            (_, 1) => Self::Doubtful,
            _ => Self::NotReliable,
        }
    }

    /// The label's words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Plausible => "passed its plausibility checks",
            Self::Doubtful => "one plausibility check is suspect",
            Self::NotReliable => "not reliable",
            Self::Unchecked => "not checked",
        }
    }
}

/// SHA-256 digests (hexadecimal) of what a number depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Digests {
    /// Model weights.
    pub model: Option<String>,
    /// Sample ids and contents.
    pub data: Option<String>,
    /// Zero-shot head: class names, templates, language.
    pub head: Option<String>,
    /// The complete plan.
    pub plan: Option<String>,
}

/// Why records could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A line is no record.
    #[error("{path}, line {line}: expected a record (a JSON object): {source}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A value has no JSON form.
    #[error("{path}: {source}")]
    Json {
        /// The file that was to be written.
        path: PathBuf,
        /// The reason.
        source: serde_json::Error,
    },
    /// Two records would be the same CLIP_benchmark file.
    #[error("{path}: two records have this name; CLIP_benchmark's form cannot tell them apart")]
    SameName {
        /// The file.
        path: PathBuf,
    },
}

impl RecordError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_owned(), source }
    }
}
