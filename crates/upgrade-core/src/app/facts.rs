//! Everything known about an app before anything is decided, gathered read-only.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::AppSpec;
use crate::Failure;
use crate::ports::{
    AppStore, BlockedVersion, Carrier, CarrierKind, ClaimFacts, Delivery, DeliveryFacts, GitManager, Neighbour,
    PinFacts, PinValue, Renderer, Rendering, Repository, RestorePointRecord, Rights, SnapshotManager, SnapshotState,
    SourceFacts, WorkloadFacts, Workloads,
};

/// What was read of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryFacts {
    /// The repository.
    pub repository: Repository,
    /// The branch head.
    pub head: String,
    /// Its pins at that head.
    pub pins: Vec<PinFacts>,
    /// Subjects of commits between the source's artifact and the head, which ship along; `None` when unknown.
    pub ships_along: Option<Vec<String>>,
}

/// The facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppFacts {
    /// The delivery chain.
    pub delivery: DeliveryFacts,
    /// Workloads, the app's own and others that mount its claims.
    pub workloads: Vec<WorkloadFacts>,
    /// Claims.
    pub claims: Vec<ClaimFacts>,
    /// Names of the claims that the app's own objects deliver, mounted or not.
    #[serde(default)]
    pub delivered_claims: Vec<String>,
    /// Delivered claims that are left alone, each with why.
    #[serde(default)]
    pub passed_over: Vec<(String, String)>,
    /// Repositories.
    pub repositories: Vec<RepositoryFacts>,
    /// What the live objects that the pins end up in show.
    pub live: Vec<Carrier>,
    /// What the app's own objects would deliver; empty for rollbacks, which go back to what was delivered before.
    pub renderings: Vec<Rendering>,
    /// Every other app of the cluster.
    pub neighbours: Vec<Neighbour>,
    /// Versions that may not be tried.
    pub blocked: Vec<BlockedVersion>,
    /// The snapshots of the restore point a rollback goes back to, by claim; `None` for one that is gone.
    pub restorable: Vec<(String, Option<SnapshotState>)>,
    /// Rights that this process lacks for the operation, as `verb resource in namespace`.
    pub missing_rights: Vec<String>,
}

/// The ports that facts are read through.
#[derive(Clone, Copy)]
pub struct FactPorts<'a> {
    /// Delivery.
    pub delivery: &'a dyn Delivery,
    /// Git.
    pub git: &'a dyn GitManager,
    /// Volumes.
    pub snapshots: &'a dyn SnapshotManager,
    /// Workloads.
    pub workloads: &'a dyn Workloads,
    /// Apps.
    pub apps: &'a dyn AppStore,
    /// Rights.
    pub rights: &'a dyn Rights,
    /// What would be delivered.
    pub renderer: &'a dyn Renderer,
}

