//! What forbids an upgrade, with the change that brings it about.

use serde_json::{Value, json};

use super::change::{Change, On};

/// One refusal.
pub(super) struct Row {
    /// Its code.
    pub(super) code: &'static str,
    pub(super) changes: Vec<Change>,
    /// Component and version that are asked for.
    pub(super) target: (&'static str, &'static str),
    /// Changes that are accepted by name.
    pub(super) accept: Vec<&'static str>,
}

fn row(code: &'static str, changes: Vec<Change>) -> Row {
    Row { code, changes, target: ("image/notes", "1.1.0"), accept: Vec::new() }
}

fn target(code: &'static str, component: &'static str, version: &'static str) -> Row {
    Row { code, changes: Vec::new(), target: (component, version), accept: Vec::new() }
}

fn spec(on: On, spec: Value) -> Change {
    Change::Patch(on, Value::Object([("spec".to_owned(), spec)].into_iter().collect()))
}

fn annotation(on: On, key: &str, value: &str) -> Change {
    Change::Patch(on, json!({"metadata": {"annotations": {key: value}}}))
}

fn label(on: On, key: &str, value: &str) -> Change {
    Change::Patch(on, json!({"metadata": {"labels": {key: value}}}))
}

/// Somebody is at work on the release, so that Helm does not act on the change that follows.
fn at_work() -> Change {
    spec(On::HelmRelease, json!({"suspend": true}))
}

