//! Deleting objects: preconditions, grace, finalizers, propagation.

use super::error::ApiError;
use super::state::{State, present};
use super::table::ResourceDef;
use super::write::{Call, after_delete, may_go, persist};
use super::{defaults, json};
use serde_json::{Value, json};

/// The options of a delete request, from its body and its query.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace: Option<i64>,
    pub(crate) propagation: Option<String>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

impl DeleteOptions {
    pub(crate) fn from_body(body: &Value) -> Self {
        let text = |path: &[&str]| json::at(body, path).as_str().map(str::to_owned);
        let orphan = json::at(body, &["orphanDependents"])
            .as_bool()
            .map(|orphan| if orphan { "Orphan" } else { "Background" }.to_owned());
        Self {
            grace: json::int_at(body, &["gracePeriodSeconds"]),
            propagation: text(&["propagationPolicy"]).or(orphan),
            uid: text(&["preconditions", "uid"]),
            resource_version: text(&["preconditions", "resourceVersion"]),
        }
    }
}

/// Deletes one object: at once, or by marking it when something still holds it.
pub(crate) fn delete(state: &mut State, call: &Call, options: &DeleteOptions) -> Result<Value, ApiError> {
    let def = call.def.clone();
    let name = &call.name;
    let Some(old) = state.fetch(&def, &call.namespace, name) else { return Err(ApiError::not_found(&def, name)) };
    for (asked, field, word) in
        [(&options.uid, "uid", "UID"), (&options.resource_version, "resourceVersion", "ResourceVersion")]
    {
        let current = json::str_at(&old, &["metadata", field]);
        if let Some(asked) = asked.as_deref().filter(|a| *a != current) {
            let why = format!("Precondition failed: {word} in precondition: {asked}, {word} in object meta: {current}");
            return Err(ApiError::conflict(&def, name, why));
        }
    }
    if def.is("", "namespaces") && matches!(name.as_str(), "default" | "kube-system" | "kube-public") {
        return Err(ApiError::forbidden(&def, name, "this namespace may not be deleted"));
    }
    for hook in &state.hooks {
        hook(&mut super::Admission {
            operation: super::Operation::Delete,
            user: &call.user,
            group: &def.group,
            resource: &def.plural,
            subresource: "",
            namespace: &call.namespace,
            dry_run: call.dry_run,
            object: &mut Value::Null,
            old: Some(&old),
        })?;
    }
    let mut object = old.clone();
    mark(state, &def, &mut object, options);
    if call.dry_run {
        return Ok(if may_go(&def, &object) { answer(&def, &old, &object) } else { object });
    }
    if may_go(&def, &object) {
        state.delete(&def, &call.namespace, name);
        after_delete(state, &def, &object);
        return Ok(answer(&def, &old, &object));
    }
    if object == old {
        return Ok(object);
    }
    Ok(persist(state, &def, object))
}

/// A kind whose deletion answers with the object; others answer `Status`.
fn answer(def: &ResourceDef, old: &Value, last: &Value) -> Value {
    if def.is("", "pods")
        || def.is("", "persistentvolumeclaims")
        || def.is("", "services")
        || def.is("", "serviceaccounts")
    {
        return last.clone();
    }
    let mut details = json!({"name": json::str_at(old, &["metadata", "name"])});
    if !def.group.is_empty() {
        json::set(&mut details, &["group"], def.group.clone());
    }
    json::set(&mut details, &["kind"], def.plural.clone());
    json::set(&mut details, &["uid"], json::at(old, &["metadata", "uid"]).clone());
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// Sets the deletion time, the grace period and the finalizer of the propagation policy.
fn mark(state: &State, def: &ResourceDef, object: &mut Value, options: &DeleteOptions) {
    match options.propagation.as_deref() {
        Some("Orphan") => defaults::add_finalizer(object, "orphan"),
        Some("Foreground") => defaults::add_finalizer(object, "foregroundDeletion"),
        Some(_) => {
            let kept: Vec<Value> = json::list_at(object, &["metadata", "finalizers"])
                .iter()
                .filter(|f| *f != "orphan" && *f != "foregroundDeletion")
                .cloned()
                .collect();
            if kept.is_empty() {
                json::remove(object, &["metadata", "finalizers"]);
            } else {
                json::set(object, &["metadata", "finalizers"], kept);
            }
        }
        None => {}
    }
    let grace = grace_seconds(def, object, options.grace);
    let marked = !json::at(object, &["metadata", "deletionTimestamp"]).is_null();
    let shorter = json::int_at(object, &["metadata", "deletionGracePeriodSeconds"]).is_some_and(|g| grace < g);
    if !marked || shorter {
        let until = state.now().checked_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(jiff::Timestamp::MAX);
        json::set(object, &["metadata", "deletionTimestamp"], until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        json::set(object, &["metadata", "deletionGracePeriodSeconds"], grace);
    }
    if !marked && def.has_generation {
        let generation = json::int_at(object, &["metadata", "generation"]).unwrap_or(0) + 1;
        json::set(object, &["metadata", "generation"], generation);
    }
    if def.is("", "namespaces") {
        json::set(object, &["status", "phase"], "Terminating");
    }
}

/// Only pods on a node end gracefully; the kubelet deletes them for good.
fn grace_seconds(def: &ResourceDef, object: &Value, asked: Option<i64>) -> i64 {
    if !def.is("", "pods") {
        return 0;
    }
    let ended = matches!(json::str_at(object, &["status", "phase"]), "Succeeded" | "Failed");
    if ended || json::str_at(object, &["spec", "nodeName"]).is_empty() {
        return 0;
    }
    asked.or_else(|| json::int_at(object, &["spec", "terminationGracePeriodSeconds"])).unwrap_or(30).max(0)
}

/// The names of a deleted collection are answered as a list of its objects.
pub(crate) fn delete_collection(
    state: &mut State,
    call: &mut Call,
    options: &DeleteOptions,
    matches: impl Fn(&Value) -> bool,
) -> Result<Vec<Value>, ApiError> {
    let keys: Vec<(String, String)> = state
        .store
        .all(&call.def.storage)
        .filter(|((namespace, _), object)| {
            (call.namespace.is_empty() || *namespace == call.namespace) && matches(&present(&call.def, object))
        })
        .map(|(key, _)| key.clone())
        .collect();
    let (namespace, name) = (call.namespace.clone(), call.name.clone());
    let mut gone = Vec::new();
    for (object_namespace, object_name) in keys {
        call.namespace = object_namespace;
        call.name = object_name;
        gone.extend(state.fetch(&call.def, &call.namespace, &call.name));
        match delete(state, call, options) {
            Err(error) if error.code() != 404 => return Err(error),
            _ => {}
        }
    }
    (call.namespace, call.name) = (namespace, name);
    Ok(gone)
}
