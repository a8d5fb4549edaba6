//! From an HTTP request to the part of the server that answers it.

use super::audit::AuditEntry;
use super::delete::{self, DeleteOptions};
use super::error::ApiError;
use super::rbac::{self, Attributes};
use super::read::{filter, list, stale_revision, watch};
use super::respond::{Form, Format};
use super::state::{State, present};
use super::watch::{Watch, WatchRequest};
use super::write::{self, Call, Change, FieldValidation};
use super::{Identity, Shared, discovery, eviction, json, openapi, scale};
use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What goes back to the client.
pub(crate) enum Reply {
    Json { code: u16, body: Value, media_type: &'static str, warnings: Vec<String> },
    Text(u16, String),
    Watch(Box<Watch>),
}

impl Reply {
    pub(crate) fn ok(body: Value) -> Self {
        Self::Json { code: 200, body, media_type: "application/json", warnings: Vec::new() }
    }

    pub(crate) fn error(error: &ApiError) -> Self {
        Self::Json { code: error.code(), body: error.to_status(), media_type: "application/json", warnings: Vec::new() }
    }

    pub(crate) fn code(&self) -> u16 {
        match self {
            Self::Json { code, .. } | Self::Text(code, _) => *code,
            Self::Watch(_) => 200,
        }
    }
}

/// A request whose body has arrived.
pub(crate) struct Incoming<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a Bytes,
}

impl Incoming<'_> {
    pub(crate) fn header(&self, name: http::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    fn body_value(&self) -> Result<Value, ApiError> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        let media = self.header(http::header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_owned();
        if media.contains("protobuf") {
            return Err(ApiError::unsupported_media_type("kube-sim understands JSON and YAML, not protobuf"));
        }
        let parsed = if media.contains("yaml") {
            serde_yaml_ng::from_slice(self.body).map_err(|e| e.to_string())
        } else {
            serde_json::from_slice(self.body).map_err(|e| e.to_string())
        };
        parsed.map_err(|e| ApiError::bad_request(format!("the object provided is unrecognized: {e}")))
    }
}

/// The path and query of a request for a resource.
#[derive(Debug, Default)]
struct Target {
    group: String,
    version: String,
    namespace: String,
    resource: String,
    name: String,
    subresource: String,
}

pub(crate) type Query = BTreeMap<String, String>;

fn query(uri: &Uri) -> Query {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

fn target(path: &str) -> Option<Target> {
    let mut parts = path.split('/').filter(|p| !p.is_empty());
    let (group, version) = match parts.next()? {
        "api" => (String::new(), parts.next()?),
        "apis" => (parts.next()?.to_owned(), parts.next()?),
        _ => return None,
    };
    let rest: Vec<&str> = parts.collect();
    let version = version.to_owned();
    let make = |namespace: &str, rest: &[&str]| {
        let mut rest = rest.iter();
        let resource = (*rest.next()?).to_owned();
        let name = rest.next().map_or_else(String::new, |s| decoded(s));
        let subresource = rest.map(|s| (*s).to_owned()).collect::<Vec<_>>().join("/");
        Some(Target {
            group: group.clone(),
            version: version.clone(),
            namespace: namespace.to_owned(),
            resource,
            name,
            subresource,
        })
    };
    match rest.as_slice() {
        ["namespaces", name] => make(name, &["namespaces", name]),
        ["namespaces", name, sub @ ("status" | "finalize")] => make(name, &["namespaces", name, sub]),
        ["namespaces", namespace, more @ ..] if !more.is_empty() => make(namespace, more),
        other => make("", other),
    }
}

/// Undoes percent encoding (RBAC names hold colons).
fn decoded(segment: &str) -> String {
    form_urlencoded::parse(format!("x={}", segment.replace('+', "%2B")).as_bytes())
        .next()
        .map_or_else(String::new, |(_, v)| v.into_owned())
}

fn verb(method: &Method, named: bool, watch: bool) -> &'static str {
    match (method.as_str(), named) {
        ("GET" | "HEAD", _) if watch => "watch",
        ("GET" | "HEAD", true) => "get",
        ("GET" | "HEAD", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => "unknown",
    }
}

/// Who asks: the bearer of a token, else the identity of the service, or one that they may impersonate.
fn authenticate(state: &State, headers: &HeaderMap, preset: Option<&Identity>) -> Result<Identity, ApiError> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let user = match (text("authorization"), preset) {
        (Some(given), _) => {
            let token = given.strip_prefix("Bearer ").unwrap_or_default().trim();
            state.tokens.get(token).cloned().ok_or_else(ApiError::unauthorized)?
        }
        (None, Some(user)) => user.clone(),
        (None, None) => Identity::anonymous(),
    };
    let Some(wanted) = text("impersonate-user") else { return Ok(user) };
    let asked = Attributes {
        verb: "impersonate".into(),
        resource: "users".into(),
        name: wanted.to_owned(),
        ..Attributes::default()
    };
    rbac::authorize(state, &user, &asked)?;
    let mut other = Identity { name: wanted.to_owned(), groups: vec!["system:authenticated".to_owned()] };
    other.groups.extend(headers.get_all("impersonate-group").iter().filter_map(|v| v.to_str().ok().map(str::to_owned)));
    if let Some(path) = wanted.strip_prefix("system:serviceaccount:")
        && let Some((namespace, name)) = path.split_once(':')
    {
        other = Identity::service_account(namespace, name);
    }
    Ok(other)
}

