//! Restore points, kept as `RestorePoint` objects in the app's namespace.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use kube::api::{Patch, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Map, Value, json};
use upgrade_core::Failure;
use upgrade_core::ports::{
    self, AppRef, Clock, CopyRecord, HeadCommit, PinValue, ReclaimPolicy, RestorePointRecord, RestorePoints,
    VolumeRecord,
};
use windlass_api::call::{CallError, JsonPatch, patch_params, post_params};
use windlass_api::{
    Consistency, Pin, PinPart, RecordedClaim, RecordedPin, RecordedReclaimPolicy, ReplacedVolume, RestorePoint,
    RestorePointCommit, RestorePointData, RestorePointDataType, RestorePointSpec, Subject,
};

use crate::error::Kind;
use crate::labels::{COPIES, OPERATION};
use crate::{Error, bytes};

/// The longest reason for voiding that the schema takes, in bytes.
const REASON: usize = 1024;

/// Restore points of one cluster. Cheap to clone.
#[derive(Clone)]
pub struct RestorePointStore {
    client: Client,
    clock: Arc<dyn Clock>,
    keep_replaced: SignedDuration,
}

impl RestorePointStore {
    /// Volumes that a restore replaces are noted to be kept for `keep_replaced` from then on.
    #[must_use]
    pub fn new(client: Client, clock: Arc<dyn Clock>, keep_replaced: SignedDuration) -> Self {
        Self { client, clock, keep_replaced }
    }

    pub(crate) fn points_in(&self, namespace: &str) -> Api<RestorePoint> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn api(&self, app: &AppRef) -> Api<RestorePoint> {
        self.points_in(&app.namespace)
    }

    async fn read(&self, app: &AppRef, name: &str) -> Result<Option<RestorePoint>, Error> {
        let found = self.api(app).get_opt(name).await;
        Ok(found.map_err(CallError::on::<RestorePoint>("get", &app.namespace, name))?)
    }

    /// The restore point of that name, which must be this app's.
    async fn the_point(&self, app: &AppRef, name: &str) -> Result<RestorePoint, Error> {
        let full_name = format!("{}/{name}", app.namespace);
        let found = self.read(app, name).await?;
        let found = found.ok_or(Error::Gone { kind: Kind::RestorePoint, name: full_name })?;
        of_app(&found, app)?;
        Ok(found)
    }

    pub(crate) async fn patch_status(&self, point: &RestorePoint, mut status: Value) -> Result<RestorePoint, Error> {
        let (namespace, name) = (point.namespace().unwrap_or_default(), point.name_any());
        if let Some(status) = status.as_object_mut() {
            status.insert("observedGeneration".into(), json!(point.metadata.generation));
        }
        let metadata = json!({ "uid": point.uid(), "resourceVersion": point.resource_version() });
        let patch = json!({ "metadata": metadata, "status": status });
        let done = self.points_in(&namespace).patch_status(&name, &patch_params(), &Patch::Merge(&patch)).await;
        Ok(done.map_err(CallError::on::<RestorePoint>("patch", &namespace, &name))?)
    }

    async fn create(&self, record: &RestorePointRecord) -> Result<(), Error> {
        let (app, name) = (&record.app, record.name.as_str());
        let point = match self.read(app, name).await? {
            Some(found) => found,
            None => {
                let params: PostParams = post_params();
                match self.api(app).create(&params, &object(record)?).await {
                    Ok(made) => made,
                    Err(error) => {
                        let error = CallError::on::<RestorePoint>("create", &app.namespace, name)(error);
                        match self.read(app, name).await {
                            Ok(Some(found)) if error.is_exists() => found,
                            _ => return Err(error.into()),
                        }
                    }
                }
            }
        };
        of_app(&point, app)?;
        if point.spec.request.as_deref() != Some(&record.operation) {
            let request = point.spec.request.clone().unwrap_or_else(|| "no operation".into());
            let (kind, name) = (Kind::RestorePoint, format!("{}/{name}", app.namespace));
            return Err(Error::NotOurs { kind, name, seen: format!("it was taken by {request}") });
        }
        // A crash between the two writes leaves it without a status; this finishes the work.
        if point.status.as_ref().and_then(|status| status.usable).is_none() {
            let usable = point.spec.void.is_empty();
            self.patch_status(&point, json!({ "usable": usable })).await?;
        }
        Ok(())
    }

