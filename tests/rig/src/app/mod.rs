//! The app under test as a real process: it acknowledges each record over HTTP only once it is durable. What its versions do is
//! said in [`windlass_playground::app`]; version 4.0.0 turns unready after [`AppArgs::fail_after_seconds`].

mod server;

pub use server::{RecordsReport, VersionReport};
pub use windlass_playground::app::{AppVersion, Behaviour, Format, Store, StoreError, UnknownVersion};

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
