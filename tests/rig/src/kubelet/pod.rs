//! One pod, from the moment it is bound to the node until it is gone from the API.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube_sim::controllers::pods::lifetime::{self, Stop, order_stop};
use kube_sim::controllers::pods::node::NODE_STATUS_LAG;
use kube_sim::controllers::pods::status::{self, Kind, Reporter};
use kube_sim::controllers::pods::volumes::{self, PodVolumes};
use tokio::sync::watch;

use super::Context;
use super::container::{self, PodContext};
use super::runlog::{Entry, Event, PodRef};

const RETRY: Duration = Duration::from_millis(200);

/// Runs the pod until it has ended and, if it is being deleted, removes it. `updates` carries its newest version, and
/// `None` once it is gone.
pub(super) async fn run(context: &Arc<Context>, pod: &Arc<Pod>, updates: watch::Receiver<Option<Arc<Pod>>>) {
    let uid = pod.uid().unwrap_or_default();
    if !status::is_finished(pod) {
        live(context, pod, &uid, updates.clone()).await;
    }
    wait_for_deletion_and_remove(context, pod, updates).await;
}

async fn live(context: &Arc<Context>, pod: &Arc<Pod>, uid: &str, mut updates: watch::Receiver<Option<Arc<Pod>>>) {
    let known = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).and_then(|ip| ip.parse().ok());
    let address = context.addresses.take(known);
    let reporter = Arc::new(Reporter::new(context.client.clone(), Arc::clone(pod), Arc::new(Timestamp::now)));
    let dir = context.args.pods_dir.join(uid);
    let (stop, stopped) = watch::channel(None);
    let processes = run_processes(context, pod, &reporter, address, &dir, stopped);
    tokio::pin!(processes);
    let publishing = reporter.publish_changes();
    tokio::pin!(publishing);
    // The first look at the pod may already find it being deleted.
    updates.mark_changed();
    let volumes = loop {
        tokio::select! {
            volumes = &mut processes => break volumes,
            () = &mut publishing => {}
            Ok(()) = updates.changed() => order_stop(&stop, updates.borrow_and_update().as_deref()),
        }
    };
    reporter.end();
    retry(|| reporter.publish()).await;
    if !volumes.claims.is_empty() {
        context.log.write(&entry(pod, &volumes, Event::VolumeReleased));
        let (context, uid) = (Arc::clone(context), uid.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(NODE_STATUS_LAG).await;
            retry(|| context.in_use.remove(&uid)).await;
        });
    }
    if let Err(error) = std::fs::remove_dir_all(&dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "removing {}", dir.display());
    }
    context.addresses.give_back(address);
}

/// Volumes, init containers in order, then all containers at once. Returns when no process runs or will run.
async fn run_processes(
    context: &Arc<Context>,
    pod: &Arc<Pod>,
    reporter: &Arc<Reporter>,
    address: Ipv4Addr,
    dir: &Path,
    mut stop: Stop,
) -> PodVolumes {
    let stopped = stop.clone();
    let volumes = tokio::select! {
        volumes = take_volumes(context, pod, address, dir) => volumes,
        _ = stop.wait_for(Option::is_some) => return PodVolumes::default(),
    };
    if !volumes.claims.is_empty() {
        context.log.write(&entry(pod, &volumes, Event::VolumeInUse));
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
        dir: dir.to_owned(),
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

async fn take_volumes(context: &Context, pod: &Pod, address: Ipv4Addr, dir: &Path) -> PodVolumes {
    loop {
        match volumes::prepare(&context.client, &context.args, pod, dir, &address.to_string()).await {
            Ok(volumes) => return volumes,
            Err(why) => tracing::info!(pod = pod.name_any(), why, "volumes are not ready"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn wait_for_deletion_and_remove(context: &Context, pod: &Pod, mut updates: watch::Receiver<Option<Arc<Pod>>>) {
    let deleting = |pod: &Option<Arc<Pod>>| pod.as_ref().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
    let gone = match updates.wait_for(deleting).await {
        Ok(pod) => pod.is_none(),
        Err(_) => return,
    };
    context.log.write(&entry(pod, &PodVolumes::default(), Event::Removed));
    if gone {
        return;
    }
    retry(|| lifetime::remove(&context.client, pod)).await;
}

fn entry(pod: &Pod, volumes: &PodVolumes, event: Event) -> Entry {
    Entry { pod: Some(PodRef::of(pod)), claims: volumes.claims.clone(), ..Entry::bare(event) }
}

/// Calls until it works: what it writes must not be lost to an API server that is away for a moment.
async fn retry<F>(call: impl Fn() -> F)
where
    F: Future<Output = kube::Result<()>>,
{
    while let Err(error) = call().await {
        tracing::warn!(%error, "the API server refused; trying again");
        tokio::time::sleep(RETRY).await;
    }
}
