//! The volumes of a container as links in its own directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Container;
use kube_sim::controllers::pods::VolumeFolders;
use kube_sim::controllers::pods::environment::Mounts;
use kube_sim::controllers::pods::volumes::PodVolumes;

use super::KubeletArgs;

impl VolumeFolders for KubeletArgs {
    fn folder(&self, driver: &str, handle: &str) -> Option<PathBuf> {
        let directory = self.volumes_dir.join(handle);
        (driver == self.csi_driver && directory.is_dir()).then_some(directory)
    }
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
