//! What must be true at the end, however a journey went.

use anyhow::{Context, bail, ensure};
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use serde_json::Value;
use windlass_api::{ManagedApp, OperationStatus};
use windlass_rig::csi::CallName;
use windlass_rig::kubelet::Event;

use crate::fixture::App;
use crate::world::World;

impl World {
    /// Nothing suspended, nothing held, nobody active, every volume as it was, no helper claims.
    pub(crate) async fn nothing_is_left(&self, app: &App, status: &OperationStatus) -> anyhow::Result<()> {
        ensure!(status.leftovers.is_empty(), "leftovers: {:?}", status.leftovers);
        for (group, version, kind, namespace, name) in [
            ("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "flux-system", app.name.as_str()),
            ("helm.toolkit.fluxcd.io", "v2", "HelmRelease", app.name.as_str(), "notes"),
        ] {
            let api = self.dynamic(group, version, kind, namespace).await?;
            let Some(object) = api.get_opt(name).await? else { continue };
            let json = serde_json::to_value(&object)?;
            ensure!(
                json.pointer("/spec/suspend").is_none(),
                "{kind} {name} has spec.suspend {}",
                json["spec"]["suspend"]
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

    /// What the kubelet started in this namespace within `(from, until)`, in milliseconds since 1970.
    pub(crate) fn started_between(&self, namespace: &str, from: i64, until: i64) -> anyhow::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in self.estate.runs()? {
            let here = entry.pod.as_ref().is_some_and(|pod| pod.namespace == namespace);
            if here && entry.event == Event::Starting && entry.at_ms > from && entry.at_ms < until {
                found.push(format!("{} at {}", entry.image.unwrap_or_default(), entry.at_ms));
            }
        }
        Ok(found)
    }

    /// When the driver cut the last snapshot of a volume of the app, in milliseconds since 1970.
    pub(crate) fn last_cut(&self, handle: &str) -> anyhow::Result<i64> {
        let calls = self.estate.driver_calls()?;
        let cuts = calls.iter().filter(|call| call.volume == handle && call.result == "OK");
        let cuts = cuts.filter(|call| call.call == CallName::CreateSnapshot);
        cuts.map(|call| call.answered_ms).max().context("the driver has cut no snapshot")
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
