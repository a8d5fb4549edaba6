//! Git, as the app journey needs it: read pinned scalars, change exactly those, never anything else.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{AppRef, ObjectRef};
use crate::Failure;

/// One branch of one repository, and what of it may be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repository {
    /// The name pins use for it.
    pub name: String,
    /// `https://`, `ssh://` or `file://`; never with credentials in it.
    pub url: String,
    /// The branch that is read and pushed.
    pub branch: String,
    /// Path prefixes, relative to the root, that may be written; empty forbids every write.
    pub paths: Vec<String>,
    /// The Secret, in the app's namespace, that holds the credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Author and committer of our commits.
    pub author_name: String,
    /// Their address.
    pub author_email: String,
    /// The commit message with placeholders, see `spec.git.repositories[].messageTemplate`; the usual one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_template: Option<String>,
}

/// Which part of a scalar a pin stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PinPart {
    /// The whole scalar.
    Whole,
    /// The tag of an image reference `repo:tag@digest`.
    Tag,
    /// The digest of an image reference.
    Digest,
}

/// One scalar in one document of one file that carries a component's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// What it is the version of: `chart`, `image/<name>`.
    pub component: String,
    /// Name of the [`Repository`].
    pub repository: String,
    /// Path of the file, from the repository's root.
    pub path: String,
    /// The document: `Kind/name` or `#index`.
    pub object: String,
    /// The field: `spec.values.image.tag`, `spec.containers[name=web].image`.
    pub field: String,
    /// The part of the scalar.
    pub part: PinPart,
}

impl Pin {
    /// Whether its document is this object, by kind, name and, where the pin says one, namespace.
    pub fn stands_in(&self, object: &ObjectRef) -> bool {
        match self.object.split('/').collect::<Vec<_>>().as_slice() {
            [kind, name] => *kind == object.kind && *name == object.name,
            [kind, namespace, name] => *kind == object.kind && *namespace == object.namespace && *name == object.name,
            _ => false,
        }
    }

    /// Whether that live object itself shows it. A `kustomization.yaml` is called a Kustomization as well, of another API group: what
    /// stands in its `images` shows in containers only.
    pub fn shows_in(&self, object: &ObjectRef) -> bool {
        self.stands_in(object) && !self.field.starts_with("images")
    }
}

/// A pin and the value it carries, or shall carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PinValue {
    /// The pin.
    pub pin: Pin,
    /// Its value.
    pub value: String,
}

/// What was read about a pin at one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PinFacts {
    /// The pin.
    pub pin: Pin,
    /// Its value.
    pub value: String,
    /// Whether a Flux image-automation marker stands on its line: then another writer owns it.
    pub image_policy_marker: bool,
    /// Whether the file is encrypted with SOPS.
    pub sops: bool,
}

/// One of our commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitRecord {
    /// Name of the [`Repository`].
    pub repository: String,
    /// Full hex id.
    pub sha: String,
    /// Full hex id of the commit it was made on.
    pub parent: String,
}

/// Whether one commit is contained in another's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ancestry {
    /// It is, or they are the same.
    Contained,
    /// It is not, and the whole history in question was seen.
    NotContained,
    /// The history was not deep enough to tell. Never to be read as either of the others.
    Unknown,
}

/// A change of pinned scalars, to be made as one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitRequest {
    /// The repository, with the only paths that may be written.
    pub repository: Repository,
    /// What to write. All pins belong to `repository`.
    pub changes: Vec<PinValue>,
    /// What the pins must carry now, in the order of `changes`; any other value is "superseded" and nothing is written.
    pub expected: Vec<String>,
    /// First line and body of the message, without trailers.
    pub message: String,
    /// Written as the trailer `Windlass-Operation`, and how the commit is found again after a crash. Unique per commit.
    pub operation: String,
}

/// Reads and writes a Git remote without ever checking out a working tree.
///
/// - **Flow**: `head`, `pins` for facts; `commit` to bump or to put back; `find` after a crash; `ancestry` while waiting.
/// - **Guarantees**: a commit changes exactly the bytes of the pinned scalars and nothing else; a push is never forced and
///   lands on the head the edit was computed on (on a lost race the *edit* is computed again on the new head, a bounded
///   number of times); one `operation` never makes two commits.
/// - **Assumptions**: nobody else writes our trailer.
/// - **Cancellation**: a dropped `commit` may or may not have been pushed; `find` and a second `commit` find it.
/// - **Errors**: code `superseded` when a pin does not carry what was expected (permanent); `path-not-allowed`,
///   `pin-*` for refused edits (permanent); `git-unreachable`, `git-race-lost` (retryable); `git-denied` (permanent).
///   Credentials appear in no error.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait GitManager: Send + Sync {
    /// The commit the branch points at now, asked from the remote.
    async fn head(&self, app: &AppRef, repository: &Repository) -> Result<String, Failure>;
    /// What the pins carry at `commit`.
    async fn pins(
        &self,
        app: &AppRef,
        repository: &Repository,
        commit: &str,
        pins: &[Pin],
    ) -> Result<Vec<PinFacts>, Failure>;
    /// Makes and pushes one commit, or returns the one this operation made before.
    async fn commit(&self, app: &AppRef, request: &CommitRequest) -> Result<CommitRecord, Failure>;
    /// The commit that `operation` made, if the branch contains one.
    async fn find(
        &self,
        app: &AppRef,
        repository: &Repository,
        operation: &str,
    ) -> Result<Option<CommitRecord>, Failure>;
    /// Whether `descendant` contains `commit`.
    async fn ancestry(
        &self,
        app: &AppRef,
        repository: &Repository,
        commit: &str,
        descendant: &str,
    ) -> Result<Ancestry, Failure>;
    /// The text files whose names end in `.yaml` or `.yml` below `folder` (`""` is the root) at `commit`, by path, with those
    /// of `changes` made that are in them. Empty when there is no such folder. Errors: `git-files-refused` (permanent) when
    /// there are too many, or one cannot be read as text.
    async fn files(
        &self,
        app: &AppRef,
        repository: &Repository,
        commit: &str,
        folder: &str,
        changes: &[PinValue],
    ) -> Result<BTreeMap<String, String>, Failure>;
    /// Subjects of the commits after `from` up to and including `to` that touch `paths` (all when empty), newest first, at
    /// most `limit`; `None` when the history was not deep enough.
    async fn log(
        &self,
        app: &AppRef,
        repository: &Repository,
        from: &str,
        to: &str,
        limit: usize,
    ) -> Result<Option<Vec<String>>, Failure>;
}
