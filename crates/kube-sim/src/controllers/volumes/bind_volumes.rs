//! The binder of kube-controller-manager, seen from the volume: phases and reclaiming.

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::bind_claims::BINDER;
use super::objects::{
    BOUND_BY_CONTROLLER, Kind, Name, Object, PROVISIONED_BY, annotation, claim_of, claim_uid, phase, text, uid,
    volume_mode, volume_name,
};
use super::{Done, Next, Trouble, Volumes};

const COMPONENT: &str = "persistentvolume-controller";

impl Volumes {
    pub(super) async fn bind_volume(&self, name: &Name) -> Done {
        let Some(volume) = self.get(Kind::Volume, name) else { return Ok(Next::Wait) };
        let Some(claim_name) = claim_of(&volume) else {
            self.volume_phase(&volume, "Available", "").await?;
            return Ok(Next::Wait);
        };
        if claim_uid(&volume).is_empty() {
            self.volume_phase(&volume, "Available", "").await?;
            return Ok(Next::Wait);
        }
        let its = |claim: &Object| uid(claim) == claim_uid(&volume);
        let claim = match self.get(Kind::Claim, &claim_name).filter(its) {
            // Releasing may delete the data: the server itself is asked first.
            None if !is_released(&volume) => self.read(Kind::Claim, &claim_name).await?.filter(its),
            known => known,
        };
        let Some(claim) = claim else { return self.release(volume).await };
        if volume_name(&claim).is_empty() {
            if volume_mode(&claim) != volume_mode(&volume) {
                let why = format!(
                    "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} due to incompatible volumeMode.",
                    claim.name_any()
                );
                self.event(COMPONENT, (Kind::Volume, &volume), "Warning", "VolumeMismatch", &why).await;
                return Ok(Next::Wait);
            }
            // The claim's own job binds it; the change that brought this one brought that one, too.
            return Ok(Next::Wait);
        }
        if volume_name(&claim) == volume.name_any() {
            self.volume_phase(&volume, "Bound", "").await?;
            return Ok(Next::Wait);
        }
        // The claim has another volume. One that was made for it is not wanted any more.
        if annotation(&volume, PROVISIONED_BY).is_some() && policy(&volume) == "Delete" {
            return self.release(volume).await;
        }
        self.unbind(&volume).await
    }

    /// Its claim is gone.
    async fn release(&self, volume: Object) -> Done {
        let volume = if is_released(&volume) { volume } else { self.volume_phase(&volume, "Released", "").await? };
        let why = match policy(&volume) {
            "Retain" => return Ok(Next::Wait),
            // Its provisioner deletes it; without one there is nobody who could.
            "Delete" if annotation(&volume, PROVISIONED_BY).is_some() => return Ok(Next::Wait),
            "Delete" => ("VolumeFailedDelete", "no deletable volume plugin matched"),
            "Recycle" => ("VolumeFailedRecycle", "No recycler plugin found for the volume!"),
            _ => ("VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy"),
        };
        if phase(&volume) != "Failed" {
            let volume = self.volume_phase(&volume, "Failed", why.1).await?;
            self.event(COMPONENT, (Kind::Volume, &volume), "Warning", why.0, why.1).await;
        }
        Ok(Next::Wait)
    }

    async fn unbind(&self, volume: &Object) -> Done {
        let patch = if annotation(volume, BOUND_BY_CONTROLLER).is_some() {
            json!({ "metadata": { "annotations": { BOUND_BY_CONTROLLER: null } }, "spec": { "claimRef": null } })
        } else {
            json!({ "spec": { "claimRef": { "uid": null } } })
        };
        let volume = self.patch(BINDER, Kind::Volume, volume, patch).await?;
        self.volume_phase(&volume, "Available", "").await?;
        Ok(Next::Wait)
    }

    /// Writes the phase of a volume, if it is another one.
    pub(super) async fn volume_phase(&self, volume: &Object, to: &str, message: &str) -> Result<Object, Trouble> {
        if phase(volume) == to {
            return Ok(volume.clone());
        }
        let message = if message.is_empty() { Value::Null } else { json!(message) };
        let status = json!({ "phase": to, "message": message, "lastPhaseTransitionTime": self.now_text() });
        self.patch_status(BINDER, Kind::Volume, volume, status).await
    }
}

fn is_released(volume: &Object) -> bool {
    matches!(phase(volume), "Released" | "Failed")
}

/// What becomes of a volume when its claim is gone.
pub(super) fn policy(volume: &Object) -> &str {
    text(volume, &["spec", "persistentVolumeReclaimPolicy"])
}
