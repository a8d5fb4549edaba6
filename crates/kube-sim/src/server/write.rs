//! Creating and changing objects: the steps every write goes through.

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

/// Checks that a body is of the kind and in the namespace that the path says.
fn check_identity(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    if !object.is_object() {
        return Err(ApiError::bad_request("the body of the request was not an object"));
    }
    let def = &call.def;
    json::set_default(object, &["apiVersion"], def.api_version());
    json::set_default(object, &["kind"], def.kind.clone());
    let (api_version, kind) = (json::str_at(object, &["apiVersion"]), json::str_at(object, &["kind"]));
    if kind != def.kind || api_version != def.api_version() {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) or its kind ({kind}) does not match the expected API version ({}) and kind ({})",
            def.api_version(),
            def.kind
        )));
    }
    let namespace = json::str_at(object, &["metadata", "namespace"]);
    if !namespace.is_empty() && namespace != call.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if def.namespaced {
        json::set(object, &["metadata", "namespace"], call.namespace.clone());
    } else {
        json::remove(object, &["metadata", "namespace"]);
    }
    Ok(())
}

/// Brings a body into the form of its kind: types checked, unknown fields pruned, defaults filled in.
pub(crate) fn conform(call: &mut Call, mut object: Value) -> Result<Value, ApiError> {
    let mut unknown = Vec::new();
    let def = call.def.clone();
    let mut object = match &def.source {
        Source::Builtin { decode, .. } => {
            let mut decoded = decode(object.clone()).map_err(|e| {
                ApiError::bad_request(format!(
                    "{} in version \"{}\" cannot be handled as a {}: {e}",
                    def.kind, def.version, def.kind
                ))
            })?;
            unknown_fields(&object, &decoded, "", &mut unknown);
            json::drop_nulls(&mut decoded);
            drop_empty(&mut decoded, true);
            defaults::apply(&def, &mut decoded);
            decoded
        }
        Source::Crd(version) => {
            conform_metadata(&mut object, &mut unknown)?;
            schema::prune(&version.schema, &mut object, true, "", &mut unknown);
            schema::default(&version.schema, &mut object);
            schema::drop_bad_nulls(&version.schema, &mut object);
            object
        }
    };
    json::set(&mut object, &["apiVersion"], def.api_version());
    json::set(&mut object, &["kind"], def.kind.clone());
    match call.field_validation {
        FieldValidation::Strict if !unknown.is_empty() => {
            let listed: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
            return Err(ApiError::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
                def.kind,
                def.version,
                def.kind,
                listed.join(", ")
            )));
        }
        FieldValidation::Warn => call.warnings.extend(unknown.iter().map(|path| format!("unknown field \"{path}\""))),
        _ => {}
    }
    Ok(object)
}

fn conform_metadata(object: &mut Value, unknown: &mut Vec<String>) -> Result<(), ApiError> {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    let given = json::at(object, &["metadata"]).clone();
    let typed: ObjectMeta =
        serde_json::from_value(if given.is_null() { Value::Object(serde_json::Map::new()) } else { given.clone() })
            .map_err(|e| ApiError::bad_request(format!("metadata: {e}")))?;
    let mut decoded = serde_json::to_value(typed).map_err(|e| ApiError::internal(e.to_string()))?;
    unknown_fields(&given, &decoded, "metadata", unknown);
    drop_empty(&mut decoded, false);
    json::object_mut(object).insert("metadata".to_owned(), decoded);
    Ok(())
}

fn unknown_fields(given: &Value, decoded: &Value, path: &str, out: &mut Vec<String>) {
    match (given, decoded) {
        (Value::Object(given), Value::Object(decoded)) => {
            for (key, value) in given {
                let child = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match decoded.get(key) {
                    Some(found) => unknown_fields(value, found, &child, out),
                    None if value.is_null() => {}
                    None => out.push(child),
                }
            }
        }
        (Value::Array(given), Value::Array(decoded)) => {
            for (index, (g, d)) in given.iter().zip(decoded).enumerate() {
                unknown_fields(g, d, &format!("{path}[{index}]"), out);
            }
        }
        _ => {}
    }
}

/// Maps that Go leaves out when they are empty.
const OMITTED_WHEN_EMPTY: &[&str] = &[
    "labels",
    "annotations",
    "data",
    "binaryData",
    "stringData",
    "nodeSelector",
    "matchLabels",
    "limits",
    "requests",
    "parameters",
];

fn drop_empty(value: &mut Value, deep: bool) {
    match value {
        Value::Object(map) => {
            map.retain(|key, v| match v {
                Value::Array(items) => !items.is_empty() || key == "managedFields",
                Value::Object(inner) => !(inner.is_empty() && OMITTED_WHEN_EMPTY.contains(&key.as_str())),
                _ => true,
            });
            if deep {
                map.values_mut().for_each(|v| drop_empty(v, true));
            }
        }
        Value::Array(items) if deep => items.iter_mut().for_each(|v| drop_empty(v, true)),
        _ => {}
    }
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
            if causes.is_empty() {
                causes = version.check_rules(object, old);
            }
            causes
        }
    }
}

fn refuse(def: &ResourceDef, name: &str, causes: Vec<Cause>) -> Result<(), ApiError> {
    if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid(&def.kind, &def.group, name, &causes)) }
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
    refuse(&def, &name, causes)?;
    if state.store.get(&def.storage, &call.namespace, &name).is_some() {
        return Err(ApiError::already_exists(&def, &name));
    }
    if !by_apply {
        let now = state.now_text();
        managed::track_update(&def, None, &mut object, &Writer { manager: &call.manager, subresource: "", now: &now });
    }
    if call.dry_run {
        return Ok(object);
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
    refuse(&def, &name, check(&def, &new, Some(&old), &call.subresource))?;
    if !by_apply {
        managed::track_update(&def, Some(&old), &mut new, &writer);
    }
    if managed::same_but_times(&old, &new) {
        return Ok(old);
    }
    if call.dry_run {
        return Ok(new);
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
        Change::Strategic(_) if def.is_crd() => Err(ApiError::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, \
             application/merge-patch+json, application/apply-patch+yaml",
        )),
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

/// An applied configuration: unknown fields pruned, but no defaults, for it owns only what it names.
fn conform_applied(call: &mut Call, mut applied: Value) -> Result<Value, ApiError> {
    let mut unknown = Vec::new();
    match &call.def.source {
        Source::Builtin { decode, .. } => {
            let decoded = decode(applied.clone())
                .map_err(|e| ApiError::bad_request(format!("failed to create typed patch object: {e}")))?;
            unknown_fields(&applied, &decoded, "", &mut unknown);
        }
        Source::Crd(version) => schema::prune(&version.schema, &mut applied, true, "", &mut unknown),
    }
    if unknown.is_empty() {
        json::drop_nulls(&mut applied);
        return Ok(applied);
    }
    // Unlike other writes, an apply with fields that are not in the schema is refused whatever the validation says.
    let path = unknown.first().cloned().unwrap_or_default();
    if call.def.is_crd() && call.field_validation != FieldValidation::Strict {
        call.warnings.extend(unknown.iter().map(|path| format!("unknown field \"{path}\"")));
        json::drop_nulls(&mut applied);
        return Ok(applied);
    }
    Err(ApiError::custom(
        500,
        "InternalError",
        format!(
            "failed to create typed patch object ({}/{}; {}, Kind={}): .{path}: field not declared in schema",
            call.namespace,
            call.name,
            call.def.api_version(),
            call.def.kind
        ),
    ))
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
