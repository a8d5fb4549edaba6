//! What a new leader looks for: objects that carry our hold although no request stands behind it any more.
//!
//! A hold whose stage says that nothing was committed is lifted: the object is as it was before. One whose version was being
//! committed is only reported, because what waits in Git may not be what the data belongs to.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use upgrade_core::Failure;
use upgrade_core::ports::ObjectRef;
use windlass_api::call::CallError;
use windlass_api::foreign::{HelmRelease, Kustomization};
use windlass_api::{RollbackRequest, UpgradeRequest};

use crate::context::Context;
use crate::store::failed;

const HELD_BY: &str = "upgrades.windlass.dev/held-by";

/// Looks once.
pub(crate) async fn sweep(context: &Arc<Context>) -> Result<(), Failure> {
    let mut known = BTreeSet::new();
    let upgrades: Api<UpgradeRequest> = Api::all(context.client.clone());
    let rollbacks: Api<RollbackRequest> = Api::all(context.client.clone());
    let all = ListParams::default();
    let found =
        upgrades.list(&all).await.map_err(CallError::on::<UpgradeRequest>("list", "", "")).map_err(|e| failed(&e))?;
    known.extend(found.iter().filter_map(ResourceExt::uid));
    let found =
        rollbacks.list(&all).await.map_err(CallError::on::<RollbackRequest>("list", "", "")).map_err(|e| failed(&e))?;
    known.extend(found.iter().filter_map(ResourceExt::uid));

    let mut held: Vec<(ObjectRef, String)> = Vec::new();
    let releases: Api<HelmRelease> = Api::all(context.client.clone());
    let found =
        releases.list(&all).await.map_err(CallError::on::<HelmRelease>("list", "", "")).map_err(|e| failed(&e))?;
    held.extend(found.iter().filter_map(|object| holder("helm.toolkit.fluxcd.io", "HelmRelease", object)));
    let manifests: Api<Kustomization> = Api::all(context.client.clone());
    let found =
        manifests.list(&all).await.map_err(CallError::on::<Kustomization>("list", "", "")).map_err(|e| failed(&e))?;
    held.extend(found.iter().filter_map(|object| holder("kustomize.toolkit.fluxcd.io", "Kustomization", object)));

    for (object, operation) in held.into_iter().filter(|(_, operation)| !known.contains(operation)) {
        release_orphan(context, &object, &operation).await?;
    }
    Ok(())
}

fn holder<T: ResourceExt>(group: &str, kind: &str, object: &T) -> Option<(ObjectRef, String)> {
    let operation = object.annotations().get(HELD_BY)?.clone();
    Some((ObjectRef::new(group, kind, &object.namespace().unwrap_or_default(), &object.name_any()), operation))
}

async fn release_orphan(context: &Arc<Context>, object: &ObjectRef, operation: &str) -> Result<(), Failure> {
    let Some(found) = context.ports.delivery.suspension(object).await? else { return Ok(()) };
    if found.held_by.as_deref() != Some(operation) {
        return Ok(());
    }
    if found.stage.as_deref() != Some("held") {
        tracing::warn!(%object, operation, stage = found.stage, "held by an operation whose request is gone, with a version committed: look at Git, then resume it by hand");
        return Ok(());
    }
    let as_found = found.as_found.unwrap_or_default();
    context.ports.delivery.resume(object, &found.uid, operation, as_found, &format!("{operation}/sweep")).await?;
    tracing::warn!(%object, operation, "was held by an operation whose request is gone, with nothing committed: resumed");
    Ok(())
}
