//! snapshot-controller, seen from the snapshot: classes, finalizers, binding to a content, the status for users.

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::api::seconds;
use super::objects::{
    CLAIM_IS_SOURCE, Kind, Name, Object, SNAPSHOT_BOUND, SNAPSHOT_IS_SOURCE, annotation, bound_content, claim_of,
    claim_uid, cluster, data_snapshot, deleting, has_finalizer, is_of, is_ready, name_of, own_content, phase,
    snapshot_of, snapshot_uid, source_claim, text, uid, value, volume_mode, volume_name,
};
use super::{Done, Next, Trouble, Volumes, quantity};
use crate::server::json::{at, is_empty, set};

pub(super) const CONTROLLER: &str = "snapshot-controller";

/// Where snapshots and contents name their class.
const CLASS: &[&str] = &["spec", "volumeSnapshotClassName"];

impl Volumes {
    pub(super) async fn sync_snapshot(&self, name: &Name) -> Done {
        let Some(snapshot) = self.get(Kind::Snapshot, name) else { return Ok(Next::Wait) };
        let snapshot = match self.with_class(&snapshot).await? {
            Ok(snapshot) => snapshot,
            // Its class may be gone by the time it is deleted.
            Err(Unclassed::Missing(_)) if deleting(&snapshot) => snapshot,
            Err(Unclassed::Missing(why)) => {
                let why = format!("Failed to get snapshot class with error {why}");
                return self.snapshot_error(&snapshot, None, "GetSnapshotClassFailed", &why).await;
            }
            Err(Unclassed::NoDefault(why)) => {
                let why = format!("Failed to set default snapshot class with error {why}");
                return self.snapshot_error(&snapshot, None, "SetDefaultSnapshotClassFailed", &why).await;
            }
        };
        if deleting(&snapshot) {
            return self.delete_snapshot(&snapshot).await;
        }
        let given = value(&snapshot, &["spec", "source", "volumeSnapshotContentName"]).as_str();
        if given.is_some() == source_claim(&snapshot).is_some() {
            let why = "Exactly one of PersistentVolumeClaimName and VolumeSnapshotContentName should be specified";
            return self.snapshot_error(&snapshot, Some(false), "SnapshotValidationError", why).await;
        }
        let content = match self.content_for(&snapshot, given) {
            Ok(content) => content,
            Err((reason, why)) => return self.snapshot_error(&snapshot, Some(false), reason, &why).await,
        };
        let deletes = content.as_ref().is_some_and(|content| text(content, &["spec", "deletionPolicy"]) == "Delete");
        let mut wanted = vec![(SNAPSHOT_IS_SOURCE, true)];
        if deletes {
            wanted.push((SNAPSHOT_BOUND, true));
        }
        let snapshot = self.finalizers(CONTROLLER, Kind::Snapshot, &snapshot, &wanted).await?;
        if let (true, Some(bound)) = (is_ready(&snapshot), bound_content(&snapshot)) {
            return self.check_ready(&snapshot, bound).await;
        }
        match (given, content) {
            (Some(_), None) => {
                let why = "VolumeSnapshotContent is missing";
                self.snapshot_error(&snapshot, Some(false), "SnapshotContentMissing", why).await
            }
            (Some(_), Some(content)) => {
                let content = self.bind_content(&snapshot, content).await?;
                self.snapshot_status(&snapshot, &content).await
            }
            (None, Some(content)) => self.snapshot_status(&snapshot, &content).await,
            (None, None) => match self.make_content(&snapshot).await? {
                Ok(()) => Ok(Next::Wait),
                Err(why) => {
                    let why = format!("Failed to create snapshot content with error {why}");
                    self.snapshot_error(&snapshot, Some(false), "SnapshotContentCreationFailed", &why).await
                }
            },
        }
    }

