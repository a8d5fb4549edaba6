//! The objects as they are read: kinds, names, and the fields that matter.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use serde_json::Value;

use crate::server::json::{at, str_at};

/// An object as it was read.
pub(super) type Object = Arc<DynamicObject>;

/// Namespace, empty for kinds without one, and name.
pub(super) type Name = (String, String);

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Claim,
    Volume,
    Pod,
    Class,
    Attachment,
    Snapshot,
    Content,
    SnapshotClass,
}

impl Kind {
    pub(super) const ALL: [Self; 8] = [
        Self::Claim,
        Self::Volume,
        Self::Pod,
        Self::Class,
        Self::Attachment,
        Self::Snapshot,
        Self::Content,
        Self::SnapshotClass,
    ];

    /// Those that every cluster has.
    pub(super) const CORE: &[Self] = &[Self::Claim, Self::Volume, Self::Pod, Self::Class, Self::Attachment];

    pub(super) fn resource(self) -> ApiResource {
        let (group, kind) = match self {
            Self::Claim => ("", "PersistentVolumeClaim"),
            Self::Volume => ("", "PersistentVolume"),
            Self::Pod => ("", "Pod"),
            Self::Class => ("storage.k8s.io", "StorageClass"),
            Self::Attachment => ("storage.k8s.io", "VolumeAttachment"),
            Self::Snapshot => (SNAPSHOTS, "VolumeSnapshot"),
            Self::Content => (SNAPSHOTS, "VolumeSnapshotContent"),
            Self::SnapshotClass => (SNAPSHOTS, "VolumeSnapshotClass"),
        };
        ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind))
    }
}

/// The group of snapshots.
pub(super) const SNAPSHOTS: &str = "snapshot.storage.k8s.io";

pub(super) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
pub(super) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
pub(super) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
pub(super) const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
pub(super) const BETA_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
pub(super) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
pub(super) const BEING_CREATED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-created";
pub(super) const BEING_DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";

pub(super) const CLAIM_IN_USE: &str = "kubernetes.io/pvc-protection";
pub(super) const VOLUME_BOUND: &str = "kubernetes.io/pv-protection";
pub(super) const VOLUME_PROVISIONED: &str = "external-provisioner.volume.kubernetes.io/finalizer";
pub(super) const CLAIM_IS_SOURCE: &str = "snapshot.storage.kubernetes.io/pvc-as-source-protection";
pub(super) const SNAPSHOT_IS_SOURCE: &str = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection";
pub(super) const SNAPSHOT_BOUND: &str = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection";
pub(super) const CONTENT_BOUND: &str = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";
pub(super) const SNAPSHOT_RESTORED: &str = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection";

pub(super) fn name_of(object: &DynamicObject) -> Name {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The name of something without a namespace.
pub(super) fn cluster(name: &str) -> Name {
    (String::new(), name.to_owned())
}

pub(super) fn value<'a>(object: &'a DynamicObject, path: &[&str]) -> &'a Value {
    at(&object.data, path)
}

/// The text at `path`, empty when absent.
pub(super) fn text<'a>(object: &'a DynamicObject, path: &[&str]) -> &'a str {
    str_at(&object.data, path)
}

pub(super) fn uid(object: &DynamicObject) -> &str {
    object.metadata.uid.as_deref().unwrap_or_default()
}

pub(super) fn annotation<'a>(object: &'a DynamicObject, key: &str) -> Option<&'a str> {
    object.annotations().get(key).map(String::as_str)
}

pub(super) fn has_finalizer(object: &DynamicObject, finalizer: &str) -> bool {
    object.finalizers().iter().any(|found| found == finalizer)
}

pub(super) fn deleting(object: &DynamicObject) -> bool {
    object.metadata.deletion_timestamp.is_some()
}

/// The phase in the status.
pub(super) fn phase(object: &DynamicObject) -> &str {
    text(object, &["status", "phase"])
}

/// The volume that a claim names.
pub(super) fn volume_name(claim: &DynamicObject) -> &str {
    text(claim, &["spec", "volumeName"])
}

