//! Server-side apply of YAML texts, of whatever kinds the server knows.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, Scope, pinned_kind};
use kube::{Client, ResourceExt};
use serde::Deserialize;
use tokio::time::Instant;

/// How long a kind may take to appear after its definition has been applied.
const KIND_APPEARS: Duration = Duration::from_secs(10);

/// Applies every document of `yaml` in order, as the field manager `manager`, by force.
///
/// # Errors
/// When a document is no Kubernetes object, its kind stays unknown, or the server refuses it.
pub async fn apply(client: &Client, manager: &str, yaml: &str) -> anyhow::Result<()> {
    let mut kinds: HashMap<GroupVersionKind, (ApiResource, ApiCapabilities)> = HashMap::new();
    for document in serde_yaml_ng::Deserializer::from_str(yaml) {
        let value = serde_yaml_ng::Value::deserialize(document).context("reading YAML")?;
        if value.is_null() {
            continue;
        }
        let object: DynamicObject = serde_yaml_ng::from_value(value).context("reading an object")?;
        let types = object.types.clone().context("an object has no apiVersion and kind")?;
        let gvk = GroupVersionKind::try_from(&types)?;
        let (resource, capabilities) = match kinds.get(&gvk) {
            Some(known) => known.clone(),
            None => kinds.entry(gvk.clone()).or_insert(discover(client, &gvk).await?).clone(),
        };
        let api: Api<DynamicObject> = match capabilities.scope {
            Scope::Cluster => Api::all_with(client.clone(), &resource),
            Scope::Namespaced => {
                let namespace = object.namespace().unwrap_or_else(|| client.default_namespace().to_owned());
                Api::namespaced_with(client.clone(), &namespace, &resource)
            }
        };
        let params = PatchParams::apply(manager).force();
        let name = object.name_any();
        api.patch(&name, &params, &Patch::Apply(&object))
            .await
            .with_context(|| format!("applying {} {name}", types.kind))?;
    }
    Ok(())
}

async fn discover(client: &Client, gvk: &GroupVersionKind) -> anyhow::Result<(ApiResource, ApiCapabilities)> {
    let deadline = Instant::now() + KIND_APPEARS;
    loop {
        match pinned_kind(client, gvk).await {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => {
                return Err(error)
                    .with_context(|| format!("the server does not know {}/{}", gvk.api_version(), gvk.kind));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
