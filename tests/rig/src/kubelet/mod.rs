//! A small kubelet: registers one node and runs the pods bound to it as local processes.
//!
//! It is an ordinary client of the API server. An image names a local program ([`ImageMap`]); a volume is the directory
//! that the rig's CSI driver keeps under the volume handle. There are no mounts and no namespaces: each container gets a
//! directory of its own in which every `mountPath` is a link to the volume, as working directory and as `ROOT_DIR`, and
//! `MOUNT_<NAME>` per volume mount. An environment value, argument or probe argument that is a path under a `mountPath` is
//! turned into the real path, so `DATA_DIR=/data` works as written in a chart. `readOnly` is not enforced.
//!
//! Every pod has a loopback address of its own, so that container ports need no mapping. Everything that starts, becomes
//! ready or stops is written to the [`RunLog`], which is what tests use to prove that no pod of the wrong version ran.
//! All processes die with the kubelet.

mod container;
mod images;
mod node;
mod pod;
mod probes;
mod process;
mod runlog;
mod volumes;

pub use images::{ImageMap, Program, UnknownImage};
pub use runlog::{Entry, Event, PodRef, Run, RunHistory, RunLog, read_run_log};

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use kube_sim::controllers::pods::{node::VolumesInUse, status};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Settings of the kubelet.
#[derive(Debug, Clone, clap::Args)]
pub struct KubeletArgs {
    /// Name of the node to register.
    #[arg(long, default_value = "rig-node")]
    pub node_name: String,
    /// Label of the node, `key=value`; repeatable.
    #[arg(long = "label", value_parser = parse_pair)]
    pub labels: Vec<(String, String)>,
    /// Name of the CSI driver whose volumes the pods use.
    #[arg(long)]
    pub csi_driver: String,
    /// Directory in which the CSI driver keeps a volume under its handle.
    #[arg(long)]
    pub volumes_dir: PathBuf,
    /// Directory for what the pods need while they run; created when missing.
    #[arg(long)]
    pub pods_dir: PathBuf,
    /// File to append the run log to.
    #[arg(long)]
    pub run_log: PathBuf,
    /// Image and program, `repository=app` or `repository=/path/to/program arg`; repeatable, added to the built-in ones.
    #[arg(long = "image", value_parser = images::parse_rule)]
    pub images: Vec<(String, Program)>,
    /// First wait of a crash loop, in milliseconds; doubled at each crash.
    #[arg(long, default_value_t = 500)]
    pub crash_backoff_ms: u64,
    /// Longest wait of a crash loop, in milliseconds.
    #[arg(long, default_value_t = 5_000)]
    pub crash_backoff_max_ms: u64,
    /// How often to look again until a container is ready for the first time, in milliseconds, where the probe's own period
    /// is longer. Once ready, and for startup and liveness probes, the periods hold as declared.
    #[arg(long, default_value_t = 25)]
    pub first_ready_poll_ms: u64,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is not key=value"))
}

/// What every pod worker shares.
struct Context {
    client: Client,
    args: KubeletArgs,
    images: ImageMap,
    log: RunLog,
    spawner: process::Spawner,
    addresses: Addresses,
    in_use: VolumesInUse,
}

/// Runs the kubelet until `stop` is cancelled; then kills every process and leaves the pods in the API as they are.
///
/// # Errors
/// When the node cannot be registered or the directories cannot be made.
pub async fn run(mut args: KubeletArgs, client: Client, stop: CancellationToken) -> anyhow::Result<()> {
    // The processes run in directories of their own.
    args.pods_dir = std::path::absolute(&args.pods_dir)?;
    args.volumes_dir = std::path::absolute(&args.volumes_dir)?;
    std::fs::create_dir_all(args.pods_dir.join("logs"))
        .with_context(|| format!("creating {}", args.pods_dir.display()))?;
    process::kill_stale(&args.pods_dir);
    let log = RunLog::open(&args.run_log)?;
    log.write(&Entry::bare(Event::KubeletStarted));
    let images = ImageMap::new(std::env::current_exe()?, args.images.clone());
    node::register(&client, &args).await.context("registering the node")?;
    let context = Arc::new(Context {
        in_use: VolumesInUse::new(client.clone(), args.node_name.clone()),
        spawner: process::Spawner::start()?,
        addresses: Addresses::reserve()?,
        client,
        args,
        images,
        log,
    });
    context.in_use.publish().await.context("clearing volumesInUse")?;
    tracing::info!(node = context.args.node_name, "kubelet is up");
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        result = node::heartbeat(&context.client, &context.args) => result,
        result = watch_pods(&context) => result,
    }
}

