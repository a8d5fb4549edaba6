//! The volumes of a pod as directories. Any small kubelet can use it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    KeyToPath, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount, Volume, VolumeProjection,
};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

use super::environment;
use super::runlog::ClaimRef;

/// What a pod mounts.
#[derive(Debug, Clone, Default)]
pub struct PodVolumes {
    /// Volume name to the directory with its content.
    pub directories: BTreeMap<String, PathBuf>,
    /// Names of the volumes that are claims, in the pod's order.
    pub claim_volumes: Vec<String>,
    /// Claims and handles.
    pub claims: Vec<ClaimRef>,
    /// The names under which the node lists the volumes as in use.
    pub unique_names: Vec<String>,
}

/// Where the volumes of CSI drivers are, on this node.
///
/// - **Flow**: asked for each claim of a pod, once it is bound, and again while the answer is `None`.
/// - **Guarantees** asked of an implementation: it answers at once, and the folder is the same as long as the volume exists.
/// - **Assumptions**: the pod's containers read and write the folder itself; nothing is mounted.
/// - **Cancellation**: nothing to cancel: it does not wait.
/// - **Errors**: none. A volume that is not here is `None`, and the pod waits.
pub trait VolumeFolders: Send + Sync {
    /// The folder of the volume that `driver` knows as `handle`; `None` when it has no such volume here.
    fn folder(&self, driver: &str, handle: &str) -> Option<PathBuf>;
}

/// Brings every volume of the pod to a directory, under `dir` where it is not a claim.
///
/// # Errors
/// A sentence saying what is missing; the caller tries again.
pub async fn prepare(
    client: &Client,
    folders: &dyn VolumeFolders,
    pod: &Pod,
    dir: &Path,
    pod_ip: &str,
) -> Result<PodVolumes, String> {
    let mut volumes = PodVolumes::default();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let own = dir.join("volumes").join(&volume.name);
        let directory = if let Some(claim) = claim_name(pod, volume) {
            let (driver, handle) = bound_volume(client, pod, &claim).await?;
            let directory = folders
                .folder(&driver, &handle)
                .ok_or_else(|| format!("claim {claim}: driver {driver} has no volume {handle} on this node"))?;
            volumes.unique_names.push(format!("kubernetes.io/csi/{driver}^{handle}"));
            volumes.claims.push(ClaimRef { claim, handle });
            volumes.claim_volumes.push(volume.name.clone());
            directory
        } else {
            let files = local_files(client, pod, volume, pod_ip).await?;
            write_files(&own, &files).map_err(|error| format!("volume {}: {error}", volume.name))?;
            own
        };
        volumes.directories.insert(volume.name.clone(), directory);
    }
    Ok(volumes)
}

/// The claim behind a volume: one that it names, or one that is made with the pod.
#[must_use]
pub fn claim_name(pod: &Pod, volume: &Volume) -> Option<String> {
    let named = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
    named.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name_any(), volume.name)))
}

/// Driver and handle of the volume that the claim is bound to, in both directions.
async fn bound_volume(client: &Client, pod: &Pod, claim: &str) -> Result<(String, String), String> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let object = api.get(claim).await.map_err(|error| format!("claim {claim}: {error}"))?;
    if object.metadata.deletion_timestamp.is_some() {
        return Err(format!("claim {claim} is being deleted"));
    }
    let bound = object.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let name = object.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|_| bound);
    let name = name.ok_or_else(|| format!("claim {claim} is not bound"))?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = volumes.get(&name).await.map_err(|error| format!("volume {name}: {error}"))?;
    let spec = volume.spec.unwrap_or_default();
    if spec.claim_ref.as_ref().and_then(|claim| claim.uid.clone()) != object.metadata.uid {
        return Err(format!("volume {name} is bound to another claim than {claim}"));
    }
    let csi = spec.csi.ok_or_else(|| format!("volume {name} is not a CSI volume"))?;
    if Path::new(&csi.volume_handle).components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(format!("volume {name}: handle {:?} is not a plain name", csi.volume_handle));
    }
    Ok((csi.driver, csi.volume_handle))
}

async fn local_files(
    client: &Client,
    pod: &Pod,
    volume: &Volume,
    pod_ip: &str,
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let namespace = pod.namespace().unwrap_or_default();
    if volume.empty_dir.is_some() {
        return Ok(BTreeMap::new());
    }
    if let Some(source) = &volume.config_map {
        let data = environment::config_map(client, &namespace, &source.name, source.optional.unwrap_or(false)).await?;
        return chosen(data, source.items.as_deref());
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.clone().unwrap_or_default();
        let data = environment::secret(client, &namespace, &name, source.optional.unwrap_or(false)).await?;
        return chosen(data, source.items.as_deref());
    }
    if let Some(source) = &volume.projected {
        let mut files = BTreeMap::new();
        for projection in source.sources.iter().flatten() {
            files.extend(projected(client, pod, projection, pod_ip).await?);
        }
        return Ok(files);
    }
    Err(format!("volume {}: this kubelet knows claims, emptyDir, configMap, secret and projected only", volume.name))
}

async fn projected(
    client: &Client,
    pod: &Pod,
    projection: &VolumeProjection,
    pod_ip: &str,
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let namespace = pod.namespace().unwrap_or_default();
    if let Some(source) = &projection.config_map {
        // The root certificate bundle may appear a moment later than a namespace's first pod: the caller tries again.
        let data = environment::config_map(client, &namespace, &source.name, source.optional.unwrap_or(false)).await?;
        return chosen(data, source.items.as_deref());
    }
    if let Some(source) = &projection.secret {
        let data = environment::secret(client, &namespace, &source.name, source.optional.unwrap_or(false)).await?;
        return chosen(data, source.items.as_deref());
    }
    if let Some(source) = &projection.downward_api {
        let mut files = BTreeMap::new();
        for item in source.items.iter().flatten() {
            let path = item.field_ref.as_ref().map(|field| field.field_path.as_str()).unwrap_or_default();
            files.insert(item.path.clone(), environment::field(pod, path, pod_ip)?.into_bytes());
        }
        return Ok(files);
    }
    if let Some(source) = &projection.service_account_token {
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(source.audience.iter().cloned().collect()),
                expiration_seconds: source.expiration_seconds,
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
        let account = account.unwrap_or_else(|| "default".to_owned());
        let answer = accounts.create_token_request(&account, &PostParams::default(), &request).await;
        let token = answer.map_err(|error| error.to_string())?.status.and_then(|status| status.token);
        return Ok(BTreeMap::from([(source.path.clone(), token.unwrap_or_default().into_bytes())]));
    }
    Err("this kubelet does not know this projection".to_owned())
}

fn chosen(
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let Some(items) = items else { return Ok(data) };
    let take = |item: &KeyToPath| {
        let value = data.remove(&item.key).ok_or_else(|| format!("no key {}", item.key))?;
        Ok((item.path.clone(), value))
    };
    items.iter().map(take).collect()
}

fn write_files(dir: &Path, files: &BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    for (name, content) in files {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content)?;
    }
    Ok(())
}
