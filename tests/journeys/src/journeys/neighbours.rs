//! Two apps below one Kustomization: what one does and suffers is not done to the other.

use anyhow::ensure;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use windlass_api::Outcome;

use super::checks::same;
use crate::fixture::Shape;
use crate::request::{begun_at, done_at, expect, upgrade_spec};
use crate::world::World;

/// Both are upgraded at once: one after the other, and both succeed.
pub(crate) async fn both_at_once(world: &World) -> anyhow::Result<String> {
    let (one, other) = world.neighbours("j11a", "j11b", Shape::default()).await?;
    let written = (world.write(&one, 20).await?, world.write(&other, 20).await?);
    let volumes = (world.volumes(&one).await?, world.volumes(&other).await?);
    let commits = one.repo.commits()?;
    let spec = || upgrade_spec("notes", &[("image/notes", "1.1.0")]);
    world.ask_upgrade(&one.name, "to-1.1.0", spec()).await?;
    world.ask_upgrade(&other.name, "to-1.1.0", spec()).await?;
    let first = world.upgrade_ended(&one.name, "to-1.1.0").await?;
    let second = world.upgrade_ended(&other.name, "to-1.1.0").await?;
    expect(&first, Outcome::Succeeded)?;
    expect(&second, Outcome::Succeeded)?;
    world.wait_ready(&one.name, "1.1.0", 1).await?;
    world.wait_ready(&other.name, "1.1.0", 1).await?;
    world.nothing_is_left(&one, &first).await?;
    world.nothing_is_left(&other, &second).await?;
    // Each has changed its own line, and nobody's data was restored.
    ensure!(one.repo.commits()? == commits + 2, "not exactly one commit each was made");
    let mut changed = [one.repo.numstat("HEAD")?, one.repo.numstat("HEAD~1")?];
    changed.sort();
    let expected = [&one, &other].map(|app| format!("1 1 {}", app.path));
    ensure!(changed == expected, "the commits are {changed:?} instead of {expected:?}");
    world.holds(&one, "notes-data", written.0).await?;
    world.holds(&other, "notes-data", written.1).await?;
    let now = (world.volumes(&one).await?, world.volumes(&other).await?);
    ensure!(now == volumes, "they are on {now:?} instead of {volumes:?}");
    let (a, b) = (span(&first)?, span(&second)?);
    ensure!(a.1 <= b.0 || b.1 <= a.0, "they were suspended at the same time: {a:?} {b:?}");
    Ok(format!("{}; {}", world.measured(&one, &[&first])?, world.measured(&other, &[&second])?))
}

/// From before the suspension to after the resume, in milliseconds since 1970.
fn span(status: &windlass_api::OperationStatus) -> anyhow::Result<(i64, i64)> {
    Ok((begun_at(status, "suspend/")?, done_at(status, "release/resume/")?))
}

/// One fails and gets its data back: the other runs on, in the same pod, on the same volume. Then the other is broken by somebody's
/// push while the one is upgraded: that upgrade succeeds, and nobody's data is restored.
pub(crate) async fn failure(world: &World) -> anyhow::Result<String> {
    let shape = Shape { timeout: "15s", ..Shape::default() };
    let (one, other) = world.neighbours("j11c", "j11d", shape).await?;
    world.write(&one, 20).await?;
    world.write(&other, 20).await?;
    let ones = world.records(&one).await?;
    let others = (world.only_pod(&other).await?, world.volumes(&other).await?, world.records(&other).await?);

    world.ask_upgrade(&one.name, "to-3.0.0", upgrade_spec("notes", &[("image/notes", "3.0.0")])).await?;
    expect(&world.upgrade_ended(&one.name, "to-3.0.0").await?, Outcome::RolledBack)?;
    let rollback = world.rolled_back(&one.name, "to-3.0.0").await?;
    expect(&rollback, Outcome::Succeeded)?;
    same("records", &world.records(&one).await?, &ones)?;
    world.nothing_is_left(&one, &rollback).await?;
    let still = (world.only_pod(&other).await?, world.volumes(&other).await?, world.records(&other).await?);
    let back = world.measured(&one, &[&rollback])?;
    ensure!(still == others, "the neighbour was touched: {still:?} instead of {others:?}");

    // The Kustomization waits for the broken neighbour before it looks at anything again, for half a minute at least.
    let apps = world.dynamic(windlass_api::GROUP, windlass_api::VERSION, "ManagedApp", &one.name).await?;
    let patch = Patch::Merge(json!({"spec": {"health": {"timeout": "2m"}}}));
    apps.patch("notes", &PatchParams::default(), &patch).await?;
    let bytes = world.bytes(&others.1["notes-data"].1)?;
    // Pushed while the upgrade is at work, so that both arrive together. Nobody has published that version.
    let volumes = world.volumes(&one).await?;
    world.hold_snapshots(true)?;
    let asked = async {
        world.ask_upgrade(&one.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
        world.step_begun(&one.name, "to-1.1.0", "snapshot/").await?;
        let broken = other.repo.read(&other.path)?.replace(":1.0.0", ":9.9.9");
        other.repo.push(&[(other.path.clone(), broken)], "Take 9.9.9")
    };
    let asked = asked.await;
    world.hold_snapshots(false)?;
    asked?;
    let status = world.upgrade_ended(&one.name, "to-1.1.0").await?;
    expect(&status, Outcome::Succeeded)?;
    world.wait_ready(&one.name, "1.1.0", 1).await?;
    ensure!(world.volumes(&one).await? == volumes, "the app is on another volume");
    same("records", &world.records(&one).await?, &ones)?;
    ensure!(world.rollback_of(&one.name, "to-1.1.0").await?.is_empty(), "it was rolled back");
    world.nothing_is_left(&one, &status).await?;

    let (uid, handle) = &others.1["notes-data"];
    let now = world.volumes(&other).await?;
    ensure!(now["notes-data"] == (uid.clone(), handle.clone()), "the neighbour is on another volume: {now:?}");
    ensure!(world.bytes(handle)? == bytes, "the neighbour's bytes have changed");
    Ok(format!("rolled back {back}; beside a broken neighbour {}", world.measured(&one, &[&status])?))
}
