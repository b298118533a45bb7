//! `clipguard attack --check`: whether the number can be believed.

use super::Args;
use crate::{failure::Failure, session::Session};
use clipguard_attack::{Batch, Budget, parse};
use clipguard_evaluate::{
    Check, Classifier, Reliability, Subset, Verdict,
    checks::{Bench, CATALOGUE, Effort, NO_BALL, Subject, examine},
    report::{Table, duration, reason},
    seconds_of_checks,
};
use clipguard_model::GradientMode;

/// All checks of one attack on one victim.
pub(super) fn run(
    args: &Args,
    session: &Session,
    classifier: &Classifier,
    subset: &Subset,
    size: usize,
    attack: &str,
) -> Result<Vec<Check>, Failure> {
    let Budget::Ball { norm, eps } = Budget::of(&parse(attack)?.spelling()) else {
        return Err(Failure::Usage(format!("--check: {NO_BALL}")));
    };
    let plain = classifier.defended(&args.purify, None)?;
    let straight = classifier.defended(&args.purify, Some(GradientMode::StraightThrough))?;
    let bare = classifier.defended(&[], None)?;
    let mut modes: Vec<(&str, &dyn Subject)> = vec![("as given", &plain)];
    let mut undefended: Option<&dyn Subject> = None;
    if !args.purify.is_empty() {
        modes.push(("straight-through", &straight));
        undefended = Some(&bare);
    }
    let attacks = [attack.to_owned()];
    let bench = Bench {
        modes,
        bare: undefended,
        norm,
        eps,
        attacks: &attacks,
        seed: session.seed,
        random: false,
        effort: Effort { batch: size, ..Effort::default() },
    };
    let batch = Batch { pixels: subset.pixels.clone(), labels: &subset.labels, keys: &subset.keys };
    let [likely, most] = seconds_of_checks(&bench, &batch);
    session.say(format!(
        "{} checks on {} pictures: about {} if all are like the first, at most {}",
        CATALOGUE.len(),
        subset.len(),
        duration(likely),
        duration(most)
    ));
    let bar = session.bar(CATALOGUE.len() as u64, "checking");
    let mut done = 0;
    let found = examine(&bench, &batch, size, &mut |id| {
        bar.set_position(done);
        bar.set_message(id.to_owned());
        done += 1;
        !session.stopped()
    });
    bar.finish_and_clear();
    found.ok_or_else(|| Failure::Interrupted("stopped; run the same command again".to_owned()))
}

/// The verdicts as a table, and what to do about those that were not passed.
pub(super) fn tell(checks: &[Check]) {
    if checks.is_empty() {
        return;
    }
    println!("{}", Table::of_checks(checks).text(100));
    for check in checks.iter().filter(|check| check.verdict != Verdict::Ok) {
        println!("{}  {}", check.id, reason(check));
    }
    println!("verdict: {}\n", Reliability::of(checks).words());
}
