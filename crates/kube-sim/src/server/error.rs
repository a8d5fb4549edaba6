//! Refusals of the server, in the form of a `Status` object as a real server sends it.

use super::table::ResourceDef;
use serde_json::{Value, json};

/// Why a request was refused; becomes a `Status` object and an HTTP code.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError(Box<Status>);

#[derive(Debug, Clone, PartialEq)]
struct Status {
    code: u16,
    reason: &'static str,
    message: String,
    details: Option<Value>,
}

/// One reason of a 422 answer: machine word, text and the field's path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cause {
    reason: &'static str,
    message: String,
    field: String,
}

impl Cause {
    pub(crate) fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        Self { reason: "FieldValueRequired", message, field: field.into() }
    }

    pub(crate) fn invalid(field: impl Into<String>, value: &Value, detail: impl AsRef<str>) -> Self {
        Self {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {value}: {}", detail.as_ref()),
            field: field.into(),
        }
    }

    pub(crate) fn type_invalid(field: impl Into<String>, value: &Value, detail: impl AsRef<str>) -> Self {
        let seen = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        Self {
            reason: "FieldValueTypeInvalid",
            message: format!("Invalid value: \"{seen}\": {}", detail.as_ref()),
            field: field.into(),
        }
    }

    pub(crate) fn not_supported(field: impl Into<String>, value: &Value, supported: &[String]) -> Self {
        let list = supported.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ");
        Self {
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: {value}: supported values: {list}"),
            field: field.into(),
        }
    }

    pub(crate) fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self { reason: "FieldValueDuplicate", message: format!("Duplicate value: {value}"), field: field.into() }
    }

    pub(crate) fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { reason: "FieldValueForbidden", message: format!("Forbidden: {detail}"), field: field.into() }
    }

    pub(crate) fn not_found(field: impl Into<String>, value: &str) -> Self {
        Self { reason: "FieldValueNotFound", message: format!("Not found: {value:?}"), field: field.into() }
    }

    pub(crate) fn too_long(field: impl Into<String>, max: u64) -> Self {
        Self {
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {max} bytes"),
            field: field.into(),
        }
    }

    pub(crate) fn too_many(field: impl Into<String>, seen: u64, max: u64) -> Self {
        let message = format!("Too many: {seen}: must have at most {max} items");
        Self { reason: "FieldValueTooMany", message, field: field.into() }
    }

    pub(crate) fn manager_conflict(manager: &str, field: String) -> Self {
        Self { reason: "FieldManagerConflict", message: format!("conflict with {manager}"), field }
    }

    /// True if rules cannot be evaluated on an object with this fault.
    pub(crate) fn blocks_rules(&self) -> bool {
        matches!(
            self.reason,
            "FieldValueNotSupported"
                | "FieldValueRequired"
                | "FieldValueTooLong"
                | "FieldValueTooMany"
                | "FieldValueTypeInvalid"
        )
    }

    #[cfg(test)]
    pub(crate) fn field(&self) -> &str {
        &self.field
    }

    fn to_value(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>, details: Option<Value>) -> Self {
        Self(Box::new(Status { code, reason, message: message.into(), details }))
    }

    fn about(def: &ResourceDef, name: &str) -> Value {
        let mut details = json!({"name": name});
        if !def.group.is_empty() {
            super::json::set(&mut details, &["group"], def.group.clone());
        }
        super::json::set(&mut details, &["kind"], def.plural.clone());
        details
    }

    /// The HTTP status code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.0.code
    }

    /// The machine word, such as `AlreadyExists`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.0.reason
    }

    /// The text for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub(crate) fn not_found(def: &ResourceDef, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", def.qualified());
        Self::new(404, "NotFound", message, Some(Self::about(def, name)))
    }

    pub(crate) fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource", Some(json!({})))
    }

    pub(crate) fn already_exists(def: &ResourceDef, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", def.qualified());
        Self::new(409, "AlreadyExists", message, Some(Self::about(def, name)))
    }

    pub(crate) fn conflict(def: &ResourceDef, name: &str, why: impl AsRef<str>) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {}", def.qualified(), why.as_ref());
        Self::new(409, "Conflict", message, Some(Self::about(def, name)))
    }

    pub(crate) fn modified(def: &ResourceDef, name: &str) -> Self {
        Self::conflict(
            def,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(crate) fn apply_conflict(causes: &[Cause]) -> Self {
        let noun = if causes.len() == 1 { "conflict" } else { "conflicts" };
        let listed = match causes {
            [one] => format!("{}: {}", one.message, one.field),
            many => {
                let mut grouped: Vec<(&str, Vec<&str>)> = Vec::new();
                for cause in many {
                    match grouped.iter_mut().find(|(m, _)| *m == cause.message) {
                        Some((_, fields)) => fields.push(&cause.field),
                        None => grouped.push((&cause.message, vec![&cause.field])),
                    }
                }
                grouped
                    .iter()
                    .map(|(manager, fields)| match fields.as_slice() {
                        [one] => format!("{manager}: {one}"),
                        more => format!("{}:\n- {}", manager.replacen("conflict", "conflicts", 1), more.join("\n- ")),
                    })
                    .collect::<Vec<_>>()
                    .join("\n")
            }
        };
        let message = format!("Apply failed with {} {noun}: {listed}", causes.len());
        let details = json!({"causes": causes.iter().map(Cause::to_value).collect::<Vec<_>>()});
        Self::new(409, "Conflict", message, Some(details))
    }

    pub(crate) fn invalid(kind: &str, group: &str, name: &str, causes: &[Cause]) -> Self {
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut texts: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        texts.dedup();
        let listed = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let details = json!({"name": name, "group": group, "kind": kind,
            "causes": causes.iter().map(Cause::to_value).collect::<Vec<_>>()});
        Self::new(422, "Invalid", format!("{qualified} \"{name}\" is invalid: {listed}"), Some(details))
    }

    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(422, "Invalid", message, None)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message, None)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized", None)
    }

    pub(crate) fn forbidden(def: &ResourceDef, name: &str, why: impl AsRef<str>) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {}", def.qualified(), why.as_ref())
        } else {
            format!("{} \"{name}\" is forbidden: {}", def.qualified(), why.as_ref())
        };
        Self::new(403, "Forbidden", message, Some(Self::about(def, name)))
    }

    pub(crate) fn forbidden_path(message: impl Into<String>) -> Self {
        Self::new(403, "Forbidden", message, Some(json!({})))
    }

    pub(crate) fn namespace_terminating(def: &ResourceDef, name: &str, namespace: &str) -> Self {
        let mut error = Self::forbidden(
            def,
            name,
            format!("unable to create new content in namespace {namespace} because it is being terminated"),
        );
        if let Some(details) = &mut error.0.details {
            super::json::set(
                details,
                &["causes"],
                json!([{"reason": "NamespaceTerminating",
                        "message": format!("namespace {namespace} is being terminated"), "field": "metadata.namespace"}]),
            );
        }
        error
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message, None)
    }

    pub(crate) fn too_large_resource_version(asked: u64, current: u64) -> Self {
        Self::new(
            504,
            "Timeout",
            format!("Too large resource version: {asked}, current: {current}"),
            Some(json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                        "retryAfterSeconds": 1})),
        )
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
            Some(json!({})),
        )
    }

    pub(crate) fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message, None)
    }

    pub(crate) fn not_acceptable() -> Self {
        Self::new(406, "NotAcceptable", "only the following media types are accepted: application/json", None)
    }

    pub(crate) fn disruption_budget(message: impl Into<String>, budget: &str) -> Self {
        Self::new(
            429,
            "TooManyRequests",
            "Cannot evict pod as it would violate the pod's disruption budget.",
            Some(json!({"causes": [{"reason": "DisruptionBudget", "message": message.into(), "field": budget}]})),
        )
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {}", message.into()), None)
    }

    /// A refusal made up by a test: by an admission hook, or by a fault.
    #[must_use]
    pub fn custom(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, reason, message, None)
    }

    /// Asks the client to come back after this many seconds.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        super::json::set(self.0.details.get_or_insert(json!({})), &["retryAfterSeconds"], seconds);
        self
    }

    /// The `Status` object.
    #[must_use]
    pub fn to_status(&self) -> Value {
        let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.0.message});
        if !self.0.reason.is_empty() {
            super::json::set(&mut status, &["reason"], self.0.reason);
        }
        if let Some(details) = &self.0.details {
            super::json::set(&mut status, &["details"], details.clone());
        }
        super::json::set(&mut status, &["code"], self.0.code);
        status
    }
}
