//! Calling cargo on this workspace.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Whether this runs in CI, where nothing may be skipped.
pub(crate) fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// The workspace.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// What outlives a clone: `$WINDLASS_CACHE_DIR`, or `windlass` in the user's cache directory.
fn cache_dir() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("WINDLASS_CACHE_DIR")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("windlass")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/windlass")))
}

/// A target folder other than the one cargo would choose: a clone in CI is thrown away, what it compiled need not be.
fn target_dir() -> Option<PathBuf> {
    let chosen = !is_ci() || std::env::var_os("CARGO_TARGET_DIR").is_some();
    cache_dir().filter(|_| !chosen).map(|cache| cache.join("target"))
}

/// A cargo command in the root of the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    if let Some(target) = target_dir() {
        command.env("CARGO_TARGET_DIR", target);
    }
    command
}

/// Builds the workspace's programs; returns the one of that name, to be run. All of them in one call, because cargo compiles a
/// dependency anew for each set of features that the packages it is asked for add up to.
///
/// # Errors
/// When something cannot be compiled.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    run(&mut cargo(&["build", "--quiet", "--workspace", "--bins"]))?;
    let folder = match target_dir() {
        Some(target) => target.join("debug"),
        // This program is one of them.
        None => std::env::current_exe()?.parent().context("a program is in a folder")?.to_path_buf(),
    };
    Ok(folder.join(name))
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("running {command:?}"))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command to its end and returns what it wrote to stdout.
///
/// # Errors
/// When it cannot be started, fails, or writes something that is no text.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        bail!("`{}` failed ({})", shown(command), output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn shown(command: &Command) -> String {
    let args = command.get_args().map(|arg| arg.to_string_lossy());
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program.to_string_lossy()).chain(args).collect::<Vec<_>>().join(" ")
}
