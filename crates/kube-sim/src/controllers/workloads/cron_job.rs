//! CronJobs: Jobs at certain times.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::PostParams;
use kube::{Api, Resource, ResourceExt};

use super::pods::{created, is_going, until};
use super::schedule::Schedule;
use super::world::{Again, World, controller, controller_reference};

pub(super) async fn reconcile(world: &mut World, namespace: &str, name: &str) -> kube::Result<Again> {
    let Some(cron) = world.cron_jobs.get(namespace, name).cloned() else { return Ok(None) };
    let spec = cron.spec.clone();
    if is_going(&cron.metadata) {
        return Ok(None);
    }
    let mine = |job: &&Arc<Job>| controller(&job.metadata).map(|owner| &owner.uid) == cron.metadata.uid.as_ref();
    let jobs: Vec<Arc<Job>> = world.jobs.within(namespace).filter(mine).cloned().collect();
    let mut status = cron.status.clone().unwrap_or_default();
    let succeeded = jobs.iter().filter_map(|job| job.status.as_ref()?.completion_time.clone()).max();
    status.last_successful_time = succeeded.max(status.last_successful_time);
    let mut active: Vec<Arc<Job>> = jobs.iter().filter(|job| end(job).is_none()).cloned().collect();
    let again = start(world, &cron, &spec, &mut status, &mut active).await?;
    status.active = (!active.is_empty()).then(|| active.iter().map(|job| reference(job)).collect());
    world.set_status(&*cron, &status).await?;
    clean_up(world, &jobs, &spec).await?;
    Ok(again)
}

/// The condition that a Job ended with.
fn end(job: &Job) -> Option<&str> {
    let mut conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ended = conditions.find(|one| matches!(one.type_.as_str(), "Complete" | "Failed") && one.status == "True");
    ended.map(|one| one.type_.as_str())
}

fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        uid: job.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// Starts the Job of the last time that was missed; returns when the next time is.
async fn start(
    world: &mut World,
    cron: &CronJob,
    spec: &CronJobSpec,
    status: &mut CronJobStatus,
    active: &mut Vec<Arc<Job>>,
) -> kube::Result<Again> {
    if spec.suspend == Some(true) {
        return Ok(None);
    }
    let zone = spec.time_zone.as_deref().filter(|zone| !matches!(*zone, "UTC" | "Etc/UTC"));
    let parsed = match zone {
        Some(zone) => Err(("UnknownTimeZone", format!("the stand-in knows no time zone but UTC, and not {zone:?}"))),
        None => Schedule::parse(&spec.schedule).map_err(|why| ("UnparseableSchedule", why)),
    };
    let schedule = match parsed {
        Ok(schedule) => schedule,
        Err((reason, why)) => return refuse(world, cron, reason, why).await.map(|()| None),
    };
    let now = world.now();
    let next = schedule.next(now).map(|next| until(next, 0, now));
    let mut earliest = status.last_schedule_time.as_ref().map_or_else(|| created(&cron.metadata), |time| time.0);
    if let Some(seconds) = spec.starting_deadline_seconds {
        let from = now.checked_sub(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN);
        earliest = earliest.max(from);
    }
    let Some(due) = schedule.last(earliest, now) else { return Ok(next) };
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => return Ok(next),
        Some("Replace") => {
            for job in active.drain(..) {
                world.delete(&*job).await?;
            }
        }
        _ => {}
    }
    let job = new_job(cron, spec, due);
    let known = world.jobs.get(&cron.namespace().unwrap_or_default(), &job.name_any()).cloned();
    let job = match known {
        Some(known) => known,
        None => world.create(&job).await?,
    };
    if end(&job).is_none() && !active.iter().any(|one| one.metadata.uid == job.metadata.uid) {
        active.push(job);
    }
    status.last_schedule_time = Some(Time(due));
    Ok(next)
}

fn new_job(cron: &CronJob, spec: &CronJobSpec, due: Timestamp) -> Job {
    let template = spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert("batch.kubernetes.io/cronjob-scheduled-timestamp".to_owned(), due.to_string());
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", cron.name_any(), due.as_second().div_euclid(60))),
            namespace: cron.namespace(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// Says in an event, once for each reason, why there will be no Jobs.
async fn refuse(world: &mut World, cron: &CronJob, reason: &str, why: String) -> kube::Result<()> {
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{}", cron.name_any(), reason.to_lowercase())),
            namespace: cron.namespace(),
            ..ObjectMeta::default()
        },
        involved_object: cron.object_ref(&()),
        type_: Some("Warning".to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(why),
        source: Some(EventSource { component: Some("cronjob-controller".to_owned()), host: None }),
        count: Some(1),
        first_timestamp: Some(world.time()),
        last_timestamp: Some(world.time()),
        ..Event::default()
    };
    let events: Api<Event> = Api::namespaced(world.client().clone(), &cron.namespace().unwrap_or_default());
    match events.create(&PostParams::default(), &event).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        result => result.map(drop),
    }
}

/// Deletes the oldest Jobs that ended beyond the limits.
async fn clean_up(world: &mut World, jobs: &[Arc<Job>], spec: &CronJobSpec) -> kube::Result<()> {
    for (how, limit) in [
        ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
    ] {
        let mut ended: Vec<&Arc<Job>> =
            jobs.iter().filter(|job| end(job) == Some(how) && !is_going(&job.metadata)).collect();
        ended.sort_by_key(|job| (created(&job.metadata), job.name_any()));
        let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for job in ended.into_iter().take(surplus) {
            world.delete(&**job).await?;
        }
    }
    Ok(())
}
