//! `clipguard completions`.

use crate::{cli::Cli, failure::Failure, output::print, session::Session};
use clap::CommandFactory;
use clap_complete::Shell;

/// Print the completions of a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    clipguard completions bash > ~/.local/share/bash-completion/completions/clipguard\n  \
    clipguard completions zsh > ~/.zfunc/_clipguard\n  \
    clipguard completions fish > ~/.config/fish/completions/clipguard.fish")]
pub(crate) struct Args {
    /// The shell to complete in.
    shell: Shell,
}

pub(crate) fn run(args: &Args, _session: &Session) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "clipguard", &mut script);
    print(&String::from_utf8_lossy(&script))
}
