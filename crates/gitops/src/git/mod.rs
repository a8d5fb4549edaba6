//! Any Git remote as a [`GitManager`]: shallow bare copies, edits in memory, pushes that are never forced.
//!
//! How a commit is made at most once: its trailer `Windlass-Operation` is looked for *before* anything is edited, on every
//! attempt. So a call that is repeated after a crash, a timeout or a lost answer returns the commit that the first one made,
//! also if somebody has changed the pins since. Only if there is none is anything compared: pins that carry the expected
//! values are edited; pins that all carry the wanted values already are the error `already-there`, because a change that
//! nobody can show our commit for is somebody else's; anything else is `superseded`.
//!
//! The history is deepened until the question at hand is answered, in the steps of [`Options::depths`]. A trailer is looked
//! for in all of it down to commits older than [`Options::search_back`].

mod credentials;
mod endpoint;
mod history;
mod known_hosts;
mod pins;
mod relay;
mod remote;
mod session;
mod tls;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use tokio::sync::Mutex;
use upgrade_core::Failure;
use upgrade_core::ports::{
    Ancestry, AppRef, Clock, CommitRecord, CommitRequest, GitManager, Pin, PinFacts, PinValue, Repository,
};

pub use credentials::{Credentials, KubeCredentials, SecretKeys};

use credentials::Keys;
use endpoint::Endpoint;
use history::Search;
use relay::Relay;
use session::Session;

use crate::{GitopsError, Result};

/// The trailer by which a commit is found again.
pub const TRAILER: &str = "Windlass-Operation";

/// Signs commits.
///
/// - **Flow**: called once per commit that is made, on a blocking thread.
/// - **Guarantees**: the signature is put into the `gpgsig` header as it is.
/// - **Assumptions**: it answers within [`Options::timeout`].
/// - **Cancellation**: the result may never be used.
/// - **Errors**: a sentence without secrets; nothing is committed then.
pub trait Signer: Send + Sync {
    /// An armoured signature (OpenPGP or SSH) of the bytes of a commit.
    fn sign(&self, commit: &[u8]) -> Result<String, String>;
}

/// Called on a blocking thread right before each push, with the number of the attempt from 1.
pub type PushHook = Arc<dyn Fn(u32) + Send + Sync>;

/// Limits and helpers of a [`PlainGit`].
#[derive(Clone)]
pub struct Options {
    /// Time for commit dates and certificates.
    pub clock: Arc<dyn Clock>,
    /// How long one call may take, waiting for other calls on the same repository included. Default: 2 minutes.
    pub timeout: Duration,
    /// How long a server may take to accept a connection. Default: 15 seconds.
    pub connect_timeout: Duration,
    /// How long a server may say nothing while it is waited for. Default: 1 minute.
    pub silence: Duration,
    /// How many commits deep the history is fetched, step by step. Default: 50, 500, 5000.
    pub depths: Vec<u32>,
    /// How old the commit of an operation can be at most. Default: 30 days.
    pub search_back: SignedDuration,
    /// Larger files are not read, in bytes. Default: 1 MiB.
    pub max_file_bytes: u64,
    /// How much a server may send in one call, in bytes: whoever may write a URL could otherwise fill the disk. Default: 1 GiB.
    pub max_received_bytes: u64,
    /// How often an edit is tried while others push too; at least 1. Default: 6, which is five retries.
    pub attempts: u32,
    /// Whether `file://` URLs are used. They name folders of this machine, among them the copies of other people's private
    /// repositories, so whoever may write a URL must be allowed to read and write those. Default: `false`.
    pub allow_files: bool,
    /// Signs commits, when given.
    pub signer: Option<Arc<dyn Signer>>,
    /// For tests of races, and for those who want to be asked last.
    pub before_push: Option<PushHook>,
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            timeout: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(15),
            silence: Duration::from_secs(60),
            depths: vec![50, 500, 5000],
            search_back: SignedDuration::from_hours(30 * 24),
            max_file_bytes: 1024 * 1024,
            max_received_bytes: 1024 * 1024 * 1024,
            attempts: 6,
            allow_files: false,
            signer: None,
            before_push: None,
        }
    }
}

