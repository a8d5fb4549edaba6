//! What is refused, each with its reason and before any effect; and what a rollback does not mind.

mod change;
mod table;

use anyhow::{Context, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use windlass_api::Outcome;

use self::change::{Change, On};
use self::table::Row;
use super::checks::same;
use crate::fixture::{App, Shape};
use crate::repo::Repo;
use crate::request::{expect, upgrade_spec};
use crate::world::World;

impl World {
    /// Everything about an app that an operation would change first.
    async fn untouched(&self, app: &App) -> anyhow::Result<Value> {
        let mut found = json!({"head": self.refs(app)?});
        for on in [On::Kustomization, On::GitRepository, On::HelmRelease] {
            let object = self.look(app, on).await?;
            found[format!("{on:?}")] = json!([object["spec"], object["metadata"]["annotations"]]);
        }
        for kind in ["Deployment", "StatefulSet"] {
            let api = self.dynamic("apps", "v1", kind, &app.name).await?;
            found[kind] = self.field(&api, "notes", "/spec/replicas").await?;
        }
        for claim in &app.claims {
            let volume = self.volume_of(&app.name, claim).await?;
            found[claim] = json!(volume.spec.and_then(|spec| spec.persistent_volume_reclaim_policy));
        }
        Ok(found)
    }

    /// Somebody makes the changes of a row and asks; then everything is taken back.
    async fn refuses(&self, app: &App, name: &str, row: &Row) -> anyhow::Result<()> {
        let mut undo = Vec::new();
        let result = self.asks_in_disorder(app, name, row, &mut undo).await;
        while let Some(undo) = undo.pop() {
            self.take_back(app, undo).await?;
        }
        result
    }

    async fn asks_in_disorder(
        &self,
        app: &App,
        name: &str,
        row: &Row,
        undo: &mut Vec<change::Undo>,
    ) -> anyhow::Result<()> {
        for change in &row.changes {
            undo.push(self.make(app, change).await?);
        }
        let before = self.untouched(app).await?;
        let mut spec = upgrade_spec("notes", &[row.target]);
        spec.accept = row.accept.iter().map(ToString::to_string).collect();
        self.ask_upgrade(&app.name, name, spec).await?;
        let status = self.upgrade_ended(&app.name, name).await?;
        expect(&status, Outcome::Refused)?;
        let message = status.message.unwrap_or_default();
        ensure!(gives(&message, row.code), "another reason was given: {message}");
        ensure!(status.plan.is_none() && status.journal.is_none(), "it was planned");
        same("what was found", &self.untouched(app).await?, &before)
    }

    /// One claim template more, which is refused below, is planned once somebody accepts it by its name.
    async fn plans_what_is_accepted(&self, app: &App) -> anyhow::Result<()> {
        let before = self.estate.requests()?.len();
        let mut spec = upgrade_spec("notes", &[("chart", "5.0.0")]);
        (spec.dry_run, spec.accept) = (Some(true), vec!["add-claim/cache-notes-0".to_owned()]);
        self.ask_upgrade(&app.name, "accepted", spec).await?;
        let status = self.upgrade_ended(&app.name, "accepted").await?;
        expect(&status, Outcome::Planned).context("a change that was accepted by name")?;
        let written = self.effects_since(app, before)?;
        ensure!(written.is_empty(), "the dry run wrote {written:?}");
        Ok(())
    }

    /// Nothing is applied or fetched by the clock, which would take changes back before they were seen.
    async fn slow_delivery(&self, app: &App) -> anyhow::Result<()> {
        for on in [On::GitRepository, On::Kustomization] {
            self.make(app, &Change::Patch(on, json!({"spec": {"interval": "1h"}}))).await?;
            self.until(app, on, "True").await?;
        }
        Ok(())
    }
}

/// Whether this code is among the reasons, which are joined by semicolons and begin with their codes.
fn gives(message: &str, code: &str) -> bool {
    message.split("; ").any(|reason| reason.strip_prefix(code).is_some_and(|rest| rest.starts_with(": ")))
}

/// One small change after another, each of which forbids an upgrade; nothing is written, and once all is taken back the upgrade
/// is done.
pub(crate) async fn refusals(world: &World) -> anyhow::Result<String> {
    let release = world.release_app("j07release", Shape::default()).await?;
    let plain = world.manifests_app("j07", Shape::default()).await?;
    // Another repository with the same file in it.
    let (path, text) = (plain.path.clone(), plain.repo.read(&plain.path)?);
    Repo::create(&world.estate.repository(change::OTHER).await?, &[(path, text)])?;
    world.plans_what_is_accepted(&release).await?;
    let mut tried = 0;
    let mut wrong = Vec::new();
    for (app, rows) in [(&release, table::release()), (&plain, table::plain())] {
        world.slow_delivery(app).await?;
        let requests = world.estate.requests()?.len();
        for (index, row) in rows.iter().enumerate() {
            let name = format!("{index}-{}", row.code);
            tried += 1;
            // One wrong row does not hide the others.
            if let Err(error) = world.refuses(app, &name, row).await {
                wrong.push(format!("{}: {error:#}", row.code));
            }
        }
        let mut written = world.effects_since(app, requests)?;
        // Who is at work on the app, and how that ended, is noted on it.
        let noted = format!("{}/managedapps/status {}/", windlass_api::GROUP, app.name);
        written.retain(|request| !request.starts_with(&noted));
        if !written.is_empty() {
            wrong.push(format!("refused requests of {} wrote {written:?}", app.name));
        }
    }
    ensure!(wrong.is_empty(), "of {tried} rows: {}", wrong.join("\n"));
    world.ask_upgrade(&plain.name, "in-order", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    let status = world.upgrade_ended(&plain.name, "in-order").await?;
    expect(&status, Outcome::Succeeded)?;
    world.nothing_is_left(&plain, &status).await?;
    Ok(format!("{tried} refused without an effect; in order again: {}", world.measured(&plain, &[&status])?))
}

/// Where an upgrade would be refused, because the way forward is in disorder, the way back is open.
pub(crate) async fn rollback_works(world: &World) -> anyhow::Result<String> {
    let app = world.manifests_app("j07back", Shape::default()).await?;
    world.write(&app, 20).await?;
    let before = world.records(&app).await?;
    world.ask_upgrade(&app.name, "to-1.1.0", upgrade_spec("notes", &[("image/notes", "1.1.0")])).await?;
    let upgraded = world.upgrade_ended(&app.name, "to-1.1.0").await?;
    expect(&upgraded, Outcome::Succeeded)?;
    world.slow_delivery(&app).await?;

    let mut undo = Vec::new();
    for change in [
        Change::Patch(On::Kustomization, json!({"spec": {"force": true}})),
        Change::Patch(On::ManagedApp, json!({"spec": {"policy": {"constraint": ">=2"}}})),
    ] {
        undo.push(world.make(&app, &change).await?);
    }
    // Somebody has tried a version by hand, and Flux does not look for an hour.
    world.until(&app, On::Kustomization, "True").await?;
    let deployments = world.dynamic("apps", "v1", "Deployment", &app.name).await?;
    let image = json!([{"name": "notes", "image": "registry.test/notes:1.2.0"}]);
    let patch = json!({"spec": {"template": {"spec": {"containers": image}}}});
    deployments.patch("notes", &PatchParams::default(), &Patch::Strategic(patch)).await.context("setting the image")?;
    world.wait_ready(&app.name, "1.2.0", 1).await?;
    let row = Row { code: "force", changes: Vec::new(), target: ("image/notes", "1.2.0"), accept: Vec::new() };
    world.refuses(&app, "onwards", &row).await?;
    let refused = world.upgrades(&app.name).get("onwards").await?.status.and_then(|status| status.message);
    let refused = refused.unwrap_or_default();
    for code in ["outside-constraint", "live-differs-from-git"] {
        ensure!(gives(&refused, code), "{code} is not among the reasons: {refused}");
    }

    let spec = world.back_before(&app, "to-1.1.0", &upgraded).await?;
    world.ask_rollback(&app.name, "back", spec).await?;
    let back = world.rollback_ended(&app.name, "back").await?;
    expect(&back, Outcome::Succeeded)?;
    world.wait_ready(&app.name, "1.0.0", 1).await?;
    same("records", &world.records(&app).await?, &before)?;
    while let Some(undo) = undo.pop() {
        world.take_back(&app, undo).await?;
    }
    world.nothing_is_left(&app, &back).await?;
    world.measured(&app, &[&upgraded, &back])
}
