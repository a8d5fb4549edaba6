//! The CSI driver with its sidecars, and the snapshot controller.

use std::path::{Path, PathBuf};

use crate::binaries::Binaries;
use crate::cluster::Cluster;
use crate::process::Spec;
use crate::ready::Ready;

/// Retries as quick as a test wants them; real installations wait longer.
const RETRIES: [&str; 4] =
    ["--retry-interval-start=250ms", "--retry-interval-max=5s", "--kube-api-qps=200", "--kube-api-burst=400"];

/// Where the driver works.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) root: PathBuf,
    socket: PathBuf,
}

impl Storage {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { root: dir.join("csi"), socket: dir.join("csi.sock") }
    }

    pub(crate) fn driver(&self, rig: &Path) -> (Spec, Ready) {
        let spec = Spec::new("csi", rig)
            .arg("csi")
            .arg(format!("--socket={}", self.socket.display()))
            .arg(format!("--root={}", self.root.display()));
        (spec, Ready::Socket(self.socket.clone()))
    }

    pub(crate) fn controllers(&self, cluster: &Cluster, binaries: &Binaries) -> [(Spec, Ready); 3] {
        let sidecar = |name: &str| {
            cluster
                .component(name, binaries)
                .arg(format!("--csi-address={}", self.socket.display()))
                .args(["--leader-election=false", "--v=2"])
                .args(RETRIES)
        };
        let provisioner = sidecar("csi-provisioner").args(["--feature-gates=Topology=false", "--default-fstype=ext4"]);
        let snapshotter = sidecar("csi-snapshotter");
        let controller =
            cluster.component("snapshot-controller", binaries).args(["--leader-election=false", "--v=2"]).args(RETRIES);
        [(provisioner, Ready::Started), (snapshotter, Ready::Started), (controller, Ready::Started)]
    }
}
