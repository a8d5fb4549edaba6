//! The rules that must hold after every write, checked on a copy of the objects that is kept from the writes themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube_sim::SimServer;
use kube_sim::server::{Admission, Operation};
use serde_json::Value;
use upgrade_core::ports::CommitRequest;

use super::Pushes;
use crate::estate::OPERATOR_USER;

/// `resource`, namespace, name.
type Key = (String, String, String);

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    broken: Vec<String>,
    writes: u64,
}

/// Watches every write.
#[derive(Clone, Default)]
pub(crate) struct Rules(Arc<Mutex<State>>);

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl Rules {
    /// Looks at every write from now on.
    pub(crate) fn watch(server: &SimServer, pushes: &Pushes) -> Self {
        let rules = Self::default();
        let watcher = rules.clone();
        server.add_admission_hook(Arc::new(move |write| {
            watcher.see(write);
            Ok(())
        }));
        let watcher = rules.clone();
        pushes.judged_by(Arc::new(move |request| watcher.with(|state| before_commit(state, request))));
        rules
    }

    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was broken, and how many writes were looked at.
    pub(crate) fn verdict(&self) -> (Vec<String>, u64) {
        self.with(|state| (state.broken.clone(), state.writes))
    }

    fn see(&self, write: &Admission<'_>) {
        if write.dry_run {
            return;
        }
        let subject = if write.operation == Operation::Delete {
            write.old.cloned().unwrap_or_default()
        } else {
            write.object.clone()
        };
        let name = text(&subject, "/metadata/name").to_owned();
        let key = (write.resource.to_owned(), write.namespace.to_owned(), name);
        self.with(|state| {
            state.writes += 1;
            if write.user.name == OPERATOR_USER {
                before_write(state, write, &key, &subject);
            }
            match write.operation {
                // Objects with finalizers stay until these are gone; being marked is all that the rules ask about.
                Operation::Delete => {
                    let last = state.objects.entry(key).or_insert(subject);
                    last["deleting"] = true.into();
                }
                Operation::Create | Operation::Update => {
                    state.objects.insert(key, subject);
                }
            }
            always(state);
        });
    }
}

impl State {
    fn all<'a>(&'a self, resource: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |((kind, ..), _)| kind == resource).map(|(_, object)| object)
    }

    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects
            .get(&(resource.to_owned(), namespace.to_owned(), name.to_owned()))
            .filter(|found| found["deleting"] != true)
    }

    fn broken(&mut self, rule: &str, what: impl std::fmt::Display) {
        self.broken.push(format!("{rule}: {what}"));
    }

    /// Pods that mount the claim and have not ended.
    fn users_of(&self, namespace: &str, claim: &str) -> Vec<String> {
        let mounts = |pod: &&Value| {
            let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).cloned().unwrap_or_default();
            text(pod, "/metadata/namespace") == namespace
                && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
                && volumes.iter().any(|volume| text(volume, "/persistentVolumeClaim/claimName") == claim)
        };
        self.all("pods")
            .filter(|pod| pod["deleting"] != true)
            .filter(mounts)
            .map(|pod| text(pod, "/metadata/name").to_owned())
            .collect()
    }
}

/// Rule 2: no claim of an app is deleted unless its volume is on Retain, a restored copy is on Retain too, and nothing mounts it.
fn before_write(state: &mut State, write: &Admission<'_>, key: &Key, subject: &Value) {
    let (resource, namespace, name) = key;
    match (write.operation, resource.as_str()) {
        (Operation::Delete, "persistentvolumeclaims") if !name.starts_with("windlass-") => {
            let volume = text(subject, "/spec/volumeName");
            let policy = state
                .get("persistentvolumes", "", volume)
                .map(|found| text(found, "/spec/persistentVolumeReclaimPolicy").to_owned());
            if policy.as_deref() != Some("Retain") {
                state.broken("2", format!("claim {name} was deleted while its volume was on {policy:?}"));
            }
            let copy = state.all("persistentvolumes").any(|other| {
                text(other, "/metadata/name") != volume
                    && other["deleting"] != true
                    && text(other, "/spec/persistentVolumeReclaimPolicy") == "Retain"
                    && text(other, "/spec/claimRef/name") == name
                    && text(other, "/spec/claimRef/namespace") == namespace
            });
            if !copy {
                state.broken("2", format!("claim {name} was deleted without a restored copy that waits for it"));
            }
            let users = state.users_of(namespace, name);
            if !users.is_empty() {
                state.broken("2", format!("claim {name} was deleted while {users:?} mounted it"));
            }
        }
        (Operation::Delete, "persistentvolumes") => state.broken("2", format!("volume {name} was deleted")),
        (Operation::Update, "persistentvolumes") => {
            let before = state.get("persistentvolumes", "", name).cloned().unwrap_or_default();
            let lets_go = text(&before, "/spec/persistentVolumeReclaimPolicy") == "Retain"
                && text(subject, "/spec/persistentVolumeReclaimPolicy") == "Delete";
            let bound = text(subject, "/status/phase") == "Bound";
            if lets_go && !bound && text(subject, "/spec/claimRef/name").is_empty() {
                state.broken("2", format!("volume {name} was let go while nothing is bound to it"));
            }
        }
        (Operation::Update, "upgraderequests") if write.subresource == "status" => {
            let outcome = text(subject, "/status/outcome");
            let before =
                state.get("upgraderequests", namespace, name).map(|found| text(found, "/status/outcome").to_owned());
            if outcome == "Succeeded" && before.as_deref() != Some("Succeeded") {
                before_success(state, namespace, subject);
            }
        }
        _ => {}
    }
}

