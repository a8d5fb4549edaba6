//! Plans and journals in the status of requests, written by compare-and-swap together with everything derived from them.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use kube::api::Patch;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use upgrade_core::Failure;
use upgrade_core::engine::{Journal, Plan};
use upgrade_core::ports::{JournalStore, Revision, SaveError, Stored};
use windlass_api::call::{CallError, patch_params};
use windlass_api::{Condition, OperationStatus};

use crate::conditions::{self, Said};
use crate::kinds::Request;
use crate::status;

/// The record of one request, found by its UID: a request of the same name made later is another operation.
pub(crate) struct RequestStore<K> {
    api: Api<K>,
    namespace: String,
    name: String,
    kind: PhantomData<K>,
    /// The journal as it was before the last write of it, and the write, for events.
    loaded: Mutex<Option<Journal>>,
    /// What was last read or written of what the record is written together with.
    known: Mutex<Known>,
    change: Mutex<Option<(Plan, Journal, Journal)>>,
    /// Whether the request was cancelled when it was last read.
    cancelled: AtomicBool,
}

/// What conditions are made from.
struct Known {
    conditions: Vec<Condition>,
    generation: Option<i64>,
    /// Whether the request has an outcome: its conditions are final then.
    over: bool,
}

impl Known {
    fn of<K: Request>(request: &K) -> Self {
        let status = request.status().cloned().unwrap_or_default();
        Self { conditions: status.conditions, generation: request.meta().generation, over: status.outcome.is_some() }
    }
}

impl<K: Request> RequestStore<K> {
    pub(crate) fn new(client: Client, request: &K) -> Self {
        let namespace = request.namespace().unwrap_or_default();
        Self {
            api: Api::namespaced(client, &namespace),
            namespace,
            name: request.name_any(),
            kind: PhantomData,
            loaded: Mutex::default(),
            known: Mutex::new(Known::of(request)),
            change: Mutex::default(),
            cancelled: AtomicBool::new(request.cancelled()),
        }
    }

    /// Whether the request was cancelled, as of the newest read.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// The conditions of a request that is being worked on; nothing for one that is over.
    fn working(&self, plan: &Plan, journal: &Journal) -> Value {
        let known = held(&self.known);
        if known.over {
            return json!({});
        }
        let (reason, message) = (status::phase(plan, journal), status::summary(plan, journal));
        let said = Said { reason: &reason, message: &message, generation: known.generation, now: journal.started_at };
        json!({"conditions": conditions::working(&known.conditions, said), "observedGeneration": known.generation})
    }

    /// Plan, journal before and journal after all writes since this was last asked.
    pub(crate) fn take_change(&self) -> Option<(Plan, Journal, Journal)> {
        held(&self.change).take()
    }
}

/// A merge patch keeps fields that it does not name, such as those of a course that was left: they are named, as null.
fn vacate(before: Option<&Value>, after: &mut Value) {
    let (Some(Value::Object(before)), Value::Object(after)) = (before, after) else { return };
    for (key, earlier) in before {
        match after.get_mut(key) {
            Some(later) => vacate(Some(earlier), later),
            None => drop(after.insert(key.clone(), Value::Null)),
        }
    }
}

fn held<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn failed(error: &CallError) -> Failure {
    Failure {
        code: error.code().into(),
        message: error.to_string(),
        hint: error.hint(),
        retryable: error.is_retryable(),
    }
}

/// Whether plan and journal are stored. A plan alone is that of a dry run.
pub(crate) fn is_planned(status: &OperationStatus) -> bool {
    status.plan.is_some() && status.journal.is_some()
}

