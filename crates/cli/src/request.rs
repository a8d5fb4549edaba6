//! Upgrade and rollback requests as one thing: named, made, read, watched.

use std::fmt;

use futures::stream::{BoxStream, StreamExt as _};
use jiff::Timestamp;
use kube::api::{DeleteParams, ObjectMeta, Patch};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource as _};
use serde_json::json;
use windlass_api::call::{CallError, patch_params, post_params};
use windlass_api::{
    OperationKind, OperationStatus, RollbackRequest, RollbackRequestSpec, UpgradeRequest, UpgradeRequestSpec,
};

use crate::RequestArg;
use crate::cluster::Cluster;
use crate::error::CliError;

/// The longest name of a request: others are made from it.
const LONGEST_NAME: usize = 52;
/// How many digits make names differ.
const SUFFIX: u32 = 6;

/// Which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestRef {
    pub(crate) kind: OperationKind,
    pub(crate) name: String,
}

impl fmt::Display for RequestRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", short(self.kind), self.name)
    }
}

/// The kind as commands name it.
pub(crate) fn short(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::UpgradeRequest => "upgrade",
        OperationKind::RollbackRequest => "rollback",
    }
}

/// A request of either kind.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Upgrade(Box<UpgradeRequest>),
    Rollback(Box<RollbackRequest>),
}

impl From<UpgradeRequest> for Request {
    fn from(request: UpgradeRequest) -> Self {
        Self::Upgrade(Box::new(request))
    }
}

impl From<RollbackRequest> for Request {
    fn from(request: RollbackRequest) -> Self {
        Self::Rollback(Box::new(request))
    }
}

impl Request {
    pub(crate) fn kind(&self) -> OperationKind {
        match self {
            Self::Upgrade(_) => OperationKind::UpgradeRequest,
            Self::Rollback(_) => OperationKind::RollbackRequest,
        }
    }

    pub(crate) fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Upgrade(request) => request.meta(),
            Self::Rollback(request) => request.meta(),
        }
    }

    pub(crate) fn reference(&self) -> RequestRef {
        RequestRef { kind: self.kind(), name: self.meta().name.clone().unwrap_or_default() }
    }

    /// The name of the app.
    pub(crate) fn app(&self) -> &str {
        match self {
            Self::Upgrade(request) => &request.spec.subject.name,
            Self::Rollback(request) => &request.spec.subject.name,
        }
    }

    pub(crate) fn status(&self) -> Option<&OperationStatus> {
        match self {
            Self::Upgrade(request) => request.status.as_ref(),
            Self::Rollback(request) => request.status.as_ref(),
        }
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        match self {
            Self::Upgrade(request) => request.spec.dry_run(),
            Self::Rollback(request) => request.spec.dry_run(),
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        match self {
            Self::Upgrade(request) => request.spec.cancel(),
            Self::Rollback(request) => request.spec.cancel(),
        }
    }

    pub(crate) fn created(&self) -> Option<Timestamp> {
        self.meta().creation_timestamp.as_ref().map(|time| time.0)
    }
}

/// A request that is not made yet.
#[derive(Debug, Clone)]
pub(crate) enum Draft {
    Upgrade(UpgradeRequestSpec),
    Rollback(RollbackRequestSpec),
}

impl Draft {
    pub(crate) fn set_dry_run(&mut self) {
        match self {
            Self::Upgrade(spec) => spec.dry_run = Some(true),
            Self::Rollback(spec) => spec.dry_run = Some(true),
        }
    }

    /// What its name says after the app's.
    fn target(&self) -> String {
        match self {
            Self::Upgrade(spec) => spec.target.components.values().cloned().collect::<Vec<_>>().join("-"),
            Self::Rollback(_) => "rollback".into(),
        }
    }

    fn app(&self) -> &str {
        match self {
            Self::Upgrade(spec) => &spec.subject.name,
            Self::Rollback(spec) => &spec.subject.name,
        }
    }

    /// Whether it only plans.
    pub(crate) fn is_dry_run(&self) -> bool {
        match self {
            Self::Upgrade(spec) => spec.dry_run(),
            Self::Rollback(spec) => spec.dry_run(),
        }
    }

