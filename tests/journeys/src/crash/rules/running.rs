//! Rules 3 and 4: what must run before a success is written, and what must not run while data and version do not belong together.

use kube_sim::controllers::pods::Event;
use kube_sim::server::{Admission, Operation};
use serde_json::Value;

use super::{Key, State, begun, list, text};

/// Ours on a suspended object.
const HELD_BY: &str = "/metadata/annotations/upgrades.windlass.dev~1held-by";

/// Rule 4: no container of an app starts between the cut of its data and the release of the target, nor between the swap of its
/// claims and the release of what the restored data belongs to; and after a release only what was released.
pub(super) fn since_the_last_write(state: &mut State) {
    let entries = state.runs.entries();
    let fresh = entries.get(state.runs_seen..).unwrap_or_default();
    state.runs_seen = entries.len();
    for entry in fresh.iter().filter(|entry| entry.event == Event::Starting) {
        let Some(pod) = &entry.pod else { continue };
        let image = entry.image.as_deref().unwrap_or_default();
        if let Some(why) = state.closed(&pod.namespace, image) {
            state.broken("4", format!("{image} was started in {} {why}", pod.name));
        }
    }
}

impl State {
    /// Why this image may not start on the app's data now.
    fn closed(&self, namespace: &str, image: &str) -> Option<&'static str> {
        let running = |request: &&Value| text(request, "/status/outcome").is_empty();
        let released = |request: &Value| begun(request, "release/resume/");
        let cut = |content: &Value| {
            text(content, "/spec/volumeSnapshotRef/namespace") == namespace
                && content.pointer("/status/snapshotHandle").is_some_and(|handle| !handle.is_null())
        };
        let turned_back = |request: &Value| {
            let mut entries = list(request, "/status/journal/entries").iter();
            entries.any(|entry| matches!(text(entry, "/state"), "Undoing" | "Undone" | "Leftover" | "Kept"))
        };
        let mut upgrades = self.within("upgraderequests", namespace).filter(running);
        if upgrades.any(|one| begun(one, "snapshot/take/") && !released(one) && !turned_back(one))
            && self.all("volumesnapshotcontents").any(cut)
        {
            return Some("between the cut of its data and the release");
        }
        let begun_to_go_back = |one: &&Value| running(one) && one.pointer("/status/plan").is_some();
        let rollbacks: Vec<&Value> = self.within("rollbackrequests", namespace).filter(begun_to_go_back).collect();
        if rollbacks.iter().any(|one| begun(one, "swap/delete/") && !released(one)) {
            return Some("between the swap of its claims and the release");
        }
        let found = self.found.get(namespace).is_none_or(|found| found.iter().any(|one| one == image));
        if rollbacks.iter().any(|one| released(one)) && !found {
            return Some("after the release of what was there before");
        }
        let is_target = |request: &Value| {
            let targets = request.pointer("/spec/target/components").and_then(Value::as_object);
            let mut images = targets.into_iter().flatten().filter(|(component, _)| component.starts_with("image/"));
            let tag = image.rsplit_once(':').map(|(_, tag)| tag);
            images.all(|(_, wanted)| wanted.as_str() == tag)
        };
        let mut upgrades = self.within("upgraderequests", namespace).filter(running);
        let other = upgrades.any(|one| released(one) && !turned_back(one) && !is_target(one));
        (other && rollbacks.is_empty()).then_some("after the release of the target")
    }
}

/// Rule 3: success only when as many pods as were found are ready and have been for the soak time, all of them of the version that was
/// asked for, when what delivers them has applied our commit, and nothing is suspended by us.
pub(super) fn before_write(state: &mut State, write: &Admission<'_>, key: &Key, subject: &Value) {
    let (resource, namespace, name) = key;
    let is_request = matches!(resource.as_str(), "upgraderequests" | "rollbackrequests");
    if write.operation != Operation::Update || write.subresource != "status" || !is_request {
        return;
    }
    let succeeded = |object: &Value| text(object, "/status/outcome") == "Succeeded";
    if !succeeded(subject) || state.get(resource, namespace, name).is_some_and(succeeded) {
        return;
    }
    let found = state.found.get(namespace).cloned().unwrap_or_default();
    let expected: Vec<String> = if resource == "rollbackrequests" {
        found
    } else {
        let targets = subject.pointer("/spec/target/components").and_then(Value::as_object).into_iter().flatten();
        let tag = targets.filter(|(component, _)| component.starts_with("image/")).find_map(|(_, tag)| tag.as_str());
        let repository = |image: &String| image.rsplit_once(':').map_or(image.clone(), |(front, _)| front.to_owned());
        found.iter().map(|image| format!("{}:{}", repository(image), tag.unwrap_or_default())).collect()
    };
    let ready = state.ready_images(namespace);
    if ready != expected || ready.is_empty() {
        state.broken("3", format!("success was written while {ready:?} were ready, not {expected:?}"));
    }
    let suspended: Vec<String> = ["kustomizations", "helmreleases"]
        .into_iter()
        .flat_map(|kind| state.all(kind))
        .filter(|object| {
            object.pointer("/spec/suspend") == Some(&Value::Bool(true)) || !text(object, HELD_BY).is_empty()
        })
        .map(|object| text(object, "/metadata/name").to_owned())
        .collect();
    if !suspended.is_empty() {
        state.broken("3", format!("success was written while {suspended:?} were suspended or held"));
    }
    for why in state.not_soaked(namespace, subject).into_iter().chain(state.not_applied(namespace, subject)) {
        state.broken("3", format!("success was written while {why}"));
    }
}

