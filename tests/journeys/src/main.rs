//! Journeys: what a person does and sees, end to end, on real servers and on a simulation.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test program talks to whoever runs it")]
#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program fails loudly"
)]

mod crash;
mod estate;
mod fixture;
mod journeys;
mod outage;
mod repo;
mod request;
mod stop;
mod world;
mod writer;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};

use crate::crash::Rules;
use crate::journeys::Journey;
use crate::world::World;

/// Which journeys, on which rig.
#[derive(Parser)]
struct Args {
    /// What to run on.
    #[arg(long, value_enum, default_value_t = Rig::Real)]
    rig: Rig,
    /// Crash the operator at every effect, on the simulation.
    #[arg(long)]
    crash: bool,
    /// With `--crash`: only every so many crash points, for a quick look.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    every: u16,
    /// What chance comes from on the simulation.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Only list the journeys.
    #[arg(long)]
    list: bool,
    /// Parts of names of journeys; all when none is given.
    names: Vec<String>,
}

/// What journeys run on.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rig {
    /// The simulation, in this process and under virtual time: a fresh one for each journey.
    Sim,
    /// Real servers: one rig for all journeys.
    Real,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // Nobody else in this process has chosen one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    stop::listen();
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .init();
    }
    if args.crash {
        if args.rig == Rig::Real {
            eprintln!("error: only the simulation can crash the operator at every effect: --rig sim");
            return ExitCode::FAILURE;
        }
        return match crash::run(&args.names, args.seed, args.every.into()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                stop::code().map_or(ExitCode::FAILURE, ExitCode::from)
            }
        };
    }
    let wanted = |journey: &&Journey| {
        args.names.is_empty() || args.names.iter().any(|name| journey.name.contains(name.as_str()))
    };
    let chosen: Vec<&Journey> = journeys::ALL.iter().filter(wanted).collect();
    if args.list {
        chosen.iter().for_each(|journey| println!("{}", journey.name));
        return ExitCode::SUCCESS;
    }
    let failed = match args.rig {
        Rig::Real => on_real_servers(&chosen),
        Rig::Sim => {
            println!("seed {}", args.seed);
            let passes = |journey: &Journey| stop::code().is_none() && on_a_simulation(journey, args.seed);
            chosen.iter().filter(|journey| !passes(journey)).count()
        }
    };
    if let Some(code) = stop::code() {
        eprintln!("error: told to end");
        return ExitCode::from(code);
    }
    println!("{} passed, {failed} failed", chosen.len() - failed);
    if failed == 0 && !chosen.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a world under virtual time: nothing waits, and everything is in one thread.
fn virtual_time<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(stop::unless_told(work))
}

/// How many failed.
fn on_real_servers(chosen: &[&Journey]) -> usize {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let taken = runtime.block_on(stop::unless_told(async {
        let started = async { World::install(Box::new(estate::RealEstate::start().await?)).await };
        let world = started.await.context("the rig did not start")?;
        let mut failed = 0;
        for journey in chosen {
            failed += usize::from(!take(journey, &world).await);
        }
        Ok(failed)
    }));
    taken.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        chosen.len()
    })
}

fn on_a_simulation(journey: &Journey, seed: u64) -> bool {
    let passed = virtual_time(async {
        let estate = estate::SimEstate::start(seed, 3, None).await?;
        let rules = Rules::watch(estate.server(), estate.pushes(), estate.runs_of_pods());
        let world = World::install(Box::new(estate)).await?;
        let passed = take(journey, &world).await;
        let (broken, _) = rules.verdict();
        // What a success must look like is each journey's to say: some have two upgrades, or somebody who pushes beside ours. And the
        // refusals put claims and volumes beside the app's that it does not have, and take them away again.
        let counts = |rule: &String| !rule.starts_with("3:") && journey.name != "07-refusals";
        let broken: Vec<String> = broken.into_iter().filter(counts).collect();
        if passed && !broken.is_empty() {
            println!("journey {} ... FAILED: rules were broken: {broken:#?}", journey.name);
        }
        Ok(passed && broken.is_empty())
    });
    passed.unwrap_or_else(|error| {
        println!("journey {} ... FAILED: the simulation did not start: {error:#}", journey.name);
        false
    })
}

/// Runs one journey and says how it went.
async fn take(journey: &Journey, world: &World) -> bool {
    let began = Instant::now();
    let result = (journey.run)(world).await;
    let took = began.elapsed().as_secs_f64();
    match result {
        Ok(report) => println!("journey {} ... ok ({took:.1} s) {report}", journey.name),
        Err(error) => {
            println!("journey {} ... FAILED ({took:.1} s): {error:#}", journey.name);
            world.explain().await;
            return false;
        }
    }
    true
}
