//! Serves an empty cluster on loopback and prints a kubeconfig for it: `cargo run -p kube-sim --example serve > /tmp/config`,
//! then `KUBECONFIG=/tmp/config kubectl get namespaces`.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use kube_sim::{Config, Identity, SimServer};
use std::time::Duration;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let server = SimServer::new(Config { latency: Duration::ZERO, ..Config::default() });
    let listening = server.listen_as(Identity::admin()).await?;
    print!("{}", listening.kubeconfig());
    std::future::pending().await
}
