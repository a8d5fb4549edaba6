//! Crash at every effect: the same journey again and again, each time with the operator killed before, in the middle of or after one
//! of its writes or pushes and started again, until every one of them has been struck. All ends must be the same.

mod end_state;
mod pushes;
mod rules;

pub(crate) use end_state::{carried, difference, kept_by_driver, made, marks, ref_names};
pub(crate) use pushes::Pushes;
pub(crate) use rules::Rules;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::future::LocalBoxFuture;
use kube_sim::faults::CrashAt;
use kube_sim::server::AuditEntry;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use windlass_api::Outcome;

use crate::estate::{OPERATOR_USER, SimEstate};
use crate::fixture::{App, Shape};
use crate::request::{expect, upgrade_spec};
use crate::stop;
use crate::world::World;
use crate::writer::RECORD;

/// Until somebody starts the operator again.
const RESTART_AFTER: Duration = Duration::from_millis(500);

/// The term of the operator's lease, in seconds: long, because each renewal is a crash point like any other write.
const LEASE: u16 = 15;
/// Longer than that term, which a successor waits for.
const SETTLES: Duration = Duration::from_secs(30);

/// Where the runs without a crash are, one after the other, so that even their URLs are the same. A name of this process: others may
/// run at the same time, or have left theirs behind.
fn same_folder() -> String {
    format!("windlass-without-a-crash-{}", std::process::id())
}

/// A journey that always does the same, whatever the time.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    run: for<'a> fn(&'a World) -> LocalBoxFuture<'a, anyhow::Result<App>>,
}

/// The scenarios: an upgrade that succeeds, one that is rolled back with its data, and one that is undone with its commit.
pub(crate) const SCENARIOS: [Scenario; 3] = [
    Scenario { name: "02-statefulset-by-helmrelease", run: |world| Box::pin(succeeds(world)) },
    Scenario { name: "03-never-ready-is-rolled-back", run: |world| Box::pin(rolled_back(world)) },
    Scenario { name: "09-undone-after-the-push", run: |world| Box::pin(undone(world)) },
];

async fn write_records(world: &World, app: &App, count: u64) -> anyhow::Result<()> {
    for (pod, _) in world.ready_pods(&app.name).await? {
        let client = world.estate.app(&app.name, &pod).await?;
        for number in 0..count {
            ensure!(client.append(RECORD).await, "record {number} was refused by {pod}");
        }
    }
    Ok(())
}

/// A loss in every run would look like no difference: each is compared with what was acknowledged, too.
async fn are_there(world: &World, app: &App, count: u64) -> anyhow::Result<()> {
    for claim in &app.claims {
        world.holds(app, claim, count).await?;
    }
    Ok(())
}

async fn succeeds(world: &World) -> anyhow::Result<App> {
    let app = world.release_app("j02", Shape::default()).await?;
    write_records(world, &app, 20).await?;
    let spec = upgrade_spec("notes", &[("chart", "1.1.0"), ("image/notes", "1.1.0")]);
    world.ask_upgrade(&app.name, "to-1.1.0", spec).await?;
    expect(&world.upgrade_ended(&app.name, "to-1.1.0").await?, Outcome::Succeeded)?;
    world.wait_ready(&app.name, "1.1.0", 2).await?;
    are_there(world, &app, 20).await?;
    Ok(app)
}

async fn rolled_back(world: &World) -> anyhow::Result<App> {
    let app = world.manifests_app("j03", Shape { timeout: "45s", declares_replicas: true, ..Shape::default() }).await?;
    write_records(world, &app, 50).await?;
    world.ask_upgrade(&app.name, "to-3.0.0", upgrade_spec("notes", &[("image/notes", "3.0.0")])).await?;
    expect(&world.upgrade_ended(&app.name, "to-3.0.0").await?, Outcome::RolledBack)?;
    expect(&world.rolled_back(&app.name, "to-3.0.0").await?, Outcome::Succeeded)?;
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    are_there(world, &app, 50).await?;
    Ok(app)
}

