//! The operator is killed in the middle, again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::env::VarError;
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
use crate::request::{expect, upgrade_spec};
use crate::world::World;
use crate::writer::Writer;

/// Steps that only look: a kill inside them cuts nothing off.
const LOOKING: [&str; 4] = ["snapshot/verify/", "commit/carriers", "verify/", "swap/bound"];

/// How often it is all done again, for steps that the operator was not killed in.
const AGAIN: [&str; 4] = ["j10", "j10b", "j10c", "j10d"];

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
    let shape = Shape { timeout: "25s", snapshot_deadline: "10m", declares_replicas: true, ..Shape::default() };
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
    let seed: u64 = match std::env::var("WINDLASS_SEED") {
        Err(VarError::NotPresent) => 7,
        given => given?.parse().context("WINDLASS_SEED is no number")?,
    };
    let mut hunt = Hunt { random: Random(seed), killed_in: BTreeSet::new(), only: None };
    let mut steps = BTreeSet::new();
    let mut figures = Vec::new();
    for name in AGAIN {
        let ended = goes_back(world, name, async |app| hunt.follow(world, app).await).await;
        world.operator().freeze(false)?;
        let ended = ended.with_context(|| format!("WINDLASS_SEED={seed}, killed in {:?}", hunt.killed_in))?;
        let mut different = Vec::new();
        crate::crash::difference("", &calm, &ended.end, &mut different);
        ensure!(different.is_empty(), "WINDLASS_SEED={seed}: the end of {name} differs: {}", different.join("; "));
        steps.extend(worked_on("up", name, &ended.upgrade));
        steps.extend(worked_on("back", name, &ended.rollback));
        figures.push(world.measured(&ended.app, &[&ended.upgrade, &ended.rollback])?);
        let missed: BTreeSet<String> = steps.difference(&hunt.killed_in).cloned().collect();
        if missed.is_empty() {
            break;
        }
        figures.push(format!("not in {missed:?}: once more"));
        hunt.only = Some(missed);
    }
    let missed: Vec<&String> = steps.difference(&hunt.killed_in).collect();
    ensure!(missed.is_empty(), "WINDLASS_SEED={seed}: not killed in {missed:?}");
    ensure!(steps.len() >= 20, "WINDLASS_SEED={seed}: only {steps:?} changed something");
    Ok(format!("WINDLASS_SEED={seed}, killed in each of {} steps; {}", steps.len(), figures.join("; ")))
}

/// Who kills the operator, and where.
struct Hunt {
    random: Random,
    /// The steps it was killed in.
    killed_in: BTreeSet<String>,
    /// Only in these, and as soon as it is seen there; otherwise in every step, now or a little later.
    only: Option<BTreeSet<String>>,
}

impl Hunt {
    /// Kills the operator once in each step that is aimed at, until upgrade and rollback have ended. It runs in slow motion: never for
    /// longer than a glance, so that no step is over before somebody has looked.
    async fn follow(&mut self, world: &World, app: &App) -> anyhow::Result<()> {
        let (said, heard) = mpsc::unbounded_channel();
        let _watches = [
            begins("up", app, world.upgrades(&app.name), &said),
            begins("back", app, world.rollbacks(&app.name), &said),
        ];
        let mut watched = Watched { heard, at: BTreeMap::new() };
        let (began, mut looked) = (Instant::now(), Instant::now());
        loop {
            ensure!(began.elapsed() < Duration::from_secs(600), "no end");
            watched.a_little_later(world).await?;
            if self.aims_at(&watched) {
                let pause = if self.only.is_some() { 0 } else { self.random.below(3) };
                for _ in 0..pause {
                    watched.a_glance_later(world).await?;
                }
                if self.aims_at(&watched) {
                    world.operator().kill()?;
                    // Where it was when it died; it may have gone on meanwhile.
                    let (upgrade, rollback) = both(world, app).await?;
                    let at = newest_step("up", &app.name, &upgrade)
                        .into_iter()
                        .chain(newest_step("back", &app.name, &rollback));
                    self.killed_in.extend(at);
                    watched.forget();
                    world.operator().start()?;
                }
                continue;
            }
            if looked.elapsed() > Duration::from_secs(1) {
                looked = Instant::now();
                let (upgrade, rollback) = both(world, app).await?;
                if rollback.outcome.is_some() {
                    return Ok(());
                }
                let goes_on = upgrade.outcome.is_none_or(|outcome| outcome == Outcome::RolledBack);
                ensure!(goes_on, "{:?}", upgrade.message);
            }
        }
    }

