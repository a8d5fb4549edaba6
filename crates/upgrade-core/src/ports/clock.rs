//! Time, so that a whole upgrade can run under a virtual clock.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

/// The only source of time.
///
/// - **Flow**: the engine asks for `now` once per decision and sleeps between decisions.
/// - **Guarantees**: `now` never goes backwards within one process.
/// - **Assumptions**: clocks of two leaders may differ; nothing is fenced by time alone.
/// - **Cancellation**: `sleep` may be dropped at any time.
/// - **Errors**: none.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Timestamp;
    /// Returns after `duration` has passed on this clock; at once when it is zero or negative.
    async fn sleep(&self, duration: SignedDuration);
}