/// Reads everything. Errors: a port that could not answer; nothing is guessed in its place.
///
/// `point` is the restore point a rollback goes back to: its claims may no longer be mounted by anything. `targets` are the
/// versions an upgrade is to bring, by component; `None` for a rollback.
pub async fn gather(
    ports: FactPorts<'_>,
    spec: &AppSpec,
    point: Option<&RestorePointRecord>,
    targets: Option<&BTreeMap<String, String>>,
) -> Result<AppFacts, Failure> {
    let app = &spec.app;
    let delivery = ports.delivery.inspect(app, &spec.own).await?;
    let mut named: BTreeSet<String> = spec.snapshots.claims.iter().cloned().collect();
    let volumes = point.map(|point| point.volumes.as_slice()).unwrap_or_default();
    named.extend(volumes.iter().map(|volume| volume.claim.clone()));
    let named: Vec<String> = named.into_iter().collect();
    // A restore swaps claims whatever the app says about copies by now.
    let copies = spec.snapshots.enabled || point.is_some();
    let delivered_claims = if copies { ports.workloads.delivered_claims(app, &spec.own).await? } else { Vec::new() };
    // Named claims are a choice: what else is mounted or delivered is neither copied nor restored.
    let all = spec.snapshots.claims.is_empty();
    let more = delivered_claims.iter().filter(|claim| all && !named.contains(claim));
    let asked: Vec<String> = named.iter().chain(more).cloned().collect();
    let mut workloads = ports.workloads.find(app, &spec.own, &asked).await?;
    // An app lives in one namespace: what the same delivery object puts into others belongs to its neighbours.
    workloads.retain(|workload| workload.object.namespace == app.namespace);

    let mut wanted: Vec<(String, String)> = Vec::new();
    for claim in &named {
        wanted.push((claim.clone(), "named".into()));
    }
    for workload in workloads.iter().filter(|workload| workload.delivered && all) {
        for claim in &workload.claims {
            if !wanted.iter().any(|(name, _)| name == claim) {
                wanted.push((claim.clone(), format!("mounted by {}", workload.object)));
            }
        }
    }
    // The next version may mount what nothing mounts today.
    let mut unmounted = asked;
    unmounted.retain(|claim| !wanted.iter().any(|(name, _)| name == claim));
    wanted.extend(unmounted.iter().map(|claim| (claim.clone(), "delivered, and mounted by nothing".into())));
    let mut claims = if copies && !wanted.is_empty() {
        ports.snapshots.claims(app, &app.namespace, &wanted, spec.snapshots.class.clone()).await?
    } else {
        Vec::new()
    };
    let mut passed_over = Vec::new();
    claims.retain(|claim| {
        let why = if unmounted.contains(&claim.name) { leave_alone(claim, &workloads, point.is_some()) } else { None };
        passed_over.extend(why.clone().map(|why| (claim.name.clone(), why)));
        why.is_none()
    });

    let mut repositories = Vec::new();
    for repository in &spec.repositories {
        let head = ports.git.head(app, repository).await?;
        let pins: Vec<_> = spec.pins.iter().filter(|pin| pin.repository == repository.name).cloned().collect();
        let pins = ports.git.pins(app, repository, &head, &pins).await?;
        let shipped = delivery.sources.iter().find(|source| fetches(source, repository));
        let ships_along = match shipped.and_then(|source| source.commit.as_deref()) {
            Some(commit) if commit == head => Some(Vec::new()),
            Some(commit) => ports.git.log(app, repository, commit, &head, 20).await?,
            None => None,
        };
        repositories.push(RepositoryFacts { repository: repository.clone(), head, pins, ships_along });
    }
    let pinned: Vec<PinValue> = repositories
        .iter()
        .flat_map(|repository| &repository.pins)
        .map(|found| PinValue { pin: found.pin.clone(), value: found.value.clone() })
        .collect();
    let mut live = ports.delivery.carriers(app, &spec.own, &[], &pinned).await?;
    live.retain(|carrier| carrier.kind == CarrierKind::LiveSpec);
    let mut renderings = Vec::new();
    if let Some(targets) = targets {
        let at: Vec<(Repository, String)> =
            repositories.iter().map(|found| (found.repository.clone(), found.head.clone())).collect();
        let mut changes = pinned.clone();
        for change in &mut changes {
            if let Some(target) = targets.get(&change.pin.component) {
                change.value.clone_from(target);
            }
        }
        for own in &spec.own {
            renderings.push(ports.renderer.render(app, own, &at, &changes).await?);
        }
    }
    let mut restorable = Vec::new();
    for volume in volumes {
        let state = ports.snapshots.snapshot_state(&app.namespace, &volume.snapshot).await?;
        restorable.push((volume.claim.clone(), state));
    }
    let namespaces: BTreeSet<String> = delivery
        .objects
        .iter()
        .map(|object| object.object.namespace.clone())
        .chain(delivery.sources.iter().map(|source| source.object.namespace.clone()))
        .collect();
    let missing_rights = ports.rights.missing(app, &namespaces.into_iter().collect::<Vec<_>>()).await?;
    let blocked = ports.apps.blocked(app).await?;
    let neighbours = ports.apps.neighbours(app).await?;
    Ok(AppFacts {
        delivery,
        workloads,
        claims,
        delivered_claims,
        passed_over,
        repositories,
        live,
        renderings,
        neighbours,
        blocked,
        restorable,
        missing_rights,
    })
}

/// Why a claim that none of the app's own workloads mounts is neither protected nor copied, if so. It must not make an operation
/// impossible that loses nothing of it.
fn leave_alone(claim: &ClaimFacts, workloads: &[WorkloadFacts], is_rollback: bool) -> Option<String> {
    let refused = |code: &str| claim.refusals.iter().any(|(one, _)| one == code);
    if !claim.uid.is_empty() && claim.volume.is_empty() && refused("claim-not-bound") && !refused("volume-mismatch") {
        return Some("it was never bound to a volume, so there is nothing to copy".into());
    }
    if let Some(user) = workloads.iter().find(|workload| workload.claims.contains(&claim.name)) {
        return Some(format!("{} mounts it, which the app does not deliver", user.object));
    }
    // The restore point that a rollback goes back to does not have it, so what is wrong with it stops nothing.
    claim.refusals.first().filter(|(code, _)| is_rollback && code != "claim-missing").map(|(_, why)| why.clone())
}

/// Whether a source fetches what is written to the repository: the same branch of the same address.
pub fn fetches(source: &SourceFacts, repository: &Repository) -> bool {
    source.branch.as_ref() == Some(&repository.branch) && same_repository(&source.url, &repository.url)
}

/// Whether two addresses name the same repository, as far as text can tell: scheme, user and a `.git` suffix do not count.
pub fn same_repository(one: &str, other: &str) -> bool {
    fn plain(url: &str) -> String {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let rest = match rest.split_once('/') {
            Some((host, path)) => format!("{}/{path}", host.rsplit('@').next().unwrap_or(host)),
            None => rest.to_owned(),
        };
        rest.trim_end_matches('/').trim_end_matches(".git").to_ascii_lowercase()
    }
    plain(one) == plain(other)
}
