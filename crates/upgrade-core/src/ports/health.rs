//! Whether an app is well.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{AppRef, ObjectRef, PinValue};
use crate::Failure;

/// An HTTP request that must answer 2xx or 3xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// Service in the app's namespace.
    pub service: String,
    /// Port of the service.
    pub port: u16,
    /// Path, with a leading slash.
    pub path: String,
    /// How long one request may take.
    #[serde(with = "crate::duration")]
    pub timeout: SignedDuration,
}

/// The verdict over an app, with what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthReport {
    /// Every workload is rolled out with at least one ready pod, all of the target version, and every check answers.
    Healthy {
        /// For the journal: pods and checks that were seen.
        evidence: String,
        /// When a container of theirs last ended and was started again, by the clock of its node; `None` when none was. An app that is
        /// back within a moment was interrupted all the same. Only compared with what the same app said earlier.
        restarted: Option<Timestamp>,
    },
    /// Not yet, or not known, with what is missing. No data is this, never healthy.
    Waiting(String),
    /// It will not become healthy by waiting: a crash loop, a missing image, a failed Job, ...
    Broken(String),
}

/// Judges the health of an app.
///
/// - **Flow**: asked again and again, during verification and the soak.
/// - **Guarantees**: zero pods is never healthy; a workload counts only when its controller has seen its newest generation and
///   every pod runs the target version.
/// - **Assumptions**: `workloads` are the app's own.
/// - **Cancellation**: read-only.
/// - **Errors**: `api-*` (retryable). A check that could not run is [`HealthReport::Waiting`], not an error.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait HealthChecker: Send + Sync {
    /// The verdict now. Of `pins`, the value of each that is about an image must be the tag of every container image it belongs to.
    async fn check(
        &self,
        app: &AppRef,
        workloads: &[ObjectRef],
        pins: &[PinValue],
        http: &[HttpCheck],
    ) -> Result<HealthReport, Failure>;
}
