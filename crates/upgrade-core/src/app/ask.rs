//! What is asked for: the app as its owner described it, and the request.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::AppInputs;
use crate::ports::{AppRef, HttpCheck, ObjectRef, Pin, PinValue, Repository, RestorePointRecord};

/// Whether the app is stopped while its volumes are snapshotted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Consistency {
    /// It is: no write that the old version acknowledged is lost by a rollback.
    #[default]
    Stopped,
    /// It is not: no downtime, and writes after the cut are lost by a rollback.
    Online,
}

/// Whether an upgrade that failed after its release is rolled back without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum AutoRollback {
    /// Only when no pod of the target with a claim of the app was ever ready, so that no write it acknowledged can be lost.
    #[default]
    IfNeverReady,
    /// Always, also when writes that the target acknowledged are lost.
    Always,
    /// Never: stop there and ask.
    Never,
}

/// How volumes are treated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotPolicy {
    /// Whether volumes are snapshotted at all; without, a rollback can only keep the data.
    pub enabled: bool,
    /// The snapshot class; found from the driver when absent.
    pub class: Option<String>,
    /// The claims that are copied; every one that the app's workloads mount when empty.
    pub claims: Vec<String>,
    /// Whether the app is stopped.
    pub consistency: Consistency,
    /// Whether each snapshot is restored aside before the version is committed.
    pub verify_restore: bool,
    /// How long the app may be kept stopped until all snapshots are proven.
    #[serde(with = "crate::duration")]
    pub deadline: SignedDuration,
}

/// When the app counts as healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthPolicy {
    /// How long a release may take to become healthy.
    #[serde(with = "crate::duration")]
    pub timeout: SignedDuration,
    /// How long it must stay healthy.
    #[serde(with = "crate::duration")]
    pub soak: SignedDuration,
    /// Requests that must be answered.
    pub http: Vec<HttpCheck>,
}

/// Which versions may be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionPolicy {
    /// A version range that every target must lie in.
    pub constraint: Option<String>,
    /// Versions never to be chosen.
    pub skip: Vec<String>,
    /// What the target may change about claims and workloads, by the names of [`changes`](super::changes).
    pub accepted_claim_changes: Vec<String>,
    /// Fields of the app's policy that are set and have no effect yet: who set them is told.
    #[serde(default)]
    pub unread: Vec<String>,
}

/// An app, resolved: nothing in it is looked up again while an operation runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppSpec {
    /// Who it is.
    pub app: AppRef,
    /// Its own delivery objects.
    pub own: Vec<ObjectRef>,
    /// Where its versions are written.
    pub repositories: Vec<Repository>,
    /// The scalars that carry them.
    pub pins: Vec<Pin>,
    /// How volumes are treated.
    pub snapshots: SnapshotPolicy,
    /// When it counts as healthy.
    pub health: HealthPolicy,
    /// Which versions may be chosen.
    pub versions: VersionPolicy,
    /// What happens when an upgrade fails after its release.
    pub auto_rollback: AutoRollback,
}

/// A request to upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeAsk {
    /// UID of the request.
    pub operation: String,
    /// Its name.
    pub name: String,
    /// The app.
    pub app: AppSpec,
    /// The wanted version of each component that changes.
    pub targets: BTreeMap<String, String>,
    /// Why, for the commit message.
    pub reason: String,
    /// Ended operations of this app whose leftovers may be taken over.
    pub take_over: Vec<String>,
    /// Their inputs, oldest first: what they found is what has to be put back.
    pub inherited: Vec<AppInputs>,
}

/// A request to roll back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollbackAsk {
    /// UID of the request.
    pub operation: String,
    /// Its name.
    pub name: String,
    /// The app.
    pub app: AppSpec,
    /// What to go back to.
    pub restore_point: RestorePointRecord,
    /// Whether the data is restored, or kept.
    pub restore_data: bool,
    /// A person has seen that writes since this instant are lost; `None` refuses when there could be any.
    pub acknowledged_loss_since: Option<Timestamp>,
    /// Whether the rolled-back version ever served: then restoring loses acknowledged writes and must be acknowledged.
    pub loses_writes: bool,
    /// Whether the version that is left behind is blocked.
    pub block: bool,
    /// Why, for the commit message.
    pub reason: String,
    /// What the pins must carry now for an automatic rollback; empty when a person asks, who may go back from anything.
    pub only_from: Vec<PinValue>,
    /// Ended or superseded operations of this app whose holds may be taken over.
    pub take_over: Vec<String>,
    /// Their inputs, oldest first: what they found is what has to be put back.
    pub inherited: Vec<AppInputs>,
    /// The inputs of the upgrade whose effect is taken back, if they are known: what they do not have came with its version.
    pub before: Option<AppInputs>,
}

impl RollbackAsk {
    /// Whether somebody has taken the loss of everything that a restore may lose.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.acknowledged_loss_since.is_some_and(|since| since <= self.restore_point.taken_at)
    }
}