    async fn make_void(&self, app: &AppRef, name: &str, reason: &str) -> Result<(), Error> {
        let point = self.the_point(app, name).await?;
        // The first reason is the true one: what overtakes the data later changes nothing.
        let (point, reason) = if point.spec.void.is_empty() {
            let mut end = reason.len().min(REASON);
            while !reason.is_char_boundary(end) {
                end -= 1;
            }
            let reason = reason.get(..end).filter(|reason| !reason.is_empty()).unwrap_or("no reason given");
            let patch = JsonPatch::for_uid(&point.uid().unwrap_or_default())
                .at_version(&point.resource_version().unwrap_or_default())
                .add(["spec", "void"], reason)
                .build();
            let done = self.api(app).patch(name, &patch_params(), &patch).await;
            (done.map_err(CallError::on::<RestorePoint>("patch", &app.namespace, name))?, reason.to_owned())
        } else {
            let reason = point.spec.void.clone();
            (point, reason)
        };
        let status = point.status.clone().unwrap_or_default();
        if status.usable == Some(false) && status.reason.as_deref() == Some(&reason) {
            return Ok(());
        }
        self.patch_status(&point, json!({ "usable": false, "reason": reason })).await?;
        Ok(())
    }

    async fn note_replaced(&self, app: &AppRef, name: &str, volumes: &[ports::ReplacedVolume]) -> Result<(), Error> {
        let point = self.the_point(app, name).await?;
        let mut noted = point.status.clone().unwrap_or_default().replaced_volumes;
        let keep_until = self.clock.now().saturating_add(self.keep_replaced).unwrap_or(jiff::Timestamp::MAX);
        let known = noted.len();
        for volume in volumes {
            if !noted.iter().any(|noted| noted.volume == volume.volume) {
                noted.push(ReplacedVolume {
                    volume: volume.volume.clone(),
                    keep_until,
                    uid: volume.uid.clone(),
                    handle: volume.handle.clone(),
                    claim: volume.claim.clone(),
                    claim_uid: volume.claim_uid.clone(),
                    reason: String::new(),
                });
            }
        }
        if noted.len() == known {
            return Ok(());
        }
        self.patch_status(&point, json!({ "replacedVolumes": noted })).await?;
        Ok(())
    }
}

/// A restore point of another app of the namespace must never be used, or changed, for this one.
fn of_app(point: &RestorePoint, app: &AppRef) -> Result<(), Error> {
    if point.spec.subject == Subject::managed_app(&app.name) {
        return Ok(());
    }
    let name = format!("{}/{}", app.namespace, point.name_any());
    let seen = format!("it is of the app {}", point.spec.subject.name);
    Err(Error::NotOurs { kind: Kind::RestorePoint, name, seen })
}

/// The object for a record. The UID of the app is not in it: after a restore of the cluster's objects the app has another one,
/// and its restore points are still its own.
fn object(record: &RestorePointRecord) -> Result<RestorePoint, Error> {
    let unusable = |why: String| Error::RestorePoint { name: record.name.clone(), why };
    let pins: Vec<_> = record.pins.iter().map(recorded_pin).collect();
    let data = record.volumes.iter().map(|volume| data(volume).map_err(unusable)).collect::<Result<_, _>>()?;
    let mut point = RestorePoint::new(
        &record.name,
        RestorePointSpec {
            subject: Subject::managed_app(&record.app.name),
            taken_at: Some(record.taken_at),
            consistency: if record.stopped { Consistency::Stopped } else { Consistency::Online },
            components: pins.iter().map(|pin| (pin.pin.component.clone(), pin.value.clone())).collect(),
            pins,
            commits: record.commits.iter().map(commit).collect(),
            void: record.void.clone(),
            request: Some(record.operation.clone()),
            data,
        },
    );
    point.metadata.namespace = Some(record.app.namespace.clone());
    point.labels_mut().insert(OPERATION.into(), record.operation.clone());
    point.finalizers_mut().push(COPIES.into());
    Ok(point)
}

fn commit(head: &HeadCommit) -> RestorePointCommit {
    RestorePointCommit { repository: head.repository.clone(), sha: head.sha.clone() }
}

/// The copies that a restore point holds, as far as they are recorded: also those of one that cannot be read as a record.
#[must_use]
pub fn copies(point: &RestorePoint) -> Vec<CopyRecord> {
    let namespace = point.namespace().unwrap_or_default();
    let copy = |data: &RestorePointData| CopyRecord {
        namespace: namespace.clone(),
        snapshot: data.snapshot.clone(),
        snapshot_uid: data.snapshot_uid.clone(),
        content: data.content.clone().unwrap_or_default(),
        handle: data.handle.clone().unwrap_or_default(),
        driver: data.driver.clone(),
    };
    point.spec.data.iter().map(copy).collect()
}

