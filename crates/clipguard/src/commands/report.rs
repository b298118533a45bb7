//! `clipguard report`.

use super::evaluate::write_report;
use crate::{failure::Failure, session::Session};
use std::path::PathBuf;

/// Write the report of a run folder again: one HTML file that needs nothing but itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  clipguard report runs/clipure")]
pub(crate) struct Args {
    /// Folders of runs (`train`, `evaluate`, `demo`).
    #[arg(required = true)]
    runs: Vec<PathBuf>,
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let mut pages = Vec::new();
    for folder in &args.runs {
        if !folder.join("plan.toml").is_file() {
            return Err(Failure::Refused(format!(
                "{}: not a run folder (no `plan.toml` in it)",
                folder.display()
            )));
        }
        pages.push(write_report(folder)?);
    }
    if session.json {
        println!("{}", serde_json::json!({ "reports": pages }));
    } else {
        pages.iter().for_each(|page| println!("{}", page.display()));
    }
    Ok(())
}
