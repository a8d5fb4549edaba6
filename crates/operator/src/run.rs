//! Wiring: from arguments to running controllers, and an orderly end.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use jiff::SignedDuration;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use upgrade_core::app::{AppPorts, AppRunner};
use upgrade_core::ports::{Clock, GitManager};
use windlass_api::{RollbackRequest, UpgradeRequest};
use windlass_gitops::flux::{FluxDelivery, FluxOptions, FluxRenderer};
use windlass_gitops::git::{KubeCredentials, Options, PlainGit};
use windlass_helm::{ChartTemplates, HelmCli};
use windlass_snapshot::{CsiSnapshots, RestorePointStore};
use windlass_workloads::{KubeHealth, KubeWorkloads, http_client};

use crate::apps::ManagedApps;
use crate::args::{Args, Command};
use crate::clock::SystemClock;
use crate::context::Context;
use crate::events::Events;
use crate::lease::Elector;
use crate::metrics::Metrics;
use crate::rights::OwnRights;
use crate::{bounded, controller, http, manifests, points, sweep};

/// How long a volume that a restore replaced is kept.
const KEEP_REPLACED: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The end must not take longer: what is not done by then is done by the next leader, from the journal.
const GRACE: Duration = Duration::from_secs(4);

/// The program: parses, runs, and says what went wrong.
pub fn main() -> ExitCode {
    main_with(Args::parse())
}

/// The program with arguments that somebody else has parsed. Not inside of a runtime: it makes its own.
pub fn main_with(args: Args) -> ExitCode {
    // Another provider may be installed already when this is embedded.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A command line with another one is refused; whoever makes the arguments otherwise gets the default.
    let filter = EnvFilter::try_new(&args.log).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    if let Some(Command::Manifests { part, into }) = &args.command {
        let done = into.as_ref().map_or_else(|| manifests::print(*part), |folder| manifests::write(folder));
        return ended(done);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let mut config = kube::Config::infer().await.context("no cluster")?;
        // Longer than a watch that has nothing to tell is kept open by a server.
        config.read_timeout = Some(SILENCE);
        let client = Client::try_from(config).context("no cluster")?;
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stopper = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping at the next safe point");
            stopper.cancel();
        });
        run(args, client, Embedding::of_this_process(), stop).await
    });
    // A Git call that hangs must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended(result)
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended");
            ExitCode::FAILURE
        }
    }
}

/// How long an answer may stop in the middle.
const SILENCE: Duration = Duration::from_secs(295);

/// Puts something between the operator and Git.
pub type WrapGit = Box<dyn FnOnce(Arc<dyn GitManager>) -> Arc<dyn GitManager> + Send>;

/// What whoever embeds the operator brings along.
pub struct Embedding {
    /// All the time there is, for decisions, deadlines and the lease.
    pub clock: Arc<dyn Clock>,
    /// Tells this instance from all others of the same name in the lease, those before it too: the number of a run, or a random word.
    /// Two that share it would both lead.
    pub instance: String,
    /// Applied once to the Git port; tests count and break pushes here.
    pub wrap_git: WrapGit,
    /// Renders charts; `None` for the helm program of `--helm`.
    pub charts: Option<Arc<dyn ChartTemplates>>,
}

impl Embedding {
    /// The machine's clock, this process, nothing in between.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self { clock: Arc::new(SystemClock::new()), instance: instance(), wrap_git: Box::new(|git| git), charts: None }
    }
}

/// The process id for people, and a random word: in a container every process has the same id, also the one after a restart.
fn instance() -> String {
    let pid = std::process::id();
    // The hasher's keys are what the standard library has of randomness.
    format!("{pid}-{:016x}", RandomState::new().hash_one(pid))
}

