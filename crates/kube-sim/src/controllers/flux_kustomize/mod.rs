//! Stand-in for Flux's kustomize-controller: Kustomization.
//!
//! Follows kustomize-controller 1.9: the order of its steps, the conditions between them, and the traps. A suspended object
//! still acknowledges a request, and its generation counts as observed only when it was ready. A reconcile in flight is not
//! interrupted. Sources are read from a cache that may lag, so that a reconcile right after a resume can apply the old
//! artifact. What changes the result and is not understood is refused with `Ready=False`, reason `Unsupported`.

mod apply;
mod build;
mod fields;

use std::sync::Arc;
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::apply::{Applier, Change, owner_labels};
use self::build::{BuildError, Files};
use self::fields::{Entry, Inventory, KustomizationSpec, KustomizationStatus};
use super::artifact::{Artifact, ArtifactStore, sha256, unpack};
use super::conditions::{self, At};
use super::drive::{Cache, Next, Related, drive, flux, revision};
use super::flux_objects::{FINALIZER, read, requested_at, set_finalizer, spec, status, write_status};
use super::kstatus::{self, Wait};
use super::objects::{Cluster, Manifest, ObjectId};
use super::{Clock, Error};

/// Field manager of statuses and finalizers.
const STATUS_MANAGER: &str = "gotk-kustomize-controller";
/// Between two looks at the health of what was applied.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// What the kustomize stand-in needs.
#[derive(Clone)]
pub struct KustomizeContext {
    /// Client to the API server.
    pub client: Client,
    /// Where the artifacts of sources come from.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// The present time.
    pub clock: Clock,
    /// How often to look again at a dependency or an artifact that is not there; 30 seconds in Flux.
    pub dependency_interval: Duration,
    /// How much later than a watch reports it a change of a source is seen. Zero for a cache that is as fresh as it can be;
    /// more for one that makes a reconcile right after a resume apply the old artifact.
    pub source_lag: Duration,
}

struct Controller {
    context: KustomizeContext,
    cluster: Cluster,
    sources: Cache,
}

fn resource() -> ApiResource {
    flux("kustomize", "v1", "Kustomization")
}

/// Reconciles Kustomization objects until `stop` is cancelled; a reconcile in flight is then dropped as in a crash.
pub async fn run(context: KustomizeContext, stop: CancellationToken) {
    let client = context.client.clone();
    let sources = Cache::lagging(context.source_lag);
    let related = Related {
        resource: flux("source", "v1", "GitRepository"),
        concerns: is_source_of,
        matters: revision,
        cache: Some(sources.clone()),
    };
    let controller = Arc::new(Controller { cluster: Cluster::new(client.clone()), context, sources });
    drive(&client, resource(), vec![related], stop, move |object| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&object).await }
    })
    .await;
}

fn is_source_of(source: &DynamicObject, object: &DynamicObject) -> bool {
    let text = |field: &str| object.data.pointer(&format!("/spec/sourceRef/{field}")).and_then(Value::as_str);
    let own = object.namespace().unwrap_or_default();
    text("kind") == Some("GitRepository")
        && text("name") == Some(&source.name_any())
        && source.namespace().as_deref() == Some(text("namespace").unwrap_or(&own))
}

/// Why a reconcile did not succeed, and when it is tried again.
struct Failure {
    reason: &'static str,
    message: String,
    next: Next,
}

/// One reconcile of one object.
struct Run<'a> {
    controller: &'a Controller,
    object: &'a DynamicObject,
    spec: &'a KustomizationSpec,
}

impl Controller {
    async fn reconcile(&self, seen: &DynamicObject) -> Result<Next, Error> {
        let client = &self.context.client;
        let namespace = seen.namespace().unwrap_or_default();
        let Some(object) = read(client, &resource(), &namespace, &seen.name_any()).await? else {
            return Ok(Next::Wait);
        };
        let wanted: KustomizationSpec = spec(&object)?;
        let mut state: KustomizationStatus = status(&object)?;
        let run = Run { controller: self, object: &object, spec: &wanted };
        if object.metadata.deletion_timestamp.is_some() {
            return run.finalize(&state).await;
        }
        if !object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            set_finalizer(client, &resource(), &object, true).await?;
        }
        let mut next = Ok(Next::Wait);
        if !wanted.suspend {
            next = run.carry_out(&mut state).await;
        }
        run.finish(&mut state).await?;
        next
    }
}

