//! What must have come of it. Each check says what was seen.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use windlass_api::foreign::{Kustomization, VolumeSnapshot};
use windlass_api::{RestorePoint, RollbackRequest, UpgradeRequest};

use super::stage::{APP, FILE, Stage, managed};
use super::story::say;
use crate::{Exit, Session};

/// Fails when a command ended otherwise.
pub(super) fn expect(exit: Exit, expected: Exit) -> anyhow::Result<()> {
    ensure!(exit == expected, "the command ended with {} instead of {}", exit.code(), expected.code());
    Ok(())
}

/// Checks everything and prints it; `false` when something is not as it should be.
pub(super) async fn check(session: &mut Session, stage: &Stage, kills: &[String]) -> anyhow::Result<bool> {
    let checks = [
        ("no acknowledged record is lost", records(stage).await),
        ("the rollback brought the bytes back", bytes(stage)),
        ("one line per commit, and every commit is accounted for", commits(stage)),
        ("the app runs what Git says", running(stage).await),
        ("the failed version is blocked", blocked(stage).await),
        ("nothing is suspended, held or left over", leftovers(stage).await),
        ("the app's claim is the only one, on a volume as it was", claims(stage).await),
        ("only volumes and copies are kept that a restore point names", copies(stage).await),
        ("the operator was really killed", killed(stage, kills)),
    ];
    let mut good = true;
    say(session, "\nChecks:")?;
    for (what, result) in checks {
        let line = match result {
            Ok(seen) => format!("  ok      {what}: {seen}"),
            Err(error) => {
                good = false;
                format!("  FAILED  {what}: {error:#}")
            }
        };
        say(session, &line)?;
    }
    Ok(good)
}

async fn records(stage: &Stage) -> anyhow::Result<String> {
    let pods = stage.ready_pods().await?;
    let (pod, _) = pods.first().context("no pod is ready")?;
    let summary = stage.playground.notes().summary(APP, pod).context("the app does not run")?;
    ensure!(summary.last == stage.acknowledged, "{} records, acknowledged were {}", summary.last, stage.acknowledged);
    Ok(format!("{} acknowledged, lost: 0", summary.last))
}

fn commits(stage: &Stage) -> anyhow::Result<String> {
    let log = stage.repository.log()?;
    let subjects: Vec<&str> = log.iter().map(|commit| commit.subject.as_str()).collect();
    ensure!(log.len() == 5, "{} commits: {subjects:?}", log.len());
    let ours = log.iter().take(4);
    for commit in ours.clone() {
        ensure!(commit.changes == [(1, 1, FILE.to_owned())], "{} changes {:?}", commit.subject, commit.changes);
    }
    let [_, reverted, _, before, _] = log.as_slice() else { anyhow::bail!("{} commits", log.len()) };
    ensure!(reverted.tree == before.tree, "the revert did not bring the bytes back");
    let lines: Vec<String> = ours
        .map(|commit| format!("\n            {} {}", commit.id.get(..8).unwrap_or_default(), commit.subject))
        .collect();
    Ok(format!("each `1 1 {FILE}`{}", lines.concat()))
}

async fn running(stage: &Stage) -> anyhow::Result<String> {
    let text = stage.repository.read(FILE)?;
    let pods = stage.ready_pods().await?;
    let [(pod, image)] = pods.as_slice() else { anyhow::bail!("{} pods are ready", pods.len()) };
    ensure!(text.contains(&format!("\"{image}\"  # the version")), "{image} runs, which is not what Git says");
    Ok(format!("{pod} runs {image}"))
}

async fn blocked(stage: &Stage) -> anyhow::Result<String> {
    let status = managed(&stage.client).await?.status.unwrap_or_default();
    let blocked: Vec<String> =
        status.blocked_versions.iter().map(|one| format!("{} {}", one.component, one.version)).collect();
    ensure!(blocked == ["image/notes 3.0.0"], "{blocked:?}");
    Ok(blocked.concat())
}

