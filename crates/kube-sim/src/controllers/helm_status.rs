//! What helm-controller writes into the status of a HelmRelease.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::artifact::sha256;
use super::conditions::Conditions;
use super::flux_objects::canonical;
use super::helm_storage::StoredRelease;

/// `status` of a HelmRelease.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HelmReleaseStatus {
    pub(super) observed_generation: i64,
    pub(super) last_attempted_generation: Option<i64>,
    pub(super) last_attempted_revision: Option<String>,
    pub(super) last_attempted_revision_digest: Option<String>,
    pub(super) last_attempted_config_digest: Option<String>,
    pub(super) last_attempted_release_action: Option<String>,
    pub(super) last_handled_reconcile_at: Option<String>,
    pub(super) last_handled_force_at: Option<String>,
    pub(super) last_handled_reset_at: Option<String>,
    pub(super) helm_chart: Option<String>,
    pub(super) storage_namespace: Option<String>,
    #[serde(serialize_with = "zero_is_absent")]
    pub(super) failures: i64,
    #[serde(serialize_with = "zero_is_absent")]
    pub(super) install_failures: i64,
    #[serde(serialize_with = "zero_is_absent")]
    pub(super) upgrade_failures: i64,
    pub(super) history: Vec<Snapshot>,
    pub(super) inventory: Option<Value>,
    pub(super) conditions: Conditions,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn zero_is_absent<S: serde::Serializer>(value: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    if *value == 0 { serializer.serialize_none() } else { serializer.serialize_i64(*value) }
}

/// One entry of `status.history`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Snapshot {
    pub(super) digest: String,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) version: i64,
    pub(super) status: String,
    pub(super) chart_name: String,
    pub(super) chart_version: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) app_version: String,
    pub(super) config_digest: String,
    pub(super) first_deployed: String,
    pub(super) last_deployed: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) action: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) oci_digest: Option<String>,
}

impl Snapshot {
    pub(super) fn of(release: &StoredRelease) -> Self {
        Self {
            digest: digest_of(release),
            name: release.name(),
            namespace: release.namespace(),
            version: release.version(),
            status: release.status(),
            chart_name: release.chart("name"),
            chart_version: release.chart("version"),
            app_version: release.chart("appVersion"),
            config_digest: values_digest(&release.config()),
            first_deployed: release.info("first_deployed"),
            last_deployed: release.info("last_deployed"),
            action: None,
            oci_digest: None,
        }
    }

    /// `namespace/name.v3`.
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}.v{}", self.namespace, self.name, self.version)
    }

    /// `chart@1.2.0`.
    pub(super) fn chart(&self) -> String {
        format!("{}@{}", self.chart_name, self.chart_version)
    }
}

pub(super) fn digest_of(release: &StoredRelease) -> String {
    let seen = json!([
        release.name(),
        release.namespace(),
        release.version(),
        release.status(),
        release.chart("name"),
        release.chart("version"),
        canonical(&release.config()),
        release.manifest(),
    ]);
    sha256(seen.to_string().as_bytes())
}

/// Digest of values, the same for the same values however they are ordered.
pub(super) fn values_digest(values: &Value) -> String {
    match values {
        Value::Object(map) if map.is_empty() => sha256(b""),
        values => sha256(canonical(values).to_string().as_bytes()),
    }
}
