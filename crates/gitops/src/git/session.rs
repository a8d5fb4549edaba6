//! One blocking piece of work on one repository: its local copy, its remote, and when to stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gix::ObjectId;
use upgrade_core::ports::Repository;

use super::Options;
use super::credentials::Keys;
use super::endpoint::Endpoint;
use super::history::{Broken, History, Search};
use super::relay::Link;
use crate::{GitopsError, Result};

/// What every step of the work needs. Used on a blocking thread that holds the lock of `dir`.
pub(super) struct Session {
    pub(super) repository: Repository,
    pub(super) endpoint: Endpoint,
    pub(super) keys: Arc<Keys>,
    /// The way to the remote.
    pub(super) link: Link,
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    /// Set when nobody waits for the result any more.
    pub(super) abandoned: Arc<AtomicBool>,
}

impl Session {
    pub(super) fn name(&self) -> String {
        self.repository.name.clone()
    }

    pub(super) fn branch_ref(&self) -> String {
        format!("refs/heads/{}", self.repository.branch)
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst)
    }

    pub(super) fn unreachable(&self, why: impl AsRef<str>) -> GitopsError {
        GitopsError::Unreachable { repository: self.name(), why: self.keys.redact(why.as_ref()) }
    }

    pub(super) fn broken(&self, Broken(why): Broken) -> GitopsError {
        GitopsError::Cache { repository: self.name(), why: self.keys.redact(&why) }
    }

    pub(super) fn history(&self) -> Result<History> {
        self.local()?;
        History::open(&self.dir).map_err(|broken| self.broken(broken))
    }

    pub(super) fn id(&self, hex: &str) -> Result<ObjectId> {
        ObjectId::from_hex(hex.as_bytes()).map_err(|_| GitopsError::RequestRefused {
            repository: self.name(),
            why: format!("{hex:?} is not the full id of a commit"),
        })
    }

    /// Asks a question about the history, deepening it until it can be answered; `None` when the limit leaves it open.
    pub(super) fn ask<T>(
        &self,
        mut question: impl FnMut(&History) -> Result<Search<T>, Broken>,
    ) -> Result<Option<Option<T>>> {
        let mut depths = self.options.depths.iter();
        loop {
            match question(&self.history()?).map_err(|broken| self.broken(broken))? {
                Search::Found(found) => return Ok(Some(Some(found))),
                Search::Absent => return Ok(Some(None)),
                Search::Cut => match depths.next() {
                    // Copies of file remotes are always whole: what they lack, the remote lacks.
                    Some(depth) if self.endpoint.is_remote() => drop(self.fetch(*depth)?),
                    _ => return Ok(None),
                },
            }
        }
    }

    /// Makes sure that `commit` is here.
    ///
    /// # Errors
    /// [`GitopsError::CommitUnknown`] when the branch does not contain it within the depth limit.
    pub(super) fn need(&self, commit: ObjectId) -> Result<()> {
        if self.history()?.has(commit) {
            return Ok(());
        }
        self.tip()?;
        let found = self.ask(|history| Ok(if history.has(commit) { Search::Found(()) } else { Search::Cut }))?;
        match found {
            Some(Some(())) => Ok(()),
            _ => Err(GitopsError::CommitUnknown {
                repository: self.name(),
                commit: commit.to_string(),
                depth: self.max_depth(),
            }),
        }
    }

    pub(super) fn max_depth(&self) -> u32 {
        self.options.depths.iter().copied().max().unwrap_or(1)
    }

    /// The bare repository of the local copy, made if it is not there.
    pub(super) fn local(&self) -> Result<git2::Repository> {
        open_or_init(&self.dir).map_err(|why| self.broken(Broken(why)))
    }

    /// Throws the local copy away.
    pub(super) fn forget(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(repository = self.repository.name, %error, "a broken local copy could not be removed");
        }
    }
}

fn open_or_init(dir: &Path) -> Result<git2::Repository, String> {
    if dir.join("HEAD").exists() {
        return git2::Repository::open_bare(dir).map_err(|error| error.message().to_owned());
    }
    private_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut options = git2::RepositoryInitOptions::new();
    // No templates: they could bring hooks and configuration of this machine along.
    options.bare(true).external_template(false);
    git2::Repository::init_opts(dir, &options).map_err(|error| error.message().to_owned())
}

/// The content of private repositories is nobody else's business on this machine.
fn private_dir(dir: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}