/// One worker per pod UID, told of every new version of its pod, and of its disappearance by `None`.
async fn watch_pods(context: &Arc<Context>) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::all(context.client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", context.args.node_name));
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut workers: BTreeMap<String, watch::Sender<Option<Arc<Pod>>>> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut listed: BTreeSet<String> = BTreeSet::new();
    loop {
        let event = tokio::select! {
            event = events.try_next() => event,
            Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                if let Ok(uid) = done {
                    workers.remove(&uid);
                }
                continue;
            }
        };
        match event {
            Ok(Some(watcher::Event::Init)) => listed.clear(),
            Ok(Some(watcher::Event::InitApply(pod))) => {
                listed.insert(pod.uid().unwrap_or_default());
                hand_over(context, &mut workers, &mut tasks, pod);
            }
            Ok(Some(watcher::Event::InitDone)) => {
                for (uid, worker) in &workers {
                    if !listed.contains(uid) {
                        worker.send_replace(None);
                    }
                }
            }
            Ok(Some(watcher::Event::Apply(pod))) => hand_over(context, &mut workers, &mut tasks, pod),
            Ok(Some(watcher::Event::Delete(pod))) => {
                if let Some(worker) = workers.get(&pod.uid().unwrap_or_default()) {
                    worker.send_replace(None);
                }
            }
            Ok(None) => anyhow::bail!("the watch of the pods ended"),
            Err(error) => tracing::warn!(%error, "watching pods"),
        }
    }
}

fn hand_over(
    context: &Arc<Context>,
    workers: &mut BTreeMap<String, watch::Sender<Option<Arc<Pod>>>>,
    tasks: &mut JoinSet<String>,
    pod: Pod,
) {
    let uid = pod.uid().unwrap_or_default();
    let pod = Arc::new(pod);
    if let Some(worker) = workers.get(&uid) {
        worker.send_replace(Some(pod));
        return;
    }
    if status::is_finished(&pod) && pod.metadata.deletion_timestamp.is_none() {
        return;
    }
    let (sender, receiver) = watch::channel(Some(Arc::clone(&pod)));
    workers.insert(uid.clone(), sender);
    let context = Arc::clone(context);
    tasks.spawn(async move {
        pod::run(&context, &pod, receiver).await;
        uid
    });
}

/// Loopback addresses `127.n.x.y`, one per pod, with an `n` that no other kubelet of this machine has: otherwise the probes
/// of one rig could be answered by the pods of another.
struct Addresses {
    network: u8,
    pods: Mutex<(u16, BTreeSet<Ipv4Addr>)>,
    /// Holds the network: the kernel lets one process listen there, and frees it when that process ends.
    _hold: TcpListener,
}

impl Addresses {
    /// The first network that is free.
    fn reserve() -> anyhow::Result<Self> {
        let hold = |network| TcpListener::bind((Ipv4Addr::new(127, network, 255, 254), 10250)).ok();
        let mut networks = (1..=254).filter_map(|network| Some((network, hold(network)?)));
        let (network, hold) = networks.next().context("no loopback network is free for pods")?;
        Ok(Self { network, pods: Mutex::default(), _hold: hold })
    }

    /// The address asked for if it is free (a pod keeps its own across a restart of the kubelet), or the next free one.
    fn take(&self, wish: Option<Ipv4Addr>) -> Ipv4Addr {
        let mut guard = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, taken) = &mut *guard;
        let own = |wish: &Ipv4Addr| wish.octets().starts_with(&[127, self.network]);
        if let Some(wish) = wish.filter(|wish| own(wish) && taken.insert(*wish)) {
            return wish;
        }
        loop {
            // Neither the network's own address nor the one that holds it.
            *last = last.wrapping_add(1) % 0xff00;
            let [high, low] = last.to_be_bytes();
            let address = Ipv4Addr::new(127, self.network, high, low);
            if *last != 0 && taken.insert(address) {
                return address;
            }
        }
    }

    fn give_back(&self, address: Ipv4Addr) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&address);
    }
}

impl KubeletArgs {
    fn crash_backoff(&self, crashes: u32) -> Duration {
        let factor = 1_u64.checked_shl(crashes.saturating_sub(1)).unwrap_or(u64::MAX);
        Duration::from_millis(self.crash_backoff_ms.saturating_mul(factor).min(self.crash_backoff_max_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_pods_share_an_address() {
        let addresses = Addresses::reserve().unwrap();
        let first = addresses.take(None);
        let second = addresses.take(Some(first));
        assert_ne!(first, second);
        addresses.give_back(first);
        assert_eq!(addresses.take(Some(first)), first);
        assert_ne!(addresses.take(Some(Ipv4Addr::LOCALHOST)), Ipv4Addr::LOCALHOST);
        let other = Addresses::reserve().unwrap();
        assert_ne!(other.network, addresses.network);
        assert_ne!(other.take(Some(first)), first);
    }
}
