//! Others act meanwhile: they push, cancel, delete, upgrade a neighbour.

use std::time::Duration;

use anyhow::{Context, ensure};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::json;
use windlass_api::Outcome;
use windlass_rig::csi::{CallName, Control, FailureCode, Rule};

use crate::fixture::{App, Shape};
use crate::repo::Repo;
use crate::request::{entry, expect, failure_code, upgrade_spec};
use crate::world::{World, wait};

impl World {
    /// Lets the driver cut no snapshot, so that there is time to meddle.
    pub(crate) fn hold_snapshots(&self, hold: bool) -> anyhow::Result<()> {
        let rules =
            if hold { vec![Rule::fail(CallName::CreateSnapshot, FailureCode::Unavailable)] } else { Vec::new() };
        self.estate.control_driver(&Control { rules, ..Control::default() })
    }

    /// Lets the driver cut snapshots and never call them ready. For those who will delete them: while one is being cut, the snapshot
    /// controllers may overlook its deletion until their next look, minutes later.
    fn unready_snapshots(&self, unready: bool) -> anyhow::Result<()> {
        self.estate.control_driver(&Control { never_ready: unready, ..Control::default() })
    }

    /// Until the snapshot is cut, which its content then says.
    async fn is_cut(&self, app: &App) -> anyhow::Result<()> {
        let api = self.dynamic("snapshot.storage.k8s.io", "v1", "VolumeSnapshot", &app.name).await?;
        wait("the snapshot to be cut", Duration::from_secs(60), || async {
            let found = api.list(&ListParams::default()).await?;
            let is_cut = |one: &DynamicObject| one.data.pointer("/status/readyToUse") == Some(&json!(false));
            Ok(found.items.iter().any(is_cut))
        })
        .await
    }

    /// The source does not wait for its next look, a minute later.
    pub(crate) async fn poke_source(&self, app: &App) -> anyhow::Result<()> {
        let sources = self.dynamic("source.toolkit.fluxcd.io", "v1", "GitRepository", "flux-system").await?;
        let now = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "a-person"}}});
        sources.patch(&app.kustomization, &PatchParams::default(), &Patch::Merge(now)).await?;
        Ok(())
    }

    pub(crate) async fn cancel(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"spec": {"cancel": true}}));
        self.upgrades(namespace).patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

