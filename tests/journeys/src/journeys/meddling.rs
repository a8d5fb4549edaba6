//! Others act meanwhile: they push, cancel, delete, upgrade a neighbour.

use std::time::Duration;

use anyhow::{Context, ensure};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use windlass_api::Outcome;
use windlass_rig::csi::{CallName, Control, Rule};

use crate::fixture::Shape;
use crate::request::{durations, entry, expect, upgrade_spec};
use crate::world::{World, wait};

/// Until the driver has begun to cut. A snapshot that is deleted before that is kept by the snapshot controllers until their next
/// look, up to a minute later, which is theirs and not what these journeys are about.
const CUTTING: Duration = Duration::from_millis(1500);

impl World {
    /// Makes the driver take its time over snapshots, so that there is time to meddle.
    fn slow_snapshots(&self, slow: bool) -> anyhow::Result<()> {
        let rules = if slow { vec![Rule::slow(CallName::CreateSnapshot, Duration::from_secs(4))] } else { Vec::new() };
        self.estate.control_driver(&Control { rules, ..Control::default() })
    }

    async fn cancel(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"spec": {"cancel": true}}));
        self.upgrades(namespace).patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

/// The operator is told to end in the middle: it does, quickly, and the next one goes on.
pub(crate) async fn terminated(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j10term", Shape::default()).await?;
    world.slow_snapshots(true)?;
    world.ask_upgrade(&app.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    world.step_begun(&app.name, "to-1.1.0", "snapshot/").await?;
    let took = world.operator().terminate().await;
    world.slow_snapshots(false)?;
    world.operator().start()?;
    let took = took?;
    ensure!(took < Duration::from_secs(5), "it took {took:?} to end");
    let status = world.upgrade_ended(&app.name, "to-1.1.0").await?;
    expect(&status, Outcome::Succeeded)?;
    world.nothing_is_left(&app, &status).await?;
    Ok(format!("ended in {:.2} s; {}", took.as_secs_f64(), durations(&status)))
}

/// Somebody pushes an unrelated file: both commits stand.
pub(crate) async fn unrelated_push(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j06", Shape::default()).await?;
    world.slow_snapshots(true)?;
    world.ask_upgrade(&app.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    world.step_begun(&app.name, "to-1.1.0", "snapshot/").await?;
    let pushed = app.repo.push(&[("README.md".into(), "Hello\n".into())], "Say hello");
    world.slow_snapshots(false)?;
    pushed?;
    let status = world.upgrade_ended(&app.name, "to-1.1.0").await?;
    expect(&status, Outcome::Succeeded)?;
    app.repo.pull()?;
    let log = app.repo.git(&["log", "--format=%s", "-3"])?;
    ensure!(
        log.contains("Say hello") && log.lines().next().is_some_and(|line| line.starts_with("Upgrade notes")),
        "{log}"
    );
    world.nothing_is_left(&app, &status).await?;
    Ok(durations(&status))
}

/// Somebody changes our own line: superseded, everything is released, their version is delivered.
pub(crate) async fn superseded(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j06own", Shape::default()).await?;
    world.slow_snapshots(true)?;
    world.ask_upgrade(&app.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    world.step_begun(&app.name, "to-1.1.0", "snapshot/").await?;
    let text = app.repo.read(&app.path)?.replace(":1.0.0", ":1.2.0");
    let pushed = app.repo.push(&[(app.path.clone(), text.clone())], "Take 1.2.0");
    world.slow_snapshots(false)?;
    pushed?;
    let status = world.upgrade_ended(&app.name, "to-1.1.0").await?;
    expect(&status, Outcome::Undone)?;
    let message = status.message.clone().unwrap_or_default();
    world.wait_ready(&app.name, "1.2.0", 1).await?;
    ensure!(app.repo.read(&app.path)? == text, "their line was changed");
    world.nothing_is_left(&app, &status).await?;
    Ok(message)
}

/// Cancel before the point of no return undoes; after it the operation goes forward.
pub(crate) async fn cancel(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j09", Shape { soak: "4s", ..Shape::default() }).await?;
    let commits = app.repo.commits()?;
    let text = app.repo.read(&app.path)?;
    world.slow_snapshots(true)?;
    world.ask_upgrade(&app.name, "early", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    world.step_begun(&app.name, "early", "snapshot/verify/").await?;
    tokio::time::sleep(CUTTING).await;
    let cancelled = world.cancel(&app.name, "early").await;
    world.slow_snapshots(false)?;
    cancelled?;
    let status = world.upgrade_ended(&app.name, "early").await?;
    expect(&status, Outcome::Cancelled)?;
    // Undone means the same tree; a commit that was made before the cancel arrived was reverted by one more.
    let made = if entry(&status, "commit/push/").is_ok_and(|entry| entry["begun"] == true) { 2 } else { 0 };
    ensure!(app.repo.commits()? == commits + made, "{} commits were made, not {made}", app.repo.commits()? - commits);
    ensure!(app.repo.read(&app.path)? == text, "the file is not what it was");
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    world.nothing_is_left(&app, &status).await?;

    world.ask_upgrade(&app.name, "late", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    world.step_begun(&app.name, "late", "verify/").await?;
    world.cancel(&app.name, "late").await?;
    let status = world.upgrade_ended(&app.name, "late").await?;
    expect(&status, Outcome::Succeeded)?;
    world.wait_ready(&app.name, "1.1.0", 1).await?;
    world.nothing_is_left(&app, &status).await?;
    Ok("before: undone; after: forward".into())
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
    world.slow_snapshots(true)?;
    world.ask_upgrade(&app.name, "early", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    world.step_begun(&app.name, "early", "snapshot/verify/").await?;
    tokio::time::sleep(CUTTING).await;
    let deleted = api.delete("early", &DeleteParams::default()).await;
    world.slow_snapshots(false)?;
    deleted?;
    gone("early").await?;
    ensure!(app.repo.commits()? == commits, "something was committed");
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    world.nothing_is_left(&app, &windlass_api::OperationStatus::default()).await?;

    world.ask_upgrade(&app.name, "late", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    world.step_begun(&app.name, "late", "verify/").await?;
    api.delete("late", &DeleteParams::default()).await?;
    gone("late").await?;
    world.wait_ready(&app.name, "1.1.0", 1).await?;
    ensure!(app.repo.commits()? == commits + 1, "not exactly one commit was made");
    world.nothing_is_left(&app, &windlass_api::OperationStatus::default()).await?;
    Ok("before: undone; after: forward".into())
}

/// What is refused, each with its reason, before any effect; and a rollback works where an upgrade would be refused.
pub(crate) async fn refusals(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j07", Shape::default()).await?;
    let head = app.repo.git(&["ls-remote", "origin", "refs/heads/main"])?;
    let mut seen = Vec::new();
    for (name, target, code) in [
        ("unknown", ("image/other", "1.1.0"), "unknown-component"),
        ("older", ("image/notes", "0.9.0"), "downgrade"),
        ("not-semver", ("image/notes", "latest"), "version-not-semver"),
    ] {
        world.ask_upgrade(&app.name, name, upgrade_spec("notes", &[target])).await?;
        let status = world.upgrade_ended(&app.name, name).await?;
        expect(&status, Outcome::Refused)?;
        let message = status.message.unwrap_or_default();
        ensure!(message.contains(code), "{name}: {message}");
        seen.push(code);
    }
    world.ask_upgrade(&app.name, "same", upgrade_spec("notes", &[("image/notes", "1.0.0")])).await?;
    expect(&world.upgrade_ended(&app.name, "same").await?, Outcome::NothingToDo)?;

    let kustomizations = world.dynamic("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "flux-system").await?;
    let suspend = |value: serde_json::Value| Patch::Merge(json!({"spec": {"suspend": value}}));
    kustomizations.patch(&app.name, &PatchParams::apply("a-person"), &suspend(json!(true))).await?;
    world.ask_upgrade(&app.name, "suspended", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    let status = world.upgrade_ended(&app.name, "suspended").await?;
    expect(&status, Outcome::Refused)?;
    let message = status.message.unwrap_or_default();
    ensure!(message.contains("suspended-by-others"), "{message}");
    seen.push("suspended-by-others");
    let still = world.field(&kustomizations, &app.name, "/spec/suspend").await?;
    ensure!(still == json!(true), "suspend is {still}");
    kustomizations.patch(&app.name, &PatchParams::apply("a-person"), &suspend(json!(null))).await?;

    // A file with an image-policy marker belongs to another writer.
    let text = app.repo.read(&app.path)?;
    let marked = text.replace("# the version", "# {\"$imagepolicy\": \"flux-system:notes\"}");
    app.repo.push(&[(app.path.clone(), marked)], "Let image automation do it")?;
    world.ask_upgrade(&app.name, "marked", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    let status = world.upgrade_ended(&app.name, "marked").await?;
    expect(&status, Outcome::Refused)?;
    let message = status.message.unwrap_or_default();
    ensure!(message.contains("image-policy-marker"), "{message}");
    seen.push("image-policy-marker");
    let moved = app.repo.git(&["ls-remote", "origin", "refs/heads/main"])?;
    app.repo.pull()?;
    ensure!(
        moved != head && app.repo.git(&["log", "-1", "--format=%s"])?.contains("Let image"),
        "somebody else committed"
    );
    world.wait_ready(&app.name, "1.0.0", 1).await.context("the app was touched")?;
    Ok(seen.join(", "))
}

/// Two apps under one Kustomization at once: one after the other, and both succeed.
pub(crate) async fn neighbours(world: &World) -> anyhow::Result<String> {
    let (one, other) = world.neighbours("j11a", "j11b", Shape::default()).await?;
    let spec = || upgrade_spec("notes", &[("image/notes", "1.1.0")]);
    world.ask_upgrade(&one.name, "to-1.1.0", spec()).await?;
    world.ask_upgrade(&other.name, "to-1.1.0", spec()).await?;
    let first = world.upgrade_ended(&one.name, "to-1.1.0").await?;
    let second = world.upgrade_ended(&other.name, "to-1.1.0").await?;
    expect(&first, Outcome::Succeeded)?;
    expect(&second, Outcome::Succeeded)?;
    world.wait_ready(&one.name, "1.1.0", 1).await?;
    world.wait_ready(&other.name, "1.1.0", 1).await?;
    let (a, b) = (span(&first)?, span(&second)?);
    ensure!(a.1 <= b.0 || b.1 <= a.0, "they were suspended at the same time: {a:?} {b:?}");
    Ok(format!("{}; {}", durations(&first), durations(&second)))
}

/// From the suspension to the resume, in milliseconds since 1970.
fn span(status: &windlass_api::OperationStatus) -> anyhow::Result<(i64, i64)> {
    Ok((crate::request::begun_at(status, "suspend/")?, crate::request::begun_at(status, "release/resume/")?))
}