/// The class of a claim or volume, empty when it has none.
pub(super) fn class_name(object: &DynamicObject) -> &str {
    text(object, &["spec", "storageClassName"])
}

/// The size that a claim asks for, in bytes.
pub(super) fn requested(claim: &DynamicObject) -> i64 {
    super::quantity::bytes(text(claim, &["spec", "resources", "requests", "storage"])).unwrap_or_default()
}

/// The provisioner that a claim was handed to.
pub(super) fn provisioner(claim: &DynamicObject) -> Option<&str> {
    annotation(claim, PROVISIONER).or_else(|| annotation(claim, BETA_PROVISIONER))
}

/// The claim that a volume names.
pub(super) fn claim_of(volume: &DynamicObject) -> Option<Name> {
    let claim = value(volume, &["spec", "claimRef"]);
    (!claim.is_null()).then(|| (str_at(claim, &["namespace"]).to_owned(), str_at(claim, &["name"]).to_owned()))
}

/// The UID of the claim that a volume names; empty when it is only reserved for a name.
pub(super) fn claim_uid(volume: &DynamicObject) -> &str {
    text(volume, &["spec", "claimRef", "uid"])
}

/// Whether a volume is for this claim: bound to it, or reserved for its name.
pub(super) fn is_for(volume: &DynamicObject, claim: &DynamicObject) -> bool {
    claim_of(volume) == Some(name_of(claim)) && (claim_uid(volume).is_empty() || claim_uid(volume) == uid(claim))
}

/// `Filesystem` or `Block`.
pub(super) fn volume_mode(object: &DynamicObject) -> &str {
    match text(object, &["spec", "volumeMode"]) {
        "" => "Filesystem",
        mode => mode,
    }
}

/// The claim in the same namespace that a snapshot is cut from.
pub(super) fn source_claim(snapshot: &DynamicObject) -> Option<Name> {
    let claim = value(snapshot, &["spec", "source", "persistentVolumeClaimName"]).as_str()?;
    Some((snapshot.namespace().unwrap_or_default(), claim.to_owned()))
}

/// The content that a snapshot's status names.
pub(super) fn bound_content(snapshot: &DynamicObject) -> Option<&str> {
    value(snapshot, &["status", "boundVolumeSnapshotContentName"]).as_str()
}

/// The name of the content that is made for a snapshot.
pub(super) fn own_content(snapshot: &DynamicObject) -> String {
    format!("snapcontent-{}", uid(snapshot))
}

/// Whether a snapshot or content is ready to use.
pub(super) fn is_ready(object: &DynamicObject) -> bool {
    value(object, &["status", "readyToUse"]).as_bool() == Some(true)
}

/// The snapshot that a content names.
pub(super) fn snapshot_of(content: &DynamicObject) -> Name {
    let field = |field: &str| text(content, &["spec", "volumeSnapshotRef", field]).to_owned();
    (field("namespace"), field("name"))
}

/// The UID of the snapshot that a content names.
pub(super) fn snapshot_uid(content: &DynamicObject) -> &str {
    text(content, &["spec", "volumeSnapshotRef", "uid"])
}

/// Whether a content names this very snapshot.
pub(super) fn is_of(content: &DynamicObject, snapshot: &DynamicObject) -> bool {
    snapshot_of(content) == name_of(snapshot) && snapshot_uid(content) == uid(snapshot)
}

/// Kind, group and name of what a claim is to be made from.
pub(super) fn data_source(claim: &DynamicObject) -> Option<(&str, &str, &str)> {
    let sources = ["dataSource", "dataSourceRef"].map(|field| value(claim, &["spec", field]));
    let source = sources.into_iter().find(|source| !source.is_null())?;
    Some((str_at(source, &["kind"]), str_at(source, &["apiGroup"]), str_at(source, &["name"])))
}

/// The snapshot in the same namespace that a claim is to be made from.
pub(super) fn data_snapshot(claim: &DynamicObject) -> Option<Name> {
    let (kind, group, name) = data_source(claim)?;
    (kind == "VolumeSnapshot" && group == SNAPSHOTS).then(|| (claim.namespace().unwrap_or_default(), name.to_owned()))
}
