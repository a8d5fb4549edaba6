//! Jobs: pods that are run until enough of them succeeded.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use super::pods::{from_template, is_active, is_going, is_ready, name_prefix, phase, until};
use super::world::{Again, World, controller, number, some};

/// Holds a pod until its end is counted.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(600);

pub(super) async fn reconcile(world: &mut World, namespace: &str, name: &str) -> kube::Result<Again> {
    let job = world.jobs.get(namespace, name).cloned();
    let uid = job.as_ref().and_then(|job| job.uid());
    let mine =
        |pod: &&Arc<Pod>| controller(&pod.metadata).is_some_and(|owner| owner.kind == "Job" && owner.name == name);
    let all: Vec<Arc<Pod>> = world.pods.within(namespace).filter(mine).cloned().collect();
    let (pods, orphans): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|pod| controller(&pod.metadata).map(|owner| &owner.uid) == uid.as_ref());
    for pod in orphans.iter().filter(|pod| is_tracked(pod)) {
        release(world, pod).await?;
    }
    let Some(job) = job else { return Ok(None) };
    let (Some(spec), mut status) = (job.spec.clone(), job.status.clone().unwrap_or_default()) else { return Ok(None) };
    if let Some(finished) = finished(&status) {
        for pod in pods.iter().filter(|pod| is_tracked(pod)) {
            release(world, pod).await?;
        }
        return expire(world, &job, &spec, finished).await;
    }
    if is_going(&job.metadata) {
        for pod in pods.iter().filter(|pod| is_tracked(pod) && !is_active(pod)) {
            release(world, pod).await?;
        }
        return Ok(None);
    }
    count(&mut status, &pods);
    let again = run(world, &job, &spec, &mut status, pods.clone()).await?;
    world.set_status(&*job, &status).await?;
    // Only after the count is written may the pods go.
    let counted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let counted: Vec<String> = [counted.succeeded, counted.failed].into_iter().flatten().flatten().collect();
    for pod in pods.iter().filter(|pod| is_tracked(pod) && counted.contains(&pod.uid().unwrap_or_default())) {
        release(world, pod).await?;
    }
    Ok(again)
}

fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|finalizer| finalizer == TRACKING)
}

async fn release(world: &mut World, pod: &Arc<Pod>) -> kube::Result<()> {
    let kept: Vec<&String> = pod.finalizers().iter().filter(|finalizer| *finalizer != TRACKING).collect();
    let patch = json!({ "metadata": { "finalizers": kept, "resourceVersion": pod.resource_version() } });
    match world.patch(&**pod, patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(drop),
    }
}

/// Since when the Job has ended, if it has.
fn finished(status: &JobStatus) -> Option<Timestamp> {
    let mut conditions = status.conditions.iter().flatten();
    let ended = |one: &&JobCondition| matches!(one.type_.as_str(), "Complete" | "Failed") && one.status == "True";
    conditions.find(ended)?.last_transition_time.as_ref().map(|time| time.0)
}

async fn expire(world: &mut World, job: &Job, spec: &JobSpec, finished: Timestamp) -> kube::Result<Again> {
    let Some(seconds) = spec.ttl_seconds_after_finished else { return Ok(None) };
    if is_going(&job.metadata) {
        return Ok(None);
    }
    if world.now().duration_since(finished).as_secs() < i64::from(seconds) {
        return Ok(Some(until(finished, i64::from(seconds), world.now())));
    }
    world.delete(job).await.map(|()| None)
}

