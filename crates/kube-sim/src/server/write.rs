//! Creating and changing objects: the steps every write goes through.

use super::conform::{check_identity, conform, conform_applied};
use super::error::{ApiError, Cause};
use super::managed::{self, Writer};
use super::state::State;
use super::table::{ResourceDef, Source};
use super::{Admission, Identity, Operation, crd, defaults, json, patch, schema, validation};
use serde_json::Value;
use std::sync::Arc;

/// How strictly unknown fields are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// A request for one resource, taken apart.
pub(crate) struct Call {
    pub(crate) def: Arc<ResourceDef>,
    pub(crate) user: Identity,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    pub(crate) dry_run: bool,
    pub(crate) force: bool,
    pub(crate) manager: String,
    pub(crate) field_validation: FieldValidation,
    pub(crate) warnings: Vec<String>,
}

/// What an update does to the object.
pub(crate) enum Change<'a> {
    Replace(Value),
    Json(&'a [u8]),
    Merge(&'a [u8]),
    Strategic(&'a [u8]),
    Apply(Value),
}

/// Asks the admission hooks, which may change the object.
fn admit(
    state: &State,
    call: &Call,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    for hook in &state.hooks {
        hook(&mut Admission {
            operation,
            user: &call.user,
            group: &call.def.group,
            resource: &call.def.plural,
            subresource: &call.subresource,
            namespace: &call.namespace,
            dry_run: call.dry_run,
            object,
            old,
        })?;
    }
    Ok(())
}

/// All refusals of an object by its schema or kind.
fn check(def: &ResourceDef, object: &Value, old: Option<&Value>, subresource: &str) -> Vec<Cause> {
    match &def.source {
        Source::Builtin { .. } if subresource == "status" => Vec::new(),
        Source::Builtin { .. } => validation::check(def, object, old),
        Source::Crd(version) => {
            let mut causes = Vec::new();
            schema::validate(&version.schema, object, "", &mut causes);
            if !version.has_rules {
                return causes;
            }
            if causes.iter().any(Cause::blocks_rules) {
                let why = "some validation rules were not checked because the object was invalid; correct the existing errors to \
                           complete validation";
                causes.push(Cause::invalid("<nil>", &Value::Null, why));
            } else {
                causes.extend(version.check_rules(object, old));
            }
            causes
        }
    }
}

fn refuse(def: &ResourceDef, name: &str, causes: &[Cause]) -> Result<(), ApiError> {
    if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid(&def.kind, &def.group, name, causes)) }
}

/// Creates an object.
pub(crate) fn create(state: &mut State, call: &mut Call, object: Value) -> Result<Value, ApiError> {
    create_tracked(state, call, object, false)
}

fn create_tracked(state: &mut State, call: &mut Call, mut object: Value, by_apply: bool) -> Result<Value, ApiError> {
    check_identity(call, &mut object)?;
    if !json::str_at(&object, &["metadata", "resourceVersion"]).is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let def = call.def.clone();
    let generate = json::str_at(&object, &["metadata", "generateName"]).to_owned();
    if json::str_at(&object, &["metadata", "name"]).is_empty() {
        if generate.is_empty() {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            return Err(ApiError::invalid(&def.kind, &def.group, "", &[cause]));
        }
        json::set(&mut object, &["metadata", "name"], format!("{generate}{}", state.seeded.suffix()));
    }
    let name = json::str_at(&object, &["metadata", "name"]).to_owned();
    if def.namespaced {
        check_namespace(state, &def, &call.namespace, &name)?;
    }
    let mut object = conform(call, object)?;
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        json::remove(&mut object, &["metadata", field]);
    }
    if !by_apply {
        json::remove(&mut object, &["metadata", "managedFields"]);
    }
    json::set(&mut object, &["metadata", "uid"], state.seeded.uid());
    json::set(&mut object, &["metadata", "creationTimestamp"], state.now_text());
    if def.has_generation {
        json::set(&mut object, &["metadata", "generation"], 1);
    }
    if def.has_status && def.kind != "Node" {
        json::remove(&mut object, &["status"]);
    }
    admit(state, call, Operation::Create, &mut object, None)?;
    let default_class = default_storage_class(state);
    let next_ip = &mut state.next_ip;
    defaults::on_create(&def, &mut object, default_class.as_deref(), || {
        *next_ip += 1;
        format!("10.0.{}.{}", (*next_ip >> 8) & 0xff, *next_ip & 0xff)
    });
    let mut causes: Vec<Cause> = validation::check_name(&def, &name).into_iter().collect();
    causes.extend(check(&def, &object, None, ""));
    refuse(&def, &name, &causes)?;
    if state.store.get(&def.storage, &call.namespace, &name).is_some() {
        return Err(ApiError::already_exists(&def, &name));
    }
    if !by_apply {
        let now = state.now_text();
        managed::track_update(&def, None, &mut object, &Writer { manager: &call.manager, subresource: "", now: &now });
    }
    if let Source::Crd(version) = &def.source {
        // A default of the status comes back, unlike a status that was sent.
        super::schema::default(&version.schema, &mut object);
    }
    if call.dry_run {
        return Ok(super::state::present(&def, &object));
    }
    let stored = state.put(&def, object);
    after_write(state, &def, &stored);
    Ok(super::state::present(&def, &stored))
}