async fn leftovers(stage: &Stage) -> anyhow::Result<String> {
    let upgrades: Api<UpgradeRequest> = Api::namespaced(stage.client.clone(), APP);
    let rollbacks: Api<RollbackRequest> = Api::namespaced(stage.client.clone(), APP);
    let mut requests = 0;
    let statuses = upgrades.list(&ListParams::default()).await?.into_iter().filter_map(|one| one.status);
    let statuses =
        statuses.chain(rollbacks.list(&ListParams::default()).await?.into_iter().filter_map(|one| one.status));
    for status in statuses {
        ensure!(status.leftovers.is_empty(), "{:?}", status.leftovers);
        ensure!(status.outcome.is_some(), "a request has not ended");
        requests += 1;
    }
    let active = managed(&stage.client).await?.status.and_then(|status| status.active_operation);
    ensure!(active.is_none(), "{active:?} is active");
    let kustomizations: Api<Kustomization> = Api::namespaced(stage.client.clone(), "flux-system");
    let found = kustomizations.get(APP).await?;
    ensure!(found.spec.suspend.is_none(), "the Kustomization has spec.suspend");
    ensure!(!found.annotations().keys().any(|key| key.contains("windlass.dev")), "{:?}", found.annotations());
    let deployments: Api<Deployment> = Api::namespaced(stage.client.clone(), APP);
    let found = deployments.get(APP).await?;
    ensure!(!found.annotations().keys().any(|key| key.contains("/reconcile")), "{:?}", found.annotations());
    Ok(format!("{requests} requests, none with leftovers"))
}

fn bytes(stage: &Stage) -> anyhow::Result<String> {
    let [before, after] = stage.bytes.as_slice() else { anyhow::bail!("looked {} times", stage.bytes.len()) };
    ensure!(before == after, "{before} before 3.0.0, {after} after its rollback");
    Ok(format!("sha256 {}", before.get(..12).unwrap_or(before)))
}

async fn claims(stage: &Stage) -> anyhow::Result<String> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(stage.client.clone(), APP);
    let names: Vec<String> = claims.list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
    ensure!(names == [format!("{APP}-data")], "the claims are {names:?}");
    let (volume, _) = stage.volume().await?;
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    ensure!(policy == Some("Delete"), "the volume is on {policy:?}");
    Ok(format!("{APP}-data on {}, reclaim policy Delete", volume.name_any()))
}

/// Everything else that holds data of the app is named by a restore point, which looks after it: the snapshots, and the volume that
/// the rollback replaced.
async fn copies(stage: &Stage) -> anyhow::Result<String> {
    let points: Api<RestorePoint> = Api::namespaced(stage.client.clone(), APP);
    let points = points.list(&ListParams::default()).await?.items;
    let snapshots: Api<VolumeSnapshot> = Api::namespaced(stage.client.clone(), APP);
    let snapshots = snapshots.list(&ListParams::default()).await?;
    let snapshots: BTreeSet<String> = snapshots.iter().map(ResourceExt::name_any).collect();
    let taken = points.iter().flat_map(|point| &point.spec.data);
    let taken: BTreeSet<String> = taken.map(|data| data.snapshot.clone()).collect();
    ensure!(snapshots == taken, "the snapshots are {snapshots:?}, those of restore points {taken:?}");

    let (own, _) = stage.volume().await?;
    let all = Api::<PersistentVolume>::all(stage.client.clone()).list(&ListParams::default()).await?;
    let others = all.iter().map(ResourceExt::name_any).filter(|name| *name != own.name_any());
    let others: BTreeSet<String> = others.collect();
    let replaced = points.iter().filter_map(|point| point.status.as_ref()).flat_map(|status| &status.replaced_volumes);
    let replaced: BTreeSet<String> = replaced.map(|one| one.volume.clone()).collect();
    ensure!(others == replaced, "other volumes are {others:?}, those that were replaced {replaced:?}");
    Ok(format!("{} snapshots of {} restore points, {} replaced volume", taken.len(), points.len(), replaced.len()))
}

fn killed(stage: &Stage, kills: &[String]) -> anyhow::Result<String> {
    ensure!(stage.operator.killed == 2 && kills.len() == 2, "{} times: {kills:?}", stage.operator.killed);
    Ok(format!("twice, with SIGKILL: {}", kills.join(", and ")))
}
