//! The steps of the app journey, as the plan stores them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ports::ObjectRef;

/// What a step of an app plan does. Each makes at most one effect, and most can be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum AppStep {
    /// Suspend a delivery object and wait for the barrier. Undone by resuming it.
    Suspend {
        /// The object.
        root: ObjectRef,
    },
    /// Scale a workload to 0. Undone by scaling it back.
    Stop {
        /// The workload.
        workload: ObjectRef,
    },
    /// Wait until nothing holds the claims; completed pods are removed.
    AwaitStopped,
    /// Set the volume of a claim to Retain. Undone by the policy as found.
    Protect {
        /// The claim.
        claim: String,
    },
    /// Take a snapshot of a claim. Undone by deleting it.
    Snapshot {
        /// The claim.
        claim: String,
    },
    /// Set the content of a snapshot to Retain. Undone by Delete.
    RetainSnapshot {
        /// The claim.
        claim: String,
    },
    /// Prove that snapshot and content are bound both ways and restorable.
    VerifySnapshot {
        /// The claim.
        claim: String,
    },
    /// Restore a snapshot into a volume of its own, to prove that it can be. Undone by deleting that copy.
    TryRestore {
        /// The claim.
        claim: String,
    },
    /// Delete that copy again.
    DropTrial {
        /// The claim.
        claim: String,
    },
    /// Write the restore point. Undone by voiding it.
    SaveRestorePoint,
    /// Write the stage of the operation on a suspended object.
    Stage {
        /// The object.
        root: ObjectRef,
        /// The stage.
        stage: String,
    },
    /// Nothing forward; undone by waiting until no carrier shows the target any more.
    Carriers,
    /// Commit and push. Undone by a revert commit.
    Commit {
        /// The repository.
        repository: String,
    },
    /// Wait until a source's artifact holds the commit and the value.
    Fetch {
        /// The source.
        source: ObjectRef,
    },
    /// Wait until a suspended release object's spec names the target.
    AwaitSpec {
        /// The object.
        object: ObjectRef,
        /// Who applies it.
        parent: Option<ObjectRef>,
    },
    /// Keep the delivery tool from applying a live workload. Undone by letting it.
    Freeze {
        /// The workload.
        workload: ObjectRef,
    },
    /// Let the delivery tool apply the workload again.
    Unfreeze {
        /// The workload.
        workload: ObjectRef,
    },
    /// Wait until what reads the sources has in its caches what they show. Nothing tells when that is: it is a matter of time.
    Settle,
    /// Resume a delivery object.
    Resume {
        /// The object.
        root: ObjectRef,
    },
    /// Wait until a manifests object has tried to apply the commit.
    AwaitAttempt {
        /// The object.
        object: ObjectRef,
    },
    /// Put recorded replicas back once the live template is the target's.
    PutBack {
        /// The workload.
        workload: ObjectRef,
    },
    /// Wait until the commit runs, healthy.
    Verify,
    /// Wait until it has stayed healthy.
    Soak,
    /// Set the volume of a claim back to its reclaim policy.
    Unprotect {
        /// The claim.
        claim: String,
    },
    /// Record the versions the app runs now.
    RecordCurrent,
    /// Restore a snapshot into a volume of its own, beside the original. Undone by deleting the helper claim.
    RestoreAside {
        /// The claim.
        claim: String,
    },
    /// Set the restored volume to Retain.
    RetainAside {
        /// The claim.
        claim: String,
    },
    /// Delete the helper claim; the restored volume stays.
    DropHelper {
        /// The claim.
        claim: String,
    },
    /// Reserve the restored volume for the claim.
    Reserve {
        /// The claim.
        claim: String,
    },
    /// Delete the original claim; its volume stays.
    DropClaim {
        /// The claim.
        claim: String,
    },
    /// Create the claim again, on the restored volume.
    Recreate {
        /// The claim.
        claim: String,
    },
    /// Wait until every claim is bound to its restored volume.
    AwaitClaims,
    /// Note the replaced volumes on the restore point.
    NoteReplaced,
    /// Block the versions that were left behind.
    Block,
}

impl AppStep {
    /// As stored in a plan.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}
