//! Rollbacks that a person asks for, and those that a person stops.

use std::time::Duration;

use anyhow::{Context, ensure};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use windlass_api::{OperationStatus, Outcome, RestorePoint, RollbackData, RollbackRequestSpec, RollbackTo};
use windlass_rig::csi::{CallName, Control, FailureCode, Rule};

use super::checks::same;
use crate::fixture::{App, Shape};
use crate::request::{expect, rollback_spec, upgrade_spec};
use crate::world::{World, wait};

impl World {
    /// A rollback with data, whose loss is acknowledged, to what this upgrade has left.
    pub(crate) async fn back_before(
        &self,
        app: &App,
        upgrade: &str,
        status: &OperationStatus,
    ) -> anyhow::Result<RollbackRequestSpec> {
        let to = RollbackTo { upgrade_request: Some(upgrade.into()), restore_point: None };
        let mut spec = rollback_spec("notes", to, RollbackData::Restore);
        let point = status.restore_point.clone().context("no restore point")?;
        spec.acknowledge_loss_since = self.restore_point(app, &point).await?.spec.taken_at;
        Ok(spec)
    }

    pub(crate) async fn restore_point(&self, app: &App, name: &str) -> anyhow::Result<RestorePoint> {
        Ok(kube::Api::namespaced(self.client.clone(), &app.name).get(name).await?)
    }

    /// Lets the driver make no volume, so that a rollback stays before its first deletion for as long as one wants.
    pub(crate) fn hold_volumes(&self, hold: bool) -> anyhow::Result<()> {
        let rules = if hold { vec![Rule::fail(CallName::CreateVolume, FailureCode::Unavailable)] } else { Vec::new() };
        self.estate.control_driver(&Control { rules, ..Control::default() })
    }

    async fn cancel_rollback(&self, app: &App, name: &str) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"spec": {"cancel": true}}));
        self.rollbacks(&app.name).patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn delete_rollback(&self, app: &App, name: &str) -> anyhow::Result<()> {
        self.rollbacks(&app.name).delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn rollback_gone(&self, app: &App, name: &str) -> anyhow::Result<()> {
        let api = self.rollbacks(&app.name);
        wait("the request to be gone", Duration::from_secs(180), || async { Ok(api.get_opt(name).await?.is_none()) })
            .await
    }
}

