//! What a Deployment says about itself: counts, Available and Progressing.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use kube::ResourceExt;

use super::deployment::{available, bounds, size, wanted};
use super::pods::until;
use super::world::{Again, World};

/// The ReplicaSets of a Deployment as they are now, oldest first.
#[derive(Debug)]
pub(super) struct Rollout {
    pub(super) sets: Vec<Arc<ReplicaSet>>,
    /// The one of them with the Deployment's template.
    pub(super) newest: Option<Arc<ReplicaSet>>,
    /// Its name, if it was made just now.
    pub(super) created: Option<String>,
}

impl Rollout {
    pub(super) fn old(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        let newest = self.newest.as_ref().map(|set| set.metadata.uid.clone());
        self.sets.iter().filter(move |set| Some(&set.metadata.uid) != newest.as_ref())
    }

    /// Takes a newer version of one of them.
    pub(super) fn replace(&mut self, set: &Arc<ReplicaSet>) {
        for known in self.sets.iter_mut().chain(self.newest.as_mut()) {
            if known.metadata.uid == set.metadata.uid {
                *known = Arc::clone(set);
            }
        }
    }
}

/// Whether every pod is of the newest template and available.
pub(super) fn is_complete(deployment: &Deployment, rollout: &Rollout) -> bool {
    let wanted = deployment.spec.as_ref().map_or(1, wanted);
    let counts = Counts::of(rollout);
    counts.all == wanted && counts.updated == wanted && counts.available == wanted
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    all: i32,
    updated: i32,
    ready: i32,
    available: i32,
    unavailable: i32,
}

impl Counts {
    fn of(rollout: &Rollout) -> Self {
        let sum = |count: &dyn Fn(&ReplicaSet) -> i32| rollout.sets.iter().map(|set| count(set)).sum::<i32>();
        let exist = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
        let ready = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        let available = sum(&available);
        Self {
            all: sum(&exist),
            updated: rollout.newest.as_ref().map_or(0, |set| exist(set)),
            ready: sum(&ready),
            available,
            unavailable: (sum(&size) - available).max(0),
        }
    }
}

/// Writes the status; returns when the progress deadline must be looked at.
pub(super) async fn write(world: &mut World, deployment: &Deployment, rollout: &Rollout) -> kube::Result<Again> {
    let Some(spec) = &deployment.spec else { return Ok(None) };
    let (before, counts) = (deployment.status.clone().unwrap_or_default(), Counts::of(rollout));
    let mut conditions = Conditions { list: before.conditions.clone().unwrap_or_default(), now: world };
    if let Some(created) = &rollout.created {
        conditions.set("Progressing", "True", "NewReplicaSetCreated", format!("Created new replica set \"{created}\""));
    }
    let (_, unavailable) = bounds(spec);
    if counts.available >= wanted(spec) - unavailable.min(wanted(spec)) {
        let message = "Deployment has minimum availability.";
        conditions.set("Available", "True", "MinimumReplicasAvailable", message.to_owned());
    } else {
        let message = "Deployment does not have minimum availability.";
        conditions.set("Available", "False", "MinimumReplicasUnavailable", message.to_owned());
    }
    copy_failure(&mut conditions, rollout);
    let deadline = spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX);
    let mut again = None;
    match deadline {
        None => conditions.list.retain(|condition| condition.type_ != "Progressing"),
        Some(seconds) if spec.paused != Some(true) => {
            again = progress(&mut conditions, deployment, rollout, (&before, counts), seconds);
        }
        Some(_) => {}
    }
    let conditions = conditions.list;
    let some = |count: i32| (count != 0).then_some(count);
    let status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(counts.all),
        updated_replicas: some(counts.updated),
        ready_replicas: some(counts.ready),
        available_replicas: some(counts.available),
        unavailable_replicas: some(counts.unavailable),
        conditions: Some(conditions),
        collision_count: before.collision_count,
        ..DeploymentStatus::default()
    };
    world.set_status(deployment, &status).await?;
    Ok(again)
}

struct Conditions<'a> {
    list: Vec<DeploymentCondition>,
    now: &'a World,
}

impl Conditions<'_> {
    fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_ == kind)
    }

    /// Sets a condition unless it has that state and reason already.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let same = |one: &DeploymentCondition| one.status == status && one.reason.as_deref() == Some(reason);
        if !self.get(kind).is_some_and(same) {
            self.renew(kind, status, reason, message);
        }
    }

    /// Sets a condition as of now; its state keeps its time.
    fn renew(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let since = self.get(kind).filter(|one| one.status == status).and_then(|one| one.last_transition_time.clone());
        self.list.retain(|condition| condition.type_ != kind);
        self.list.push(DeploymentCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: Some(self.now.time()),
            last_transition_time: Some(since.unwrap_or_else(|| self.now.time())),
        });
    }
}

fn copy_failure(conditions: &mut Conditions<'_>, rollout: &Rollout) {
    let sets = rollout.newest.iter().chain(&rollout.sets);
    let failures = sets.flat_map(|set| set.status.iter().flat_map(|status| status.conditions.iter().flatten()));
    match failures.into_iter().find(|one| one.type_ == "ReplicaFailure" && one.status == "True") {
        Some(failure) => {
            let reason = failure.reason.clone().unwrap_or_default();
            conditions.set("ReplicaFailure", "True", &reason, failure.message.clone().unwrap_or_default());
        }
        None => conditions.list.retain(|one| one.type_ != "ReplicaFailure"),
    }
}

/// Sets Progressing; returns when it may turn by itself.
fn progress(
    conditions: &mut Conditions<'_>,
    deployment: &Deployment,
    rollout: &Rollout,
    (before, counts): (&DeploymentStatus, Counts),
    deadline: i32,
) -> Again {
    let subject = match &rollout.newest {
        Some(set) => format!("ReplicaSet \"{}\"", set.name_any()),
        None => format!("Deployment \"{}\"", deployment.name_any()),
    };
    let reason = conditions.get("Progressing").and_then(|one| one.reason.clone()).unwrap_or_default();
    if counts.all == counts.updated && reason == "NewReplicaSetAvailable" {
        return None;
    }
    let of = |count: Option<i32>| count.unwrap_or(0);
    let old_before = of(before.replicas) - of(before.updated_replicas);
    let progressed = counts.updated > of(before.updated_replicas)
        || counts.all - counts.updated < old_before
        || counts.ready > of(before.ready_replicas)
        || counts.available > of(before.available_replicas);
    let updated = conditions.get("Progressing").and_then(|one| one.last_update_time.clone());
    let now = conditions.now.now();
    let timed_out = reason == "ProgressDeadlineExceeded"
        || updated.as_ref().is_some_and(|updated| {
            reason != "NewReplicaSetAvailable" && now.duration_since(updated.0).as_secs() > i64::from(deadline)
        });
    if is_complete(deployment, rollout) {
        let message = format!("{subject} has successfully progressed.");
        conditions.set("Progressing", "True", "NewReplicaSetAvailable", message);
        return None;
    }
    if progressed {
        conditions.renew("Progressing", "True", "ReplicaSetUpdated", format!("{subject} is progressing."));
    } else if timed_out {
        let message = format!("{subject} has timed out progressing.");
        conditions.set("Progressing", "False", "ProgressDeadlineExceeded", message);
        return None;
    }
    let updated = conditions.get("Progressing").and_then(|one| one.last_update_time.clone())?;
    (conditions.get("Progressing")?.reason.as_deref() != Some("NewReplicaSetAvailable"))
        .then(|| until(updated.0, i64::from(deadline) + 1, now))
}
