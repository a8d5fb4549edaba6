//! The machine's clock: the only place of the command that reads it.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use upgrade_core::ports::Clock;

/// Wall-clock time, and tokio's timer (which tests may pause).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep(&self, duration: SignedDuration) {
        tokio::time::sleep(duration.try_into().unwrap_or_default()).await;
    }
}
