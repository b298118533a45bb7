//! `clipguard report`.

use super::evaluate::write_report;
use crate::{failure::Failure, session::Session};
use clipguard_evaluate::{
    export_clip_benchmark, export_clip_benchmark_csv, read_records, records::robustbench,
};
use std::path::PathBuf;

/// Write the report of a run folder again: one HTML file that needs nothing but itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clipguard report runs/clipure\n  \
    clipguard report runs/clipure --export results/\n\n\
    `--export` writes `clip_benchmark/*.json` and `clip_benchmark.csv` (clean results, for\n\
    CLIP_benchmark's tools) and\n\
    `model_info/DATASET/NORM/*.json` (worst cases, RobustBench's model cards).")]
pub(crate) struct Args {
    /// Folders of runs (`train`, `evaluate`, `demo`).
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Also write the results in the forms of CLIP_benchmark and RobustBench into this folder.
    #[arg(long, value_name = "FOLDER")]
    export: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let (mut pages, mut records) = (Vec::new(), Vec::new());
    for folder in &args.runs {
        if !folder.join("plan.toml").is_file() {
            return Err(Failure::Refused(format!(
                "{}: not a run folder (no `plan.toml` in it)",
                folder.display()
            )));
        }
        pages.push(write_report(folder)?);
        let path = folder.join("records.jsonl");
        if args.export.is_some() && path.is_file() {
            records.extend(read_records(&path)?);
        }
    }
    if let Some(out) = &args.export {
        pages.extend(export_clip_benchmark(&out.join("clip_benchmark"), &records)?);
        let table = out.join("clip_benchmark.csv");
        export_clip_benchmark_csv(&table, &records)?;
        pages.push(table);
        pages.extend(robustbench::export(out, &records)?);
    }
    if session.json {
        println!("{}", serde_json::json!({ "reports": pages }));
    } else {
        pages.iter().for_each(|page| println!("{}", page.display()));
    }
    Ok(())
}
