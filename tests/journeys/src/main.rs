//! Journeys: what a person does and sees, end to end, on real servers.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test program talks to whoever runs it")]
#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program fails loudly"
)]

mod estate;
mod fixture;
mod journeys;
mod repo;
mod request;
mod world;
mod writer;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

/// Which journeys, on which rig.
#[derive(Parser)]
struct Args {
    /// What to run on: `real`.
    #[arg(long, default_value = "real")]
    rig: String,
    /// Crash at every effect: needs the simulation, which is not there yet.
    #[arg(long)]
    crash: bool,
    /// Only list the journeys.
    #[arg(long)]
    list: bool,
    /// Parts of names of journeys; all when none is given.
    names: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let chosen: Vec<&journeys::Journey> = journeys::ALL
        .iter()
        .filter(|journey| args.names.is_empty() || args.names.iter().any(|name| journey.name.contains(name.as_str())))
        .collect();
    if args.list {
        chosen.iter().for_each(|journey| println!("{}", journey.name));
        return ExitCode::SUCCESS;
    }
    if args.rig != "real" || args.crash {
        eprintln!("error: journeys run on the real rig only, so far: --rig real, without --crash");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let failed = runtime.block_on(async {
        let started = async { world::World::install(Box::new(estate::RealEstate::start().await?)).await };
        let world = match started.await {
            Ok(world) => world,
            Err(error) => {
                eprintln!("error: the rig did not start: {error:#}");
                return usize::MAX;
            }
        };
        let mut failed = 0;
        for journey in &chosen {
            let began = Instant::now();
            let result = (journey.run)(&world).await;
            let took = began.elapsed().as_secs_f64();
            match result {
                Ok(report) => println!("journey {} ... ok ({took:.1} s) {report}", journey.name),
                Err(error) => {
                    failed += 1;
                    println!("journey {} ... FAILED ({took:.1} s): {error:#}", journey.name);
                    world.explain().await;
                }
            }
        }
        println!("{} passed, {failed} failed", chosen.len() - failed);
        failed
    });
    if failed == 0 && !chosen.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