    /// A name of its own, by the time at which it is made; each attempt has another one.
    pub(crate) fn reference(&self, now: Timestamp, attempt: u64) -> RequestRef {
        let kind = match self {
            Self::Upgrade(_) => OperationKind::UpgradeRequest,
            Self::Rollback(_) => OperationKind::RollbackRequest,
        };
        let millis = u64::try_from(now.as_millisecond()).unwrap_or(0) + attempt;
        RequestRef { kind, name: name(self.app(), &self.target(), millis) }
    }

    /// The request of this name, if it asks for the same.
    pub(crate) async fn made_before(&self, cluster: &Cluster, name: &str) -> Result<Option<Request>, CliError> {
        Ok(match self {
            Self::Upgrade(spec) => {
                cluster.find::<UpgradeRequest>(name).await?.filter(|found| found.spec == *spec).map(Into::into)
            }
            Self::Rollback(spec) => {
                cluster.find::<RollbackRequest>(name).await?.filter(|found| found.spec == *spec).map(Into::into)
            }
        })
    }

    /// Makes the request under this name.
    pub(crate) async fn create(&self, cluster: &Cluster, name: &str) -> Result<Request, CallError> {
        let namespace = &cluster.namespace;
        match self {
            Self::Upgrade(spec) => {
                let request = UpgradeRequest::new(name, spec.clone());
                let made = cluster.api().create(&post_params(), &request).await;
                made.map(Into::into).map_err(CallError::on::<UpgradeRequest>("create", namespace, name))
            }
            Self::Rollback(spec) => {
                let request = RollbackRequest::new(name, spec.clone());
                let made = cluster.api().create(&post_params(), &request).await;
                made.map(Into::into).map_err(CallError::on::<RollbackRequest>("create", namespace, name))
            }
        }
    }
}

/// `<app>-<target>-<digits>`: a DNS label that differs from millisecond to millisecond (for 25 days, then again).
fn name(app: &str, target: &str, millis: u64) -> String {
    let slug: String = format!("{app}-{target}")
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(LONGEST_NAME - 1 - SUFFIX as usize)
        .collect();
    let mut rest = millis % 36_u64.pow(SUFFIX);
    let mut suffix = String::new();
    for _ in 0..SUFFIX {
        suffix.insert(0, u32::try_from(rest % 36).ok().and_then(|digit| char::from_digit(digit, 36)).unwrap_or('0'));
        rest /= 36;
    }
    format!("{}-{suffix}", slug.trim_matches('-'))
}

/// Finds a request that a person named, in either kind.
pub(crate) async fn resolve(cluster: &Cluster, named: &RequestArg) -> Result<Request, CliError> {
    let name = &named.name;
    let upgrade = async {
        match named.kind {
            Some(OperationKind::RollbackRequest) => Ok(None),
            _ => cluster.find::<UpgradeRequest>(name).await,
        }
    };
    let rollback = async {
        match named.kind {
            Some(OperationKind::UpgradeRequest) => Ok(None),
            _ => cluster.find::<RollbackRequest>(name).await,
        }
    };
    match (upgrade.await?, rollback.await?) {
        (Some(_), Some(_)) => Err(CliError::AmbiguousRequest { name: name.clone() }),
        (Some(upgrade), None) => Ok(upgrade.into()),
        (None, Some(rollback)) => Ok(rollback.into()),
        (None, None) => Err(CliError::NotFound {
            what: match named.kind {
                Some(kind) => format!("{} {name}", kind.as_str()),
                None => format!("upgrade or rollback {name}"),
            },
            namespace: cluster.namespace.clone(),
            hint: "see the history of the app: windlass history APP".into(),
        }),
    }
}

