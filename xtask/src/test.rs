//! Everything CI runs.

use crate::cargo::{self, cargo};
use crate::journeys::{self, Rig};
use crate::steps::{Outcome, Steps};
use crate::{generate, layers, testbed};

/// The rigs that the journeys run on, quickest first.
const RIGS: [(&str, Rig); 1] = [("journeys on real servers", Rig::Real)];

/// # Errors
/// When a step fails; with its name.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut steps = Steps::default();
    let mut step = |name, args: &[&str]| steps.take(name, || done(cargo::run(&mut cargo(args))));
    step("format", &["fmt", "--all", "--check"])?;
    step("lints", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
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
    for (name, rig) in RIGS {
        steps.take(name, || match (&rig, &no_rig) {
            (Rig::Real, Some(reason)) => Ok(Outcome::Skipped(reason.clone())),
            _ => done(journeys::run(&journeys::Args { rig, crash: false, names: Vec::new() })),
        })?;
    }
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