/// Takes the pods that ended into the status: first by UID, and into the numbers once nothing holds them any more.
fn count(status: &mut JobStatus, pods: &[Arc<Pod>]) {
    let mut uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let held = |uid: &String| pods.iter().any(|pod| pod.uid().as_ref() == Some(uid) && is_tracked(pod));
    for (uids, total) in
        [(&mut uncounted.succeeded, &mut status.succeeded), (&mut uncounted.failed, &mut status.failed)]
    {
        let uids = uids.get_or_insert_default();
        let before = uids.len();
        uids.retain(held);
        if uids.len() < before {
            *total = Some(total.unwrap_or(0) + number(before - uids.len()));
        }
    }
    for pod in pods.iter().filter(|pod| is_tracked(pod)) {
        let uid = pod.uid().unwrap_or_default();
        let uids = match phase(pod) {
            "Succeeded" => &mut uncounted.succeeded,
            "Failed" => &mut uncounted.failed,
            // Removed before it could end: that is a failure, too.
            _ if is_going(&pod.metadata) && pod.metadata.deletion_grace_period_seconds == Some(0) => {
                &mut uncounted.failed
            }
            _ => continue,
        };
        let uids = uids.get_or_insert_default();
        if !uids.contains(&uid) {
            uids.push(uid);
        }
    }
    let named = |uids: Option<Vec<String>>| uids.filter(|uids| !uids.is_empty());
    status.uncounted_terminated_pods =
        Some(UncountedTerminatedPods { succeeded: named(uncounted.succeeded), failed: named(uncounted.failed) });
}

/// `(succeeded, failed)`, those that are not in the numbers yet included.
fn ends(status: &JobStatus) -> (i32, i32) {
    let UncountedTerminatedPods { succeeded, failed } = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let sum =
        |counted: Option<i32>, more: Option<Vec<String>>| counted.unwrap_or(0) + number(more.map_or(0, |m| m.len()));
    (sum(status.succeeded, succeeded), sum(status.failed, failed))
}

async fn run(
    world: &mut World,
    job: &Job,
    spec: &JobSpec,
    status: &mut JobStatus,
    pods: Vec<Arc<Pod>>,
) -> kube::Result<Again> {
    let now = world.now();
    let last_failure = last_failure(&pods);
    let mut active: Vec<Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
    let mut again = None;
    let suspended = spec.suspend == Some(true);
    if !suspended && status.start_time.is_none() {
        status.start_time = Some(world.time());
    }
    let verdict = verdict(spec, status, &pods, now);
    if verdict.is_none() {
        match (spec.active_deadline_seconds, &status.start_time) {
            (Some(seconds), Some(start)) if !suspended => again = Some(until(start.0, seconds, now)),
            _ => {}
        }
    }
    if let Some((kind, reason, message)) = &verdict {
        let target = if *kind == "Complete" { "SuccessCriteriaMet" } else { "FailureTarget" };
        set(world, status, target, "True", reason, message);
        for pod in active.drain(..) {
            world.delete(&*pod).await?;
        }
        let all_gone = pods.iter().all(|pod| matches!(phase(pod), "Succeeded" | "Failed"));
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let counted = [uncounted.succeeded, uncounted.failed].iter().flatten().all(Vec::is_empty);
        if all_gone && counted {
            set(world, status, kind, "True", reason, message);
            if *kind == "Complete" {
                status.completion_time = Some(world.time());
            }
        }
    } else if suspended {
        for pod in active.drain(..) {
            world.delete(&*pod).await?;
        }
        set(world, status, "Suspended", "True", "JobSuspended", "Job suspended");
        status.start_time = None;
    } else {
        if status.conditions.iter().flatten().any(|one| one.type_ == "Suspended" && one.status == "True") {
            set(world, status, "Suspended", "False", "JobResumed", "Job resumed");
        }
        let wait = size(world, job, spec, status, &mut active, last_failure).await?;
        again = [again, wait].into_iter().flatten().min();
    }
    let terminating =
        pods.iter().filter(|pod| is_going(&pod.metadata) && !matches!(phase(pod), "Succeeded" | "Failed"));
    status.active = some(active.len());
    status.ready = Some(number(active.iter().filter(|pod| is_ready(pod)).count()));
    status.terminating = Some(number(terminating.count()));
    Ok(again)
}

