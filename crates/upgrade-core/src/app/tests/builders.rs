//! An ordinary app: a Deployment with one claim, delivered by a Kustomization below a root, or by a HelmRelease below one.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::app::facts::{AppFacts, RepositoryFacts};
use crate::app::{
    AppSpec, AutoRollback, Consistency, HealthPolicy, RollbackAsk, SnapshotPolicy, UpgradeAsk, VersionPolicy,
};
use crate::ports::{
    AppRef, Carrier, CarrierKind, ClaimFacts, DeliveryFacts, DeliveryObject, DeliveryRole, HeadCommit, ObjectRef,
    Piece, Pin, PinFacts, PinPart, PinValue, Readiness, ReclaimPolicy, Repository, RestorePointRecord, SnapshotState,
    SourceFacts, VolumeRecord, WorkloadFacts, WorkloadKind,
};

pub(super) fn kustomization(name: &str) -> ObjectRef {
    ObjectRef::new("kustomize.toolkit.fluxcd.io", "Kustomization", "flux-system", name)
}

pub(super) fn git_repository(name: &str) -> ObjectRef {
    ObjectRef::new("source.toolkit.fluxcd.io", "GitRepository", "flux-system", name)
}

pub(super) fn release() -> ObjectRef {
    ObjectRef::new("helm.toolkit.fluxcd.io", "HelmRelease", "notes", "notes")
}

pub(super) fn deployment() -> ObjectRef {
    ObjectRef::new("apps", "Deployment", "notes", "notes")
}

pub(super) fn app() -> AppRef {
    AppRef { namespace: "notes".into(), name: "notes".into(), uid: "app-uid".into() }
}

pub(super) fn repository() -> Repository {
    Repository {
        name: "apps".into(),
        url: "https://git.test/team/apps.git".into(),
        branch: "main".into(),
        paths: vec!["apps/notes/".into()],
        secret: None,
        author_name: "Windlass".into(),
        author_email: "windlass@test".into(),
        message_template: None,
    }
}

pub(super) fn pin() -> Pin {
    Pin {
        component: "image/notes".into(),
        repository: "apps".into(),
        path: "apps/notes/notes.yaml".into(),
        object: "Deployment/notes".into(),
        field: "spec.template.spec.containers[name=notes].image".into(),
        part: PinPart::Tag,
    }
}

/// The pin of an app by a release.
pub(super) fn release_pin() -> Pin {
    Pin { object: "HelmRelease/notes".into(), field: "spec.values.image.tag".into(), ..pin() }
}

/// The pin of an app whose own Kustomization carries the version.
pub(super) fn substituted_pin() -> Pin {
    let (object, field) = ("Kustomization/notes".into(), "spec.postBuild.substitute.VERSION".into());
    Pin { object, field, part: PinPart::Whole, ..pin() }
}

pub(super) fn cron_job() -> ObjectRef {
    ObjectRef::new("batch", "CronJob", "notes", "backup")
}

fn object(object: ObjectRef, role: DeliveryRole, own: bool, parent: Option<ObjectRef>) -> DeliveryObject {
    DeliveryObject {
        uid: format!("uid-of-{}", object.name),
        object,
        role,
        own,
        parent,
        source: (role == DeliveryRole::Manifests).then(|| git_repository("apps")),
        suspend: None,
        suspend_declared: false,
        held_by: None,
        held_as_found: None,
        readiness: Readiness::Ready,
        live: Vec::new(),
        refusals: Vec::new(),
        warnings: Vec::new(),
    }
}

pub(super) fn claim(name: &str) -> ClaimFacts {
    ClaimFacts {
        namespace: "notes".into(),
        name: name.into(),
        uid: format!("uid-of-{name}"),
        manifest: json!({"spec": {"accessModes": ["ReadWriteOnce"]}}),
        volume: format!("pv-{name}"),
        volume_uid: format!("uid-of-pv-{name}"),
        reclaim_policy: ReclaimPolicy::Delete,
        driver: "csi.test".into(),
        handle: format!("handle-{name}"),
        capacity: 1 << 24,
        snapshot_class: Some("csi".into()),
        found_by: "mounted".into(),
        refusals: Vec::new(),
    }
}

pub(super) fn workload() -> WorkloadFacts {
    WorkloadFacts {
        object: deployment(),
        uid: "uid-of-deployment".into(),
        kind: WorkloadKind::Deployment,
        replicas: 2,
        suspend: None,
        claims: vec!["data".into()],
        delivered: true,
        images: vec![("notes".into(), "registry.test/notes:1.0.0".into())],
        refusals: Vec::new(),
        warnings: Vec::new(),
    }
}

/// What would be delivered of a workload.
pub(super) fn piece(object: &ObjectRef, claims: &[&str]) -> Piece {
    let claims = claims.iter().map(|claim| (*claim).to_owned()).collect();
    Piece { object: object.clone(), claims, claim_templates: Vec::new() }
}

/// Plain manifests below a root.
pub(super) fn facts() -> AppFacts {
    let own = object(kustomization("notes"), DeliveryRole::Manifests, true, Some(kustomization("root")));
    facts_of(vec![object(kustomization("root"), DeliveryRole::Manifests, false, None), own])
}

/// A release below a root.
pub(super) fn release_facts() -> AppFacts {
    let own = object(release(), DeliveryRole::Release, true, Some(kustomization("root")));
    let mut facts = facts_of(vec![object(kustomization("root"), DeliveryRole::Manifests, false, None), own]);
    facts.repositories[0].pins[0].pin = release_pin();
    facts.live[0].object = release();
    facts
}

