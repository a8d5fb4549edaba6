//! What can go wrong with claims, volumes and snapshots.

use upgrade_core::{Coded, Failure};
use windlass_api::call::CallError;

use crate::NotAQuantity;

/// Why a call was refused or did not work. Nothing was changed unless the message says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Api(#[from] CallError),
    /// There is no object of that name.
    #[error("{kind} {name} does not exist")]
    Gone {
        /// `claim`, `volume`, `snapshot`, `content`, `restore point`.
        kind: Kind,
        /// The object.
        name: String,
    },
    /// There is one, but it is not the one that was meant.
    #[error("{kind} {name} was replaced: it has the UID {found}, not {expected}")]
    Replaced {
        /// As above.
        kind: Kind,
        /// The object.
        name: String,
        /// UID that was meant.
        expected: String,
        /// UID that was found.
        found: String,
    },
    /// The object does not carry our label, or another operation's.
    #[error("{kind} {name} is not ours: {seen}")]
    NotOurs {
        /// As above.
        kind: Kind,
        /// The object.
        name: String,
        /// What was seen.
        seen: String,
    },
    /// The volume would go, or could go, with what was to be deleted or bound.
    #[error("volume {volume} is not on Retain ({seen}): {refused}")]
    NotRetained {
        /// The volume.
        volume: String,
        /// Its reclaim policy.
        seen: String,
        /// What was not done.
        refused: &'static str,
    },
    /// The claim is being deleted and cannot be revived.
    #[error("claim {0} is being deleted")]
    ClaimTerminating(String),
    /// The claim has no volume, or not the one it should have.
    #[error("claim {claim} is not bound as expected: {seen}")]
    ClaimNotBound {
        /// The claim.
        claim: String,
        /// What was seen.
        seen: String,
    },
    /// A claim of that name exists and names another volume.
    #[error("claim {claim} exists and names {} instead of volume {volume}", seen.as_deref().unwrap_or("no volume yet"))]
    ClaimTaken {
        /// The claim.
        claim: String,
        /// The volume it should name.
        volume: String,
        /// What it names; `None` when it may still be given the right one.
        seen: Option<String>,
    },
    /// The volume's phase does not allow the change.
    #[error("volume {volume} is {phase}: {refused}")]
    VolumePhase {
        /// The volume.
        volume: String,
        /// Its phase.
        phase: String,
        /// What was not done.
        refused: String,
        /// Whether the phase passes by itself.
        passes: bool,
    },
    /// A volume that was to be given up belongs to somebody.
    #[error("volume {volume} is not given up: it belongs to {by}")]
    InUse {
        /// The volume.
        volume: String,
        /// The claim that has it.
        by: String,
    },
    /// The volume is not reserved for the claim.
    #[error("volume {volume} is not reserved for claim {claim}: {seen}")]
    NotReserved {
        /// The volume.
        volume: String,
        /// The claim.
        claim: String,
        /// What was seen.
        seen: String,
    },
    /// The volume cannot serve the claim.
    #[error("volume {volume} does not fit claim {claim}: {why}")]
    DoesNotFit {
        /// The volume.
        volume: String,
        /// The claim.
        claim: String,
        /// What does not fit.
        why: String,
    },
    /// A refusal of [`claims`](upgrade_core::ports::SnapshotManager::claims) that came up again right before the write.
    #[error("{0}")]
    Class(String, crate::class::ClassRefusal),
    /// The storage class cannot restore the copy.
    #[error("claim {claim} cannot be restored aside: {why}")]
    StorageClass {
        /// The claim whose data it is.
        claim: String,
        /// What is wrong.
        why: String,
    },
    /// The volume is only made once a pod asks for it, and no node can be named for it.
    #[error("storage class {class} waits for the first consumer, and no node can be chosen for {helper}: {why}")]
    NeedsConsumer {
        /// The storage class.
        class: String,
        /// The helper claim.
        helper: String,
        /// Why not.
        why: String,
    },
    /// A recorded manifest cannot be used.
    #[error("the recorded manifest of claim {claim} cannot be used: {why}")]
    Manifest {
        /// The claim.
        claim: String,
        /// What is wrong.
        why: String,
    },
    /// A size in an object of the cluster cannot be read.
    #[error("{of}: {source}")]
    Quantity {
        /// Which size.
        of: String,
        /// Why.
        source: NotAQuantity,
    },
    /// A restore point cannot be read back as it was saved.
    #[error("restore point {name} cannot be read: {why}")]
    RestorePoint {
        /// The restore point.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// The kinds of objects errors speak about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// PersistentVolumeClaim.
    Claim,
    /// PersistentVolume.
    Volume,
    /// VolumeSnapshot.
    Snapshot,
    /// VolumeSnapshotContent.
    Content,
    /// RestorePoint.
    RestorePoint,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Claim => "claim",
            Self::Volume => "volume",
            Self::Snapshot => "snapshot",
            Self::Content => "snapshot content",
            Self::RestorePoint => "restore point",
        })
    }
}

