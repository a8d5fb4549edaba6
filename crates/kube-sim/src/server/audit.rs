//! The log of requests, for tests to read.

use super::Identity;

/// One request and its answer, in the order in which the server executed them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Who asked.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; the HTTP method in lower case for
    /// paths that are no resource.
    pub verb: String,
    /// API group; empty for the core.
    pub group: String,
    /// Plural resource name, or the path of a request that is no resource.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Object name, or empty.
    pub name: String,
    /// Field manager of a write, as the server resolved it.
    pub manager: String,
    /// True if nothing was to be kept.
    pub dry_run: bool,
    /// HTTP status code of the answer.
    pub code: u16,
    /// Revision of the whole store after the request.
    pub revision: u64,
}

impl AuditEntry {
    /// True for verbs that change something.
    #[must_use]
    pub fn is_mutating(&self) -> bool {
        is_mutating(&self.verb)
    }

    /// True if the server changed, or would have changed, something.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.code < 300
    }
}

pub(crate) fn is_mutating(verb: &str) -> bool {
    matches!(verb, "create" | "update" | "patch" | "delete" | "deletecollection")
}

/// Who a request comes from.
impl Identity {
    /// A user without groups besides `system:authenticated`.
    #[must_use]
    pub fn user(name: impl Into<String>) -> Self {
        Self { name: name.into(), groups: vec!["system:authenticated".to_owned()] }
    }

    /// A user of `system:masters`, who may do everything.
    #[must_use]
    pub fn admin() -> Self {
        Self { name: "admin".to_owned(), groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()] }
    }

    /// The service account `name` of `namespace`, with the groups it has on a real server.
    #[must_use]
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
        }
    }

    /// Nobody in particular: a request without credentials.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".to_owned(), groups: vec!["system:unauthenticated".to_owned()] }
    }

    /// The same user in one more group.
    #[must_use]
    pub fn in_group(mut self, group: impl Into<String>) -> Self {
        self.groups.push(group.into());
        self
    }
}
