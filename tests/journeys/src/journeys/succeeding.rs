//! Upgrades that succeed, and what a person may do afterwards.

use anyhow::{Context, ensure};
use kube::api::ListParams;
use serde_json::json;
use windlass_api::{Outcome, RollbackData, RollbackTo};
use windlass_cli::Exit;

use super::checks::same;
use crate::estate::{OPERATOR_USER, Request};
use crate::fixture::Shape;
use crate::request::{expect, rollback_spec, upgrade_spec};
use crate::world::World;
use crate::writer::Writer;

/// Deployment and claim by a Kustomization: one changed line, and success only once the new version's process runs.
pub(crate) async fn deployment(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j01", Shape::default()).await?;
    let pod = world.ready_pods(&app.name).await?.first().context("no pod")?.0.clone();
    let writer = Writer::start(world.estate.app(&app.name, &pod).await?);
    writer.reaches(50).await?;
    let commits = app.repo.commits()?;
    world.ask_upgrade(&app.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    let status = world.upgrade_ended(&app.name, "to-1.1.0").await?;
    let running = world.ready_pods(&app.name).await?;
    expect(&status, Outcome::Succeeded)?;
    ensure!(running.len() == 1 && running[0].1.ends_with(":1.1.0"), "success was reported while {running:?} ran");
    world.ran_at_the_end(&app, "1.1.0", 1, &status)?;
    world.only_ran_since_the_cut(&app, "1.1.0", &status).await?;
    let acknowledged = writer.refused().await?;
    ensure!(app.repo.commits()? == commits + 1, "not exactly one commit was made");
    let numstat = app.repo.numstat("HEAD")?;
    ensure!(numstat == format!("1 1 {}", app.path), "numstat: {numstat}");
    let kept = world.estate.app(&app.name, &running[0].0).await?.records().await?;
    same("records", &kept["count"], &json!(acknowledged))?;
    world.holds(&app, "notes-data", acknowledged).await?;
    world.nothing_is_left(&app, &status).await?;
    let figures = world.measured(&app, &[&status])?;
    Ok(format!("{figures}; acknowledged before stop: {acknowledged}, lost: 0; numstat {numstat}"))
}

/// StatefulSet of two by a HelmRelease: chart and image in one commit, and replicas back although the chart omits them.
pub(crate) async fn statefulset(world: &World) -> anyhow::Result<String> {
    let app = world.release_app("j02", Shape::default()).await?;
    world.write_to_each(&app).await?;
    let (volumes, bytes) = (world.volumes(&app).await?, world.bytes_by_claim(&app).await?);
    let claims = world.declared_claims(&app).await?;
    let commits = app.repo.commits()?;
    let spec = upgrade_spec("notes", &[("chart", "1.1.0"), ("image/notes", "1.1.0")]);
    world.ask_upgrade(&app.name, "to-1.1.0", spec).await?;
    let status = world.upgrade_ended(&app.name, "to-1.1.0").await?;
    expect(&status, Outcome::Succeeded)?;
    let running = world.ready_pods(&app.name).await?;
    ensure!(running.len() == 2 && running.iter().all(|(_, image)| image.ends_with(":1.1.0")), "{running:?}");
    world.ran_at_the_end(&app, "1.1.0", 2, &status)?;
    world.only_ran_since_the_cut(&app, "1.1.0", &status).await?;
    world.chart_is_deployed(&app, "1.1.0").await?;
    ensure!(app.repo.commits()? == commits + 1, "not exactly one commit was made");
    let numstat = app.repo.numstat("HEAD")?;
    ensure!(numstat == format!("2 2 {}", app.path), "numstat: {numstat}");
    ensure!(world.volumes(&app).await? == volumes, "the app is on other volumes");
    let declared = world.declared_claims(&app).await?;
    ensure!(declared == claims, "the claims are {declared:?} instead of {claims:?}");
    let kept = world.bytes_by_claim(&app).await?;
    ensure!(kept == bytes, "the bytes are {kept:?} instead of {bytes:?}");
    world.nothing_is_left(&app, &status).await?;
    Ok(format!("{}; numstat {numstat}", world.measured(&app, &[&status])?))
}

/// After a success: with the data restored (the loss is stated first), and with the data kept.
pub(crate) async fn a_person_rolls_back(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j04", Shape::default()).await?;
    let (commits, text) = (app.repo.commits()?, app.repo.read(&app.path)?);
    let pod = world.ready_pods(&app.name).await?.first().context("no pod")?.0.clone();
    let writer = Writer::start(world.estate.app(&app.name, &pod).await?);
    writer.reaches(20).await?;
    let before = writer.stop().await?;
    world.ask_upgrade(&app.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    let upgraded = world.upgrade_ended(&app.name, "to-1.1.0").await?;
    expect(&upgraded, Outcome::Succeeded)?;
    let up = world.measured(&app, &[&upgraded])?;
    let pod = world.ready_pods(&app.name).await?.first().context("no pod")?.0.clone();
    let writer = Writer::start(world.estate.app(&app.name, &pod).await?);
    writer.reaches(20).await?;
    let after = writer.stop().await?;

    // Without saying that the loss was seen, it is stated and refused.
    let to = RollbackTo { upgrade_request: Some("to-1.1.0".into()), restore_point: None };
    let spec = rollback_spec("notes", to.clone(), RollbackData::Restore);
    world.ask_rollback(&app.name, "unacknowledged", spec.clone()).await?;
    let refused = world.rollback_ended(&app.name, "unacknowledged").await?;
    expect(&refused, Outcome::Refused)?;
    let message = refused.message.unwrap_or_default();
    ensure!(message.contains("loss-not-acknowledged") && message.contains("is lost"), "{message}");

    let mut acknowledged = spec;
    let point = upgraded.restore_point.clone().context("no restore point")?;
    let points: kube::Api<windlass_api::RestorePoint> = kube::Api::namespaced(world.client.clone(), &app.name);
    acknowledged.acknowledge_loss_since = points.get(&point).await?.spec.taken_at;
    world.ask_rollback(&app.name, "with-data", acknowledged).await?;
    let restored = world.rollback_ended(&app.name, "with-data").await?;
    expect(&restored, Outcome::Succeeded)?;
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    let pod = world.ready_pods(&app.name).await?.first().context("no pod")?.0.clone();
    let kept = world.estate.app(&app.name, &pod).await?.records().await?;
    same("records after the restore", &kept["count"], &json!(before))?;
    ensure!(app.repo.read(&app.path)? == text, "after the restore the file is not what it was");
    ensure!(app.repo.commits()? == commits + 2, "not exactly one commit and one back were made");
    world.nothing_is_left(&app, &restored).await?;
    let with_data = world.measured(&app, &[&restored])?;

    // Up again to another version, and back with the data kept.
    world.ask_upgrade(&app.name, "to-1.2.0", upgrade_spec("notes", &[("image/notes", "1.2.0")])).await?;
    let again = world.upgrade_ended(&app.name, "to-1.2.0").await?;
    expect(&again, Outcome::Succeeded)?;
    let up_again = world.measured(&app, &[&again])?;
    let written = before + world.write(&app, 20).await?;
    let (records, volumes) = (world.records(&app).await?, world.volumes(&app).await?);
    let to = RollbackTo { upgrade_request: Some("to-1.2.0".into()), restore_point: None };
    world.ask_rollback(&app.name, "keeping", rollback_spec("notes", to, RollbackData::Keep)).await?;
    let back = world.rollback_ended(&app.name, "keeping").await?;
    expect(&back, Outcome::Succeeded)?;
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    same("records that were to be kept", &world.records(&app).await?, &records)?;
    world.holds(&app, "notes-data", written).await?;
    ensure!(world.volumes(&app).await? == volumes, "the data was kept, but not on its volume");
    ensure!(app.repo.read(&app.path)? == text, "the data was kept, but the file is not what it was");
    ensure!(app.repo.commits()? == commits + 4, "not exactly one more commit and one back were made");
    world.nothing_is_left(&app, &back).await?;
    let blocked = world.blocked(&app).await?;
    ensure!(blocked == ["image/notes 1.1.0", "image/notes 1.2.0"], "blocked: {blocked:?}");
    Ok(format!(
        "up {up}; with data {with_data}, {after} later writes given up knowingly; up again {up_again}; keeping {}",
        world.measured(&app, &[&back])?
    ))
}

/// A dry run and `windlass plan`: by the audit log only requests, their events and the lease were written, by the operator and by who
/// called the command; no ref has moved.
pub(crate) async fn dry_run(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j08", Shape::default()).await?;
    let refs = world.refs(&app)?;
    let before = world.estate.requests()?.len();
    let mut spec = upgrade_spec("notes", &[("image/notes", "1.1.0")]);
    spec.dry_run = Some(true);
    world.ask_upgrade(&app.name, "plan", spec).await?;
    let status = world.upgrade_ended(&app.name, "plan").await?;
    expect(&status, Outcome::Planned)?;
    let steps = status.plan.as_ref().and_then(|plan| plan["steps"].as_array()).map_or(0, Vec::len);
    ensure!(steps > 10, "the plan has {steps} steps");
    let written = world.effects_since(&app, before)?;
    ensure!(written.is_empty(), "a dry run wrote {written:?}");
    ensure!(world.refs(&app)? == refs, "a dry run moved a ref");

    let line = format!("plan app notes -n {} --to 1.1.0 --exit-code", app.name);
    let (exit, printed) = world.windlass(&line).await?;
    ensure!(exit == Exit::ChangesPending, "windlass {line} ended with {exit:?}: {printed}");
    ensure!(printed.contains("commit") && printed.contains("1.1.0"), "windlass {line} printed {printed}");
    let written = world.effects_since(&app, before)?;
    ensure!(written.is_empty(), "{line} wrote {written:?}");
    // The command makes a request of its own and deletes it again.
    let here = |request: &Request, resource: &str| {
        request.resource == format!("{}/{resource}", windlass_api::GROUP) && request.namespace == app.name
    };
    let person = world.estate.person();
    let (asked, others): (Vec<_>, Vec<_>) =
        world.written_by(&person, before)?.into_iter().partition(|request| here(request, "upgraderequests"));
    ensure!(others.is_empty(), "{person}, who called {line}, wrote {others:?}");
    // Were they logged under other names, nothing would have been looked at.
    ensure!(!asked.is_empty(), "the audit log does not show what {person} asked for");
    let answered = world.written_by(OPERATOR_USER, before)?;
    let is_answer = |request: &Request| here(request, "upgraderequests/status") && request.name == "plan";
    ensure!(answered.iter().any(is_answer), "the audit log does not show what {OPERATOR_USER} answered: {answered:?}");
    ensure!(world.refs(&app)? == refs, "{line} moved a ref");
    let left = world.upgrades(&app.name).list(&ListParams::default()).await?.items.len();
    ensure!(left == 1, "{line} left a request behind");
    Ok(format!("{steps} steps planned twice, nothing changed"))
}
