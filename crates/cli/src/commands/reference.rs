//! `windlass reference`: the pages of `docs/reference` that are about the programs.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use windlass_operator::Args;

use crate::codes::{self, GROUPS};
use crate::error::CliError;
use crate::{Cli, Exit};

pub(super) fn run(folder: &Path) -> Result<Exit, CliError> {
    for (file, page) in [("commands.md", commands()), ("codes.md", codes())] {
        std::fs::write(folder.join(file), page).map_err(CliError::Output)?;
    }
    Ok(Exit::Done)
}

/// What `--help` says of every command of both programs.
fn commands() -> String {
    let mut page =
        String::from("# The commands\n\nWhat `--help` says. The common options of `windlass` are shown once.\n");
    for program in [Cli::command(), Args::command()] {
        // The values of variables are those of whoever writes this page.
        let mut program = program.term_width(100).mut_args(|arg| arg.hide_env_values(true));
        program.build();
        section(&mut page, &mut program);
    }
    page
}

fn section(page: &mut String, command: &mut Command) {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", lines.join("\n").trim());
    for below in command.get_subcommands_mut().filter(|below| !below.is_hide_set() && below.get_name() != "help") {
        *below = below.clone().mut_args(|arg| {
            let is_hidden = arg.is_hide_set() || arg.get_help_heading() == Some("Common options");
            arg.hide(is_hidden)
        });
        section(page, below);
    }
}

/// What `windlass explain` knows.
fn codes() -> String {
    let mut page =
        String::from("# The codes\n\nOf refusals, failures and errors; `windlass explain CODE` says the same.\n");
    for (seen, _) in GROUPS {
        let _ = write!(page, "\n## Seen {seen}\n\n| Code | Meaning | What to do |\n|---|---|---|\n");
        for code in codes::all().filter(|code| code.seen == seen) {
            let _ = writeln!(page, "| `{}` | {} | {} |", code.code, code.meaning, code.remedy);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_shown_has_its_help_on_the_page_and_common_options_are_there_once() {
        let page = commands();
        for name in ["windlass upgrade app", "windlass plan rollback app", "windlass-operator manifests"] {
            assert!(page.contains(&format!("\n## {name}\n\n```text\n")), "{name}");
        }
        assert_eq!(page.matches("--kubeconfig <FILE>").count(), 1, "{page}");
        assert!(!page.contains("run-operator") && !page.contains("## windlass reference"));
    }

    #[test]
    fn every_code_is_a_row_of_the_page() {
        let page = codes();
        let rows = page.lines().filter(|line| line.starts_with("| `"));
        assert!(rows.clone().all(|row| row.matches('|').count() == 4));
        assert_eq!(rows.count(), codes::all().count());
    }
}
