//! What is kept about an app between operations: who works on it, what is blocked, what can be restored.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AppRef, ObjectRef, PinValue, ReclaimPolicy};
use crate::Failure;

/// The operation that works on an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveOperation {
    /// Kind of the request.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// A version that was rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockedVersion {
    /// Component.
    pub component: String,
    /// Its version.
    pub version: String,
    /// Why.
    pub reason: String,
    /// The request that was rolled back.
    pub request: String,
    /// Since when.
    pub since: Timestamp,
}

/// Another app of the cluster, as far as it could be about the same things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Neighbour {
    /// Who it is.
    pub app: AppRef,
    /// Its own delivery objects.
    pub own: Vec<ObjectRef>,
    /// The claims that it names, in its own namespace.
    pub claims: Vec<String>,
}

/// One volume of a restore point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRecord {
    /// Name of the claim.
    pub claim: String,
    /// Its UID at that time.
    pub claim_uid: String,
    /// Its manifest, see [`ClaimFacts::manifest`](super::ClaimFacts::manifest).
    pub manifest: Value,
    /// Volume it was bound to.
    pub volume: String,
    /// CSI driver of the volume and of its copy.
    pub driver: String,
    /// The driver's handle of that volume.
    pub volume_handle: String,
    /// The snapshot object.
    pub snapshot: String,
    /// UID of the snapshot object.
    pub snapshot_uid: String,
    /// Name of its content.
    pub content: String,
    /// The driver's handle of the snapshot.
    pub handle: String,
    /// Size to restore to, in bytes.
    pub size: i64,
    /// When it was cut.
    pub cut_at: Option<Timestamp>,
    /// Reclaim policy of the volume before any operation armed it; `None` when it was not recorded.
    pub reclaim_policy: Option<ReclaimPolicy>,
}

/// The head of one repository when a restore point was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeadCommit {
    /// Name of the repository.
    pub repository: String,
    /// The commit.
    pub sha: String,
}

/// A volume that a restore put out of use, with everything that tells it apart from any other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplacedVolume {
    /// The volume.
    pub volume: String,
    /// Its UID; empty when it was not recorded.
    pub uid: String,
    /// The driver's handle of it; empty when it was not recorded.
    pub handle: String,
    /// The claim that it was bound to.
    pub claim: String,
    /// UID of that claim; empty when it was not recorded.
    pub claim_uid: String,
}

/// A set of snapshots of all of an app's volumes, with the versions they belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestorePointRecord {
    /// Name.
    pub name: String,
    /// The app.
    pub app: AppRef,
    /// The operation that took it.
    pub operation: String,
    /// When the first volume was cut.
    pub taken_at: Timestamp,
    /// Whether the app was stopped.
    pub stopped: bool,
    /// The versions the data belongs to.
    pub pins: Vec<PinValue>,
    /// The commits that held them, one per repository.
    pub commits: Vec<HeadCommit>,
    /// The volumes.
    pub volumes: Vec<VolumeRecord>,
    /// Why it must not be used any more; empty while it may.
    pub void: String,
}

/// Keeps what is known about apps.
///
/// - **Flow**: `acquire` and `blocked`, `neighbours` before planning; `block` and `set_current` by the last steps; `release` at the
///   end, or `acquire` for an operation that takes over.
/// - **Guarantees**: at most one active operation per app, by compare-and-swap; `acquire` by the holder is a no-op.
/// - **Assumptions**: one store per cluster.
/// - **Cancellation**: any call may be dropped and repeated.
/// - **Errors**: `api-*` (retryable).
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait AppStore: Send + Sync {
    /// Makes `operation` the active one if there is none, or if the active one is `instead_of`; says which one is active afterwards.
    async fn acquire(
        &self,
        app: &AppRef,
        operation: &ActiveOperation,
        instead_of: Option<String>,
    ) -> Result<ActiveOperation, Failure>;
    /// Lets go, if `operation` is the active one.
    async fn release(&self, app: &AppRef, operation: &str) -> Result<(), Failure>;
    /// The versions that may not be tried again.
    async fn blocked(&self, app: &AppRef) -> Result<Vec<BlockedVersion>, Failure>;
    /// Blocks versions; those already blocked stay as they are.
    async fn block(&self, app: &AppRef, versions: &[BlockedVersion]) -> Result<(), Failure>;
    /// Every other app of the cluster.
    async fn neighbours(&self, app: &AppRef) -> Result<Vec<Neighbour>, Failure>;
    /// Records the versions the app runs now.
    async fn set_current(&self, app: &AppRef, pins: &[PinValue]) -> Result<(), Failure>;
}

/// Keeps restore points.
///
/// - **Flow**: `save` once every snapshot is proven; `get` for a rollback; `replaced` when one has swapped volumes; `void` when its
///   data was overtaken.
/// - **Guarantees**: a saved record is immutable but for `void`; the volumes that `replaced` notes are kept beside it.
/// - **Assumptions**, **Cancellation**: as [`AppStore`].
/// - **Errors**: `api-*` (retryable).
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait RestorePoints: Send + Sync {
    /// Creates the record; a no-op when it is there with the same operation.
    async fn save(&self, record: &RestorePointRecord) -> Result<(), Failure>;
    /// The record, if there is one.
    async fn get(&self, app: &AppRef, name: &str) -> Result<Option<RestorePointRecord>, Failure>;
    /// Marks it unusable, with the reason.
    async fn void(&self, app: &AppRef, name: &str, reason: &str) -> Result<(), Failure>;
    /// Notes the volumes that a restore replaced, to be kept for a while.
    async fn replaced(&self, app: &AppRef, name: &str, volumes: &[ReplacedVolume]) -> Result<(), Failure>;
}

/// Says what this process may not do.
///
/// - **Flow**: asked once, before anything is planned.
/// - **Guarantees**: read-only. A right that could not be asked about counts as missing.
/// - **Assumptions**: rights do not shrink while an operation runs; when they do, its steps fail with `api-forbidden`.
/// - **Cancellation**: read-only.
/// - **Errors**: `api-*` (retryable).
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Rights: Send + Sync {
    /// What is missing for operations on `app` whose delivery objects live in `namespaces`, as `verb resource in namespace`.
    async fn missing(&self, app: &AppRef, namespaces: &[String]) -> Result<Vec<String>, Failure>;
}
