//! Journeys: what a person does and sees, written once and run on a rig.

use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::ValueEnum;

use crate::cargo;

/// How long the crash table may take to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(10);

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
    #[arg(long, value_enum, required_unless_present = "list")]
    pub(crate) rig: Option<Rig>,
    /// Kill the operator at every effect of an upgrade and of a rollback, on the simulation, and compare the ends.
    #[arg(long)]
    pub(crate) crash: bool,
    /// With `--crash`: only every so many crash points.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) every: u16,
    /// Only list the journeys.
    #[arg(long)]
    pub(crate) list: bool,
    /// Names of journeys; all when none is given.
    pub(crate) names: Vec<String>,
}

/// # Errors
/// When a journey fails, or cannot be compiled.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // The rig starts programs that it looks for next to the journeys: all are built.
    let mut command = Command::new(cargo::program("windlass-journeys")?);
    if let Some(rig) = args.rig {
        command.args(["--rig", rig.name()]);
    }
    if args.list {
        command.arg("--list");
    }
    if args.crash {
        command.args(["--crash", "--every", &args.every.to_string()]);
    }
    cargo::run(command.args(&args.names))
}

/// The whole crash table, being made while something else is done that mostly waits. Dropping it ends it.
pub(crate) struct Crashes {
    process: Child,
    output: Option<JoinHandle<std::io::Result<String>>>,
}

impl Crashes {
    /// Begins it, with what processors have left over: it has a time of its own, and others have the clock on the wall.
    ///
    /// # Errors
    /// When it cannot be compiled or started.
    pub(crate) fn begin() -> anyhow::Result<Self> {
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(cargo::program("windlass-journeys")?).args(["--rig", "sim", "--crash"]);
        let mut process = command.stdout(Stdio::piped()).spawn().context("starting `nice`")?;
        let stdout = process.stdout.take();
        let output = std::thread::spawn(move || stdout.map_or_else(|| Ok(String::new()), std::io::read_to_string));
        Ok(Self { process, output: Some(output) })
    }

    /// Waits for its end and shows it.
    ///
    /// # Errors
    /// When a crash point did not end as it should.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        let output = self.output.take().and_then(|reader| reader.join().ok()).context("its output was lost")?;
        print!("{}", output?);
        let status = self.process.wait()?;
        ensure!(status.success(), "`windlass-journeys --rig sim --crash` failed ({status})");
        Ok(())
    }
}

impl Drop for Crashes {
    fn drop(&mut self) {
        // It has ended already, or nobody wants to know its result. Told to end, it takes its folders with it.
        let told = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).stderr(Stdio::null()).status();
        let began = Instant::now();
        while told.is_ok() && began.elapsed() < PATIENCE && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
