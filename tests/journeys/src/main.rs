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
mod world;
mod writer;

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};

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
                ExitCode::FAILURE
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
            chosen.iter().filter(|journey| !on_a_simulation(journey, args.seed)).count()
        }
    };
    println!("{} passed, {failed} failed", chosen.len() - failed);
    if failed == 0 && !chosen.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a world under virtual time: nothing waits, and everything is in one thread.
fn virtual_time<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(work)
}

/// How many failed.
fn on_real_servers(chosen: &[&Journey]) -> usize {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let started = async { World::install(Box::new(estate::RealEstate::start().await?)).await };
        let world = match started.await {
            Ok(world) => world,
            Err(error) => {
                eprintln!("error: the rig did not start: {error:#}");
                return chosen.len();
            }
        };
        let mut failed = 0;
        for journey in chosen {
            failed += usize::from(!take(journey, &world).await);
        }
        failed
    })
}

fn on_a_simulation(journey: &Journey, seed: u64) -> bool {
    let passed = virtual_time(async {
        let world = World::install(Box::new(estate::SimEstate::start(seed, 3, None).await?)).await?;
        Ok(take(journey, &world).await)
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
