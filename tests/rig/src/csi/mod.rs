//! A CSI driver whose volumes and snapshots are directories, and that misbehaves when told to.
//!
//! The control plane half only: nothing is mounted, the small kubelet and the tests use a volume's directory directly.
//! A volume's handle is its name, and its bytes are `<root>/volumes/<handle>`; a snapshot is a full copy under
//! `<root>/snapshots/<handle>`. Every call is one line of `<root>/calls.jsonl`; `<root>/control.json` ([`Control`]) changes
//! the behaviour of the calls that follow.
#![allow(clippy::result_large_err, reason = "the generated service traits answer with tonic's Status, which is large")]

mod control;
mod driver;
mod log;
mod store;
#[cfg(test)]
mod tests;

pub use control::{CallName, Control, FailureCode, Rule};
pub use log::CallRecord;

use std::path::{Path, PathBuf};

use anyhow::Context;
use bpfman_csi::v1::controller_server::ControllerServer;
use bpfman_csi::v1::identity_server::IdentityServer;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;

/// Name of the driver, as in CSIDriver objects and storage classes.
pub const DRIVER: &str = "csi.rig.windlass.dev";

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

/// Where the driver keeps a volume's bytes: one directory per handle.
#[must_use]
pub fn volumes_dir(root: &Path) -> PathBuf {
    root.join("volumes")
}

/// Where the driver keeps a snapshot's bytes: one directory per handle.
#[must_use]
pub fn snapshots_dir(root: &Path) -> PathBuf {
    root.join("snapshots")
}

/// The log of all calls, one [`CallRecord`] per line.
#[must_use]
pub fn call_log(root: &Path) -> PathBuf {
    root.join("calls.jsonl")
}

/// The file that [`Control`] is read from at each call; absent means well-behaved.
#[must_use]
pub fn control_file(root: &Path) -> PathBuf {
    root.join("control.json")
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