/// Reads plan and journal out of a request's status; `None` when there is no plan yet.
pub(crate) fn record<K: Request>(request: &K) -> Result<Option<(Plan, Journal)>, Failure> {
    let Some(status) = request.status() else { return Ok(None) };
    let (Some(plan), Some(journal)) = (&status.plan, &status.journal) else { return Ok(None) };
    let unreadable = |what: &str, error: serde_json::Error| {
        Failure::permanent("record-unreadable", format!("the {what} in the request's status cannot be read: {error}"))
            .with_hint("let the version of Windlass that wrote it finish it")
    };
    let plan: Plan = serde_json::from_value(plan.clone()).map_err(|error| unreadable("plan", error))?;
    let journal: Journal = serde_json::from_value(journal.clone()).map_err(|error| unreadable("journal", error))?;
    Ok(Some((plan, journal)))
}

#[async_trait]
impl<K: Request> JournalStore for RequestStore<K> {
    async fn load(&self, operation: &str) -> Result<Option<Stored>, Failure> {
        let found = self.api.get_opt(&self.name).await;
        let found =
            found.map_err(CallError::on::<K>("get", &self.namespace, &self.name)).map_err(|error| failed(&error))?;
        let Some(request) = found.filter(|request| request.uid().as_deref() == Some(operation)) else {
            return Ok(None);
        };
        let revision = Revision(request.resource_version().unwrap_or_default());
        self.cancelled.store(request.cancelled(), Ordering::Relaxed);
        *held(&self.known) = Known::of(&request);
        let record = record(&request)?;
        *held(&self.loaded) = record.as_ref().map(|(_, journal)| journal.clone());
        Ok(record.map(|(plan, journal)| Stored { plan, journal, revision }))
    }

    async fn save(
        &self,
        operation: &str,
        plan: &Plan,
        journal: &Journal,
        expected: Option<Revision>,
    ) -> Result<Revision, SaveError> {
        let mut status = status::derive(plan, journal);
        let unwritable = |error: serde_json::Error| Failure::permanent("record-unwritable", error.to_string());
        let mut written = serde_json::to_value(journal).map_err(unwritable)?;
        let before = held(&self.loaded).as_ref().map(serde_json::to_value).transpose().map_err(unwritable)?;
        vacate(before.as_ref(), &mut written);
        let working = self.working(plan, journal);
        if let (Value::Object(fields), Value::Object(working)) = (&mut status, working) {
            fields.extend(working);
            fields.insert("plan".into(), serde_json::to_value(plan).map_err(unwritable)?);
            fields.insert("journal".into(), written);
        }
        let mut metadata = json!({"uid": operation});
        if let (Some(revision), Value::Object(fields)) = (expected, &mut metadata) {
            fields.insert("resourceVersion".into(), json!(revision.0));
        }
        let patch = Patch::Merge(json!({"metadata": metadata, "status": status}));
        let written = self.api.patch_status(&self.name, &patch_params(), &patch).await;
        match written.map_err(CallError::on::<K>("patch", &self.namespace, &self.name)) {
            Ok(request) => {
                *held(&self.known) = Known::of(&request);
                if let Some(before) = held(&self.loaded).replace(journal.clone()) {
                    let mut change = held(&self.change);
                    let first = change.take().map_or(before, |(_, first, _)| first);
                    *change = Some((plan.clone(), first, journal.clone()));
                }
                Ok(Revision(request.resource_version().unwrap_or_default()))
            }
            Err(error) if error.is_conflict() => Err(SaveError::Conflict),
            Err(error) => Err(SaveError::Failed(failed(&error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_journal_no_longer_says_is_gone_from_the_stored_one() {
        let before = json!({"course": {"back": "cancelled"}, "entries": [{"step": "a", "intent": {"x": 1}}], "kept": {"a": {"b": 1}}});
        let after = json!({"course": {"letGo": {"why": "w"}}, "entries": [{"step": "a"}], "kept": {"a": {"b": 2}}});
        let mut patch = after.clone();
        vacate(Some(&before), &mut patch);
        let mut stored = before;
        json_patch::merge(&mut stored, &patch);
        assert_eq!(stored, after);
    }
}
