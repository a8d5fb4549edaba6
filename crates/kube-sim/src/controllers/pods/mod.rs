//! Scheduler and kubelet in one: a node that runs the pods of the cluster as futures of this process.
//!
//! An image names a [`Program`]; a CSI volume is a folder that [`VolumeFolders`] knows. What an observer sees is what a real
//! node shows: bindings, phases, conditions, container states, restarts with growing waits, pulls that fail,
//! `volumesInUse` before the first container and until after the last one, graceful deletion. What ran when is in the
//! [`RunLog`].
//!
//! Not known: lifecycle hooks, sidecars, ephemeral containers and liveness probes (a program ends by itself),
//! `activeDeadlineSeconds` of pods, taints, resources, affinity beyond the node's name, and claims that are made with the pod.
//! There should be one node in a cluster: every one of them would take the pods that none has.
//!
//! [`status`], [`lifetime`], [`environment`], [`volumes`], [`node`] and [`runlog`] are parts that any small kubelet can
//! use.

mod container;
pub mod environment;
pub mod lifetime;
pub mod node;
mod pod;
mod programs;
pub mod runlog;
mod scheduler;
pub mod status;
pub mod volumes;

pub use programs::{Behaviour, Container, Images, Program, Readiness, Scripted};
pub use runlog::{ClaimRef, Entry, Event, PodRef, Run, RunHistory, RunLog};
pub use volumes::VolumeFolders;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Clock;
use super::watched::{Id, Known, id, watch};

/// Waits before what the API server refused is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What the node needs.
#[derive(Clone)]
pub struct PodsContext {
    /// Client to the API server, as somebody who may do what schedulers and kubelets do.
    pub client: Client,
    /// The present time.
    pub clock: Clock,
    /// Name of the node.
    pub node: String,
    /// What images do.
    pub images: Arc<dyn Images>,
    /// Where volumes are.
    pub volumes: Arc<dyn VolumeFolders>,
    /// Where to write down what runs: one log for each node, as a node that starts ends what ran before.
    pub runs: RunLog,
}

/// What every pod worker shares.
struct Context {
    client: Client,
    clock: Clock,
    node: String,
    images: Arc<dyn Images>,
    volumes: Arc<dyn VolumeFolders>,
    runs: RunLog,
    in_use: node::VolumesInUse,
    scratch: TempDir,
    addresses: Mutex<(u16, BTreeSet<Ipv4Addr>)>,
}

impl Context {
    fn record(&self, entry: Entry) {
        self.runs.record(Entry { at_ms: (self.clock)().as_millisecond(), ..entry });
    }

    /// The address that the pod has already, or one that no pod of this node had before.
    fn address(&self, pod: &Pod) -> Ipv4Addr {
        let (last, taken) = &mut *self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let known = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).and_then(|ip| ip.parse().ok());
        if let Some(known) = known {
            taken.insert(known);
            return known;
        }
        loop {
            *last = last.wrapping_add(1);
            let [high, low] = last.to_be_bytes();
            let address = Ipv4Addr::new(10, 244, high, low);
            if taken.insert(address) {
                return address;
            }
        }
    }
}

/// Runs the node until `stop` is cancelled. Then everything that runs is dropped where it is, as if the machine had lost its
/// power, and the API keeps what it said last; a later call with the same node starts those pods' containers anew.
pub async fn run(context: PodsContext, stop: CancellationToken) {
    let PodsContext { client, clock, node, images, volumes, runs } = context;
    let scratch = match tempfile::tempdir() {
        Ok(scratch) => scratch,
        Err(error) => return tracing::error!(%error, "the node has nowhere to put the volumes of its pods"),
    };
    let context = Arc::new(Context {
        in_use: node::VolumesInUse::new(client.clone(), node.clone()),
        addresses: Mutex::default(),
        client,
        clock,
        node,
        images,
        volumes,
        runs,
        scratch,
    });
    let mut node = Node {
        context,
        pods: Known::default(),
        claims: Known::default(),
        workers: BTreeMap::new(),
        tasks: JoinSet::new(),
        unscheduled: BTreeSet::new(),
        to_schedule: BTreeSet::new(),
        again: None,
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = node.work() => {}
    }
    node.tasks.shutdown().await;
}

/// Something that a watch reported.
enum Change {
    Pod(Box<watcher::Event<Pod>>),
    Claim(Box<watcher::Event<PersistentVolumeClaim>>),
}