/// For an app delivered by a HelmRelease.
pub(super) fn release() -> Vec<Row> {
    use On::{HelmRelease, Kustomization, StatefulSet};
    let release = |patch: Value| vec![at_work(), spec(HelmRelease, patch)];
    vec![
        // One claim template more, and another name for the workload.
        target("claims-would-change", "chart", "5.0.0"),
        target("workloads-would-change", "chart", "6.0.0"),
        row("suspended-by-others", vec![at_work()]),
        row("chart-ref", release(json!({"chart": null, "chartRef": {"kind": "OCIRepository", "name": "notes"}}))),
        row(
            "values-from",
            release(json!({"valuesFrom": [{"kind": "ConfigMap", "name": "tag", "targetPath": "image.tag"}]})),
        ),
        row(
            "remediation-rollback",
            vec![spec(HelmRelease, json!({"upgrade": {"strategy": null, "remediation": {"retries": 1}}}))],
        ),
        row(
            "remediation-uninstall",
            vec![spec(
                HelmRelease,
                json!({"upgrade": {"strategy": null, "remediation": {"retries": 1, "strategy": "uninstall"}}}),
            )],
        ),
        row("version-range", release(json!({"chart": {"spec": {"version": ">=1.0.0"}}}))),
        row("chart-name-change", release(json!({"chart": {"spec": {"chart": "other"}}}))),
        row("release-target-change", release(json!({"releaseName": "other"}))),
        row("remote-cluster", release(json!({"kubeConfig": {"secretRef": {"name": "elsewhere"}}}))),
        row("frozen", vec![annotation(HelmRelease, "kustomize.toolkit.fluxcd.io/reconcile", "disabled")]),
        row(
            "when-scaled-delete",
            vec![spec(StatefulSet, json!({"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}))],
        ),
        // These two may pass by themselves, and are waited for when they are alone.
        row("live-differs-from-git", release(json!({"values": {"image": {"tag": "1.2.0"}}}))),
        // In Git, where nobody looks before it is delivered.
        row("version-range", vec![Change::Push("version: 1.0.0 # the chart", "version: 1.0.x # the chart")]),
        row(
            "parent-not-ready",
            vec![at_work(), spec(Kustomization, json!({"path": "./nowhere"})), Change::Until(Kustomization, "False")],
        ),
        row("held-by-other-operation", vec![annotation(HelmRelease, "upgrades.windlass.dev/held-by", "somebody-else")]),
        row("chart-source-unsupported", release(json!({"chart": {"spec": {"sourceRef": {"kind": "Bucket"}}}}))),
        row(
            "drift-detection",
            vec![Change::Declare(HelmRelease, json!({"suspend": true, "driftDetection": {"mode": "enabled"}}))],
        ),
        Row {
            changes: vec![Change::Set(On::ManagedApp, "/spec/git/pins/1/component", "image/other")],
            ..target("pin-without-container", "image/other", "1.1.0")
        },
        row("pin-not-live", release(json!({"values": {"image": {"tag": null}}}))),
        // Nobody applies it, and so nothing is known to come from Git.
        row("not-from-git", vec![label(HelmRelease, "kustomize.toolkit.fluxcd.io/name", "nobody")]),
        row("no-git-source", vec![label(HelmRelease, "kustomize.toolkit.fluxcd.io/name", "nobody")]),
        // These two may pass by themselves, so somebody is at work, too.
        row(
            "image-differs-from-pin",
            vec![
                at_work(),
                spec(StatefulSet, json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}})),
                Change::Set(StatefulSet, "/spec/template/spec/containers/0/image", "registry.test/notes:1.2.0"),
            ],
        ),
        row("readiness-unknown", vec![at_work(), Change::Status(Kustomization, json!({"status": {"conditions": []}}))]),
        row("parent-unsupported", vec![label(Kustomization, "argocd.argoproj.io/instance", "notes")]),
    ]
}

/// For an app delivered by a Kustomization.
pub(super) fn plain() -> Vec<Row> {
    use On::{Claim, GitRepository, Kustomization, ManagedApp};
    let nowhere = "0000000000000000000000000000000000000000";
    vec![
        target("unknown-component", "image/other", "1.1.0"),
        target("downgrade", "image/notes", "0.9.0"),
        target("version-not-semver", "image/notes", "latest"),
        Row { accept: vec!["drop-claim/notes-data"], ..target("accept-unknown", "image/notes", "1.1.0") },
        row("version-skipped", vec![spec(ManagedApp, json!({"policy": {"skip": ["1.1.0"]}}))]),
        row("outside-constraint", vec![spec(ManagedApp, json!({"policy": {"constraint": "<1.1.0"}}))]),
        row(
            "version-blocked",
            vec![Change::Status(
                ManagedApp,
                json!({"status": {"blockedVersions": [{
                    "component": "image/notes", "version": "1.1.0", "reason": "it was bad",
                    "request": "earlier", "since": "2026-01-01T00:00:00Z",
                }]}}),
            )],
        ),
        row("claim-missing", vec![spec(ManagedApp, json!({"snapshots": {"claims": ["no-such-claim"]}}))]),
        row("no-snapshot-class", vec![spec(ManagedApp, json!({"snapshots": {"className": "no-such-class"}}))]),
        row("suspended-by-others", vec![spec(Kustomization, json!({"suspend": true}))]),
        row("suspended-by-others", vec![spec(GitRepository, json!({"suspend": true}))]),
        row("rendering-unknown", vec![spec(Kustomization, json!({"suspend": true, "path": "./nowhere"}))]),
        // Each is applied by the other.
        row(
            "delivery-cycle",
            vec![
                Change::Make(ROUND_ABOUT),
                Change::Patch(
                    Kustomization,
                    json!({"metadata": {"labels": {
                        "kustomize.toolkit.fluxcd.io/name": "round-about", "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
                    }}}),
                ),
            ],
        ),
        // A Job that sleeps is no danger, and nobody could wake it again.
        row(
            "cannot-stop",
            vec![
                Change::Make(SLEEPING_JOB),
                Change::Status(
                    Kustomization,
                    json!({"status": {"inventory": {"entries": [{"id": "j07_sleeper_batch_Job", "v": "v1"}]}}}),
                ),
            ],
        ),
        row("force", vec![spec(Kustomization, json!({"force": true}))]),
        row("oci-source", vec![spec(Kustomization, json!({"sourceRef": {"kind": "OCIRepository"}}))]),
        row("remote-cluster", vec![spec(Kustomization, json!({"kubeConfig": {"secretRef": {"name": "elsewhere"}}}))]),
        row("source-missing", vec![spec(Kustomization, json!({"sourceRef": {"name": "no-such-source"}}))]),
        row(
            "source-verifies",
            vec![spec(GitRepository, json!({"verify": {"mode": "HEAD", "secretRef": {"name": "keys"}}}))],
        ),
        row("source-not-a-branch", vec![spec(GitRepository, json!({"ref": {"branch": null, "tag": "v1"}}))]),
        row("source-not-a-branch", vec![spec(GitRepository, json!({"ref": {"commit": nowhere}}))]),
        row("branch-not-the-source", vec![spec(GitRepository, json!({"ref": {"branch": "other"}}))]),
        row("daemon-set", vec![Change::Make(DAEMON_SET)]),
        row("bare-pod", vec![Change::Make(POD)]),
        row("running-job", vec![Change::Make(JOB)]),
        row("foreign-consumer", vec![Change::Make(OTHER_DEPLOYMENT)]),
        row("keda", vec![Change::Make(KEDA)]),
        row("force-annotation", vec![annotation(Claim, "kustomize.toolkit.fluxcd.io/force", "enabled")]),
        row("owned-by-operator", vec![Change::Adopt]),
        row("shared-handle", vec![Change::Make(SAME_HANDLE)]),
        row("not-csi", vec![Change::Make(LOCAL_VOLUME), spec(ManagedApp, json!({"snapshots": {"claims": ["local"]}}))]),
        row("rights-missing", vec![Change::TakeRight { group: "", resource: "persistentvolumes", verb: "patch" }]),
        row("image-policy-marker", vec![Change::Push("# the version", "# {\"$imagepolicy\": \"flux-system:notes\"}")]),
        row(
            "sops-file",
            vec![Change::Push(
                "---\napiVersion: v1\n",
                "sops: {mac: \"ENC[AES256_GCM,data:eA==]\"}\n---\napiVersion: v1\n",
            )],
        ),
        row(
            "held-by-other-operation",
            vec![annotation(Kustomization, "upgrades.windlass.dev/held-by", "somebody-else")],
        ),
        row(
            "namespace-not-allowed",
            vec![
                Change::Make(ELSEWHERE),
                Change::Set(ManagedApp, "/spec/delivery/flux/objects/0/namespace", "default"),
            ],
        ),
        row("repository-not-the-source", vec![Change::Set(ManagedApp, "/spec/git/repositories/0/url", "$other")]),
        row("no-pins", vec![spec(ManagedApp, json!({"git": {"pins": null}}))]),
        row("constraint-malformed", vec![spec(ManagedApp, json!({"policy": {"constraint": "newer, please"}}))]),
        row("message-template", vec![Change::Set(ManagedApp, "/spec/git/repositories/0/messageTemplate", "{ticket}")]),
        row("app-overlaps", vec![Change::Make(OVERLAPPING)]),
        row("claim-of-another-app", vec![Change::Make(SAME_CLAIM)]),
        row(
            "claim-not-bound",
            vec![Change::Make(PENDING), spec(ManagedApp, json!({"snapshots": {"claims": ["pending"]}}))],
        ),
        row(
            "volume-mismatch",
            vec![Change::Make(PENDING), spec(ManagedApp, json!({"snapshots": {"claims": ["pending"]}}))],
        ),
        row(
            "claim-terminating",
            vec![Change::Doom(GOING), spec(ManagedApp, json!({"snapshots": {"claims": ["going"]}}))],
        ),
        // Not delivered yet, as nobody looks for an hour.
        row(
            "claims-would-change",
            vec![Change::Push(
                "kind: PersistentVolumeClaim\nmetadata:\n  name: notes-data\n",
                "kind: PersistentVolumeClaim\nmetadata:\n  name: notes-data-2\n",
            )],
        ),
        row(
            "workloads-would-change",
            vec![
                Change::Set(ManagedApp, "/spec/git/pins/0/object", "Deployment/notebook"),
                Change::Push(
                    "kind: Deployment\nmetadata:\n  name: notes\n",
                    "kind: Deployment\nmetadata:\n  name: notebook\n",
                ),
            ],
        ),
        // These two may pass by themselves, so somebody is at work, too.
        row(
            "source-without-artifact",
            vec![
                spec(Kustomization, json!({"suspend": true})),
                Change::Status(GitRepository, json!({"status": {"artifact": null}})),
            ],
        ),
        row("unready-snapshot", vec![spec(Kustomization, json!({"suspend": true})), Change::Make(STUCK_SNAPSHOT)]),
    ]
}

/// No node of this name exists: what is made here claims the app's volume and never runs.
const DAEMON_SET: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: reader, namespace: $app}
spec:
  selector: {matchLabels: {app: reader}}
  template:
    metadata: {labels: {app: reader}}
    spec:
      nodeSelector: {kubernetes.io/hostname: nowhere}
      containers: [{name: reader, image: registry.test/notes:1.0.0}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: notes-data}}]
