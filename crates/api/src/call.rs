//! What all adapters share when they talk to an API server: one reading of its refusals, and patches that name the object
//! and the state they are meant for.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation};
use kube::Resource;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::Value;

/// The field manager of every write of Windlass.
pub const FIELD_MANAGER: &str = "windlass";

/// For creations.
#[must_use]
pub fn post_params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }
}

/// For patches other than server-side apply.
#[must_use]
pub fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() }
}

/// A JSON patch. Its tests and changes are made by the server in one step: a test that does not hold refuses the whole patch
/// ([`CallError::is_conflict`]).
///
/// Paths are given key by key, unescaped: `["metadata", "annotations", "example.com/a"]`.
#[derive(Clone, Debug, Default)]
pub struct JsonPatch(Vec<PatchOperation>);

impl JsonPatch {
    /// A patch for the object with this UID and no other.
    #[must_use]
    pub fn for_uid(uid: &str) -> Self {
        Self::default().test(["metadata", "uid"], uid)
    }

    /// Only if the object is still the one that was read.
    #[must_use]
    pub fn at_version(self, resource_version: &str) -> Self {
        self.test(["metadata", "resourceVersion"], resource_version)
    }

    /// Only if the field has this value.
    #[must_use]
    pub fn test<const N: usize>(mut self, path: [&str; N], value: impl Into<Value>) -> Self {
        let (path, value) = (PointerBuf::from_tokens(path), value.into());
        self.0.push(PatchOperation::Test(TestOperation { path, value }));
        self
    }

    /// Sets the field, whether it is there or not; what it is in must be there.
    #[must_use]
    pub fn add<const N: usize>(mut self, path: [&str; N], value: impl Into<Value>) -> Self {
        let (path, value) = (PointerBuf::from_tokens(path), value.into());
        self.0.push(PatchOperation::Add(AddOperation { path, value }));
        self
    }

    /// Sets the field, which must be there.
    #[must_use]
    pub fn replace<const N: usize>(mut self, path: [&str; N], value: impl Into<Value>) -> Self {
        let (path, value) = (PointerBuf::from_tokens(path), value.into());
        self.0.push(PatchOperation::Replace(ReplaceOperation { path, value }));
        self
    }

    /// Removes the field, which must be there.
    #[must_use]
    pub fn remove<const N: usize>(mut self, path: [&str; N]) -> Self {
        self.0.push(PatchOperation::Remove(RemoveOperation { path: PointerBuf::from_tokens(path) }));
        self
    }

    /// For `Api::patch`.
    #[must_use]
    pub fn build(self) -> Patch<()> {
        Patch::Json(json_patch::Patch(self.0))
    }
}

/// Why a client has not sent a write: this process has lost the right to make it, which is named here. No answer of the API server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not sent, because {0} was lost: this process may not act any more")]
pub struct GuardLost(pub String);

/// What kind of refusal it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    NotFound,
    Exists,
    Conflict,
    Forbidden,
    Quota,
    Terminating,
    Unauthorized,
    Invalid,
    Throttled,
    Unavailable,
    Unreachable,
    Unreadable,
    GuardLost,
}

/// A call to the API server that did not work, and what it was for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("could not {verb} {resource} {target}: {message}")]
pub struct CallError {
    verb: &'static str,
    resource: String,
    target: String,
    message: String,
    kind: Kind,
}

impl CallError {
    /// For `map_err`: what was tried, as the verb of a role (`get`, `list`, `create`, `patch`, `delete`), and on what.
    /// `namespace` is empty for cluster-scoped objects, `name` for lists.
    pub fn on<K: Resource<DynamicType = ()>>(
        verb: &'static str,
        namespace: &str,
        name: &str,
    ) -> impl FnOnce(kube::Error) -> Self {
        let (group, plural) = (K::group(&()), K::plural(&()));
        let resource = if group.is_empty() { plural.into_owned() } else { format!("{plural}.{group}") };
        let target = target(namespace, name);
        move |error| Self::new(verb, resource, target, error)
    }

    /// As [`CallError::on`], for kinds that have no type: `resource` is `plural.group`.
    pub fn on_resource(
        verb: &'static str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> impl FnOnce(kube::Error) -> Self {
        let (resource, target) = (resource.to_owned(), target(namespace, name));
        move |error| Self::new(verb, resource, target, error)
    }

    fn new(verb: &'static str, resource: String, target: String, error: kube::Error) -> Self {
        let (kind, message) = match error {
            kube::Error::Api(status) => (kind_of(&status), status.message),
            kube::Error::SerdeError(error) => (Kind::Unreadable, error.to_string()),
            kube::Error::Service(error) if error.is::<GuardLost>() => (Kind::GuardLost, error.to_string()),
            other => (Kind::Unreachable, chain(&other)),
        };
        Self { verb, resource, target, message, kind }
    }

