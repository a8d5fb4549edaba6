//! One pod, from the moment it is bound to the node until it is gone from the API.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::sync::watch;
use tokio::time::sleep;

use super::container;
use super::lifetime::{self, Stop, order_stop};
use super::node::NODE_STATUS_LAG;
use super::runlog::{Entry, Event, PodRef};
use super::status::{self, Kind, Reporter};
use super::volumes::{self, PodVolumes};
use super::{Context, RETRY};

/// The longest wait between two looks at volumes that are not there.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// What the containers of a pod share.
pub(super) struct PodContext {
    pub(super) context: Arc<Context>,
    pub(super) pod: Arc<Pod>,
    pub(super) reporter: Arc<Reporter>,
    pub(super) volumes: PodVolumes,
    pub(super) address: Ipv4Addr,
    pub(super) stop: Stop,
}

/// Runs the pod until it has ended and, if it is being deleted, removes it. `updates` carries its newest version, and
/// `None` once it is gone.
pub(super) async fn run(context: &Arc<Context>, pod: &Arc<Pod>, updates: watch::Receiver<Option<Arc<Pod>>>) {
    if !status::is_finished(pod) {
        live(context, pod, updates.clone()).await;
    }
    wait_for_deletion_and_remove(context, pod, updates).await;
}

async fn live(context: &Arc<Context>, pod: &Arc<Pod>, mut updates: watch::Receiver<Option<Arc<Pod>>>) {
    let address = context.address(pod);
    let reporter = Arc::new(Reporter::new(context.client.clone(), Arc::clone(pod), Arc::clone(&context.clock)));
    reporter.touch();
    let dir = directory(context, pod);
    let (stop, stopped) = watch::channel(None);
    let containers = run_containers(context, pod, &reporter, address, stopped);
    tokio::pin!(containers);
    let publishing = reporter.publish_changes();
    tokio::pin!(publishing);
    // The first look at the pod may already find it being deleted.
    updates.mark_changed();
    let volumes = loop {
        tokio::select! {
            biased;
            Ok(()) = updates.changed() => order_stop(&stop, updates.borrow_and_update().as_deref()),
            volumes = &mut containers => break volumes,
            () = &mut publishing => {}
        }
    };
    reporter.end();
    retry(|| reporter.publish()).await;
    if !volumes.claims.is_empty() {
        context.record(entry(pod, &volumes, Event::VolumeReleased));
        let (context, uid) = (Arc::clone(context), pod.uid().unwrap_or_default());
        tokio::spawn(async move {
            sleep(NODE_STATUS_LAG).await;
            retry(|| context.in_use.remove(&uid)).await;
        });
    }
    if let Err(error) = std::fs::remove_dir_all(&dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "removing {}", dir.display());
    }
}

fn directory(context: &Context, pod: &Pod) -> PathBuf {
    context.scratch.path().join(pod.uid().unwrap_or_default())
}

/// Volumes, init containers in order, then all containers at once. Returns when nothing runs or will run.
async fn run_containers(
    context: &Arc<Context>,
    pod: &Arc<Pod>,
    reporter: &Arc<Reporter>,
    address: Ipv4Addr,
    mut stop: Stop,
) -> PodVolumes {
    let stopped = stop.clone();
    let volumes = tokio::select! {
        biased;
        _ = stop.wait_for(Option::is_some) => return PodVolumes::default(),
        volumes = take_volumes(context, pod, address) => volumes,
    };
    if !volumes.claims.is_empty() {
        context.record(entry(pod, &volumes, Event::VolumeInUse));
        let uid = pod.uid().unwrap_or_default();
        retry(|| context.in_use.add(&uid, &volumes.unique_names)).await;
    }
    reporter.set_address(address.to_string());
    let shared = PodContext {
        context: Arc::clone(context),
        pod: Arc::clone(pod),
        reporter: Arc::clone(reporter),
        volumes: volumes.clone(),
        address,
        stop: stopped,
    };
    let spec = pod.spec.clone().unwrap_or_default();
    for init in spec.init_containers.iter().flatten() {
        if !container::run(&shared, init, Kind::Init).await {
            return volumes;
        }
    }
    if shared.stop.borrow().is_none() {
        join_all(spec.containers.iter().map(|one| container::run(&shared, one, Kind::Main))).await;
    }
    volumes
}

async fn take_volumes(context: &Context, pod: &Pod, address: Ipv4Addr) -> PodVolumes {
    let dir = directory(context, pod);
    let mut wait = RETRY / 2;
    loop {
        let folders = &*context.volumes;
        match volumes::prepare(&context.client, folders, pod, &dir, &address.to_string()).await {
            Ok(volumes) => return volumes,
            Err(why) => tracing::debug!(pod = pod.name_any(), why, "volumes are not ready"),
        }
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn wait_for_deletion_and_remove(context: &Context, pod: &Pod, mut updates: watch::Receiver<Option<Arc<Pod>>>) {
    let deleting = |pod: &Option<Arc<Pod>>| pod.as_ref().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
    let gone = match updates.wait_for(deleting).await {
        Ok(pod) => pod.is_none(),
        Err(_) => return,
    };
    context.record(entry(pod, &PodVolumes::default(), Event::Removed));
    if gone {
        return;
    }
    retry(|| lifetime::remove(&context.client, pod)).await;
}

fn entry(pod: &Pod, volumes: &PodVolumes, event: Event) -> Entry {
    Entry { pod: Some(PodRef::of(pod)), claims: volumes.claims.clone(), ..Entry::bare(event) }
}

/// Calls until it works: what it writes must not be lost to an API server that is away for a moment.
pub(super) async fn retry<F>(call: impl Fn() -> F)
where
    F: Future<Output = kube::Result<()>>,
{
    while let Err(error) = call().await {
        tracing::debug!(%error, "the API server refused; trying again");
        sleep(RETRY).await;
    }
}
