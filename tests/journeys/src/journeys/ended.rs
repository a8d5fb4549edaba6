//! What an operation has left of one app, written so that two apps that went the same way compare equal, on real servers too.

use std::collections::BTreeSet;

use kube::api::{DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, discovery};
use serde_json::{Value, json};

use crate::crash::{carried, kept_by_driver, made, marks, ref_names};
use crate::repo::Repo;
use crate::world::World;

impl World {
    /// The objects of a kind that belong to an app, by the pointer to the namespace they name.
    async fn of_app(&self, app: &str, kind: (&str, &str, &str), names_it: &str) -> anyhow::Result<Vec<Value>> {
        let (group, version, kind) = kind;
        let (resource, _) = discovery::pinned_kind(&self.client, &GroupVersionKind::gvk(group, version, kind)).await?;
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let found = api.list(&ListParams::default()).await?;
        let all: Vec<Value> = found.items.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
        Ok(all.into_iter().filter(|one| one.pointer(names_it) == Some(&json!(app))).collect())
    }

    /// How many volumes and snapshots the driver keeps of the family of those that the cluster's books have for an app: a copy and what
    /// it was made from are of one family, also when no object tells of them any more.
    async fn kept_for(&self, app: &str) -> anyhow::Result<Value> {
        let calls = self.estate.driver_calls()?;
        let volumes = self.of_app(app, ("", "v1", "PersistentVolume"), "/spec/claimRef/namespace").await?;
        let handle = |one: &Value| one.pointer("/spec/csi/volumeHandle").and_then(Value::as_str).map(ToOwned::to_owned);
        let mut family: BTreeSet<String> = volumes.iter().filter_map(handle).collect();
        let pairs: Vec<[&String; 2]> = calls
            .iter()
            .filter(|call| call.result == "OK" && !call.volume.is_empty() && !call.snapshot.is_empty())
            .map(|call| [&call.volume, &call.snapshot])
            .collect();
        loop {
            let before = family.len();
            for pair in &pairs {
                if pair.iter().any(|handle| family.contains(*handle)) {
                    family.extend(pair.iter().map(|handle| (*handle).clone()));
                }
            }
            if family.len() == before {
                break;
            }
        }
        let (volumes, snapshots) = kept_by_driver(&calls);
        let of_family = |kept: &BTreeSet<&str>| kept.iter().filter(|handle| family.contains(**handle)).count();
        Ok(json!({"volumes": of_family(&volumes), "snapshots": of_family(&snapshots)}))
    }

    /// Requests, delivery, workloads, volumes, copies and versions of the app of that name, without its name.
    pub(crate) async fn state_of(&self, app: &str) -> anyhow::Result<Value> {
        let (own, version, here) = (windlass_api::GROUP, windlass_api::VERSION, "/metadata/namespace");
        let snapshots = "snapshot.storage.k8s.io";
        let mut found = json!({});
        for (kind, names_it, shown) in [
            ((own, version, "UpgradeRequest"), here, &["/status/phase", "/status/outcome", "/status/leftovers"][..]),
            ((own, version, "RollbackRequest"), here, &["/status/phase", "/status/outcome", "/status/leftovers"][..]),
            (
                (own, version, "ManagedApp"),
                here,
                &[
                    "/status/current",
                    "/status/activeOperation",
                    "/status/blockedVersions/0/version",
                    "/status/blockedVersions/1/version",
                ][..],
            ),
            ((own, version, "RestorePoint"), here, &["/spec/void", "/spec/components"][..]),
            (("apps", "v1", "Deployment"), here, &["/spec/replicas", "/spec/template/spec/containers/0/image"][..]),
            (("", "v1", "PersistentVolumeClaim"), here, &["/metadata/name", "/status/phase"][..]),
            (("", "v1", "PersistentVolume"), "/spec/claimRef/namespace", &["/spec/persistentVolumeReclaimPolicy"][..]),
            ((snapshots, "v1", "VolumeSnapshot"), here, &["/status/readyToUse"][..]),
            (
                (snapshots, "v1", "VolumeSnapshotContent"),
                "/spec/volumeSnapshotRef/namespace",
                &["/spec/deletionPolicy"][..],
            ),
            (("kustomize.toolkit.fluxcd.io", "v1", "Kustomization"), "/metadata/name", &[][..]),
            (("source.toolkit.fluxcd.io", "v1", "GitRepository"), "/metadata/name", &[][..]),
        ] {
            let mut all = Vec::new();
            for one in self.of_app(app, kind, names_it).await? {
                let fields: Vec<Value> =
                    shown.iter().map(|pointer| one.pointer(pointer).cloned().unwrap_or_default()).collect();
                // What the operator writes into its own objects says how it went.
                let marks =
                    if kind.0 == own { json!({"made": made(&one), "carried": carried(&one)}) } else { marks(&one) };
                all.push(json!({"fields": fields, "marks": marks}));
            }
            // Their names come from uids.
            all.sort_by_key(|one| one.to_string().replace(app, "app"));
            found[kind.2] = json!(all);
        }
        let ready = self.ready_pods(app).await?;
        found["pods"] = json!(ready.into_iter().map(|(_, image)| image).collect::<Vec<_>>());
        found["driver"] = self.kept_for(app).await?;
        let repo = Repo::clone(&self.estate.repository(app).await?)?;
        let refs = repo.git(&["ls-remote", "origin"])?;
        found["git"] = json!({"refs": ref_names(&refs), "commits": repo.commits()?});
        Ok(serde_json::from_str(&found.to_string().replace(app, "app"))?)
    }
}