    /// A stable name for this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.kind {
            Kind::NotFound => "api-not-found",
            Kind::Exists => "already-exists",
            Kind::Conflict => "changed-meanwhile",
            Kind::Forbidden => "api-forbidden",
            Kind::Quota => "quota-exceeded",
            Kind::Terminating => "namespace-terminating",
            Kind::Unauthorized => "api-unauthorized",
            Kind::Invalid => "api-invalid",
            Kind::Throttled => "api-throttled",
            Kind::Unavailable => "api-unavailable",
            Kind::Unreachable => "api-unreachable",
            Kind::Unreadable => "api-unreadable",
            Kind::GuardLost => "guard-lost",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self.kind {
            Kind::Forbidden => format!("grant Windlass the verb `{}` on `{}`", self.verb, self.resource),
            Kind::Quota => "raise the quota of the namespace, or free some of it".into(),
            Kind::Unauthorized => "check the credentials Windlass uses for the cluster".into(),
            Kind::Unreachable | Kind::Unavailable => "check that the API server can be reached".into(),
            Kind::NotFound => format!("check that the cluster serves `{}`", self.resource),
            Kind::GuardLost => "another instance goes on from the journal".into(),
            _ => String::new(),
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        use Kind::{Conflict, GuardLost, Throttled, Unauthorized, Unavailable, Unreachable};
        // A token that has just been rotated is refused once.
        matches!(self.kind, Conflict | GuardLost | Throttled | Unauthorized | Unavailable | Unreachable)
    }

    /// The object, or the kind itself, is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == Kind::NotFound
    }

    /// An object of that name is there already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.kind == Kind::Exists
    }

    /// The object is not, or not any more, the one that the write was meant for. A failed test of a [`JsonPatch`] counts.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.kind == Kind::Conflict
    }
}

fn target(namespace: &str, name: &str) -> String {
    match (namespace, name) {
        ("", "") => "in the cluster".into(),
        ("", name) => name.into(),
        (namespace, "") => format!("in namespace {namespace}"),
        (namespace, name) => format!("{namespace}/{name}"),
    }
}

fn kind_of(status: &kube::core::Status) -> Kind {
    let cause = |reason: &str| {
        status.details.as_ref().is_some_and(|details| details.causes.iter().any(|cause| cause.reason == reason))
    };
    match status.code {
        404 => Kind::NotFound,
        409 if status.reason == "AlreadyExists" => Kind::Exists,
        409 => Kind::Conflict,
        401 => Kind::Unauthorized,
        403 if cause("NamespaceTerminating") => Kind::Terminating,
        403 if status.message.contains("exceeded quota") => Kind::Quota,
        403 => Kind::Forbidden,
        429 => Kind::Throttled,
        // A JSON patch whose test failed is `Invalid` like an object that is, but names no cause; such an object always does.
        422 if status.details.as_ref().is_none_or(|details| details.causes.is_empty()) => Kind::Conflict,
        408 | 500.. => Kind::Unavailable,
        400.. => Kind::Invalid,
        // The server always says a code; without one nothing is known.
        _ => Kind::Unavailable,
    }
}

/// An error with its causes: the outer one often says no more than that there was one.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PersistentVolume;
    use kube::core::Status;

    use super::*;

    fn refused(code: u16, reason: &str, message: &str) -> CallError {
        let status = Status::failure(message, reason).with_code(code);
        CallError::on::<PersistentVolume>("patch", "", "pv-1")(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn refusals_are_told_apart() {
        for (code, reason, message, expected, retryable) in [
            (404, "NotFound", "", "api-not-found", false),
            (404, "Failed to parse error data", "404 page not found", "api-not-found", false),
            (409, "Conflict", "the object has been modified", "changed-meanwhile", true),
            (409, "AlreadyExists", "", "already-exists", false),
            (
                422,
                "Invalid",
                "the server rejected our request due to an error in our request",
                "changed-meanwhile",
                true,
            ),
            (403, "Forbidden", "exceeded quota: q, requested: count/volumesnapshots=1", "quota-exceeded", false),
            (403, "Forbidden", "User cannot", "api-forbidden", false),
            (429, "TooManyRequests", "", "api-throttled", true),
            (503, "ServiceUnavailable", "", "api-unavailable", true),
            (504, "Timeout", "", "api-unavailable", true),
        ] {
            let error = refused(code, reason, message);
            assert_eq!((error.code(), error.is_retryable()), (expected, retryable), "{code} {reason} {message}");
        }
    }

    #[test]
    fn an_invalid_object_is_no_conflict() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "status": "Failure", "code": 422, "reason": "Invalid", "message": "spec.x: Required value",
            "details": { "causes": [{ "reason": "FieldValueRequired", "message": "Required value", "field": "spec.x" }] }
        }))
        .unwrap();
        let error = CallError::on::<PersistentVolume>("create", "", "pv-1")(kube::Error::Api(status.boxed()));
        assert_eq!((error.code(), error.is_retryable()), ("api-invalid", false));
    }

    #[test]
    fn a_missing_right_is_named() {
        let error = refused(403, "Forbidden", "no");
        assert_eq!(error.hint(), "grant Windlass the verb `patch` on `persistentvolumes`");
        assert_eq!(error.to_string(), "could not patch persistentvolumes pv-1: no");
    }

    #[test]
    fn keys_with_slashes_are_escaped_in_patches() {
        let patch = JsonPatch::for_uid("u").remove(["metadata", "annotations", "pv.kubernetes.io/bound"]).build();
        let Patch::Json(patch) = patch else { panic!("not a JSON patch") };
        assert_eq!(
            serde_json::to_value(patch).unwrap(),
            serde_json::json!([
                { "op": "test", "path": "/metadata/uid", "value": "u" },
                { "op": "remove", "path": "/metadata/annotations/pv.kubernetes.io~1bound" }
            ])
        );
    }
}