/// Rule 1: every required snapshot is ready and bound both ways before a version is committed.
fn before_commit(state: &mut State, request: &CommitRequest) {
    // Reverts and rollbacks put back what the data belongs to; their copies are checked where claims are swapped.
    let bumps = request.message.starts_with("Upgrade ");
    if !bumps {
        return;
    }
    let points: Vec<Value> = state
        .all("restorepoints")
        .filter(|point| point["deleting"] != true && text(point, "/spec/void").is_empty())
        .cloned()
        .collect();
    let Some(newest) = points.iter().max_by_key(|point| text(point, "/spec/takenAt").to_owned()) else {
        state.broken("1", "a version is committed without a restore point");
        return;
    };
    let namespace = text(newest, "/metadata/namespace").to_owned();
    for data in newest.pointer("/spec/data").and_then(Value::as_array).cloned().unwrap_or_default() {
        let (snapshot, content) = (text(&data, "/snapshot"), text(&data, "/content"));
        let taken = state.get("volumesnapshots", &namespace, snapshot).cloned().unwrap_or_default();
        let bound = state.get("volumesnapshotcontents", "", content).cloned().unwrap_or_default();
        let ready = taken.pointer("/status/readyToUse") == Some(&Value::Bool(true));
        let both = text(&taken, "/status/boundVolumeSnapshotContentName") == content
            && text(&bound, "/spec/volumeSnapshotRef/name") == snapshot
            && text(&bound, "/spec/volumeSnapshotRef/uid") == text(&taken, "/metadata/uid");
        let kept = text(&bound, "/spec/deletionPolicy") == "Retain";
        if !(ready && both && kept) {
            state.broken("1", format!("a version is committed while snapshot {snapshot} is ready: {ready}, bound both ways: {both}, kept: {kept}"));
        }
    }
}

/// Rule 3: success only when pods of the target run and are ready, and nothing is suspended by us.
fn before_success(state: &mut State, namespace: &str, request: &Value) {
    let targets: Vec<String> = request
        .pointer("/spec/target/components")
        .and_then(Value::as_object)
        .map(|all| {
            all.iter()
                .filter(|(component, _)| component.starts_with("image/"))
                .filter_map(|(_, version)| Some(format!(":{}", version.as_str()?)))
                .collect()
        })
        .unwrap_or_default();
    let ready = |pod: &&Value| {
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        conditions.iter().any(|one| text(one, "/type") == "Ready" && text(one, "/status") == "True")
    };
    let pods: Vec<&Value> = state
        .all("pods")
        .filter(|pod| pod["deleting"] != true && text(pod, "/metadata/namespace") == namespace)
        .collect();
    let running = pods
        .iter()
        .filter(|pod| ready(pod))
        .filter(|pod| targets.iter().any(|tag| text(pod, "/spec/containers/0/image").ends_with(tag.as_str())))
        .count();
    if running == 0 {
        state.broken("3", "success was written while no pod of the target was ready");
    }
}

/// Rule 5: one active operation for each app.
fn always(state: &mut State) {
    let active = |resource: &str| -> Vec<String> {
        let running =
            |request: &&Value| request.pointer("/status/plan").is_some() && text(request, "/status/outcome").is_empty();
        state.all(resource).filter(running).map(|request| text(request, "/metadata/name").to_owned()).collect()
    };
    let (upgrades, rollbacks) = (active("upgraderequests"), active("rollbackrequests"));
    if upgrades.len() > 1 || rollbacks.len() > 1 {
        state.broken("5", format!("active at once: {upgrades:?} {rollbacks:?}"));
    }
}

impl Rules {
    /// What the operator is at, by the journals.
    pub(crate) fn current_step(&self) -> String {
        self.with(|state| {
            let newest = |resource: &str, prefix: &str| {
                let running = state.all(resource).find(|request| {
                    request.pointer("/status/plan").is_some() && text(request, "/status/outcome").is_empty()
                })?;
                let entries =
                    running.pointer("/status/journal/entries").and_then(Value::as_array).cloned().unwrap_or_default();
                let at = entries.last().map_or_else(|| "plan".to_owned(), |entry| text(entry, "/step").to_owned());
                Some(format!("{prefix} {at}"))
            };
            let request = state.all("upgraderequests").next().is_some();
            newest("rollbackrequests", "rollback")
                .or_else(|| newest("upgraderequests", "upgrade"))
                .unwrap_or_else(|| if request { "before the plan, or after the end" } else { "idle" }.to_owned())
        })
    }
}
