//! The API server's audit log: who did what to which object.

use jiff::Timestamp;
use serde::Deserialize;

/// One request, as the API server has logged it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// `ResponseStarted` for a watch that goes on, `ResponseComplete`, or `Panic`.
    pub stage: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// Path and query as requested.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// Who asked.
    pub user: AuditUser,
    /// Name of the client program.
    #[serde(default)]
    pub user_agent: String,
    /// What it was about; absent for paths such as `/version`.
    pub object_ref: Option<AuditObject>,
    /// What was answered; absent while a request goes on.
    pub response_status: Option<AuditStatus>,
    /// When the request arrived.
    pub request_received_timestamp: Timestamp,
    /// When this stage was reached.
    pub stage_timestamp: Timestamp,
}

/// The asking user.
#[derive(Debug, Clone, Deserialize)]
pub struct AuditUser {
    /// Name, as in [`crate::User::name`] or `system:serviceaccount:<namespace>:<name>`.
    #[serde(default)]
    pub username: String,
    /// Groups, including those every user has.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// The object or collection of a request; empty where not given.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "named as in the Kubernetes API")]
pub struct AuditObject {
    pub api_group: String,
    pub api_version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

/// The answer of the API server.
#[derive(Debug, Clone, Deserialize)]
pub struct AuditStatus {
    /// HTTP status.
    #[serde(default)]
    pub code: u16,
}

impl AuditEvent {
    /// Whether the request was one that changes something, and was granted.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
            && self.response_status.as_ref().is_some_and(|status| (200..300).contains(&status.code))
    }

    /// `<group>/<resource>` with `/<subresource>` if any, as RBAC rules need it; the core group is empty.
    #[must_use]
    pub fn resource(&self) -> Option<String> {
        let object = self.object_ref.as_ref()?;
        let subresource =
            if object.subresource.is_empty() { String::new() } else { format!("/{}", object.subresource) };
        Some(format!("{}/{}{subresource}", object.api_group, object.resource))
    }
}