/// What the head of a request asks for; user, code and revision are not known yet.
pub(crate) fn describe(method: &Method, uri: &Uri) -> AuditEntry {
    let query = query(uri);
    let watch = query.get("watch").is_some_and(|w| w == "true" || w == "1");
    let target = target(uri.path());
    let verb_name = match &target {
        Some(target) => verb(method, !target.name.is_empty(), watch).to_owned(),
        None => method.as_str().to_lowercase(),
    };
    let is_resource = target.is_some();
    let target = target.unwrap_or_default();
    AuditEntry {
        user: String::new(),
        verb: verb_name,
        group: target.group,
        resource: if is_resource { target.resource } else { uri.path().to_owned() },
        subresource: target.subresource,
        namespace: target.namespace,
        name: target.name,
        manager: String::new(),
        dry_run: query.get("dryRun").is_some_and(|d| d == "All"),
        code: 0,
        revision: 0,
    }
}

/// Answers a request and writes it into the audit log.
pub(crate) fn handle(shared: &Arc<Shared>, incoming: &Incoming<'_>, preset: Option<&Identity>) -> Reply {
    let path = incoming.uri.path();
    let query = query(incoming.uri);
    let target = target(path);
    let manager = field_manager(&query, incoming);
    let mut entry = describe(incoming.method, incoming.uri);
    if super::audit::is_mutating(&entry.verb) {
        entry.manager.clone_from(&manager);
    }
    let verb = entry.verb.clone();
    let mut state = shared.lock();
    let outcome = authenticate(&state, incoming.headers, preset).and_then(|user| {
        entry.user.clone_from(&user.name);
        match &target {
            Some(target) => resource(shared, &mut state, incoming, &query, target, &verb, &user, manager, &mut entry),
            None => {
                let asked = Attributes { verb: entry.verb.clone(), path: path.to_owned(), ..Attributes::default() };
                rbac::authorize(&state, &user, &asked)?;
                no_resource(&state, incoming, path)
            }
        }
    });
    let (reply, watching) = match outcome {
        Ok(Outcome::Reply(reply)) => (Some(reply), None),
        Ok(Outcome::Watch(request)) => (None, Some(request)),
        Err(error) => (Some(Reply::error(&error)), None),
    };
    entry.code = reply.as_ref().map_or(200, Reply::code);
    entry.revision = state.store.revision();
    state.audit.push(entry);
    drop(state);
    match (reply, watching) {
        (Some(reply), _) => reply,
        (None, Some(request)) => Reply::Watch(Box::new(Watch::start(shared.clone(), *request))),
        (None, None) => Reply::error(&ApiError::internal("no answer")),
    }
}