    /// A content that says which snapshot it is for, but not its UID, is given that.
    async fn bind_content(&self, snapshot: &Object, content: Object) -> Result<Object, Trouble> {
        if !snapshot_uid(&content).is_empty() && !value(&content, CLASS).is_null() {
            return Ok(content);
        }
        let mut spec = json!({});
        if snapshot_uid(&content).is_empty() {
            set(&mut spec, &["volumeSnapshotRef", "uid"], uid(snapshot));
        }
        if !value(snapshot, CLASS).is_null() {
            set(&mut spec, &["volumeSnapshotClassName"], value(snapshot, CLASS).clone());
        }
        if is_empty(&spec) {
            return Ok(content);
        }
        self.patch(CONTROLLER, Kind::Content, &content, json!({ "spec": spec })).await
    }

    /// The snapshot with its class, which the default of its volume's driver becomes if it names none.
    async fn with_class(&self, snapshot: &Object) -> Result<Result<Object, Unclassed>, Trouble> {
        if let Some(class) = value(snapshot, CLASS).as_str() {
            if self.get(Kind::SnapshotClass, &cluster(class)).is_some() {
                return Ok(Ok(snapshot.clone()));
            }
            let why = format!("volumesnapshotclass.snapshot.storage.k8s.io \"{class}\" not found");
            return Ok(Err(Unclassed::Missing(why)));
        }
        let Some(claim) = source_claim(snapshot) else { return Ok(Ok(snapshot.clone())) };
        let volume =
            self.get(Kind::Claim, &claim).and_then(|claim| self.get(Kind::Volume, &cluster(volume_name(&claim))));
        let Some(driver) = volume.as_ref().and_then(|volume| value(volume, &["spec", "csi", "driver"]).as_str()) else {
            let why = format!("failed to find the CSI volume of claim {}", claim.1);
            return Ok(Err(Unclassed::NoDefault(why)));
        };
        let defaults: Vec<Object> = self
            .all(Kind::SnapshotClass)
            .into_iter()
            .filter(|class| {
                annotation(class, "snapshot.storage.kubernetes.io/is-default-class") == Some("true")
                    && at(&class.data, &["driver"]) == driver
            })
            .collect();
        match defaults.as_slice() {
            [only] => {
                let patch = json!({ "spec": { "volumeSnapshotClassName": only.name_any() } });
                Ok(Ok(self.patch(CONTROLLER, Kind::Snapshot, snapshot, patch).await?))
            }
            [] => Ok(Err(Unclassed::NoDefault("cannot find default snapshot class".into()))),
            several => Ok(Err(Unclassed::NoDefault(format!("{} default snapshot classes were found", several.len())))),
        }
    }

    /// The content that is for this snapshot, if there is one; a reason and text if there is one that cannot be.
    fn content_for(&self, snapshot: &Object, given: Option<&str>) -> Result<Option<Object>, (&'static str, String)> {
        let name = given.map_or_else(|| own_content(snapshot), str::to_owned);
        let Some(content) = self.get(Kind::Content, &cluster(&name)) else { return Ok(None) };
        let was_there = !value(&content, &["spec", "source", "snapshotHandle"]).is_null();
        if was_there != given.is_some() {
            let (is, expected) = if was_there {
                ("pre-provisioned", "dynamically provisioned")
            } else {
                ("dynamically provisioned", "pre-provisioned")
            };
            let why = format!("VolumeSnapshotContent {name} is {is} while expecting a {expected} one");
            return Err(("SnapshotContentMismatch", why));
        }
        let free = given.is_some() && snapshot_uid(&content).is_empty();
        if snapshot_of(&content) != name_of(snapshot) || !(free || snapshot_uid(&content) == uid(snapshot)) {
            let why = format!("VolumeSnapshotContent [{name}] is bound to a different snapshot");
            return Err(("SnapshotContentMisbound", why));
        }
        Ok(Some(content))
    }

    /// Readiness is remembered, not asked again; only a content that is gone or names another one ends it.
    async fn check_ready(&self, snapshot: &Object, bound: &str) -> Done {
        match self.get(Kind::Content, &cluster(bound)) {
            None => {
                let why = "VolumeSnapshotContent is missing";
                self.snapshot_error(snapshot, Some(false), "SnapshotContentMissing", why).await?;
            }
            Some(content) if !is_of(&content, snapshot) => {
                let why = "VolumeSnapshotContent is not bound to the VolumeSnapshot correctly";
                self.snapshot_error(snapshot, Some(false), "SnapshotMisbound", why).await?;
            }
            Some(_) => {}
        }
        Ok(Next::Wait)
    }

