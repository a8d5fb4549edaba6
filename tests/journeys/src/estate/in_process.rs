//! The operator inside this process, on the simulation's API server and under its time.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use clap::Parser as _;
use jiff::{SignedDuration, Timestamp};
use kube_sim::faults::Faults;
use kube_sim::{Identity, SimServer};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use upgrade_core::ports::{Clock, GitManager};
use windlass_gitops::git::{KubeCredentials, Options, PlainGit};
use windlass_helm::ChartTemplates;
use windlass_operator::{Args, Embedding};
use windlass_playground::Playground;

use super::{OPERATOR_USER, Operator, SYSTEM};
use crate::crash::Pushes;

/// Begins the group of the operator's n-th instance.
pub(crate) const INSTANCE: &str = "instance-";

/// The simulation's time as the operator's port.
pub(crate) struct SimClock(pub(crate) SimServer);

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    async fn sleep(&self, duration: SignedDuration) {
        tokio::time::sleep(duration.try_into().unwrap_or_default()).await;
    }
}

/// An operator as a task. Killing it drops it where it is.
pub(crate) struct InProcess {
    server: SimServer,
    faults: Faults,
    pushes: Pushes,
    charts: Arc<dyn ChartTemplates>,
    cache: PathBuf,
    /// How long the lease lasts, in seconds.
    lease: u16,
    running: Rc<RefCell<Running>>,
}

#[derive(Default)]
struct Running {
    /// How many were started.
    count: u32,
    current: Option<(JoinHandle<anyhow::Result<()>>, CancellationToken)>,
}

impl InProcess {
    /// `lease` is how long it lasts, in seconds.
    pub(crate) fn new(playground: &Playground, faults: Faults, pushes: Pushes, lease: u16) -> Self {
        let (server, charts) = (playground.server().clone(), playground.templates());
        let cache = playground.folder().join("windlass-git");
        Self { server, faults, pushes, charts, cache, lease, running: Rc::default() }
    }
}

#[async_trait(?Send)]
impl Operator for InProcess {
    fn start(&self) -> anyhow::Result<()> {
        let mut running = self.running.borrow_mut();
        running.count += 1;
        let cache = format!("--git-cache={}", self.cache.display());
        let args = ["windlass-operator", "--namespace", SYSTEM, "--allow-file-repositories"];
        let mut args = Args::try_parse_from(args.into_iter().chain([cache.as_str()]))?;
        // Real sockets do not move virtual time.
        args.listen = None;
        args.lease_seconds = self.lease;
        let pushes = self.pushes.clone();
        let (server, cache) = (self.server.clone(), self.cache.with_extension("raced"));
        let raced = Box::new(move |before_push| {
            let credentials = Arc::new(KubeCredentials::new(server.client()));
            let mut options = Options::new(Arc::new(SimClock(server.clone())));
            (options.allow_files, options.before_push) = (true, Some(before_push));
            Arc::new(PlainGit::new(credentials, cache.clone(), options)) as Arc<dyn GitManager>
        });
        let embedding = Embedding {
            clock: Arc::new(SimClock(self.server.clone())),
            instance: running.count.to_string(),
            wrap_git: Box::new(move |git| pushes.watch(git, raced)),
            charts: Some(Arc::clone(&self.charts)),
        };
        let stop = CancellationToken::new();
        // The group tells instances apart in what the server sees; it has no rights of its own.
        let identity = Identity::user(OPERATOR_USER).in_group(format!("{INSTANCE}{}", running.count));
        let client = self.faults.client(&self.server, identity);
        let run = windlass_operator::run(args, client, embedding, stop.clone());
        let task =
            tokio::spawn(async move { run.await.inspect_err(|error| println!("the operator ended: {error:#}")) });
        self.pushes.dies_with(task.abort_handle());
        running.current = Some((task, stop));
        Ok(())
    }

    fn freeze(&self, _: bool) -> anyhow::Result<bool> {
        Ok(false)
    }

    fn kill(&self) -> anyhow::Result<()> {
        if let Some((task, _)) = self.running.borrow_mut().current.take() {
            task.abort();
        }
        Ok(())
    }

    async fn terminate(&self) -> anyhow::Result<Duration> {
        let current = self.running.borrow_mut().current.take();
        let (task, stop) = current.context("it does not run")?;
        let began = Instant::now();
        stop.cancel();
        task.await??;
        Ok(began.elapsed())
    }

    async fn is_ready(&self) -> bool {
        self.running.borrow().current.as_ref().is_some_and(|(task, _)| !task.is_finished())
    }

    fn log_tail(&self, _: usize) -> String {
        "in this process: run with RUST_LOG=debug".to_owned()
    }
}