enum Outcome {
    Reply(Reply),
    Watch(Box<WatchRequest>),
}

fn field_manager(query: &Query, incoming: &Incoming<'_>) -> String {
    if let Some(manager) = query.get("fieldManager").filter(|m| !m.is_empty()) {
        return manager.clone();
    }
    let agent = incoming.header(http::header::USER_AGENT);
    let prefix = agent.split('/').next().unwrap_or_default();
    if prefix.is_empty() { "unknown".to_owned() } else { prefix.chars().take(128).collect() }
}

/// Paths that are no resource: health, version, discovery, OpenAPI.
fn no_resource(state: &State, incoming: &Incoming<'_>, path: &str) -> Result<Outcome, ApiError> {
    if incoming.method != Method::GET {
        return Err(ApiError::method_not_allowed());
    }
    let registry = &state.registry;
    let accept = incoming.header(http::header::ACCEPT);
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let found = match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => return Ok(Outcome::Reply(Reply::Text(200, "ok".to_owned()))),
        ["version"] => Some(discovery::version()),
        ["api" | "apis"] if discovery::aggregated_type(accept).is_some() => {
            let media_type = discovery::aggregated_type(accept).unwrap_or("application/json");
            let body = discovery::aggregated(registry, parts.first() == Some(&"api"), media_type);
            return Ok(Outcome::Reply(Reply::Json { code: 200, body, media_type, warnings: Vec::new() }));
        }
        ["api"] => Some(discovery::core_versions()),
        ["apis"] => Some(discovery::groups(registry)),
        ["api", version] => discovery::resources(registry, "", version),
        ["apis", group] => discovery::group(registry, group),
        ["apis", group, version] => discovery::resources(registry, group, version),
        ["openapi", "v3"] => Some(openapi::index(registry)),
        ["openapi", "v3", "api", version] => openapi::document(registry, "", version),
        ["openapi", "v3", "apis", group, version] => openapi::document(registry, group, version),
        _ => None,
    };
    found.map(|body| Outcome::Reply(Reply::ok(body))).ok_or_else(ApiError::no_such_path)
}

