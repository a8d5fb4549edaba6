//! The copies themselves: what snapshot-controller does about a content, and csi-snapshotter, which calls the driver.

use std::time::Duration;

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::driver::{FailureCode, Refusal, SnapshotInfo};
use super::objects::{
    BEING_CREATED, BEING_DELETED, CONTENT_BOUND, Kind, Name, Object, SNAPSHOT_BOUND, SNAPSHOT_IS_SOURCE, annotation,
    cluster, deleting, has_finalizer, is_ready, snapshot_of, snapshot_uid, text, uid, value,
};
use super::provision::{parameters, within};
use super::snapshots::CONTROLLER;
use super::{Done, Next, Trouble, Volumes};
use crate::server::json::{at, set};

const SNAPSHOTTER: &str = "csi-snapshotter";

/// How long a call to the driver may take. The real sidecar gives up as early.
const CALL: Duration = Duration::from_secs(60);

impl Volumes {
    /// snapshot-controller's part.
    pub(super) async fn sync_content(&self, name: &Name) -> Done {
        let Some(content) = self.get(Kind::Content, name) else { return Ok(Next::Wait) };
        let given = |field: &str| !value(&content, &["spec", "source", field]).is_null();
        if given("volumeHandle") == given("snapshotHandle") {
            let why = "Exactly one of VolumeHandle and SnapshotHandle should be specified";
            self.event(CONTROLLER, (Kind::Content, &content), "Warning", "ContentValidationError", why).await;
            return Ok(Next::Again);
        }
        if snapshot_uid(&content).is_empty() {
            return Ok(Next::Wait);
        }
        if !deleting(&content) && !has_finalizer(&content, CONTENT_BOUND) {
            self.finalizers(CONTROLLER, Kind::Content, &content, &[(CONTENT_BOUND, true)]).await?;
            return Ok(Next::Wait);
        }
        // A content whose snapshot is gone is never deleted: it may have been restored without it.
        let snapshot = self.get(Kind::Snapshot, &snapshot_of(&content));
        if let Some(snapshot) = snapshot.filter(|snapshot| uid(snapshot) == snapshot_uid(&content))
            && deleting(&snapshot)
            && (has_finalizer(&snapshot, SNAPSHOT_IS_SOURCE) || has_finalizer(&snapshot, SNAPSHOT_BOUND))
        {
            self.mark_for_deletion(&content).await?;
        }
        Ok(Next::Wait)
    }

    /// Allows the snapshotter to delete the copy, should the content be deleted.
    pub(super) async fn mark_for_deletion(&self, content: &Object) -> Result<Object, Trouble> {
        if annotation(content, BEING_DELETED).is_some() {
            return Ok(content.clone());
        }
        let patch = json!({ "metadata": { "annotations": { BEING_DELETED: "yes" } } });
        self.patch(CONTROLLER, Kind::Content, content, patch).await
    }

    /// csi-snapshotter's part.
    pub(super) async fn sync_cut(&self, name: &Name) -> Done {
        let Some(content) = self.get(Kind::Content, name) else { return Ok(Next::Wait) };
        let class = value(&content, &["spec", "volumeSnapshotClassName"]).as_str();
        let class = class.and_then(|class| self.get(Kind::SnapshotClass, &cluster(class)));
        let driver = Value::from(self.context.driver_name.as_str());
        let foreign = class.as_ref().is_some_and(|class| *at(&class.data, &["driver"]) != driver);
        if *value(&content, &["spec", "driver"]) != driver || foreign {
            return Ok(Next::Wait);
        }
        if may_delete(&content) {
            return self.delete_copy(&content).await;
        }
        // One that is being deleted waited for the cut to end, and the end of the cut is no change that is looked at.
        let after = |content: &Object| if deleting(content) { Next::Again } else { Next::Wait };
        if is_ready(&content) {
            let content = self.creating(&content, false).await?;
            return Ok(after(&content));
        }
        let first = value(&content, &["status"]).is_null();
        match self.find_or_cut(&content, class.as_ref()).await? {
            Ok((content, handle, info)) => {
                let content = self.content_status(&content, &handle, &info).await?;
                let content = self.creating(&content, false).await?;
                Ok(if info.never_ready { Next::Again } else { after(&content) })
            }
            Err((content, why)) => {
                let (reason, what) = if first {
                    ("SnapshotCreationFailed", "Failed to create snapshot")
                } else {
                    ("SnapshotContentCheckandUpdateFailed", "Failed to check and update snapshot content")
                };
                let why = format!("{what}: {why}");
                if text(&content, &["status", "error", "message"]) != why {
                    let error = json!({ "time": self.now_text(), "message": why });
                    let status = json!({ "readyToUse": false, "error": error });
                    self.patch_status(SNAPSHOTTER, Kind::Content, &content, status).await?;
                    self.event(SNAPSHOTTER, (Kind::Content, &content), "Warning", reason, &why).await;
                }
                Ok(Next::Again)
            }
        }
    }

