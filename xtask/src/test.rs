//! Everything CI runs.

use std::process::Command;

use crate::cargo::{self, cargo};
use crate::journeys::{self, Args, Crashes, Rig};
use crate::steps::{Outcome, Steps};
use crate::{generate, layers, testbed};

/// # Errors
/// When a step fails; with its name.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut steps = Steps::default();
    let mut step = |name, args: &[&str]| steps.take(name, || done(cargo::run(&mut cargo(args))));
    step("format", &["fmt", "--all", "--check"])?;
    // The mocks are for those who embed the core; nothing here uses them.
    let lints = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        "upgrade-core/mocks",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ];
    step("lints", &lints)?;
    steps.take("layers", || done(layers::check()))?;
    steps.take("generated files", || done(generate::check()))?;
    // Before the tests, because some of them start a rig.
    let mut no_rig = None;
    steps.take("rig build", || {
        let outcome = testbed::step()?;
        if let Outcome::Skipped(reason) = &outcome {
            no_rig = Some(reason.clone());
        }
        Ok(outcome)
    })?;
    steps.take("tests", || done(cargo::run(&mut cargo(&["test", "--workspace", "--quiet"]))))?;
    steps.take("demo", || done(cargo::run(Command::new(cargo::program("windlass")?).arg("demo"))))?;
    let journeys =
        |rig| done(journeys::run(&Args { rig: Some(rig), crash: false, every: 1, list: false, names: Vec::new() }));
    steps.take("journeys on a simulation", || journeys(Rig::Sim))?;
    // Real servers mostly wait; most of this computing fits beside them.
    let crashes = Crashes::begin()?;
    steps.take("journeys on real servers", || match &no_rig {
        Some(reason) => Ok(Outcome::Skipped(reason.clone())),
        None => journeys(Rig::Real),
    })?;
    steps.take("a crash at every effect (begun beside the journeys)", || done(crashes.finish()))?;
    steps.take("documentation", || {
        let mut command = cargo(&["doc", "--workspace", "--no-deps", "--quiet"]);
        done(cargo::run(command.env("RUSTDOCFLAGS", "-D warnings")))
    })?;
    println!("{}", steps.summary());
    Ok(())
}

fn done(result: anyhow::Result<()>) -> anyhow::Result<Outcome> {
    result.map(|()| Outcome::Done)
}
