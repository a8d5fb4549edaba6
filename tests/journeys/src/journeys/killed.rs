//! The operator is killed in the middle, again and again.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::StreamExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use windlass_api::{OperationStatus, Outcome};

use super::checks::same;
use crate::fixture::{App, Shape};
use crate::request::{begun_at, done_at, expect, upgrade_spec};
use crate::world::World;
use crate::writer::Writer;

/// Steps that only wait and look: a kill inside them cuts nothing off.
const WAITING: [&str; 6] =
    ["stop/wait", "snapshot/verify/", "commit/carriers", "release/attempt/", "verify/", "swap/bound"];

/// How a journey to a version that never becomes ready ended, and what remains to be said about it.
struct Failed {
    app: App,
    upgrade: OperationStatus,
    rollback: OperationStatus,
    end: Value,
}

/// An upgrade to 3.0.0 and its rollback; `meanwhile` returns once both have ended.
async fn goes_back(
    world: &World,
    name: &str,
    meanwhile: impl AsyncFnOnce(&App) -> anyhow::Result<()>,
) -> anyhow::Result<Failed> {
    let shape = Shape { timeout: "25s", snapshot_deadline: "10m", ..Shape::default() };
    let app = world.manifests_app(name, shape).await?;
    let writer = Writer::start(world.estate.app(&app.name, &world.only_pod(&app).await?).await?);
    writer.reaches(100).await?;
    let commits = app.repo.commits()?;
    let text = app.repo.read(&app.path)?;
    world.ask_upgrade(&app.name, "to-3.0.0", upgrade_spec("notes", &[("image/notes", "3.0.0")])).await?;
    meanwhile(&app).await?;
    let upgrade = world.upgrade_ended(&app.name, "to-3.0.0").await?;
    expect(&upgrade, Outcome::RolledBack)?;
    let rollback = world.rolled_back(&app.name, "to-3.0.0").await?;
    expect(&rollback, Outcome::Succeeded)?;
    let acknowledged = writer.refused().await?;
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    same("records", &world.records(&app).await?["count"], &json!(acknowledged))?;
    world.holds(&app, "notes-data", acknowledged).await?;
    ensure!(app.repo.commits()? == commits + 2, "not exactly one commit and one revert were made");
    ensure!(app.repo.read(&app.path)? == text, "the file is not what it was");
    world.nothing_is_left(&app, &rollback).await?;
    let end = world.state_of(&app.name).await?;
    Ok(Failed { app, upgrade, rollback, end })
}

