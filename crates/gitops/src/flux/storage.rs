//! Reads the newest release that Helm has stored for a HelmRelease.

use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ListParams};
use upgrade_core::ports::ObjectRef;
use windlass_api::call::CallError;
use windlass_api::foreign::HelmRelease;
use windlass_helm::{PAYLOAD_KEY, Release, StoredSecret, parse_secret_name, selector};

use super::error::FluxError;
use super::release;

/// The newest release; `None` when there is none, or when its name cannot be told before helm-controller has released once.
pub(super) async fn newest(
    client: &Client,
    object: &ObjectRef,
    helm_release: &HelmRelease,
) -> Result<Option<Release>, FluxError> {
    let Some((namespace, name)) = release::storage(object, helm_release) else { return Ok(None) };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    // Each Secret may have a megabyte, so that only names are listed.
    let listed = secrets.list_metadata(&ListParams::default().labels(&selector(&name))).await;
    let listed = listed.map_err(CallError::on::<Secret>("list", &namespace, ""))?;
    let revisions = listed.items.iter().filter_map(|secret| {
        let stored = secret.metadata.name.as_deref()?;
        parse_secret_name(stored).filter(|(release, _)| *release == name).map(|(_, revision)| (revision, stored))
    });
    let Some((_, newest)) = revisions.max() else { return Ok(None) };
    let found = secrets.get_opt(newest).await.map_err(CallError::on::<Secret>("get", &namespace, newest))?;
    // Gone between the two reads: an uninstall, or the pruning of a history that has newer ones by now.
    let Some(found) = found else {
        return Err(FluxError::ChangedMeanwhile { object: object.to_string(), attempts: 1 });
    };
    let payload = found.data.as_ref().and_then(|data| data.get(PAYLOAD_KEY)).map(|bytes| bytes.0.as_slice());
    let stored = StoredSecret { name: newest, type_: found.type_.as_deref(), payload };
    stored.release().map(Some).map_err(|source| FluxError::Helm { object: object.to_string(), source })
}