/// The operator is told to end in the middle: it does, quickly, and the next one goes on.
pub(crate) async fn terminated(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j10term", Shape::default()).await?;
    world.hold_snapshots(true)?;
    world.ask_upgrade(&app.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    world.step_begun(&app.name, "to-1.1.0", "snapshot/").await?;
    let took = world.operator().terminate().await;
    world.hold_snapshots(false)?;
    world.operator().start()?;
    let took = took?;
    ensure!(took < Duration::from_secs(5), "it took {took:?} to end");
    let status = world.upgrade_ended(&app.name, "to-1.1.0").await?;
    expect(&status, Outcome::Succeeded)?;
    world.nothing_is_left(&app, &status).await?;
    Ok(format!("ended in {:.2} s; {}", took.as_secs_f64(), world.measured(&app, &[&status])?))
}

/// Somebody pushes an unrelated file, and somebody else another one between our edit and our push: all commits stand.
pub(crate) async fn unrelated_push(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j06", Shape::default()).await?;
    let other = Repo::clone(&world.estate.repository(&app.name).await?)?;
    world.hold_snapshots(true)?;
    world.ask_upgrade(&app.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    world.step_begun(&app.name, "to-1.1.0", "snapshot/").await?;
    let pushed = app.repo.push(&[("README.md".into(), "Hello\n".into())], "Say hello");
    let (said, faster) = std::sync::mpsc::channel();
    let outrun = world.estate.outrun(
        &app.name,
        Box::new(move || {
            let _ = said.send(other.push(&[("FASTER.md".into(), "Hello\n".into())], "Be faster"));
        }),
    );
    world.hold_snapshots(false)?;
    pushed?;
    outrun?;
    let status = world.upgrade_ended(&app.name, "to-1.1.0").await?;
    expect(&status, Outcome::Succeeded)?;
    app.repo.pull()?;
    faster.try_recv().context("the operator's push was not outrun")??;
    let log = app.repo.git(&["log", "--format=%s", "-4"])?;
    let mut lines = log.lines();
    ensure!(lines.next().is_some_and(|line| line.starts_with("Upgrade notes")), "{log}");
    ensure!(lines.next() == Some("Be faster"), "{log}");
    ensure!(lines.next() == Some("Say hello"), "{log}");
    ensure!(app.repo.numstat("HEAD")? == format!("1 1 {}", app.path), "more than one line was changed");
    world.nothing_is_left(&app, &status).await?;
    world.measured(&app, &[&status])
}

/// Somebody changes our own line: superseded, everything is released, their version is delivered.
pub(crate) async fn superseded(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j06own", Shape::default()).await?;
    world.hold_snapshots(true)?;
    world.ask_upgrade(&app.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    world.step_begun(&app.name, "to-1.1.0", "snapshot/").await?;
    let text = app.repo.read(&app.path)?.replace(":1.0.0", ":1.2.0");
    let pushed = app.repo.push(&[(app.path.clone(), text.clone())], "Take 1.2.0");
    world.hold_snapshots(false)?;
    pushed?;
    let status = world.upgrade_ended(&app.name, "to-1.1.0").await?;
    expect(&status, Outcome::Undone)?;
    let message = status.message.clone().unwrap_or_default();
    let code = failure_code(&status)?;
    ensure!(code == "superseded", "it failed with {code}: {message}");
    world.poke_source(&app).await?;
    world.wait_ready(&app.name, "1.2.0", 1).await?;
    ensure!(app.repo.read(&app.path)? == text, "their line was changed");
    world.nothing_is_left(&app, &status).await?;
    Ok(format!("{message}; {}", world.measured(&app, &[&status])?))
}

/// Cancel before the point of no return undoes; after it the operation goes forward.
pub(crate) async fn cancel(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j09", Shape { soak: "4s", ..Shape::default() }).await?;
    let commits = app.repo.commits()?;
    let text = app.repo.read(&app.path)?;
    world.unready_snapshots(true)?;
    world.ask_upgrade(&app.name, "early", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    world.step_begun(&app.name, "early", "snapshot/verify/").await?;
    world.is_cut(&app).await?;
    let cancelled = world.cancel(&app.name, "early").await;
    world.unready_snapshots(false)?;
    cancelled?;
    let status = world.upgrade_ended(&app.name, "early").await?;
    expect(&status, Outcome::Cancelled)?;
    // Undone means the same tree; a commit that was made before the cancel arrived was reverted by one more.
    let made = if entry(&status, "commit/push/").is_ok_and(|entry| entry["begun"] == true) { 2 } else { 0 };
    ensure!(app.repo.commits()? == commits + made, "{} commits were made, not {made}", app.repo.commits()? - commits);
    ensure!(app.repo.read(&app.path)? == text, "the file is not what it was");
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    world.nothing_is_left(&app, &status).await?;
    world.no_copies(&app).await?;
    let early = world.measured(&app, &[&status])?;

    world.ask_upgrade(&app.name, "late", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    world.step_begun(&app.name, "late", "verify/").await?;
    world.cancel(&app.name, "late").await?;
    let status = world.upgrade_ended(&app.name, "late").await?;
    expect(&status, Outcome::Succeeded)?;
    world.wait_ready(&app.name, "1.1.0", 1).await?;
    world.nothing_is_left(&app, &status).await?;
    Ok(format!("before: undone, {early}; after: forward, {}", world.measured(&app, &[&status])?))
}

/// Cancelled when the commit is pushed and nobody has fetched it, the last step before the point of no return: it is reverted, and its
/// version never starts.
pub(crate) async fn cancel_after_the_push(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j09pushed", Shape::default()).await?;
    let (commits, text) = (app.repo.commits()?, app.repo.read(&app.path)?);
    let written = world.write(&app, 20).await?;
    let volumes = world.volumes(&app).await?;
    world.ask_upgrade(&app.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    // The source must not see the commit before the request is cancelled.
    world.step_begun(&app.name, "to-1.1.0", "stop/").await?;
    world.estate.fetching(false).await?;
    let cancelled = async {
        world.step_begun(&app.name, "to-1.1.0", "release/fetch/").await?;
        ensure!(app.repo.commits()? == commits + 1, "not exactly one commit was pushed before the cancel");
        world.cancel(&app.name, "to-1.1.0").await
    };
    let cancelled = cancelled.await;
    world.estate.fetching(true).await?;
    cancelled?;
    let status = world.upgrade_ended(&app.name, "to-1.1.0").await?;
    expect(&status, Outcome::Cancelled)?;
    ensure!(app.repo.commits()? == commits + 2, "not exactly one commit and one revert were made");
    let numstat = app.repo.numstat("HEAD")?;
    ensure!(numstat == format!("1 1 {}", app.path), "numstat of the revert: {numstat}");
    ensure!(app.repo.read(&app.path)? == text, "the file is not what it was");
    // What Git has now is delivered, and changes nothing.
    world.poke_source(&app).await?;
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    world.nothing_is_left(&app, &status).await?;
    world.no_copies(&app).await?;
    world.only_ran(&app, "1.0.0", 0, i64::MAX)?;
    world.holds(&app, "notes-data", written).await?;
    ensure!(world.volumes(&app).await? == volumes, "the app is on another volume");
    let blocked = world.blocked(&app).await?;
    ensure!(blocked.is_empty(), "a version that was only cancelled is blocked: {blocked:?}");
    world.measured(&app, &[&status])
}

/// Deleting the request means the same as cancelling it; the object stays until its operation has ended.
pub(crate) async fn deletion(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j09del", Shape { soak: "4s", ..Shape::default() }).await?;
    let commits = app.repo.commits()?;
    let api = world.upgrades(&app.name);
    let gone = |name: &'static str| {
        let api = api.clone();
        async move {
            wait("the request to be gone", Duration::from_secs(180), || async {
                Ok(api.get_opt(name).await?.is_none())
            })
            .await
        }
    };
    world.unready_snapshots(true)?;
    world.ask_upgrade(&app.name, "early", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    world.step_begun(&app.name, "early", "snapshot/verify/").await?;
    world.is_cut(&app).await?;
    let deleted = api.delete("early", &DeleteParams::default()).await;
    world.unready_snapshots(false)?;
    deleted?;
    gone("early").await?;
    ensure!(app.repo.commits()? == commits, "something was committed");
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    world.nothing_is_left(&app, &windlass_api::OperationStatus::default()).await?;
    world.no_copies(&app).await?;
    let early = world.measured(&app, &[])?;

    world.ask_upgrade(&app.name, "late", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    world.step_begun(&app.name, "late", "verify/").await?;
    api.delete("late", &DeleteParams::default()).await?;
    gone("late").await?;
    world.wait_ready(&app.name, "1.1.0", 1).await?;
    ensure!(app.repo.commits()? == commits + 1, "not exactly one commit was made");
    world.nothing_is_left(&app, &windlass_api::OperationStatus::default()).await?;
    Ok(format!("before: undone, {early}; after: forward, {}", world.measured(&app, &[])?))
}
