//! Requests as a person makes and watches them.

use std::time::Duration;

use anyhow::{Context, bail};
use kube::Api;
use kube::api::PostParams;
use windlass_api::{
    OperationStatus, Outcome, RollbackData, RollbackRequest, RollbackRequestSpec, RollbackTo, Subject, UpgradeRequest,
    UpgradeRequestSpec, UpgradeTarget,
};

use crate::world::World;

/// How long a request may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) fn upgrade_spec(app: &str, targets: &[(&str, &str)]) -> UpgradeRequestSpec {
    UpgradeRequestSpec {
        subject: Subject::managed_app(app),
        target: UpgradeTarget {
            components: targets.iter().map(|(component, version)| ((*component).into(), (*version).into())).collect(),
        },
        reason: Some("a journey".into()),
        requested_by: None,
        dry_run: None,
        auto_rollback: None,
        accept: Vec::new(),
        cancel: None,
    }
}

pub(crate) fn rollback_spec(app: &str, to: RollbackTo, data: RollbackData) -> RollbackRequestSpec {
    RollbackRequestSpec {
        subject: Subject::managed_app(app),
        to,
        data,
        acknowledge_loss_since: None,
        reason: Some("a person wants it back".into()),
        requested_by: None,
        dry_run: None,
        accept: Vec::new(),
        cancel: None,
    }
}

impl World {
    pub(crate) fn upgrades(&self, namespace: &str) -> Api<UpgradeRequest> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) fn rollbacks(&self, namespace: &str) -> Api<RollbackRequest> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) async fn ask_upgrade(
        &self,
        namespace: &str,
        name: &str,
        spec: UpgradeRequestSpec,
    ) -> anyhow::Result<UpgradeRequest> {
        Ok(self.upgrades(namespace).create(&PostParams::default(), &UpgradeRequest::new(name, spec)).await?)
    }

    pub(crate) async fn ask_rollback(
        &self,
        namespace: &str,
        name: &str,
        spec: RollbackRequestSpec,
    ) -> anyhow::Result<RollbackRequest> {
        Ok(self.rollbacks(namespace).create(&PostParams::default(), &RollbackRequest::new(name, spec)).await?)
    }

    /// Waits for the end of an upgrade.
    pub(crate) async fn upgrade_ended(&self, namespace: &str, name: &str) -> anyhow::Result<OperationStatus> {
        let api = self.upgrades(namespace);
        self.ended(name, || async { Ok(api.get(name).await?.status) }).await
    }

    /// The rollback that was made for an upgrade or has taken it over; empty when there is none.
    pub(crate) async fn rollback_of(&self, namespace: &str, upgrade: &str) -> anyhow::Result<String> {
        let found = self.upgrades(namespace).get(upgrade).await?;
        Ok(found.status.and_then(|status| status.rollback).unwrap_or_default())
    }

    /// Waits for the end of the rollback that has taken an upgrade over.
    pub(crate) async fn rolled_back(&self, namespace: &str, upgrade: &str) -> anyhow::Result<OperationStatus> {
        let rollback = self.rollback_of(namespace, upgrade).await?;
        self.rollback_ended(namespace, &rollback).await
    }

    /// Waits for the end of a rollback, also for one that is still to be made.
    pub(crate) async fn rollback_ended(&self, namespace: &str, name: &str) -> anyhow::Result<OperationStatus> {
        let api = self.rollbacks(namespace);
        self.ended(name, || async { Ok(api.get_opt(name).await?.and_then(|found| found.status)) }).await
    }

    async fn ended<F, Fut>(&self, name: &str, read: F) -> anyhow::Result<OperationStatus>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = anyhow::Result<Option<OperationStatus>>>,
    {
        let began = tokio::time::Instant::now();
        let mut last = OperationStatus::default();
        while began.elapsed() < PATIENCE {
            last = read().await?.unwrap_or_default();
            if last.outcome.is_some() {
                return Ok(last);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("request {name} has not ended: {:?} {:?}", last.phase, last.message)
    }

    /// Waits until the journal of an upgrade shows that a step was begun.
    pub(crate) async fn step_begun(&self, namespace: &str, name: &str, step: &str) -> anyhow::Result<()> {
        let api = self.upgrades(namespace);
        self.begun(name, step, || async { Ok(api.get(name).await?.status) }).await
    }

    /// The same for a rollback.
    pub(crate) async fn rollback_step_begun(&self, namespace: &str, name: &str, step: &str) -> anyhow::Result<()> {
        let api = self.rollbacks(namespace);
        self.begun(name, step, || async { Ok(api.get_opt(name).await?.and_then(|found| found.status)) }).await
    }

    async fn begun<F, Fut>(&self, name: &str, step: &str, read: F) -> anyhow::Result<()>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = anyhow::Result<Option<OperationStatus>>>,
    {
        let began = tokio::time::Instant::now();
        loop {
            let status = read().await?.unwrap_or_default();
            if entry(&status, step).is_ok() {
                return Ok(());
            }
            let (outcome, message) = (status.outcome, status.message);
            anyhow::ensure!(outcome.is_none(), "{name} ended before step {step}: {outcome:?} {message:?}");
            anyhow::ensure!(began.elapsed() < PATIENCE, "{name} has not come to step {step}: {message:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// How it ended, or an error that says how it did instead.
pub(crate) fn expect(status: &OperationStatus, outcome: Outcome) -> anyhow::Result<()> {
    if status.outcome != Some(outcome) {
        bail!(
            "it ended {:?} instead of {outcome:?}: {}",
            status.outcome,
            status.message.as_deref().unwrap_or("no message")
        );
    }
    Ok(())
}

/// The journal entry whose step id starts with `step`.
pub(crate) fn entry(status: &OperationStatus, step: &str) -> anyhow::Result<serde_json::Value> {
    let journal = status.journal.as_ref().context("no journal")?;
    let entries = journal["entries"].as_array().context("no entries")?;
    let found = entries.iter().find(|entry| entry["step"].as_str().is_some_and(|id| id.starts_with(step)));
    found.cloned().with_context(|| format!("step {step} was not begun"))
}

/// The code of the failure that turned it back, as its journal has it.
pub(crate) fn failure_code(status: &OperationStatus) -> anyhow::Result<String> {
    let journal = status.journal.as_ref().context("no journal")?;
    let code = journal.pointer("/course/back/stepFailed/failure/code").and_then(serde_json::Value::as_str);
    code.map(ToOwned::to_owned).with_context(|| format!("no failure turned it back: {}", journal["course"]))
}

/// When the step was begun, in milliseconds since 1970.
pub(crate) fn begun_at(status: &OperationStatus, step: &str) -> anyhow::Result<i64> {
    let entry = entry(status, step)?;
    let at: jiff::Timestamp = entry["startedAt"].as_str().context("no start")?.parse()?;
    Ok(at.as_millisecond())
}

/// When the step was done, in milliseconds since 1970.
pub(crate) fn done_at(status: &OperationStatus, step: &str) -> anyhow::Result<i64> {
    let entry = entry(status, step)?;
    let at: jiff::Timestamp = entry["finishedAt"].as_str().context("no end")?.parse()?;
    Ok(at.as_millisecond())
}

/// How long it was suspended and down, for the report.
pub(crate) fn durations(status: &OperationStatus) -> String {
    let text =
        |duration: Option<windlass_api::Duration>| duration.map_or_else(|| "-".to_owned(), |one| one.to_string());
    format!("suspended {}, down {}", text(status.suspended_for), text(status.down_for))
}
