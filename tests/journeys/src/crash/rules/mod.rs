//! The rules that must hold at every write, checked on a copy of the objects that is kept from the writes themselves, and on the
//! kubelet's log.

mod acting;
mod data;
mod running;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube_sim::SimServer;
use kube_sim::controllers::pods::RunLog;
use kube_sim::server::{Admission, Operation};
use serde_json::Value;

use super::Pushes;
use crate::estate::OPERATOR_USER;

/// `resource`, namespace, name.
type Key = (String, String, String);

/// What is known at one moment.
#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    broken: Vec<String>,
    writes: u64,
    runs: RunLog,
    /// How many entries of that log were looked at.
    runs_seen: usize,
    /// Images of the ready pods of a namespace when its first upgrade was asked for.
    found: BTreeMap<String, Vec<String>>,
    /// Since when each pod that stays has been ready.
    ready_since: BTreeMap<Key, tokio::time::Instant>,
    /// When the lease was last written.
    lease_written: Option<tokio::time::Instant>,
}

/// Watches every write.
#[derive(Clone, Default)]
pub(crate) struct Rules(Arc<Mutex<State>>);

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether an object was deleted, though it may still be there.
fn is_going(object: &Value) -> bool {
    object["deleting"] == true || object.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null())
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = list(pod, "/status/conditions").iter();
    conditions.any(|one| text(one, "/type") == "Ready" && text(one, "/status") == "True")
}

/// Whether the journal of a request has a step that was begun, of those whose id begins so.
fn begun(request: &Value, step: &str) -> bool {
    list(request, "/status/journal/entries")
        .iter()
        .any(|entry| text(entry, "/step").starts_with(step) && entry["begun"] == true)
}

impl Rules {
    /// Looks at every write from now on.
    pub(crate) fn watch(server: &SimServer, pushes: &Pushes, runs: &RunLog) -> Self {
        let rules = Self::default();
        rules.with(|state| state.runs = runs.clone());
        let watcher = rules.clone();
        server.add_admission_hook(Arc::new(move |write| {
            watcher.see(write);
            Ok(())
        }));
        let watcher = rules.clone();
        pushes.judged_by(Arc::new(move |request| watcher.with(|state| data::before_commit(state, request))));
        rules
    }

    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was broken, and how many writes were looked at.
    pub(crate) fn verdict(&self) -> (Vec<String>, u64) {
        self.with(|state| {
            running::since_the_last_write(state);
            (state.broken.clone(), state.writes)
        })
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
            // What has started by now started under what was written before.
            running::since_the_last_write(state);
            data::before_anybody_deletes(state, write, &key, &subject);
            if write.user.name == OPERATOR_USER {
                acting::before_write(state, write, &key, &subject);
                data::before_write(state, write, &key, &subject);
                running::before_write(state, write, &key, &subject);
            }
            state.take(write, key, subject);
        });
    }

    /// What the operator is at, by the journals.
    pub(crate) fn current_step(&self) -> String {
        self.with(|state| {
            let newest = |resource: &str, prefix: &str| {
                let running = state.all(resource).find(|request| {
                    request.pointer("/status/plan").is_some() && text(request, "/status/outcome").is_empty()
                })?;
                let entries = list(running, "/status/journal/entries");
                if let Some(back) = entries.iter().find(|entry| text(entry, "/state") == "Undoing") {
                    return Some(format!("{prefix}, undoing {}", text(back, "/step")));
                }
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

impl State {
    /// Notes a write.
    fn take(&mut self, write: &Admission<'_>, key: Key, mut subject: Value) {
        if key.0 == "pods" {
            if write.operation != Operation::Delete && is_ready(&subject) && !is_going(&subject) {
                self.ready_since.entry(key.clone()).or_insert_with(tokio::time::Instant::now);
            } else {
                self.ready_since.remove(&key);
            }
        }
        if let Some(old) =
            write.old.filter(|old| write.operation == Operation::Update && old["spec"] != subject["spec"])
        {
            // The server counts once it has let the write pass.
            subject["metadata"]["generation"] = (old["metadata"]["generation"].as_i64().unwrap_or_default() + 1).into();
        }
        match write.operation {
            // A pod runs on until its kubelet says that it is gone, unless none has taken it.
            Operation::Delete if key.0 == "pods" => {
                if write.user.name == "system:node" || text(&subject, "/spec/nodeName").is_empty() {
                    self.objects.remove(&key);
                } else {
                    self.objects.entry(key).or_insert(subject)["deleting"] = true.into();
                }
            }
            // Objects with finalizers stay until these are gone; being marked is all that the rules ask about.
            Operation::Delete => self.objects.entry(key).or_insert(subject)["deleting"] = true.into(),
            Operation::Create | Operation::Update => {
                match key.0.as_str() {
                    "leases" => self.lease_written = Some(tokio::time::Instant::now()),
                    "upgraderequests" if !self.found.contains_key(&key.1) => {
                        let images = self.ready_images(&key.1);
                        self.found.insert(key.1.clone(), images);
                    }
                    _ => {}
                }
                self.objects.insert(key, subject);
            }
        }
    }

    fn all<'a>(&'a self, resource: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |((kind, ..), _)| kind == resource).map(|(_, object)| object)
    }

    fn within<'a>(&'a self, resource: &'a str, namespace: &'a str) -> impl Iterator<Item = &'a Value> {
        self.all(resource).filter(move |object| text(object, "/metadata/namespace") == namespace)
    }

    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Value> {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.objects.get(&key).filter(|found| !is_going(found))
    }

    fn broken(&mut self, rule: &str, what: impl std::fmt::Display) {
        self.broken.push(format!("{rule}: {what}"));
    }

    /// Images of the pods that are ready and stay.
    fn ready_images(&self, namespace: &str) -> Vec<String> {
        let pods = self.within("pods", namespace).filter(|pod| !is_going(pod) && is_ready(pod));
        pods.map(|pod| text(pod, "/spec/containers/0/image").to_owned()).collect()
    }
}
