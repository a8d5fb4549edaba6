//! The port through which the helm-controller stand-in changes releases.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;

/// What a release should become.
#[derive(Debug, Clone, PartialEq)]
pub struct ReleaseRequest {
    /// Release name.
    pub name: String,
    /// Namespace of the release and of its record.
    pub namespace: String,
    /// The packed chart.
    pub chart: Bytes,
    /// The values given to it.
    pub values: Value,
    /// How long the whole action may take.
    pub timeout: Duration,
    /// Whether to wait until the objects are ready. Workloads that want no pods are ready at once.
    pub wait: bool,
    /// Whether to run hooks.
    pub hooks: bool,
    /// Whether to create the namespace.
    pub create_namespace: bool,
    /// How many records to keep.
    pub max_history: u32,
    /// Labels to put on every rendered object.
    pub labels: BTreeMap<String, String>,
}

/// Installs, upgrades, rolls back and uninstalls releases, keeping Helm's records.
///
/// - **Flow**: the stand-in reads the records itself ([`super::helm_storage`]), calls one of these, and reads the records again.
/// - **Guarantees**: when a call returns, the action has ended: its record is `deployed`, `failed` or `uninstalled`, not pending. Fields
///   that others own are taken over, as helm-controller does.
/// - **Assumptions**: one call at a time per release.
/// - **Cancellation**: a dropped call is a crashed helm-controller: the record may stay pending.
/// - **Errors**: what Helm said, as text. A record may have been written nevertheless.
#[async_trait]
pub trait HelmBackend: Send + Sync {
    /// Installs the release, or upgrades it when it exists.
    async fn release(&self, request: &ReleaseRequest) -> Result<(), String>;
    /// Goes back to the manifest of record `version`, as a new record.
    async fn rollback(&self, name: &str, namespace: &str, version: i64, timeout: Duration) -> Result<(), String>;
    /// Removes the release's objects; with `keep_history` its records stay.
    async fn uninstall(&self, name: &str, namespace: &str, keep_history: bool, timeout: Duration)
    -> Result<(), String>;
}
