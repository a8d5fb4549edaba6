//! The machine's clock: the only place of the command that reads it.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use upgrade_core::ports::Clock;

/// Wall-clock time that never goes backwards, and tokio's timer (which tests may pause).
///
/// Not the operator's clock, which goes on with the monotonic one: that stands still while a laptop sleeps, and a command
/// that follows an operation over night would write yesterday's times.
#[derive(Debug, Default)]
pub struct SystemClock {
    latest: Mutex<Option<Timestamp>>,
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have set the machine's clock back.
        let now = latest.map_or_else(Timestamp::now, |latest| latest.max(Timestamp::now()));
        *latest = Some(now);
        now
    }

    async fn sleep(&self, duration: SignedDuration) {
        tokio::time::sleep(duration.try_into().unwrap_or_default()).await;
    }
}
