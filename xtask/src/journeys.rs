//! Journeys: what a person does and sees, written once and run on a rig.

use clap::ValueEnum;

use crate::cargo;

/// What a journey runs on.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Rig {
    /// The simulation, in this process and under virtual time.
    Sim,
    /// Real servers.
    Real,
}

impl Rig {
    fn name(self) -> &'static str {
        match self {
            Self::Sim => "sim",
            Self::Real => "real",
        }
    }
}

/// Which journeys, on which rig.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to run on.
    #[arg(long, value_enum)]
    pub(crate) rig: Rig,
    /// Kill the operator at every effect of an upgrade and of a rollback, on the simulation, and compare the ends.
    #[arg(long)]
    pub(crate) crash: bool,
    /// With `--crash`: only every so many crash points.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) every: u16,
    /// Names of journeys; all when none is given.
    pub(crate) names: Vec<String>,
}

/// # Errors
/// When a journey fails, or cannot be compiled.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // The rig starts programs that it looks for next to the journeys.
    cargo::run(&mut cargo::cargo(&[
        "build",
        "--quiet",
        "--package",
        "windlass-rig",
        "--package",
        "windlass-operator",
        "--package",
        "windlass-journeys",
    ]))?;
    let mut command =
        cargo::cargo(&["run", "--quiet", "--package", "windlass-journeys", "--", "--rig", args.rig.name()]);
    if args.crash {
        command.args(["--crash", "--every", &args.every.to_string()]);
    }
    cargo::run(command.args(&args.names))
}
