//! A client that writes until it is refused: what was acknowledged must never be lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::world::World;

/// Address of a pod of the app.
pub(crate) async fn address(world: &World, namespace: &str, pod: &str) -> anyhow::Result<String> {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), namespace);
    let ip = pods.get(pod).await?.status.and_then(|status| status.pod_ip).context("the pod has no address")?;
    Ok(format!("http://{ip}:8080"))
}

/// The app's own report of its records: count and checksum.
pub(crate) async fn records(address: &str) -> anyhow::Result<Value> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    Ok(client.get(format!("{address}/records")).send().await?.error_for_status()?.json().await?)
}

/// The writer.
pub(crate) struct Writer {
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Writes to this address until it is refused or told to stop.
    pub(crate) fn start(address: String) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, stopped) = (acknowledged.clone(), stop.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let answer = client.post(format!("{address}/records")).send().await;
                match answer {
                    Ok(answer) if answer.status().is_success() => {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => return,
                }
            }
        });
        Ok(Self { acknowledged, stop, task })
    }

    /// How many writes were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many were acknowledged.
    pub(crate) async fn reaches(&self, count: u64) -> anyhow::Result<()> {
        crate::world::wait("the writer", Duration::from_secs(60), || async { Ok(self.acknowledged() >= count) }).await
    }

    /// How many were acknowledged before it was refused.
    pub(crate) async fn refused(self) -> anyhow::Result<u64> {
        tokio::time::timeout(Duration::from_secs(60), self.task).await.context("nobody refused the writer")??;
        Ok(self.acknowledged.load(Ordering::Relaxed))
    }

    /// Stops writing.
    pub(crate) async fn stop(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?;
        Ok(self.acknowledged.load(Ordering::Relaxed))
    }
}
