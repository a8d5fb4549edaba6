//! Upgrades that fail: what comes back, and what never ran.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;
use windlass_api::{AutoRollback, OperationStatus, Outcome};

use super::checks::same;
use crate::fixture::{App, Shape};
use crate::request::{entry, expect, failure_code, upgrade_spec};
use crate::world::{World, wait};
use crate::writer::Writer;

/// The new version corrupts its data and never becomes ready: data and Git come back by themselves, the version is blocked,
/// and at no moment did a version run on data that was not its own.
pub(crate) async fn never_ready(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j03", Shape { timeout: "15s", declares_replicas: true, ..Shape::default() }).await?;
    let pod = world.ready_pods(&app.name).await?.first().context("no pod")?.0.clone();
    let writer = Writer::start(world.estate.app(&app.name, &pod).await?);
    writer.reaches(500).await?;
    let commits = app.repo.commits()?;
    let text = app.repo.read(&app.path)?;
    let volumes = world.volumes(&app).await?;
    world.ask_upgrade(&app.name, "to-3.0.0", upgrade_spec("notes", &[("image/notes", "3.0.0")])).await?;
    let acknowledged = writer.refused().await?;
    let upgrade = world.upgrade_ended(&app.name, "to-3.0.0").await?;
    expect(&upgrade, Outcome::RolledBack)?;
    let rollback = world.rolled_back(&app.name, "to-3.0.0").await?;
    expect(&rollback, Outcome::Succeeded)?;
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    let pod = world.ready_pods(&app.name).await?.first().context("no pod")?.0.clone();
    let kept = world.estate.app(&app.name, &pod).await?.records().await?;
    same("records", &kept["count"], &json!(acknowledged))?;
    world.holds(&app, "notes-data", acknowledged).await?;
    ensure!(acknowledged >= 500, "only {acknowledged} were acknowledged");
    ensure!(app.repo.commits()? == commits + 2, "not exactly one commit and one revert were made");
    ensure!(app.repo.read(&app.path)? == text, "the file is not what it was");
    let blocked = world.blocked(&app).await?;
    ensure!(blocked == ["image/notes 3.0.0"], "blocked: {blocked:?}");
    world.nothing_is_left(&app, &rollback).await?;
    world.each_on_its_own_data(&app, &volumes, ("1.0.0", "3.0.0"), &upgrade, &rollback)?;
    Ok(format!("acknowledged before stop: {acknowledged}, lost: 0; {}", world.measured(&app, &[&upgrade, &rollback])?))
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
    let code = failure_code(&status)?;
    ensure!(code == "deadline-exceeded", "it failed with {code}: {message}");
    ensure!(app.repo.commits()? == commits, "something was committed");
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    world.nothing_is_left(&app, &status).await?;
    world.no_copies(&app).await?;
    world.measured(&app, &[&status])
}

