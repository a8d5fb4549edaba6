//! What upgrade and rollback requests have in common.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Duration;

/// Versions by component, as `chart: 1.4.1` and `image/notes: 2.0.1`.
pub type Components = BTreeMap<String, String>;

/// What an operation is about, in the namespace of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// Always `ManagedApp`.
    pub kind: SubjectKind,
    /// The name of the app.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

impl Subject {
    /// The ManagedApp of this name.
    pub fn managed_app(name: impl Into<String>) -> Self {
        Self { kind: SubjectKind::ManagedApp, name: name.into() }
    }
}

/// What an operation can be about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SubjectKind {
    /// An app delivered through Git.
    #[default]
    ManagedApp,
}

/// The kinds of requests that can be at work on an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OperationKind {
    /// An upgrade.
    UpgradeRequest,
    /// A rollback.
    RollbackRequest,
}

impl OperationKind {
    /// As Kubernetes spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpgradeRequest => "UpgradeRequest",
            Self::RollbackRequest => "RollbackRequest",
        }
    }
}

/// How a request ended; absent while it runs. Only `Succeeded`, `NothingToDo` and `Planned` are what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// The target runs, healthy, and has soaked.
    Succeeded,
    /// The target ran already; nothing was changed.
    NothingToDo,
    /// A dry run: the plan is in the status, nothing was changed.
    Planned,
    /// The preflight refused; nothing was changed.
    Refused,
    /// A person cancelled before the point of no return; everything is as it was found.
    Cancelled,
    /// It failed before the point of no return; everything is as it was found.
    Undone,
    /// It failed after the point of no return, and a rollback took over.
    RolledBack,
    /// It failed after the point of no return, and a person has to choose.
    NeedsRollback,
    /// It failed and could not be put right: see the leftovers.
    Failed,
}

/// The progress and the result of a request. Written by the operator only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationStatus {
    /// The metadata.generation that this status was written for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is going on, in one word for people. New words may appear: programs read the conditions and the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// What is going on or went wrong, in a sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How it ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// When the first step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::schema::DateTime>")]
    pub started_at: Option<Timestamp>,
    /// When the last step ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::schema::DateTime>")]
    pub finished_at: Option<Timestamp>,
    /// How long the delivery of the app was suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_for: Option<Duration>,
    /// How long the app was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_for: Option<Duration>,
    /// The RestorePoint that was taken, or that is being restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_point: Option<String>,
    /// The RollbackRequest that was made to take this upgrade over, or that has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<String>,
    /// The commits that this request pushed, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub commits: Vec<RecordedCommit>,
    /// Exactly what is still suspended, scaled or otherwise not as it was found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub leftovers: Vec<Leftover>,
    /// The steps and all their resolved inputs, as computed before the first one. Written by the engine; its planVersion says
    /// which engines can read it. Do not edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::any")]
    pub plan: Option<Value>,
    /// What was intended and what was seen, step by step. Written by the engine, by compare-and-swap. Do not edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::any")]
    pub journal: Option<Value>,
    /// Complete or Failed at the end, as for a Job; Ready, Reconciling and Stalled for tools that wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A commit that a request pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedCommit {
    /// The name of the repository, as in the ManagedApp.
    pub repository: String,
    /// The commit.
    pub sha: String,
    /// The commit it was made on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Not written yet: where people can look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Not written yet: the pull request it went through, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<String>,
}

/// Something that is not as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Leftover {
    /// What was left, with the object: `HelmRelease notes/notes suspended`.
    pub what: String,
    /// The step that holds it, as in the plan and in the journal: `suspend/helmrelease/notes/notes`.
    pub object: String,
    /// Why it was left, and what to do about it.
    pub why: String,
    /// Since when.
    #[schemars(with = "crate::schema::DateTime")]
    pub since: Timestamp,
}
