//! Brings a release to its desired state, action by action, as helm-controller's atomic release does.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kube::api::DynamicObject;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::Error;
use super::conditions::At;
use super::flux_helm::HelmContext;
use super::flux_objects::{ActionSpec, FORCE_AT, HelmReleaseSpec, duration, requested_at};
use super::helm_backend::ReleaseRequest;
use super::helm_state::{Active, Decision, Desired, Step, StepKind};
use super::helm_state::{decide, determine, record, summarize, takes_request};
use super::helm_status::HelmReleaseStatus;
use super::helm_storage::{self, StoredRelease};
use super::objects::{CLUSTER_SCOPED, manifests};

/// One reconcile of one release.
pub(super) struct AtomicRelease<'a> {
    pub(super) context: &'a HelmContext,
    pub(super) object: &'a DynamicObject,
    pub(super) spec: &'a HelmReleaseSpec,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) chart: Bytes,
    pub(super) values: Value,
    pub(super) desired: Desired,
    /// The reconcile request handled before this one.
    pub(super) last_reconcile: Option<String>,
}

/// How a reconcile ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// Retries are exhausted or nothing can be done: until the spec changes.
    Stalled,
    /// Once more, soon.
    Again,
    /// Once more, after the interval of the retry strategy.
    RetryAfter(Duration),
}

/// Flux's default timeout of an action.
const TIMEOUT: Duration = Duration::from_secs(300);

