//! `RestorePoint`: what an app can be taken back to. It outlives the requests that made and used it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Components, Consistency, Pin, Subject};

/// Everything that is needed to go back. It is in the spec and not in the status because a backup of the cluster's objects
/// does not bring a status back.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "upgrades.windlass.dev",
    version = "v1alpha1",
    kind = "RestorePoint",
    plural = "restorepoints",
    shortname = "rp",
    category = "windlass",
    namespaced,
    status = "RestorePointStatus",
    derive = "PartialEq",
    doc = "A state that an app can be taken back to: its versions, their commits and copies of its volumes. Owned by nobody, so that it outlives the requests and the app. Deleting one deletes its copies, except when its namespace is being deleted: then they stay in the storage system.",
    printcolumn(name = "App", type_ = "string", json_path = ".spec.subject.name", description = "The app"),
    printcolumn(name = "Components", type_ = "string", json_path = ".spec.components", description = "The versions it holds"),
    printcolumn(name = "Taken", type_ = "date", json_path = ".spec.takenAt", description = "When the data was copied"),
    printcolumn(name = "Usable", type_ = "boolean", json_path = ".status.usable", description = "Whether it can be restored"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason", description = "Why not", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 63").message("the name of a restore point must not be longer than 63 characters: it is used as a label"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.subject == oldSelf.subject && self.consistency == oldSelf.consistency && self.components == oldSelf.components").message("what a restore point is about cannot be changed"),
    validation = Rule::new("!(has(oldSelf.__void__) && oldSelf.__void__ != '') || (has(self.__void__) && self.__void__ != '')").message("a void restore point stays void").field_path(".void"),
)]
pub struct RestorePointSpec {
    /// The app.
    pub subject: Subject,
    /// When the first of its volumes was copied; writes before it are held. Absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::schema::DateTime>")]
    pub taken_at: Option<Timestamp>,
    /// Whether the app was stopped for the copies.
    pub consistency: Consistency,
    /// The version of each component at that time.
    #[schemars(schema_with = "crate::schema::components")]
    pub components: Components,
    /// Where those versions are written, with the values they had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub pins: Vec<RecordedPin>,
    /// The commits that held those versions, one per repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["repository".into()]))]
    pub commits: Vec<RestorePointCommit>,
    /// Why it must not be restored any more, for example because the app wrote after it was taken. Empty: it may be.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub void: String,
    /// The request that took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub request: Option<String>,
    /// The copies, one per claim.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub data: Vec<RestorePointData>,
}

/// A pin and the value it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedPin {
    /// The pin.
    pub pin: Pin,
    /// Its value.
    #[schemars(length(max = 256))]
    pub value: String,
}

/// The head of one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestorePointCommit {
    /// The name of the repository, as in the ManagedApp.
    #[schemars(length(min = 1, max = 63))]
    pub repository: String,
    /// The commit.
    #[schemars(length(min = 40, max = 64), regex(pattern = "^[0-9a-f]+$"))]
    pub sha: String,
}

/// The copy of one volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestorePointData {
    /// Always `Volume`.
    #[serde(rename = "type")]
    pub type_: RestorePointDataType,
    /// The claim, as it was.
    pub claim: RecordedClaim,
    /// The PersistentVolume that was copied.
    #[schemars(length(max = 253))]
    pub volume: String,
    /// The driver's name of that volume.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub volume_handle: String,
    /// The CSI driver of the volume and of its copy.
    #[schemars(length(max = 253))]
    pub driver: String,
    /// The VolumeSnapshot, in the namespace of the claim.
    #[schemars(length(max = 253))]
    pub snapshot: String,
    /// The UID of the VolumeSnapshot: one of the same name with another UID is another copy.
    #[schemars(length(max = 128))]
    pub snapshot_uid: String,
    /// The VolumeSnapshotContent. Absent until it is bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub content: Option<String>,
    /// The driver's name of the copy. Absent until it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub handle: Option<String>,
    /// The smallest size that a volume made from the copy must have, as a Kubernetes quantity; absent if the driver does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub size: Option<String>,
    /// When the driver made the copy. Absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::schema::DateTime>")]
    pub cut_at: Option<Timestamp>,
    /// The reclaim policy that the volume had before the operation. A claim that is made again gets it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaim_policy: Option<RecordedReclaimPolicy>,
}

/// The reclaim policy that a volume had before the operation: what became of it when its claim went. A claim that is made again
/// gets it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RecordedReclaimPolicy {
    /// The volume and its data stay.
    Retain,
    /// They are deleted.
    Delete,
}

/// What a restore point can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestorePointDataType {
    /// A volume snapshot.
    Volume,
}

/// A claim, complete enough to make it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedClaim {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// Its UID.
    #[schemars(length(min = 1, max = 128))]
    pub uid: String,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Its whole spec, unknown fields included.
    #[schemars(schema_with = "crate::schema::whole_object")]
    pub spec: Value,
}

/// What is known about the restore point. Written by the operator only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestorePointStatus {
    /// The metadata.generation that this status was written for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Whether it can be restored, looked at again every few minutes. Absent means nobody has looked, which is not the same as
    /// yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usable: Option<bool>,
    /// Why it cannot be restored; while it is being deleted, what its deletion waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Volumes that a rollback replaced, kept aside for a while. The restore point does not expire before they are gone, except together
    /// with those that only its own copies were cut from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["volume".into()]))]
    pub replaced_volumes: Vec<ReplacedVolume>,
    /// Not written yet: `usable` and `reason` say it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A volume that a rollback replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplacedVolume {
    /// The PersistentVolume.
    pub volume: String,
    /// When it is deleted, if nobody has used it or changed it until then and no restore point was cut from it.
    #[schemars(with = "crate::schema::DateTime")]
    pub keep_until: Timestamp,
    /// Its UID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The driver's name of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub handle: String,
    /// The claim that it was bound to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub claim: String,
    /// The UID of that claim.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub claim_uid: String,
    /// Why it is still there although its time is over.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}
