//! The machine's clock: the only place of the operator that reads it.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use upgrade_core::ports::Clock;

/// Wall-clock time, and tokio's timer (which tests may pause).
#[derive(Debug, Clone)]
pub struct SystemClock {
    started: tokio::time::Instant,
    epoch: Timestamp,
}

impl SystemClock {
    /// Starts at the machine's time and goes on with tokio's monotonic clock, so that it never goes backwards.
    pub fn new() -> Self {
        Self { started: tokio::time::Instant::now(), epoch: Timestamp::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.started.elapsed()).unwrap_or_default();
        self.epoch.checked_add(elapsed).unwrap_or(self.epoch)
    }

    async fn sleep(&self, duration: SignedDuration) {
        tokio::time::sleep(duration.try_into().unwrap_or_default()).await;
    }
}
