//! Everything CI runs.

use crate::cargo::{self, cargo};
use crate::journeys::{self, Args, Rig};
use crate::steps::{Outcome, Steps};
use crate::{generate, layers, testbed};

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
    let demo = ["run", "--quiet", "--package", "windlass-cli", "--bin", "windlass", "--", "demo"];
    steps.take("demo", || done(cargo::run(&mut cargo(&demo))))?;
    let journeys = |rig| done(journeys::run(&Args { rig, crash: false, every: 1, names: Vec::new() }));
    steps.take("journeys on a simulation", || journeys(Rig::Sim))?;
    steps.take("journeys on real servers", || match &no_rig {
        Some(reason) => Ok(Outcome::Skipped(reason.clone())),
        None => journeys(Rig::Real),
    })?;
    let crashes = |every, name: &str| {
        done(journeys::run(&Args { rig: Rig::Sim, crash: true, every, names: vec![name.to_owned()] }))
    };
    steps.take("a crash at every effect of an upgrade", || crashes(1, "02-"))?;
    // All of them take a quarter of an hour: `cargo xtask journeys --rig sim --crash`.
    steps.take("crashes at effects of a rollback", || crashes(40, "03-never"))?;
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
