//! csi-provisioner: makes the volumes of claims.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::PoisonError;
use std::time::Duration;

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::driver::{FailureCode, Refusal, VolumeInfo, VolumeRequest};
use super::objects::{
    Kind, Name, Object, PROVISIONED_BY, SELECTED_NODE, SNAPSHOT_IS_SOURCE, SNAPSHOT_RESTORED, SNAPSHOTS,
    VOLUME_PROVISIONED, annotation, bound_content, class_name, cluster, data_source, deleting, has_finalizer, is_of,
    is_ready, provisioner, requested, text, uid, value, volume_mode, volume_name,
};
use super::{Done, Next, Trouble, Volumes, quantity};
use crate::server::json::at;

pub(super) const PROVISIONER: &str = "csi-provisioner";

/// How long a call to the driver may take. The real sidecar gives up as early.
pub(super) const CALL: Duration = Duration::from_secs(10);

/// Why there is no volume.
enum Failure {
    /// It is for somebody else to make it.
    NotOurs,
    /// The driver was not asked.
    Before(Trouble),
    /// The driver refused.
    Driver(Refusal),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self::Before(trouble)
    }
}

impl Volumes {
    pub(super) async fn provision(&self, name: &Name) -> Done {
        let claim = self.get(Kind::Claim, name);
        let begun = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        // A call that was given up for a claim that is gone may still make its volume, which nobody would find.
        let abandoned = begun.filter(|begun| claim.as_ref().is_none_or(|claim| uid(claim) != uid(begun)));
        if let Some(abandoned) = abandoned {
            self.make_volume(name, &abandoned).await?;
            return if claim.is_some() { Ok(Next::Again) } else { Ok(Next::Wait) };
        }
        match claim {
            Some(claim) if self.is_wanted(&claim) => self.make_volume(name, &claim).await,
            _ => Ok(Next::Wait),
        }
    }

    /// Whether the claim waits for a volume of ours.
    fn is_wanted(&self, claim: &Object) -> bool {
        if !volume_name(claim).is_empty() || provisioner(claim) != Some(&self.context.driver_name) {
            return false;
        }
        let Some(class) = self.get(Kind::Class, &cluster(class_name(claim))) else { return false };
        let delayed = text(&class, &["volumeBindingMode"]) == "WaitForFirstConsumer";
        text(&class, &["provisioner"]) == self.context.driver_name
            && (!delayed || annotation(claim, SELECTED_NODE).is_some_and(|node| !node.is_empty()))
    }

    async fn make_volume(&self, name: &Name, claim: &Object) -> Done {
        let volume = format!("pvc-{}", uid(claim));
        if self.get(Kind::Volume, &cluster(&volume)).is_some() {
            self.begun(name, None);
            return Ok(Next::Wait);
        }
        let class = self.get(Kind::Class, &cluster(class_name(claim)));
        let class = class.ok_or_else(|| Trouble::Told(format!("storage class {} is gone", class_name(claim))))?;
        let about = format!("External provisioner is provisioning volume for claim \"{}/{}\"", name.0, name.1);
        self.event(PROVISIONER, (Kind::Claim, claim), "Normal", "Provisioning", &about).await;

        let (why, ended) = match self.ask_driver(&volume, claim, &class).await {
            Ok(info) => {
                self.let_go_of_source(claim).await?;
                self.create(PROVISIONER, Kind::Volume, self.volume_object(&volume, claim, &class, &info)).await?;
                self.begun(name, None);
                let done = format!("Successfully provisioned volume {volume}");
                self.event(PROVISIONER, (Kind::Claim, claim), "Normal", "ProvisioningSucceeded", &done).await;
                return Ok(Next::Wait);
            }
            Err(Failure::NotOurs) => {
                let about = "Assuming an external populator will provision the volume";
                self.event(PROVISIONER, (Kind::Claim, claim), "Normal", "Provisioning", about).await;
                return Ok(Next::Wait);
            }
            Err(Failure::Before(trouble)) => (trouble.to_string(), false),
            Err(Failure::Driver(refusal)) => (refusal.to_string(), !refusal.code.may_go_on()),
        };
        if ended {
            self.begun(name, None);
        }
        self.event(PROVISIONER, (Kind::Claim, claim), "Warning", "ProvisioningFailed", &why).await;
        Err(Trouble::Told(why))
    }

    /// Remembers that a volume may be being made for this claim, or that none is.
    fn begun(&self, name: &Name, claim: Option<&Object>) {
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        match claim {
            Some(claim) => unfinished.insert(name.clone(), claim.clone()),
            None => unfinished.remove(name),
        };
    }

    async fn ask_driver(&self, volume: &str, claim: &Object, class: &Object) -> Result<VolumeInfo, Failure> {
        let told = |why: String| Failure::Before(Trouble::Told(why));
        let mut from_snapshot = None;
        match data_source(claim) {
            None => {}
            Some((_, _, "")) => return Err(told(format!("the PVC source not found for PVC {}", claim.name_any()))),
            Some(("VolumeSnapshot", SNAPSHOTS, snapshot)) => {
                from_snapshot = Some(self.snapshot_handle(snapshot, claim, class).await?);
            }
            Some(("VolumeSnapshot", group, _)) => {
                return Err(told(format!(
                    "the PVC source does not belong to the right APIGroup. Expected {SNAPSHOTS}, Got {group}"
                )));
            }
            Some(("PersistentVolumeClaim", ..)) => {
                return Err(told(
                    "CSI driver does not support clone operations: controller CLONE_VOLUME capability is not reported"
                        .into(),
                ));
            }
            Some(_) => return Err(Failure::NotOurs),
        }
        if !value(claim, &["spec", "selector"]).is_null() {
            return Err(told("claim Selector is not supported".into()));
        }
        let wanted = VolumeRequest {
            name: volume.to_owned(),
            required_bytes: requested(claim),
            limit_bytes: 0,
            from_snapshot,
            parameters: parameters(class),
        };
        let name = super::objects::name_of(claim);
        self.begun(&name, Some(claim));
        within(CALL, self.context.driver.create_volume(wanted)).await.map_err(Failure::Driver)
    }

