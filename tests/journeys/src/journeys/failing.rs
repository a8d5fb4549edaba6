//! Upgrades that fail: what comes back, and what never ran.

use anyhow::{Context, ensure};
use serde_json::json;
use windlass_api::Outcome;

use super::checks::same;
use crate::fixture::Shape;
use crate::request::{begun_at, durations, expect, upgrade_spec};
use crate::world::World;
use crate::writer::{Writer, address, records};

/// The new version corrupts its data and never becomes ready: data and Git come back by themselves, the version is blocked,
/// and at no moment did a version run on data that was not its own.
pub(crate) async fn never_ready(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j03", Shape { timeout: "15s", ..Shape::default() }).await?;
    let pod = world.ready_pods(&app.name).await?.first().context("no pod")?.0.clone();
    let writer = Writer::start(address(world, &app.name, &pod).await?)?;
    writer.reaches(500).await?;
    let commits = app.repo.commits()?;
    let text = app.repo.read(&app.path)?;
    let handle = world.volume_of(&app.name, "notes-data").await?.spec.and_then(|spec| spec.csi).context("no handle")?.volume_handle;
    world.ask_upgrade(&app.name, "to-3.0.0", upgrade_spec("notes", &[("image/notes", "3.0.0")])).await?;
    let acknowledged = writer.refused().await?;
    let upgrade = world.upgrade_ended(&app.name, "to-3.0.0").await?;
    expect(&upgrade, Outcome::RolledBack)?;
    let rollback = world.rollback_ended(&app.name, "to-3.0.0-rollback").await?;
    expect(&rollback, Outcome::Succeeded)?;
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    let pod = world.ready_pods(&app.name).await?.first().context("no pod")?.0.clone();
    let kept = records(&address(world, &app.name, &pod).await?).await?;
    same("records", &kept["count"], &json!(acknowledged))?;
    ensure!(acknowledged >= 500, "only {acknowledged} were acknowledged");
    ensure!(app.repo.commits()? == commits + 2, "not exactly one commit and one revert were made");
    ensure!(app.repo.read(&app.path)? == text, "the file is not what it was");
    let blocked = world.blocked(&app).await?;
    ensure!(blocked == ["image/notes 3.0.0"], "blocked: {blocked:?}");
    world.nothing_is_left(&app, &rollback).await?;

    let cut = world.last_cut(&handle)?;
    let released = begun_at(&upgrade, "release/resume/")?;
    let early = world.started_between(&app.name, cut, released)?;
    ensure!(early.is_empty(), "between cut and release {early:?} started");
    let swapped = begun_at(&rollback, "swap/delete/")?;
    let released = begun_at(&rollback, "release/resume/")?;
    let early = world.started_between(&app.name, swapped, released)?;
    ensure!(early.is_empty(), "between swap and release {early:?} started");
    let wrong = world.started_between(&app.name, released, i64::MAX)?;
    ensure!(wrong.iter().all(|run| run.contains(":1.0.0 ")), "after the release {wrong:?} started");
    Ok(format!(
        "acknowledged before stop: {acknowledged}, lost: 0; upgrade {}; rollback {}",
        durations(&upgrade),
        durations(&rollback)
    ))
}

/// A snapshot that never gets ready: the deadline ends it, nothing is committed, the app is as it was found.
pub(crate) async fn snapshot_never_ready(world: &World) -> anyhow::Result<String> {
    let shape = Shape { class: Some("rig-never-ready"), snapshot_deadline: "10s", ..Shape::default() };
    let app = world.manifests_app("j05", shape).await?;
    let commits = app.repo.commits()?;
    world.ask_upgrade(&app.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    let status = world.upgrade_ended(&app.name, "to-1.1.0").await?;
    expect(&status, Outcome::Undone)?;
    let message = status.message.clone().unwrap_or_default();
    ensure!(message.contains("ready"), "{message}");
    ensure!(app.repo.commits()? == commits, "something was committed");
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    world.nothing_is_left(&app, &status).await?;
    Ok(durations(&status))
}