struct Node {
    context: Arc<Context>,
    pods: Known<Pod>,
    claims: Known<PersistentVolumeClaim>,
    /// By UID of the pod: tells its worker of every new version, and of its disappearance by `None`.
    workers: BTreeMap<String, watch::Sender<Option<Arc<Pod>>>>,
    tasks: JoinSet<String>,
    /// Pods without a node.
    unscheduled: BTreeSet<Id>,
    /// Those of them for which something may have changed.
    to_schedule: BTreeSet<Id>,
    /// When to try all of them again because a request failed.
    again: Option<Instant>,
}

impl Node {
    async fn work(&mut self) {
        let (client, clock) = (&self.context.client, &self.context.clock);
        while let Err(error) = node::register(client, &self.context.node, clock()).await {
            tracing::debug!(%error, "registering the node");
            sleep(RETRY).await;
        }
        self.context.record(Entry::bare(Event::KubeletStarted));
        pod::retry(|| self.context.in_use.publish()).await;
        let mut changes = stream::SelectAll::from_iter([
            watch(client).map(|event| Change::Pod(Box::new(event))).boxed(),
            watch(client).map(|event| Change::Claim(Box::new(event))).boxed(),
        ]);
        loop {
            // Everything that is known already counts before a decision.
            while let Some(Some(change)) = changes.next().now_or_never() {
                self.take(change);
            }
            if self.pods.is_complete()
                && self.claims.is_complete()
                && let Some(id) = self.to_schedule.pop_first()
            {
                self.schedule(&id).await;
                continue;
            }
            let again = self.again;
            tokio::select! {
                biased;
                Some(change) = changes.next() => self.take(change),
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Ok(uid) = done {
                        self.workers.remove(&uid);
                    }
                }
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    self.again = None;
                    self.to_schedule.clone_from(&self.unscheduled);
                }
                else => return,
            }
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Pod(event) => {
                for pod in self.pods.take(*event) {
                    self.pod_changed(&pod);
                }
            }
            Change::Claim(event) => {
                for claim in self.claims.take(*event) {
                    let waits = |pod: &&Id| {
                        pod.0 == claim.namespace().unwrap_or_default()
                            && self.pods.get(&pod.0, &pod.1).is_some_and(|pod| names(pod, &claim.name_any()))
                    };
                    let waiting: Vec<Id> = self.unscheduled.iter().filter(waits).cloned().collect();
                    self.to_schedule.extend(waiting);
                }
            }
        }
    }

    fn pod_changed(&mut self, pod: &Arc<Pod>) {
        let (id, uid) = (id(&**pod), pod.uid().unwrap_or_default());
        let now = self.pods.get(&id.0, &id.1).filter(|now| now.metadata.uid == pod.metadata.uid).cloned();
        let Some(pod) = now else {
            if !self.pods.get(&id.0, &id.1).is_some_and(|other| scheduler::is_unscheduled(other)) {
                self.unscheduled.remove(&id);
            }
            if let Some(worker) = self.workers.get(&uid) {
                worker.send_replace(None);
            }
            return;
        };
        if scheduler::is_unscheduled(&pod) {
            if self.unscheduled.insert(id.clone()) {
                self.to_schedule.insert(id);
            }
            return;
        }
        self.unscheduled.remove(&id);
        if pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&self.context.node) {
            self.hand_over(uid, pod);
        }
    }

    fn hand_over(&mut self, uid: String, pod: Arc<Pod>) {
        if let Some(worker) = self.workers.get(&uid) {
            worker.send_replace(Some(pod));
            return;
        }
        if status::is_finished(&pod) && pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        let (sender, updates) = watch::channel(Some(Arc::clone(&pod)));
        self.workers.insert(uid.clone(), sender);
        let context = Arc::clone(&self.context);
        self.tasks.spawn(async move {
            pod::run(&context, &pod, updates).await;
            uid
        });
    }

    async fn schedule(&mut self, id: &Id) {
        let Some(pod) = self.pods.get(&id.0, &id.1).filter(|_| self.unscheduled.contains(id)).cloned() else { return };
        match scheduler::schedule(&self.context.client, &self.context.node, &pod, &self.claims).await {
            Ok(bound) => {
                if bound {
                    self.unscheduled.remove(id);
                }
            }
            Err(error) => {
                tracing::debug!(pod = id.1, %error, "scheduling");
                self.again = self.again.or(Some(Instant::now() + RETRY));
            }
        }
    }
}

/// Whether the pod uses the claim.
fn names(pod: &Pod, claim: &str) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| volumes::claim_name(pod, volume)).any(|its| its == claim)
}