impl Coded for Error {
    fn code(&self) -> &'static str {
        match self {
            Self::Api(error) => error.code(),
            Self::Gone { kind, .. } => match kind {
                Kind::Claim => "claim-gone",
                Kind::Volume => "volume-gone",
                Kind::Snapshot => "snapshot-gone",
                Kind::Content => "content-gone",
                Kind::RestorePoint => "restore-point-gone",
            },
            Self::Replaced { kind, .. } => match kind {
                Kind::Claim => "claim-replaced",
                Kind::Volume => "volume-replaced",
                Kind::Snapshot => "snapshot-replaced",
                Kind::Content => "content-replaced",
                Kind::RestorePoint => "restore-point-replaced",
            },
            Self::NotOurs { .. } => "not-ours",
            Self::NotRetained { .. } => "not-retained",
            Self::ClaimTerminating(_) => "claim-terminating",
            Self::ClaimNotBound { .. } => "claim-not-bound",
            Self::ClaimTaken { .. } => "claim-taken",
            Self::VolumePhase { .. } => "volume-phase",
            Self::InUse { .. } => "volume-in-use",
            Self::NotReserved { .. } => "volume-not-reserved",
            Self::DoesNotFit { .. } => "volume-does-not-fit",
            Self::Class(_, refusal) => refusal.code(),
            Self::StorageClass { .. } => "storage-class",
            Self::NeedsConsumer { .. } => "needs-consumer",
            Self::Manifest { .. } => "claim-manifest",
            Self::Quantity { .. } => "size-unreadable",
            Self::RestorePoint { .. } => "restore-point-unreadable",
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Api(error) => error.hint(),
            Self::Gone { .. } | Self::Replaced { .. } => {
                "somebody else changed it during the operation: find out who before going on".into()
            }
            // What is of somebody else may be the only copy of their data.
            Self::NotOurs { kind: Kind::Claim, name, .. } => {
                format!("find out whose claim {name} is, and leave it until that is known: it may hold data")
            }
            Self::NotOurs { kind: Kind::Volume, name, .. } => {
                format!("find out what volume {name} holds, and leave it until that is known")
            }
            Self::NotOurs { kind: Kind::Snapshot | Kind::Content, name, .. } => {
                format!("leave {name}: it may be the only copy. Find out what it was taken for: windlass snapshots")
            }
            Self::NotOurs { kind: Kind::RestorePoint, .. } => {
                "name a restore point of this app: windlass snapshots".into()
            }
            Self::NotRetained { volume, .. } => {
                format!("something sets {volume} back: find out what, the data would be deleted with the claim")
            }
            Self::ClaimTaken { claim, .. } => {
                format!("something else made {claim} again: check that everything that delivers it is suspended")
            }
            Self::Class(_, refusal) => refusal.hint().into(),
            Self::StorageClass { .. } => "make the storage class of the claim again, with its old driver".into(),
            Self::NeedsConsumer { .. } => "make a node available on which the old volume can be used".into(),
            Self::ClaimTerminating(claim) => format!("wait until {claim} is gone, and find out who deleted it"),
            Self::ClaimNotBound { claim, .. } => format!("see why {claim} is not bound: kubectl describe pvc"),
            Self::VolumePhase { volume, passes: true, .. } => format!("wait, and see what still has {volume}"),
            Self::VolumePhase { volume, passes: false, .. } => {
                format!("see why {volume} has failed: kubectl describe pv. Its data may still be there")
            }
            Self::InUse { volume, by } => format!("nothing was done to {volume}: find out whether {by} still needs it"),
            Self::NotReserved { volume, .. } => {
                format!("find out who changed the claimRef of {volume} during the operation")
            }
            Self::DoesNotFit { volume, claim, .. } => {
                format!("{volume} holds the copy and stays: compare it with the recorded spec of {claim}")
            }
            Self::Manifest { .. } | Self::RestorePoint { .. } => {
                "read it with the version of Windlass that wrote it; the copy itself is still there".into()
            }
            Self::Quantity { of, .. } => format!("correct the size of {of}: a Kubernetes quantity, such as 1Gi"),
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Api(error) => error.is_retryable(),
            Self::ClaimTerminating(_) => true,
            Self::ClaimTaken { seen, .. } => seen.is_none(),
            Self::VolumePhase { passes, .. } => *passes,
            _ => false,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from_coded(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hint_has_anybody_remove_what_may_be_a_copy() {
        for kind in [Kind::Claim, Kind::Volume, Kind::Snapshot, Kind::Content, Kind::RestorePoint] {
            let hint = Error::NotOurs { kind, name: "n".into(), seen: "of another app".into() }.hint();
            assert!(!hint.is_empty() && !hint.contains("remove") && !hint.contains("delete"), "{hint}");
        }
    }
}
