//! csi-provisioner: deletes the volumes that nobody wants any more.

use kube::ResourceExt as _;

use super::bind_volumes::policy;
use super::objects::{
    Kind, Name, Object, PROVISIONED_BY, VOLUME_PROVISIONED, annotation, deleting, has_finalizer, phase, text,
};
use super::provision::{CALL, PROVISIONER, within};
use super::{Done, Next, Trouble, Volumes};

impl Volumes {
    pub(super) async fn reclaim(&self, name: &Name) -> Done {
        let Some(volume) = self.get(Kind::Volume, name).filter(|volume| self.is_ours(volume)) else {
            return Ok(Next::Wait);
        };
        let volume = match policy(&volume) {
            "Delete" if !deleting(&volume) && phase(&volume) == "Bound" => self.held(&volume, true).await?,
            "Delete" => volume,
            _ => self.held(&volume, false).await?,
        };
        // Without its finalizer a volume that is being deleted has been seen to already.
        let over = deleting(&volume) && !has_finalizer(&volume, VOLUME_PROVISIONED);
        if over || phase(&volume) != "Released" || policy(&volume) != "Delete" {
            return Ok(Next::Wait);
        }
        if let Err(why) = self.delete_bytes(&volume).await {
            self.event(PROVISIONER, (Kind::Volume, &volume), "Warning", "VolumeFailedDelete", &why).await;
            return Err(Trouble::Told(why));
        }
        self.delete(Kind::Volume, &volume).await?;
        if let Some(going) = self.read(Kind::Volume, name).await? {
            self.held(&going, false).await?;
        }
        Ok(Next::Wait)
    }

    async fn held(&self, volume: &Object, wanted: bool) -> Result<Object, Trouble> {
        self.finalizers(PROVISIONER, Kind::Volume, volume, &[(VOLUME_PROVISIONED, wanted)]).await
    }

    async fn delete_bytes(&self, volume: &Object) -> Result<(), String> {
        let attached = self
            .all(Kind::Attachment)
            .into_iter()
            .find(|attachment| text(attachment, &["spec", "source", "persistentVolumeName"]) == volume.name_any());
        if let Some(attached) = attached {
            let (name, node) = (volume.name_any(), text(&attached, &["spec", "nodeName"]).to_owned());
            return Err(format!("persistentvolume {name} is still attached to node {node}"));
        }
        let handle = text(volume, &["spec", "csi", "volumeHandle"]);
        within(CALL, self.context.driver.delete_volume(handle)).await.map_err(|refusal| refusal.to_string())
    }

    /// Whether our provisioner made the volume, or somebody made it by hand for our driver.
    fn is_ours(&self, volume: &Object) -> bool {
        let by = annotation(volume, PROVISIONED_BY).unwrap_or_else(|| text(volume, &["spec", "csi", "driver"]));
        by == self.context.driver_name
    }
}