async fn undone(world: &World) -> anyhow::Result<App> {
    let app = world.manifests_app("j09", Shape { declares_replicas: true, ..Shape::default() }).await?;
    write_records(world, &app, 20).await?;
    // Held where the push is over and nothing is released.
    world.estate.fetching(false).await?;
    world.ask_upgrade(&app.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    world.step_begun(&app.name, "to-1.1.0", "release/fetch/").await?;
    world.cancel(&app.name, "to-1.1.0").await?;
    world.estate.fetching(true).await?;
    expect(&world.upgrade_ended(&app.name, "to-1.1.0").await?, Outcome::Cancelled)?;
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    are_there(world, &app, 20).await?;
    Ok(app)
}

/// Where the operator is killed.
#[derive(Debug, Clone, Copy)]
enum Point {
    Write(u64, CrashAt),
    Push(u64, CrashAt),
}

/// What one run came to.
struct Run {
    end: Value,
    writes: u64,
    pushes: u64,
    /// The step in which it was killed; `None` when the point was not reached.
    struck_in: Option<String>,
    broken: Vec<String>,
    /// How many writes of everybody were looked at.
    looked_at: u64,
    /// A hash over all requests of everybody, in the order in which the server executed them, with their answers and revisions.
    trace: String,
}

fn one_run(scenario: &Scenario, seed: u64, point: Option<Point>) -> anyhow::Result<Run> {
    crate::virtual_time(async {
        let folder = point.is_none().then(same_folder);
        let estate = SimEstate::start(seed, LEASE, folder.as_deref()).await?;
        let (faults, pushes) = (estate.faults().clone(), estate.pushes().clone());
        let server = estate.server().clone();
        let rules = Rules::watch(&server, &pushes, estate.runs_of_pods());
        let (struck, mut restarts) = tokio::sync::mpsc::unbounded_channel();
        match point {
            Some(Point::Write(number, at)) => {
                let (pushes, rules) = (pushes.clone(), rules.clone());
                faults.crash(
                    OPERATOR_USER,
                    number,
                    at,
                    std::sync::Arc::new(move |_| {
                        pushes.strike();
                        let _ = struck.send(rules.current_step());
                    }),
                );
            }
            Some(Point::Push(number, at)) => {
                let rules = rules.clone();
                pushes.crash(number, at, std::sync::Arc::new(move || drop(struck.send(rules.current_step()))));
            }
            None => drop(struck),
        }
        let world = World::install(Box::new(estate)).await?;
        let mut struck_in = None;
        let app = {
            let journey = (scenario.run)(&world);
            tokio::pin!(journey);
            loop {
                tokio::select! {
                    app = &mut journey => break app?,
                    Some(step) = restarts.recv() => {
                        struck_in = Some(step);
                        tokio::time::sleep(RESTART_AFTER).await;
                        world.operator().start()?;
                    }
                }
            }
        };
        // What is written after the outcome belongs to the end, too.
        tokio::time::sleep(SETTLES).await;
        if point.is_some() && struck_in.is_none() {
            // "After" strikes with the next request, which for the last write counted comes later than the count was taken.
            struck_in = tokio::time::timeout(SETTLES, restarts.recv()).await.ok().flatten();
            if struck_in.is_some() {
                tokio::time::sleep(RESTART_AFTER).await;
                world.operator().start()?;
                tokio::time::sleep(SETTLES).await;
            }
        }
        let (writes, pushed) = (faults.mutations(OPERATOR_USER), pushes.count());
        if point.is_none() {
            // What is struck is counted before the server; what the server was asked for is in its own books.
            let asked = server.audit().iter().filter(|entry| is_struck(entry)).count();
            ensure!(u64::try_from(asked)? == writes, "the operator made {asked} writes, and {writes} are crash points");
        }
        let trace = Sha256::digest(format!("{:?}", server.audit())).iter().map(|byte| format!("{byte:02x}")).collect();
        let end = world.end_state(&app).await?;
        let (broken, looked_at) = rules.verdict();
        ensure!(looked_at > writes, "the rules were asked about {looked_at} writes, and the operator made {writes}");
        world.operator().kill()?;
        Ok(Run { end, writes, pushes: pushed, struck_in, broken, looked_at, trace })
    })
}

/// Whether a request is a crash point: a write of the operator that leaves something behind.
fn is_struck(entry: &AuditEntry) -> bool {
    let asks_about_rights = entry.group == "authorization.k8s.io" || entry.group == "authentication.k8s.io";
    entry.user == OPERATOR_USER && entry.is_mutating() && !entry.dry_run && !asks_about_rights
}

/// One row of the table.
#[derive(Default)]
struct Row {
    points: usize,
    same: usize,
}

/// Runs crash points of the chosen scenarios (all of them, or every so many) and prints the table.
///
/// # Errors
/// When a point was not reached, an end differs, or a rule was broken.
pub(crate) fn run(names: &[String], seed: u64, every: usize) -> anyhow::Result<()> {
    let (mut all, mut unreached, mut same) = (0, 0, 0);
    let mut failures = Vec::new();
    for scenario in
        SCENARIOS.iter().filter(|one| names.is_empty() || names.iter().any(|name| one.name.contains(name.as_str())))
    {
        let began = Instant::now();
        let baseline = one_run(scenario, seed, None).with_context(|| format!("{} without a crash", scenario.name))?;
        ensure!(baseline.broken.is_empty(), "{} without a crash: {:?}", scenario.name, baseline.broken);
        let again = one_run(scenario, seed, None).with_context(|| format!("{} once more", scenario.name))?;
        ensure!(baseline.trace == again.trace, "{}: the same seed made two different runs", scenario.name);
        let mut points = Vec::new();
        for at in [CrashAt::Before, CrashAt::ReplyLost, CrashAt::After] {
            points.extend((1..=baseline.writes).map(|number| Point::Write(number, at)));
            points.extend((1..=baseline.pushes).map(|number| Point::Push(number, at)));
        }
        let points: Vec<Point> = points.into_iter().step_by(every).collect();
        let results = strike_all(scenario, seed, &points);
        ensure!(stop::code().is_none(), "told to end");
        let mut rows: BTreeMap<String, Row> = BTreeMap::new();
        for (point, result) in points.iter().zip(results) {
            all += 1;
            let result = match result {
                Ok(result) => result,
                Err(error) => {
                    failures.push(format!("{} {point:?}: {error:#}", scenario.name));
                    continue;
                }
            };
            let Some(step) = result.struck_in else {
                unreached += 1;
                failures.push(format!("{} {point:?}: not reached", scenario.name));
                continue;
            };
            let row = rows.entry(step).or_default();
            row.points += 1;
            let mut different = Vec::new();
            difference("", &baseline.end, &result.end, &mut different);
            different.extend(result.broken.iter().map(|rule| format!("rule {rule}")));
            if different.is_empty() {
                same += 1;
                row.same += 1;
            } else {
                failures.push(format!("{} {point:?}: {}", scenario.name, different.join("; ")));
            }
        }
        println!(
            "crash {} (seed {seed}, {:.0} s): {} writes, {} pushes, each struck before, with the reply lost, and after; rules asked at {} writes a run",
            scenario.name,
            began.elapsed().as_secs_f64(),
            baseline.writes,
            baseline.pushes,
            baseline.looked_at
        );
        println!("  {:<58} {:>6} {:>14}", "killed in", "points", "same end state");
        for (step, row) in &rows {
            println!("  {step:<58} {:>6} {:>14}", row.points, row.same);
        }
    }
    println!("crash points: {all}, unreached: {unreached}, same end state: {same}");
    for failure in failures.iter().take(20) {
        println!("  {failure}");
    }
    ensure!(same == all && all > 0, "{} of {all} crash points did not end as without a crash", all - same);
    Ok(())
}

/// Every point in a world of its own, on all processors.
fn strike_all(scenario: &Scenario, seed: u64, points: &[Point]) -> Vec<anyhow::Result<Run>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<BTreeMap<usize, anyhow::Result<Run>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(point) = points.get(index).filter(|_| stop::code().is_none()) else { return };
                    let result = one_run(scenario, seed, Some(*point));
                    results.lock().unwrap().insert(index, result);
                }
            });
        }
    });
    results.into_inner().unwrap().into_values().collect()
}
