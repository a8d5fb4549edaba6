//! Whether Flux has carried a commit all the way into the app, judged on the objects as read.
//!
//! No single field proves it. `Ready=True` with an observed generation is also what a suspended HelmRelease shows that was
//! never released; the applied revision of a shared Kustomization may hang on somebody else's app for ever. So every
//! object is asked several things, and a status counts only when it answers the newest token written on its object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use upgrade_core::ports::{Applied, ObjectRef};
use upgrade_core::version::or_no_version;
use windlass_api::foreign::{GitRepository, HelmChart, HelmRelease, Kustomization};
use windlass_api::{READY, RECONCILING, STALLED, condition};

use super::live::REQUESTED_AT;
use super::revision::{commit, same_version};

/// A pin: what it shall be, and what the live object shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PinReading {
    pub(super) component: String,
    pub(super) object: ObjectRef,
    pub(super) wanted: String,
    pub(super) shows: Option<String>,
}

/// A Kustomization that carries pins: one of the app's own, or the parent of an own HelmRelease.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ManifestsReading {
    pub(super) object: ObjectRef,
    pub(super) kustomization: Kustomization,
    /// The Git source, unless it is gone.
    pub(super) source: Option<GitRepository>,
    /// Whether the app names it.
    pub(super) own: bool,
    /// Whether a pin reaches the app through it, so that it must have our commit.
    pub(super) carries: bool,
}

/// One of the app's own HelmReleases.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ReleaseReading {
    pub(super) object: ObjectRef,
    pub(super) release: HelmRelease,
    /// The HelmChart that its status names, unless it is gone.
    pub(super) chart: Option<HelmChart>,
    /// The chart version that was asked for, if the version is one that can be asked for.
    pub(super) chart_version: Option<String>,
}

/// Everything the verdict is made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reading {
    pub(super) manifests: Vec<ManifestsReading>,
    pub(super) releases: Vec<ReleaseReading>,
    pub(super) pins: Vec<PinReading>,
}

#[derive(Default)]
struct Verdict {
    failed: Vec<String>,
    pending: Vec<String>,
    neighbours: Vec<String>,
    evidence: Vec<String>,
}

impl Verdict {
    fn need(&mut self, holds: bool, missing: impl FnOnce() -> String) {
        if !holds {
            self.pending.push(missing());
        }
    }
}

/// The verdict on everything that was read, for commits that are ours or contain ours.
pub(super) fn applied(reading: &Reading, contains: &[String]) -> Applied {
    let mut verdict = Verdict::default();
    verdict.need(!reading.pins.is_empty(), || "no pin is known to look for".into());
    for pin in &reading.pins {
        verdict.need(pin.shows.as_ref() == Some(&pin.wanted), || {
            let shows = pin.shows.as_deref().map_or("nothing that can be read", or_no_version);
            format!("{} shows {shows} for {}, not {}", pin.object, pin.component, pin.wanted)
        });
    }
    for manifests in &reading.manifests {
        judge_manifests(&mut verdict, manifests, &reading.pins, contains);
    }
    for release in &reading.releases {
        judge_release(&mut verdict, release);
    }
    if !verdict.failed.is_empty() {
        Applied::Failed(verdict.failed.join("; "))
    } else if !verdict.pending.is_empty() {
        Applied::Pending(verdict.pending.join("; "))
    } else {
        Applied::Done { evidence: verdict.evidence.join("; "), neighbours: verdict.neighbours }
    }
}

