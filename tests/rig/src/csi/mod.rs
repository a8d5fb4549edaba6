//! The CSI driver of the rig: `kube-sim`'s folder driver, served over gRPC to the real sidecars.
#![allow(clippy::result_large_err, reason = "the generated service traits answer with tonic's Status, which is large")]

mod driver;
#[cfg(test)]
mod tests;

pub use kube_sim::controllers::volumes::DRIVER;
pub use kube_sim::controllers::volumes::driver::{
    CallName, CallRecord, Control, FailureCode, Refusal, Rule, call_log, control_file, snapshots_dir, volumes_dir,
};

use std::path::PathBuf;

use anyhow::Context;
use bpfman_csi::v1::controller_server::ControllerServer;
use bpfman_csi::v1::identity_server::IdentityServer;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;

/// Settings of the CSI driver.
#[derive(Debug, Clone, clap::Args)]
pub struct CsiArgs {
    /// Unix socket to listen on.
    #[arg(long)]
    pub socket: PathBuf,
    /// Directory for volumes, snapshots, the call log and the control file.
    #[arg(long)]
    pub root: PathBuf,
}

/// Serves the driver until `stop` is cancelled.
///
/// # Errors
/// When the directories or the socket cannot be made.
pub async fn run(args: &CsiArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let driver = driver::Driver::open(&args.root)?;
    // A socket left by a killed predecessor would make the bind fail.
    if args.socket.exists() {
        std::fs::remove_file(&args.socket)?;
    }
    let listener = UnixListener::bind(&args.socket).with_context(|| format!("binding {}", args.socket.display()))?;
    tonic::transport::Server::builder()
        .add_service(IdentityServer::new(driver.clone()))
        .add_service(ControllerServer::new(driver))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned())
        .await
        .context("serving CSI")
}
