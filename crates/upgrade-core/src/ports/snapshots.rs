//! Volumes: find the claims, protect, snapshot, prove, restore aside, swap.
//!
//! Each call has at most one effect; the order in which they are made, and what must be true before each, is the
//! workflow's business (`crate::app`).

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::AppRef;
use crate::Failure;

/// What becomes of a volume when its claim goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReclaimPolicy {
    /// The volume and its data stay.
    Retain,
    /// They are deleted.
    Delete,
}

/// A claim of the app and the volume behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimFacts {
    /// Namespace of the claim.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Everything needed to make it again: `{metadata: {labels, annotations}, spec}`, without server-side fields,
    /// `volumeName`, `dataSource` and binding annotations.
    pub manifest: Value,
    /// Name of the bound volume.
    pub volume: String,
    /// UID of the volume.
    pub volume_uid: String,
    /// Its reclaim policy as found.
    pub reclaim_policy: ReclaimPolicy,
    /// CSI driver; empty when the volume is not a CSI volume.
    pub driver: String,
    /// The driver's handle of the volume.
    pub handle: String,
    /// Capacity of the volume, in bytes.
    pub capacity: i64,
    /// The snapshot class that fits the volume's driver.
    pub snapshot_class: Option<String>,
    /// How the claim was found: `named`, `mounted by StatefulSet notes`, `template data of StatefulSet notes`.
    pub found_by: String,
    /// What forbids snapshotting or restoring it, by refusal code with an explanation (`claim-not-bound`, `not-csi`,
    /// `no-snapshot-class`, `claim-terminating`, `owned-by-operator`, `shared-handle`, `unready-snapshot`, `force-annotation`, ...).
    pub refusals: Vec<(String, String)>,
}

/// A snapshot to be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotRequest {
    /// Namespace, the claim's.
    pub namespace: String,
    /// Deterministic name, from the operation and the claim.
    pub name: String,
    /// The claim.
    pub claim: String,
    /// UID the claim must still have.
    pub claim_uid: String,
    /// The snapshot class.
    pub class: String,
    /// The operation, written as a label.
    pub operation: String,
    /// The restore point it belongs to, written as a label.
    pub restore_point: String,
}

/// A snapshot, read from both of its objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotState {
    /// UID of the snapshot object.
    pub uid: String,
    /// The operation in its label: anything else is not ours.
    pub operation: String,
    /// Name of its content; `None` until there is one.
    pub content: Option<String>,
    /// The driver's handle of the snapshot.
    pub handle: Option<String>,
    /// When the storage cut the image: everything written before is in, everything after is not.
    pub cut_at: Option<Timestamp>,
    /// Smallest volume it restores to, in bytes.
    pub restore_size: Option<i64>,
    /// `readyToUse`, as the object says; absent is `false`.
    pub ready: bool,
    /// `None` when snapshot and content name each other by name, namespace and UID, driver and source handle; else what differs.
    pub mismatch: Option<String>,
    /// Whether the content survives the deletion of the snapshot object.
    pub retained: bool,
    /// The last error the driver reported, in its words.
    pub error: Option<String>,
    /// Whether that error will not pass by itself, as far as its gRPC code tells.
    pub error_is_final: bool,
}

/// A restored copy beside the original, behind a helper claim of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Aside {
    /// Namespace.
    pub namespace: String,
    /// Deterministic name of the helper claim.
    pub helper: String,
    /// The snapshot object it is restored from.
    pub snapshot: String,
    /// The claim whose data it is; its manifest gives class, modes and size.
    pub claim: String,
    /// The claim's manifest, as recorded.
    pub manifest: Value,
    /// Smallest size to ask for, in bytes.
    pub size: i64,
    /// The operation, written as a label.
    pub operation: String,
}

/// A volume by name, with the UID it must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProtectedVolume {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

/// A claim now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimState {
    /// UID.
    pub uid: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Phase: `Pending`, `Bound`, `Lost`.
    pub phase: String,
    /// The volume it names.
    pub volume: Option<String>,
    /// The operation in its label, if any.
    pub operation: Option<String>,
}

