//! The one error type of this crate, and how it becomes a [`Failure`].
//!
//! No variant ever holds a credential: text that came from a server or from libgit2 has been redacted before it gets here.

use std::fmt;

use upgrade_core::{Coded, Failure};

/// A result of this crate.
pub type Result<T, E = GitopsError> = std::result::Result<T, E>;

/// A pin that did not carry what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Component of the pin.
    pub component: String,
    /// File and field of the pin.
    pub place: String,
    /// What it had to carry.
    pub expected: String,
    /// What it carries.
    pub found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) is {:?}, not {:?}", self.component, self.place, self.found, self.expected)
    }
}

/// Why something with Git did not work. `repository` is always the name that pins use, never a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GitopsError {
    /// The URL is of a kind that is not used, or has credentials in it.
    #[error("the url of repository {repository} is refused: {why}")]
    UrlRefused {
        /// The repository.
        repository: String,
        /// What is wrong with it.
        why: String,
    },
    /// The request contradicts itself or cannot be written.
    #[error("the request for repository {repository} is refused: {why}; nothing was written")]
    RequestRefused {
        /// The repository.
        repository: String,
        /// What is wrong with it.
        why: String,
    },
    /// The files of a folder cannot be read in full.
    #[error("the files below {folder:?} of repository {repository} cannot be read in full: {what}")]
    FilesRefused {
        /// The repository.
        repository: String,
        /// The folder.
        folder: String,
        /// What is in the way.
        what: String,
    },
    /// The Secret has not the keys that the URL needs, or what is in them cannot be used.
    #[error("the credentials in secret {secret:?} cannot be used for repository {repository}: {why}")]
    Credentials {
        /// The repository.
        repository: String,
        /// Name of the Secret; empty when none was named.
        secret: String,
        /// What is missing or wrong.
        why: String,
    },
    /// The server is not who it should be.
    #[error("the server of repository {repository} is not trusted: {why}")]
    Untrusted {
        /// The repository.
        repository: String,
        /// What was seen.
        why: String,
    },
    /// The remote sends more than is taken. Nothing of it is kept.
    #[error("repository {repository} sends more than {limit} bytes, and no more are taken")]
    TooMuch {
        /// The repository.
        repository: String,
        /// How many are taken.
        limit: u64,
    },
    /// The remote could not be talked to.
    #[error("repository {repository} cannot be reached: {why}")]
    Unreachable {
        /// The repository.
        repository: String,
        /// What was seen.
        why: String,
    },
    /// The remote understood and said no.
    #[error("repository {repository} refused: {why}")]
    Denied {
        /// The repository.
        repository: String,
        /// What the remote said.
        why: String,
    },
    /// The server sends elsewhere. Nothing is sent there.
    #[error("the server of repository {repository} redirects to {to}; redirects are not followed")]
    Redirected {
        /// The repository.
        repository: String,
        /// The URL of the repository there, without credentials and query.
        to: String,
    },
    /// The branch does not exist there.
    #[error("repository {repository} has no branch {branch}")]
    BranchMissing {
        /// The repository.
        repository: String,
        /// The branch.
        branch: String,
    },
    /// The commit is not among those that the branch contains, as far as its history was read.
    #[error("repository {repository}: commit {commit} was not found in the last {depth} commits of the branch")]
    CommitUnknown {
        /// The repository.
        repository: String,
        /// The commit asked for.
        commit: String,
        /// How deep the history was read.
        depth: u32,
    },
    /// Whether an earlier commit of ours exists could not be decided within the limits.
    #[error(
        "repository {repository}: the last {depth} commits are all younger than {days} days, so whether the commit of operation {operation} is behind them is not known"
    )]
    HistoryTooLong {
        /// The repository.
        repository: String,
        /// The operation whose commit was looked for.
        operation: String,
        /// How deep the history was read.
        depth: u32,
        /// How far back an operation's commit is looked for.
        days: i64,
    },
    /// Other writers were faster, every time.
    #[error("repository {repository}: other commits came between in each of {attempts} attempts; nothing was written")]
    RaceLost {
        /// The repository.
        repository: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// Pins do not carry what was expected: somebody else decided otherwise.
    #[error("repository {repository} at {commit}: {}; nothing was written", list(.found))]
    Superseded {
        /// The repository.
        repository: String,
        /// The head that was looked at.
        commit: String,
        /// The pins that differ.
        found: Vec<Mismatch>,
    },
    /// All pins carry the wanted values already, and no commit of this operation did it.
    #[error(
        "repository {repository} at {commit}: all pins carry the wanted values already, by no commit of operation {operation}"
    )]
    AlreadyThere {
        /// The repository.
        repository: String,
        /// The head that was looked at.
        commit: String,
        /// The operation.
        operation: String,
    },
    /// A path that must not be written, or is not a path inside a repository.
    #[error("repository {repository}: {path:?} must not be used: {why}; nothing was written")]
    PathNotAllowed {
        /// The repository.
        repository: String,
        /// The path.
        path: String,
        /// Why not.
        why: String,
    },
    /// There is no plain text file of bearable size at the path.
    #[error("repository {repository} at {commit}: {path:?} {}", .what.sentence())]
    File {
        /// The repository.
        repository: String,
        /// The commit that was looked at.
        commit: String,
        /// The path.
        path: String,
        /// What is there instead.
        what: NotAFile,
    },
    /// The scalar of a pin cannot be read or changed safely.
    #[error("repository {repository}: pin {component} ({place}): {refusal}")]
    Pin {
        /// The repository.
        repository: String,
        /// Component of the pin.
        component: String,
        /// File and field of the pin.
        place: String,
        /// Why.
        refusal: Box<yaml_pin::Refusal>,
    },
    /// The edit would not be one line per pin.
    #[error("repository {repository}: the edit would change {found}, not {expected}; nothing was written")]
    UnexpectedDiff {
        /// The repository.
        repository: String,
        /// What should change.
        expected: String,
        /// What would change.
        found: String,
    },
    /// The commit could not be signed.
    #[error("repository {repository}: the commit could not be signed: {why}; nothing was written")]
    Signing {
        /// The repository.
        repository: String,
        /// What the signer said.
        why: String,
    },
    /// The local cache could not be read or written, even after it was thrown away once.
    #[error("the local copy of repository {repository} cannot be used: {why}")]
    Cache {
        /// The repository.
        repository: String,
        /// What was seen.
        why: String,
    },
}

