//! The tool that carries Git's content into the cluster (Flux; later Argo CD), in words that fit any of them.
//!
//! Two roles are enough: a *manifests* object applies files from a source as they are (a Flux Kustomization), a *release*
//! object installs a chart (a Flux HelmRelease). Each may itself be applied by a manifests object: its parent.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{AppRef, ObjectRef, PinValue};
use crate::Failure;

/// What a delivery object does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryRole {
    /// Applies plain manifests from a source.
    Manifests,
    /// Installs a chart.
    Release,
}

/// Whether an object says of itself that it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Readiness {
    /// Ready is True.
    Ready,
    /// Ready is False, with its reason and message.
    NotReady(String),
    /// There is no condition, or it is Unknown: never to be read as ready.
    Unknown,
}

/// One object of the chain that delivers the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryObject {
    /// The object.
    pub object: ObjectRef,
    /// Its UID.
    pub uid: String,
    /// What it does.
    pub role: DeliveryRole,
    /// Whether the app names it, as opposed to it being found above the app.
    pub own: bool,
    /// The manifests object that applies it; `None` for a root.
    pub parent: Option<ObjectRef>,
    /// The source it takes content from.
    pub source: Option<ObjectRef>,
    /// `spec.suspend` exactly as found: absent is not `false`.
    pub suspend: Option<bool>,
    /// Whether Git declares `spec.suspend` for it (its applier owns the field): then a suspension of ours lasts only as long as
    /// its parent is suspended too.
    pub suspend_declared: bool,
    /// The operation that suspended it, by our annotation.
    pub held_by: Option<String>,
    /// `spec.suspend` before that operation, by our annotation; `None` when nobody holds it.
    pub held_as_found: Option<Option<bool>>,
    /// Its own readiness.
    pub readiness: Readiness,
    /// Versions its live spec names, by component, where it names any (a release's chart version, pinned values).
    pub live: Vec<(String, String)>,
    /// What makes an upgrade through it unsafe, by refusal code with an explanation (`force`, `remediation-rollback`,
    /// `chart-ref`, `values-from`, `version-range`, `oci-source`, `dependents-reinstall`, ...).
    pub refusals: Vec<(String, String)>,
    /// Worth telling, not worth refusing (for example pre-upgrade hooks).
    pub warnings: Vec<String>,
}

/// A Git source of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceFacts {
    /// The object.
    pub object: ObjectRef,
    /// Its UID.
    pub uid: String,
    /// Repository address.
    pub url: String,
    /// The branch it follows; `None` when it follows a tag, a range or a commit, which cannot be gated.
    pub branch: Option<String>,
    /// Whether it only accepts signed commits.
    pub verifies: bool,
    /// `spec.suspend` as found.
    pub suspend: Option<bool>,
    /// The commit of its artifact; `None` when it has none.
    pub commit: Option<String>,
    /// Its readiness.
    pub readiness: Readiness,
}

/// Everything above and including the app's own delivery objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryFacts {
    /// The chain, roots first, each once.
    pub objects: Vec<DeliveryObject>,
    /// The sources of the chain.
    pub sources: Vec<SourceFacts>,
}

/// What is written on an object that we suspend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// UID of the request: the lock of this object.
    pub operation: String,
    /// Where the operation stands, for the sweep of a leader that finds no request: one of [`stage`](crate::app::stage).
    pub stage: String,
    /// `spec.suspend` as found, to be put back exactly.
    pub as_found: Option<bool>,
    /// A fresh token: the barrier is its appearance in the object's status.
    pub token: String,
    /// Earlier operations of the same app whose hold may be taken over.
    pub take_over: Vec<String>,
}

/// What is known about the suspension of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Suspension {
    /// Its UID now.
    pub uid: String,
    /// `spec.suspend` now.
    pub suspend: Option<bool>,
    /// The operation whose hold is written on it.
    pub held_by: Option<String>,
    /// The stage written on it.
    pub stage: Option<String>,
    /// `spec.suspend` as recorded by the hold.
    pub as_found: Option<Option<bool>>,
    /// The newest token written on it, by us or by a person.
    pub requested: Option<String>,
    /// The last token its controller says it has handled.
    pub handled: Option<String>,
}

/// Where a pin's value shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CarrierKind {
    /// What the source has fetched.
    Artifact,
    /// The live object that the pin ends up in.
    LiveSpec,
}

/// One place that shows a version, other than the branch head itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Carrier {
    /// Which kind of place.
    pub kind: CarrierKind,
    /// The object.
    pub object: ObjectRef,
    /// The component; empty for an artifact.
    pub component: String,
    /// What it shows: the commit of an artifact, the version in a live spec; `None` when it cannot be told.
    pub shows: Option<String>,
}

/// How far a release or an application of manifests has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// All of the predicate holds, on the app's own objects.
    Done {
        /// What proves it, for the journal.
        evidence: String,
        /// Trouble of neighbours under a shared parent: reported, never a reason to restore this app.
        neighbours: Vec<String>,
    },
    /// Not yet, with what is missing.
    Pending(String),
    /// The tool has given up.
    Failed(String),
}