impl World {
    /// A field of the Kustomization that delivers the app.
    async fn of_kustomization(&self, app: &App, pointer: &str) -> anyhow::Result<Value> {
        let api = self.dynamic("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "flux-system").await?;
        self.field(&api, &app.kustomization, pointer).await
    }
}

/// Git is unreachable after the push: the old version runs again on its own data, what stays suspended is listed, and it
/// heals when Git is back, without the new version ever starting.
pub(crate) async fn git_unreachable(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j03git", Shape { timeout: "12s", ..Shape::default() }).await?;
    let text = app.repo.read(&app.path)?;
    let written = world.write(&app, 50).await?;
    let (records, volumes) = (world.records(&app).await?, world.volumes(&app).await?);
    world.ask_upgrade(&app.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    // The source must not see the commit before Git goes away.
    world.step_begun(&app.name, "to-1.1.0", "stop/").await?;
    world.estate.fetching(false).await?;
    world.step_begun(&app.name, "to-1.1.0", "release/fetch/").await?;
    world.estate.git(false).await?;
    world.estate.fetching(true).await?;
    let began = Instant::now();
    let status = world.upgrade_ended(&app.name, "to-1.1.0").await;
    let ended_after = began.elapsed().as_secs_f64();
    let running = world.wait_ready(&app.name, "1.0.0", 1).await;
    let handle = &volumes["notes-data"].1;
    // Whatever was found, Git comes back.
    let ran = world.last_cut(handle).and_then(|cut| world.only_ran(&app, "1.0.0", cut, i64::MAX));
    let suspended = world.of_kustomization(&app, "/spec/suspend").await;
    world.estate.git(true).await?;
    // The source sees the commit before anybody has reverted it: whoever resumed now would start the new version.
    world.poke_source(&app).await?;
    let status = status?;
    expect(&status, Outcome::Failed)?;
    running?;
    ran.context("while Git was away")?;
    same("suspend while Git was away", &suspended?, &json!(true))?;
    let left: Vec<&str> = status.leftovers.iter().map(|left| left.what.as_str()).collect();
    let held = status.leftovers.iter().filter(|left| left.object.starts_with("suspend/"));
    let held: Vec<(&str, &str)> = held.map(|left| (left.what.as_str(), left.object.as_str())).collect();
    let what = format!("Kustomization flux-system/{} suspended", app.kustomization);
    let object = format!("suspend/kustomization/flux-system/{}", app.kustomization);
    ensure!(held == [(what.as_str(), object.as_str())], "{held:?} is listed as suspended; leftovers: {left:?}");
    let api = world.upgrades(&app.name);
    wait("the leftovers to heal", Duration::from_secs(120), || async {
        Ok(api.get("to-1.1.0").await?.status.unwrap_or_default().leftovers.is_empty())
    })
    .await?;
    let healed = api.get("to-1.1.0").await?.status.unwrap_or_default();
    ensure!(app.repo.read(&app.path)? == text, "Git was not reverted");
    world.nothing_is_left(&app, &healed).await?;
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    world.only_ran(&app, "1.0.0", world.last_cut(handle)?, i64::MAX).context("while it healed")?;
    same("records", &world.records(&app).await?, &records)?;
    world.holds(&app, "notes-data", written).await?;
    ensure!(world.volumes(&app).await? == volumes, "the app is on another volume");
    let figures = world.measured(&app, &[&healed])?;
    Ok(format!("ended {ended_after:.0} s after Git went away, left {left:?}, healed when it was back; {figures}"))
}

/// What an app needs whose new version fails while it is watched. It serves until kustomize-controller, which looks every 5 s, has seen
/// it healthy. Then three probes fail before it shows, and all that must be over while it is watched.
fn fails_later() -> Shape {
    Shape { serves: Some("15"), timeout: "14s", soak: "25s", ..Shape::default() }
}

/// An upgrade to a version that was healthy, took records and then failed while it was watched.
struct Soaked {
    app: App,
    /// The file that carries the version, as it was before.
    text: String,
    /// How many commits there were before.
    commits: usize,
    /// The records of the old version.
    before: Value,
    volumes: BTreeMap<String, (String, String)>,
    /// Digest of the volume with the records of both versions.
    written: String,
    upgrade: OperationStatus,
    /// When the copy was taken.
    taken_at: jiff::Timestamp,
}

async fn soaked(world: &World, app: App, policy: Option<AutoRollback>) -> anyhow::Result<Soaked> {
    let (text, commits) = (app.repo.read(&app.path)?, app.repo.commits()?);
    world.write(&app, 20).await?;
    let (before, volumes) = (world.records(&app).await?, world.volumes(&app).await?);
    let mut spec = upgrade_spec("notes", &[("image/notes", "4.0.0")]);
    spec.auto_rollback = policy;
    world.ask_upgrade(&app.name, "to-4.0.0", spec).await?;
    world.wait_ready(&app.name, "4.0.0", 1).await?;
    world.write(&app, 20).await?;
    let written = world.bytes(&volumes["notes-data"].1)?;
    let upgrade = world.upgrade_ended(&app.name, "to-4.0.0").await?;
    let message = upgrade.message.clone().unwrap_or_default();
    let healthy = entry(&upgrade, "verify/healthy")?;
    ensure!(healthy["state"] == "Done", "it was never seen healthy: {message}");
    let soak = entry(&upgrade, "verify/soak").with_context(|| message.clone())?;
    ensure!(soak["state"] != "Done" && message.contains("stayed healthy"), "it did not fail in the soak: {message}");
    let point = upgrade.restore_point.clone().context("no restore point")?;
    let taken_at = world.restore_point(&app, &point).await?.spec.taken_at.context("no time")?;
    Ok(Soaked { app, text, commits, before, volumes, written, upgrade, taken_at })
}

/// A version that serves and then fails in the soak: by default it stops and asks, saying what each choice would lose, and nothing
/// is touched.
pub(crate) async fn fails_in_the_soak(world: &World) -> anyhow::Result<String> {
    let soaked = soaked(world, world.manifests_app("j03soak", fails_later()).await?, None).await?;
    let Soaked { app, volumes, text, .. } = &soaked;
    expect(&soaked.upgrade, Outcome::NeedsRollback)?;
    let message = soaked.upgrade.message.clone().unwrap_or_default();
    let loses = format!("rolling back with data loses what was written since {}", soaked.taken_at);
    for choice in [&*loses, "rolling back and keeping the data", "leaving it keeps the new version"] {
        ensure!(message.contains(choice), "{choice:?} is not in: {message}");
    }
    ensure!(world.rollback_of(&app.name, "to-4.0.0").await?.is_empty(), "it was rolled back unasked");
    ensure!(world.volumes(app).await? == *volumes, "the app is on another volume");
    ensure!(world.bytes(&volumes["notes-data"].1)? == soaked.written, "its data was changed unasked");

    // Git says the new version, Flux works, and the new version runs, if unready: all of it is the person's to choose from.
    ensure!(app.repo.commits()? == soaked.commits + 1, "not exactly one commit was made");
    let bumped = text.replace("notes:1.0.0", "notes:4.0.0");
    let now = app.repo.read(&app.path)?;
    ensure!(bumped != *text && now == bumped, "the file is not that with the new version: {now}");
    let held_by = "/metadata/annotations/upgrades.windlass.dev~1held-by";
    for field in ["/spec/suspend", held_by] {
        same(field, &world.of_kustomization(app, field).await?, &Value::Null)?;
    }
    let left: Vec<&str> = soaked.upgrade.leftovers.iter().map(|left| left.object.as_str()).collect();
    ensure!(left == ["protect/notes-data"], "not the volume alone is listed, which stays on Retain: {left:?}");
    let deployments = world.dynamic("apps", "v1", "Deployment", &app.name).await?;
    same("replicas", &world.field(&deployments, "notes", "/spec/replicas").await?, &json!(1))?;
    let now = world.estate.clock().now().as_millisecond();
    world.only_ran(app, "4.0.0", now, i64::MAX).context("after it has asked")?;
    world.only_ran_since_the_cut(app, "4.0.0", &soaked.upgrade).await?;
    Ok(format!("{message}; {}", world.measured(app, &[&soaked.upgrade])?))
}

/// The same with `Always`: it restores, says since when writes are lost, and keeps the volume that has them. Its Kustomization had
/// `suspend: false`, and has it again.
pub(crate) async fn fails_in_the_soak_always(world: &World) -> anyhow::Result<String> {
    let mut app = world.manifests_app("j03always", fails_later()).await?;
    world.write_suspend_false(&mut app).await?;
    let soaked = soaked(world, app, Some(AutoRollback::Always)).await?;
    let Soaked { app, volumes, .. } = &soaked;
    expect(&soaked.upgrade, Outcome::RolledBack)?;
    let rollback = world.rolled_back(&app.name, "to-4.0.0").await?;
    expect(&rollback, Outcome::Succeeded)?;
    let request = world.rollbacks(&app.name).get(&world.rollback_of(&app.name, "to-4.0.0").await?).await?;
    let stated = request.spec.acknowledge_loss_since;
    ensure!(stated == Some(soaked.taken_at), "the loss is stated since {stated:?}, not {}", soaked.taken_at);
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    same("records", &world.records(app).await?, &soaked.before)?;
    let (old, new) = (&volumes["notes-data"], &world.volumes(app).await?["notes-data"]);
    ensure!(old.0 != new.0 && old.1 != new.1, "the claim is still on {old:?}");
    ensure!(world.bytes(&old.1)? == soaked.written, "the volume with the later writes was not kept");
    ensure!(app.repo.commits()? == soaked.commits + 2, "not exactly one commit and one revert were made");
    ensure!(app.repo.read(&app.path)? == soaked.text, "the file is not what it was");
    let blocked = world.blocked(app).await?;
    ensure!(blocked == ["image/notes 4.0.0"], "blocked: {blocked:?}");
    world.each_on_its_own_data(app, volumes, ("1.0.0", "4.0.0"), &soaked.upgrade, &rollback)?;
    world.nothing_is_left(app, &rollback).await?;
    world.measured(app, &[&soaked.upgrade, &rollback])
}
