//! `clipguard evaluate`.

use crate::{failure::Failure, session::Session};
use clipguard_evaluate::{Evaluation, Plan, Record, report::Table, report_of_run, runner};
use indicatif::ProgressBar;
use std::path::{Path, PathBuf};

/// Measure models x defences x attacks x data, as a plan (TOML) says.
///
/// Finished parts stay in the run folder: the same command goes on after an interruption.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    clipguard evaluate experiments/clipure/scenes.toml --out runs/clipure\n  \
    clipguard evaluate plan.toml --out runs/quick --samples 50\n\n\
    A small plan:\n  \
    samples = 100\n  \
    models = [\"embedded\"]\n  \
    data = [\"scenes:840:part=instyle\"]\n  \
    templates = \"scenes\"\n  \
    attacks = [\"pgd:eps=1/255,steps=20\"]\n  \
    [[defence]]\n  \
    name = \"none\"\n  \
    [[defence]]\n  \
    name = \"clipure-cos\"\n  \
    purify = [\"clipure-cos\"]\n  \
    gradients = [\"exact\", \"straight-through\"]")]
pub(crate) struct Args {
    /// The plan.
    plan: PathBuf,
    /// Folder of the run.
    #[arg(long)]
    out: PathBuf,
    /// Use this many samples instead of the plan's.
    #[arg(long)]
    samples: Option<usize>,
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let text = std::fs::read_to_string(&args.plan).map_err(|e| Failure::reading(&args.plan, &e))?;
    let mut plan = Plan::parse(&text, &args.plan)?;
    plan.samples = args.samples.unwrap_or(plan.samples);
    let command = format!(
        "clipguard evaluate {} --out {}{}",
        args.plan.display(),
        args.out.display(),
        args.samples.map_or(String::new(), |n| format!(" --samples {n}"))
    );
    let evaluation = carry_out(&plan, &args.out, &command, &[], session)?;
    tell(&evaluation.records, &args.out, session)
}

/// The progress of an evaluation on a terminal.
struct Progress<'a> {
    bar: ProgressBar,
    session: &'a Session,
}

impl runner::Follow for Progress<'_> {
    fn unit(&mut self, what: &str, done: usize, total: usize) {
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message(what.to_owned());
    }

    fn note(&mut self, text: &str) {
        let session = self.session;
        self.bar.suspend(|| session.say(text));
    }
}

/// Runs a plan in a folder and writes records, pictures, summary and report there.
pub(crate) fn carry_out(
    plan: &Plan,
    folder: &Path,
    command: &str,
    explanation: &[&str],
    session: &Session,
) -> Result<Evaluation, Failure> {
    let units = folder.join("units");
    std::fs::create_dir_all(&units).map_err(|e| Failure::writing(&units, &e))?;
    let mut progress = Progress { bar: session.bar(plan.units() as u64, "evaluating"), session };
    let device = session.device();
    let evaluation =
        runner::run(plan, folder, &device, session.threads, &mut progress, session.stop_flag())
            .map_err(|e| match e {
                clipguard_evaluate::EvaluateError::Stopped => Failure::Interrupted(format!(
                    "stopped; finished parts are kept, go on with `{command}`"
                )),
                e => e.into(),
            })?;
    progress.bar.finish_and_clear();
    evaluation.save_examples(folder)?;
    let summary = serde_json::json!({
        "title": plan.title,
        "command": command,
        "seed": plan.seed,
        "version": env!("CARGO_PKG_VERSION"),
        "explanation": explanation,
    });
    let path = folder.join("summary.json");
    std::fs::write(&path, format!("{summary:#}\n")).map_err(|e| Failure::writing(&path, &e))?;
    write_report(folder)?;
    Ok(evaluation)
}

/// Writes `report.html` of a run folder and returns its path.
pub(crate) fn write_report(folder: &Path) -> Result<PathBuf, Failure> {
    let page = folder.join("report.html");
    let html = report_of_run(folder)?.render();
    std::fs::write(&page, html).map_err(|e| Failure::writing(&page, &e))?;
    Ok(page)
}

/// The records on stdout.
pub(crate) fn tell(records: &[Record], folder: &Path, session: &Session) -> Result<(), Failure> {
    if session.json {
        let text = serde_json::to_string_pretty(records)
            .map_err(|e| Failure::Failed(format!("records: {e}")))?;
        println!("{text}");
    } else {
        // Accuracies and recalls have no column in common.
        let (counted, others): (Vec<Record>, Vec<Record>) =
            records.iter().cloned().partition(|r| r.share().is_some());
        for part in [counted, others].iter().filter(|part| !part.is_empty()) {
            println!("{}", Table::of_records(part).text(100));
        }
        println!("report  {}", folder.join("report.html").display());
    }
    Ok(())
}