";

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: shell, namespace: $app}
spec:
  nodeSelector: {kubernetes.io/hostname: nowhere}
  containers: [{name: shell, image: registry.test/notes:1.0.0}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: notes-data}}]
";

const JOB: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: export, namespace: $app}
spec:
  template:
    spec:
      restartPolicy: Never
      nodeSelector: {kubernetes.io/hostname: nowhere}
      containers: [{name: export, image: registry.test/notes:1.0.0}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: notes-data}}]
";

const SLEEPING_JOB: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: sleeper, namespace: $app}
spec:
  suspend: true
  template:
    spec:
      restartPolicy: Never
      containers: [{name: sleeper, image: registry.test/notes:1.0.0}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: notes-data}}]
";

/// It sleeps today.
const OTHER_DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: other, namespace: $app}
spec:
  replicas: 0
  selector: {matchLabels: {app: other}}
  template:
    metadata: {labels: {app: other}}
    spec:
      containers: [{name: other, image: registry.test/notes:1.0.0}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: notes-data}}]
";

/// As much of KEDA as matters.
const KEDA: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: scaledobjects.keda.sh}
spec:
  group: keda.sh
  scope: Namespaced
  names: {plural: scaledobjects, singular: scaledobject, kind: ScaledObject, listKind: ScaledObjectList}
  versions:
    - name: v1alpha1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: notes, namespace: $app}