    /// Asks the driver for the copy: to look for one that is said to exist, or to cut one, which it does once. With it comes
    /// the content as it is after that.
    async fn find_or_cut(&self, content: &Object, class: Option<&Object>) -> Result<Cut, Trouble> {
        if let Some(handle) = value(content, &["spec", "source", "snapshotHandle"]).as_str() {
            let found = within(CALL, self.context.driver.list_snapshots(handle, "")).await;
            let failed = |why: String| {
                Err((content.clone(), format!("failed to list snapshot for content {}: {why:?}", content.name_any())))
            };
            return Ok(match found.map(|found| found.into_iter().next()) {
                Ok(Some((handle, info))) => Ok((content.clone(), handle, info)),
                Ok(None) => failed(format!("can not find snapshot for snapshotID {handle}")),
                Err(refusal) => failed(refusal.to_string()),
            });
        }
        let volume = text(content, &["spec", "source", "volumeHandle"]);
        let Some(class) = class else {
            let why = format!("failed to take snapshot {} without a snapshot class", content.name_any());
            return Ok(Err((content.clone(), why)));
        };
        let cut = value(content, &["status", "snapshotHandle"]).is_string();
        let content = if cut { content.clone() } else { self.creating(content, true).await? };
        let name = format!("snapshot-{}", snapshot_uid(&content));
        let answer = within(CALL, self.context.driver.create_snapshot(&name, volume, &parameters(class))).await;
        Ok(match answer {
            Ok(info) => Ok((content, name, info)),
            Err(refusal) => {
                let content = if is_final(&refusal) { self.creating(&content, false).await? } else { content };
                Err((content, format!("failed to take snapshot of the volume {volume}: {:?}", refusal.to_string())))
            }
        })
    }

    /// Marks that the driver may be cutting, or that its answer is known. While it may be, the content is not deleted.
    async fn creating(&self, content: &Object, now: bool) -> Result<Object, Trouble> {
        if annotation(content, BEING_CREATED).is_some() == now {
            return Ok(content.clone());
        }
        let mark = if now { json!("yes") } else { Value::Null };
        let patch = json!({ "metadata": { "annotations": { BEING_CREATED: mark } } });
        self.patch(SNAPSHOTTER, Kind::Content, content, patch).await
    }

    async fn content_status(&self, content: &Object, handle: &str, info: &SnapshotInfo) -> Result<Object, Trouble> {
        let before = value(content, &["status"]);
        let mut status = json!({ "readyToUse": !info.never_ready });
        let cut = i64::try_from(info.cut_at.as_nanosecond()).unwrap_or_default();
        for (field, seen) in
            [("snapshotHandle", json!(handle)), ("creationTime", json!(cut)), ("restoreSize", json!(info.bytes))]
        {
            let known = at(before, &[field]);
            set(&mut status, &[field], if known.is_null() { seen } else { known.clone() });
        }
        let kept = if info.never_ready { at(before, &["error"]).clone() } else { Value::Null };
        set(&mut status, &["error"], kept);
        let fields = ["readyToUse", "snapshotHandle", "creationTime", "restoreSize", "error"];
        if fields.iter().all(|field| at(&status, &[field]) == at(before, &[field])) {
            return Ok(content.clone());
        }
        self.patch_status(SNAPSHOTTER, Kind::Content, content, status).await
    }

    async fn delete_copy(&self, content: &Object) -> Done {
        let mut content = content.clone();
        let handle = value(&content, &["status", "snapshotHandle"]).as_str();
        if let ("Delete", Some(handle)) = (text(&content, &["spec", "deletionPolicy"]), handle) {
            if let Err(refusal) = within(CALL, self.context.driver.delete_snapshot(handle)).await {
                let why = "Failed to delete snapshot";
                self.event(SNAPSHOTTER, (Kind::Content, &content), "Warning", "SnapshotDeleteError", why).await;
                return Err(Trouble::Told(format!("{why} {}: {refusal}", content.name_any())));
            }
            let cleared =
                json!({ "snapshotHandle": null, "readyToUse": null, "creationTime": null, "restoreSize": null });
            content = self.patch_status(SNAPSHOTTER, Kind::Content, &content, cleared).await?;
        }
        self.finalizers(SNAPSHOTTER, Kind::Content, &content, &[(CONTENT_BOUND, false)]).await?;
        Ok(Next::Wait)
    }
}

/// The content, the copy's handle and what is known of it; or the content, and why there is none.
type Cut = Result<(Object, String, SnapshotInfo), (Object, String)>;

/// Whether the snapshotter may let a content go that is being deleted: only when its snapshot is being deleted as well, or
/// never had it, and no copy may be in the making.
fn may_delete(content: &Object) -> bool {
    let given = !value(content, &["spec", "source", "snapshotHandle"]).is_null();
    deleting(content)
        && ((given && snapshot_uid(content).is_empty())
            || (annotation(content, BEING_CREATED).is_none() && annotation(content, BEING_DELETED).is_some()))
}

/// Whether the driver is done with the call.
fn is_final(refusal: &Refusal) -> bool {
    !refusal.code.may_go_on() && refusal.code != FailureCode::ResourceExhausted
}
