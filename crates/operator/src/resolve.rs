//! From objects to the core's words: nothing is decided here.

use jiff::SignedDuration;
use kube::ResourceExt;
use upgrade_core::app::{AppSpec, AutoRollback, Consistency, HealthPolicy, SnapshotPolicy, VersionPolicy};
use upgrade_core::ports::{AppRef, HttpCheck, ObjectRef, Pin, PinPart, Repository};
use windlass_api::{AutoUpdate, FluxKind, ManagedApp, Policy, RepositoryPath, Verification};

/// How long one HTTP check may take.
const HTTP_TIMEOUT: SignedDuration = SignedDuration::from_secs(5);

/// Who the app is.
pub fn app_ref(app: &ManagedApp) -> AppRef {
    AppRef { namespace: app.namespace().unwrap_or_default(), name: app.name_any(), uid: app.uid().unwrap_or_default() }
}

/// The app's own delivery objects.
pub fn own(app: &ManagedApp) -> Vec<ObjectRef> {
    let objects = app.spec.delivery.flux.iter().flat_map(|flux| &flux.objects);
    let namespace = app.namespace().unwrap_or_default();
    objects
        .map(|object| {
            let group = match object.kind {
                FluxKind::HelmRelease => "helm.toolkit.fluxcd.io",
                FluxKind::Kustomization => "kustomize.toolkit.fluxcd.io",
            };
            let namespace = object.namespace.as_deref().unwrap_or(&namespace);
            ObjectRef::new(group, object.kind.as_str(), namespace, &object.name)
        })
        .collect()
}

/// The app as the core knows it.
pub fn app_spec(app: &ManagedApp) -> AppSpec {
    let who = app_ref(app);
    let spec = &app.spec;
    let own = own(app);
    let repositories = spec
        .git
        .repositories
        .iter()
        .map(|repository| Repository {
            name: repository.name.clone(),
            url: repository.url.clone(),
            branch: repository.branch.clone(),
            paths: repository.paths.iter().map(|path| RepositoryPath::as_str(path).to_owned()).collect(),
            secret: repository.secret_ref.as_ref().map(|secret| secret.name.clone()),
            author_name: repository.author.as_ref().map_or_else(|| "Windlass".into(), |author| author.name.clone()),
            author_email: repository
                .author
                .as_ref()
                .map_or_else(|| "windlass@localhost".into(), |author| author.email.clone()),
            message_template: repository.message_template.clone(),
        })
        .collect();
    let pins = spec
        .git
        .pins
        .iter()
        .map(|pin| Pin {
            component: pin.component.clone(),
            repository: pin.repository.clone(),
            path: pin.path.as_str().to_owned(),
            object: pin.object.clone(),
            field: pin.field.clone(),
            part: match pin.part() {
                windlass_api::PinPart::Whole => PinPart::Whole,
                windlass_api::PinPart::Tag => PinPart::Tag,
                windlass_api::PinPart::Digest => PinPart::Digest,
            },
        })
        .collect();
    AppSpec {
        own,
        repositories,
        pins,
        snapshots: SnapshotPolicy {
            enabled: spec.snapshots.enabled(),
            class: spec.snapshots.class_name.clone(),
            claims: spec.snapshots.claims.clone(),
            consistency: match spec.snapshots.consistency() {
                windlass_api::Consistency::Stopped => Consistency::Stopped,
                windlass_api::Consistency::Online => Consistency::Online,
            },
            verify_restore: spec.snapshots.verify() == Verification::Restore,
            deadline: spec.snapshots.deadline().as_signed(),
        },
        health: HealthPolicy {
            timeout: spec.health.timeout().as_signed(),
            soak: spec.health.soak().as_signed(),
            http: spec
                .health
                .http
                .iter()
                .map(|check| HttpCheck {
                    service: check.service.clone(),
                    port: u16::try_from(check.port).unwrap_or(0),
                    path: check.path.clone(),
                    timeout: HTTP_TIMEOUT,
                })
                .collect(),
        },
        versions: VersionPolicy {
            constraint: spec.policy.constraint.clone(),
            skip: spec.policy.skip.clone(),
            accepted_claim_changes: Vec::new(),
            unread: unread(&spec.policy),
        },
        auto_rollback: spec.policy.auto_rollback.map_or(AutoRollback::default(), auto_rollback),
        app: who,
    }
}

/// What is set of a policy that is stored, and not read yet.
fn unread(policy: &Policy) -> Vec<String> {
    let set = [
        ("autoUpdate", policy.auto_update.is_some_and(|update| update != AutoUpdate::None)),
        ("minimumAge", policy.minimum_age.is_some()),
        ("windows", !policy.windows.is_empty()),
    ];
    set.into_iter().filter(|(_, is_set)| *is_set).map(|(field, _)| format!("spec.policy.{field}")).collect()
}

/// The policy in the core's words.
pub fn auto_rollback(policy: windlass_api::AutoRollback) -> AutoRollback {
    match policy {
        windlass_api::AutoRollback::IfNeverReady => AutoRollback::IfNeverReady,
        windlass_api::AutoRollback::Always => AutoRollback::Always,
        windlass_api::AutoRollback::Never => AutoRollback::Never,
    }
}