/// What stands at a path where a plain file was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAFile {
    /// Nothing.
    Missing,
    /// A symbolic link, or a path that leads through one.
    Symlink,
    /// A submodule, or a path that leads into one.
    Submodule,
    /// A folder.
    Folder,
    /// A file of this many bytes.
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
}

impl NotAFile {
    fn sentence(self) -> String {
        match self {
            Self::Missing => "does not exist".to_owned(),
            Self::Symlink => "is or leads through a symbolic link".to_owned(),
            Self::Submodule => "is or leads into a submodule".to_owned(),
            Self::Folder => "is a folder".to_owned(),
            Self::TooLarge { size, limit } => format!("has {size} bytes, more than the {limit} that are read"),
        }
    }
}

fn list(found: &[Mismatch]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Coded for GitopsError {
    fn code(&self) -> &'static str {
        match self {
            Self::UrlRefused { .. } => "git-url-refused",
            Self::RequestRefused { .. } => "git-request-refused",
            Self::FilesRefused { .. } => "git-files-refused",
            Self::Credentials { .. } => "git-credentials",
            Self::Untrusted { .. } => "git-untrusted",
            Self::TooMuch { .. } => "git-too-much",
            Self::Unreachable { .. } => "git-unreachable",
            Self::Denied { .. } => "git-denied",
            Self::Redirected { .. } => "git-redirected",
            Self::BranchMissing { .. } => "git-branch-missing",
            Self::CommitUnknown { .. } => "git-commit-unknown",
            Self::HistoryTooLong { .. } => "git-history-too-long",
            Self::RaceLost { .. } => "git-race-lost",
            Self::Superseded { .. } => "superseded",
            Self::AlreadyThere { .. } => "already-there",
            Self::PathNotAllowed { .. } => "path-not-allowed",
            Self::File { what, .. } => match what {
                NotAFile::Missing => "pin-file-missing",
                NotAFile::Symlink => "pin-file-symlink",
                NotAFile::Submodule => "pin-file-submodule",
                NotAFile::Folder => "pin-file-folder",
                NotAFile::TooLarge { .. } => "pin-file-too-large",
            },
            Self::Pin { refusal, .. } => pin_code(refusal),
            Self::UnexpectedDiff { .. } => "pin-unexpected-diff",
            Self::Signing { .. } => "git-signing",
            Self::Cache { .. } => "git-cache",
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::UrlRefused { .. } => {
                "use https://, ssh:// (or user@host:path), and put credentials into the Secret that secretRef names"
                    .into()
            }
            Self::RequestRefused { .. } => {
                "correct the request, or the message template and author it was made from".into()
            }
            Self::FilesRefused { .. } => "let the Kustomization read a smaller folder of plain files".into(),
            Self::Credentials { .. } => {
                "put username and password, or bearerToken, for https, or identity and known_hosts for ssh, \
                 into the Secret named by secretRef in the namespace of the ManagedApp"
                    .into()
            }
            Self::Untrusted { .. } => "check who answers there; then correct caFile or known_hosts in the Secret \
                 (ssh-keyscan HOST gives all of a host's keys)"
                .into(),
            Self::TooMuch { .. } => {
                "keep large files out of the branch that is delivered, or give the app a repository of its own".into()
            }
            Self::Unreachable { .. } => "check the url, the network and the Git server; it is tried again".into(),
            Self::Denied { .. } => {
                "give the credentials the right to read and push this branch, or exempt them from its \
                 protection; then try again"
                    .into()
            }
            Self::Redirected { .. } => {
                "if that is where the repository is now, write that URL into spec.git.repositories of the ManagedApp"
                    .into()
            }
            Self::BranchMissing { .. } => "create the branch or correct its name".into(),
            Self::CommitUnknown { .. } => "check whether the branch was rewritten".into(),
            Self::HistoryTooLong { .. } => {
                "look for the trailer Windlass-Operation in the log of the branch, or raise the depth limit".into()
            }
            Self::RaceLost { .. } => "it is tried again; if it stays so, pause the other writer of this branch".into(),
            Self::Superseded { .. } => "decide which value is meant, and make a new request from there".into(),
            Self::AlreadyThere { .. } => {
                "somebody made this change already; make a new request if anything is left to do".into()
            }
            Self::PathNotAllowed { .. } => {
                "add the path to `paths` of the repository in the ManagedApp, if it may be written".into()
            }
            Self::File { what: NotAFile::TooLarge { .. }, .. } => "move the pinned scalar into a smaller file".into(),
            Self::File { .. } => "correct the path of the pin: it must be a plain file of this repository".into(),
            Self::Pin { refusal, .. } => refusal.hint().into(),
            Self::UnexpectedDiff { .. } => "make this change by hand".into(),
            Self::Signing { .. } => "check the signing key".into(),
            Self::Cache { .. } => {
                "check space and permissions of the cache directory; its content can be deleted at any time".into()
            }
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::RaceLost { .. } | Self::Cache { .. })
    }
}

