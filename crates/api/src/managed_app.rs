//! `ManagedApp`: an app that Windlass may upgrade, and how.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Components, Duration, GitSpec, OperationKind, Outcome, is_default};

/// What the app is, where its versions are written, and what an upgrade has to look after.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "upgrades.windlass.dev",
    version = "v1alpha1",
    kind = "ManagedApp",
    plural = "managedapps",
    shortname = "mapp",
    category = "windlass",
    namespaced,
    status = "ManagedAppStatus",
    derive = "PartialEq",
    doc = "An app that Windlass may upgrade and roll back, together with its data: how it is delivered, where its versions are written in Git, and what an upgrade has to look after.",
    printcolumn(name = "Current", type_ = "string", json_path = ".status.current", description = "The running version of each component"),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.activeOperation.name", description = "The request that is at work"),
    printcolumn(name = "Last", type_ = "string", json_path = ".status.lastOperation.outcome", description = "How the last request ended"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether the app is as its spec wants it"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", description = "Why", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 52").message("the name of a ManagedApp must not be longer than 52 characters: names of requests and snapshots are made from it"),
)]
#[serde(rename_all = "camelCase")]
pub struct ManagedAppSpec {
    /// What delivers the app into the cluster. Exactly one delivery must be set.
    #[x_kube(validation = Rule::new("[has(self.flux)].exists_one(given, given)").message("exactly one delivery must be set: flux"))]
    pub delivery: Delivery,
    /// Where the versions of the app are written. Repositories and pins must be named: they are not found by themselves yet.
    #[serde(default, skip_serializing_if = "is_default")]
    pub git: GitSpec,
    /// The copies of the app's volumes that are taken before an upgrade.
    #[serde(default, skip_serializing_if = "is_default")]
    pub snapshots: Snapshots,
    /// When the app counts as healthy after an upgrade.
    #[serde(default, skip_serializing_if = "is_default")]
    pub health: Health,
    /// Which upgrades may happen, and what follows when one fails.
    #[serde(default, skip_serializing_if = "is_default")]
    pub policy: Policy,
}

/// What delivers the app into the cluster: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The app is delivered by Flux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flux: Option<FluxDelivery>,
}

/// The Flux objects that deliver the app.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FluxDelivery {
    /// The objects that make the app's workloads: a HelmRelease, or a Kustomization for plain manifests. What is above them
    /// is found from the labels that Flux puts on them.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = Rule::new("self.all(a, self.exists_one(b, a.kind == b.kind && a.name == b.name && (has(a.__namespace__) ? a.__namespace__ : '') == (has(b.__namespace__) ? b.__namespace__ : '')))").message("every Flux object must be listed once"),
    )]
    pub objects: Vec<FluxObject>,
}

/// One Flux object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FluxObject {
    /// `HelmRelease` or `Kustomization`.
    pub kind: FluxKind,
    /// The name of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The namespace of the object; that of the ManagedApp by default. Others only if the operator's configuration lists them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
}

/// The kinds of Flux objects that can deliver an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FluxKind {
    /// A Helm release.
    HelmRelease,
    /// Plain manifests.
    Kustomization,
}

impl FluxKind {
    /// As Kubernetes spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HelmRelease => "HelmRelease",
            Self::Kustomization => "Kustomization",
        }
    }
}

/// The copies of the app's volumes that are taken before an upgrade.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Snapshots {
    /// Whether to take any. `true` by default. Without snapshots a rollback can only put Git back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The VolumeSnapshotClass. The default class of the volume's driver when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub class_name: Option<String>,
    /// The claims to copy. Empty (default) means every claim that the app's workloads mount. When some are named, all others
    /// are left alone: no copy is taken of them, and a rollback does not bring their data back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub claims: Vec<String>,
    /// `Stopped` (default): the app is stopped first, and no write that the old version acknowledged is lost by a rollback.
    /// `Online`: no downtime; writes between the copy and the release are lost by a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// `Binding` (default): a copy counts when it is ready and bound both ways. `Restore`: each copy is also restored into a
    /// volume of its own, which is deleted again, before anything is committed. That takes storage for one more volume at a
    /// time and, with `Stopped`, makes the app stay down longer: it counts against `deadline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verification>,
    /// How many restore points are kept, and for how long. One is kept while it is among the newest `keepLast` that are usable
    /// *or* younger than `maxAge`, and deleted with its copies when neither holds: so `maxAge` alone never takes the last way
    /// back, and `keepLast` never takes one of yesterday. Void ones go by `maxAge` alone. Never deleted are the newest usable
    /// one, those that a request still needs, those on which replaced volumes are noted, any while a request of the app has
    /// not ended, and any for which no newer one is proven usable at that moment.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retention: Retention,
    /// How long everything from the first stop (`Online`: from the first copy) until the restore point is written may take
    /// together before the upgrade is undone. `10m` by default; 10s to 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s') && duration(self) <= duration('24h')").message("snapshots.deadline must be between 10s and 24h"))]
    pub deadline: Option<Duration>,
}

