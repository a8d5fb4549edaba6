//! What must be true at the end, however a journey went.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt, discovery};
use kube_sim::controllers::pods::{Run, RunHistory};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use windlass_api::{ManagedApp, OperationStatus};
use windlass_rig::csi::CallName;

use crate::crash::kept_by_driver;
use crate::estate::{OPERATOR_USER, Request, SYSTEM};
use crate::fixture::App;
use crate::request::begun_at;
use crate::world::{World, wait};
use crate::writer::{RECORD, Writer};

impl World {
    /// Nothing suspended, nothing held, nobody active, every volume as it was, no helper claims.
    pub(crate) async fn nothing_is_left(&self, app: &App, status: &OperationStatus) -> anyhow::Result<()> {
        ensure!(status.leftovers.is_empty(), "leftovers: {:?}", status.leftovers);
        let kustomization = app.kustomization.as_str();
        for (group, version, kind, namespace, name, suspend) in [
            ("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "flux-system", kustomization, app.suspend),
            ("helm.toolkit.fluxcd.io", "v2", "HelmRelease", app.name.as_str(), "notes", None),
        ] {
            let api = self.dynamic(group, version, kind, namespace).await?;
            let Some(object) = api.get_opt(name).await? else { continue };
            let json = serde_json::to_value(&object)?;
            let found = json.pointer("/spec/suspend").cloned();
            ensure!(
                found == suspend.map(Value::Bool),
                "{kind} {name} has spec.suspend {found:?}, which was {suspend:?}"
            );
            let annotations = json["metadata"]["annotations"].to_string();
            ensure!(!annotations.contains("windlass.dev"), "{kind} {name} carries {annotations}");
        }
        for claim in &app.claims {
            let volume = self.volume_of(&app.name, claim).await?;
            let policy = volume.spec.and_then(|spec| spec.persistent_volume_reclaim_policy).unwrap_or_default();
            ensure!(policy == "Delete", "the volume of {claim} is on {policy}");
        }
        let claims: Api<DynamicObject> = self.dynamic("", "v1", "PersistentVolumeClaim", &app.name).await?;
        let count = claims.list(&ListParams::default()).await?.items.len();
        ensure!(count == app.claims.len(), "{count} claims are left, not {}", app.claims.len());
        for kind in ["Deployment", "StatefulSet"] {
            let api = self.dynamic("apps", "v1", kind, &app.name).await?;
            for workload in api.list(&ListParams::default()).await? {
                let text = serde_json::to_value(&workload)?["metadata"]["annotations"].to_string();
                ensure!(!text.contains("reconcile"), "{kind} is still kept from being applied: {text}");
            }
        }
        let apps: Api<ManagedApp> = Api::namespaced(self.client.clone(), &app.name);
        let active = apps.get("notes").await?.status.and_then(|status| status.active_operation);
        ensure!(active.is_none(), "{active:?} is still active");
        Ok(())
    }

    /// The processes of this namespace that ran at any moment within `(from, until)`, in milliseconds since 1970: also those that had
    /// started before.
    pub(crate) fn ran_between(&self, namespace: &str, from: i64, until: i64) -> anyhow::Result<Vec<String>> {
        let runs = RunHistory::from_entries(self.estate.runs()?).runs;
        let here = runs.iter().filter(|run| run.pod.namespace == namespace);
        let ran = here.filter(|run| run.from_ms < until && run.until_ms.is_none_or(|end| end > from));
        let end = |run: &Run| run.until_ms.map_or_else(|| "now".to_owned(), |end| end.to_string());
        Ok(ran.map(|run| format!("{} from {} to {}", run.image, run.from_ms, end(run))).collect())
    }

    /// Something ran within `(from, until)`, and all of it was this version.
    pub(crate) fn only_ran(&self, app: &App, tag: &str, from: i64, until: i64) -> anyhow::Result<()> {
        let ran = self.ran_between(&app.name, from, until)?;
        let version = format!(":{tag} ");
        let only = !ran.is_empty() && ran.iter().all(|run| run.contains(&version));
        ensure!(only, "from {from} to {until} {ran:?} ran, not {tag} and nothing else");
        Ok(())
    }

    /// No version ever ran on data that was not its own. Since the cut of these volumes only the new version ran, and only after its
    /// release; since the swap of the claims only the old one, and only after that release.
    pub(crate) fn each_on_its_own_data(
        &self,
        app: &App,
        volumes: &BTreeMap<String, (String, String)>,
        (old, new): (&str, &str),
        upgrade: &OperationStatus,
        rollback: &OperationStatus,
    ) -> anyhow::Result<()> {
        let cut = self.first_cut(volumes)?;
        let released = begun_at(upgrade, "release/resume/")?;
        let swapped = begun_at(rollback, "swap/delete/")?;
        let back_released = begun_at(rollback, "release/resume/")?;
        let moments = [cut, released, swapped, back_released];
        let in_order = moments.is_sorted_by(|earlier, later| earlier < later);
        ensure!(in_order, "cut, release, swap and the release of the old version were at {moments:?}");
        for (what, from, until) in [("cut", cut, released), ("swap", swapped, back_released)] {
            let early = self.ran_between(&app.name, from, until)?;
            ensure!(early.is_empty(), "between {what} and release {early:?} ran");
        }
        self.only_ran(app, new, cut, swapped)?;
        self.only_ran(app, old, swapped, i64::MAX)
    }

    /// When an operation ended, so many processes of that version had become ready, and none of them had ended.
    pub(crate) fn ran_at_the_end(
        &self,
        app: &App,
        tag: &str,
        pods: usize,
        status: &OperationStatus,
    ) -> anyhow::Result<()> {
        let end = status.finished_at.context("it has not ended")?.as_millisecond();
        let runs = RunHistory::from_entries(self.estate.runs()?).runs;
        let of_version = |run: &&Run| run.pod.namespace == app.name && run.image.ends_with(&format!(":{tag}"));
        let served = |run: &&Run| run.ready_ms.is_some_and(|at| at <= end) && run.until_ms.is_none_or(|at| at > end);
        let found = runs.iter().filter(of_version).filter(served).count();
        ensure!(found == pods, "when it ended, {found} of {pods} processes of {tag} were ready");
        Ok(())
    }

    /// When the driver began to cut the last snapshot of a volume, in milliseconds since 1970: nothing may run while it copies. Asked for
    /// the same again, it answers with what is there, so the first call that it granted is that of the cut.
    pub(crate) fn last_cut(&self, handle: &str) -> anyhow::Result<i64> {
        let mut cuts = BTreeMap::new();
        for call in self.estate.driver_calls()?.into_iter().filter(|call| call.volume == handle && call.result == "OK")
        {
            if call.call == CallName::CreateSnapshot {
                cuts.entry(call.snapshot).or_insert(call.at_ms);
            }
        }
        cuts.into_values().max().with_context(|| format!("the driver has cut no snapshot of {handle}"))
    }

    /// The first of the last cuts of these volumes.
    fn first_cut(&self, volumes: &BTreeMap<String, (String, String)>) -> anyhow::Result<i64> {
        let cuts: Vec<i64> =
            volumes.values().map(|(_, handle)| self.last_cut(handle)).collect::<anyhow::Result<_>>()?;
        cuts.into_iter().min().context("the app has no volume")
    }

    /// Since the driver cut the last copy of the app's volumes nothing ran before the release, and only this version after it.
    pub(crate) async fn only_ran_since_the_cut(
        &self,
        app: &App,
        tag: &str,
        upgrade: &OperationStatus,
    ) -> anyhow::Result<()> {
        let cut = self.first_cut(&self.volumes(app).await?)?;
        let released = begun_at(upgrade, "release/resume/")?;
        let early = self.ran_between(&app.name, cut, released)?;
        ensure!(cut < released && early.is_empty(), "between cut {cut} and release {released} {early:?} ran");
        self.only_ran(app, tag, cut, i64::MAX)
    }

    /// The newest release in the books of the app's HelmRelease is a good one of this chart.
    pub(crate) async fn chart_is_deployed(&self, app: &App, version: &str) -> anyhow::Result<()> {
        let api = self.dynamic("helm.toolkit.fluxcd.io", "v2", "HelmRelease", &app.name).await?;
        let newest = self.field(&api, "notes", "/status/history/0").await?;
        same("the newest release", &json!([newest["chartVersion"], newest["status"]]), &json!([version, "deployed"]))
    }

    /// Labels and spec of each of the app's claims.
    pub(crate) async fn declared_claims(&self, app: &App) -> anyhow::Result<BTreeMap<String, Value>> {
        let api = self.dynamic("", "v1", "PersistentVolumeClaim", &app.name).await?;
        let mut found = BTreeMap::new();
        for claim in &app.claims {
            let object = serde_json::to_value(api.get(claim).await?)?;
            found.insert(claim.clone(), json!({"labels": object["metadata"]["labels"], "spec": object["spec"]}));
        }
        Ok(found)
    }

    /// Lets the app's only pod take at least so many records, and says how many it acknowledged.
    pub(crate) async fn write(&self, app: &App, count: u64) -> anyhow::Result<u64> {
        let pod = self.only_pod(app).await?;
        let writer = Writer::start(self.estate.app(&app.name, &pod).await?);
        writer.reaches(count).await?;
        writer.stop().await
    }

    /// Count and checksum of the records, as the app's only pod reports them.
    pub(crate) async fn records(&self, app: &App) -> anyhow::Result<Value> {
        let pod = self.only_pod(app).await?;
        self.estate.app(&app.name, &pod).await?.records().await
    }

    pub(crate) async fn only_pod(&self, app: &App) -> anyhow::Result<String> {
        let ready = self.ready_pods(&app.name).await?;
        ensure!(ready.len() == 1, "{} pods are ready, not one", ready.len());
        Ok(ready[0].0.clone())
    }

    /// The volume of each of the app's claims: UID of the claim and handle of its volume.
    pub(crate) async fn volumes(&self, app: &App) -> anyhow::Result<BTreeMap<String, (String, String)>> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &app.name);
        let mut found = BTreeMap::new();
        for claim in &app.claims {
            let uid = claims.get(claim).await?.uid().unwrap_or_default();
            let handle = self.volume_of(&app.name, claim).await?.spec.and_then(|spec| spec.csi);
            found.insert(claim.clone(), (uid, handle.context("no handle")?.volume_handle));
        }
        Ok(found)
    }

    /// Digest of all bytes of a volume.
    pub(crate) fn bytes(&self, handle: &str) -> anyhow::Result<String> {
        let mut digest = Sha256::new();
        digest_folder(&self.estate.volume_folder(handle), &mut digest)?;
        Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The volume of a claim holds the writer's records from the first to this one, byte for byte, and nothing else.
    pub(crate) async fn holds(&self, app: &App, claim: &str, records: u64) -> anyhow::Result<()> {
        let handle = self.volumes(app).await?.remove(claim).context("no such claim")?.1;
        let expected: String = (1..=records).map(|number| format!("{number} {RECORD}\n")).collect();
        let found = std::fs::read(self.estate.volume_folder(&handle).join("records.log"))?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(self.estate.volume_folder(&handle))? {
            files.push(entry?.file_name().to_string_lossy().into_owned());
        }
        files.sort();
        // Who has the records open holds the lock.
        ensure!(files == [".lock", "records.log"], "{claim} holds {files:?}");
        ensure!(
            found == expected.as_bytes(),
            "{claim} holds {} bytes that are not the {records} records acknowledged ({} bytes)",
            found.len(),
            expected.len()
        );
        Ok(())
    }

    /// Lets each pod of the app take records of its own, so that two volumes that changed places would show.
    pub(crate) async fn write_to_each(&self, app: &App) -> anyhow::Result<()> {
        for (index, (pod, _)) in self.ready_pods(&app.name).await?.iter().enumerate() {
            let client = self.estate.app(&app.name, pod).await?;
            for record in 0..(10 + index) {
                ensure!(client.append(&format!("record {record} of {pod}")).await, "{pod} took no record");
            }
        }
        Ok(())
    }

    /// Digest of the bytes of each claim.
    pub(crate) async fn bytes_by_claim(&self, app: &App) -> anyhow::Result<Vec<(String, String)>> {
        let volumes = self.volumes(app).await?;
        volumes.iter().map(|(claim, (_, handle))| Ok((claim.clone(), self.bytes(handle)?))).collect()
    }

    /// The snapshots of these volumes that the driver has cut and not deleted.
    fn cuts_that_are_kept(&self, volumes: &[String]) -> anyhow::Result<BTreeSet<String>> {
        let mut calls = self.estate.driver_calls()?;
        calls.retain(|call| call.call != CallName::CreateSnapshot || volumes.contains(&call.volume));
        Ok(kept_by_driver(&calls).1.into_iter().map(ToOwned::to_owned).collect())
    }

    /// Waits until there is no copy of the app's volumes, neither in the cluster's books nor in those of the storage.
    pub(crate) async fn no_copies(&self, app: &App) -> anyhow::Result<()> {
        let volumes: Vec<String> = self.volumes(app).await?.into_values().map(|(_, handle)| handle).collect();
        let kind = |name| GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", name);
        let (snapshots, _) = discovery::pinned_kind(&self.client, &kind("VolumeSnapshot")).await?;
        let snapshots: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &app.name, &snapshots);
        let (contents, _) = discovery::pinned_kind(&self.client, &kind("VolumeSnapshotContent")).await?;
        let contents: Api<DynamicObject> = Api::all_with(self.client.clone(), &contents);
        wait("the copies to be gone", Duration::from_secs(90), || async {
            let snapshots = snapshots.list(&ListParams::default()).await?.items.len();
            let contents = contents.list(&ListParams::default()).await?;
            let ours =
                |one: &&DynamicObject| one.data.pointer("/spec/volumeSnapshotRef/namespace") == Some(&json!(app.name));
            let contents = contents.iter().filter(ours).count();
            ensure!(snapshots + contents == 0, "{snapshots} snapshots and {contents} contents are there");
            let kept = self.cuts_that_are_kept(&volumes)?;
            ensure!(kept.is_empty(), "the driver has {kept:?}");
            Ok(true)
        })
        .await
    }

    /// Waits until the only volumes for the app's namespace are those of its claims.
    pub(crate) async fn no_other_volumes(&self, app: &App) -> anyhow::Result<()> {
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        wait("volumes that nobody needs to be gone", Duration::from_secs(60), || async {
            let all = volumes.list(&ListParams::default()).await?;
            let of_the_app = all.iter().filter(|volume| {
                let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
                claim.is_some_and(|claim| claim.namespace.as_deref() == Some(app.name.as_str()))
            });
            Ok(of_the_app.count() == app.claims.len())
        })
        .await
    }

    /// What this user has written since there were `before` requests.
    pub(crate) fn written_by(&self, user: &str, before: usize) -> anyhow::Result<Vec<Request>> {
        let mut written = self.estate.requests()?.split_off(before);
        written.retain(|request| request.user == user && request.wrote);
        Ok(written)
    }

    /// What the operator has written since there were `before` requests, other than about requests for this app, events and its lease.
    pub(crate) fn effects_since(&self, app: &App, before: usize) -> anyhow::Result<Vec<String>> {
        // As in `group/kind/subresource`.
        let harmless = |request: &Request| match request.resource.split('/').nth(1).unwrap_or_default() {
            "upgraderequests" | "rollbackrequests" => request.namespace == app.name,
            "leases" => request.namespace == SYSTEM && request.name == windlass_operator::lease::NAME,
            "events" | "selfsubjectaccessreviews" => true,
            _ => false,
        };
        let written = self.written_by(OPERATOR_USER, before)?;
        Ok(written.into_iter().filter(|request| !harmless(request)).map(|request| request.to_string()).collect())
    }

    /// All branches, tags and other refs, as the Git host has them.
    pub(crate) fn refs(&self, app: &App) -> anyhow::Result<String> {
        app.repo.git(&["ls-remote", "origin"])
    }

    pub(crate) async fn blocked(&self, app: &App) -> anyhow::Result<Vec<String>> {
        let apps: Api<ManagedApp> = Api::namespaced(self.client.clone(), &app.name);
        let status = apps.get("notes").await?.status.unwrap_or_default();
        Ok(status.blocked_versions.into_iter().map(|one| format!("{} {}", one.component, one.version)).collect())
    }
}

/// Fails with both when they differ.
pub(crate) fn same(what: &str, found: &Value, expected: &Value) -> anyhow::Result<()> {
    if found != expected {
        bail!("{what}: {found} instead of {expected}");
    }
    Ok(())
}

fn digest_folder(folder: &Path, digest: &mut Sha256) -> anyhow::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        digest.update(entry.file_name().as_encoded_bytes());
        if entry.file_type()?.is_dir() {
            digest_folder(&entry.path(), digest)?;
        } else {
            digest.update(std::fs::read(entry.path())?);
        }
    }
    Ok(())
}
