//! Pushes as crash points: they do not pass the API server, so they are counted where the operator hands a commit to Git.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use kube_sim::faults::CrashAt;
use tokio::task::AbortHandle;
use upgrade_core::Failure;
use upgrade_core::ports::{
    Ancestry, AppRef, CommitRecord, CommitRequest, GitManager, Pin, PinFacts, PinValue, Repository,
};
use windlass_gitops::git::PushHook;

use crate::estate::Rival;

/// Called with each commit request before it is handed to Git.
pub(crate) type Judge = Arc<dyn Fn(&CommitRequest) + Send + Sync>;

/// Makes a Git of the same kind that asks this before each push.
pub(crate) type Raced = Box<dyn Fn(PushHook) -> Arc<dyn GitManager> + Send + Sync>;

/// Called when the crash point is reached.
pub(crate) type OnStrike = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct State {
    count: u64,
    point: Option<(u64, CrashAt, OnStrike)>,
    operator: Option<AbortHandle>,
    judge: Option<Judge>,
    rival: Option<Rival>,
}

/// Counts the commits that the operator makes, and kills it at one of them. Clones share the count.
#[derive(Clone, Default)]
pub(crate) struct Pushes(Arc<Mutex<State>>);

impl Pushes {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many commits were handed to Git so far.
    pub(crate) fn count(&self) -> u64 {
        self.lock().count
    }

    /// Kills the operator at its `number`-th commit, from 1.
    pub(crate) fn crash(&self, number: u64, at: CrashAt, on_strike: OnStrike) {
        self.lock().point = Some((number, at, on_strike));
    }

    /// Is shown every commit before Git is.
    pub(crate) fn judged_by(&self, judge: Judge) {
        self.lock().judge = Some(judge);
    }

    /// Whom to kill.
    pub(crate) fn dies_with(&self, operator: AbortHandle) {
        self.lock().operator = Some(operator);
    }

    /// Has this done between the edit and the push of the next commit.
    pub(crate) fn outrun(&self, rival: Rival) {
        self.lock().rival = Some(rival);
    }

    /// Git with the count in between. `raced` makes one that asks before each push.
    pub(crate) fn watch(&self, git: Arc<dyn GitManager>, raced: Raced) -> Arc<dyn GitManager> {
        Arc::new(Watched { pushes: self.clone(), git, raced })
    }

    fn next(&self, request: &CommitRequest) -> Option<(CrashAt, OnStrike)> {
        let mut state = self.lock();
        state.count += 1;
        let judge = state.judge.clone();
        let count = state.count;
        let strikes = state.point.take_if(|(number, ..)| *number == count).map(|(_, at, on_strike)| (at, on_strike));
        drop(state);
        if let Some(judge) = judge {
            judge(request);
        }
        strikes
    }

    /// Kills the operator where it is.
    pub(crate) fn strike(&self) {
        if let Some(operator) = &self.lock().operator {
            operator.abort();
        }
    }
}

struct Watched {
    pushes: Pushes,
    git: Arc<dyn GitManager>,
    raced: Raced,
}

#[async_trait]
impl GitManager for Watched {
    async fn commit(&self, app: &AppRef, request: &CommitRequest) -> Result<CommitRecord, Failure> {
        let Some((at, on_strike)) = self.pushes.next(request) else {
            let Some(rival) = self.pushes.lock().rival.take() else { return self.git.commit(app, request).await };
            let rival = Mutex::new(Some(rival));
            let before_push = move |_| {
                if let Some(rival) = rival.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    rival();
                }
            };
            return (self.raced)(Arc::new(before_push)).commit(app, request).await;
        };
        let strike = || {
            self.pushes.strike();
            on_strike();
        };
        if at == CrashAt::Before {
            strike();
            return std::future::pending().await;
        }
        let made = self.git.commit(app, request).await;
        strike();
        if at == CrashAt::ReplyLost {
            return std::future::pending().await;
        }
        // The answer is seen; the end comes at whatever is awaited next.
        made
    }

    async fn head(&self, app: &AppRef, repository: &Repository) -> Result<String, Failure> {
        self.git.head(app, repository).await
    }

    async fn pins(
        &self,
        app: &AppRef,
        repository: &Repository,
        commit: &str,
        pins: &[Pin],
    ) -> Result<Vec<PinFacts>, Failure> {
        self.git.pins(app, repository, commit, pins).await
    }

    async fn find(
        &self,
        app: &AppRef,
        repository: &Repository,
        operation: &str,
    ) -> Result<Option<CommitRecord>, Failure> {
        self.git.find(app, repository, operation).await
    }

    async fn ancestry(
        &self,
        app: &AppRef,
        repository: &Repository,
        commit: &str,
        descendant: &str,
    ) -> Result<Ancestry, Failure> {
        self.git.ancestry(app, repository, commit, descendant).await
    }

    async fn files(
        &self,
        app: &AppRef,
        repository: &Repository,
        commit: &str,
        folder: &str,
        changes: &[PinValue],
    ) -> Result<BTreeMap<String, String>, Failure> {
        self.git.files(app, repository, commit, folder, changes).await
    }

    async fn log(
        &self,
        app: &AppRef,
        repository: &Repository,
        from: &str,
        to: &str,
        limit: usize,
    ) -> Result<Option<Vec<String>>, Failure> {
        self.git.log(app, repository, from, to, limit).await
    }
}