impl State {
    fn app_of(&self, namespace: &str, request: &Value) -> Option<&Value> {
        self.get("managedapps", namespace, text(request, "/spec/subject/name"))
    }

    /// Which pods have not been ready for as long as the app asks for.
    fn not_soaked(&self, namespace: &str, request: &Value) -> Vec<String> {
        let soak = self.app_of(namespace, request).map(|app| text(app, "/spec/health/soak")).unwrap_or_default();
        let Ok(soak) = soak.parse::<windlass_api::Duration>() else { return vec!["the app names no soak".to_owned()] };
        let ready = self.ready_since.iter().filter(|((_, place, _), _)| place == namespace);
        let young = ready.filter(|(_, since)| since.elapsed() < soak.as_std());
        young.map(|((_, _, pod), since)| format!("{pod} had been ready for {:?} only", since.elapsed())).collect()
    }

    /// Which of the app's delivery objects does not say that it has applied what this request committed.
    fn not_applied(&self, namespace: &str, request: &Value) -> Vec<String> {
        let pushed = |entry: &&Value| text(entry, "/step").starts_with("commit/push/");
        let pushed = list(request, "/status/journal/entries").iter().rfind(pushed);
        let sha = pushed.map(|entry| text(entry, "/evidence/sha")).unwrap_or_default();
        if sha.is_empty() {
            return vec!["no commit was noted".to_owned()];
        }
        let objects = self.app_of(namespace, request).map_or(&[][..], |app| list(app, "/spec/delivery/flux/objects"));
        let mut wrong = Vec::new();
        let mut applied = 0;
        for object in objects {
            let (kind, name) = (text(object, "/kind"), text(object, "/name"));
            let place = object.pointer("/namespace").and_then(Value::as_str).unwrap_or(namespace);
            let why = if kind == "Kustomization" {
                self.kustomization_lacks(place, name, "lastAppliedRevision", sha)
            } else {
                self.release_lacks(place, name, sha, text(request, "/spec/target/components/chart"))
            };
            applied += 1;
            wrong.extend(why.map(|why| format!("{kind} {name} {why}")));
        }
        if applied == 0 {
            wrong.push("nothing delivers the app".to_owned());
        }
        wrong
    }

    /// Nobody else pushes here: the newest commit is ours.
    fn kustomization_lacks(&self, namespace: &str, name: &str, field: &str, sha: &str) -> Option<String> {
        let Some(found) = self.get("kustomizations", namespace, name) else { return Some("was not there".to_owned()) };
        let revision = text(found, &format!("/status/{field}"));
        (!revision.ends_with(sha)).then(|| format!("had {field} {revision}, not {sha}"))
    }

    fn release_lacks(&self, namespace: &str, name: &str, sha: &str, chart: &str) -> Option<String> {
        let Some(found) = self.get("helmreleases", namespace, name) else { return Some("was not there".to_owned()) };
        let (seen, newest) = (found.pointer("/status/observedGeneration"), found.pointer("/metadata/generation"));
        if seen.is_none() || seen != newest {
            return Some(format!("had seen spec {seen:?} of {newest:?}"));
        }
        let (status, version) =
            (text(found, "/status/history/0/status"), text(found, "/status/history/0/chartVersion"));
        if status != "deployed" || (!chart.is_empty() && version != chart) {
            return Some(format!("had chart {version} {status}, not {chart} deployed"));
        }
        let label = |key: &str| text(found, &format!("/metadata/labels/kustomize.toolkit.fluxcd.io~1{key}"));
        // It counts as applied only once this very release is healthy, which it may see later than we do.
        self.kustomization_lacks(label("namespace"), label("name"), "lastAttemptedRevision", sha)
            .map(|why| format!("came from what {why}"))
    }
}