impl Snapshots {
    /// Whether to take any.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// Whether the app is stopped for the copy.
    #[must_use]
    pub fn consistency(&self) -> Consistency {
        self.consistency.unwrap_or_default()
    }

    /// What proves a copy.
    #[must_use]
    pub fn verify(&self) -> Verification {
        self.verify.unwrap_or_default()
    }

    /// How long stopping and copying may take together.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline.unwrap_or(Duration::from_mins(10))
    }
}

/// Whether the app runs while it is copied. `Stopped` (default): it is stopped first, and no write that the old version
/// acknowledged is lost by a rollback. `Online`: no downtime; writes between the copy and the release are lost by a rollback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Consistency {
    /// The app is stopped and its volumes are unmounted.
    #[default]
    Stopped,
    /// The app runs on: the copy is what a power failure would have left.
    Online,
}

/// What proves that a copy can be restored. `Binding` (default): it is ready and bound both ways. `Restore`: it is restored
/// aside as well before anything changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Verification {
    /// It is ready, and the snapshot and its content point at each other.
    #[default]
    Binding,
    /// A volume was made from it and bound.
    Restore,
}

/// How many restore points are kept, and for how long: see [`Snapshots::retention`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// So many of the newest usable restore points are kept, however old. 3 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub keep_last: Option<i32>,
    /// A restore point that is younger is kept, however many there are. `168h` by default; 1h to 43800h (five years).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1h') && duration(self) <= duration('43800h')").message("retention.maxAge must be between 1h and 43800h"))]
    pub max_age: Option<Duration>,
}

impl Retention {
    /// How many usable restore points are kept; at least one.
    #[must_use]
    pub fn keep_last(&self) -> usize {
        self.keep_last.and_then(|count| usize::try_from(count).ok()).unwrap_or(3).max(1)
    }

    /// How old a restore point may get.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        self.max_age.unwrap_or(Duration::from_hours(168))
    }
}

/// When the app counts as healthy after an upgrade.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// How long the new version may take to become healthy. `10m` by default; 10s to 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s') && duration(self) <= duration('24h')").message("health.timeout must be between 10s and 24h"))]
    pub timeout: Option<Duration>,
    /// How long it must then stay healthy before the upgrade counts as done. `1m` by default; 0s to 168h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('168h')").message("health.soak must not be longer than 168h"))]
    pub soak: Option<Duration>,
    /// Requests that the app must answer with a status of 200 to 399, besides its workloads being ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub http: Vec<HttpCheck>,
}

impl Health {
    /// How long the new version may take to become healthy.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_mins(10))
    }

    /// How long it must then stay healthy.
    #[must_use]
    pub fn soak(&self) -> Duration {
        self.soak.unwrap_or(Duration::from_mins(1))
    }
}

/// A GET request to a Service of the app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// The name of a Service in the namespace of the ManagedApp.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub service: String,
    /// The port of the Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The path, with its query if there is one.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[^\\s]*$"))]
    pub path: String,
}

/// Which upgrades may happen, and what follows when one fails.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Not read yet: no upgrade begins without a request. The largest step that is to be taken without a person: `None` (default),
    /// `Patch`, `Minor` or `Major`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_update: Option<AutoUpdate>,
    /// The versions that an upgrade may go to, as a range: `>=1.2 <2`, `~1.4`, `^2.0.0 || 3.1.x`. A request that does not fit is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub constraint: Option<String>,
    /// Versions that an upgrade must not go to. A request for one is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub skip: Vec<String>,
    /// Not read yet: no request waits for it. How long a version is to have been out before it is offered. None by default; at most
    /// 8760h (a year).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('8760h')").message("policy.minimumAge must not be longer than 8760h"))]
    pub minimum_age: Option<Duration>,
    /// Not read yet: a request begins at once, whatever is named here. When an upgrade may start without a person; at any time when
    /// left out. Rollbacks do not wait for windows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub windows: Vec<Window>,
    /// When a failed upgrade is rolled back by itself: `IfNeverReady` (default), `Always` or `Never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_rollback: Option<AutoRollback>,
}

