//! What a rig consists of.

use std::path::PathBuf;

use rand::RngExt as _;
use rand::rngs::StdRng;

/// A user of the API server, known by a bearer token.
#[derive(Debug, Clone)]
pub struct User {
    /// Token to present.
    pub token: String,
    /// Name, as in RBAC bindings and the audit log.
    pub name: String,
    /// Groups, as in RBAC bindings.
    pub groups: Vec<String>,
}

impl User {
    /// A user with an unguessable token.
    #[must_use]
    pub fn new(name: &str, groups: &[&str]) -> Self {
        Self { token: secret(), name: name.to_owned(), groups: groups.iter().map(|&group| group.to_owned()).collect() }
    }
}

/// An unguessable word.
pub(crate) fn secret() -> String {
    format!("{:032x}", rand::make_rng::<StdRng>().random::<u128>())
}

/// Settings of [`crate::Rig::start`]; the default is the whole rig.
#[derive(Debug, Clone)]
pub struct Options {
    /// Users besides the administrator; the API server learns of them only at its start.
    pub users: Vec<User>,
    /// Nodes of KWOK, tainted `kwok.x-k8s.io/node=fake:NoSchedule`.
    pub fake_nodes: u32,
    /// The CSI driver, its sidecars and the snapshot controller.
    pub storage: bool,
    /// PostgreSQL and Gitea.
    pub git_host: bool,
    /// kustomize-controller.
    pub kustomize_controller: bool,
    /// source-controller and helm-controller: real ones where `WINDLASS_TESTBED_SOURCE_CONTROLLER` and
    /// `WINDLASS_TESTBED_HELM_CONTROLLER` name binaries, stand-ins otherwise.
    pub source_and_helm_controllers: bool,
    /// The small kubelet, with one node.
    pub kubelet: bool,
    /// More arguments for the kubelet, such as `--image=repository=/path/to/program`.
    pub kubelet_args: Vec<String>,
    /// The `windlass-rig` binary, which the CSI driver, the kubelet and the stand-ins are subcommands of. By default
    /// `WINDLASS_RIG_BINARY`, this very program, or the one next to it.
    pub rig_binary: Option<PathBuf>,
    /// Leave the folder behind for a look at the logs.
    pub keep_folder: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            users: Vec::new(),
            fake_nodes: 1,
            storage: true,
            git_host: true,
            kustomize_controller: true,
            source_and_helm_controllers: true,
            kubelet: true,
            kubelet_args: Vec::new(),
            rig_binary: None,
            keep_folder: std::env::var_os("WINDLASS_RIG_KEEP").is_some(),
        }
    }
}
