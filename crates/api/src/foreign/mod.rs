//! The few fields of foreign objects that Windlass reads.
//!
//! Every field is optional and unknown fields are ignored, so that neither a newer nor an older version of a controller stops
//! a watch. For the same reason these types must never be written back: use patches. Their `crd()` has no schema and
//! must not be applied.

mod helm_release;
mod kustomization;
mod snapshot;
mod source;

pub use helm_release::{
    ChartReference, ChartTemplate, ChartTemplateSpec, HelmAction, HelmRelease, HelmReleaseSnapshot, HelmReleaseSpec,
    HelmReleaseStatus, HelmStrategy, Remediation, ValuesReference,
};
pub use kustomization::{
    KEPT_BY_US, Kustomization, KustomizationSpec, KustomizationStatus, RECONCILE, SourceReference, kept_from_git,
};
pub use snapshot::{
    SnapshotError, VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotClassFields, VolumeSnapshotContent,
    VolumeSnapshotContentSource, VolumeSnapshotContentSpec, VolumeSnapshotContentStatus, VolumeSnapshotReference,
    VolumeSnapshotSource, VolumeSnapshotSpec, VolumeSnapshotStatus,
};
pub use source::{
    Artifact, GitReference, GitRepository, GitRepositorySpec, GitVerification, HelmChart, HelmChartSpec, OCIRepository,
    OciReference, OciRepositorySpec, SourceStatus,
};

use serde::{Deserialize, Serialize};

/// What a Flux controller manages, by the id it writes into its status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Inventory {
    /// The objects.
    pub entries: Vec<InventoryEntry>,
}

/// One managed object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InventoryEntry {
    /// `<namespace>_<name>_<group>_<kind>`.
    pub id: String,
    /// The version of the group.
    pub v: String,
}

/// An [`InventoryEntry`]'s id in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InventoryObject<'a> {
    /// Empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// The name.
    pub name: &'a str,
    /// Empty for the core group.
    pub group: &'a str,
    /// The kind.
    pub kind: &'a str,
}

impl InventoryEntry {
    /// The parts of the id. `None` if it is not of the known form.
    ///
    /// Flux writes a `:` in the name of an RBAC object as `__`; such names are returned as written.
    #[must_use]
    pub fn object(&self) -> Option<InventoryObject<'_>> {
        let (namespace, rest) = self.id.split_once('_')?;
        let (rest, kind) = rest.rsplit_once('_')?;
        let (name, group) = rest.rsplit_once('_')?;
        (!name.is_empty() && !kind.is_empty()).then_some(InventoryObject { namespace, name, group, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inventory_ids_are_taken_apart() {
        let object = |id: &str| {
            let entry = InventoryEntry { id: id.to_owned(), v: "v1".to_owned() };
            entry.object().map(|o| format!("{}|{}|{}|{}", o.namespace, o.name, o.group, o.kind))
        };
        assert_eq!(object("notes_notes-db_apps_StatefulSet").unwrap(), "notes|notes-db|apps|StatefulSet");
        assert_eq!(object("notes_notes__Service").unwrap(), "notes|notes||Service");
        assert_eq!(
            object("_system__node_rbac.authorization.k8s.io_ClusterRole").unwrap(),
            "|system__node|rbac.authorization.k8s.io|ClusterRole"
        );
        assert_eq!(object("nonsense"), None);
    }

    #[test]
    fn a_helm_release_is_read_with_what_we_know_and_nothing_else_matters() {
        let release: HelmRelease = serde_json::from_value(serde_json::json!({
            "apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease",
            "metadata": { "name": "notes", "namespace": "notes" },
            "spec": {
                "interval": "5m", "suspend": true, "somethingNew": { "deep": [1] },
                "chart": { "spec": { "chart": "notes", "version": ">=1.0.0", "sourceRef": { "kind": "HelmRepository", "name": "charts" } } },
                "upgrade": { "remediation": { "retries": 3, "remediateLastFailure": true }, "strategy": { "name": "RetryOnFailure" } },
                "values": { "image": { "tag": "1.0" } },
                "valuesFrom": [{ "kind": "Secret", "name": "s", "valuesKey": "k" }]
            },
            "status": {
                "observedGeneration": 3, "lastAttemptedRevision": "1.2.0", "lastHandledReconcileAt": "token",
                "history": [{ "name": "notes", "namespace": "notes", "version": 4, "status": "deployed", "action": "upgrade", "chartVersion": "1.2.0", "configDigest": "sha256:1", "firstDeployed": "2026-01-01T00:00:00Z" }],
                "inventory": { "entries": [{ "id": "notes_notes_apps_Deployment", "v": "v1" }] },
                "conditions": [{ "type": "Ready", "status": "True", "reason": "UpgradeSucceeded", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" }]
            }
        }))
        .unwrap();
        assert_eq!(release.spec.suspend, Some(true));
        assert_eq!(release.spec.chart.unwrap().spec.version.as_deref(), Some(">=1.0.0"));
        assert_eq!(release.spec.upgrade.unwrap().remediation.unwrap().retries, Some(3));
        let status = release.status.unwrap();
        assert_eq!(status.history[0].version, Some(4));
        assert_eq!(status.inventory.unwrap().entries[0].object().unwrap().kind, "Deployment");
        assert_eq!(crate::condition(&status.conditions, crate::READY).unwrap().reason, "UpgradeSucceeded");
    }

    #[test]
    fn objects_without_spec_or_status_are_read() {
        let class: VolumeSnapshotClass = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "csi" }, "driver": "example.com", "deletionPolicy": "Delete", "parameters": { "type": "snap" }
        }))
        .unwrap();
        assert_eq!(class.spec.driver.as_deref(), Some("example.com"));
        assert_eq!(class.spec.deletion_policy.as_deref(), Some("Delete"));
        let kustomization: Kustomization =
            serde_json::from_value(serde_json::json!({ "metadata": { "name": "apps" }, "spec": {} })).unwrap();
        assert!(kustomization.status.is_none());
    }

    #[test]
    fn the_types_address_the_resources_the_controllers_serve() {
        use kube::Resource as _;
        let urls = [
            HelmRelease::url_path(&(), Some("ns")),
            Kustomization::url_path(&(), Some("ns")),
            GitRepository::url_path(&(), Some("ns")),
            OCIRepository::url_path(&(), Some("ns")),
            HelmChart::url_path(&(), Some("ns")),
            VolumeSnapshot::url_path(&(), Some("ns")),
            VolumeSnapshotContent::url_path(&(), None),
            VolumeSnapshotClass::url_path(&(), None),
        ];
        assert_eq!(
            urls,
            [
                "/apis/helm.toolkit.fluxcd.io/v2/namespaces/ns/helmreleases",
                "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/ns/kustomizations",
                "/apis/source.toolkit.fluxcd.io/v1/namespaces/ns/gitrepositories",
                "/apis/source.toolkit.fluxcd.io/v1/namespaces/ns/ocirepositories",
                "/apis/source.toolkit.fluxcd.io/v1/namespaces/ns/helmcharts",
                "/apis/snapshot.storage.k8s.io/v1/namespaces/ns/volumesnapshots",
                "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents",
                "/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses",
            ]
        );
    }
}
