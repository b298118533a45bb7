//! What a plan looks at beside accuracies: detectors that watch the embeddings, and what a purifier
//! does to them. Which units that takes.

pub(crate) mod certified;
pub mod certify;
pub(crate) mod detection;
pub(crate) mod gaussian;
pub(crate) mod look;
pub(crate) mod shift;
pub(crate) mod told;
pub(crate) mod watch;

use crate::{
    Defence, Detect, EvaluateError, Plan,
    run::schedule::{Beside, Kind, StageHead, Task},
};
use clipguard_attack::parse;
use clipguard_data::spelling::Spelling;
use clipguard_model::GradientMode;

/// A detector against one attack.
pub(crate) struct Detected {
    /// As the plan asks for it.
    pub(crate) of: Detect,
    /// Weight of the score in what the attack raises.
    pub(crate) weight: f64,
    /// Scores of the clean pictures.
    pub(crate) clean: Task,
    /// The attack.
    pub(crate) attack: Task,
    /// Scores of its pictures.
    pub(crate) attacked: Task,
}

/// What a purifier does to embeddings.
pub(crate) struct Shifted {
    /// Embeddings of the clean pictures.
    pub(crate) clean: Task,
    /// An attack in words, its unit, and the embeddings of its pictures.
    pub(crate) attacks: Vec<(&'static str, Task, Task)>,
}

/// The attacks of [`Shifted`].
pub(crate) const SHIFTS: [&str; 3] =
    ["on the undefended model", "on the defence", "on the defence, to look likely"];
/// The likelihood of the last of them, and its weight.
const LIKELY: (&str, f64) = ("blank-cosine", 1.0);

/// An attack that goes on after its first success and hands back the point of highest loss: what
/// is raised beside the loss counts to the last step.
///
/// # Errors
/// Attacks that follow no gradient and so cannot raise anything else.
pub(crate) fn persistent(attack: &str) -> Result<String, EvaluateError> {
    let full = parse(attack)?.spelling();
    if !matches!(full.name(), "pgd" | "apgd" | "fgsm") {
        let reason = format!(
            "`{}` cannot raise a score beside its loss; pgd, apgd and fgsm can",
            full.name()
        );
        return Err(EvaluateError::Study(reason));
    }
    let value = |key: &str, value: &str| match key {
        "keep" => "loss".to_owned(),
        "early-exit" => "false".to_owned(),
        _ => value.to_owned(),
    };
    let settings = full.settings().iter().map(|(k, v)| (k.clone(), value(k, v)));
    Ok(Spelling::new(full.name(), settings.collect::<Vec<_>>())?.to_string())
}

/// An attack on purifiers with their exact gradient.
fn attack(purify: &[String], attack: &str, beside: Option<Beside>) -> Task {
    Task {
        attack: attack.to_owned(),
        gradient: (!purify.is_empty()).then_some(GradientMode::Exact),
        beside,
        ..Task::new(Kind::Attack, purify)
    }
}

/// The detectors of a plan that watch this defence.
pub(crate) fn detected(
    plan: &Plan,
    head: &StageHead,
    defence: &Defence,
) -> Result<Vec<Detected>, EvaluateError> {
    let mut all = Vec::new();
    for of in plan.detect.iter().filter(|of| of.defence == defence.name) {
        let spelled = persistent(of.attack(plan))?;
        for &weight in &of.weights {
            // Without a weight the attack is the same for every score.
            let score = if weight == 0.0 { String::new() } else { of.score.clone() };
            let attack = attack(&defence.purify, &spelled, Some(Beside { score, weight }));
            let scores = |source| {
                let score = of.score.clone();
                Task::new(Kind::Score { score, source }, &defence.purify)
            };
            let attacked = scores(Some(attack.id(head, plan.seed)));
            all.push(Detected { of: of.clone(), weight, clean: scores(None), attack, attacked });
        }
    }
    Ok(all)
}

/// The units behind the picture of a purifier; `None` without one, or without an attack.
pub(crate) fn shifted(
    plan: &Plan,
    head: &StageHead,
    defence: &Defence,
) -> Result<Option<Shifted>, EvaluateError> {
    let first = plan.attacks.first().filter(|_| plan.embeddings && !defence.purify.is_empty());
    let Some(first) = first else { return Ok(None) };
    let full = parse(first)?.spelling().to_string();
    let likely = Beside { score: LIKELY.0.to_owned(), weight: LIKELY.1 };
    let made = [
        Task { attack: full.clone(), ..Task::new(Kind::Attack, &[]) },
        attack(&defence.purify, &full, None),
        attack(&defence.purify, &persistent(first)?, Some(likely)),
    ];
    let look = |source| Task::new(Kind::Look { source }, &defence.purify);
    let attacks = SHIFTS.into_iter().zip(made).map(|(name, made)| {
        let source = Some(made.id(head, plan.seed));
        (name, made, look(source))
    });
    Ok(Some(Shifted { clean: look(None), attacks: attacks.collect() }))
}

impl Detected {
    /// Its units with a few words.
    pub(crate) fn tasks(&self) -> [(String, &Task); 3] {
        let Detect { score, .. } = &self.of;
        let what = |how: &str| format!("{score} · {how}");
        [
            (what("clean"), &self.clean),
            (what(&format!("attack, weight {}", self.weight)), &self.attack),
            (what(&format!("attacked, weight {}", self.weight)), &self.attacked),
        ]
    }
}

impl Shifted {
    /// Its units with a few words.
    pub(crate) fn tasks(&self) -> Vec<(String, &Task)> {
        let mut all = vec![("embeddings · clean".to_owned(), &self.clean)];
        for (name, made, look) in &self.attacks {
            all.push((format!("embeddings · attack {name}"), made));
            all.push((format!("embeddings · attacked {name}"), look));
        }
        all
    }
}
