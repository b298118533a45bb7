//! `clipguard completions`.

use crate::{failure::Failure, session::Session};

/// (to be written)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, _session: &Session) -> Result<(), Failure> {
    Err(Failure::Failed("not built yet".to_owned()))
}