fn recorded_pin(value: &PinValue) -> RecordedPin {
    let pin = &value.pin;
    RecordedPin {
        pin: Pin {
            component: pin.component.clone(),
            repository: pin.repository.clone(),
            path: pin.path.as_str().into(),
            object: pin.object.clone(),
            field: pin.field.clone(),
            part: Some(match pin.part {
                ports::PinPart::Whole => PinPart::Whole,
                ports::PinPart::Tag => PinPart::Tag,
                ports::PinPart::Digest => PinPart::Digest,
            }),
        },
        value: value.value.clone(),
    }
}

fn pin_value(recorded: &RecordedPin) -> PinValue {
    let pin = &recorded.pin;
    PinValue {
        pin: ports::Pin {
            component: pin.component.clone(),
            repository: pin.repository.clone(),
            path: pin.path.to_string(),
            object: pin.object.clone(),
            field: pin.field.clone(),
            part: match pin.part() {
                PinPart::Whole => ports::PinPart::Whole,
                PinPart::Tag => ports::PinPart::Tag,
                PinPart::Digest => ports::PinPart::Digest,
            },
        },
        value: recorded.value.clone(),
    }
}

fn data(volume: &VolumeRecord) -> Result<RestorePointData, String> {
    let metadata = |key: &str| -> Result<_, String> {
        let map = volume.manifest.pointer(&format!("/metadata/{key}")).cloned().unwrap_or_else(|| json!({}));
        serde_json::from_value(map).map_err(|error| format!("the {key} of claim {}: {error}", volume.claim))
    };
    let spec = volume.manifest.get("spec").filter(|spec| spec.is_object());
    Ok(RestorePointData {
        type_: RestorePointDataType::Volume,
        claim: RecordedClaim {
            name: volume.claim.clone(),
            uid: volume.claim_uid.clone(),
            labels: metadata("labels")?,
            annotations: metadata("annotations")?,
            spec: spec.cloned().ok_or_else(|| format!("the manifest of claim {} has no spec", volume.claim))?,
        },
        volume: volume.volume.clone(),
        volume_handle: volume.volume_handle.clone(),
        driver: volume.driver.clone(),
        snapshot: volume.snapshot.clone(),
        snapshot_uid: volume.snapshot_uid.clone(),
        content: Some(volume.content.clone()),
        handle: Some(volume.handle.clone()),
        size: Some(volume.size.to_string()),
        cut_at: volume.cut_at,
        reclaim_policy: volume.reclaim_policy.map(|policy| match policy {
            ReclaimPolicy::Retain => RecordedReclaimPolicy::Retain,
            ReclaimPolicy::Delete => RecordedReclaimPolicy::Delete,
        }),
    })
}

/// The record that a restore point was saved from.
pub fn record(app: &AppRef, point: &RestorePoint) -> Result<RestorePointRecord, Error> {
    let name = point.name_any();
    let unusable = |why: &str| Error::RestorePoint { name: name.clone(), why: why.into() };
    let spec = &point.spec;
    let volumes = spec.data.iter().map(|data| {
        let map = |map: &std::collections::BTreeMap<String, String>| {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), json!(value))).collect::<Map<_, _>>())
        };
        let (labels, annotations) = (map(&data.claim.labels), map(&data.claim.annotations));
        let size = data.size.as_deref().ok_or_else(|| unusable("a volume has no size"))?;
        Ok(VolumeRecord {
            claim: data.claim.name.clone(),
            claim_uid: data.claim.uid.clone(),
            manifest: json!({ "metadata": { "labels": labels, "annotations": annotations }, "spec": data.claim.spec }),
            volume: data.volume.clone(),
            driver: data.driver.clone(),
            volume_handle: data.volume_handle.clone(),
            snapshot: data.snapshot.clone(),
            snapshot_uid: data.snapshot_uid.clone(),
            content: data.content.clone().ok_or_else(|| unusable("a volume has no snapshot content"))?,
            handle: data.handle.clone().ok_or_else(|| unusable("a volume has no snapshot handle"))?,
            size: bytes(size).map_err(|source| Error::Quantity {
                of: format!("the size of a volume of restore point {name}"),
                source,
            })?,
            cut_at: data.cut_at,
            reclaim_policy: data.reclaim_policy.map(|policy| match policy {
                RecordedReclaimPolicy::Retain => ReclaimPolicy::Retain,
                RecordedReclaimPolicy::Delete => ReclaimPolicy::Delete,
            }),
        })
    });
    Ok(RestorePointRecord {
        name: name.clone(),
        app: app.clone(),
        operation: spec.request.clone().unwrap_or_default(),
        taken_at: spec.taken_at.ok_or_else(|| unusable("it does not say when it was taken"))?,
        stopped: spec.consistency == Consistency::Stopped,
        pins: spec.pins.iter().map(pin_value).collect(),
        commits: spec
            .commits
            .iter()
            .map(|commit| HeadCommit { repository: commit.repository.clone(), sha: commit.sha.clone() })
            .collect(),
        volumes: volumes.collect::<Result<_, Error>>()?,
        void: spec.void.clone(),
    })
}