/// Runs until `stop`. For those who embed the operator.
///
/// # Errors
/// When the HTTP client for health checks cannot be made, or `--listen` cannot be listened on.
///
/// # Cancellation
/// Dropping the future is a crash: the next instance goes on from the journals once the lease has lapsed.
pub async fn run(args: Args, client: Client, embedding: Embedding, stop: CancellationToken) -> anyhow::Result<()> {
    let clock = embedding.clock.clone();
    let term = SignedDuration::from_secs(args.lease_seconds.into());
    let identity = format!("{}_{}", args.identity, embedding.instance);
    let unfenced = bounded::client(&client, term, None);
    let mut elector = Elector::new(unfenced, &args.namespace, identity.clone(), term, clock.clone());
    let context = Arc::new(context(&args, &client, embedding, &elector, &identity, &stop)?);

    let server = http::serve(args.listen, context.clone(), stop.clone());
    let controllers = async {
        tokio::join!(
            controller::run::<UpgradeRequest>(context.clone(), args.concurrency),
            controller::run::<RollbackRequest>(context.clone(), args.concurrency),
            points::run(context.clone()),
        )
    };
    let begun = Notify::new();
    // Beside the election: a sweep that takes long must not let the lease lapse.
    let sweeps = async {
        loop {
            begun.notified().await;
            if let Err(failure) = sweep::sweep(&context).await {
                tracing::warn!(code = failure.code, error = %failure, "the sweep was not finished");
            }
        }
    };
    let election = async {
        let mut led = false;
        loop {
            let pause = elector.round().await;
            let leads = context.leadership.is_held();
            if leads && !led {
                tracing::info!(identity, "leading");
                begun.notify_one();
            }
            led = leads;
            tokio::select! {
                () = stop.cancelled() => return,
                () = clock.sleep(pause) => {}
            }
        }
    };
    tokio::pin!(controllers);
    tokio::select! {
        _ = &mut controllers => {}
        served = server => served.context("serving liveness and metrics")?,
        () = sweeps => {}
        () = election => {
            // What is being decided is finished and written; nothing new is begun.
            if tokio::time::timeout(GRACE, &mut controllers).await.is_err() {
                // Its last write may still be on its way: a successor waits the term out.
                tracing::warn!("a step was still running: the lease lapses, the next leader goes on from its intent");
                return Ok(());
            }
        }
    }
    elector.resign().await;
    Ok(())
}

/// Everything in it writes only while `elector` leads.
pub(crate) fn context(
    args: &Args,
    client: &Client,
    embedding: Embedding,
    elector: &Elector,
    identity: &str,
    stop: &CancellationToken,
) -> anyhow::Result<Context> {
    let Embedding { clock, wrap_git, charts, .. } = embedding;
    let term = SignedDuration::from_secs(args.lease_seconds.into());
    let client = bounded::client(client, term, Some(elector.leadership()));
    let charts = charts.unwrap_or_else(|| Arc::new(HelmCli::new(&args.helm)));
    let apps = ManagedApps::new(client.clone(), clock.clone());
    let mut options = Options::new(clock.clone());
    options.allow_files = args.allow_file_repositories;
    let namespaces: BTreeSet<String> = args.shared_namespaces.iter().cloned().collect();
    let git = PlainGit::new(Arc::new(KubeCredentials::new(client.clone())), args.git_cache.clone(), options);
    let csi = Arc::new(CsiSnapshots::new(client.clone()));
    let points = RestorePointStore::new(client.clone(), clock.clone(), KEEP_REPLACED);
    let ports = AppPorts {
        delivery: Arc::new(FluxDelivery::new(client.clone(), FluxOptions { namespaces })),
        git: wrap_git(Arc::new(git)),
        snapshots: csi.clone(),
        workloads: Arc::new(KubeWorkloads::new(client.clone())),
        health: Arc::new(KubeHealth::new(client.clone(), http_client()?, clock.clone())),
        apps: Arc::new(apps.clone()),
        restore_points: Arc::new(points.clone()),
    };
    Ok(Context {
        runner: AppRunner::new(ports.clone()),
        rights: OwnRights::new(client.clone()),
        renderer: FluxRenderer::new(client.clone(), Arc::clone(&ports.git), charts),
        events: Events::new(client.clone(), identity, clock.clone()),
        leadership: elector.leadership(),
        metrics: Metrics::new(),
        planning: tokio::sync::Mutex::new(()),
        turns: std::sync::Mutex::default(),
        stopping: stop.clone(),
        kinds_seen: AtomicU8::new(0),
        client,
        clock,
        ports,
        apps,
        points,
        disposal: csi,
    })
}
