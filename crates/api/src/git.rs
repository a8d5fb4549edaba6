//! Where an app's versions are written down in Git.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::RepositoryPath;

/// The repositories that hold the app's versions, and the scalars in them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.repositories) || !has(self.pins) || self.pins.all(p, self.repositories.exists(r, r.name == p.repository))").message("every pin must name one of the repositories").field_path(".pins"),
    validation = Rule::new("!has(self.repositories) || !has(self.pins) || self.pins.all(p, self.repositories.all(r, r.name != p.repository || r.paths.exists(f, p.path == f || p.path.startsWith(f.endsWith('/') ? f : f + '/'))))").message("every pin must lie below one of the paths of its repository").field_path(".pins"),
)]
pub struct GitSpec {
    /// The repositories that may be written. Without them nothing can be upgraded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub repositories: Vec<GitRepository>,
    /// The scalars that hold versions, one per component. Without them nothing can be upgraded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["component".into()]))]
    pub pins: Vec<Pin>,
}

/// One repository, the branch that is deployed, and what may be written there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitRepository {
    /// The name that pins use for this repository.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Where to clone from and push to: https, http, ssh or file, or the short form user@host:path of ssh. Credentials
    /// belong into the Secret, never into the URL.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(
        validation = Rule::new("self.matches('^(https?|ssh|file)://[^ ]+$') || self.matches('^[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:[^ ]+$')").message("a repository url must start with https://, http://, ssh:// or file://, or read user@host:path"),
        validation = Rule::new("!self.matches('^[a-z]+://[^/@]*:[^/@]*@') && !self.matches('^https?://[^/]*@')").message("a repository url must not hold credentials: use secretRef"),
    )]
    pub url: String,
    /// The branch that the cluster deploys from, without refs/heads/.
    #[schemars(length(min = 1, max = 244))]
    #[x_kube(validation = Rule::new("self.matches('^[^ ~^:?*\\\\[\\\\\\\\]+$') && !self.startsWith('-') && !self.startsWith('/') && !self.startsWith('refs/') && !self.endsWith('/') && !self.endsWith('.lock') && !self.contains('..') && !self.contains('//')").message("a branch must be a plain branch name, without refs/heads/"))]
    pub branch: String,
    /// The kind of host the repository lives on. `generic` (default) uses nothing but the Git protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<GitHost>,
    /// How a change gets in. `Push` (default) pushes a commit to the branch, never by force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<WriteMode>,
    /// A Secret in the namespace of the ManagedApp, with the keys that Flux uses: `username` and `password`, or
    /// `bearerToken`, for https (and `caFile` for a certificate authority of your own); `identity` and `known_hosts` for
    /// ssh. Left out for repositories that need no credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalSecretReference>,
    /// The files, and folders when they end in `/`, that may be written. Nothing outside is ever written.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub paths: Vec<RepositoryPath>,
    /// Who commits. Default: Windlass <windlass@localhost>.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Author>,
    /// The commit message, with the placeholders {app}, {namespace}, {components}, {from}, {to}, {reason} and {request}; others
    /// are refused. What Windlass needs to find its commit again is added below it as trailers. A revert names its first line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub message_template: Option<String>,
}

/// The kind of host a repository lives on. `generic` (default) uses nothing but the Git protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum GitHost {
    /// Any server that speaks the Git protocol.
    #[default]
    Generic,
}

/// How a change gets into the branch. `Push` (default) pushes a commit, never by force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WriteMode {
    /// Push a commit to the branch, never by force.
    #[default]
    Push,
}

/// A Secret in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalSecretReference {
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// Who a commit is by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Author {
    /// The name of the author.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[^<>\\n\\r]+$"))]
    pub name: String,
    /// The mail address of the author.
    #[schemars(length(min = 1, max = 254), regex(pattern = "^[^<>\\s]+$"))]
    pub email: String,
}

/// One scalar in one document of one file that holds the version of one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// What the scalar is the version of, for example `chart` or `image/notes`. Requests and status use this name.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[a-z0-9]([a-z0-9._/-]*[a-z0-9])?$"))]
    pub component: String,
    /// The name of the repository that holds the file.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub repository: String,
    /// The file, from the root of the repository.
    pub path: RepositoryPath,
    /// The document in the file: its kind and, unless it has none, its name, as `HelmRelease/notes`.
    #[schemars(
        length(min = 1, max = 317),
        regex(pattern = "^[A-Za-z][A-Za-z0-9]*(/[a-z0-9]([-a-z0-9.]*[a-z0-9])?){0,2}$")
    )]
    pub object: String,
    /// The scalar in the document: keys and indices joined by dots, as `spec.chart.spec.version`; list items by a key, as
    /// `spec.template.spec.containers[name=notes].image`.
    #[schemars(length(min = 1, max = 512), regex(pattern = "^[^\\s].*$"))]
    pub field: String,
    /// Which part of the scalar is the version. `Whole` by default; `Tag` for an image reference, `repository:tag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<PinPart>,
}

impl Pin {
    /// Which part of the scalar is the version.
    #[must_use]
    pub fn part(&self) -> PinPart {
        self.part.unwrap_or_default()
    }
}

/// Which part of a scalar is the version: `Whole` (default), or a part of an image reference, as the `Tag` in
/// `repository:tag@digest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PinPart {
    /// The whole scalar.
    #[default]
    Whole,
    /// The tag of an image reference, between the last `:` and an `@`. A digest that follows must be changed with it.
    Tag,
    /// The digest of an image reference, after the `@`.
    Digest,
}
