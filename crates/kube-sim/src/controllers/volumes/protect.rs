//! What kube-controller-manager holds back from being deleted: claims that pods use and volumes that are bound.

use kube::ResourceExt as _;
use kube::api::DynamicObject;

use super::bind_claims::BINDER;
use super::concerns::claims_of;
use super::objects::{CLAIM_IN_USE, Kind, Name, VOLUME_BOUND, deleting, has_finalizer, name_of, phase, text, uid};
use super::{Done, Next, Volumes};

impl Volumes {
    pub(super) async fn protect_claim(&self, name: &Name) -> Done {
        let Some(claim) = self.get(Kind::Claim, name) else { return Ok(Next::Wait) };
        if !deleting(&claim) {
            self.finalizers(BINDER, Kind::Claim, &claim, &[(CLAIM_IN_USE, true)]).await?;
        } else if has_finalizer(&claim, CLAIM_IN_USE)
            && !self.all(Kind::Pod).iter().any(|pod| holds(pod, &claim))
            // A pod may have been placed a moment ago: the server itself is asked as well.
            && !self.list(Kind::Pod, &name.0).await?.iter().any(|pod| holds(pod, &claim))
        {
            self.finalizers(BINDER, Kind::Claim, &claim, &[(CLAIM_IN_USE, false)]).await?;
        }
        Ok(Next::Wait)
    }

    pub(super) async fn protect_volume(&self, name: &Name) -> Done {
        let Some(volume) = self.get(Kind::Volume, name) else { return Ok(Next::Wait) };
        if !deleting(&volume) {
            self.finalizers(BINDER, Kind::Volume, &volume, &[(VOLUME_BOUND, true)]).await?;
        } else if phase(&volume) != "Bound" {
            self.finalizers(BINDER, Kind::Volume, &volume, &[(VOLUME_BOUND, false)]).await?;
        }
        Ok(Next::Wait)
    }
}

/// Whether a pod holds a claim: every one that was placed on a node and names it does, also when it has ended long ago. Only
/// the claims made for a pod alone are let go once it is shut down.
fn holds(pod: &DynamicObject, claim: &DynamicObject) -> bool {
    let own = claim.owner_references().iter().any(|owner| owner.kind == "Pod" && owner.uid == uid(pod));
    let shut_down = deleting(pod) && pod.metadata.deletion_grace_period_seconds == Some(0);
    !text(pod, &["spec", "nodeName"]).is_empty() && claims_of(pod).contains(&name_of(claim)) && !(own && shut_down)
}
