//! `windlass-rig`: the parts of the rig that are programs of our own, and the commands to build, start and stop it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a command found is its output")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use windlass_rig::{Binaries, app, csi, kubelet, standins, testbed};

/// The real rig: real servers on loopback, and what plays the parts no server can be had for.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the servers, unless they are in the cache.
    Build,
    /// Start a rig that stays until `down`.
    Up,
    /// Stop the rig that `up` started.
    Down,
    /// Print how to enter the rig that is up, for a shell.
    Env,
    /// Run a rig in the foreground; what `up` does in the background.
    Supervise,
    /// The CSI driver.
    Csi(csi::CsiArgs),
    /// The small kubelet.
    Kubelet(kubelet::KubeletArgs),
    /// The app under test.
    App(app::AppArgs),
    /// The stand-in for source-controller.
    SourceController(standins::SourceArgs),
    /// The stand-in for helm-controller.
    HelmController(standins::HelmArgs),
    /// The post-renderer of the helm stand-in.
    HelmLabels(standins::LabelArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")))
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    // Set only when something else in this process has chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Cli::parse().command {
        Command::Build => {
            let binaries = tokio::task::spawn_blocking(Binaries::build).await??;
            let folder: Option<PathBuf> = binaries.helm().parent().map(Into::into);
            println!("The rig's servers are in {}.", folder.unwrap_or_default().display());
        }
        Command::Up => println!("{}", testbed::up()?),
        Command::Down => println!("{}", testbed::down()?),
        Command::Env => print!("{}", testbed::env()?),
        Command::Supervise => testbed::supervise().await?,
        Command::Csi(args) => csi::run(&args, until_told()?).await?,
        Command::Kubelet(args) => kubelet::run(args, Client::try_default().await?, until_told()?).await?,
        Command::App(args) => app::run(args).await?,
        Command::SourceController(args) => standins::source_controller(args, until_told()?).await?,
        Command::HelmController(args) => standins::helm_controller(args, until_told()?).await?,
        Command::HelmLabels(args) => standins::helm_labels(&args)?,
    }
    Ok(())
}

/// Cancelled by SIGTERM and SIGINT.
fn until_told() -> anyhow::Result<CancellationToken> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}