fn check_namespace(state: &State, def: &ResourceDef, namespace: &str, name: &str) -> Result<(), ApiError> {
    let Some(found) = state.namespace(namespace) else {
        return Err(match state.registry.find("", "v1", "namespaces") {
            Some(namespaces) => ApiError::not_found(&namespaces, namespace),
            None => ApiError::no_such_path(),
        });
    };
    if json::str_at(found, &["status", "phase"]) == "Terminating" {
        return Err(ApiError::namespace_terminating(def, name, namespace));
    }
    Ok(())
}

fn default_storage_class(state: &State) -> Option<String> {
    let storage = ("storage.k8s.io".to_owned(), "storageclasses".to_owned());
    let is_default = |class: &Value| {
        json::str_at(class, &["metadata", "annotations", "storageclass.kubernetes.io/is-default-class"]) == "true"
    };
    state.store.all(&storage).find(|(_, class)| is_default(class)).map(|((_, name), _)| name.clone())
}

/// Changes an object, or creates it when it is applied.
pub(crate) fn update(state: &mut State, call: &mut Call, change: Change<'_>) -> Result<Value, ApiError> {
    let def = call.def.clone();
    let name = call.name.clone();
    let now = state.now_text();
    let writer_manager = call.manager.clone();
    let subresource = call.subresource.clone();
    let writer = Writer { manager: &writer_manager, subresource: &subresource, now: &now };
    if def.is_crd() && matches!(change, Change::Strategic(_)) {
        return Err(ApiError::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, \
             application/merge-patch+json, application/apply-patch+yaml",
        ));
    }
    let Some(old) = state.fetch(&def, &call.namespace, &name) else {
        return match change {
            Change::Apply(mut applied) if call.subresource.is_empty() => {
                check_identity(call, &mut applied)?;
                if !json::str_at(&applied, &["metadata", "uid"]).is_empty() {
                    return Err(ApiError::conflict(
                        &def,
                        &name,
                        "uid mismatch: the provided object specified a uid, and no existing object was found",
                    ));
                }
                let applied = conform_applied(call, applied)?;
                let object = managed::apply(&def, None, &applied, &writer, call.force)?;
                create_tracked(state, call, object, true)
            }
            _ => Err(ApiError::not_found(&def, &name)),
        };
    };
    let by_apply = matches!(change, Change::Apply(_));
    let replaced = matches!(change, Change::Replace(_));
    let mut new = changed(call, &old, change, &writer)?;
    check_identity(call, &mut new)?;
    if json::str_at(&new, &["metadata", "name"]) != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            json::str_at(&new, &["metadata", "name"])
        )));
    }
    check_preconditions(&def, &name, &old, &new, replaced)?;
    let mut new = conform(call, new)?;
    restore_system_fields(&def, &old, &mut new, &call.subresource);
    admit(state, call, Operation::Update, &mut new, Some(&old))?;
    check_finalizers(&def, &name, &old, &new)?;
    bump_generation(&def, &old, &mut new);
    refuse(&def, &name, &check(&def, &new, Some(&old), &call.subresource))?;
    if !by_apply {
        managed::track_update(&def, Some(&old), &mut new, &writer);
    }
    if managed::same_but_times(&old, &new) {
        return Ok(old);
    }
    if call.dry_run {
        return Ok(super::state::present(&def, &new));
    }
    Ok(persist(state, &def, new))
}

