//! What a new leader looks for: objects that carry our hold although no request stands behind it any more.
//!
//! A hold whose stage says that nothing waits in Git is lifted: the object is as it was before. Any other is only reported,
//! because what waits in Git may not be what the data belongs to.

use std::collections::BTreeSet;
use std::fmt::Debug;

use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use upgrade_core::Failure;
use upgrade_core::app::stage;
use upgrade_core::engine::{Guard as _, GuardState};
use upgrade_core::ports::ObjectRef;
use windlass_api::call::CallError;
use windlass_api::foreign::{HelmRelease, Kustomization};
use windlass_api::{RollbackRequest, UpgradeRequest};
use windlass_gitops::flux::HELD_BY;

use crate::context::Context;
use crate::store::failed;

/// Looks once.
pub(crate) async fn sweep(context: &Context) -> Result<(), Failure> {
    // Holds first: a request is there before its hold, so one whose request is in no later list has lost it.
    let mut held: Vec<(ObjectRef, String)> = Vec::new();
    let found = all::<HelmRelease>(context).await?;
    held.extend(found.iter().filter_map(|object| holder("helm.toolkit.fluxcd.io", "HelmRelease", object)));
    let found = all::<Kustomization>(context).await?;
    held.extend(found.iter().filter_map(|object| holder("kustomize.toolkit.fluxcd.io", "Kustomization", object)));
    let mut known = BTreeSet::new();
    known.extend(all::<UpgradeRequest>(context).await?.iter().filter_map(ResourceExt::uid));
    known.extend(all::<RollbackRequest>(context).await?.iter().filter_map(ResourceExt::uid));

    for (object, operation) in held.into_iter().filter(|(_, operation)| !known.contains(operation)) {
        if let Err(failure) = release_orphan(context, &object, &operation).await {
            tracing::warn!(%object, operation, code = failure.code, error = %failure, "held by an operation whose request is gone, and not looked after");
        }
    }
    Ok(())
}

/// All objects of a kind; none when the cluster does not know it.
async fn all<K>(context: &Context) -> Result<Vec<K>, Failure>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let found = Api::<K>::all(context.client.clone()).list(&ListParams::default()).await;
    match found.map_err(CallError::on::<K>("list", "", "")) {
        Ok(found) => Ok(found.items),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(failed(&error)),
    }
}

fn holder<T: ResourceExt>(group: &str, kind: &str, object: &T) -> Option<(ObjectRef, String)> {
    let operation = object.annotations().get(HELD_BY)?.clone();
    Some((ObjectRef::new(group, kind, &object.namespace().unwrap_or_default(), &object.name_any()), operation))
}

async fn release_orphan(context: &Context, object: &ObjectRef, operation: &str) -> Result<(), Failure> {
    let Some(found) = context.ports.delivery.suspension(object).await? else { return Ok(()) };
    if found.held_by.as_deref() != Some(operation) {
        return Ok(());
    }
    if !stage::may_be_let_go(&found) {
        tracing::warn!(%object, operation, stage = found.stage, "held by an operation whose request is gone, and Git may carry a version that is not the data's: look at both, then resume it by hand");
        return Ok(());
    }
    if let GuardState::Lost(what) = context.leadership.state() {
        return Err(Failure::transient("guard-lost", format!("this process may not act any more: {what}")));
    }
    let as_found = found.as_found.unwrap_or_default();
    context.ports.delivery.resume(object, &found.uid, operation, as_found, &format!("{operation}/sweep")).await?;
    tracing::warn!(%object, operation, "was held by an operation whose request is gone, with nothing committed: resumed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use kube::Client;
    use kube::api::{ObjectMeta, PostParams};
    use kube_sim::Identity;
    use kube_sim::faults::{Fault, Faults, Matcher, Rule};
    use serde_json::{Value, json};

    use super::*;
    use crate::tests::{Cluster, NS, cluster, cluster_through, make};

    const FLUX: &str = "flux-system";

    fn held(name: &str, operation: &str, stage: &str) -> Value {
        json!({
            "metadata": { "name": name, "annotations": {
                HELD_BY: operation, "upgrades.windlass.dev/hold-stage": stage, "upgrades.windlass.dev/hold-as-found": "absent"
            } },
            "spec": { "suspend": true, "path": "./apps" }
        })
    }

    async fn is_suspended(client: &Client, name: &str) -> bool {
        let found = Api::<Kustomization>::namespaced(client.clone(), FLUX).get(name).await.unwrap();
        found.spec.suspend == Some(true)
    }

    async fn request(client: &Client) -> String {
        let spec = json!({ "subject": { "kind": "ManagedApp", "name": "notes" }, "target": { "components": { "image/notes": "1.1.0" } } });
        let requests = Api::<UpgradeRequest>::namespaced(client.clone(), NS);
        let mut request = UpgradeRequest::new("notes-1", serde_json::from_value(spec).unwrap());
        request.metadata = ObjectMeta { name: Some("notes-1".into()), ..ObjectMeta::default() };
        requests.create(&PostParams::default(), &request).await.unwrap().uid().unwrap()
    }

    #[tokio::test]
    async fn only_a_hold_without_a_request_and_without_a_version_in_git_is_lifted() {
        let Cluster { server, context } = cluster().await;
        let client = server.client();
        let known = request(&client).await;
        let roots: Api<Kustomization> = Api::namespaced(client.clone(), FLUX);
        make(&roots, held("orphan", "gone", "held")).await;
        make(&roots, held("committing", "gone", "committing")).await;
        make(&roots, held("restoring", "gone", "restoring")).await;
        make(&roots, held("known", &known, "held")).await;
        sweep(&context).await.unwrap();
        assert!(!is_suspended(&client, "orphan").await);
        for kept in ["committing", "restoring", "known"] {
            assert!(is_suspended(&client, kept).await, "{kept}");
        }
    }

    #[tokio::test]
    async fn who_leads_no_more_lifts_nothing() {
        let Cluster { server, context } = cluster_through(kube_sim::SimServer::client, false).await;
        let client = server.client();
        make(&Api::<Kustomization>::namespaced(client.clone(), FLUX), held("orphan", "gone", "held")).await;
        sweep(&context).await.unwrap();
        assert!(is_suspended(&client, "orphan").await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_that_is_made_while_the_sweep_looks_is_no_orphan() {
        let faults = Faults::new(7);
        let slow = Matcher::any().verb("list").resource("rollbackrequests");
        faults.add(Rule::new(slow, Fault::Latency(Duration::from_millis(500))));
        let through = |server: &kube_sim::SimServer| faults.client(server, Identity::user("windlass"));
        let Cluster { server, context } = cluster_through(through, true).await;
        let client = server.client();
        let sweeping = tokio::spawn({
            let context = Arc::clone(&context);
            async move { sweep(&context).await }
        });
        tokio::time::sleep(Duration::from_millis(250)).await;
        let operation = request(&client).await;
        make(&Api::<Kustomization>::namespaced(client.clone(), FLUX), held("fresh", &operation, "held")).await;
        sweeping.await.unwrap().unwrap();
        assert!(is_suspended(&client, "fresh").await);
    }
}
