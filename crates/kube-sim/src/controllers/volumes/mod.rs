//! Stand-ins for everything that looks after claims, volumes and snapshots: the binder and the protection controllers of
//! kube-controller-manager, csi-provisioner, snapshot-controller and csi-snapshotter, over a driver whose volumes are
//! directories ([`driver`]).
//!
//! They follow the code of the real ones (Kubernetes 1.36, external-provisioner 6.3, external-snapshotter 8.6) as far as
//! an observer can tell: phases, references, annotations, finalizers, statuses, messages and the traps. A claim whose source
//! is not understood is provisioned empty; a volume is deleted as soon as it is released and on Delete; a pod that has
//! ended still holds its claim; a snapshot that lost its content is cut again. Errors are retried with the back-off that the
//! rig gives to the real ones: 250 ms, doubling to 5 s.
//!
//! All of them are one task that does one thing at a time per object, in an order that depends on names and time only, and
//! waits for watches otherwise: an idle cluster costs no requests. Not played: in-tree volumes, resizing, groups of
//! snapshots, topology, secrets, volumes that clone volumes, and the scheduler's binding of volumes that wait for a consumer.

mod api;
mod bind_claims;
mod bind_volumes;
mod classes;
mod concerns;
mod contents;
pub mod driver;
mod objects;
mod protect;
mod provision;
mod quantity;
mod queue;
mod reclaim;
mod snapshots;
mod world;

pub use classes::{CLASSES, DRIVER, classes, snapshot_crds};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::{FuturesUnordered, SelectAll};
use futures::{FutureExt as _, StreamExt as _};
use kube::Client;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::driver::FolderDriver;
use self::objects::{Kind, Name, Object};
use self::queue::{Job, Queue, Role};
use self::world::World;
use super::Clock;

/// What the stand-ins need.
#[derive(Clone)]
pub struct VolumesContext {
    /// Client to the API server.
    pub client: Client,
    /// The present time.
    pub clock: Clock,
    /// The storage.
    pub driver: Arc<FolderDriver>,
    /// The name under which StorageClasses and VolumeSnapshotClasses know it.
    pub driver_name: String,
}

/// Why something is tried again later.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the API server refused: {0}")]
    Api(#[from] kube::Error),
    #[error("{0}")]
    Told(String),
}

/// What to do after a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing until something changes.
    Wait,
    /// The same again, later each time.
    Again,
}

type Done = Result<Next, Trouble>;

/// What all jobs share.
struct Volumes {
    context: VolumesContext,
    world: Mutex<World>,
    /// Claims whose volume may be being made by a call that was given up: they are seen to the end even if deleted.
    unfinished: Mutex<BTreeMap<Name, Object>>,
    /// Events that were posted already; an event that repeats is not posted again.
    posted: Mutex<BTreeSet<String>>,
}

/// Looks after all claims, volumes and snapshots until `stop` is cancelled. What is being done then is dropped where it is,
/// as in a crash; calls to the driver go on.
///
/// The snapshot CRDs ([`snapshot_crds`]) may be missing: then nothing is done about snapshots until they are there.
pub async fn run(context: VolumesContext, stop: CancellationToken) {
    let volumes = Volumes { context, world: Mutex::default(), unfinished: Mutex::default(), posted: Mutex::default() };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = Arc::new(volumes).work() => {}
    }
}

impl Volumes {
    async fn work(self: Arc<Self>) {
        let mut changes: SelectAll<_> =
            Kind::ALL.into_iter().map(|kind| world::watch(&self.context.client, kind)).collect();
        let mut queue = Queue::default();
        let mut running = FuturesUnordered::new();
        loop {
            while let Some(job) = queue.next(Instant::now(), |role| self.world().knows(role.needs())) {
                let volumes = Arc::clone(&self);
                running.push(async move { (volumes.perform(&job).await, job) }.boxed());
            }
            let wake = queue.wake_at();
            tokio::select! {
                biased;
                Some((kind, event)) = changes.next() => {
                    let mut world = self.world();
                    for (old, new) in world.take(kind, event) {
                        concerns::of(&world, kind, old.as_ref(), new.as_ref(), &mut |job| queue.add(job));
                    }
                }
                Some((done, job)) = running.next(), if !running.is_empty() => {
                    if let Err(error) = &done {
                        tracing::debug!(?job, %error, "to be tried again");
                    }
                    queue.done(job, matches!(done, Ok(Next::Wait)), Instant::now());
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    async fn perform(&self, job: &Job) -> Done {
        match job.role {
            Role::BindClaim => self.bind_claim(&job.name).await,
            Role::BindVolume => self.bind_volume(&job.name).await,
            Role::ProtectClaim => self.protect_claim(&job.name).await,
            Role::ProtectVolume => self.protect_volume(&job.name).await,
            Role::Provision => self.provision(&job.name).await,
            Role::Reclaim => self.reclaim(&job.name).await,
            Role::Snapshot => self.sync_snapshot(&job.name).await,
            Role::SourceClaim => self.release_source(&job.name).await,
            Role::Content => self.sync_content(&job.name).await,
            Role::Cut => self.sync_cut(&job.name).await,
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, kind: Kind, name: &Name) -> Option<Object> {
        self.world().get(kind, name)
    }

    fn all(&self, kind: Kind) -> Vec<Object> {
        self.world().all(kind).cloned().collect()
    }
}
