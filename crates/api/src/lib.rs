//! The Windlass custom resources, and the few fields of foreign objects it reads.
//!
//! The group is `upgrades.windlass.dev/v1alpha1`:
//!
//! | Kind | Short name | Who writes it |
//! |---|---|---|
//! | [`ManagedApp`] | `mapp` | a person or Git; one per app |
//! | [`UpgradeRequest`] | `ureq` | a person or the command line; one per attempt, kept as history |
//! | [`RollbackRequest`] | `rreq` | a person, the command line, or an upgrade that failed |
//! | [`RestorePoint`] | `rp` | the operator, before the commit of an upgrade; owned by nobody |
//!
//! What can be checked at admission is checked by the schema and its CEL rules; everything else is refused with a reason by
//! the preflight of an operation. Defaults are applied by the accessor methods here and not by the API server, so that
//! `kubectl get -o yaml` shows what a person wrote and nothing else.
//!
//! [`call`] is what all clients of these types share: how refusals of the API server are read, and guarded patches.
//! [`foreign`] holds hand-written, partial types of Flux and of the CSI snapshot API. They ignore fields they do not know:
//! read with them, write with patches only.

#![allow(unreachable_pub, reason = "KubeSchema copies public structs into function bodies")]

pub mod call;
mod conditions;
mod duration;
pub mod foreign;
mod git;
mod managed_app;
mod operation;
mod reference;
mod repository_path;
mod request;
mod restore_point;
mod schema;
#[cfg(test)]
mod tests;

pub use conditions::{
    COMPLETE, ConditionStatus, FAILED, READY, RECONCILING, STALLED, UPDATE_AVAILABLE, condition, set_condition,
};
pub use duration::{Duration, DurationError};
pub use git::{Author, GitHost, GitRepository, GitSpec, LocalSecretReference, Pin, PinPart, WriteMode};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
pub use managed_app::{
    ActiveOperation, AutoRollback, AutoUpdate, AvailableVersion, BlockedVersion, Consistency, Delivery, FluxDelivery,
    FluxKind, FluxObject, Health, HttpCheck, LastOperation, ManagedApp, ManagedAppSpec, ManagedAppStatus, Policy,
    Retention, Snapshots, Verification, Weekday, Window,
};
pub use operation::{
    Components, Leftover, OperationKind, OperationStatus, Outcome, RecordedCommit, Subject, SubjectKind,
};
pub use reference::reference;
pub use repository_path::{RepositoryPath, RepositoryPathError};
pub use request::{
    RollbackData, RollbackRequest, RollbackRequestSpec, RollbackTo, UpgradeRequest, UpgradeRequestSpec, UpgradeTarget,
};
pub use restore_point::{
    RecordedClaim, RecordedPin, RecordedReclaimPolicy, ReplacedVolume, RestorePoint, RestorePointCommit,
    RestorePointData, RestorePointDataType, RestorePointSpec, RestorePointStatus,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// The API group of the objects that people touch.
pub const GROUP: &str = "upgrades.windlass.dev";

/// The served and stored version of [`GROUP`].
pub const VERSION: &str = "v1alpha1";

/// The four custom resource definitions, ready to apply, in a fixed order.
///
/// Use this and not `ManagedApp::crd()`: here optional fields are not `nullable`, so that the API server drops an explicit
/// `null` before any rule sees it and `has(...)` in a CEL rule means "is set".
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    [ManagedApp::crd(), UpgradeRequest::crd(), RollbackRequest::crd(), RestorePoint::crd()]
        .into_iter()
        .map(schema::without_nullable)
        .collect()
}

/// For `skip_serializing_if` of sections whose fields are all optional.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
