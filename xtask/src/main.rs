//! `cargo xtask`: everything that is done to this repository, as one small program.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a build tool talks to whoever runs it")]

mod cargo;
mod generate;
mod journeys;
mod layers;
mod steps;
mod test;
mod testbed;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, test and generate: everything CI runs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything CI runs, in order; ends at the first step that fails.
    Test,
    /// Write the files that are generated from code.
    Gen(generate::Args),
    /// The real rig: build its servers, start one that stays, enter it, stop it.
    Testbed {
        #[command(subcommand)]
        action: testbed::Action,
    },
    /// Journeys: what a person does and sees, on a rig.
    Journeys(journeys::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Test => test::run(),
        Command::Gen(args) => generate::run(&args),
        Command::Testbed { action } => testbed::run(action),
        Command::Journeys(args) => journeys::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
