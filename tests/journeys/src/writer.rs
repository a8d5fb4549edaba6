//! A client that writes until it is refused: what was acknowledged must never be lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinHandle;

use crate::estate::AppClient;

/// The text of each record.
pub(crate) const RECORD: &str = "a record";

/// The writer.
pub(crate) struct Writer {
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Writes to this pod until it is refused or told to stop.
    pub(crate) fn start(app: Arc<dyn AppClient>) -> Self {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, stopped) = (acknowledged.clone(), stop.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) && app.append(RECORD).await {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { acknowledged, stop, task }
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
