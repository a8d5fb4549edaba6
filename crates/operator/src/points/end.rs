//! A restore point that is being deleted, by retention or by hand: its copies go first.

use std::time::Duration;

use kube::ResourceExt as _;
use upgrade_core::Failure;
use upgrade_core::app::replaced::Fate;
use upgrade_core::app::retention::held_for;
use upgrade_core::ports::{Leaving, RestorePoints as _};
use windlass_api::RestorePoint;
use windlass_snapshot::{COPIES, copies};

use super::look::Replaced;
use super::{Keeper, LOOK_EVERY, LOOK_SOON};
use crate::context;

impl Keeper<'_> {
    pub(super) async fn end(&self, point: RestorePoint) -> Result<Option<Duration>, Failure> {
        let (namespace, name) = (self.app.namespace.as_str(), point.name_any());
        if !point.finalizers().iter().any(|one| one == COPIES) {
            return Ok(None);
        }
        // A namespace may be deleted by mistake, and must not wait for a driver: the copies stay in the storage system, each
        // behind its content, which is on Retain and needs no namespace.
        if let Some(why) = context::let_go(&self.client, namespace).await? {
            let kept: Vec<String> = copies(&point).into_iter().map(|copy| copy.content).collect();
            tracing::warn!(namespace, name, why, contents = ?kept, "a restore point is let go, its copies stay");
            self.store.let_go(&point).await?;
            return Ok(None);
        }
        if let Some(why) = held_for(&name, &self.requests().await?) {
            let usable = point.status.as_ref().and_then(|status| status.usable);
            self.store.set_usable(&point, usable, Some(&format!("it is to be deleted, but {why}"))).await?;
            return Ok(Some(LOOK_SOON));
        }
        // From here on nobody may begin to restore it.
        self.may_act()?;
        if point.spec.void.is_empty() {
            self.store.void(&self.app, &name, "it is being deleted").await?;
        }
        if let Some(app) = self.managed_app().await? {
            self.count(&app, &self.points().await?).await?;
        }
        let mut waits_for = None;
        let mut refused = None;
        for copy in copies(&point) {
            self.may_act()?;
            match self.disposal.drop_copy(&copy).await {
                Ok(Leaving::Gone) => {}
                Ok(Leaving::Going(what)) => waits_for = Some(what),
                Err(failure) if failure.retryable => return Err(failure),
                Err(failure) => refused = Some(failure.message),
            }
        }
        // It was written to above.
        let Some(point) = self.again(&point).await? else { return Ok(None) };
        match refused.or(waits_for.clone()) {
            Some(what) => {
                self.store.set_usable(&point, Some(false), Some(&format!("it is being deleted: {what}"))).await?;
                Ok(Some(if waits_for.is_some() { LOOK_SOON } else { LOOK_EVERY }))
            }
            None => {
                // Volumes whose time is over go with the copies that were cut from them, and after them.
                let Replaced { point, fates, again } = self.look_at_replaced(point).await?;
                let noted = point.status.clone().unwrap_or_default().replaced_volumes;
                let goes = |fate: &Fate| matches!(fate, Fate::Reclaim | Fate::Going | Fate::Wait(_));
                if let Some((volume, _)) = noted.iter().zip(&fates).find(|(_, fate)| goes(fate)) {
                    let why = format!("it is being deleted: volume {}: {}", volume.volume, volume.reason);
                    self.store.set_usable(&point, Some(false), Some(&why)).await?;
                    return Ok(Some(again));
                }
                for volume in noted {
                    tracing::warn!(
                        namespace,
                        name,
                        volume = volume.volume,
                        "a replaced volume stays, and is noted nowhere any more"
                    );
                }
                self.store.let_go(&point).await?;
                Ok(None)
            }
        }
    }
}
