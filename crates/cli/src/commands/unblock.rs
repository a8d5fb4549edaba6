//! `windlass unblock`

use kube::ResourceExt as _;
use kube::api::Patch;
use serde_json::json;
use windlass_api::ManagedApp;
use windlass_api::call::{CallError, patch_params};

use crate::cluster::Cluster;
use crate::error::CliError;
use crate::{Common, Exit, Session};

/// How often a lost race is tried again.
const ATTEMPTS: usize = 5;

pub(super) async fn run(
    session: &mut Session,
    cluster: &Cluster,
    common: &Common,
    name: &str,
    component: &str,
    version: &str,
) -> Result<Exit, CliError> {
    let unblocked = unblock(session, cluster, name, component, version).await?;
    let value = json!({"app": name, "component": component, "version": version, "unblocked": unblocked});
    session.printer.result(common.output, "Unblocked", &value, |_| match unblocked {
        true => format!("{component} {version} may be chosen for {name} again\n"),
        false => format!("{component} {version} is not blocked for {name}\n"),
    })?;
    Ok(Exit::Done)
}

/// Takes the version off the list, by compare-and-swap; false when it is not on it.
async fn unblock(
    session: &Session,
    cluster: &Cluster,
    name: &str,
    component: &str,
    version: &str,
) -> Result<bool, CliError> {
    let mut attempt = 0;
    loop {
        let app = cluster.app(session, name).await?;
        let mut blocked = app.status.as_ref().map(|status| status.blocked_versions.clone()).unwrap_or_default();
        let before = blocked.len();
        blocked.retain(|one| one.component != component || one.version != version);
        if blocked.len() == before {
            return Ok(false);
        }
        // The list is replaced as a whole: only if it is still the one that was read.
        let metadata = json!({"uid": app.uid(), "resourceVersion": app.resource_version()});
        let patch = Patch::Merge(json!({"metadata": metadata, "status": {"blockedVersions": blocked}}));
        let written = cluster.api::<ManagedApp>().patch_status(name, &patch_params(), &patch).await;
        match written.map_err(CallError::on::<ManagedApp>("patch", &cluster.namespace, name)) {
            Ok(_) => return Ok(true),
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error.into()),
        }
    }
}