impl From<GitopsError> for Failure {
    fn from(error: GitopsError) -> Self {
        Self::from_coded(&error)
    }
}

fn pin_code(refusal: &yaml_pin::Refusal) -> &'static str {
    match refusal.code() {
        "syntax" => "pin-syntax",
        "not-utf8" => "pin-not-utf8",
        "limit" => "pin-limit",
        "invalid-yaml" => "pin-invalid-yaml",
        "template" => "pin-template",
        "document-not-found" => "pin-document-not-found",
        "document-ambiguous" => "pin-document-ambiguous",
        "duplicate-key" => "pin-duplicate-key",
        "path-not-found" => "pin-path-not-found",
        "merge-key" => "pin-merge-key",
        "wrong-shape" => "pin-wrong-shape",
        "selector-ambiguous" => "pin-selector-ambiguous",
        "alias" => "pin-alias",
        "shared-anchor" => "pin-shared-anchor",
        "block-scalar" => "pin-block-scalar",
        "tagged" => "pin-tagged",
        "empty-value" => "pin-empty-value",
        "not-an-image" => "pin-not-an-image",
        "no-such-part" => "pin-no-such-part",
        "bad-part" => "pin-bad-part",
        "escaped" => "pin-escaped",
        "oracle-mismatch" => "pin-oracle-mismatch",
        _ => "pin-refused",
    }
}