/// Two upgrades, then back to where the first began: versions and data of that moment, not of a later one.
pub(crate) async fn to_an_older_point(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j04older", Shape::default()).await?;
    let (commits, text) = (app.repo.commits()?, app.repo.read(&app.path)?);
    world.write(&app, 20).await?;
    let at_first = world.records(&app).await?;
    world.ask_upgrade(&app.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    let first = world.upgrade_ended(&app.name, "to-1.1.0").await?;
    expect(&first, Outcome::Succeeded)?;
    world.write(&app, 20).await?;
    world.ask_upgrade(&app.name, "to-1.2.0", upgrade_spec("notes", &[("image/notes", "1.2.0")])).await?;
    let second = world.upgrade_ended(&app.name, "to-1.2.0").await?;
    expect(&second, Outcome::Succeeded)?;
    let up = world.measured(&app, &[&first, &second])?;
    let given_up = world.write(&app, 20).await?;

    // Named by its restore point, as a person finds it in a list.
    let point = first.restore_point.clone().context("no restore point")?;
    ensure!(second.restore_point.as_ref() != Some(&point), "both upgrades have one restore point");
    let to = RollbackTo { upgrade_request: None, restore_point: Some(point.clone()) };
    let mut spec = rollback_spec("notes", to, RollbackData::Restore);
    spec.acknowledge_loss_since = world.restore_point(&app, &point).await?.spec.taken_at;
    world.ask_rollback(&app.name, "far-back", spec).await?;
    let back = world.rollback_ended(&app.name, "far-back").await?;
    expect(&back, Outcome::Succeeded)?;
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    same("records", &world.records(&app).await?, &at_first)?;
    ensure!(app.repo.read(&app.path)? == text, "the file is not what it was");
    ensure!(app.repo.commits()? == commits + 3, "not exactly two commits and one back were made");
    world.nothing_is_left(&app, &back).await?;
    let figures = world.measured(&app, &[&back])?;
    Ok(format!("twice up {up}; back {figures}; at least {given_up} later writes given up knowingly"))
}

/// While the upgrade is being watched a person asks for the rollback: theirs is the only one, and the upgrade gives way to it.
pub(crate) async fn during_verify(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j04verify", Shape { soak: "10m", ..Shape::default() }).await?;
    let text = app.repo.read(&app.path)?;
    let commits = app.repo.commits()?;
    world.write(&app, 20).await?;
    let before = world.records(&app).await?;
    world.ask_upgrade(&app.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    world.step_begun(&app.name, "to-1.1.0", "verify/soak").await?;
    world.write(&app, 20).await?;
    let soaking = world.upgrades(&app.name).get("to-1.1.0").await?.status.unwrap_or_default();
    let mut spec = world.back_before(&app, "to-1.1.0", &soaking).await?;

    // The soak of the rollback would be as long as that of the upgrade.
    let apps = world.dynamic(windlass_api::GROUP, windlass_api::VERSION, "ManagedApp", &app.name).await?;
    let patch = Patch::Merge(json!({"spec": {"health": {"soak": "1s"}}}));
    apps.patch("notes", &PatchParams::default(), &patch).await?;
    spec.reason = Some("it looks wrong".into());
    world.ask_rollback(&app.name, "by-hand", spec).await?;
    let upgrade = world.upgrade_ended(&app.name, "to-1.1.0").await?;
    expect(&upgrade, Outcome::RolledBack)?;
    let back = world.rollback_ended(&app.name, "by-hand").await?;
    expect(&back, Outcome::Succeeded)?;
    let others = world.rollbacks(&app.name).list(&kube::api::ListParams::default()).await?.items.len();
    ensure!(others == 1, "{others} rollbacks were made, not the person's alone");
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    same("records", &world.records(&app).await?, &before)?;
    ensure!(app.repo.read(&app.path)? == text, "the file is not what it was");
    ensure!(app.repo.commits()? == commits + 2, "not exactly one commit and one revert were made");
    let blocked = world.blocked(&app).await?;
    ensure!(blocked == ["image/notes 1.1.0"], "blocked: {blocked:?}");
    world.nothing_is_left(&app, &back).await?;
    ensure!(upgrade.rollback.as_deref() == Some("by-hand"), "rolled back by {:?}", upgrade.rollback);
    let upgrade = world.upgrade_ended(&app.name, "to-1.1.0").await?;
    world.nothing_is_left(&app, &upgrade).await?;
    world.measured(&app, &[&upgrade, &back])
}

/// An app on 1.1.0 with data of both versions.
struct Upgraded {
    app: App,
    /// The file and the number of commits before it.
    text: String,
    commits: usize,
    before: Value,
    now: Value,
    back: RollbackRequestSpec,
}

async fn upgraded(world: &World, name: &str) -> anyhow::Result<Upgraded> {
    let app = world.manifests_app(name, Shape::default()).await?;
    let (commits, text) = (app.repo.commits()?, app.repo.read(&app.path)?);
    world.write(&app, 20).await?;
    let before = world.records(&app).await?;
    world.ask_upgrade(&app.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    let status = world.upgrade_ended(&app.name, "to-1.1.0").await?;
    expect(&status, Outcome::Succeeded)?;
    world.write(&app, 20).await?;
    let now = world.records(&app).await?;
    world.measured(&app, &[&status])?;
    let back = world.back_before(&app, "to-1.1.0", &status).await?;
    Ok(Upgraded { app, text, commits, before, now, back })
}

/// Stopped while the copy is being made: nothing has happened to the app, and the copy is gone.
async fn stopped_early(
    world: &World,
    upgraded: &Upgraded,
    stop: impl AsyncFnOnce(&str) -> anyhow::Result<OperationStatus>,
) -> anyhow::Result<String> {
    let Upgraded { app, now, back, .. } = upgraded;
    let head = world.refs(app)?;
    let volumes = world.volumes(app).await?;
    world.hold_volumes(true)?;
    let stopped = async {
        world.ask_rollback(&app.name, "early", back.clone()).await?;
        world.rollback_step_begun(&app.name, "early", "restore/aside/").await?;
        stop("early").await
    };
    let stopped = stopped.await;
    world.hold_volumes(false)?;
    let status = stopped?;
    world.wait_ready(&app.name, "1.1.0", 1).await?;
    same("records", &world.records(app).await?, now)?;
    ensure!(world.volumes(app).await? == volumes, "the app is on another volume");
    ensure!(world.refs(app)? == head, "something was committed");
    world.nothing_is_left(app, &status).await?;
    world.no_other_volumes(app).await?;
    world.measured(app, &[&status])
}

/// Stopped after the claim was deleted: there is no way but forward. Nothing is fetched meanwhile, so that it cannot end before.
async fn stopped_late(
    world: &World,
    upgraded: &Upgraded,
    stop: impl AsyncFnOnce(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Upgraded { app, back, .. } = upgraded;
    world.estate.fetching(false).await?;
    let stopped = async {
        world.ask_rollback(&app.name, "late", back.clone()).await?;
        world.rollback_step_begun(&app.name, "late", "swap/create/").await?;
        stop("late").await
    };
    let stopped = stopped.await;
    world.estate.fetching(true).await?;
    stopped
}

async fn went_back(world: &World, upgraded: &Upgraded, status: &OperationStatus) -> anyhow::Result<()> {
    let Upgraded { app, text, commits, before, .. } = upgraded;
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    same("records", &world.records(app).await?, before)?;
    ensure!(app.repo.read(&app.path)? == *text, "the file is not what it was");
    ensure!(app.repo.commits()? == commits + 2, "not exactly one commit and one back were made");
    let blocked = world.blocked(app).await?;
    ensure!(blocked == ["image/notes 1.1.0"], "blocked: {blocked:?}");
    world.nothing_is_left(app, status).await
}

/// A rollback is cancelled: before the first deletion of a claim it is undone, after it goes forward to its end.
pub(crate) async fn cancel(world: &World) -> anyhow::Result<String> {
    let upgraded = upgraded(world, "j09back").await?;
    let app = &upgraded.app;
    let early = stopped_early(world, &upgraded, async |name| {
        world.cancel_rollback(app, name).await?;
        let status = world.rollback_ended(&app.name, name).await?;
        expect(&status, Outcome::Cancelled)?;
        Ok(status)
    })
    .await?;
    stopped_late(world, &upgraded, async |name| world.cancel_rollback(app, name).await).await?;
    let status = world.rollback_ended(&app.name, "late").await?;
    expect(&status, Outcome::Succeeded)?;
    went_back(world, &upgraded, &status).await?;
    Ok(format!("before: undone, {early}; after: forward, {}", world.measured(app, &[&status])?))
}

/// Deleting the request of a rollback means the same as cancelling it.
pub(crate) async fn deletion(world: &World) -> anyhow::Result<String> {
    let upgraded = upgraded(world, "j09backdel").await?;
    let app = &upgraded.app;
    let early = stopped_early(world, &upgraded, async |name| {
        world.delete_rollback(app, name).await?;
        world.rollback_gone(app, name).await?;
        Ok(OperationStatus::default())
    })
    .await?;
    stopped_late(world, &upgraded, async |name| world.delete_rollback(app, name).await).await?;
    world.rollback_gone(app, "late").await?;
    went_back(world, &upgraded, &OperationStatus::default()).await?;
    Ok(format!("before: undone, {early}; after: forward, {}", world.measured(app, &[])?))
}
