//! The real rig, which is a program of its own: `windlass-rig`.

use std::process::Command;

use clap::Subcommand;

use crate::cargo;
use crate::steps::Outcome;

/// What to do with the rig.
#[derive(Clone, Copy, Subcommand)]
pub(crate) enum Action {
    /// Build its servers, unless they are cached: about ten minutes the first time.
    Build,
    /// Start a rig that stays until `down`.
    Up,
    /// Stop the rig that `up` started.
    Down,
    /// Print KUBECONFIG and URLs of the rig that is up, as exports for a shell.
    Env,
}

/// # Errors
/// When the action fails; `windlass-rig` has said why.
pub(crate) fn run(action: Action) -> anyhow::Result<()> {
    let action = match action {
        Action::Build => "build",
        Action::Up => "up",
        Action::Down => "down",
        Action::Env => "env",
    };
    cargo::run(Command::new(cargo::program("windlass-rig")?).arg(action))
}

/// Builds the rig as a step of the tests: without Go it is left out, except in CI.
///
/// # Errors
/// When the rig cannot be built although there is Go, or in CI for whatever reason.
pub(crate) fn step() -> anyhow::Result<Outcome> {
    match run(Action::Build) {
        Ok(()) => Ok(Outcome::Done),
        Err(_) if !cargo::is_ci() && !go_is_installed() => Ok(Outcome::Skipped("there is no `go` in PATH".to_owned())),
        Err(error) => Err(error),
    }
}

/// Whether `go` is in PATH.
fn go_is_installed() -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("go").is_file()))
}