/// Whether a live workload's pod template is the newest target release's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TemplateMatch {
    /// It is, as read at this resource version of the workload.
    Target {
        /// For the write that puts the replicas back.
        resource_version: String,
        /// Replicas in that same object.
        replicas: i32,
        /// Whether somebody else than us says that a CronJob's `spec.suspend` is true: its manifest, or who owns the field.
        keeps_suspended: bool,
    },
    /// It is not yet, and what it shows.
    Not(String),
}

/// The delivery tool.
///
/// - **Flow**: `inspect`; `suspend` until `suspension` shows the token; after the commit `poke` and `carriers` until the
///   content has arrived; `resume`; `applied`.
/// - **Guarantees**: `suspend` sets the field, the hold and the token in one write that fails if the object is held by an
///   operation not named in `take_over`, or was suspended by anybody else; the token in the status proves that nothing begun
///   before the suspension is still running. `resume` puts `spec.suspend` back as found and removes the hold in one write,
///   and refuses when the hold is not this operation's.
/// - **Assumptions**: the tool's controllers run; when they do not, the barrier never passes and the step's deadline ends it.
/// - **Cancellation**: any call may be dropped and repeated; each write is a no-op when its result is already there.
/// - **Errors**: `suspended-by-others`, `held-by-other-operation`, `hold-lost`, `frozen`, `object-gone`, `object-replaced`,
///   `object-terminating`, `delivery-cycle`, `delivery-unsupported`, `workload-not-delivered`, `api-unreadable` and `helm-*` (permanent);
///   `changed-meanwhile` and `api-*` (retryable).
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Delivery: Send + Sync {
    /// The chain above `own` and everything preflight wants to know about it. Read-only.
    async fn inspect(&self, app: &AppRef, own: &[ObjectRef]) -> Result<DeliveryFacts, Failure>;
    /// Suspends `object` (if it still has `uid`) and writes the hold and the token on it.
    async fn suspend(&self, object: &ObjectRef, uid: &str, hold: &Hold) -> Result<(), Failure>;
    /// Changes the stage of a hold of ours.
    async fn set_stage(&self, object: &ObjectRef, uid: &str, operation: &str, stage: &str) -> Result<(), Failure>;
    /// What is known about the suspension of `object`; `None` when the object is gone.
    async fn suspension(&self, object: &ObjectRef) -> Result<Option<Suspension>, Failure>;
    /// Ends our suspension: `spec.suspend` as found, hold removed, and the token set so that the tool acts at once.
    async fn resume(
        &self,
        object: &ObjectRef,
        uid: &str,
        operation: &str,
        as_found: Option<bool>,
        token: &str,
    ) -> Result<(), Failure>;
    /// Asks the tool to look at `object` (a source or a delivery object) now. A token of the same family (all before its last slash)
    /// that is not answered yet stands: what is asked all the time is never seen to have answered.
    async fn poke(&self, object: &ObjectRef, token: &str) -> Result<(), Failure>;
    /// Where the pinned versions show at this moment. Pins are mapped to live objects as `inspect` found them.
    async fn carriers(
        &self,
        app: &AppRef,
        own: &[ObjectRef],
        sources: &[ObjectRef],
        pins: &[PinValue],
    ) -> Result<Vec<Carrier>, Failure>;
    /// The commit `object` (a manifests object) last tried to apply, if any.
    async fn attempted(&self, object: &ObjectRef) -> Result<Option<String>, Failure>;
    /// Keeps the tool from applying one live object, or lets it again. Only the mark is written, and only a mark of ours is taken
    /// away. Errors: `frozen` when somebody else keeps it from being applied.
    async fn freeze(&self, workload: &ObjectRef, uid: &str, frozen: bool) -> Result<(), Failure>;
    /// Whether a mark of ours keeps the tool from applying this live object.
    async fn is_frozen(&self, workload: &ObjectRef) -> Result<bool, Failure>;
    /// Whether the live pod template of `workload` is the one that `to` asks for. A pin that changed from `from` and shows in it
    /// proves that; where none does, an answer to a token that begins with `asked` has to: such tokens were given to `poke` only
    /// since nothing of ours keeps the tool from applying the workload.
    async fn template(
        &self,
        own: &[ObjectRef],
        workload: &ObjectRef,
        from: &[PinValue],
        to: &[PinValue],
        asked: &str,
    ) -> Result<TemplateMatch, Failure>;
    /// Whether everything from the sources down to the app's own objects carries out `pins`, and says so itself.
    /// `contains` are the commits that are ours or contain it (decided by ancestry); an artifact or an applied revision of any
    /// other commit is not enough. A status counts only when it has handled the newest token written on its object.
    async fn applied(
        &self,
        app: &AppRef,
        own: &[ObjectRef],
        pins: &[PinValue],
        contains: &[String],
    ) -> Result<Applied, Failure>;
}