impl AtomicRelease<'_> {
    fn at(&self) -> At {
        At { now: (self.context.clock)(), generation: self.object.metadata.generation.unwrap_or(0) }
    }

    fn client(&self) -> &Client {
        &self.context.client
    }

    fn timeout(&self, action: &ActionSpec) -> Duration {
        duration(action.timeout.as_deref().or(self.spec.timeout.as_deref()), TIMEOUT)
    }

    async fn stored(&self) -> Result<Vec<StoredRelease>, Error> {
        helm_storage::list(self.client(), &self.namespace, &self.name).await
    }

    /// Runs actions until the release is as desired or nothing more may be tried now. `status` is written before each.
    pub(super) async fn reconcile(&self, status: &mut HelmReleaseStatus) -> Result<Outcome, Error> {
        let mut ran: Vec<StepKind> = Vec::new();
        loop {
            let stored = self.stored().await?;
            let state = match determine(stored.last(), &status.history, &self.desired) {
                Ok(state) => state,
                Err(why) => {
                    let why = format!("Could not determine release state: {why}");
                    status.conditions.set(&self.at(), "Ready", "False", "StateError", &why);
                    return Err(Error::Helm(why));
                }
            };
            let requested = requested_at(self.object);
            let forced = takes_request(
                self.object.annotations().get(FORCE_AT),
                requested.as_ref(),
                self.last_reconcile.as_ref(),
                &mut status.last_handled_force_at,
            );
            let step = match decide(&state, self.spec, status, &stored, forced) {
                Decision::Run(step) => step,
                Decision::Done => {
                    self.in_sync(status);
                    return Ok(Outcome::Done);
                }
                Decision::RetriesExceeded => {
                    self.stall(status);
                    return Ok(Outcome::Stalled);
                }
                Decision::MissingRollbackTarget => {
                    let why = "Failed to perform remediation: missing target release for rollback";
                    status.conditions.stalled(&self.at(), "MissingRollbackTarget", why);
                    return Ok(Outcome::Stalled);
                }
            };
            if ran.contains(&step.kind()) {
                return Ok(self.after_failure(status));
            }
            self.announce(status, step).await?;
            self.run(status, step, &stored).await?;
            if step.kind() == StepKind::Remediate {
                return Ok(self.after_remediation(status));
            }
            ran.push(step.kind());
            self.context.write(self.object, status).await?;
        }
    }

    fn in_sync(&self, status: &mut HelmReleaseStatus) {
        let at = self.at();
        let failed = status.conditions.reason("Released").strip_suffix("Failed").map(str::to_owned);
        let remediated = status.conditions.is_true("Remediated");
        if let Some(current) = status.history.first()
            && (remediated || failed.is_some())
        {
            let action = failed.filter(|_| !remediated).unwrap_or_else(|| "Upgrade".to_owned());
            let message = succeeded(&action.to_lowercase(), &current.full_name(), &current.chart());
            status.conditions.remove("Remediated");
            status.conditions.set(&at, "Released", "True", &format!("{action}Succeeded"), &message);
        }
        status.conditions.remove("Reconciling");
        summarize(&mut status.conditions, &at);
    }

    fn stall(&self, status: &mut HelmReleaseStatus) {
        let action = status.last_attempted_release_action.clone().unwrap_or_default();
        let failures = Active::of(self.spec, status).map_or(0, |active| active.failures());
        let why = format!("Failed to {action} after {failures} attempt(s)");
        status.conditions.stalled(&self.at(), "RetriesExceeded", &why);
    }

    /// A second action of a kind is due: not in this reconcile.
    fn after_failure(&self, status: &mut HelmReleaseStatus) -> Outcome {
        let active = Active::of(self.spec, status);
        if let Some(interval) = active.as_ref().and_then(Active::retry_interval) {
            return self.retry_after(status, interval);
        }
        if active.is_none_or(|active| !active.retries_exhausted()) {
            return self.again(status);
        }
        status.conditions.remove("Reconciling");
        Outcome::Done
    }

    fn after_remediation(&self, status: &mut HelmReleaseStatus) -> Outcome {
        let active = Active::of(self.spec, status);
        if let Some(interval) = active.as_ref().and_then(Active::retry_interval) {
            return self.retry_after(status, interval);
        }
        if active.is_none_or(|active| !active.retries_exhausted() || active.uninstalls_after_upgrade()) {
            return self.again(status);
        }
        self.stall(status);
        Outcome::Stalled
    }

    fn retry_after(&self, status: &mut HelmReleaseStatus, interval: Duration) -> Outcome {
        let message = format!("retrying after {interval:?}");
        status.conditions.reconciling(&self.at(), "ProgressingWithRetry", &message);
        Outcome::RetryAfter(interval)
    }

    fn again(&self, status: &mut HelmReleaseStatus) -> Outcome {
        let message = status.conditions.get("Ready").map(|ready| ready.message.clone()).unwrap_or_default();
        status.conditions.reconciling(&self.at(), "ProgressingWithRetry", &message);
        Outcome::Again
    }

    async fn announce(&self, status: &mut HelmReleaseStatus, step: Step) -> Result<(), Error> {
        let action = match step {
            Step::Install => &self.spec.install,
            Step::Rollback(_) => &self.spec.rollback,
            Step::UninstallRemediation => &self.spec.uninstall,
            Step::Upgrade | Step::Unlock => &self.spec.upgrade,
        };
        let message = format!("Running '{}' action with timeout of {:?}", step.name(), self.timeout(action));
        let at = self.at();
        status.conditions.reconciling(&at, "Progressing", &message);
        if step.kind() == StepKind::Release {
            status.conditions.set(&at, "Ready", "Unknown", "Progressing", &message);
        }
        tracing::info!(release = self.name, namespace = self.namespace, message, "helm");
        self.context.write(self.object, status).await
    }

    async fn run(&self, status: &mut HelmReleaseStatus, step: Step, stored: &[StoredRelease]) -> Result<(), Error> {
        match step {
            Step::Unlock => {
                if let Some(pending) = stored.last() {
                    helm_storage::unlock(self.client(), &self.namespace, pending).await?;
                }
                Ok(())
            }
            Step::Install => {
                status.history.clear();
                self.release(status, &self.spec.install, "install", stored).await
            }
            Step::Upgrade => self.release(status, &self.spec.upgrade, "upgrade", stored).await,
            Step::Rollback(target) => self.roll_back(status, target, stored).await,
            Step::UninstallRemediation => self.remove(status, stored).await,
        }
    }

    async fn release(
        &self,
        status: &mut HelmReleaseStatus,
        action: &ActionSpec,
        name: &str,
        stored: &[StoredRelease],
    ) -> Result<(), Error> {
        status.last_attempted_release_action = Some(name.to_owned());
        status.conditions.remove("Remediated");
        let group = "helm.toolkit.fluxcd.io";
        let request = ReleaseRequest {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            chart: self.chart.clone(),
            values: self.values.clone(),
            timeout: self.timeout(action),
            wait: !action.disable_wait,
            hooks: !action.disable_hooks,
            create_namespace: action.create_namespace,
            max_history: self.spec.max_history.unwrap_or(5),
            labels: BTreeMap::from([
                (format!("{group}/name"), self.object.name_any()),
                (format!("{group}/namespace"), self.object.namespace().unwrap_or_default()),
            ]),
        };
        let result = self.context.helm.release(&request).await;
        let after = self.stored().await?;
        let new = record(status, &after, last_version(stored), name);
        if let Some(newest) = after.last() {
            status.inventory = Some(inventory(newest));
        }
        let (at, title) = (self.at(), capitalised(name));
        match (result, status.history.first()) {
            (Ok(()), Some(current)) => {
                let message = succeeded(name, &current.full_name(), &current.chart());
                status.conditions.set(&at, "Released", "True", &format!("{title}Succeeded"), &message);
                if Active::of(self.spec, status).is_some_and(|active| active.retry_interval().is_some()) {
                    (status.failures, status.install_failures, status.upgrade_failures) = (0, 0, 0);
                }
            }
            (result, _) => {
                let why = result.err().unwrap_or_else(|| "helm left no record".to_owned());
                let chart = format!("{}@{}", self.desired.chart.name, self.desired.chart.version);
                let message = format!(
                    "Helm {name} failed for release {}/{} with chart {chart}: {why}",
                    self.namespace, self.name
                );
                status.failures += 1;
                status.conditions.set(&at, "Released", "False", &format!("{title}Failed"), &message);
                summarize(&mut status.conditions, &at);
                if !new {
                    return Err(Error::Helm(message));
                }
                let counter =
                    if name == "install" { &mut status.install_failures } else { &mut status.upgrade_failures };
                *counter += 1;
            }
        }
        summarize(&mut status.conditions, &at);
        Ok(())
    }

    async fn roll_back(
        &self,
        status: &mut HelmReleaseStatus,
        target: i64,
        stored: &[StoredRelease],
    ) -> Result<(), Error> {
        let timeout = self.timeout(&self.spec.rollback);
        let result = self.context.helm.rollback(&self.name, &self.namespace, target, timeout).await;
        let previous = status.history.iter().find(|entry| entry.version == target).cloned().unwrap_or_default();
        let after = self.stored().await?;
        let new = record(status, &after, last_version(stored), "rollback");
        let what =
            format!("Helm rollback to previous release {} with chart {}", previous.full_name(), previous.chart());
        self.remediated(status, result.map(|()| format!("{what} succeeded")), "Rollback", &what, new)
    }

    async fn remove(&self, status: &mut HelmReleaseStatus, stored: &[StoredRelease]) -> Result<(), Error> {
        let timeout = self.timeout(&self.spec.uninstall);
        let result = self.context.helm.uninstall(&self.name, &self.namespace, true, timeout).await;
        let after = self.stored().await?;
        record(status, &after, last_version(stored), "uninstall-remediation");
        let what = format!("Helm uninstall remediation for release {}/{}", self.namespace, self.name);
        let gone = after.last().is_none_or(|last| last.status() == "uninstalled");
        self.remediated(status, result.map(|()| format!("{what} succeeded")), "Uninstall", &what, gone)
    }

    fn remediated(
        &self,
        status: &mut HelmReleaseStatus,
        result: Result<String, String>,
        action: &str,
        what: &str,
        changed: bool,
    ) -> Result<(), Error> {
        let at = self.at();
        match result {
            Ok(message) => {
                status.conditions.set(&at, "Remediated", "True", &format!("{action}Succeeded"), &message);
                summarize(&mut status.conditions, &at);
                Ok(())
            }
            Err(why) => {
                let message = format!("{what} failed: {why}");
                status.failures += 1;
                status.conditions.set(&at, "Remediated", "False", &format!("{action}Failed"), &message);
                summarize(&mut status.conditions, &at);
                if changed { Ok(()) } else { Err(Error::Helm(message)) }
            }
        }
    }
}

fn last_version(stored: &[StoredRelease]) -> i64 {
    stored.last().map_or(0, StoredRelease::version)
}

fn succeeded(action: &str, release: &str, chart: &str) -> String {
    format!("Helm {action} succeeded for release {release} with chart {chart}")
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// `status.inventory`: what the release rendered.
fn inventory(release: &StoredRelease) -> Value {
    let rendered = manifests(&release.manifest()).unwrap_or_default().into_iter();
    let entries = rendered.map(|mut object| {
        if CLUSTER_SCOPED.contains(&object.id.kind.as_str()) {
            object.set_namespace(None);
        } else if object.id.namespace.is_empty() {
            object.set_namespace(Some(&release.namespace()));
        }
        json!({ "id": object.id.entry(), "v": object.version })
    });
    json!({ "entries": entries.collect::<Vec<_>>() })
}
