//! The ports: everything the core needs from the world, as small traits without any client's types.
//!
//! Every call may be cancelled at any await point and may be repeated: an adapter must find what an earlier,
//! interrupted call made (by deterministic names, recorded UIDs or trailers) instead of making it twice.
//! Every write carries the UID and, where the decision depended on content, the resource version it was decided on.

mod apps;
mod clock;
mod delivery;
mod disposal;
mod git;
mod health;
mod journal;
mod render;
mod snapshots;
mod workloads;

pub use apps::{
    ActiveOperation, AppStore, BlockedVersion, HeadCommit, Neighbour, ReplacedVolume, RestorePointRecord,
    RestorePoints, Rights, VolumeRecord,
};
pub use clock::Clock;
pub use delivery::{
    Applied, Carrier, CarrierKind, Delivery, DeliveryFacts, DeliveryObject, DeliveryRole, Hold, Readiness, SourceFacts,
    Suspension, TemplateMatch,
};
pub use disposal::{CopyRecord, Disposal, Leaving};
pub use git::{Ancestry, CommitRecord, CommitRequest, GitManager, Pin, PinFacts, PinPart, PinValue, Repository};
pub use health::{HealthChecker, HealthReport, HttpCheck};
pub use journal::{JournalStore, Revision, SaveError, Stored};
pub use render::{Piece, Rendered, Renderer, Rendering};
pub use snapshots::{
    Aside, ClaimFacts, ClaimState, ProtectedVolume, ReclaimPolicy, SnapshotManager, SnapshotRequest, SnapshotState,
    VolumeState,
};
pub use workloads::{Holder, PodFact, WorkloadFacts, WorkloadKind, WorkloadState, Workloads};

use serde::{Deserialize, Serialize};

/// Names one object of a cluster, without saying which version of its API is spoken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// API group; empty for the core group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Kind, as in manifests.
    pub kind: String,
    /// Namespace; empty for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectRef {
    /// Names an object.
    pub fn new(group: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self { group: group.into(), kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// The app an operation is about, as every port needs it: who it is, not what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppRef {
    /// Namespace of the `ManagedApp`; also the only namespace whose Secrets may be used for it.
    pub namespace: String,
    /// Name of the `ManagedApp`.
    pub name: String,
    /// UID of the `ManagedApp`.
    pub uid: String,
}

impl std::fmt::Display for AppRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
