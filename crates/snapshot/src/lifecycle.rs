//! What happens to a restore point after it was saved: it is looked at, it expires, it goes.

use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, Preconditions};
use serde_json::{Value, json};
use upgrade_core::Failure;
use windlass_api::call::{CallError, patch_params};
use windlass_api::{ReplacedVolume, RestorePoint};

use crate::csi::gone_is_done;
use crate::labels::COPIES;
use crate::{Error, RestorePointStore};

/// Each write is made on the restore point as it was read, and refused (`changed-meanwhile`, retryable) if it has changed
/// since. Those that give a restore point back give it as it was written.
impl RestorePointStore {
    /// Sees to it that the restore point does not go before its copies.
    pub async fn hold(&self, point: &RestorePoint) -> Result<RestorePoint, Failure> {
        if point.finalizers().iter().any(|one| one == COPIES) || point.metadata.deletion_timestamp.is_some() {
            return Ok(point.clone());
        }
        let mut finalizers = point.finalizers().to_vec();
        finalizers.push(COPIES.into());
        let held = self.set_finalizers(point, &finalizers).await?;
        Ok(held.unwrap_or_else(|| point.clone()))
    }

    /// Lets a restore point that is being deleted go.
    pub async fn let_go(&self, point: &RestorePoint) -> Result<(), Failure> {
        if !point.finalizers().iter().any(|one| one == COPIES) {
            return Ok(());
        }
        let rest: Vec<String> = point.finalizers().iter().filter(|one| *one != COPIES).cloned().collect();
        self.set_finalizers(point, &rest).await?;
        Ok(())
    }

    /// Deletes a restore point. Its copies go first, by whoever holds it.
    pub async fn expire(&self, point: &RestorePoint) -> Result<(), Failure> {
        let (namespace, name) = (point.namespace().unwrap_or_default(), point.name_any());
        let as_read = Preconditions { uid: point.uid(), resource_version: point.resource_version() };
        let done = self.points_in(&namespace).delete(&name, &DeleteParams::default().preconditions(as_read)).await;
        let done = done.map(drop).map_err(CallError::on::<RestorePoint>("delete", &namespace, &name));
        Ok(gone_is_done(done)?)
    }

    /// Writes whether it can be restored (`None`: nobody knows) and why not, or what it waits for.
    pub async fn set_usable(
        &self,
        point: &RestorePoint,
        usable: Option<bool>,
        reason: Option<&str>,
    ) -> Result<RestorePoint, Failure> {
        let status = point.status.clone().unwrap_or_default();
        if status.usable == usable && status.reason.as_deref() == reason {
            return Ok(point.clone());
        }
        Ok(self.patch_status(point, json!({ "usable": usable, "reason": reason })).await?)
    }

    /// Writes which replaced volumes are still noted.
    pub async fn set_replaced(&self, point: &RestorePoint, noted: &[ReplacedVolume]) -> Result<RestorePoint, Failure> {
        if point.status.as_ref().is_some_and(|status| status.replaced_volumes == noted) {
            return Ok(point.clone());
        }
        Ok(self.patch_status(point, json!({ "replacedVolumes": noted })).await?)
    }

    async fn set_finalizers(&self, point: &RestorePoint, finalizers: &[String]) -> Result<Option<RestorePoint>, Error> {
        let (namespace, name) = (point.namespace().unwrap_or_default(), point.name_any());
        let metadata: Value =
            json!({ "uid": point.uid(), "resourceVersion": point.resource_version(), "finalizers": finalizers });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let done = self.points_in(&namespace).patch(&name, &patch_params(), &patch).await;
        match done.map_err(CallError::on::<RestorePoint>("patch", &namespace, &name)) {
            Ok(point) => Ok(Some(point)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