/// The request as it changes; `None` when it is not, or no longer, there. Errors are passed on and tried again.
pub(crate) fn watch(
    cluster: &Cluster,
    reference: &RequestRef,
) -> BoxStream<'static, Result<Option<Request>, watcher::Error>> {
    let name = &reference.name;
    match reference.kind {
        OperationKind::UpgradeRequest => {
            let api: Api<UpgradeRequest> = cluster.api();
            let stream = watcher::watch_object(api, name).default_backoff();
            stream.map(|item| item.map(|found| found.map(Into::into))).boxed()
        }
        OperationKind::RollbackRequest => {
            let api: Api<RollbackRequest> = cluster.api();
            let stream = watcher::watch_object(api, name).default_backoff();
            stream.map(|item| item.map(|found| found.map(Into::into))).boxed()
        }
    }
}

/// Sets the one-way field that asks it to stop. The guard on the UID keeps a request of the same name from being hit.
pub(crate) async fn cancel(cluster: &Cluster, request: &Request) -> Result<(), CliError> {
    let reference = request.reference();
    let (namespace, name) = (&cluster.namespace, &reference.name);
    let patch = Patch::Merge(json!({"metadata": {"uid": request.meta().uid}, "spec": {"cancel": true}}));
    match reference.kind {
        OperationKind::UpgradeRequest => {
            let written = cluster.api::<UpgradeRequest>().patch(name, &patch_params(), &patch).await;
            written.map(drop).map_err(CallError::on::<UpgradeRequest>("patch", namespace, name))?;
        }
        OperationKind::RollbackRequest => {
            let written = cluster.api::<RollbackRequest>().patch(name, &patch_params(), &patch).await;
            written.map(drop).map_err(CallError::on::<RollbackRequest>("patch", namespace, name))?;
        }
    }
    Ok(())
}

/// Deletes a request that only planned.
pub(crate) async fn delete(cluster: &Cluster, request: &Request) -> Result<(), CliError> {
    let reference = request.reference();
    let (namespace, name) = (&cluster.namespace, &reference.name);
    let params = DeleteParams::default()
        .preconditions(kube::api::Preconditions { uid: request.meta().uid.clone(), resource_version: None });
    let deleted = match reference.kind {
        OperationKind::UpgradeRequest => {
            let deleted = cluster.api::<UpgradeRequest>().delete(name, &params).await;
            deleted.map(drop).map_err(CallError::on::<UpgradeRequest>("delete", namespace, name))
        }
        OperationKind::RollbackRequest => {
            let deleted = cluster.api::<RollbackRequest>().delete(name, &params).await;
            deleted.map(drop).map_err(CallError::on::<RollbackRequest>("delete", namespace, name))
        }
    };
    match deleted {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// The rollback that took an upgrade over, as its status names it, if it is there.
pub(crate) async fn rollback_of(cluster: &Cluster, upgrade: &Request) -> Result<Option<Request>, CliError> {
    let Some(name) = upgrade.status().and_then(|status| status.rollback.as_deref()) else { return Ok(None) };
    let found: Option<RollbackRequest> = cluster.find(name).await?;
    Ok(found.map(Into::into))
}

/// All requests of an app, newest first.
pub(crate) async fn of_app(cluster: &Cluster, app: &str) -> Result<Vec<Request>, CliError> {
    let upgrades = cluster.list::<UpgradeRequest>(false).await?.into_iter().map(Request::from);
    let rollbacks = cluster.list::<RollbackRequest>(false).await?.into_iter().map(Request::from);
    let mut all: Vec<Request> = upgrades.chain(rollbacks).filter(|request| request.app() == app).collect();
    all.sort_by_key(|request| std::cmp::Reverse((request.created(), request.reference().name)));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_dns_labels_that_say_what_for() {
        assert_eq!(name("notes", "1.4.1", 0), "notes-1-4-1-000000");
        assert_eq!(name("notes", "1.4.1+Build_7", 36 * 36), "notes-1-4-1-build-7-000100");
        let long = name(&"n".repeat(52), "1.4.1", 35);
        assert_eq!((long.len(), long.ends_with("n-00000z")), (52, true));
        assert_eq!(name(&"n".repeat(44), "1", 0), format!("{}-000000", "n".repeat(44)));
        assert_ne!(name("notes", "1", 1_795_000_000_000), name("notes", "1", 1_795_000_000_001));
    }
}
