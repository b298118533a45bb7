//! The command line as data.

use crate::commands::{
    attack, classify, completions, convert, demo, embed, evaluate, export, inspect, merge, methods,
    purify, report, train,
};
use clap::{Parser, Subcommand};

/// CLIP models you can trust: from the training data to the running classifier.
#[derive(Debug, Parser)]
#[command(
    name = "clipguard",
    version,
    after_help = "Start with `clipguard demo`. Every command explains itself: `clipguard COMMAND --help`.\n\
        Exit codes: 0 done, 1 failed on the way (state kept), 2 wrong usage, 3 input refused, 130 interrupted."
)]
pub(crate) struct Cli {
    /// Where to compute: `cpu` (the default), or a card (`wgpu`, `vulkan`, `metal`, `cuda`, with `:N` the
    /// N-th) in a build that has the feature of that name. Last digits differ from device to device.
    #[arg(long, global = true)]
    pub(crate) device: Option<String>,
    /// Threads; 0 means all cores. Results do not depend on it.
    #[arg(long, global = true, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Seed of every random stream.
    #[arg(long, global = true, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print one JSON document instead of a table.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print nothing but results and errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print more about what is done.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::Args),
    Inspect(inspect::Args),
    Embed(embed::Args),
    Export(export::Args),
    Classify(classify::Args),
    Purify(purify::Args),
    Train(train::Args),
    Attack(attack::Args),
    Evaluate(evaluate::Args),
    Merge(merge::Args),
    Report(report::Args),
    Convert(convert::Args),
    Methods(methods::Args),
    Completions(completions::Args),
}