/// The operator is killed again and again, inside every step that changes something; the end is that of a run without a kill.
pub(crate) async fn killed(world: &World) -> anyhow::Result<String> {
    // The journey that failed in the same way will do, where it was run before on the same servers.
    let before = world.upgrades("j03").get_opt("to-3.0.0").await?.and_then(|found| found.status);
    let calm = match before {
        Some(status) if status.outcome == Some(Outcome::RolledBack) => world.state_of("j03").await?,
        _ => goes_back(world, "j10calm", async |_| Ok(())).await?.end,
    };
    let seed: u64 = std::env::var("WINDLASS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    let mut killed_in = Vec::new();
    let killed = goes_back(world, "j10", async |app| kill_in_every_step(world, app, seed, &mut killed_in).await).await;
    let killed = killed.with_context(|| format!("WINDLASS_SEED={seed}, killed in {killed_in:?}"))?;
    let mut different = Vec::new();
    crate::crash::difference("", &calm, &killed.end, &mut different);
    ensure!(different.is_empty(), "WINDLASS_SEED={seed}: the end differs: {}", different.join("; "));
    ensure!(killed_in.len() >= 20, "WINDLASS_SEED={seed}: killed only in {killed_in:?}");

    // Whoever looks may miss a step that is over soon after it has begun.
    let over_soon = 50 * i64::try_from(world.estate.glance().as_millis())?;
    let mut steps = worked_on("up", &killed.upgrade)?;
    steps.extend(worked_on("back", &killed.rollback)?);
    steps.retain(|(step, _)| !killed_in.contains(step));
    let missed: Vec<&(String, i64)> = steps.iter().filter(|(_, took)| *took > over_soon).collect();
    ensure!(missed.is_empty(), "WINDLASS_SEED={seed}: not killed in {missed:?} (ms)");
    let short: Vec<&str> = steps.iter().map(|(step, _)| step.as_str()).collect();
    Ok(format!(
        "WINDLASS_SEED={seed}, killed in {} steps, too short for it: {}; {}",
        killed_in.len(),
        short.join(" "),
        world.measured(&killed.app, &[&killed.upgrade, &killed.rollback])?
    ))
}

/// Kills the operator as soon as the journal says that a step was begun, once in each, until upgrade and rollback have ended.
async fn kill_in_every_step(world: &World, app: &App, seed: u64, killed_in: &mut Vec<String>) -> anyhow::Result<()> {
    let (said, mut begun) = mpsc::unbounded_channel();
    let _watches = [begins("up", world.upgrades(&app.name), &said), begins("back", world.rollbacks(&app.name), &said)];
    let mut random = Random(seed);
    let began = Instant::now();
    loop {
        ensure!(began.elapsed() < Duration::from_secs(600), "no end");
        if let Ok(Some(step)) = tokio::time::timeout(Duration::from_secs(1), begun.recv()).await
            && killed_in.len() < 64
            && !killed_in.contains(&step)
        {
            tokio::time::sleep(world.estate.glance() * random.below(3)).await;
            world.operator().kill()?;
            // Where it was when it died; it may have gone on meanwhile.
            let (upgrade, rollback) = both(world, app).await?;
            let at = newest_step("up", &upgrade).into_iter().chain(newest_step("back", &rollback)).next_back();
            killed_in.extend(at.filter(|step| !killed_in.contains(step)));
            while begun.try_recv().is_ok() {}
            world.operator().start()?;
            continue;
        }
        let (upgrade, rollback) = both(world, app).await?;
        if rollback.outcome.is_some() {
            return Ok(());
        }
        ensure!(upgrade.outcome.is_none_or(|outcome| outcome == Outcome::RolledBack), "{:?}", upgrade.message);
    }
}

async fn both(world: &World, app: &App) -> anyhow::Result<(OperationStatus, OperationStatus)> {
    let upgrade = world.upgrades(&app.name).get("to-3.0.0").await?.status.unwrap_or_default();
    let rollback = match &upgrade.rollback {
        Some(name) => world.rollbacks(&app.name).get_opt(name).await?,
        None => None,
    };
    Ok((upgrade, rollback.and_then(|found| found.status).unwrap_or_default()))
}

/// A task that ends with its handle.
struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Says which changing step is being done, whenever one of these requests was written.
fn begins<K>(prefix: &'static str, api: Api<K>, said: &mpsc::UnboundedSender<String>) -> Watch
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
{
    let said = said.clone();
    Watch(tokio::spawn(async move {
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            let Ok(watcher::Event::Apply(request) | watcher::Event::InitApply(request)) = event else { continue };
            let status =
                serde_json::to_value(&request).ok().and_then(|mut json| json.get_mut("status").map(Value::take));
            let status = status.and_then(|status| serde_json::from_value(status).ok()).unwrap_or_default();
            if let Some(step) = newest_step(prefix, &status) {
                let _ = said.send(step);
            }
        }
    }))
}

/// The changing step that is being done.
fn newest_step(prefix: &str, status: &OperationStatus) -> Option<String> {
    let entries = status.journal.as_ref()?["entries"].as_array()?.clone();
    let busy = entries.into_iter().rev().find(|entry| entry["state"] == "Doing")?;
    let step = busy["step"].as_str().filter(|step| changes(step))?;
    Some(format!("{prefix}:{step}"))
}

/// The changing steps that were done, and for how many milliseconds each was worked on.
fn worked_on(prefix: &str, status: &OperationStatus) -> anyhow::Result<Vec<(String, i64)>> {
    let entries =
        status.journal.as_ref().and_then(|journal| journal["entries"].as_array()).cloned().unwrap_or_default();
    let mut found = Vec::new();
    for entry in entries.iter().filter(|entry| entry["begun"] == true && entry["finishedAt"].is_string()) {
        let Some(id) = entry["step"].as_str().filter(|id| changes(id)) else { continue };
        found.push((format!("{prefix}:{id}"), done_at(status, id)? - begun_at(status, id)?));
    }
    Ok(found)
}

fn changes(step: &str) -> bool {
    !WAITING.iter().any(|waits| step.starts_with(waits))
}

/// A small deterministic generator: the seed is printed, so that a run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(limit)).unwrap_or(0)
    }
}
