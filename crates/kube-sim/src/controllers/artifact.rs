//! Artifacts: packed trees that one controller makes and others fetch.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Error;

/// Keeps artifacts and hands them out.
///
/// - **Flow**: a source controller `put`s an artifact and publishes the URL in a status; a consumer `get`s the URL it read there.
/// - **Guarantees**: what was put under a path is returned byte for byte until something else is put there.
/// - **Assumptions**: a path is relative, and one controller alone puts something there.
/// - **Cancellation**: a cancelled `put` leaves either the old or the new content.
/// - **Errors**: [`Error::Source`] when the store cannot be written or holds nothing at the URL.
#[async_trait]
pub trait ArtifactStore: Send + Sync {
    /// Stores `content` under `path` and returns the URL at which it is found.
    async fn put(&self, path: &str, content: Bytes) -> Result<String, Error>;
    /// Fetches what a URL from a status names.
    async fn get(&self, url: &str) -> Result<Bytes, Error>;
}

/// Artifacts in memory, for simulations in one process.
#[derive(Debug, Default)]
pub struct MemoryArtifacts(Mutex<BTreeMap<String, Bytes>>);

#[async_trait]
impl ArtifactStore for MemoryArtifacts {
    async fn put(&self, path: &str, content: Bytes) -> Result<String, Error> {
        let url = format!("memory://{path}");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(url.clone(), content);
        Ok(url)
    }

    async fn get(&self, url: &str) -> Result<Bytes, Error> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(url).cloned();
        found.ok_or_else(|| Error::Source(format!("no artifact at {url}")))
    }
}

/// `status.artifact` of a Flux source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are those of the API")]
pub struct Artifact {
    pub path: String,
    pub url: String,
    pub revision: String,
    pub digest: String,
    pub last_update_time: String,
    pub size: u64,
}

impl Artifact {
    /// Stores `content` and describes it.
    pub(super) async fn store(
        store: &dyn ArtifactStore,
        path: String,
        revision: String,
        content: Vec<u8>,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let (digest, size) = (sha256(&content), content.len() as u64);
        let url = store.put(&path, content.into()).await?;
        let last_update_time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        Ok(Self { path, url, revision, digest, last_update_time, size })
    }
}

/// `sha256:` and the lower-case hex digest.
pub(super) fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// Files (by path) as a gzipped tar that depends on nothing but them: no times, no owners, sorted.
///
/// # Errors
/// When a path is too long for a tar header.
pub fn pack(files: &BTreeMap<String, Packed>) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, file) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        match file {
            Packed::File { content, executable } => {
                header.set_size(content.len() as u64);
                header.set_mode(if *executable { 0o755 } else { 0o644 });
                tar.append_data(&mut header, path, content.as_slice())?;
            }
            Packed::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                header.set_mode(0o777);
                tar.append_link(&mut header, path, target)?;
            }
        }
    }
    tar.into_inner()?.finish()
}

/// One entry of a packed tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packed {
    /// A regular file.
    File {
        /// Its bytes.
        content: Vec<u8>,
        /// Whether it may be run.
        executable: bool,
    },
    /// A symbolic link and where it points.
    Link(String),
}

/// The regular files of a gzipped tar, by path. Nothing is written to disk, so that no path can escape.
///
/// # Errors
/// When it is not a gzipped tar.
pub fn unpack(archive: &[u8]) -> std::io::Result<BTreeMap<String, Packed>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(GzDecoder::new(archive)).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        if entry.header().entry_type().is_file() {
            let executable = entry.header().mode()? & 0o100 != 0;
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            files.insert(path, Packed::File { content, executable });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_tree_is_the_same_every_time_and_can_be_unpacked() {
        let file = |content: &str| Packed::File { content: content.as_bytes().to_vec(), executable: false };
        let files = BTreeMap::from([("a/b.yaml".to_owned(), file("x: 1\n")), ("c".to_owned(), file(""))]);
        let packed = pack(&files).unwrap();
        assert_eq!(packed, pack(&files).unwrap());
        assert_eq!(unpack(&packed).unwrap(), files);
    }
}
