//! The end of copies and of volumes that are not needed any more. The only port that destroys data on purpose.

use async_trait::async_trait;

use super::{ProtectedVolume, VolumeRecord};
use crate::Failure;

/// One copy, as a restore point recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRecord {
    /// Namespace of the snapshot.
    pub namespace: String,
    /// The snapshot object.
    pub snapshot: String,
    /// Its UID.
    pub snapshot_uid: String,
    /// Name of its content; empty when it was never bound.
    pub content: String,
    /// The driver's handle of the copy; empty when it was never made.
    pub handle: String,
    /// The CSI driver.
    pub driver: String,
}

impl CopyRecord {
    /// The copy of one volume of a restore point.
    pub fn of(namespace: &str, volume: &VolumeRecord) -> Self {
        Self {
            namespace: namespace.to_owned(),
            snapshot: volume.snapshot.clone(),
            snapshot_uid: volume.snapshot_uid.clone(),
            content: volume.content.clone(),
            handle: volume.handle.clone(),
            driver: volume.driver.clone(),
        }
    }
}

/// How far the end of a copy has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaving {
    /// Neither snapshot nor content is there any more.
    Gone,
    /// It is on its way, and what is waited for.
    Going(String),
}

/// Deletes copies and volumes for good.
///
/// - **Flow**: `drop_copy` again and again until it says `Gone`; `user`, and `reclaim` when there is none.
/// - **Guarantees**: each call makes at most one effect, on the object with the recorded UID and as it was read. A content is
///   set to Delete before its snapshot goes, so that the copy goes with it. What does not match the record is left alone.
/// - **Assumptions**: whoever calls has decided that nothing needs the copy or the volume any more.
/// - **Cancellation**: any call may be dropped and repeated.
/// - **Errors**: `not-ours`, `volume-replaced`, `volume-phase`, `volume-in-use` (permanent); `api-*` (retryable).
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Disposal: Send + Sync {
    /// Makes the next effect towards the end of a copy, or says what it waits for.
    async fn drop_copy(&self, copy: &CopyRecord) -> Result<Leaving, Failure>;
    /// Who still has a volume: a claim that names it (`namespace/name` of the claim it was bound to is looked at), or a node it
    /// is attached to.
    async fn user(&self, volume: &str, namespace: &str, claim: &str) -> Result<Option<String>, Failure>;
    /// Has the cluster delete a volume and its bytes. Refused unless it is Released, still names the claim it was bound to,
    /// and is as it was when it was last read.
    async fn reclaim(&self, volume: &ProtectedVolume, namespace: &str, claim: &str) -> Result<(), Failure>;
}
