//! One look at a restore point that is there: whether it can be restored, what becomes of the volumes noted on it, and whether
//! it expires.

use std::time::Duration;

use jiff::Timestamp;
use kube::{Api, ResourceExt as _};
use upgrade_core::Failure;
use upgrade_core::app::replaced;
use upgrade_core::app::retention::{Fate, PointFacts, RequestFacts, RetentionPolicy, Usability, problem, retention};
use upgrade_core::ports::{ProtectedVolume, ReplacedVolume};
use windlass_api::call::CallError;
use windlass_api::{ManagedApp, RestorePoint};
use windlass_snapshot::record;

use super::{Keeper, LOOK_EVERY, LOOK_SOON};
use crate::resolve;
use crate::store::failed;

/// The volumes that are noted on a restore point, looked at.
pub(super) struct Replaced {
    /// With what is still noted.
    pub(super) point: RestorePoint,
    /// What becomes of each that is.
    pub(super) fates: Vec<replaced::Fate>,
    /// When to look again.
    pub(super) again: Duration,
}

impl Keeper<'_> {
    pub(super) async fn look(&self, point: RestorePoint) -> Result<Duration, Failure> {
        let point = self.store.hold(&point).await?;
        let usable = self.judge(&point).await?;
        let point = match &usable {
            Usability::Usable => self.store.set_usable(&point, Some(true), None).await?,
            Usability::Unusable(why) => self.store.set_usable(&point, Some(false), Some(why)).await?,
            Usability::Unknown => point,
        };
        let Replaced { point, fates, again } = self.look_at_replaced(point).await?;
        let Some(app) = self.managed_app().await? else { return Ok(again) };
        let points = self.points().await?;
        self.count(&app, &points).await?;
        let holds = fates.iter().any(|fate| replaced::holds(fate, &point.name_any()));
        self.look_at_age(&app, &point, holds, &points).await?;
        Ok(again)
    }

    pub(super) async fn managed_app(&self) -> Result<Option<ManagedApp>, Failure> {
        let api: Api<ManagedApp> = Api::namespaced(self.client.clone(), &self.app.namespace);
        let found = api.get_opt(&self.app.name).await;
        let found = found.map_err(CallError::on::<ManagedApp>("get", &self.app.namespace, &self.app.name));
        found.map_err(|error| failed(&error))
    }

    /// Whether it can be restored, as its snapshots are now.
    async fn judge(&self, point: &RestorePoint) -> Result<Usability, Failure> {
        if !point.spec.void.is_empty() {
            return Ok(Usability::Unusable(point.spec.void.clone()));
        }
        let record = match record(&self.app, point) {
            Ok(record) => record,
            Err(error) => return Ok(Usability::Unusable(error.to_string())),
        };
        for volume in &record.volumes {
            let state = self.snapshots.snapshot_state(&self.app.namespace, &volume.snapshot).await?;
            if let Some(problem) = problem(volume, state.as_ref()) {
                return Ok(Usability::Unusable(problem));
            }
        }
        Ok(Usability::Usable)
    }

    /// Writes how many usable ones the app has.
    pub(super) async fn count(&self, app: &ManagedApp, points: &[RestorePoint]) -> Result<(), Failure> {
        let usable = points.iter().filter(|point| {
            let said = point.status.as_ref().and_then(|status| status.usable);
            said == Some(true) && point.spec.void.is_empty() && point.metadata.deletion_timestamp.is_none()
        });
        let usable = i32::try_from(usable.count()).unwrap_or(i32::MAX);
        match self.apps.set_restore_points(&resolve::app_ref(app), usable).await {
            Err(failure) if failure.code == "app-gone" => Ok(()),
            other => other,
        }
    }

    /// Has it deleted if it has expired: judged first by what is known, then by what is there. `holds` says whether volumes that are
    /// noted on it need it.
    async fn look_at_age(
        &self,
        app: &ManagedApp,
        point: &RestorePoint,
        holds: bool,
        all: &[RestorePoint],
    ) -> Result<(), Failure> {
        let retains = &app.spec.snapshots.retention;
        let policy = RetentionPolicy { keep_last: retains.keep_last(), max_age: retains.max_age().as_signed() };
        let name = point.name_any();
        let fate = |facts: &[PointFacts], requests: &[RequestFacts]| {
            retention(facts, policy, self.now, requests).remove(&name)
        };
        let known: Vec<PointFacts> = all.iter().map(|point| self.facts(point, said(point), holds)).collect();
        if !matches!(fate(&known, &[]), Some(Fate::Expire(_))) {
            return Ok(());
        }
        let mut proven = Vec::new();
        for point in all {
            proven.push(self.facts(point, self.judge(point).await?, holds));
        }
        let requests = self.requests().await?;
        if let Some(Fate::Expire(why)) = fate(&proven, &requests) {
            self.may_act()?;
            tracing::info!(namespace = self.app.namespace, name, why, "a restore point expires");
            self.store.expire(point).await?;
        }
        Ok(())
    }

    /// What `holds_volumes` says matters for the one that is looked at only.
    fn facts(&self, point: &RestorePoint, usable: Usability, holds_volumes: bool) -> PointFacts {
        let made = point.creation_timestamp().map(|at| at.0);
        PointFacts {
            name: point.name_any(),
            taken_at: point.spec.taken_at.or(made).unwrap_or(self.now),
            void: !point.spec.void.is_empty(),
            usable,
            deleting: point.metadata.deletion_timestamp.is_some(),
            holds_volumes,
        }
    }

    /// Looks after the volumes that are noted on it.
    pub(super) async fn look_at_replaced(&self, point: RestorePoint) -> Result<Replaced, Failure> {
        let noted = point.status.as_ref().map(|status| status.replaced_volumes.clone()).unwrap_or_default();
        let mut again = LOOK_EVERY;
        let (mut kept, mut fates) = (Vec::new(), Vec::new());
        for mut entry in noted {
            let fate = if self.now < entry.keep_until {
                again = again.min(until(self.now, entry.keep_until));
                replaced::Fate::Keep
            } else {
                self.replaced_fate(&entry).await?
            };
            match &fate {
                replaced::Fate::Keep => {}
                replaced::Fate::Wait(why) => entry.reason.clone_from(why),
                replaced::Fate::Needed(points) => {
                    entry.reason = format!("copies of restore point {} were cut from it", points.join(", "));
                }
                replaced::Fate::Reclaim | replaced::Fate::Going => {
                    again = LOOK_SOON;
                    entry.reason = "it is being deleted".into();
                }
                replaced::Fate::Forget(why) => {
                    tracing::info!(namespace = self.app.namespace, volume = entry.volume, why, "no longer kept");
                    continue;
                }
            }
            kept.push(entry);
            fates.push(fate);
        }
        let point = self.store.set_replaced(&point, &kept).await?;
        Ok(Replaced { point, fates, again })
    }

    /// Decides about one volume whose time is over, and has it deleted if that is what is decided.
    async fn replaced_fate(&self, entry: &windlass_api::ReplacedVolume) -> Result<replaced::Fate, Failure> {
        let noted = ReplacedVolume {
            volume: entry.volume.clone(),
            uid: entry.uid.clone(),
            handle: entry.handle.clone(),
            claim: entry.claim.clone(),
            claim_uid: entry.claim_uid.clone(),
        };
        let namespace = &self.app.namespace;
        let state = self.snapshots.volume(&noted.volume).await?;
        let user = self.disposal.user(&noted.volume, namespace, &noted.claim).await?;
        let points = self.cut_from().await?;
        let (state_now, user) = (state.as_ref(), user.as_deref());
        let fate = replaced::fate(&noted, entry.keep_until, namespace, state_now, user, &points, self.now);
        let (replaced::Fate::Reclaim, Some(state)) = (&fate, state) else { return Ok(fate) };
        if let Some(request) = self.requests().await?.iter().find(|request| !request.over) {
            return Ok(replaced::Fate::Wait(format!("{} has not ended", request.name)));
        }
        self.may_act()?;
        let volume = ProtectedVolume { name: noted.volume, uid: state.uid };
        match self.disposal.reclaim(&volume, namespace, &noted.claim).await {
            Ok(()) => {
                tracing::info!(namespace, volume = volume.name, "a volume that a restore replaced is deleted");
                Ok(fate)
            }
            Err(failure) if failure.retryable => Err(failure),
            Err(failure) => Ok(replaced::Fate::Wait(failure.message)),
        }
    }
}

/// Whether it can be restored, as it was last written.
fn said(point: &RestorePoint) -> Usability {
    let status = point.status.clone().unwrap_or_default();
    match status.usable {
        Some(true) => Usability::Usable,
        Some(false) => Usability::Unusable(status.reason.unwrap_or_default()),
        None => Usability::Unknown,
    }
}

fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default().max(Duration::from_secs(1))
}