impl Policy {
    /// The largest step that is taken without a person.
    #[must_use]
    pub fn auto_update(&self) -> AutoUpdate {
        self.auto_update.unwrap_or_default()
    }

    /// When a failed upgrade is rolled back by itself.
    #[must_use]
    pub fn auto_rollback(&self) -> AutoRollback {
        self.auto_rollback.unwrap_or_default()
    }
}

/// Not read yet: no upgrade begins without a request. The largest step that is to be taken without a person: `None` (default),
/// `Patch`, `Minor` or `Major`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AutoUpdate {
    /// No upgrade happens without a person.
    #[default]
    None,
    /// Only the last number may change.
    Patch,
    /// The first number must stay.
    Minor,
    /// Any newer version that the constraint allows.
    Major,
}

/// When a failed upgrade is rolled back by itself, data included. `IfNeverReady` (default): only if no pod of the new version
/// that mounts a claim of the app was ever ready, so that no acknowledged write is lost. `Always`; `Never`. In a request: the app's policy when left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AutoRollback {
    /// Only if no pod of the new version that mounts a claim of the app was ever ready, so that no acknowledged write can be lost.
    #[default]
    IfNeverReady,
    /// Whenever the upgrade fails, even if the new version has served and its writes are lost.
    Always,
    /// Never: a person decides.
    Never,
}

/// Not read yet. A weekly span of time, in a time zone. It belongs to the day it starts on and may end on the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.start != self.end").message("a window must not start and end at the same time"))]
pub struct Window {
    /// The days it starts on. Every day when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub days: Vec<Weekday>,
    /// When it starts, as `22:00`.
    #[schemars(length(max = 5), regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub start: String,
    /// When it ends, as `04:00`. Not after the start means on the next day.
    #[schemars(length(max = 5), regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub end: String,
    /// The IANA name of the time zone, as `Europe/Berlin`. `UTC` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"))]
    pub time_zone: Option<String>,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// What is known about the app. Written by the operator only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedAppStatus {
    /// The metadata.generation that this status was written for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The version of each component, as the last upgrade or rollback that succeeded has left it. Empty until then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::components")]
    pub current: Components,
    /// Not written yet: newer versions that the policy allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub available: Vec<AvailableVersion>,
    /// Versions that were rolled back. They are refused until a person unblocks them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["component".into(), "version".into()]))]
    pub blocked_versions: Vec<BlockedVersion>,
    /// The request that ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_operation: Option<LastOperation>,
    /// The one request that may change the app now. Set and handed over by compare-and-swap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_operation: Option<ActiveOperation>,
    /// How many usable restore points the app has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_points: Option<i32>,
    /// Ready: how the last operation left the app, with its message. Absent until one has ended or cannot be continued. Others are not
    /// written yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A newer version of one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AvailableVersion {
    /// The component.
    pub component: String,
    /// The version.
    pub version: String,
    /// When it came out, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::schema::DateTime>")]
    pub released_at: Option<Timestamp>,
}

/// A version that was rolled back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockedVersion {
    /// The component.
    pub component: String,
    /// The version.
    pub version: String,
    /// When it was rolled back.
    #[schemars(with = "crate::schema::DateTime")]
    pub since: Timestamp,
    /// What was wrong with it.
    pub reason: String,
    /// The request that rolled it back.
    pub request: String,
}

/// The request that is at work on the app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveOperation {
    /// `UpgradeRequest` or `RollbackRequest`.
    pub kind: OperationKind,
    /// The name of the request.
    pub name: String,
    /// The UID of the request.
    pub uid: String,
    /// Since when.
    #[schemars(with = "crate::schema::DateTime")]
    pub since: Timestamp,
}

/// The request that ended last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastOperation {
    /// `UpgradeRequest` or `RollbackRequest`.
    pub kind: OperationKind,
    /// The name of the request.
    pub name: String,
    /// The UID of the request.
    pub uid: String,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended.
    #[schemars(with = "crate::schema::DateTime")]
    pub finished_at: Timestamp,
    /// What happened, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