spec: {scaleTargetRef: {name: notes}}
";

const SAME_HANDLE: &str = "
apiVersion: v1
kind: PersistentVolume
metadata: {name: $app-copy}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {storage: 16Mi}
  persistentVolumeReclaimPolicy: Retain
  csi: {driver: $driver, volumeHandle: $handle}
";

const LOCAL_VOLUME: &str = "
apiVersion: v1
kind: PersistentVolume
metadata: {name: $app-local}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {storage: 16Mi}
  persistentVolumeReclaimPolicy: Retain
  storageClassName: \"\"
  hostPath: {path: /nowhere}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: local, namespace: $app}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: \"\"
  volumeName: $app-local
  resources: {requests: {storage: 16Mi}}
";

/// Suspended, so that it does nothing.
const ELSEWHERE: &str = "
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: $app, namespace: default}
spec:
  suspend: true
  interval: 1h
  path: ./apps/notes
  prune: false
  sourceRef: {kind: GitRepository, name: $app, namespace: flux-system}
";

const ROUND_ABOUT: &str = "
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: round-about
  namespace: flux-system
  labels: {kustomize.toolkit.fluxcd.io/name: $app, kustomize.toolkit.fluxcd.io/namespace: flux-system}
spec:
  suspend: true
  interval: 1h
  path: ./apps/notes
  prune: false
  sourceRef: {kind: GitRepository, name: $app}
";

const OVERLAPPING: &str = "
apiVersion: upgrades.windlass.dev/v1alpha1
kind: ManagedApp
metadata: {name: other, namespace: $app}
spec: {delivery: {flux: {objects: [{kind: Kustomization, name: $app, namespace: flux-system}]}}}
";

const SAME_CLAIM: &str = "
apiVersion: upgrades.windlass.dev/v1alpha1
kind: ManagedApp
metadata: {name: other, namespace: $app}
spec:
  delivery: {flux: {objects: [{kind: HelmRelease, name: other}]}}
  snapshots: {claims: [notes-data]}
";

const PENDING: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: pending, namespace: $app}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: \"\"
  volumeName: $app-nowhere
  resources: {requests: {storage: 16Mi}}
";

const GOING: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: going, namespace: $app, finalizers: [journeys.windlass.dev/not-yet]}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: \"\"
  resources: {requests: {storage: 16Mi}}
";

/// There is no such class.
const STUCK_SNAPSHOT: &str = "
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: stuck, namespace: $app}
spec: {volumeSnapshotClassName: no-such-class, source: {persistentVolumeClaimName: notes-data}}
";
