//! The volumes of a pod as directories.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    Container, KeyToPath, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount, Volume, VolumeProjection,
};
use kube::api::PostParams;
use kube::{Api, ResourceExt};

use super::Context;
use super::environment::{self, Mounts};
use super::runlog::ClaimRef;

/// What a pod mounts.
#[derive(Debug, Clone, Default)]
pub(super) struct PodVolumes {
    /// Volume name to the directory with its content.
    pub(super) directories: BTreeMap<String, PathBuf>,
    /// Names of the volumes that are claims, in the pod's order.
    pub(super) claim_volumes: Vec<String>,
    /// Claims and handles.
    pub(super) claims: Vec<ClaimRef>,
}

impl PodVolumes {
    /// The names under which the node lists the volumes as in use.
    pub(super) fn unique_names(&self, driver: &str) -> Vec<String> {
        self.claims.iter().map(|claim| format!("kubernetes.io/csi/{driver}^{}", claim.handle)).collect()
    }
}

/// Brings every volume of the pod to a directory.
///
/// # Errors
/// A sentence saying what is missing; the caller tries again.
pub(super) async fn prepare(context: &Context, pod: &Pod, dir: &Path, pod_ip: &str) -> Result<PodVolumes, String> {
    let mut volumes = PodVolumes::default();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let own = dir.join("volumes").join(&volume.name);
        let directory = if let Some(claim) = claim_name(pod, volume) {
            let handle = bound_handle(context, pod, &claim).await?;
            let directory = context.args.volumes_dir.join(&handle);
            if !directory.is_dir() {
                return Err(format!("claim {claim}: the driver has no volume {handle}"));
            }
            volumes.claims.push(ClaimRef { claim, handle });
            volumes.claim_volumes.push(volume.name.clone());
            directory
        } else {
            let files = local_files(context, pod, volume, pod_ip).await?;
            write_files(&own, &files).map_err(|error| format!("volume {}: {error}", volume.name))?;
            own
        };
        volumes.directories.insert(volume.name.clone(), directory);
    }
    Ok(volumes)
}

fn claim_name(pod: &Pod, volume: &Volume) -> Option<String> {
    let named = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
    named.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name_any(), volume.name)))
}

/// Handle of the volume that the claim is bound to, in both directions.
async fn bound_handle(context: &Context, pod: &Pod, claim: &str) -> Result<String, String> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &pod.namespace().unwrap_or_default());
    let object = api.get(claim).await.map_err(|error| format!("claim {claim}: {error}"))?;
    if object.metadata.deletion_timestamp.is_some() {
        return Err(format!("claim {claim} is being deleted"));
    }
    let bound = object.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let name = object.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|_| bound);
    let name = name.ok_or_else(|| format!("claim {claim} is not bound"))?;
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let volume = volumes.get(&name).await.map_err(|error| format!("volume {name}: {error}"))?;
    let spec = volume.spec.unwrap_or_default();
    if spec.claim_ref.as_ref().and_then(|claim| claim.uid.clone()) != object.metadata.uid {
        return Err(format!("volume {name} is bound to another claim than {claim}"));
    }
    let csi = spec.csi.ok_or_else(|| format!("volume {name} is not a CSI volume"))?;
    if csi.driver != context.args.csi_driver {
        return Err(format!("volume {name} belongs to driver {}, which is not on this node", csi.driver));
    }
    if Path::new(&csi.volume_handle).components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(format!("volume {name}: handle {:?} is not a plain name", csi.volume_handle));
    }
    Ok(csi.volume_handle)
}

async fn local_files(
    context: &Context,
    pod: &Pod,
    volume: &Volume,
    pod_ip: &str,
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let (client, namespace) = (&context.client, pod.namespace().unwrap_or_default());
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
            files.extend(projected(context, pod, projection, pod_ip).await?);
        }
        return Ok(files);
    }
    Err(format!(
        "volume {}: the rig's kubelet knows claims, emptyDir, configMap, secret and projected only",
        volume.name
    ))
}

async fn projected(
    context: &Context,
    pod: &Pod,
    projection: &VolumeProjection,
    pod_ip: &str,
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let (client, namespace) = (&context.client, pod.namespace().unwrap_or_default());
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
    Err("the rig's kubelet does not know this projection".to_owned())
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

/// The container's own directory with a link at every mount path; returns the mounts and, per volume mount, the variable
/// `MOUNT_<NAME>`.
///
/// # Errors
/// When a mount names no volume or the links cannot be made.
pub(super) fn mount(
    volumes: &PodVolumes,
    container: &Container,
    root: &Path,
) -> Result<(Mounts, Vec<(String, String)>), String> {
    let mut mounts = Mounts::new();
    let mut env = Vec::new();
    // Outer paths first: a mount inside another one must not leave a link in the outer volume.
    let mut wanted: Vec<_> = container.volume_mounts.iter().flatten().collect();
    wanted.sort_by_key(|mount| mount.mount_path.len());
    for mount in wanted {
        let volume = volumes.directories.get(&mount.name).ok_or_else(|| format!("no volume {}", mount.name))?;
        let target = mount.sub_path.as_ref().map_or_else(|| volume.clone(), |inside| volume.join(inside));
        let link = root.join(mount.mount_path.trim_start_matches('/'));
        let made = (|| {
            if mount.sub_path.is_some() && !target.exists() {
                fs::create_dir_all(&target)?;
            }
            if link.ancestors().skip(1).take_while(|outer| *outer != root).any(Path::is_symlink) {
                return Ok(());
            }
            if let Some(parent) = link.parent() {
                fs::create_dir_all(parent)?;
            }
            if link.is_symlink() {
                fs::remove_file(&link)?;
            }
            symlink(&target, &link)
        })();
        made.map_err(|error: std::io::Error| format!("mounting {} at {}: {error}", mount.name, mount.mount_path))?;
        let name: String = mount.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        env.push((format!("MOUNT_{}", name.to_uppercase()), target.display().to_string()));
        if volumes.claim_volumes.first() == Some(&mount.name) {
            env.push(("DATA_DIR".to_owned(), target.display().to_string()));
        }
        mounts.insert(mount.mount_path.clone(), target);
    }
    Ok((mounts, env))
}