#[async_trait]
impl RestorePoints for RestorePointStore {
    async fn save(&self, record: &RestorePointRecord) -> Result<(), Failure> {
        Ok(self.create(record).await?)
    }

    async fn get(&self, app: &AppRef, name: &str) -> Result<Option<RestorePointRecord>, Failure> {
        let Some(point) = self.read(app, name).await? else { return Ok(None) };
        of_app(&point, app)?;
        Ok(Some(record(app, &point)?))
    }

    async fn void(&self, app: &AppRef, name: &str, reason: &str) -> Result<(), Failure> {
        Ok(self.make_void(app, name, reason).await?)
    }

    async fn replaced(&self, app: &AppRef, name: &str, volumes: &[ports::ReplacedVolume]) -> Result<(), Failure> {
        Ok(self.note_replaced(app, name, volumes).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str) -> AppRef {
        AppRef { namespace: "notes".into(), name: name.into(), uid: "u".into() }
    }

    fn a_record() -> RestorePointRecord {
        RestorePointRecord {
            name: "notes-1".into(),
            app: app("notes"),
            operation: "op".into(),
            taken_at: "2026-11-20T14:29:58.123456789Z".parse().unwrap(),
            stopped: true,
            pins: vec![PinValue {
                pin: ports::Pin {
                    component: "image/notes".into(),
                    repository: "apps".into(),
                    path: "apps/notes/release.yaml".into(),
                    object: "HelmRelease/notes".into(),
                    field: "spec.values.image.tag".into(),
                    part: ports::PinPart::Tag,
                },
                value: "1.4.0".into(),
            }],
            volumes: vec![VolumeRecord {
                claim: "data".into(),
                claim_uid: "c".into(),
                manifest: json!({
                    "metadata": { "labels": { "app": "notes" }, "annotations": {} },
                    "spec": { "storageClassName": "fast", "newer": [1] }
                }),
                volume: "pv-1".into(),
                driver: "d".into(),
                volume_handle: "h".into(),
                snapshot: "s".into(),
                snapshot_uid: "su".into(),
                content: "c".into(),
                handle: "sh".into(),
                size: (1 << 30) + 1,
                cut_at: Some("2026-11-20T14:29:58.123456789Z".parse().unwrap()),
                reclaim_policy: Some(ReclaimPolicy::Delete),
            }],
            commits: vec![HeadCommit { repository: "apps".into(), sha: "0a".repeat(20) }],
            void: String::new(),
        }
    }

    #[test]
    fn a_record_survives_being_kept_as_an_object() {
        let saved = serde_json::to_value(object(&a_record()).unwrap()).unwrap();
        let point: RestorePoint = serde_json::from_value(saved).unwrap();
        assert_eq!(record(&app("notes"), &point).unwrap(), a_record());
        assert_eq!(point.spec.components["image/notes"], "1.4.0");
    }

    #[test]
    fn a_restore_point_with_gaps_is_not_read_as_a_record() {
        let point = object(&a_record()).unwrap();
        for remove in ["/spec/takenAt", "/spec/data/0/handle", "/spec/data/0/content", "/spec/data/0/size"] {
            let mut saved = serde_json::to_value(&point).unwrap();
            let (parent, key) = remove.rsplit_once('/').unwrap();
            saved.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key).unwrap();
            assert!(record(&app("notes"), &serde_json::from_value(saved).unwrap()).is_err(), "{remove}");
        }
    }

    #[test]
    fn another_apps_restore_point_is_refused() {
        let point = object(&a_record()).unwrap();
        assert!(of_app(&point, &app("notes")).is_ok());
        assert!(of_app(&point, &app("wiki")).is_err());
    }
}
