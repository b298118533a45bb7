//! `clipguard evaluate`.

mod limits;
mod progress;

use crate::{failure::Failure, session::Session};
use clipguard_evaluate::{
    Evaluation, Plan, Record, Shard,
    report::{Table, duration, is_study},
    report_of_run,
    run::progress::Until,
    run::runner,
};
use progress::Progress;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Measure models x defences x attacks x data, as a plan (TOML) says.
///
/// Every sample that is finished stays in the run folder: the same command goes on after an
/// interruption, also a sudden one, and ends in the same records. `--shard` shares the samples out
/// between machines; `clipguard merge` makes one run of the parts, byte for byte that of one
/// machine. What it will take is said before it starts.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    clipguard evaluate experiments/clipure/scenes.toml --out runs/clipure\n  \
    clipguard evaluate plan.toml --out runs/quick --samples 50 --max-minutes 10\n  \
    clipguard evaluate plan.toml --shard 0/4 --out runs/part0\n  \
    clipguard evaluate plan.toml --adversarial theirs.safetensors --out runs/theirs\n  \
    clipguard evaluate plan.toml --out runs/today --baseline runs/yesterday --min-robust 0.3\n\n\
    A small plan:\n  \
    samples = 100\n  \
    models = [\"embedded\"]\n  \
    data = [\"scenes:840:part=instyle\"]\n  \
    templates = \"scenes\"\n  \
    attacks = [\"pgd:eps=1/255,steps=20\"]\n  \
    checks = \"all\"\n  \
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
    /// Only this part of the samples, such as 0/4; chosen by the hash of their keys.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Stop by itself after so many minutes; the same command goes on.
    #[arg(long, value_name = "MINUTES")]
    max_minutes: Option<f64>,
    /// Adversarial pictures made elsewhere (safetensors, tensor `adversarial`); they can only
    /// lower a number. May be given several times.
    #[arg(long, value_name = "FILE")]
    adversarial: Vec<String>,
    /// A model whose adversarial pictures count, too, beside those the plan names (`transfer-from`).
    /// May be given several times.
    #[arg(long, value_name = "MODEL")]
    transfer_from: Vec<String>,
    /// Fail when a number is significantly below that of an earlier run (its folder or its
    /// `samples.jsonl`).
    #[arg(long, value_name = "RUN")]
    baseline: Option<PathBuf>,
    /// Fail when the robust accuracy of the headline is below this share, such as 0.3.
    #[arg(long, value_name = "SHARE")]
    min_robust: Option<f64>,
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let text = std::fs::read_to_string(&args.plan).map_err(|e| Failure::reading(&args.plan, &e))?;
    let mut plan = Plan::parse(&text, &args.plan)?;
    plan.samples = args.samples.unwrap_or(plan.samples);
    plan.adversarial.extend(args.adversarial.iter().cloned());
    plan.transfer_from.extend(args.transfer_from.iter().cloned());
    plan.check().map_err(Failure::Usage)?;
    let limits = limits::Limits::read(args.min_robust, args.baseline.as_deref())?;
    let minutes = args.max_minutes.unwrap_or(f64::INFINITY);
    if minutes.is_nan() || minutes < 0.0 {
        return Err(Failure::Usage(format!("--max-minutes {minutes}: expected 0 or more")));
    }
    let deadline = Duration::try_from_secs_f64(60.0 * minutes).ok();
    let job = Job {
        folder: &args.out,
        command: &command(args),
        explanation: &[],
        shard: args.shard.unwrap_or_default(),
        deadline: deadline.and_then(|time| Instant::now().checked_add(time)),
    };
    let evaluation = carry_out(&plan, &job, session)?;
    if job.shard.is_whole() {
        tell(&evaluation.records, &args.out, session)?;
    } else if !evaluation.is_cut {
        told_shard(&job, session);
    }
    if evaluation.is_cut {
        return Err(Failure::Interrupted(cut(&evaluation, minutes, job.command)));
    }
    limits.check(&evaluation.records, &args.out)
}