#[expect(clippy::too_many_arguments, reason = "the parts of one request, used once")]
fn resource(
    shared: &Arc<Shared>,
    state: &mut State,
    incoming: &Incoming<'_>,
    query: &Query,
    target: &Target,
    verb: &str,
    user: &Identity,
    manager: String,
    entry: &mut AuditEntry,
) -> Result<Outcome, ApiError> {
    let asked = Attributes {
        verb: verb.to_owned(),
        group: target.group.clone(),
        resource: target.resource.clone(),
        subresource: target.subresource.clone(),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        path: String::new(),
    };
    rbac::authorize(state, user, &asked)?;
    let def =
        state.registry.find(&target.group, &target.version, &target.resource).ok_or_else(ApiError::no_such_path)?;
    if def.namespaced && target.namespace.is_empty() && !matches!(verb, "list" | "watch" | "deletecollection") {
        return Err(ApiError::no_such_path());
    }
    let form = Form::parse(incoming.header(http::header::ACCEPT)).ok_or_else(ApiError::not_acceptable)?;
    let include = query.get("includeObject").map(String::as_str);
    let format =
        Format { form, now: state.now(), whole_rows: include == Some("Object"), bare_rows: include == Some("None") };
    let validation = match query.get("fieldValidation").map(String::as_str) {
        None | Some("" | "Warn") => FieldValidation::Warn,
        Some("Strict") => FieldValidation::Strict,
        Some("Ignore") => FieldValidation::Ignore,
        Some(other) => return Err(ApiError::unprocessable(format!("fieldValidation: Unsupported value: \"{other}\""))),
    };
    if let Some(other) = query.get("dryRun").filter(|d| !d.is_empty() && *d != "All") {
        return Err(ApiError::unprocessable(format!(
            "dryRun: Unsupported value: \"{other}\": supported values: \"All\""
        )));
    }
    let mut call = Call {
        def: def.clone(),
        user: user.clone(),
        namespace: if def.namespaced { target.namespace.clone() } else { String::new() },
        name: target.name.clone(),
        subresource: target.subresource.clone(),
        dry_run: entry.dry_run,
        force: query.get("force").is_some_and(|f| f == "true"),
        manager,
        field_validation: validation,
        warnings: Vec::new(),
    };
    let known = call.subresource.is_empty() || def.subresources().iter().any(|(name, ..)| *name == call.subresource);
    if !known || (def.is_virtual() && verb != "create") {
        return Err(ApiError::no_such_path());
    }
    match verb {
        "list" => list(state, &call, query, format, stale_revision(state, incoming))
            .map(|body| Outcome::Reply(Reply::ok(body))),
        "watch" => watch(shared, state, &call, query, format).map(|w| Outcome::Watch(Box::new(w))),
        _ => {
            let (code, body) = single(state, &mut call, incoming, query, verb, entry)?;
            if let Body::Text(text) = body {
                return Ok(Outcome::Reply(Reply::Text(code, text)));
            }
            let Body::Value(body) = body else { return Err(ApiError::internal("no body")) };
            let body = if call.subresource == "scale" { body } else { format.object(&def, body) };
            Ok(Outcome::Reply(Reply::Json { code, body, media_type: "application/json", warnings: call.warnings }))
        }
    }
}

enum Body {
    Value(Value),
    Text(String),
}