/// How the Job has ended, if it has: condition, reason and message.
fn verdict(
    spec: &JobSpec,
    status: &JobStatus,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> Option<(&'static str, &'static str, &'static str)> {
    let conditions = || status.conditions.iter().flatten().filter(|one| one.status == "True");
    let unknown = spec.completion_mode.as_deref() == Some("Indexed")
        || spec.pod_failure_policy.is_some()
        || spec.success_policy.is_some();
    if unknown {
        let what = "the stand-in knows neither indexed Jobs nor pod failure and success policies";
        return Some(("Failed", "Unsupported", what));
    }
    let (succeeded, failed) = ends(status);
    let limit = spec.backoff_limit.unwrap_or(6);
    let restarts: i32 = pods
        .iter()
        .filter(|pod| pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) == Some("OnFailure"))
        .flat_map(|pod| pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()))
        .map(|container| container.restart_count)
        .sum();
    let too_often = failed > limit || if limit == 0 { restarts > 0 } else { restarts >= limit };
    let start = status.start_time.as_ref().filter(|_| spec.suspend != Some(true));
    let too_long = match (spec.active_deadline_seconds, start) {
        (Some(seconds), Some(start)) => now.duration_since(start.0).as_secs() >= seconds,
        _ => false,
    };
    let done = match spec.completions {
        Some(completions) => succeeded >= completions,
        None => succeeded > 0 && pods.iter().all(|pod| !is_active(pod)),
    };
    let decided =
        |reason: &str| conditions().any(|one| one.type_ == "FailureTarget" && one.reason.as_deref() == Some(reason));
    if decided("BackoffLimitExceeded") || too_often {
        return Some(("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    if decided("DeadlineExceeded") || too_long {
        return Some(("Failed", "DeadlineExceeded", "Job was active longer than specified deadline"));
    }
    done.then_some(("Complete", "CompletionsReached", "Reached expected number of succeeded pods"))
}

fn set(world: &World, status: &mut JobStatus, kind: &str, state: &str, reason: &str, message: &str) {
    let conditions = status.conditions.get_or_insert_default();
    if conditions.iter().any(|one| one.type_ == kind && one.status == state) {
        return;
    }
    conditions.retain(|one| one.type_ != kind);
    conditions.push(JobCondition {
        type_: kind.to_owned(),
        status: state.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(world.time()),
        last_transition_time: Some(world.time()),
    });
}

/// Makes or deletes pods; returns when a failed one may be replaced.
async fn size(
    world: &mut World,
    job: &Job,
    spec: &JobSpec,
    status: &JobStatus,
    active: &mut Vec<Arc<Pod>>,
    last_failure: Option<Timestamp>,
) -> kube::Result<Again> {
    let (succeeded, failed) = ends(status);
    let parallelism = spec.parallelism.unwrap_or(1);
    let wanted = match spec.completions {
        Some(completions) => parallelism.min(completions - succeeded),
        None if succeeded > 0 => number(active.len()),
        None => parallelism,
    };
    let wanted = usize::try_from(wanted).unwrap_or(0);
    while active.len() > wanted {
        if let Some(pod) = active.pop() {
            world.delete(&*pod).await?;
        }
    }
    if active.len() < wanted
        && let Some(since) = last_failure
    {
        let factor = 1_u32.checked_shl(u32::try_from(failed - 1).unwrap_or(0)).unwrap_or(u32::MAX);
        let wait = FIRST_BACKOFF.saturating_mul(factor).min(LONGEST_BACKOFF);
        let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
        if world.now().duration_since(since).as_secs() < seconds {
            return Ok(Some(until(since, seconds, world.now())));
        }
    }
    while active.len() < wanted {
        let mut pod = from_template(job, &spec.template);
        pod.metadata.generate_name = Some(name_prefix(&job.name_any()));
        pod.metadata.finalizers.get_or_insert_default().push(TRACKING.to_owned());
        active.push(world.create(&pod).await?);
    }
    Ok(None)
}

/// When the last pod that failed did so, unless one succeeded after it.
fn last_failure(pods: &[Arc<Pod>]) -> Option<Timestamp> {
    let end = |pod: &Pod| {
        let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let ends = containers.filter_map(|one| one.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
        ends.map(|time| time.0).max()
    };
    let last = |wanted: &str| pods.iter().filter(|pod| phase(pod) == wanted).filter_map(|pod| end(pod)).max();
    last("Failed").filter(|failed| last("Succeeded").is_none_or(|succeeded| succeeded < *failed))
}
