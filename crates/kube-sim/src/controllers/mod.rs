//! Stand-ins for controllers that cannot be had, written as ordinary `kube` clients: they run against a real API server
//! and, under virtual time, against the one of this crate.
//!
//! [`flux_source`] and [`flux_chart`] play Flux's source-controller, [`flux_kustomize`] its kustomize-controller, [`flux_helm`]
//! its helm-controller. They copy what an observer can tell from outside: conditions and their reasons, observed generations, handled requests, artifacts, release
//! history, and the traps (a suspended object still acknowledges a request; a reconcile in flight is not interrupted by a
//! suspension). Reconciles of one object are serialised, and each works on the object as it was read at its start.
//! [`workloads`] plays the controllers of Deployments, StatefulSets, Jobs and their like, [`pods`] scheduler and kubelet, and
//! [`volumes`] whoever looks after claims, volumes and snapshots.

mod artifact;
mod charts;
mod conditions;
mod drive;
pub mod flux_chart;
mod flux_crds;
pub mod flux_helm;
pub mod flux_kustomize;
mod flux_objects;
pub mod flux_source;
mod git_fetch;
mod git_remote;
mod helm_action;
mod helm_backend;
mod helm_cli;
mod helm_sim;
mod helm_state;
mod helm_status;
pub mod helm_storage;
mod kstatus;
mod objects;
pub mod pods;
pub mod volumes;
mod watched;
pub mod workloads;

pub use artifact::{Artifact, ArtifactStore, MemoryArtifacts, pack, unpack};
pub use charts::{ChartMetadata, ChartRegistry, chart_metadata};
pub use flux_crds::flux_crds;
pub use git_remote::{GitRemote, LoggedCommit};
pub use helm_backend::{HelmBackend, ReleaseRequest};
pub use helm_cli::HelmCli;
pub use helm_sim::HelmSim;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// Where the stand-ins take the present time from: the wall clock on a rig, virtual time in a simulation.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Why a reconcile did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The API server refused.
    #[error("the API server refused: {0}")]
    Api(#[from] kube::Error),
    /// An object's spec cannot be read.
    #[error("{object}: spec cannot be read: {source}")]
    Spec {
        /// `kind namespace/name`.
        object: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// What should be fetched, found or unpacked is not there or not well formed.
    #[error("{0}")]
    Source(String),
    /// Helm did not do what it was asked to.
    #[error("{0}")]
    Helm(String),
    /// The controller waits for something that no watch reports.
    #[error("waiting: {what}")]
    Waiting {
        /// What for.
        what: String,
        /// When to look again.
        again: Duration,
    },
}

impl Error {
    /// Stable name of the kind of error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Api(_) => "api",
            Self::Spec { .. } => "spec",
            Self::Source(_) => "source",
            Self::Helm(_) => "helm",
            Self::Waiting { .. } => "waiting",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Api(_) => "look whether the CRDs are installed and the client may write status",
            Self::Spec { .. } => {
                "the stand-in knows the fields of source.toolkit.fluxcd.io/v1 and helm.toolkit.fluxcd.io/v2"
            }
            Self::Source(_) => "look at the source object's conditions",
            Self::Helm(_) => "look at the release with `helm history`",
            Self::Waiting { .. } => "nothing: the stand-in looks again by itself",
        }
    }

    /// Whether the stand-in tries again by itself.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        !matches!(self, Self::Spec { .. })
    }
}