    /// Asks for a copy of the claim's volume. The outer error is the API server's.
    async fn make_content(&self, snapshot: &Object) -> Result<Result<(), String>, Trouble> {
        let claim = source_claim(snapshot).and_then(|claim| self.get(Kind::Claim, &claim));
        let Some(claim) = claim else { return Ok(Err("cannot get claim from snapshot".into())) };
        if !has_finalizer(&claim, CLAIM_IS_SOURCE) {
            if deleting(&claim) {
                return Ok(Err("cannot add finalizer on claim because it is being deleted".into()));
            }
            self.finalizers(CONTROLLER, Kind::Claim, &claim, &[(CLAIM_IS_SOURCE, true)]).await?;
        }
        let class_name = text(snapshot, CLASS);
        let Some(class) = self.get(Kind::SnapshotClass, &cluster(class_name)) else {
            return Ok(Err(format!("failed to take snapshot {} without a snapshot class", snapshot.name_any())));
        };
        if phase(&claim) != "Bound" {
            let why =
                format!("the PVC {} is not yet bound to a PV, will not attempt to take a snapshot", claim.name_any());
            return Ok(Err(why));
        }
        let Some(volume) = self.get(Kind::Volume, &cluster(volume_name(&claim))) else {
            return Ok(Err(format!("failed to retrieve PV {} from the API server", volume_name(&claim))));
        };
        if claim_of(&volume) != Some(name_of(&claim)) || claim_uid(&volume) != uid(&claim) {
            return Ok(Err("claim in dataSource not bound or invalid".into()));
        }
        let Some(handle) = value(&volume, &["spec", "csi", "volumeHandle"]).as_str() else {
            let why = format!("cannot find CSI PersistentVolumeSource for volume {}", volume.name_any());
            return Ok(Err(why));
        };
        // The driver is the class's, whether or not it is the volume's.
        let content = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": { "name": own_content(snapshot) },
            "spec": {
                "volumeSnapshotRef": {
                    "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
                    "namespace": snapshot.namespace(), "name": snapshot.name_any(), "uid": uid(snapshot),
                    "resourceVersion": snapshot.metadata.resource_version,
                },
                "source": { "volumeHandle": handle },
                "volumeSnapshotClassName": class.name_any(),
                "deletionPolicy": at(&class.data, &["deletionPolicy"]),
                "driver": at(&class.data, &["driver"]),
                "sourceVolumeMode": volume_mode(&volume),
            },
        });
        self.create(CONTROLLER, Kind::Content, content).await?;
        let waiting = format!(
            "Waiting for a snapshot {}/{} to be created by the CSI driver.",
            snapshot.namespace().unwrap_or_default(),
            snapshot.name_any()
        );
        self.event(CONTROLLER, (Kind::Snapshot, snapshot), "Normal", "CreatingSnapshot", &waiting).await;
        // The status follows when the watch reports the content.
        Ok(Ok(()))
    }

    /// Tells users what the content says.
    async fn snapshot_status(&self, snapshot: &Object, content: &Object) -> Done {
        let ready = is_ready(content);
        let mut status = json!({ "boundVolumeSnapshotContentName": content.name_any(), "readyToUse": ready });
        let cut = value(content, &["status", "creationTime"]).as_i64();
        if let Some(cut) = cut.and_then(|cut| jiff::Timestamp::from_nanosecond(cut.into()).ok()) {
            set(&mut status, &["creationTime"], seconds(cut));
        }
        if let Some(size) = value(content, &["status", "restoreSize"]).as_i64() {
            set(&mut status, &["restoreSize"], quantity::text(size));
        }
        let error = value(content, &["status", "error"]);
        set(&mut status, &["error"], if ready { Value::Null } else { error.clone() });
        let before = value(snapshot, &["status"]);
        // What is known once is not changed again, but for readiness and the error.
        for field in ["boundVolumeSnapshotContentName", "creationTime", "restoreSize"] {
            let known = at(before, &[field]);
            if !is_empty(known) {
                set(&mut status, &[field], known.clone());
            }
        }
        let fields = ["boundVolumeSnapshotContentName", "readyToUse", "creationTime", "restoreSize", "error"];
        if fields.iter().any(|field| at(&status, &[field]) != at(before, &[field])) {
            self.patch_status(CONTROLLER, Kind::Snapshot, snapshot, status).await?;
        }
        Ok(Next::Wait)
    }

    /// Writes an error into the status, unless it is there already, and tries again later.
    async fn snapshot_error(&self, snapshot: &Object, ready: Option<bool>, reason: &str, why: &str) -> Done {
        if text(snapshot, &["status", "error", "message"]) != why {
            let mut status = json!({ "error": { "time": self.now_text(), "message": why } });
            if let Some(ready) = ready {
                set(&mut status, &["readyToUse"], ready);
            }
            self.patch_status(CONTROLLER, Kind::Snapshot, snapshot, status).await?;
            self.event(CONTROLLER, (Kind::Snapshot, snapshot), "Warning", reason, why).await;
        }
        Ok(Next::Again)
    }

    /// A snapshot that is being deleted takes its content with it if that is on Delete, and goes when that is gone.
    async fn delete_snapshot(&self, snapshot: &Object) -> Done {
        if !has_finalizer(snapshot, SNAPSHOT_IS_SOURCE) && !has_finalizer(snapshot, SNAPSHOT_BOUND) {
            return Ok(Next::Wait);
        }
        let bound = bound_content(snapshot).map(str::to_owned);
        let own = source_claim(snapshot).map(|_| own_content(snapshot));
        let content = bound.or(own).and_then(|content| self.get(Kind::Content, &cluster(&content)));
        let content = content.filter(|content| is_of(content, snapshot));
        let mut keep = false;
        if let Some(content) = content {
            if self.is_being_restored(snapshot) {
                let why = "Snapshot is being used to restore a PVC";
                self.event(CONTROLLER, (Kind::Snapshot, snapshot), "Warning", "SnapshotDeletePending", why).await;
                return Ok(Next::Again);
            }
            let content = self.mark_for_deletion(&content).await?;
            keep = text(&content, &["spec", "deletionPolicy"]) == "Delete";
            if keep && !deleting(&content) {
                self.delete(Kind::Content, &content).await?;
            }
        }
        let change = [(SNAPSHOT_IS_SOURCE, false), (SNAPSHOT_BOUND, keep && has_finalizer(snapshot, SNAPSHOT_BOUND))];
        self.finalizers(CONTROLLER, Kind::Snapshot, snapshot, &change).await?;
        Ok(Next::Wait)
    }

    fn is_being_restored(&self, snapshot: &Object) -> bool {
        let name = name_of(snapshot);
        self.all(Kind::Claim)
            .iter()
            .any(|claim| phase(claim) == "Pending" && data_snapshot(claim).as_ref() == Some(&name))
    }

    /// A claim is held until no snapshot of it waits to be ready.
    pub(super) async fn release_source(&self, name: &Name) -> Done {
        let Some(claim) = self.get(Kind::Claim, name).filter(|claim| has_finalizer(claim, CLAIM_IS_SOURCE)) else {
            return Ok(Next::Wait);
        };
        let waits = |snapshot: &Object| source_claim(snapshot).as_ref() == Some(name) && !is_ready(snapshot);
        if !self.all(Kind::Snapshot).iter().any(waits) {
            self.finalizers(CONTROLLER, Kind::Claim, &claim, &[(CLAIM_IS_SOURCE, false)]).await?;
        }
        Ok(Next::Wait)
    }
}

/// Why a snapshot has no class.
enum Unclassed {
    Missing(String),
    NoDefault(String),
}