/// Verbs that concern one object, and `deletecollection`.
fn single(
    state: &mut State,
    call: &mut Call,
    incoming: &Incoming<'_>,
    query: &Query,
    verb: &str,
    entry: &mut AuditEntry,
) -> Result<(u16, Body), ApiError> {
    let value = |code: u16, value: Value| Ok((code, Body::Value(value)));
    match (verb, call.subresource.as_str()) {
        ("get", "scale") => value(200, scale::read(state, call)?),
        ("get", "log") => {
            let container = query.get("container").map(String::as_str);
            let text = state.logs.as_ref().and_then(|logs| logs(&call.namespace, &call.name, container));
            text.map(|t| (200, Body::Text(t))).ok_or_else(|| ApiError::not_found(&call.def, &call.name))
        }
        ("get", _) => {
            let found =
                match stale_revision(state, incoming).and_then(|at| state.store.snapshot(&call.def.storage, at).ok()) {
                    Some(then) => {
                        then.get(&(call.namespace.clone(), call.name.clone())).map(|stored| present(&call.def, stored))
                    }
                    None => state.fetch(&call.def, &call.namespace, &call.name),
                };
            value(200, found.ok_or_else(|| ApiError::not_found(&call.def, &call.name))?)
        }
        ("create", "eviction") => value(201, eviction::evict(state, call, &incoming.body_value()?)?),
        ("create", "binding") => value(201, eviction::bind(state, call, &incoming.body_value()?)?),
        ("create", "token") => value(201, eviction::issue_token(state, call, incoming.body_value()?)?),
        ("create", "") => {
            let body = incoming.body_value()?;
            if call.def.is_virtual() {
                return value(201, rbac::review(state, &call.user, &call.def.kind.clone(), body));
            }
            if !call.name.is_empty() {
                return Err(ApiError::method_not_allowed());
            }
            let created = write::create(state, call, body)?;
            entry.name = json::str_at(&created, &["metadata", "name"]).to_owned();
            value(201, created)
        }
        ("update", "scale") => {
            let body = incoming.body_value()?;
            value(200, scale::write(state, call, Change::Replace(body))?)
        }
        ("update", _) => {
            let body = incoming.body_value()?;
            value(200, write::update(state, call, Change::Replace(body))?)
        }
        ("patch", subresource) => {
            let is_scale = subresource == "scale";
            let change = patch_change(incoming, query, call)?;
            let revision = state.store.get(&call.def.storage, &call.namespace, &call.name).is_none();
            let done = if is_scale { scale::write(state, call, change)? } else { write::update(state, call, change)? };
            value(if revision && !is_scale { 201 } else { 200 }, done)
        }
        ("delete", "") => {
            let options = delete_options(incoming, query, call)?;
            value(200, delete::delete(state, call, &options)?)
        }
        ("deletecollection", "") => {
            let options = delete_options(incoming, query, call)?;
            let filter = filter(call, query)?;
            let gone = delete::delete_collection(state, call, &options, |object| {
                filter.matches(&call_namespace(object), object)
            })?;
            let metadata = json!({"resourceVersion": state.store.revision().to_string()});
            let list = json!({"kind": format!("{}List", call.def.kind), "apiVersion": call.def.api_version(), "metadata": metadata, "items": gone});
            value(200, list)
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn call_namespace(object: &Value) -> String {
    json::str_at(object, &["metadata", "namespace"]).to_owned()
}

fn patch_change<'a>(incoming: &'a Incoming<'_>, query: &Query, call: &Call) -> Result<Change<'a>, ApiError> {
    let media = incoming.header(http::header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    match media {
        "application/json-patch+json" => Ok(Change::Json(incoming.body)),
        "application/merge-patch+json" => Ok(Change::Merge(incoming.body)),
        "application/strategic-merge-patch+json" => Ok(Change::Strategic(incoming.body)),
        "application/apply-patch+yaml" => {
            if !query.contains_key("fieldManager") {
                return Err(ApiError::bad_request(
                    "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
                ));
            }
            let body: Value = serde_yaml_ng::from_slice(incoming.body)
                .map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))?;
            Ok(Change::Apply(body))
        }
        other => Err(ApiError::unsupported_media_type(format!(
            "the body of the request was in an unknown format ({other:?}) for {}",
            call.def.qualified()
        ))),
    }
}

fn delete_options(incoming: &Incoming<'_>, query: &Query, call: &mut Call) -> Result<DeleteOptions, ApiError> {
    let body = incoming.body_value()?;
    let mut options = DeleteOptions::from_body(&body);
    if let Some(grace) = query.get("gracePeriodSeconds").and_then(|g| g.parse().ok()) {
        options.grace = Some(grace);
    }
    if let Some(policy) = query.get("propagationPolicy") {
        options.propagation = Some(policy.clone());
    }
    if let Some(policy) = &options.propagation
        && !matches!(policy.as_str(), "Orphan" | "Background" | "Foreground")
    {
        return Err(ApiError::unprocessable(format!("propagationPolicy: Unsupported value: \"{policy}\"")));
    }
    call.dry_run |= json::list_at(&body, &["dryRun"]).iter().any(|d| d == "All");
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_as_a_real_server_does() {
        let t = target("/apis/apps/v1/namespaces/n/deployments/d/scale").unwrap();
        assert_eq!((t.group.as_str(), t.namespace.as_str(), t.resource.as_str()), ("apps", "n", "deployments"));
        assert_eq!((t.name.as_str(), t.subresource.as_str()), ("d", "scale"));
        let t = target("/api/v1/namespaces/n").unwrap();
        assert_eq!((t.namespace.as_str(), t.resource.as_str(), t.name.as_str()), ("n", "namespaces", "n"));
        let t = target("/api/v1/namespaces/n/finalize").unwrap();
        assert_eq!((t.resource.as_str(), t.subresource.as_str()), ("namespaces", "finalize"));
        assert_eq!(
            target("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode").unwrap().name,
            "system:node"
        );
        assert!(target("/api/v1").is_none());
        assert!(target("/healthz").is_none());
    }
}