fn is_true(conditions: &[Condition], type_: &str) -> bool {
    condition(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// What a condition says, for people.
fn say(conditions: &[Condition], type_: &str) -> String {
    condition(conditions, type_).map_or_else(
        || format!("{type_} is not there"),
        |c| format!("{type_}={} {}: {}", c.status, c.reason, c.message),
    )
}

/// Whether the newest token written on the object has been handled; true when none was ever written.
fn has_handled(metadata: &ObjectMeta, handled: Option<&str>) -> bool {
    match metadata.annotations.as_ref().and_then(|annotations| annotations.get(REQUESTED_AT)) {
        None => true,
        Some(token) => handled == Some(token.as_str()),
    }
}

fn is_ours(revision: Option<&str>, contains: &[String]) -> bool {
    revision.and_then(commit).is_some_and(|commit| contains.contains(&commit))
}

fn judge_source(verdict: &mut Verdict, of: &ObjectRef, source: Option<&GitRepository>, contains: &[String]) {
    let Some(source) = source else {
        return verdict.pending.push(format!("the Git source of {of} is gone"));
    };
    let name = format!("the Git source of {of}");
    let status = source.status.clone().unwrap_or_default();
    let conditions = &status.conditions;
    let revision = status.artifact.as_ref().map(|artifact| artifact.revision.as_str());
    let has_seen = status.observed_generation == source.metadata.generation;
    let has_answered = has_handled(&source.metadata, status.last_handled_reconcile_at.as_deref());
    let has_ours = is_ours(revision, contains);
    verdict.need(source.spec.suspend != Some(true), || format!("{name} is suspended"));
    verdict.need(has_seen, || format!("{name} has not seen its newest spec"));
    verdict.need(has_answered, || format!("{name} has not answered the newest request"));
    verdict.need(has_ours, || format!("{name} has {}, without our commit", revision.unwrap_or("no artifact")));
    verdict.need(is_true(conditions, READY), || format!("{name} is not ready: {}", say(conditions, READY)));
    if is_true(conditions, STALLED) && has_seen && has_answered && !has_ours {
        verdict.failed.push(format!("{name} has given up: {}", say(conditions, STALLED)));
    }
}

fn judge_manifests(verdict: &mut Verdict, reading: &ManifestsReading, pins: &[PinReading], contains: &[String]) {
    let ManifestsReading { object, kustomization, own, carries, .. } = reading;
    let status = kustomization.status.clone().unwrap_or_default();
    let conditions = &status.conditions;
    let is_suspended = kustomization.spec.suspend == Some(true);
    let has_answered = has_handled(&kustomization.metadata, status.last_handled_reconcile_at.as_deref());
    let attempted = status.last_attempted_revision.as_deref();
    let has_tried = !carries || is_ours(attempted, contains);
    let has_applied = !carries || is_ours(status.last_applied_revision.as_deref(), contains);
    if *carries {
        judge_source(verdict, object, reading.source.as_ref(), contains);
    }
    verdict.need(!is_suspended, || format!("{object} is suspended"));
    verdict.need(has_answered, || format!("{object} has not answered the newest request"));
    verdict.need(has_tried, || {
        format!("{object} has tried {}, which does not have our commit", attempted.unwrap_or("no revision"))
    });
    let has_settled = status.observed_generation == kustomization.metadata.generation
        && is_true(conditions, READY)
        && !is_true(conditions, RECONCILING)
        && !is_true(conditions, STALLED);
    if has_settled {
        verdict.need(has_applied, || {
            let applied = status.last_applied_revision.as_deref().unwrap_or("nothing");
            format!("{object} has applied {applied}, which does not have our commit")
        });
        return verdict.evidence.push(format!("{object} applied {}", attempted.unwrap_or("a revision")));
    }
    let trouble = format!("{object} is not settled: {}", say(conditions, READY));
    if is_true(conditions, STALLED) && has_answered && !is_suspended && (*own || !has_tried) {
        return verdict.failed.push(format!("{object} has given up: {}", say(conditions, STALLED)));
    }
    let ready = condition(conditions, READY).map_or("Unknown", |ready| ready.status.as_str());
    let is_neighbours = match ready {
        "False" if *own => fails_on_neighbours_only(conditions, pins),
        // Our objects below a shared parent are judged by themselves.
        "False" => true,
        // The same trouble between two tries; without a token it may as well be the first try of our commit.
        "Unknown" if !own => {
            kustomization.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(REQUESTED_AT))
        }
        _ => false,
    };
    if is_neighbours && has_tried && has_answered {
        verdict.evidence.push(format!("{object} tried {}", attempted.unwrap_or("a revision")));
        verdict.neighbours.push(trouble);
    } else {
        verdict.pending.push(trouble);
    }
}

/// Whether a Kustomization's health check failed, and on none of the objects that the pins are in.
fn fails_on_neighbours_only(conditions: &[Condition], pins: &[PinReading]) -> bool {
    let Some(ready) = condition(conditions, READY).filter(|ready| ready.reason == "HealthCheckFailed") else {
        return false;
    };
    let failing = failing_objects(&ready.message);
    let is_ours = |failing: &str| {
        pins.iter().any(|pin| {
            let ObjectRef { kind, namespace, name, .. } = &pin.object;
            failing == format!("{kind}/{namespace}/{name}")
        })
    };
    !failing.is_empty() && !failing.iter().any(|object| is_ours(object))
}

/// The objects a failed health check names, as `Kind/namespace/name`; none when the message is not of the known form or
/// was cut off.
fn failing_objects(message: &str) -> Vec<&str> {
    let Some((_, list)) = message.split_once(": [") else { return Vec::new() };
    let Some((list, _)) = list.rsplit_once(']') else { return Vec::new() };
    list.split(", ")
        .filter_map(|entry| {
            let named = entry.split_once(" status: '").map(|(object, _)| object);
            named.or_else(|| entry.strip_prefix("can't determine status for "))
        })
        .collect()
}

fn judge_release(verdict: &mut Verdict, reading: &ReleaseReading) {
    let ReleaseReading { object, release, chart_version, .. } = reading;
    let generation = release.metadata.generation;
    let status = release.status.clone().unwrap_or_default();
    let conditions = &status.conditions;
    let is_suspended = release.spec.suspend == Some(true);
    let has_answered = has_handled(&release.metadata, status.last_handled_reconcile_at.as_deref());
    let has_seen = status.observed_generation == generation;
    verdict.need(!is_suspended, || format!("{object} is suspended"));
    verdict.need(has_answered, || format!("{object} has not answered the newest request"));
    verdict.need(has_seen, || format!("{object} has not seen its newest spec"));
    // Also set for suspended objects and by earlier failures: only an answer of a running controller counts.
    if is_true(conditions, STALLED) && has_answered && has_seen && !is_suspended {
        verdict.failed.push(format!("{object} has given up: {}", say(conditions, STALLED)));
    }
    verdict.need(status.last_attempted_generation == generation, || format!("{object} has not tried its newest spec"));
    verdict.need(is_true(conditions, READY), || format!("{object} is not ready: {}", say(conditions, READY)));
    verdict
        .need(!is_true(conditions, RECONCILING), || format!("{object} is working: {}", say(conditions, RECONCILING)));
    verdict.need(!is_true(conditions, STALLED), || say(conditions, STALLED));
    verdict.need(condition(conditions, "Remediated").is_none(), || {
        format!("{object} was remediated: {}", say(conditions, "Remediated"))
    });
    judge_chart(verdict, reading);
    let Some(newest) = status.history.first() else {
        return verdict.pending.push(format!("{object} has released nothing"));
    };
    let what = format!("release {} of chart {}", newest.version.unwrap_or_default(), newest.chart_version);
    verdict.need(newest.status == "deployed", || format!("{what} is {}, not deployed", newest.status));
    // Older controllers write no action; there the absence of Remediated above says it.
    let action = newest.action.as_deref().or(status.last_attempted_release_action.as_deref()).unwrap_or_default();
    verdict.need(matches!(action, "install" | "upgrade"), || format!("{what} came from {action:?}"));
    if let Some(wanted) = chart_version {
        verdict.need(same_version(&newest.chart_version, wanted), || format!("{what} is not of version {wanted}"));
    }
    let has_values = newest.config_digest.is_some() && newest.config_digest == status.last_attempted_config_digest;
    verdict.need(has_values, || format!("{what} was not made from the newest values"));
    verdict.evidence.push(format!("{object}: {what} is {}", newest.status));
}

fn judge_chart(verdict: &mut Verdict, reading: &ReleaseReading) {
    let Some(wanted) = &reading.chart_version else { return };
    let status = reading.chart.as_ref().and_then(|chart| chart.status.as_ref());
    let revision = status.and_then(|status| status.artifact.as_ref()).map(|artifact| artifact.revision.as_str());
    verdict.need(revision.is_some_and(|revision| same_version(revision, wanted)), || {
        let why = status.map_or_else(String::new, |status| format!(" ({})", say(&status.conditions, READY)));
        format!("the chart of {} is at {}, not {wanted}{why}", reading.object, revision.unwrap_or("no version"))
    });
}

#[cfg(test)]
#[path = "applied_tests.rs"]
mod tests;