fn changed(call: &mut Call, old: &Value, change: Change<'_>, writer: &Writer<'_>) -> Result<Value, ApiError> {
    let def = call.def.clone();
    let mut object = old.clone();
    match change {
        Change::Replace(mut object) => {
            json::set_default(&mut object, &["metadata", "name"], call.name.clone());
            Ok(object)
        }
        Change::Json(body) => patch::json::patch(&mut object, body).map(|()| object),
        Change::Merge(body) => patch::merge::patch(&mut object, body).map(|()| object),
        Change::Strategic(body) => patch::strategic::patch(&mut object, def.shape(), body).map(|()| object),
        Change::Apply(mut applied) => {
            check_identity(call, &mut applied)?;
            if json::at(&applied, &["metadata"]).get("managedFields").is_some_and(|m| !json::is_empty(m)) {
                return Err(ApiError::bad_request("metadata.managedFields must be nil"));
            }
            let sent = json::str_at(&applied, &["metadata", "resourceVersion"]).to_owned();
            let applied = conform_applied(call, applied)?;
            if !sent.is_empty() && sent != json::str_at(old, &["metadata", "resourceVersion"]) {
                return Err(ApiError::modified(&def, &call.name));
            }
            managed::apply(&def, Some(old), &applied, writer, call.force)
        }
    }
}

fn check_preconditions(
    def: &ResourceDef,
    name: &str,
    old: &Value,
    new: &Value,
    replaced: bool,
) -> Result<(), ApiError> {
    let sent = json::str_at(new, &["metadata", "resourceVersion"]);
    let current = json::str_at(old, &["metadata", "resourceVersion"]);
    let must_send = def.is_crd() || matches!(def.kind.as_str(), "Lease" | "CustomResourceDefinition");
    if sent.is_empty() && replaced && must_send {
        let cause = Cause::invalid("metadata.resourceVersion", &Value::from(0), "must be specified for an update");
        return Err(ApiError::invalid(&def.kind, &def.group, name, &[cause]));
    }
    if !sent.is_empty() && sent != current {
        return Err(ApiError::modified(def, name));
    }
    let (sent, current) = (json::str_at(new, &["metadata", "uid"]), json::str_at(old, &["metadata", "uid"]));
    if !sent.is_empty() && sent != current {
        return Err(ApiError::conflict(
            def,
            name,
            format!("Precondition failed: UID in precondition: {sent}, UID in object meta: {current}"),
        ));
    }
    Ok(())
}

const SYSTEM_METADATA: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "generateName",
    "selfLink",
];

fn restore_system_fields(def: &ResourceDef, old: &Value, new: &mut Value, subresource: &str) {
    if subresource == "status" {
        let status = json::at(new, &["status"]).clone();
        let managed = json::at(new, &["metadata", "managedFields"]).clone();
        *new = old.clone();
        json::set(new, &["status"], status);
        json::set(new, &["metadata", "managedFields"], managed);
        json::drop_nulls(json::object_mut(new).entry("metadata").or_insert(Value::Null));
        if json::at(new, &["status"]).is_null() {
            json::remove(new, &["status"]);
        }
        return;
    }
    for field in SYSTEM_METADATA {
        json::copy_at(old, new, &["metadata", field]);
    }
    if def.has_status {
        json::copy_at(old, new, &["status"]);
    }
    if def.kind == "Namespace" && def.group.is_empty() && subresource != "finalize" {
        json::copy_at(old, new, &["spec", "finalizers"]);
    }
}

