//! Helm releases that fail, each in a way that has misled others: a stalled release, a success without pods, a pod that starts too
//! early, a timeout that is none.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use windlass_api::{OperationStatus, Outcome};

use super::checks::same;
use crate::fixture::{App, Shape};
use crate::request::{begun_at, expect, upgrade_spec};
use crate::world::{World, wait};

/// What a failing Helm release needs: patience that is short enough to watch it end.
fn impatient() -> Shape {
    Shape { timeout: "12s", helm_timeout: "4s", ..Shape::default() }
}

impl World {
    async fn release_status(&self, app: &App) -> anyhow::Result<Value> {
        let api = self.dynamic("helm.toolkit.fluxcd.io", "v2", "HelmRelease", &app.name).await?;
        self.field(&api, "notes", "/status").await
    }

    /// An upgrade to the broken version, up to where its rollback makes copies; there it is held until volumes can be made again.
    async fn fails_and_is_held(&self, app: &App) -> anyhow::Result<()> {
        self.hold_volumes(true)?;
        let spec = upgrade_spec("notes", &[("chart", "3.0.0"), ("image/notes", "3.0.0")]);
        self.ask_upgrade(&app.name, "to-3.0.0", spec).await?;
        wait("the rollback to be made", Duration::from_secs(180), || async {
            Ok(!self.rollback_of(&app.name, "to-3.0.0").await?.is_empty())
        })
        .await?;
        self.rollback_step_begun(&app.name, &self.rollback_of(&app.name, "to-3.0.0").await?, "restore/aside/").await
    }

    /// The app is on 1.0.0 again, and between the swap of its claims and its release nothing ran on them.
    async fn nothing_ran_too_early(&self, app: &App, rollback: &OperationStatus) -> anyhow::Result<()> {
        let swapped = begun_at(rollback, "swap/delete/")?;
        let released = begun_at(rollback, "release/resume/helmrelease")?;
        let early = self.ran_between(&app.name, swapped, released)?;
        ensure!(swapped < released && early.is_empty(), "between swap {swapped} and release {released} {early:?} ran");
        self.only_ran(app, "1.0.0", swapped, i64::MAX)
    }
}

/// Whether a condition of a Flux object is true.
fn is_true(status: &Value, kind: &str) -> bool {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|one| one["type"] == kind && one["status"] == "True")
}

/// A StatefulSet of two that never becomes ready comes back with the bytes of both claims, each where it was.
pub(crate) async fn never_ready(world: &World) -> anyhow::Result<String> {
    let app = world.release_app("j03set", impatient()).await?;
    world.write_to_each(&app).await?;
    let text = app.repo.read(&app.path)?;
    let bytes = world.bytes_by_claim(&app).await?;
    let volumes = world.volumes(&app).await?;
    ensure!(bytes[0].1 != bytes[1].1, "both claims hold the same bytes: nothing could be told from them");
    let spec = upgrade_spec("notes", &[("chart", "3.0.0"), ("image/notes", "3.0.0")]);
    world.ask_upgrade(&app.name, "to-3.0.0", spec).await?;
    let upgrade = world.upgrade_ended(&app.name, "to-3.0.0").await?;
    expect(&upgrade, Outcome::RolledBack)?;
    let rollback = world.rolled_back(&app.name, "to-3.0.0").await?;
    expect(&rollback, Outcome::Succeeded)?;
    world.wait_ready(&app.name, "1.0.0", 2).await?;
    let kept = world.bytes_by_claim(&app).await?;
    ensure!(kept == bytes, "the bytes are {kept:?} instead of {bytes:?}");
    for (claim, (_, handle)) in &volumes {
        let spoiled = world.bytes(handle)?;
        ensure!(bytes.iter().all(|(_, digest)| *digest != spoiled), "the new version has not touched {claim}");
    }
    ensure!(app.repo.read(&app.path)? == text, "the file is not what it was");
    world.each_on_its_own_data(&app, &volumes, ("1.0.0", "3.0.0"), &upgrade, &rollback)?;
    world.chart_is_deployed(&app, "1.0.0").await?;
    world.nothing_is_left(&app, &rollback).await?;
    Ok(format!("2 claims; {}", world.measured(&app, &[&upgrade, &rollback])?))
}

/// The failed upgrade has left the HelmRelease stalled, and the rollback suspends it so. Its Kustomization cannot become ready
/// before it is resumed: whoever waited for that would wait for ever.
pub(crate) async fn stalled(world: &World) -> anyhow::Result<String> {
    let shape = Shape { helm_upgrade: "{}", chart_replicas: Some(2), timeout: "60s", ..impatient() };
    let app = world.release_app("t19", shape).await?;
    world.write_to_each(&app).await?;
    let bytes = world.bytes_by_claim(&app).await?;
    let seen = async {
        world.fails_and_is_held(&app).await?;
        let api = world.dynamic("helm.toolkit.fluxcd.io", "v2", "HelmRelease", &app.name).await?;
        same("suspend", &world.field(&api, "notes", "/spec/suspend").await?, &json!(true))?;
        let status = world.release_status(&app).await?;
        ensure!(is_true(&status, "Stalled"), "the HelmRelease is not stalled: {}", status["conditions"]);
        Ok(())
    };
    let seen = seen.await;
    world.hold_volumes(false)?;
    seen?;
    let rollback = world.rolled_back(&app.name, "to-3.0.0").await?;
    expect(&rollback, Outcome::Succeeded)?;
    world.wait_ready(&app.name, "1.0.0", 2).await?;
    let kept = world.bytes_by_claim(&app).await?;
    ensure!(kept == bytes, "the bytes are {kept:?} instead of {bytes:?}");
    world.nothing_ran_too_early(&app, &rollback).await?;
    world.nothing_is_left(&app, &rollback).await?;
    Ok(format!("stalled and suspended; {}", world.measured(&app, &[&rollback])?))
}

