//! The binder of kube-controller-manager, seen from the claim.

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::objects::{
    BETA_PROVISIONER, BIND_COMPLETED, BOUND_BY_CONTROLLER, Kind, Name, Object, PROVISIONER, SELECTED_NODE, annotation,
    claim_of, claim_uid, class_name, cluster, deleting, is_for, name_of, phase, requested, text, uid, value,
    volume_mode, volume_name,
};
use super::{Done, Next, Trouble, Volumes, quantity};
use crate::server::json::{at, list_at, set};
use crate::server::selectors::LabelSelector;

pub(super) const BINDER: &str = "kube-controller-manager";
const COMPONENT: &str = "persistentvolume-controller";

impl Volumes {
    pub(super) async fn bind_claim(&self, name: &Name) -> Done {
        let Some(claim) = self.get(Kind::Claim, name) else { return Ok(Next::Wait) };
        let bound = annotation(&claim, BIND_COMPLETED).is_some();
        let volume = self.get(Kind::Volume, &cluster(volume_name(&claim)));
        match (bound, volume) {
            (false, _) if volume_name(&claim).is_empty() => self.find_volume(&claim).await,
            (false, None) => self.claim_pending(&claim).await,
            (false, Some(volume)) => self.take_volume(&claim, &volume).await,
            (true, Some(volume)) if claim_of(&volume).is_none() || claim_uid(&volume) == uid(&claim) => {
                self.bind(&volume, &claim).await
            }
            (true, Some(_)) => {
                let why = "Two claims are bound to the same volume, this one is bound incorrectly";
                self.claim_lost(&claim, "ClaimMisbound", why).await
            }
            (true, None) if volume_name(&claim).is_empty() => {
                let why = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
                self.claim_lost(&claim, "ClaimLost", why).await
            }
            (true, None) => {
                let why = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
                self.claim_lost(&claim, "ClaimLost", why).await
            }
        }
    }

    /// A claim that names no volume gets one that fits, or has one made.
    async fn find_volume(&self, claim: &Object) -> Done {
        let class = self.get(Kind::Class, &cluster(class_name(claim)));
        let delayed = class.as_ref().is_some_and(|class| text(class, &["volumeBindingMode"]) == "WaitForFirstConsumer");
        if let Some(volume) = best_match(claim, &self.all(Kind::Volume), delayed) {
            return self.bind(&volume, claim).await;
        }
        if value(claim, &["spec", "storageClassName"]).is_null()
            && let Some(class) = self.all(Kind::Class).iter().find(|class| is_default(class))
        {
            let patch = json!({ "spec": { "storageClassName": class.name_any() } });
            self.patch(BINDER, Kind::Claim, claim, patch).await?;
            return Ok(Next::Wait);
        }
        if delayed && annotation(claim, SELECTED_NODE).is_none() {
            let why = "waiting for first consumer to be created before binding";
            self.claim_event(claim, "Normal", "WaitForFirstConsumer", why).await;
        } else if !class_name(claim).is_empty() {
            return self.hand_over(claim, class.as_ref()).await;
        } else {
            let why = "no persistent volumes available for this claim and no storage class is set";
            self.claim_event(claim, "Normal", "FailedBinding", why).await;
        }
        self.claim_pending(claim).await
    }

    /// Tells the provisioner of the claim's class that a volume is wanted.
    async fn hand_over(&self, claim: &Object, class: Option<&Object>) -> Done {
        let Some(class) = class else {
            let why = format!("storageclass.storage.k8s.io \"{}\" not found", class_name(claim));
            self.claim_event(claim, "Warning", "ProvisioningFailed", &why).await;
            return Ok(Next::Wait);
        };
        let provisioner = text(class, &["provisioner"]);
        if annotation(claim, PROVISIONER) != Some(provisioner) {
            let annotations = json!({ PROVISIONER: provisioner, BETA_PROVISIONER: provisioner });
            self.patch(BINDER, Kind::Claim, claim, json!({ "metadata": { "annotations": annotations } })).await?;
        }
        let why = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        self.claim_event(claim, "Normal", "ExternalProvisioning", &why).await;
        Ok(Next::Wait)
    }

    /// A claim that names a volume gets that one or none. Size, class and modes do not matter if the volume names it back.
    async fn take_volume(&self, claim: &Object, volume: &Object) -> Done {
        if claim_of(volume).is_some() {
            if is_for(volume, claim) {
                return self.bind(volume, claim).await;
            }
            let why = format!("volume {:?} already bound to a different claim.", volume.name_any());
            self.claim_event(claim, "Warning", "FailedBinding", &why).await;
            if annotation(claim, BOUND_BY_CONTROLLER).is_some() {
                return Err(Trouble::Told(why));
            }
            return self.claim_pending(claim).await;
        }
        match unsuitable(volume, claim) {
            None => self.bind(volume, claim).await,
            Some(why) => {
                let why = format!("Cannot bind to requested volume {:?}: {why}", volume.name_any());
                self.claim_event(claim, "Warning", "VolumeMismatch", &why).await;
                self.claim_pending(claim).await
            }
        }
    }

