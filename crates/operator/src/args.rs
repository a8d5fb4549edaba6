//! The operator's command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use tracing_subscriber::EnvFilter;

use crate::manifests::{NAMESPACE, Part};

/// Runs upgrade and rollback requests.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "windlass-operator", version)]
pub struct Args {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The namespace of the leader election lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = NAMESPACE)]
    pub namespace: String,
    /// The name of this instance in the lease.
    #[arg(long, env = "POD_NAME", default_value = "windlass-operator")]
    pub identity: String,
    /// How many requests of each kind are worked on at the same moment. One that waits leaves its place to others, so that more
    /// operations than this may be under way.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// Where bare copies of repositories are kept; may be lost at any time.
    #[arg(long, env = "WINDLASS_GIT_CACHE", default_value = "/tmp/windlass-git")]
    pub git_cache: PathBuf,
    // When embedded, `None` serves nothing.
    /// Where liveness, readiness and metrics are served.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: Option<SocketAddr>,
    /// Namespaces other than the app's own whose delivery objects may be read and suspended, and where Helm may store releases.
    #[arg(long, value_delimiter = ',', default_value = "flux-system")]
    pub shared_namespaces: Vec<String>,
    /// Allow `file://` repositories. Whoever may write a ManagedApp can then read and write those of this machine.
    #[arg(long)]
    pub allow_file_repositories: bool,
    /// The helm program that renders the charts of targets, as a path or looked for in PATH. Without it, what they would
    /// deliver is not known before they are released.
    #[arg(long, value_name = "PATH", default_value = "helm")]
    pub helm: PathBuf,
    /// How long the lease lasts without being renewed, in seconds.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=300))]
    pub lease_seconds: u16,
    /// What is logged, as a tracing filter: `info`, or `info,kube=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info", value_parser = log_filter)]
    pub log: String,
}

/// Refuses what is no filter, instead of logging something else than was asked for.
fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// What the program does besides running.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Print what installs the operator.
    Manifests {
        /// Which part; by default all objects, for `kubectl apply -f -`.
        part: Option<Part>,
        /// Write every part as a file of this folder, and print nothing.
        #[arg(long, value_name = "FOLDER", conflicts_with = "part")]
        into: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_log_filter_that_cannot_be_read_is_refused() {
        let log = |filter: &str| Args::try_parse_from(["windlass-operator", "--log", filter]).map(|args| args.log);
        assert_eq!(log("info,kube=debug").unwrap(), "info,kube=debug");
        assert_eq!(log("info,kube=loud").unwrap_err().kind(), clap::error::ErrorKind::ValueValidation);
    }
}