/// The same below a bootstrap repository, whose Kustomization applies the root and which the app does not name.
pub(super) fn bootstrapped(mut facts: DeliveryFacts) -> DeliveryFacts {
    let mut above = object(kustomization("flux-system"), DeliveryRole::Manifests, false, None);
    above.source = Some(git_repository("flux-system"));
    facts.objects[0].parent = Some(above.object.clone());
    facts.objects.insert(0, above);
    facts.sources.push(SourceFacts {
        object: git_repository("flux-system"),
        uid: "uid-of-bootstrap".into(),
        url: "https://git.test/team/fleet".into(),
        branch: None,
        verifies: true,
        suspend: None,
        commit: Some("b0".into()),
        readiness: Readiness::Ready,
    });
    facts
}

fn facts_of(objects: Vec<DeliveryObject>) -> AppFacts {
    let source = SourceFacts {
        object: git_repository("apps"),
        uid: "uid-of-source".into(),
        url: "https://git.test/team/apps".into(),
        branch: Some("main".into()),
        verifies: false,
        suspend: None,
        commit: Some("c0".into()),
        readiness: Readiness::Ready,
    };
    let found = PinFacts { pin: pin(), value: "1.0.0".into(), image_policy_marker: false, sops: false };
    AppFacts {
        delivery: DeliveryFacts { objects, sources: vec![source] },
        workloads: vec![workload()],
        claims: vec![claim("data")],
        delivered_claims: Vec::new(),
        passed_over: Vec::new(),
        repositories: vec![RepositoryFacts {
            repository: repository(),
            head: "c0".into(),
            pins: vec![found],
            ships_along: Some(Vec::new()),
        }],
        live: vec![Carrier {
            kind: CarrierKind::LiveSpec,
            object: deployment(),
            component: "image/notes".into(),
            shows: Some("1.0.0".into()),
        }],
        renderings: Vec::new(),
        neighbours: Vec::new(),
        blocked: Vec::new(),
        restorable: Vec::new(),
        missing_rights: Vec::new(),
    }
}

pub(super) fn spec() -> AppSpec {
    AppSpec {
        app: app(),
        own: vec![kustomization("notes")],
        repositories: vec![repository()],
        pins: vec![pin()],
        snapshots: SnapshotPolicy {
            enabled: true,
            class: None,
            claims: Vec::new(),
            consistency: Consistency::Stopped,
            verify_restore: false,
            deadline: SignedDuration::from_mins(10),
        },
        health: HealthPolicy {
            timeout: SignedDuration::from_mins(5),
            soak: SignedDuration::from_mins(1),
            http: Vec::new(),
        },
        versions: VersionPolicy::default(),
        auto_rollback: AutoRollback::IfNeverReady,
    }
}

pub(super) fn upgrade_to(version: &str) -> UpgradeAsk {
    UpgradeAsk {
        operation: "0f1e2d3c-op".into(),
        name: "notes-1".into(),
        app: spec(),
        targets: BTreeMap::from([("image/notes".into(), version.into())]),
        reason: String::new(),
        take_over: Vec::new(),
        inherited: Vec::new(),
    }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// The facts after an upgrade to 2.0.0, and the question to bring 1.0.0 back.
pub(super) fn rollback() -> (RollbackAsk, AppFacts) {
    let mut facts = facts();
    facts.repositories[0].pins[0].value = "2.0.0".into();
    facts.restorable = vec![("data".into(), Some(snapshot()))];
    let volume = VolumeRecord {
        claim: "data".into(),
        claim_uid: "uid-of-data".into(),
        manifest: json!({"spec": {}}),
        volume: "pv-data".into(),
        volume_handle: "handle-data".into(),
        driver: "csi.test".into(),
        snapshot: "notes-0f1e2d3c-data".into(),
        snapshot_uid: "uid-of-snapshot".into(),
        content: "content".into(),
        handle: "snap".into(),
        size: 1 << 24,
        cut_at: Some(at(100)),
        reclaim_policy: Some(ReclaimPolicy::Delete),
    };
    let point = RestorePointRecord {
        name: "notes-0f1e2d3c".into(),
        app: app(),
        operation: "0f1e2d3c-op".into(),
        taken_at: at(100),
        stopped: true,
        pins: vec![PinValue { pin: pin(), value: "1.0.0".into() }],
        commits: vec![HeadCommit { repository: "apps".into(), sha: "c0".into() }],
        volumes: vec![volume],
        void: String::new(),
    };
    let ask = RollbackAsk {
        operation: "9a8b7c6d-op".into(),
        name: "notes-1-rollback".into(),
        app: spec(),
        restore_point: point,
        restore_data: true,
        acknowledged_loss_since: None,
        loses_writes: false,
        block: true,
        reason: String::new(),
        only_from: Vec::new(),
        take_over: Vec::new(),
        inherited: Vec::new(),
        before: None,
    };
    (ask, facts)
}

fn snapshot() -> SnapshotState {
    SnapshotState {
        uid: "uid-of-snapshot".into(),
        operation: "0f1e2d3c-op".into(),
        content: Some("content".into()),
        handle: Some("snap".into()),
        cut_at: Some(at(100)),
        restore_size: Some(1 << 24),
        ready: true,
        mismatch: None,
        retained: true,
        error: None,
        error_is_final: false,
    }
}
