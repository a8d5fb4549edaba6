//! `UpgradeRequest` and `RollbackRequest`: one attempt each. Their specs never change, except that they can be cancelled.

use jiff::Timestamp;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AutoRollback, Components, OperationStatus, Subject, schema::unchanged};

/// One upgrade of one app.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "upgrades.windlass.dev",
    version = "v1alpha1",
    kind = "UpgradeRequest",
    plural = "upgraderequests",
    shortname = "ureq",
    category = "windlass",
    namespaced,
    status = "OperationStatus",
    derive = "PartialEq",
    doc = "One attempt to upgrade an app. Its spec cannot be changed, only cancelled. It ends Complete or Failed, like a Job, and is kept as history.",
    printcolumn(name = "App", type_ = "string", json_path = ".spec.subject.name", description = "The app"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.target.components", description = "The versions asked for"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "What is going on"),
    printcolumn(name = "Outcome", type_ = "string", json_path = ".status.outcome", description = "How it ended"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", description = "Details", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 63").message("the name of a request must not be longer than 63 characters: it is used as a label"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(unchanged(&["subject", "target"], &["reason", "requestedBy", "dryRun", "autoRollback", "accept"])).message("the spec of a request cannot be changed, except for cancel: make a new request"),
    validation = Rule::new("!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)").message("cancel cannot be taken back: make a new request").field_path(".cancel"),
)]
pub struct UpgradeRequestSpec {
    /// The app to upgrade.
    pub subject: Subject,
    /// The versions to upgrade to.
    pub target: UpgradeTarget,
    /// Why, for people: it is shown in lists and written into the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// Who asked, for people. Not proven: the API server's audit log is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub requested_by: Option<String>,
    /// Make the plan, put it into the status, and change nothing. `false` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// When a failure is rolled back by itself; the app's policy decides when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_rollback: Option<AutoRollback>,
    /// Changes of claims and workloads that a person takes the responsibility for, by the names that the refusals give:
    /// `drop-claim/NAME`, `add-claim/NAME`, `remove-workload/KIND/NAME`, `unrendered/KIND/NAME`. A name that fits nothing is
    /// refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 317)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub accept: Vec<String>,
    /// Stop: before the point of no return everything is undone, after it the upgrade goes on to a consistent end. Can be set
    /// once and never taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,
}

impl UpgradeRequestSpec {
    /// Whether to make the plan only.
    #[must_use]
    pub fn dry_run(&self) -> bool {
        self.dry_run.unwrap_or(false)
    }

    /// Whether a person wants it to stop.
    #[must_use]
    pub fn cancel(&self) -> bool {
        self.cancel.unwrap_or(false)
    }
}

/// The versions to upgrade to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeTarget {
    /// The new version of each component that changes; the others stay.
    #[schemars(schema_with = "crate::schema::components")]
    #[x_kube(validation = Rule::new("size(self) > 0").message("a target must name at least one component"))]
    pub components: Components,
}

/// One rollback of one app.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "upgrades.windlass.dev",
    version = "v1alpha1",
    kind = "RollbackRequest",
    plural = "rollbackrequests",
    shortname = "rreq",
    category = "windlass",
    namespaced,
    status = "OperationStatus",
    derive = "PartialEq",
    doc = "One attempt to take an app back to a restore point, with or without its data. Its spec cannot be changed, only cancelled. It ends Complete or Failed, like a Job, and is kept as history.",
    printcolumn(name = "App", type_ = "string", json_path = ".spec.subject.name", description = "The app"),
    printcolumn(name = "Data", type_ = "string", json_path = ".spec.data", description = "What happens to the data"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "What is going on"),
    printcolumn(name = "Outcome", type_ = "string", json_path = ".status.outcome", description = "How it ended"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", description = "Details", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 63").message("the name of a request must not be longer than 63 characters: it is used as a label"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(unchanged(&["subject", "to", "data"], &["acknowledgeLossSince", "reason", "requestedBy", "dryRun", "accept"])).message("the spec of a request cannot be changed, except for cancel: make a new request"),
    validation = Rule::new("!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)").message("cancel cannot be taken back: make a new request").field_path(".cancel"),
    validation = Rule::new("self.data == 'Restore' || !has(self.acknowledgeLossSince)").message("acknowledgeLossSince is for data: Restore only").field_path(".acknowledgeLossSince"),
)]
pub struct RollbackRequestSpec {
    /// The app to take back.
    pub subject: Subject,
    /// Where to go back to: exactly one field is set.
    #[x_kube(validation = Rule::new("has(self.upgradeRequest) != has(self.restorePoint)").message("exactly one of upgradeRequest and restorePoint must be set"))]
    pub to: RollbackTo,
    /// `Restore` puts the data of the restore point back; `Keep` takes back the versions only.
    pub data: RollbackData,
    /// Take the loss of everything that was written since this time. Needed only if the restore would lose acknowledged writes;
    /// the refusal says which time to name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::schema::DateTime>")]
    pub acknowledge_loss_since: Option<Timestamp>,
    /// Why, for people: it is shown in lists and written into the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// Who asked, for people. Not proven: the API server's audit log is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub requested_by: Option<String>,
    /// Make the plan, put it into the status, and change nothing. `false` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// What a person takes the responsibility for, by the names that the refusals give: `leave-pin/COMPONENT`,
    /// `leave-object/KIND/NAME`, `keep-claim/NAME`, `restore-again/NAME/UID`. A name that fits nothing is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 317)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub accept: Vec<String>,
    /// Stop: before the first claim is deleted everything is undone, after it the rollback goes on to a consistent end. Can be
    /// set once and never taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,
}

impl RollbackRequestSpec {
    /// Whether to make the plan only.
    #[must_use]
    pub fn dry_run(&self) -> bool {
        self.dry_run.unwrap_or(false)
    }

    /// Whether a person wants it to stop.
    #[must_use]
    pub fn cancel(&self) -> bool {
        self.cancel.unwrap_or(false)
    }
}

/// Where to go back to: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollbackTo {
    /// The state before this UpgradeRequest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub upgrade_request: Option<String>,
    /// The state that this RestorePoint holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub restore_point: Option<String>,
}

/// What a rollback does with the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RollbackData {
    /// Put the data of the restore point back. What was written since is lost to the app, and kept aside for a while.
    Restore,
    /// Leave the data as it is, and take back the versions only.
    Keep,
}