impl Run<'_> {
    fn at(&self) -> At {
        let generation = self.object.metadata.generation.unwrap_or(0);
        At { now: (self.controller.context.clock)(), generation }
    }

    async fn write(&self, state: &KustomizationStatus) -> Result<(), Error> {
        write_status(&self.controller.context.client, &resource(), self.object, STATUS_MANAGER, state).await
    }

    /// The last write of every reconcile, also of a suspended object.
    async fn finish(&self, state: &mut KustomizationStatus) -> Result<(), Error> {
        state.last_handled_reconcile_at = requested_at(self.object).or(state.last_handled_reconcile_at.take());
        let at = self.at();
        if state.conditions.is_true("Ready") {
            state.conditions.remove("Reconciling");
            state.observed_generation = at.generation;
        } else if state.conditions.get("Ready").is_some_and(|ready| ready.status == "False")
            && let Some(going_on) = state.conditions.get("Reconciling").cloned()
        {
            state.conditions.set(&at, "Reconciling", "True", "ProgressingWithRetry", &going_on.message);
        }
        self.write(state).await
    }

    /// Everything between the look at `suspend` and the last write.
    async fn carry_out(&self, state: &mut KustomizationStatus) -> Result<Next, Error> {
        let raw = self.object.data.get("spec").cloned().unwrap_or_default();
        if let Some(what) = fields::unsupported(&raw) {
            return Ok(self.refuse(state, &what));
        }
        let artifact = match self.prerequisites().await {
            Ok(artifact) => artifact,
            Err(failure) => return Ok(self.fail(state, &failure)),
        };
        match self.apply(state, &artifact).await {
            Ok(()) => {
                let message = format!("Applied revision: {}", artifact.revision);
                state.last_applied_revision = Some(artifact.revision);
                state.conditions.set(&self.at(), "Ready", "True", "ReconciliationSucceeded", &message);
                Ok(Next::After(self.spec.interval()))
            }
            Err(Stop::Failed(failure)) => Ok(self.fail(state, &failure)),
            Err(Stop::Unsupported(what)) => Ok(self.refuse(state, &what)),
            Err(Stop::Error(error)) => Err(error),
        }
    }

    fn fail(&self, state: &mut KustomizationStatus, failure: &Failure) -> Next {
        tracing::debug!(object = %self.object.name_any(), reason = failure.reason, message = failure.message, "failed");
        state.conditions.set(&self.at(), "Ready", "False", failure.reason, &failure.message);
        failure.next
    }

    fn refuse(&self, state: &mut KustomizationStatus, what: &str) -> Next {
        let why = format!("the stand-in does not know {what}");
        state.conditions.set(&self.at(), "Ready", "False", "Unsupported", &why);
        state.conditions.stalled(&self.at(), "Unsupported", &why);
        state.observed_generation = self.at().generation;
        Next::Wait
    }

    fn retry(&self, reason: &'static str, message: impl Into<String>) -> Failure {
        Failure { reason, message: message.into(), next: Next::After(self.spec.retry_interval()) }
    }

    /// The artifact to apply, as the cache has it.
    async fn prerequisites(&self) -> Result<Artifact, Failure> {
        let context = &self.controller.context;
        let own = self.object.namespace().unwrap_or_default();
        let (name, namespace) = (&self.spec.source_ref.name, self.spec.source_ref.namespace.as_ref().unwrap_or(&own));
        let soon = Next::After(context.dependency_interval);
        let Some(source) = self.controller.sources.get(namespace, name) else {
            let message = format!("gitrepositories.source.toolkit.fluxcd.io \"{name}\" not found");
            return Err(self.retry("ArtifactFailed", message));
        };
        let artifact = source.data.pointer("/status/artifact").cloned();
        let artifact = artifact.and_then(|artifact| serde_json::from_value::<Artifact>(artifact).ok());
        let Some(artifact) = artifact else {
            let message = format!("Source artifact not found, retrying in {:?}", context.dependency_interval);
            return Err(Failure { reason: "ArtifactFailed", message, next: soon });
        };
        match self.check_dependencies(&artifact).await {
            Ok(()) => Ok(artifact),
            Err(message) => Err(Failure { reason: "DependencyNotReady", message, next: soon }),
        }
    }

    async fn check_dependencies(&self, artifact: &Artifact) -> Result<(), String> {
        let own = self.object.namespace().unwrap_or_default();
        for dependency in &self.spec.depends_on {
            let namespace = dependency.namespace.as_ref().unwrap_or(&own);
            let name = format!("'{namespace}/{}'", dependency.name);
            let found = read(&self.controller.context.client, &resource(), namespace, &dependency.name).await;
            let found = found.map_err(|error| format!("dependency {name} not found: {error}"))?;
            let found = found.ok_or_else(|| format!("dependency {name} not found"))?;
            let state = found.data.get("status");
            let text = |field: &str| state.and_then(|state| state.get(field)).and_then(Value::as_str);
            let observed = state.and_then(|state| state.get("observedGeneration")).and_then(Value::as_i64);
            if observed != found.metadata.generation || !conditions::is_true(state, "Ready") {
                return Err(format!("dependency {name} is not ready"));
            }
            let theirs: KustomizationSpec = spec(&found).map_err(|error| error.to_string())?;
            let source = |spec: &KustomizationSpec, own: &str| {
                (
                    spec.source_ref.kind.clone(),
                    spec.source_ref.name.clone(),
                    spec.source_ref.namespace.clone().unwrap_or_else(|| own.to_owned()),
                )
            };
            let is_same_source = source(&theirs, namespace) == source(self.spec, &own);
            if is_same_source && text("lastAppliedRevision") != Some(&artifact.revision) {
                return Err(format!("dependency {name} revision is not up to date"));
            }
        }
        Ok(())
    }

    /// Fetches, builds, applies, prunes and checks one artifact.
    async fn apply(&self, state: &mut KustomizationStatus, artifact: &Artifact) -> Result<(), Stop> {
        let (revision, timeout) = (&artifact.revision, self.spec.timeout());
        let progress = |doing: &str| format!("{doing} for revision {revision} with a timeout of {timeout:?}");
        state.conditions.set(&self.at(), "Ready", "Unknown", "Progressing", "Reconciliation in progress");
        state.conditions.reconciling(&self.at(), "Progressing", &progress("Fetching manifests"));
        self.write(state).await?;
        let files = self.fetch(artifact).await?;
        let folder = build::folder(&files, &self.spec.path).ok_or_else(|| {
            self.retry("ArtifactFailed", format!("kustomization path not found: no folder {}", self.spec.path))
        })?;
        state.last_attempted_revision = Some(revision.clone());
        state.conditions.reconciling(&self.at(), "Progressing", &progress("Building manifests"));
        self.write(state).await?;
        let objects = build::build(&files, &folder, self.spec).map_err(|error| match error {
            BuildError::Unsupported(what) => Stop::Unsupported(what),
            BuildError::Failed(why) => Stop::Failed(self.retry("BuildFailed", why)),
        })?;
        state.conditions.reconciling(&self.at(), "Progressing", &progress("Detecting drift"));
        self.write(state).await?;
        let changes = self.apply_and_prune(state, objects).await?;
        self.check_health(state, &changes, &progress("Running health checks")).await
    }

    async fn fetch(&self, artifact: &Artifact) -> Result<Files, Stop> {
        let context = &self.controller.context;
        let archive = context.artifacts.get(&artifact.url).await.map_err(|_| Failure {
            reason: "ArtifactFailed",
            message: format!("Source is not ready, artifact not found, retrying in {:?}", context.dependency_interval),
            next: Next::After(context.dependency_interval),
        })?;
        if sha256(&archive) != artifact.digest {
            let message = format!("failed to verify archive: computed digest doesn't match '{}'", artifact.digest);
            return Err(self.retry("ArtifactFailed", message).into());
        }
        unpack(&archive).map_err(|error| self.retry("ArtifactFailed", format!("failed to untar: {error}")).into())
    }

    fn applier(&self) -> Applier<'_> {
        Applier {
            cluster: &self.controller.cluster,
            clock: &self.controller.context.clock,
            owner: owner_labels(&self.object.namespace().unwrap_or_default(), &self.object.name_any()),
            force: self.spec.force,
        }
    }

    async fn apply_and_prune(
        &self,
        state: &mut KustomizationStatus,
        objects: Vec<Manifest>,
    ) -> Result<Vec<Change>, Stop> {
        let applier = self.applier();
        let changes = applier.apply_all(objects).await.map_err(|why| self.retry("ReconciliationFailed", why))?;
        let entries: Vec<Entry> = changes.iter().map(|change| Entry::new(&change.id, &change.version)).collect();
        let before = state.inventory.replace(Inventory { entries }).unwrap_or_default();
        let now = state.inventory.get_or_insert_default();
        let is_stale = |entry: &&Entry| !now.entries.iter().any(|present| present.is_same_object(entry));
        let stale = before.entries.iter().filter(is_stale).filter_map(Entry::target).collect();
        if self.spec.prune
            && let Err((why, left)) = applier.prune(stale).await
        {
            // Else they would be forgotten.
            now.entries.extend(left.iter().map(|(id, version)| Entry::new(id, version)));
            return Err(self.retry("PruneFailed", why).into());
        }
        Ok(changes)
    }

    async fn check_health(
        &self,
        state: &mut KustomizationStatus,
        changes: &[Change],
        message: &str,
    ) -> Result<(), Stop> {
        let mut targets: Vec<(ObjectId, String)> = if self.spec.wait {
            let applied = changes.iter().filter(|change| !change.skipped);
            applied.map(|change| (change.id.clone(), change.version.clone())).collect()
        } else {
            self.spec.health_checks.iter().map(fields::HealthCheck::target).collect()
        };
        if targets.is_empty() {
            state.conditions.remove("Healthy");
            return Ok(());
        }
        // Waiting for itself would never end.
        let (own, name) = (self.object.namespace().unwrap_or_default(), self.object.name_any());
        targets.retain(|(id, _)| !(id.kind == "Kustomization" && id.namespace == own && id.name == name));
        state.conditions.reconciling(&self.at(), "Progressing", message);
        state.conditions.set(&self.at(), "Healthy", "Unknown", "Progressing", message);
        self.write(state).await?;
        let start = Instant::now();
        let how = Wait { interval: HEALTH_INTERVAL, timeout: self.spec.timeout(), zero_is_done: false };
        let cluster = &self.controller.cluster;
        match kstatus::wait(cluster, &self.controller.context.clock, &targets, how).await {
            Ok(()) => {
                let message = format!("Health check passed in {:?}", start.elapsed());
                state.conditions.set(&self.at(), "Healthy", "True", "Succeeded", &message);
                self.write(state).await?;
                Ok(())
            }
            Err(why) => {
                state.conditions.set(&self.at(), "Healthy", "False", "HealthCheckFailed", &why);
                let message = format!("health check failed after {:?}: {why}", start.elapsed());
                Err(self.retry("HealthCheckFailed", message).into())
            }
        }
    }

    /// Deletes what was applied, unless the object is suspended or says otherwise, and lets the object go.
    async fn finalize(&self, state: &KustomizationStatus) -> Result<Next, Error> {
        let deletes = match self.spec.deletion_policy.as_deref() {
            None | Some("MirrorPrune") => self.spec.prune,
            Some("Delete" | "WaitForTermination") => true,
            Some(_) => false,
        };
        let entries = state.inventory.as_ref().map_or(&[][..], |inventory| &inventory.entries);
        let targets: Vec<(ObjectId, String)> = entries.iter().filter_map(Entry::target).collect();
        if deletes && !self.spec.suspend {
            self.applier().prune(targets.clone()).await.map_err(|(why, _)| Error::Source(why))?;
            if self.spec.deletion_policy.as_deref() == Some("WaitForTermination") {
                self.wait_until_gone(&targets).await?;
            }
        }
        set_finalizer(&self.controller.context.client, &resource(), self.object, false).await?;
        Ok(Next::Wait)
    }

    /// Waits until the deleted objects are gone or the time is over; then they are left to themselves.
    async fn wait_until_gone(&self, targets: &[(ObjectId, String)]) -> Result<(), Error> {
        let deadline = Instant::now() + self.spec.timeout();
        for (id, version) in targets {
            loop {
                let live = self.controller.cluster.get(id, version).await?;
                if live.is_none_or(|live| live.metadata.deletion_timestamp.is_none()) || Instant::now() >= deadline {
                    break;
                }
                tokio::time::sleep(HEALTH_INTERVAL).await;
            }
        }
        Ok(())
    }
}

/// What ends an apply early.
enum Stop {
    Failed(Failure),
    Unsupported(String),
    /// The status could not be written.
    Error(Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}