fn check_finalizers(def: &ResourceDef, name: &str, old: &Value, new: &Value) -> Result<(), ApiError> {
    if json::at(old, &["metadata", "deletionTimestamp"]).is_null() {
        return Ok(());
    }
    let before = json::list_at(old, &["metadata", "finalizers"]);
    let fresh: Vec<String> = json::list_at(new, &["metadata", "finalizers"])
        .iter()
        .filter(|f| !before.contains(f))
        .map(Value::to_string)
        .collect();
    if fresh.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        fresh.join(", ")
    );
    Err(ApiError::invalid(&def.kind, &def.group, name, &[Cause::forbidden("metadata.finalizers", &detail)]))
}

fn bump_generation(def: &ResourceDef, old: &Value, new: &mut Value) {
    if !def.has_generation {
        return;
    }
    let desired = |object: &Value| {
        let mut object = object.clone();
        json::remove(&mut object, &["metadata"]);
        if def.has_status {
            json::remove(&mut object, &["status"]);
        }
        object
    };
    let annotations = ["metadata", "annotations"];
    let annotated = def.is("apps", "deployments") && json::at(old, &annotations) != json::at(new, &annotations);
    if annotated || desired(old) != desired(new) {
        let generation = json::int_at(old, &["metadata", "generation"]).unwrap_or(0) + 1;
        json::set(new, &["metadata", "generation"], generation);
    }
}

/// True if nothing keeps an object that is being deleted.
pub(crate) fn may_go(def: &ResourceDef, object: &Value) -> bool {
    let deleting = !json::at(object, &["metadata", "deletionTimestamp"]).is_null();
    let unheld = json::list_at(object, &["metadata", "finalizers"]).is_empty();
    let grace_over =
        !def.is("", "pods") || json::int_at(object, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) == 0;
    let emptied = !def.is("", "namespaces") || json::list_at(object, &["spec", "finalizers"]).is_empty();
    deleting && unheld && grace_over && emptied
}

/// Stores a changed object, or removes it if that was all that kept it.
pub(crate) fn persist(state: &mut State, def: &ResourceDef, object: Value) -> Value {
    if may_go(def, &object) {
        let (namespace, name) = (
            json::str_at(&object, &["metadata", "namespace"]).to_owned(),
            json::str_at(&object, &["metadata", "name"]).to_owned(),
        );
        state.delete(def, &namespace, &name);
        after_delete(state, def, &object);
        return object;
    }
    let stored = state.put(def, object);
    after_write(state, def, &stored);
    super::state::present(def, &stored)
}

/// What the server itself does after a write: it serves new custom resources at once.
fn after_write(state: &mut State, def: &ResourceDef, stored: &Value) {
    if !def.is("apiextensions.k8s.io", "customresourcedefinitions")
        || !json::at(stored, &["metadata", "deletionTimestamp"]).is_null()
    {
        return;
    }
    let (group, plural) = (
        json::str_at(stored, &["spec", "group"]).to_owned(),
        json::str_at(stored, &["spec", "names", "plural"]).to_owned(),
    );
    state.registry.remove_resource(&group, &plural);
    for resource in crd::resources(stored) {
        state.registry.insert(resource);
    }
    if json::at(stored, &["status", "conditions"]).is_null() {
        let mut with_status = stored.clone();
        json::set(&mut with_status, &["status"], crd::established_status(stored, &state.now_text()));
        state.put(def, with_status);
    }
}

/// The counterpart of [`after_write`] for objects that are gone.
pub(crate) fn after_delete(state: &mut State, def: &ResourceDef, object: &Value) {
    if def.is("apiextensions.k8s.io", "customresourcedefinitions") {
        let (group, plural) =
            (json::str_at(object, &["spec", "group"]), json::str_at(object, &["spec", "names", "plural"]));
        state.registry.remove_resource(group, plural);
    }
}