    fn aims_at(&self, watched: &Watched) -> bool {
        let mut now = watched.at.values().flatten();
        now.any(|step| !self.killed_in.contains(step) && self.only.as_ref().is_none_or(|only| only.contains(step)))
    }
}

/// What the watches have said.
struct Watched {
    heard: mpsc::UnboundedReceiver<(&'static str, Option<String>)>,
    /// The changing step that each request is at.
    at: BTreeMap<&'static str, Option<String>>,
}

impl Watched {
    /// Until something was heard, but no longer than the operator may run unseen.
    async fn a_little_later(&mut self, world: &World) -> anyhow::Result<()> {
        let patience = if world.operator().freeze(false)? { world.estate.glance() } else { Duration::from_secs(1) };
        if let Ok(Some((request, step))) = tokio::time::timeout(patience, self.heard.recv()).await {
            self.at.insert(request, step);
        }
        self.look(world).await
    }

    async fn a_glance_later(&mut self, world: &World) -> anyhow::Result<()> {
        world.operator().freeze(false)?;
        tokio::time::sleep(world.estate.glance()).await;
        self.look(world).await
    }

    /// Has it stand still, where that can be had, until what it has written has arrived.
    async fn look(&mut self, world: &World) -> anyhow::Result<()> {
        if world.operator().freeze(true)? {
            tokio::time::sleep(world.estate.glance() * 2).await;
        }
        while let Ok((request, step)) = self.heard.try_recv() {
            self.at.insert(request, step);
        }
        Ok(())
    }

    fn forget(&mut self) {
        while self.heard.try_recv().is_ok() {}
        self.at.clear();
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

/// Says which changing step is being done, if any, whenever one of these requests was written.
fn begins<K>(
    prefix: &'static str,
    app: &App,
    api: Api<K>,
    said: &mpsc::UnboundedSender<(&'static str, Option<String>)>,
) -> Watch
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
{
    let (said, app) = (said.clone(), app.name.clone());
    Watch(tokio::spawn(async move {
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            let Ok(watcher::Event::Apply(request) | watcher::Event::InitApply(request)) = event else { continue };
            let status =
                serde_json::to_value(&request).ok().and_then(|mut json| json.get_mut("status").map(Value::take));
            let status = status.and_then(|status| serde_json::from_value(status).ok()).unwrap_or_default();
            let _ = said.send((prefix, newest_step(prefix, &app, &status)));
        }
    }))
}

/// The changing step that is being done.
fn newest_step(prefix: &str, app: &str, status: &OperationStatus) -> Option<String> {
    let entries = status.journal.as_ref()?["entries"].as_array()?;
    let busy = entries.iter().rev().find(|entry| entry["state"] == "Doing")?;
    busy["step"].as_str().filter(|step| changes(step)).map(|step| called(prefix, app, step))
}

/// The changing steps that were done.
fn worked_on(prefix: &str, app: &str, status: &OperationStatus) -> Vec<String> {
    let entries = status.journal.as_ref().and_then(|journal| journal["entries"].as_array()).into_iter().flatten();
    let done = entries.filter(|entry| entry["begun"] == true && entry["finishedAt"].is_string());
    done.filter_map(|entry| entry["step"].as_str().filter(|id| changes(id))).map(|id| called(prefix, app, id)).collect()
}

/// A step by the name that it has in each round.
fn called(prefix: &str, app: &str, step: &str) -> String {
    let names: Vec<&str> = step.split('/').map(|part| if part == app { "app" } else { part }).collect();
    format!("{prefix}:{}", names.join("/"))
}

fn changes(step: &str) -> bool {
    !LOOKING.iter().any(|looks| step.starts_with(looks))
}

/// A small deterministic generator: the seed is printed, so that a run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(limit)).unwrap_or(0)
    }
}
