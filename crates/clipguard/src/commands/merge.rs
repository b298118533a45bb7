//! `clipguard merge`.

use super::evaluate::{Job, summarise, tell};
use crate::{failure::Failure, session::Session};
use clipguard_evaluate::Shard;
use std::path::PathBuf;

/// Make one run of the shards of an evaluation.
///
/// Every folder must hold the same plan, model and data, all shards must be there and finished,
/// and every sample must be in exactly one of them. The records are, byte for byte, those of the
/// run that one machine would have made.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    clipguard evaluate plan.toml --shard 0/2 --out runs/part0\n  \
    clipguard evaluate plan.toml --shard 1/2 --out runs/part1\n  \
    clipguard merge runs/part0 runs/part1 --out runs/whole")]
pub(crate) struct Args {
    /// Run folders of all shards, in any order.
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// Folder of the whole run.
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let merged = clipguard_evaluate::merge(&args.folders, &args.out)?;
    let folders: Vec<String> = args.folders.iter().map(|f| f.display().to_string()).collect();
    let job = Job {
        folder: &args.out,
        command: &format!("clipguard merge {} --out {}", folders.join(" "), args.out.display()),
        explanation: &[],
        shard: Shard::default(),
        deadline: None,
    };
    summarise(&merged.plan, &job, &[])?;
    session.say(format!("{} samples from {} shards", merged.samples, folders.len()));
    tell(&merged.records, &args.out, session)
}
