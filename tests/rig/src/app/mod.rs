//! The app under test: a real process that keeps numbered records in a file on its volume and acknowledges each over
//! HTTP only once it is durable.
//!
//! | Version | What it does |
//! |---|---|
//! | `1.x.y` | plain; file format 1; refuses to start on format 2 |
//! | `2.x.y` | migrates format 1 to format 2 in place at start; there is no way back |
//! | `3.0.0` | overwrites part of its data at start and never becomes ready |
//! | `4.0.0` | serves and acknowledges, then turns unready for good after [`AppArgs::fail_after_seconds`] |
//!
//! Other versions do not exist: the kubelet reports their image as not found, and the process refuses to start.

mod server;
mod store;
mod version;

pub use server::{RecordsReport, VersionReport};
pub use store::{Format, Store, StoreError};
pub use version::{AppVersion, Behaviour, UnknownVersion};

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;

/// Settings of one app process; each also comes from the environment, as a container gets them.
#[derive(Debug, Clone, clap::Args)]
pub struct AppArgs {
    /// Version to behave as; the kubelet sets it from the image tag.
    #[arg(long, env = "APP_VERSION")]
    pub app_version: AppVersion,
    /// Directory of the volume that holds the records.
    #[arg(long, env = "DATA_DIR")]
    pub data_dir: PathBuf,
    /// Address to listen on.
    #[arg(long, env = "POD_IP", default_value = "127.0.0.1")]
    pub pod_ip: IpAddr,
    /// Port to listen on.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// Seconds after its start at which version 4.0.0 turns unready.
    #[arg(long, env = "FAIL_AFTER_SECONDS", default_value_t = 2.0)]
    pub fail_after_seconds: f64,
}

/// Runs the app until SIGTERM or SIGINT: the request in flight is finished, later ones are refused.
///
/// # Errors
/// When another instance holds the volume, the data is of a newer format or damaged, or the address is taken.
pub async fn run(args: AppArgs) -> anyhow::Result<()> {
    let behaviour = args.app_version.behaviour();
    let store = Store::open(&args.data_dir, behaviour.format_policy())
        .with_context(|| format!("version {} cannot start", args.app_version))?;
    if behaviour == Behaviour::CorruptsItsData {
        store.corrupt().context("overwriting the data")?;
    }
    server::serve(&args, store).await
}