    /// The driver's handle of the snapshot that the claim is to be made from, once everything about it is in order.
    async fn snapshot_handle(&self, name: &str, claim: &Object, class: &Object) -> Result<String, Trouble> {
        let wrong = |why: String| {
            Err(Trouble::Told(format!("error getting handle for DataSource Type VolumeSnapshot by Name {name}: {why}")))
        };
        let snapshot_name = (claim.namespace().unwrap_or_default(), name.to_owned());
        let Some(snapshot) = self.get(Kind::Snapshot, &snapshot_name) else {
            return wrong(format!(
                "error getting snapshot {name} from api server: volumesnapshots \"{name}\" not found"
            ));
        };
        if deleting(&snapshot) && !has_finalizer(&snapshot, SNAPSHOT_IS_SOURCE) {
            return wrong(format!("snapshot {name} is being deleted"));
        }
        let Some(bound) = bound_content(&snapshot) else { return wrong(format!("snapshot {name} not bound")) };
        let Some(content) = self.get(Kind::Content, &cluster(bound)) else {
            return wrong(format!("error getting snapshotcontent {bound} for snapshot {name} from api server"));
        };
        if !is_of(&content, &snapshot) {
            return wrong(format!("snapshotcontent {bound} for snapshot {name} is bound to a different snapshot"));
        }
        if text(&content, &["spec", "driver"]) != text(class, &["provisioner"]) {
            return wrong(format!(
                "snapshotcontent {bound} for snapshot {name} is handled by a different CSI driver than requested by \
                 StorageClass {}",
                class.name_any()
            ));
        }
        if !is_ready(&snapshot) {
            return wrong(format!("snapshot {name} is not Ready"));
        }
        let Some(handle) = value(&content, &["status", "snapshotHandle"]).as_str() else {
            return wrong(format!("snapshot handle {name} is not available"));
        };
        let size = quantity::bytes(text(&snapshot, &["status", "restoreSize"])).unwrap_or_default();
        if requested(claim) < size {
            return wrong(format!(
                "requested volume size {} is less than the size {size} for the source snapshot {name}",
                requested(claim)
            ));
        }
        let mode = text(&content, &["spec", "sourceVolumeMode"]);
        let may_differ =
            annotation(&content, "snapshot.storage.kubernetes.io/allow-volume-mode-change") == Some("true");
        if !mode.is_empty() && mode != volume_mode(claim) && !may_differ {
            return wrong(format!(
                "requested volume {}/{} modifies the mode of the source volume but does not have permission to do so.",
                snapshot_name.0,
                claim.name_any()
            ));
        }
        self.finalizers(PROVISIONER, Kind::Snapshot, &snapshot, &[(SNAPSHOT_RESTORED, true)]).await?;
        Ok(handle.to_owned())
    }

    async fn let_go_of_source(&self, claim: &Object) -> Result<(), Trouble> {
        let source = super::objects::data_snapshot(claim);
        if let Some(snapshot) = source.and_then(|source| self.get(Kind::Snapshot, &source)) {
            self.finalizers(PROVISIONER, Kind::Snapshot, &snapshot, &[(SNAPSHOT_RESTORED, false)]).await?;
        }
        Ok(())
    }

    fn volume_object(&self, name: &str, claim: &Object, class: &Object, info: &VolumeInfo) -> Value {
        let driver = &self.context.driver_name;
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {
                "name": name, "finalizers": [VOLUME_PROVISIONED],
                "annotations": {
                    PROVISIONED_BY: driver,
                    "volume.kubernetes.io/provisioner-deletion-secret-name": "",
                    "volume.kubernetes.io/provisioner-deletion-secret-namespace": "",
                },
            },
            "spec": {
                "accessModes": value(claim, &["spec", "accessModes"]),
                "capacity": { "storage": quantity::text(info.bytes) },
                "claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(),
                    "name": claim.name_any(), "uid": uid(claim), "resourceVersion": claim.metadata.resource_version,
                },
                "csi": {
                    "driver": driver, "volumeHandle": name, "fsType": "ext4",
                    "volumeAttributes": { "storage.kubernetes.io/csiProvisionerIdentity": format!("0-0-{driver}") },
                },
                "mountOptions": value(class, &["mountOptions"]),
                "persistentVolumeReclaimPolicy": value(class, &["reclaimPolicy"]),
                "storageClassName": class.name_any(),
                "volumeMode": volume_mode(claim),
            },
        })
    }
}

/// The parameters of a class that the driver is told: those for the sidecars are not.
pub(super) fn parameters(class: &Object) -> BTreeMap<String, String> {
    let given = at(&class.data, &["parameters"]).as_object();
    given
        .into_iter()
        .flatten()
        .filter(|(key, _)| !key.starts_with("csi.storage.k8s.io/"))
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// A call to the driver that is given up in time. The driver goes on.
pub(super) async fn within<T>(time: Duration, call: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    let given_up = || Refusal::new(FailureCode::DeadlineExceeded, "context deadline exceeded");
    tokio::time::timeout(time, call).await.unwrap_or_else(|_| Err(given_up()))
}
