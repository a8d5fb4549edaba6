//! Flux: the real kustomize-controller, and source- and helm-controller, real or stand-ins.
//!
//! The stand-ins take the options of the real ones, so that only the program differs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::binaries::Binaries;
use crate::cluster::Cluster;
use crate::ports::free_port;
use crate::process::Spec;
use crate::ready::Ready;

/// Retries as quick as a test wants them; Flux waits between 0.75 s and 15 min.
const RETRIES: [&str; 2] = ["--min-retry-delay=250ms", "--max-retry-delay=5s"];

fn controller(name: &str, program: &Path, cluster: &Cluster, dir: &Path) -> anyhow::Result<(Spec, Ready)> {
    let (health, metrics) = (free_port()?, free_port()?);
    let scratch = dir.join(name);
    fs::create_dir_all(&scratch)?;
    let spec = Spec::new(name, program)
        .arg(format!("--health-addr=127.0.0.1:{health}"))
        .arg(format!("--metrics-addr=127.0.0.1:{metrics}"))
        .args(["--events-addr=", "--enable-leader-election=false", "--watch-all-namespaces=true"])
        .args(["--kube-api-qps=200", "--kube-api-burst=400"])
        .args(RETRIES)
        .env("KUBECONFIG", cluster.kubeconfig(name).to_string_lossy())
        .env("RUNTIME_NAMESPACE", "flux-system")
        .env("HOME", scratch.to_string_lossy())
        .env("TMPDIR", scratch.to_string_lossy());
    Ok((spec, Ready::Http(format!("http://127.0.0.1:{health}/readyz"))))
}

pub(crate) fn kustomize_controller(
    cluster: &Cluster,
    binaries: &Binaries,
    dir: &Path,
) -> anyhow::Result<(Spec, Ready)> {
    let name = "kustomize-controller";
    let (spec, ready) = controller(name, &binaries.server(name), cluster, dir)?;
    Ok((spec.arg("--requeue-dependency=1s"), ready))
}

pub(crate) fn source_controller(cluster: &Cluster, rig: &Path, dir: &Path) -> anyhow::Result<(Spec, Ready)> {
    let name = "source-controller";
    let real = from_environment("WINDLASS_TESTBED_SOURCE_CONTROLLER")?;
    let (spec, ready) = controller(name, real.as_deref().unwrap_or(rig), cluster, dir)?;
    let spec = if real.is_some() { spec } else { spec.first_arg(name) };
    let storage = free_port()?;
    let spec = spec
        .arg(format!("--storage-path={}", dir.join(name).display()))
        .arg(format!("--storage-addr=127.0.0.1:{storage}"))
        .arg(format!("--storage-adv-addr=127.0.0.1:{storage}"));
    Ok((spec, ready))
}

pub(crate) fn helm_controller(
    cluster: &Cluster,
    binaries: &Binaries,
    rig: &Path,
    dir: &Path,
) -> anyhow::Result<(Spec, Ready)> {
    let name = "helm-controller";
    let real = from_environment("WINDLASS_TESTBED_HELM_CONTROLLER")?;
    let (spec, ready) = controller(name, real.as_deref().unwrap_or(rig), cluster, dir)?;
    let spec =
        if real.is_some() { spec } else { spec.first_arg(name).arg(format!("--helm={}", binaries.helm().display())) };
    Ok((spec, ready))
}

/// The path of a real binary; a wrong one is an error, because a stand-in in its place would prove nothing.
fn from_environment(variable: &str) -> anyhow::Result<Option<PathBuf>> {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    if !path.is_file() {
        bail!("{variable} names {}, which is no file", path.display());
    }
    Ok(Some(path))
}