/// How often a copy may be left to a call that does not end, before calls wait for it instead.
const MAX_HUNG: u32 = 4;

/// One copy of a repository, and who may use it.
#[derive(Clone, Default)]
struct Slot {
    lock: Arc<Mutex<()>>,
    /// How many calls hung; each has kept its own folder.
    hung: u32,
}

/// A [`GitManager`] on any server that speaks the Git protocol, over https, ssh, http on this machine, or files.
///
/// Copies live below one directory that only this value may use; it can be deleted whenever no call is running. A copy
/// belongs to one namespace, Secret, URL and branch: no app reads through another's credentials.
pub struct PlainGit {
    credentials: Arc<dyn Credentials>,
    cache_dir: PathBuf,
    options: Options,
    slots: std::sync::Mutex<HashMap<String, Slot>>,
}

impl PlainGit {
    /// Keeps its copies below `cache_dir`, which is made when it is needed.
    #[must_use]
    pub fn new(credentials: Arc<dyn Credentials>, cache_dir: PathBuf, options: Options) -> Self {
        Self { credentials, cache_dir, options, slots: std::sync::Mutex::default() }
    }

    /// Runs blocking work on a repository, alone; once more on a fresh copy if the old one turns out to be broken.
    async fn run<T: Send + 'static>(
        &self,
        app: &AppRef,
        repository: &Repository,
        work: impl Fn(&Session) -> Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        check_branch(repository)?;
        let endpoint = Endpoint::parse(&repository.name, &repository.url, self.options.allow_files)?;
        let secret = repository.secret.as_deref();
        let keys = match secret {
            Some(name) => self.credentials.secret(app, name).await?,
            None => SecretKeys::new(),
        };
        let keys = Arc::new(Keys::new(&repository.name, secret.unwrap_or_default(), &endpoint, &keys)?);
        // Closes its connections, and so ends a call that hangs on them, when this future is done or dropped.
        let relay = Relay::open(&repository.name, &endpoint, keys.clone(), &self.options).await?;
        let key = cache_key(app, repository);
        let slot = self.slots().entry(key.clone()).or_default().clone();
        let dir = self.cache_dir.join(format!("{key}-{}", slot.hung));
        let abandoned = Arc::new(AtomicBool::new(false));
        let session = Session {
            repository: repository.clone(),
            endpoint,
            keys,
            link: relay.link.clone(),
            dir,
            options: self.options.clone(),
            abandoned: abandoned.clone(),
        };
        // Dropping the future, or the timeout below, tells the thread to stop at its next chance and to push nothing.
        let _stop = StopOnDrop(abandoned);
        let unreachable = |why: String| GitopsError::Unreachable { repository: repository.name.clone(), why };
        let started = AtomicBool::new(false);
        let call = async {
            let guard = slot.lock.clone().lock_owned().await;
            started.store(true, Ordering::SeqCst);
            let thread = tokio::task::spawn_blocking(move || {
                // Held by the thread, not by the future: the folder stays ours for as long as the thread uses it.
                let _guard = guard;
                match work(&session) {
                    Err(GitopsError::Cache { why, .. }) => {
                        tracing::warn!(repository = session.repository.name, why, "the local copy is fetched anew");
                        session.forget();
                        work(&session)
                    }
                    result => result,
                }
            });
            thread.await.map_err(|error| unreachable(format!("the work on it was broken off: {error}")))?
        };
        match tokio::time::timeout(self.options.timeout, call).await {
            Ok(result) => Ok(result?),
            Err(_) => {
                let seconds = self.options.timeout.as_secs();
                if started.load(Ordering::SeqCst) {
                    self.retire(&key, slot.hung);
                    return Err(unreachable(format!("no answer within {seconds} seconds")).into());
                }
                Err(unreachable(format!("other calls on it were not done within {seconds} seconds")).into())
            }
        }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a copy to the thread that still works on it, so that the next call need not wait for that. Safe, because that thread pushes nothing any more, and because a push is compared with the head anyway.
    fn retire(&self, key: &str, hung: u32) {
        if let Some(slot) = self.slots().get_mut(key)
            && slot.hung == hung
            && hung < MAX_HUNG
        {
            *slot = Slot { hung: hung + 1, ..Slot::default() };
        }
    }
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A name for the copy that is the same in every process, and different for everybody with other rights.
fn cache_key(app: &AppRef, repository: &Repository) -> String {
    let secret = repository.secret.as_deref().unwrap_or_default();
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    for part in [&*app.namespace, secret, &*repository.url, &*repository.branch] {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    // The collision check of the hasher only fires on crafted input; such a repository then shares nothing by its name.
    hasher.try_finalize().map_or_else(|_| format!("{}-{}", app.namespace, app.name), |id| id.to_string())
}

fn check_branch(repository: &Repository) -> Result<()> {
    let name = format!("refs/heads/{}", repository.branch);
    if repository.branch.is_empty() || repository.branch.starts_with('-') || !git2::Reference::is_valid_name(&name) {
        let why = format!("{:?} is no name of a branch", repository.branch);
        return Err(GitopsError::RequestRefused { repository: repository.name.clone(), why });
    }
    Ok(())
}

#[async_trait]
impl GitManager for PlainGit {
    async fn head(&self, app: &AppRef, repository: &Repository) -> Result<String, Failure> {
        self.run(app, repository, |session| Ok(session.tip()?.to_string())).await
    }

    async fn pins(
        &self,
        app: &AppRef,
        repository: &Repository,
        commit: &str,
        pins: &[Pin],
    ) -> Result<Vec<PinFacts>, Failure> {
        let (commit, pins) = (commit.to_owned(), pins.to_vec());
        self.run(app, repository, move |session| session.facts(session.known(&commit)?, &pins)).await
    }

    async fn commit(&self, app: &AppRef, request: &CommitRequest) -> Result<CommitRecord, Failure> {
        let request = request.clone();
        let repository = request.repository.clone();
        self.run(app, &repository, move |session| session.commit(&request)).await
    }

    async fn find(
        &self,
        app: &AppRef,
        repository: &Repository,
        operation: &str,
    ) -> Result<Option<CommitRecord>, Failure> {
        let operation = operation.to_owned();
        self.run(app, repository, move |session| session.find(&operation)).await
    }

    async fn ancestry(
        &self,
        app: &AppRef,
        repository: &Repository,
        commit: &str,
        descendant: &str,
    ) -> Result<Ancestry, Failure> {
        let (commit, descendant) = (commit.to_owned(), descendant.to_owned());
        self.run(app, repository, move |session| {
            let (commit, descendant) = (session.id(&commit)?, session.id(&descendant)?);
            // A descendant that the branch does not have (any more) leaves the question open.
            match session.need(descendant) {
                Err(GitopsError::CommitUnknown { .. }) => return Ok(Ancestry::Unknown),
                other => other?,
            }
            let answer = session.ask(|history| {
                Ok(match history.ancestry(commit, descendant)? {
                    Ancestry::Unknown => Search::Cut,
                    known => Search::Found(known),
                })
            })?;
            Ok(answer.flatten().unwrap_or(Ancestry::Unknown))
        })
        .await
    }

    async fn files(
        &self,
        app: &AppRef,
        repository: &Repository,
        commit: &str,
        folder: &str,
        changes: &[PinValue],
    ) -> Result<BTreeMap<String, String>, Failure> {
        let (commit, folder, changes) = (commit.to_owned(), folder.to_owned(), changes.to_vec());
        self.run(app, repository, move |session| session.manifests(session.known(&commit)?, &folder, &changes)).await
    }

    async fn log(
        &self,
        app: &AppRef,
        repository: &Repository,
        from: &str,
        to: &str,
        limit: usize,
    ) -> Result<Option<Vec<String>>, Failure> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.run(app, repository, move |session| {
            let (from, to) = (session.id(&from)?, session.id(&to)?);
            if !session.history()?.has(to) {
                session.tip()?;
            }
            let paths = &session.repository.paths;
            Ok(session.ask(|history| history.log(from, to, paths, limit))?.flatten())
        })
        .await
    }
}