/// Helm reports success over a version that can never start, because nothing runs yet: that is no success of ours.
pub(crate) async fn success_without_pods(world: &World) -> anyhow::Result<String> {
    let upgrade = "{disableWait: true, strategy: {name: RetryOnFailure}}";
    let app = world.release_app("t20", Shape { helm_upgrade: upgrade, ..impatient() }).await?;
    world.write_to_each(&app).await?;
    let (volumes, bytes) = (world.volumes(&app).await?, world.bytes_by_claim(&app).await?);
    // Nobody has published that image.
    world.ask_upgrade(&app.name, "to-5.0.0", upgrade_spec("notes", &[("image/notes", "5.0.0")])).await?;
    let status = world.upgrade_ended(&app.name, "to-5.0.0").await?;
    expect(&status, Outcome::RolledBack)?;
    let rollback = world.rolled_back(&app.name, "to-5.0.0").await?;
    expect(&rollback, Outcome::Succeeded)?;
    // Helm did say so: its second release is a good one in its own books.
    let history = world.release_status(&app).await?["history"].clone();
    let second = history.as_array().and_then(|all| all.iter().find(|one| one["version"] == 2)).cloned();
    let second = second.with_context(|| format!("Helm's second release is not in {history}"))?;
    ensure!(second["status"] == "superseded", "Helm's second release is {}", second["status"]);
    world.wait_ready(&app.name, "1.0.0", 2).await?;
    let stopped = world.last_cut(&volumes["data-notes-0"].1)?;
    let back_released = begun_at(&rollback, "release/resume/helmrelease")?;
    let early = world.ran_between(&app.name, stopped, back_released)?;
    ensure!(early.is_empty(), "between cut {stopped} and release {back_released} {early:?} ran");
    world.only_ran(&app, "1.0.0", back_released, i64::MAX)?;
    let kept = world.bytes_by_claim(&app).await?;
    ensure!(kept == bytes, "the bytes are {kept:?} instead of {bytes:?}");
    world.nothing_is_left(&app, &rollback).await?;
    world.measured(&app, &[&status, &rollback])
}

/// The data is back and the revert is not there yet: replicas that were put back at this moment would start the broken version on
/// the restored data.
pub(crate) async fn replicas_too_early(world: &World) -> anyhow::Result<String> {
    let app = world.release_app("t21", impatient()).await?;
    world.write_to_each(&app).await?;
    let bytes = world.bytes_by_claim(&app).await?;
    let failed = world.fails_and_is_held(&app).await;
    world.estate.fetching(false).await?;
    world.hold_volumes(false)?;
    let held = async {
        failed?;
        world
            .rollback_step_begun(&app.name, &world.rollback_of(&app.name, "to-3.0.0").await?, "release/fetch/")
            .await?;
        let api = world.dynamic("apps", "v1", "StatefulSet", &app.name).await?;
        let image = world.field(&api, "notes", "/spec/template/spec/containers/0/image").await?;
        same("the template's image", &image, &json!("registry.test/notes:3.0.0"))?;
        // Long enough for a pod to come up, if somebody let it.
        tokio::time::sleep(Duration::from_secs(3)).await;
        same("replicas", &world.field(&api, "notes", "/spec/replicas").await?, &json!(0))
    };
    let held = held.await;
    world.estate.fetching(true).await?;
    held?;
    let rollback = world.rolled_back(&app.name, "to-3.0.0").await?;
    expect(&rollback, Outcome::Succeeded)?;
    world.wait_ready(&app.name, "1.0.0", 2).await?;
    world.nothing_ran_too_early(&app, &rollback).await?;
    let kept = world.bytes_by_claim(&app).await?;
    ensure!(kept == bytes, "the bytes are {kept:?} instead of {bytes:?}");
    world.nothing_is_left(&app, &rollback).await?;
    world.measured(&app, &[&rollback])
}

/// Helm gives up waiting, says so in words of its own, and tries again: by its state it works on, and the upgrade succeeds.
pub(crate) async fn timeout_by_state(world: &World) -> anyhow::Result<String> {
    let upgrade = "{strategy: {name: RetryOnFailure, retryInterval: 1s}}";
    let shape =
        Shape { helm_upgrade: upgrade, helm_timeout: "3s", chart_replicas: Some(2), timeout: "2m", ..Shape::default() };
    let app = world.release_app("t22", shape).await?;
    world
        .ask_upgrade(&app.name, "to-1.2.0", upgrade_spec("notes", &[("chart", "1.2.0"), ("image/notes", "1.2.0")]))
        .await?;
    let failed = |status: &Value| {
        let history = status["history"].as_array().cloned().unwrap_or_default();
        history.iter().any(|one| one["status"] == "failed" && one["chartVersion"] == "1.2.0")
    };
    wait("Helm to give up once", Duration::from_secs(60), || async { Ok(failed(&world.release_status(&app).await?)) })
        .await?;
    let status = world.upgrade_ended(&app.name, "to-1.2.0").await?;
    expect(&status, Outcome::Succeeded)?;
    world.wait_ready(&app.name, "1.2.0", 2).await?;
    ensure!(world.rollback_of(&app.name, "to-1.2.0").await?.is_empty(), "it was rolled back");
    world.nothing_is_left(&app, &status).await?;
    world.measured(&app, &[&status])
}
