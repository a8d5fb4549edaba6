//! The swap of claims: restored copies aside, the originals freed, the claims made anew on the copies.
//!
//! At every instant at least one restorable copy exists: the original volume is on Retain before anything else, the
//! snapshot's content is, and the restored volume is before its helper claim goes.

use serde_json::{Value, json};

use super::{Work, gone, replaced};
use crate::Failure;
use crate::app::build::derived_name;
use crate::app::retention;
use crate::engine::{Direction, Observation};
use crate::ports::{Aside, ClaimState, ProtectedVolume, ReclaimPolicy};

impl Work<'_> {
    fn helper(&self, claim: &str) -> String {
        derived_name("windlass-restore", &self.cx.plan.operation, claim)
    }

    /// The restored volume, from the evidence of its binding.
    fn restored(&self, claim: &str) -> Result<ProtectedVolume, Failure> {
        let step = format!("restore/aside/{claim}");
        Ok(ProtectedVolume {
            name: self.must_have_seen(&step, "volume")?,
            uid: self.must_have_seen(&step, "volumeUid")?,
        })
    }

    fn namespace(&self) -> &str {
        &self.inputs.app.namespace
    }

    /// A copy is made from a snapshot by its name: whether that is still the one that was recorded, right before.
    pub(super) async fn prepare_restore_aside(&self, claim: &str) -> Result<Value, Failure> {
        let record = self.volume_record(claim)?;
        match self.not_restorable(claim).await? {
            Some(failure) => Err(failure),
            None => Ok(json!({"snapshot": record.snapshot, "snapshotUid": record.snapshot_uid})),
        }
    }

    async fn not_restorable(&self, claim: &str) -> Result<Option<Failure>, Failure> {
        let record = self.volume_record(claim)?;
        let state = self.ports.snapshots.snapshot_state(self.namespace(), &record.snapshot).await?;
        let code = if state.is_none() { "snapshot-gone" } else { "snapshot-not-usable" };
        Ok(retention::problem(record, state.as_ref()).map(|problem| {
            Failure::permanent(code, problem).with_hint("choose another restore point: windlass snapshots")
        }))
    }

    pub(super) async fn restore_aside(&self, claim: &str) -> Result<(), Failure> {
        let record = self.volume_record(claim)?;
        let capacity = self.inputs.claim(claim).map_or(0, |found| found.capacity);
        let aside = Aside {
            namespace: self.namespace().to_owned(),
            helper: self.helper(claim),
            snapshot: record.snapshot.clone(),
            claim: claim.to_owned(),
            manifest: record.manifest.clone(),
            size: record.size.max(capacity),
            operation: self.cx.plan.operation.clone(),
        };
        self.ports.snapshots.restore_aside(&aside).await
    }

    pub(super) async fn is_restored_aside(&self, claim: &str, direction: Direction) -> Result<Observation, Failure> {
        let helper = self.helper(claim);
        let found = self.ports.snapshots.claim(self.namespace(), &helper).await?;
        if direction == Direction::Undo {
            return Ok(match found {
                None => Observation::Done(json!({"gone": true})),
                Some(state) if state.deleting => Observation::pending(format!("claim {helper} to be gone"), 200),
                Some(_) => Observation::absent(),
            });
        }
        let record = self.volume_record(claim)?;
        let copied = self.is_copied_aside(claim, found, &record.volume_handle).await?;
        // And right after: what was put under that name in between may be what was copied.
        match copied {
            Observation::Done(_) => Ok(self.not_restorable(claim).await?.map_or(copied, Observation::Failed)),
            copied => Ok(copied),
        }
    }

    /// Whether the helper is bound to a copy, and not to the original itself.
    async fn is_copied_aside(
        &self,
        claim: &str,
        found: Option<ClaimState>,
        original: &str,
    ) -> Result<Observation, Failure> {
        let helper = self.helper(claim);
        let Some(state) = found else { return Ok(Observation::absent()) };
        if state.operation.as_deref() != Some(self.cx.plan.operation.as_str()) {
            return Err(Failure::permanent("not-ours", format!("claim {helper} belongs to somebody else")));
        }
        let (Some(volume), "Bound") = (&state.volume, state.phase.as_str()) else {
            return Ok(Observation::pending(format!("claim {helper} to be bound"), 100));
        };
        let restored = self.ports.snapshots.volume(volume).await?.ok_or_else(|| gone(format!("volume {volume}")))?;
        self.is_a_copy(claim, volume, &restored.handle, original)?;
        Ok(Observation::Done(json!({
            "helper": helper, "helperUid": state.uid, "volume": volume, "volumeUid": restored.uid,
            "handle": restored.handle, "policy": restored.reclaim_policy,
        })))
    }

    fn is_a_copy(&self, claim: &str, volume: &str, handle: &str, original: &str) -> Result<(), Failure> {
        if handle == original || self.inputs.claim(claim).is_some_and(|old| old.handle == handle) {
            let message = format!("volume {volume} is the original itself, not a copy of claim {claim}");
            return Err(Failure::permanent("restored-onto-original", message));
        }
        Ok(())
    }

    /// Restores a snapshot that was just taken, to see that it can be.
    pub(super) async fn try_restore(&self, claim: &str) -> Result<(), Failure> {
        let found = self.claim(claim)?;
        let proven = self.cx.journal.evidence(&format!("snapshot/verify/{claim}"));
        let size = proven.get("size").and_then(Value::as_i64).unwrap_or(0);
        let aside = Aside {
            namespace: self.namespace().to_owned(),
            helper: self.helper(claim),
            snapshot: self.snapshot_name(claim),
            claim: claim.to_owned(),
            manifest: found.manifest.clone(),
            size: size.max(found.capacity),
            operation: self.cx.plan.operation.clone(),
        };
        self.ports.snapshots.restore_aside(&aside).await
    }

    pub(super) async fn is_tried(&self, claim: &str) -> Result<Observation, Failure> {
        let found = self.ports.snapshots.claim(self.namespace(), &self.helper(claim)).await?;
        self.is_copied_aside(claim, found, &self.claim(claim)?.handle).await
    }

    /// The next effect towards the end of a trial copy: its volume to Delete whatever its class says, then the helper.
    pub(super) async fn drop_trial(&self, claim: &str) -> Result<(), Failure> {
        let helper = self.helper(claim);
        let snapshots = &self.ports.snapshots;
        if let Some(state) = snapshots.claim(self.namespace(), &helper).await? {
            if let Some(name) = state.volume.filter(|_| state.phase == "Bound")
                && let Some(volume) = snapshots.volume(&name).await?
                && volume.reclaim_policy != ReclaimPolicy::Delete
            {
                self.is_a_copy(claim, &name, &volume.handle, &self.claim(claim)?.handle)?;
                return snapshots.set_policy(&ProtectedVolume { name, uid: volume.uid }, ReclaimPolicy::Delete).await;
            }
            return self.drop_helper(claim).await;
        }
        let step = format!("snapshot/restore/{claim}");
        let (Some(name), Some(uid)) = (self.seen(&step, "volume"), self.seen(&step, "volumeUid")) else {
            return Ok(());
        };
        let helper_uid = self.must_have_seen(&step, "helperUid")?;
        snapshots.discard(&ProtectedVolume { name, uid }, self.namespace(), &helper, &helper_uid).await
    }

    /// The app is stopped meanwhile, so the bytes are not waited for: the cluster reclaims a volume that is on Delete.
    pub(super) async fn is_trial_gone(&self, claim: &str) -> Result<Observation, Failure> {
        let helper = self.helper(claim);
        match self.ports.snapshots.claim(self.namespace(), &helper).await? {
            Some(state) if state.deleting => {
                return Ok(Observation::pending(format!("claim {helper} to be gone"), 100));
            }
            Some(_) => return Ok(Observation::absent()),
            None => {}
        }
        let step = format!("snapshot/restore/{claim}");
        let Some(name) = self.seen(&step, "volume") else { return Ok(Observation::Done(json!({"gone": true}))) };
        let state = self.ports.snapshots.volume(&name).await?;
        Ok(match state.filter(|state| self.seen(&step, "volumeUid").as_deref() == Some(state.uid.as_str())) {
            None => Observation::Done(json!({"gone": true, "volume": name})),
            Some(state) if state.reclaim_policy == ReclaimPolicy::Delete => {
                Observation::Done(json!({"gone": false, "volume": name, "policy": state.reclaim_policy}))
            }
            Some(_) => Observation::absent(),
        })
    }

    pub(super) async fn retain_aside(&self, claim: &str, direction: Direction) -> Result<(), Failure> {
        let policy = if direction == Direction::Do { ReclaimPolicy::Retain } else { ReclaimPolicy::Delete };
        self.ports.snapshots.set_policy(&self.restored(claim)?, policy).await
    }

    pub(super) async fn is_aside_retained(&self, claim: &str, direction: Direction) -> Result<Observation, Failure> {
        let volume = self.restored(claim)?;
        let Some(state) = self.ports.snapshots.volume(&volume.name).await? else {
            return match direction {
                Direction::Undo => Ok(Observation::Done(json!({"gone": true}))),
                Direction::Do => Err(gone(format!("volume {}", volume.name))),
            };
        };
        let wanted = if direction == Direction::Do { ReclaimPolicy::Retain } else { ReclaimPolicy::Delete };
        if state.reclaim_policy == wanted {
            return Ok(Observation::Done(json!({"volume": volume.name, "policy": wanted})));
        }
        Ok(Observation::absent())
    }

    /// The copy must survive the deletion of its helper claim.
    pub(super) async fn prepare_drop_helper(&self, claim: &str) -> Result<Value, Failure> {
        let volume = self.restored(claim)?;
        self.is_kept(&volume).await?;
        Ok(json!({"volume": volume.name}))
    }

    async fn is_kept(&self, volume: &ProtectedVolume) -> Result<(), Failure> {
        let name = format!("volume {}", volume.name);
        let state = self.ports.snapshots.volume(&volume.name).await?.ok_or_else(|| gone(&name))?;
        if state.uid != volume.uid {
            return Err(replaced(&name));
        }
        if state.reclaim_policy != ReclaimPolicy::Retain {
            return Err(Failure::permanent("not-retained", format!("{name} is not on Retain any more"))
                .with_hint("find out who changed its reclaim policy"));
        }
        Ok(())
    }

    pub(super) async fn drop_helper(&self, claim: &str) -> Result<(), Failure> {
        let helper = self.helper(claim);
        let Some(state) = self.ports.snapshots.claim(self.namespace(), &helper).await? else { return Ok(()) };
        // A driver that gave the original out as its copy must not be asked to delete it.
        if let Some(name) = &state.volume
            && let Some(volume) = self.ports.snapshots.volume(name).await?
        {
            let record = self.volume_record(claim).map(|record| record.volume_handle.as_str()).unwrap_or_default();
            self.is_a_copy(claim, name, &volume.handle, record)?;
        }
        self.ports.snapshots.drop_claim(self.namespace(), &helper, &state.uid).await
    }

    pub(super) async fn is_aside_free(&self, claim: &str) -> Result<Observation, Failure> {
        let helper = self.helper(claim);
        if let Some(state) = self.ports.snapshots.claim(self.namespace(), &helper).await? {
            if state.deleting {
                return Ok(Observation::pending(format!("claim {helper} to be gone"), 100));
            }
            return Ok(Observation::absent());
        }
        let volume = self.restored(claim)?;
        let state =
            self.ports.snapshots.volume(&volume.name).await?.ok_or_else(|| gone(format!("volume {}", volume.name)))?;
        if state.phase == "Bound" {
            return Ok(Observation::pending(format!("volume {} to be released", volume.name), 100));
        }
        Ok(Observation::Done(json!({"volume": volume.name, "phase": state.phase})))
    }

    pub(super) async fn discard_aside(&self, claim: &str) -> Result<(), Failure> {
        let uid = self.must_have_seen(&format!("restore/aside/{claim}"), "helperUid")?;
        self.ports.snapshots.discard(&self.restored(claim)?, self.namespace(), &self.helper(claim), &uid).await
    }

    pub(super) async fn is_aside_discarded(&self, claim: &str) -> Result<Observation, Failure> {
        if self.ports.snapshots.claim(self.namespace(), &self.helper(claim)).await?.is_some() {
            // It was never freed: undoing the restore deletes helper and copy together.
            return Ok(Observation::Done(json!({"freed": false})));
        }
        let volume = self.restored(claim)?;
        Ok(match self.ports.snapshots.volume(&volume.name).await? {
            None => Observation::Done(json!({"gone": true})),
            Some(state) if state.reclaim_policy == ReclaimPolicy::Delete => {
                Observation::pending(format!("volume {} to be reclaimed", volume.name), 500)
            }
            Some(_) => Observation::absent(),
        })
    }

    pub(super) async fn reserve(&self, claim: &str) -> Result<(), Failure> {
        self.ports.snapshots.reserve(&self.restored(claim)?, self.namespace(), claim).await
    }

    pub(super) async fn is_reserved(&self, claim: &str) -> Result<Observation, Failure> {
        let volume = self.restored(claim)?;
        let state =
            self.ports.snapshots.volume(&volume.name).await?.ok_or_else(|| gone(format!("volume {}", volume.name)))?;
        let reserved = state.claim.is_some_and(|(namespace, name, uid)| {
            namespace == self.namespace() && name == claim && (uid.is_none() || state.phase == "Bound")
        });
        Ok(if reserved { Observation::Done(json!({"volume": volume.name})) } else { Observation::absent() })
    }

    /// Both copies are kept, the new one is reserved, nothing holds the old one: only then may the claim go.
    pub(super) async fn prepare_drop_claim(&self, claim: &str) -> Result<Value, Failure> {
        let found = self.claim(claim)?;
        let restored = self.restored(claim)?;
        self.is_kept(&restored).await?;
        self.is_kept(&ProtectedVolume { name: found.volume.clone(), uid: found.volume_uid.clone() }).await?;
        self.suspended_and_idle().await?;
        Ok(json!({"claim": claim, "uid": found.uid, "volume": found.volume, "restored": restored.name}))
    }

    pub(super) async fn drop_claim(&self, claim: &str) -> Result<(), Failure> {
        let uid = &self.claim(claim)?.uid;
        self.ports.snapshots.drop_claim(self.namespace(), claim, uid).await
    }

    pub(super) async fn is_claim_gone(&self, claim: &str) -> Result<Observation, Failure> {
        let planned = self.claim(claim)?;
        Ok(match self.ports.snapshots.claim(self.namespace(), claim).await? {
            Some(state) if state.uid == planned.uid && state.deleting => {
                Observation::pending(format!("claim {claim} to be gone"), 100)
            }
            Some(state) if state.uid == planned.uid => Observation::absent(),
            other => Observation::Done(json!({"gone": true, "remade": other.is_some()})),
        })
    }

    pub(super) async fn recreate(&self, claim: &str) -> Result<(), Failure> {
        if let Some(found) = self.on_another_volume(claim).await? {
            return self.take_off(claim, &found).await;
        }
        let volume = self.restored(claim)?;
        let record = self.volume_record(claim)?;
        self.ports
            .snapshots
            .recreate(self.namespace(), claim, &record.manifest, &volume.name, &self.cx.plan.operation)
            .await
    }

    /// Made by us or by whoever was faster: what counts is the volume it is on.
    pub(super) async fn is_recreated(&self, claim: &str) -> Result<Observation, Failure> {
        let volume = self.restored(claim)?;
        Ok(match self.ports.snapshots.claim(self.namespace(), claim).await? {
            None => Observation::absent(),
            Some(state) if state.volume.as_deref() == Some(volume.name.as_str()) => {
                Observation::Done(json!({"uid": state.uid, "volume": volume.name}))
            }
            Some(state) if state.volume.is_none() => {
                Observation::pending(format!("claim {claim} to name a volume"), 100)
            }
            Some(state) if state.deleting => Observation::pending(format!("claim {claim} to be gone"), 100),
            Some(state) => match self.why_it_stays(claim, &state).await? {
                Some(why) => Observation::Failed(on_other_volume(claim, &state, &why)),
                // The binder writes the volume first and says that the claim is bound to it afterwards.
                None if state.phase == "Pending" => {
                    Observation::pending(format!("claim {claim} to be bound to the volume that it names"), 100)
                }
                None => Observation::absent(),
            },
        })
    }

    /// The claim, if it is bound to a volume that is not the restored one.
    async fn on_another_volume(&self, claim: &str) -> Result<Option<ClaimState>, Failure> {
        let restored = self.restored(claim)?.name;
        let found = self.ports.snapshots.claim(self.namespace(), claim).await?;
        let other = |found: &ClaimState| found.volume.as_ref().is_some_and(|volume| *volume != restored);
        Ok(found.filter(|found| other(found) && found.phase != "Pending" && !found.deleting))
    }

    /// Why a claim on another volume is not ours to take off it, if so: what the cluster has bound by itself, and nothing uses,
    /// is.
    async fn why_it_stays(&self, claim: &str, state: &ClaimState) -> Result<Option<String>, Failure> {
        let why = |why: &str| Ok(Some(why.to_owned()));
        let volume = state.volume.as_deref().unwrap_or_default();
        let recorded = self.volume_record(claim)?;
        let planned = self.inputs.claim(claim);
        let found = self.ports.snapshots.volume(volume).await?;
        let is_original = |name: &str, handle: &str| {
            name == volume || found.as_ref().is_some_and(|found| !handle.is_empty() && found.handle == handle)
        };
        if is_original(&recorded.volume, &recorded.volume_handle)
            || planned.is_some_and(|planned| is_original(&planned.volume, &planned.handle))
        {
            return why("that is the original, so somebody has decided otherwise");
        }
        if state.phase == "Pending" {
            return Ok(None);
        }
        let bound_to = found.and_then(|found| found.claim);
        let mutual = bound_to.is_some_and(|(namespace, name, uid)| {
            namespace == self.namespace() && name == claim && uid.as_deref() == Some(state.uid.as_str())
        });
        if state.phase != "Bound" || !mutual {
            return why("and that is not bound to it");
        }
        let holders = self.ports.workloads.holders(self.namespace(), &[claim.to_owned()]).await?;
        Ok(holders.first().map(|holder| format!("and {} has it ({})", holder.by, holder.why)))
    }

    /// The next effect towards a free name: the other volume to Retain, because somebody may have put something on it, then the
    /// claim goes.
    async fn take_off(&self, claim: &str, state: &ClaimState) -> Result<(), Failure> {
        if let Some(why) = self.why_it_stays(claim, state).await? {
            return Err(on_other_volume(claim, state, &why));
        }
        let name = state.volume.clone().unwrap_or_default();
        let volume = self.ports.snapshots.volume(&name).await?.ok_or_else(|| gone(format!("volume {name}")))?;
        if volume.reclaim_policy != ReclaimPolicy::Retain {
            let volume = ProtectedVolume { name, uid: volume.uid };
            return self.ports.snapshots.set_policy(&volume, ReclaimPolicy::Retain).await;
        }
        self.suspended_and_idle().await?;
        self.ports.snapshots.drop_claim(self.namespace(), claim, &state.uid).await
    }

    pub(super) async fn are_claims_bound(&self) -> Result<Observation, Failure> {
        let volumes = self.inputs.restore.as_ref().map(|point| point.volumes.as_slice()).unwrap_or_default();
        let mut bound = Vec::new();
        for record in volumes {
            let claim = &record.claim;
            let volume = self.restored(claim)?;
            let state = self
                .ports
                .snapshots
                .claim(self.namespace(), claim)
                .await?
                .ok_or_else(|| gone(format!("claim {claim}")))?;
            if state.phase == "Lost" || state.volume.as_deref() != Some(volume.name.as_str()) {
                let seen = state.volume.unwrap_or_default();
                let message = format!("claim {claim} is {} to volume {seen}, not to {}", state.phase, volume.name);
                return Ok(Observation::Failed(Failure::permanent("claim-on-other-volume", message)));
            }
            let found = self
                .ports
                .snapshots
                .volume(&volume.name)
                .await?
                .ok_or_else(|| gone(format!("volume {}", volume.name)))?;
            if found.uid != volume.uid {
                return Err(replaced(format!("volume {}", volume.name)));
            }
            let mutual =
                found.claim.is_some_and(|(_, name, uid)| name == *claim && uid.as_deref() == Some(state.uid.as_str()));
            if state.phase != "Bound" || !mutual {
                return Ok(Observation::pending(format!("claim {claim} to be bound to volume {}", volume.name), 100));
            }
            bound.push(format!("{claim} on {}", volume.name));
        }
        Ok(Observation::Done(json!({"bound": bound})))
    }
}

fn on_other_volume(claim: &str, state: &ClaimState, why: &str) -> Failure {
    let volume = state.volume.as_deref().unwrap_or_default();
    let message = format!("claim {claim} was made anew on volume {volume} by somebody else, {why}");
    Failure::permanent("claim-on-other-volume", message)
        .with_hint("the restored volume and the original both still exist; the original is named in the plan")
}
