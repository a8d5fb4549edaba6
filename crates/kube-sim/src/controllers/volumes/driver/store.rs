//! Volumes and snapshots on disk.
//!
//! Something exists if and only if its directory has its final name: bytes are copied under a temporary name, the
//! description is written first, and the rename comes last.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What is known of a volume besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// Its size in bytes.
    pub bytes: i64,
    /// Handle of the snapshot it was made from.
    pub from_snapshot: Option<String>,
    /// Whether its snapshots go with it.
    pub delete_snapshots_with_volume: bool,
}

/// What is known of a snapshot besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Handle of the volume it was cut from.
    pub volume: String,
    /// The size of that volume in bytes.
    pub bytes: i64,
    /// When it was cut: later writes are not in it.
    pub cut_at: Timestamp,
    /// Whether it is reported as not ready to use, for ever.
    pub never_ready: bool,
}

/// One kind of directory, with a description each.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    bytes: PathBuf,
    descriptions: PathBuf,
}

impl Shelf {
    pub(super) fn open(bytes: PathBuf, descriptions: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&bytes)?;
        fs::create_dir_all(&descriptions)?;
        Ok(Self { bytes, descriptions })
    }

    pub(super) fn dir(&self, handle: &str) -> PathBuf {
        self.bytes.join(handle)
    }

    fn description(&self, handle: &str) -> PathBuf {
        self.descriptions.join(format!("{handle}.json"))
    }

    pub(super) fn get<T: DeserializeOwned>(&self, handle: &str) -> io::Result<Option<T>> {
        if !self.dir(handle).is_dir() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&fs::read(self.description(handle))?)?))
    }

    pub(super) fn all<T: DeserializeOwned>(&self) -> io::Result<Vec<(String, T)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.bytes)? {
            let handle = entry?.file_name().to_string_lossy().into_owned();
            if is_handle(&handle)
                && let Some(info) = self.get(&handle)?
            {
                found.push((handle, info));
            }
        }
        found.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(found)
    }

    /// Makes `handle` with the bytes of `source`, or empty.
    pub(super) fn create<T: Serialize>(&self, handle: &str, info: &T, source: Option<&Path>) -> io::Result<()> {
        let unfinished = self.bytes.join(format!(".{handle}"));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        match source {
            Some(source) => copy_tree(source, &unfinished)?,
            None => fs::create_dir(&unfinished)?,
        }
        fs::write(self.description(handle), serde_json::to_vec(info)?)?;
        fs::rename(&unfinished, self.dir(handle))
    }

    /// Removes `handle`; what is not there is removed already.
    pub(super) fn remove(&self, handle: &str) -> io::Result<()> {
        let dir = self.dir(handle);
        if !dir.exists() {
            return Ok(());
        }
        // Renamed first, so that a half removed directory is never taken for a volume.
        let going = self.bytes.join(format!(".{handle}"));
        fs::rename(&dir, &going)?;
        fs::remove_dir_all(&going)?;
        fs::remove_file(self.description(handle))
    }
}

/// Handles become file names.
pub(super) fn is_handle(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, source, target) = (entry.file_type()?, entry.path(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_file() {
            match fs::copy(&source, &target) {
                // The app may remove a file while we look: at the moment of the snapshot it was not there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => drop(other?),
            }
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_holds_files_folders_and_links_and_outlives_its_source() {
        let root = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(root.path().join("v"), root.path().join("d")).unwrap();
        shelf.create("one", &1, None).unwrap();
        fs::create_dir(shelf.dir("one").join("sub")).unwrap();
        fs::write(shelf.dir("one").join("sub/data"), "bytes").unwrap();
        std::os::unix::fs::symlink("sub/data", shelf.dir("one").join("link")).unwrap();

        shelf.create("two", &2, Some(&shelf.dir("one"))).unwrap();
        shelf.remove("one").unwrap();
        shelf.remove("one").unwrap();

        assert_eq!(fs::read_to_string(shelf.dir("two").join("link")).unwrap(), "bytes");
        assert_eq!(shelf.all::<i32>().unwrap(), [("two".to_owned(), 2)]);
        assert_eq!(shelf.get::<i32>("one").unwrap(), None);
    }

    #[test]
    fn a_half_made_copy_is_not_a_volume() {
        let root = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(root.path().join("v"), root.path().join("d")).unwrap();
        fs::create_dir(root.path().join("v/.one")).unwrap();
        assert_eq!(shelf.all::<i32>().unwrap(), []);
        shelf.create("one", &1, None).unwrap();
        assert_eq!(shelf.get("one").unwrap(), Some(1));
    }

    #[test]
    fn handles_cannot_leave_their_directory() {
        assert!(is_handle("pvc-0a.b_c"));
        assert!(!["", "..", ".hidden", "a/b", "a\0"].into_iter().any(is_handle));
    }
}
