//! The program: reads the command line, runs one command, and maps its end to an exit code.

mod cli;
mod commands;
mod failure;
mod output;
mod pictures;
mod session;
mod tensor_file;

use clap::Parser;
use cli::{Cli, Command};
use session::Session;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    clipguard_ops::keep_freed_memory();
    clipguard_data::contained::quiet();
    let cli = Cli::parse();
    let session = Session {
        seed: cli.seed,
        threads: cli.threads,
        json: cli.json,
        quiet: cli.quiet,
        verbose: cli.verbose,
    };
    // Fails only when a pool exists already, and none does this early.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(cli.threads).build_global();
    session.listen();
    let result = match &cli.command {
        Command::Demo(args) => commands::demo::run(args, &session),
        Command::Inspect(args) => commands::inspect::run(args, &session),
        Command::Embed(args) => commands::embed::run(args, &session),
        Command::Export(args) => commands::export::run(args, &session),
        Command::Classify(args) => commands::classify::run(args, &session),
        Command::Purify(args) => commands::purify::run(args, &session),
        Command::Train(args) => commands::train::run(args, &session),
        Command::Attack(args) => commands::attack::run(args, &session),
        Command::Evaluate(args) => commands::evaluate::run(args, &session),
        Command::Merge(args) => commands::merge::run(args, &session),
        Command::Report(args) => commands::report::run(args, &session),
        Command::Convert(args) => commands::convert::run(args, &session),
        Command::Methods(args) => commands::methods::run(args, &session),
        Command::Completions(args) => commands::completions::run(args, &session),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("clipguard: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
