//! `windlass completions`

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::error::CliError;
use crate::{Cli, Exit, Session};

pub(super) fn run(session: &mut Session, shell: Shell) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "windlass", &mut script);
    session.printer.out(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
