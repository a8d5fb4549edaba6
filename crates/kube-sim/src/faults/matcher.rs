//! Which requests a fault is for.

use crate::server::{describe_request, is_mutating_verb};
use bytes::Bytes;
use http::Request;
use std::fmt;

/// A request as faults see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who asks.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// API group; empty for the core.
    pub group: String,
    /// Plural resource name; the path for requests that are no resource.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name, or empty.
    pub name: String,
    /// True if the server is asked to keep nothing.
    pub dry_run: bool,
}

impl Seen {
    pub(super) fn of(user: String, request: &Request<Bytes>) -> Self {
        let entry = describe_request(request);
        Self {
            user,
            verb: entry.verb,
            group: entry.group,
            resource: entry.resource,
            subresource: entry.subresource,
            namespace: entry.namespace,
            name: entry.name,
            dry_run: entry.dry_run,
        }
    }

    /// True if the request would change something that stays.
    #[must_use]
    pub fn is_mutating(&self) -> bool {
        is_mutating_verb(&self.verb) && !self.dry_run && !self.group.starts_with("auth")
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.user, self.verb, self.resource)?;
        if !self.subresource.is_empty() {
            write!(f, "/{}", self.subresource)?;
        }
        write!(f, " {}/{}", self.namespace, self.name)
    }
}

/// A choice of requests; what is not said matches everything.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    user: Option<String>,
    verbs: Vec<String>,
    resource: Option<String>,
    subresource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    mutating: bool,
}

impl Matcher {
    /// Every request.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Requests that change something (no dry runs).
    #[must_use]
    pub fn mutating() -> Self {
        Self { mutating: true, ..Self::default() }
    }

    /// Only of this user.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Only this verb; called several times, any of them.
    #[must_use]
    pub fn verb(mut self, verb: impl Into<String>) -> Self {
        self.verbs.push(verb.into());
        self
    }

    /// Only this plural resource name.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Only this subresource; the empty one is the object itself.
    #[must_use]
    pub fn subresource(mut self, subresource: impl Into<String>) -> Self {
        self.subresource = Some(subresource.into());
        self
    }

    /// Only in this namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Only the object of this name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    pub(super) fn matches(&self, seen: &Seen) -> bool {
        let fits = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|w| w == found);
        fits(&self.user, &seen.user)
            && fits(&self.resource, &seen.resource)
            && fits(&self.subresource, &seen.subresource)
            && fits(&self.namespace, &seen.namespace)
            && fits(&self.name, &seen.name)
            && (self.verbs.is_empty() || self.verbs.contains(&seen.verb))
            && (!self.mutating || seen.is_mutating())
    }
}
