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
use failure::Failure;
use session::Session;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    clipguard_ops::keep_freed_memory();
    clipguard_data::contained::quiet();
    let cli = Cli::parse();
    let device = match clipguard_model::device(cli.device.as_deref().unwrap_or("cpu")) {
        Ok(device) => device,
        Err(error) => return told(&error.into()),
    };
    let session = Session {
        device,
        place: cli.device.clone(),
        seed: cli.seed,
        threads: cli.threads,
        json: cli.json,
        quiet: cli.quiet,
        verbose: cli.verbose,
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(cli.threads).stack_size(STACK);
    // Fails only when a pool exists already, and none does this early.
    let _ = pool.build_global();
    session.listen();
    // On a thread of the pool: from outside, every small operation would wake a thread and wait for it,
    // and the threads that wait for work would take turns with this one.
    match rayon::scope(|_| run(&cli, &session)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => told(&failure),
    }
}

fn told(failure: &Failure) -> ExitCode {
    eprintln!("clipguard: {failure}");
    ExitCode::from(failure.code())
}

/// Stack of a thread in bytes, as main threads have it.
const STACK: usize = 8 << 20;

fn run(cli: &Cli, session: &Session) -> Result<(), Failure> {
    match &cli.command {
        Command::Demo(args) => commands::demo::run(args, session),
        Command::Inspect(args) => commands::inspect::run(args, session),
        Command::Embed(args) => commands::embed::run(args, session),
        Command::Export(args) => commands::export::run(args, session),
        Command::Classify(args) => commands::classify::run(args, session),
        Command::Purify(args) => commands::purify::run(args, session),
        Command::Train(args) => commands::train::run(args, session),
        Command::Attack(args) => commands::attack::run(args, session),
        Command::Evaluate(args) => commands::evaluate::run(args, session),
        Command::Merge(args) => commands::merge::run(args, session),
        Command::Report(args) => commands::report::run(args, session),
        Command::Convert(args) => commands::convert::run(args, session),
        Command::Methods(args) => commands::methods::run(args, session),
        Command::Completions(args) => commands::completions::run(args, session),
    }
}