    /// Writes the binding: the volume's reference and phase, then the claim's.
    async fn bind(&self, volume: &Object, claim: &Object) -> Done {
        let mut volume = volume.clone();
        if claim_of(&volume) != Some(name_of(claim)) || claim_uid(&volume) != uid(claim) {
            let reference = json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(),
                "name": claim.name_any(), "uid": uid(claim), "resourceVersion": claim.metadata.resource_version,
            });
            let mut patch = json!({ "spec": { "claimRef": reference } });
            // A volume that was reserved for the claim is not marked as the binder's own choice.
            if !is_for(&volume, claim) {
                set(&mut patch, &["metadata", "annotations", BOUND_BY_CONTROLLER], "yes");
            }
            volume = self.patch(BINDER, Kind::Volume, &volume, patch).await?;
        }
        volume = self.volume_phase(&volume, "Bound", "").await?;

        let mut claim = claim.clone();
        let mut annotations = json!({});
        let mut spec = json!({});
        if volume_name(&claim) != volume.name_any() {
            set(&mut spec, &["volumeName"], volume.name_any());
            set(&mut annotations, &[BOUND_BY_CONTROLLER], "yes");
        }
        if annotation(&claim, BIND_COMPLETED).is_none() {
            set(&mut annotations, &[BIND_COMPLETED], "yes");
        }
        if annotations != json!({}) {
            let patch = json!({ "metadata": { "annotations": annotations }, "spec": spec });
            claim = self.patch(BINDER, Kind::Claim, &claim, patch).await?;
        }
        self.claim_phase(&claim, "Bound", Some(&volume)).await?;
        Ok(Next::Wait)
    }

    async fn claim_pending(&self, claim: &Object) -> Done {
        self.claim_phase(claim, "Pending", None).await?;
        Ok(Next::Wait)
    }

    async fn claim_lost(&self, claim: &Object, reason: &str, why: &str) -> Done {
        if phase(claim) != "Lost" {
            self.claim_phase(claim, "Lost", None).await?;
            self.claim_event(claim, "Warning", reason, why).await;
        }
        Ok(Next::Wait)
    }

    /// Writes the status of a claim, if it is another one.
    async fn claim_phase(&self, claim: &Object, to: &str, volume: Option<&Object>) -> Result<(), Trouble> {
        let (modes, capacity) = match volume {
            // The size is taken over once: later it is the resizer's.
            Some(volume) if phase(claim) != to => {
                (value(volume, &["spec", "accessModes"]).clone(), value(volume, &["spec", "capacity"]).clone())
            }
            Some(volume) => {
                (value(volume, &["spec", "accessModes"]).clone(), value(claim, &["status", "capacity"]).clone())
            }
            None => (Value::Null, Value::Null),
        };
        let status = json!({ "phase": to, "accessModes": modes, "capacity": capacity });
        let same = |field: &str| value(claim, &["status", field]) == at(&status, &[field]);
        if !["phase", "accessModes", "capacity"].into_iter().all(same) {
            self.patch_status(BINDER, Kind::Claim, claim, status).await?;
        }
        Ok(())
    }

    pub(super) async fn claim_event(&self, claim: &Object, sort: &str, reason: &str, message: &str) {
        self.event(COMPONENT, (Kind::Claim, claim), sort, reason, message).await;
    }
}

pub(super) fn is_default(class: &Object) -> bool {
    annotation(class, "storageclass.kubernetes.io/is-default-class") == Some("true")
}

fn capacity(volume: &Object) -> i64 {
    quantity::bytes(text(volume, &["spec", "capacity", "storage"])).unwrap_or_default()
}

fn modes_cover(volume: &Object, claim: &Object) -> bool {
    let offered = list_at(&volume.data, &["spec", "accessModes"]);
    list_at(&claim.data, &["spec", "accessModes"]).iter().all(|mode| offered.contains(mode))
}

/// Why a free volume cannot be what the claim asks for.
fn unsuitable(volume: &Object, claim: &Object) -> Option<String> {
    if deleting(volume) {
        Some(format!("the volume is marked for deletion {:?}", volume.name_any()))
    } else if capacity(volume) < requested(claim) {
        Some("requested PV is too small".into())
    } else if class_name(volume) != class_name(claim) {
        Some("storageClassName does not match".into())
    } else if volume_mode(volume) != volume_mode(claim) {
        Some("incompatible volumeMode".into())
    } else if !modes_cover(volume, claim) {
        Some("incompatible accessMode".into())
    } else {
        None
    }
}

/// The volume for a claim that names none: the one reserved for it, else the smallest that fits. A reserved one that is too
/// small is passed over, and the claim gets a new and empty volume.
fn best_match(claim: &Object, volumes: &[Object], delayed: bool) -> Option<Object> {
    let selector = value(claim, &["spec", "selector"]);
    let selector = if selector.is_null() { None } else { LabelSelector::from_object(selector) };
    let possible = volumes.iter().filter(|volume| {
        (claim_of(volume).is_none() || is_for(volume, claim))
            && capacity(volume) >= requested(claim)
            && volume_mode(volume) == volume_mode(claim)
            && modes_cover(volume, claim)
            && !deleting(volume)
    });
    let mut free = Vec::new();
    for volume in possible {
        if is_for(volume, claim) {
            return Some(volume.clone());
        }
        let labelled = json!({ "metadata": { "labels": volume.metadata.labels } });
        // With delayed binding the scheduler chooses among free volumes.
        if !delayed
            && phase(volume) == "Available"
            && selector.as_ref().is_none_or(|selector| selector.matches(&labelled))
            && class_name(volume) == class_name(claim)
        {
            free.push(volume);
        }
    }
    let rank = |volume: &Object| (list_at(&volume.data, &["spec", "accessModes"]).len(), capacity(volume));
    free.into_iter().min_by_key(|volume| rank(volume)).cloned()
}