/// A volume now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeState {
    /// UID.
    pub uid: String,
    /// Its reclaim policy.
    pub reclaim_policy: ReclaimPolicy,
    /// Phase: `Available`, `Bound`, `Released`, `Failed`.
    pub phase: String,
    /// `(namespace, name, uid)` of the claim it is reserved for or bound to.
    pub claim: Option<(String, String, Option<String>)>,
    /// CSI driver.
    pub driver: String,
    /// The driver's handle.
    pub handle: String,
    /// Capacity in bytes.
    pub capacity: i64,
}

/// Volumes and their snapshots.
///
/// - **Flow**: `claims`; `set_policy` to Retain; `snapshot`, `snapshot_state` until it is ready, `set_content_policy` to Retain. For a
///   restore `restore_aside`, `claim` and `volume` until it is bound, `set_policy` of the restored volume to Retain, `drop_claim` of
///   the helper, `reserve`, `drop_claim` of the original, `recreate`, `claim` until it is bound. To undo: `drop_snapshot` of a
///   snapshot, `discard` of a restored volume.
/// - **Guarantees**: a write names the UID it is meant for and is refused by the server for any other object, and a policy is changed
///   only on the object as it was just read; nothing without our
///   label is ever deleted, except by `drop_claim` of an app's claim, which refuses unless its volume is on Retain *in the same
///   read*.
/// - **Assumptions**: a CSI driver with the external snapshotter.
/// - **Cancellation**: any call may be dropped and repeated: names are deterministic.
/// - **Errors**: `*-gone`, `*-replaced`, `not-ours`, `not-retained` (permanent), `changed-meanwhile` and `api-*` (retryable).
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait SnapshotManager: Send + Sync {
    /// Facts about the claims named, each once; one that does not exist is reported with the refusal `claim-missing`. `names` are
    /// pairs of a claim's name and how it was found, for [`ClaimFacts::found_by`]. `class` is the snapshot class to use; `None` for
    /// the default one of each volume's driver.
    async fn claims(
        &self,
        app: &AppRef,
        namespace: &str,
        names: &[(String, String)],
        class: Option<String>,
    ) -> Result<Vec<ClaimFacts>, Failure>;
    /// Sets a volume's reclaim policy.
    async fn set_policy(&self, volume: &ProtectedVolume, policy: ReclaimPolicy) -> Result<(), Failure>;
    /// Creates the snapshot object.
    async fn snapshot(&self, request: &SnapshotRequest) -> Result<(), Failure>;
    /// The snapshot; `None` when there is none of that name.
    async fn snapshot_state(&self, namespace: &str, name: &str) -> Result<Option<SnapshotState>, Failure>;
    /// Sets the deletion policy of a snapshot's content.
    async fn set_content_policy(&self, content: &str, policy: ReclaimPolicy) -> Result<(), Failure>;
    /// Deletes a snapshot of ours by its UID.
    async fn drop_snapshot(&self, namespace: &str, name: &str, uid: &str) -> Result<(), Failure>;
    /// Creates the helper claim.
    async fn restore_aside(&self, aside: &Aside) -> Result<(), Failure>;
    /// A claim; `None` when there is none of that name.
    async fn claim(&self, namespace: &str, name: &str) -> Result<Option<ClaimState>, Failure>;
    /// A volume; `None` when there is none of that name.
    async fn volume(&self, name: &str) -> Result<Option<VolumeState>, Failure>;
    /// Deletes a claim by its UID, if its volume is on Retain in the same read; a helper claim of ours (by its label) also
    /// when its volume is not, or when it has none yet: it only ever holds a copy.
    async fn drop_claim(&self, namespace: &str, name: &str, uid: &str) -> Result<(), Failure>;
    /// Reserves a Released (or reserved) volume for a claim that does not exist yet, by name without UID.
    async fn reserve(&self, volume: &ProtectedVolume, namespace: &str, claim: &str) -> Result<(), Failure>;
    /// Gives up a restored copy that no claim uses: points it at its (deleted) helper claim again and sets Delete, in one write,
    /// so that the cluster reclaims it. Refused (`volume-in-use`) when it is bound.
    async fn discard(
        &self,
        volume: &ProtectedVolume,
        namespace: &str,
        helper: &str,
        helper_uid: &str,
    ) -> Result<(), Failure>;
    /// Creates the claim from its recorded manifest, naming `volume` and no data source.
    async fn recreate(
        &self,
        namespace: &str,
        name: &str,
        manifest: &Value,
        volume: &str,
        operation: &str,
    ) -> Result<(), Failure>;
}