/// The command that does the same again.
fn command(args: &Args) -> String {
    let mut text =
        format!("clipguard evaluate {} --out {}", args.plan.display(), args.out.display());
    text += &args.samples.map_or(String::new(), |n| format!(" --samples {n}"));
    text += &args.shard.map_or(String::new(), |shard| format!(" --shard {shard}"));
    args.adversarial.iter().for_each(|file| text += &format!(" --adversarial {file}"));
    args.transfer_from.iter().for_each(|model| text += &format!(" --transfer-from {model}"));
    text
}

fn told_shard(job: &Job<'_>, session: &Session) {
    let folder = job.folder.display();
    if session.json {
        println!("{}", serde_json::json!({ "shard": job.shard.to_string(), "out": job.folder }));
    } else {
        println!("shard {} is done; `clipguard merge {folder} ... --out RUN` joins all", job.shard);
    }
}

fn cut(evaluation: &Evaluation, minutes: f64, command: &str) -> String {
    let missing = match evaluation.missing.as_slice() {
        [] => String::new(),
        [first, rest @ ..] => {
            format!(" ({} parts are missing, the first is {first})", 1 + rest.len())
        }
    };
    format!(
        "stopped after {} as asked{missing}: every number so far is an upper bound; finished parts \
         are kept, go on with `{command}`",
        duration(60.0 * minutes)
    )
}

/// What is carried out where.
pub(crate) struct Job<'a> {
    /// The run folder.
    pub(crate) folder: &'a Path,
    /// The command line, for the report.
    pub(crate) command: &'a str,
    /// Paragraphs for the report.
    pub(crate) explanation: &'a [&'a str],
    /// Which samples.
    pub(crate) shard: Shard,
    /// Until when.
    pub(crate) deadline: Option<Instant>,
}

/// Runs a plan in a folder and writes records, pictures, summary and report there.
pub(crate) fn carry_out(
    plan: &Plan,
    job: &Job<'_>,
    session: &Session,
) -> Result<Evaluation, Failure> {
    let mut progress = Progress::new(plan, session);
    let run = runner::Run {
        folder: job.folder,
        shard: job.shard,
        until: Until { stop: session.stop_flag(), deadline: job.deadline },
        device: &session.device,
        threads: session.threads,
    };
    let evaluation = runner::run(plan, &run, &mut progress).map_err(|e| match e {
        clipguard_evaluate::EvaluateError::Stopped => Failure::Interrupted(format!(
            "stopped; finished parts are kept, go on with `{}`",
            job.command
        )),
        e => e.into(),
    })?;
    progress.finish();
    if job.shard.is_whole() {
        summarise(plan, job, &evaluation.missing)?;
    }
    Ok(evaluation)
}

/// Writes `summary.json` and `report.html`.
pub(crate) fn summarise(plan: &Plan, job: &Job<'_>, missing: &[String]) -> Result<(), Failure> {
    let mut limits = Vec::new();
    if !missing.is_empty() {
        limits.push(format!(
            "The run was stopped before its end: {} parts are missing. Every number here is an \
             upper bound of what the whole plan would give.",
            missing.len()
        ));
    }
    let summary = serde_json::json!({
        "title": plan.title,
        "command": job.command,
        "seed": plan.seed,
        "version": env!("CARGO_PKG_VERSION"),
        "explanation": job.explanation,
        "limits": limits,
        "missing": missing,
    });
    let path = job.folder.join("summary.json");
    std::fs::write(&path, format!("{summary:#}\n")).map_err(|e| Failure::writing(&path, &e))?;
    write_report(job.folder)?;
    Ok(())
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
        // Accuracies, recalls and detectors have no column in common.
        let told = records.iter().filter(|r| !r.metrics.0.is_empty() && !is_study(r)).cloned();
        let (counted, others): (Vec<Record>, Vec<Record>) = told.partition(|r| r.share().is_some());
        for part in [counted, others].iter().filter(|part| !part.is_empty()) {
            println!("{}", Table::of_records(part).text(100));
        }
        let others = Table::of_detectors(records).into_iter();
        let others = others.chain(Table::overviews(records)).chain(Table::of_pairs(records));
        others.for_each(|table| println!("{}", table.text(100)));
        println!("report  {}", folder.join("report.html").display());
    }
    Ok(())
}
