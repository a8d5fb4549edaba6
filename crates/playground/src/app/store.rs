//! The records on the volume: an append-only file, locked by the one instance that may use it.
//!
//! Format 1 is one line per record, `<number> <text>`. Format 2 starts with a header line and keeps one JSON object per
//! line. The checksum is taken over the records, not the bytes, so that it is the same before and after a migration.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const RECORDS: &str = "records.log";
const V2_HEADER: &str = "#records format=2";

/// Layout of the records file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One line per record.
    V1,
    /// A header, then one JSON object per record.
    V2,
}

/// What an app version does with the format it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatPolicy {
    /// Reads and writes format 1, refuses format 2.
    OnlyV1,
    /// Turns format 1 into format 2.
    MigrateToV2,
    /// Goes on with whichever it finds.
    Keep,
}

/// Why the volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the volume open.
    #[error("another instance holds the lock on {0}")]
    Locked(PathBuf),
    /// The file is of a format this version does not know.
    #[error("the data is in format 2, which this version cannot read; it was written by version 2 or later")]
    NewerFormat,
    /// A line is not the record that should be there.
    #[error("the data is corrupt: line {line} is not record {expected}")]
    Corrupt {
        /// Line in the file, from 1.
        line: usize,
        /// Number of the record that belongs there.
        expected: u64,
    },
    /// A record must be one line of text.
    #[error("a record is one line of text, at most 4096 bytes")]
    BadRecord,
    /// The file system said no.
    #[error("volume {path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct V2Record {
    n: u64,
    text: String,
}

/// What the store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Number of the last record; 0 when there is none. Records are numbered from 1 without gaps.
    pub last: u64,
    /// Lower-case hex SHA-256 over `<number> <text>\n` of every record.
    pub checksum: String,
    /// Layout of the file.
    pub format: Format,
}

/// The open records file. Dropping it (or dying) releases the lock.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    format: Format,
    inner: Mutex<Inner>,
    _lock: File,
}

#[derive(Debug)]
struct Inner {
    file: File,
    last: u64,
    hash: Sha256,
}

impl Store {
    /// Opens (or starts) the records in `dir`, bringing them to the format `policy` asks for. A record that a crash cut
    /// short was never acknowledged and is dropped.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing is changed then.
    pub fn open(dir: &Path, policy: FormatPolicy) -> Result<Self, StoreError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, source }
        };
        let lock_path = dir.join(".lock");
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(dir.to_owned())),
            Err(TryLockError::Error(source)) => return Err(at(&lock_path)(source)),
        }
        let path = dir.join(RECORDS);
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(mut file) => drop(file.read_to_end(&mut bytes).map_err(at(&path))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(at(&path)(source)),
        }
        bytes.truncate(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1));
        let (found, records) = parse(&bytes)?;
        let format = match (policy, found) {
            (FormatPolicy::OnlyV1, Some(Format::V2)) => return Err(StoreError::NewerFormat),
            (FormatPolicy::MigrateToV2, _) => Format::V2,
            (_, found) => found.unwrap_or(Format::V1),
        };
        if found != Some(format) {
            bytes = render(format, &records);
            let next = dir.join("records.next");
            let mut file = File::create(&next).map_err(at(&next))?;
            file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(at(&next))?;
            fs::rename(&next, &path).and_then(|()| File::open(dir)?.sync_all()).map_err(at(&path))?;
        }
        let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(at(&path))?;
        file.set_len(bytes.len() as u64).and_then(|()| file.seek(SeekFrom::End(0))).map_err(at(&path))?;
        let mut hash = Sha256::new();
        for (number, text) in (1..).zip(&records) {
            hash.update(format!("{number} {text}\n"));
        }
        let last = records.len() as u64;
        Ok(Self { path, format, inner: Mutex::new(Inner { file, last, hash }), _lock: lock })
    }

    /// Appends one record and returns its number once it is on disk.
    ///
    /// # Errors
    /// The record is not one line of text, or the disk refused it (then nothing was acknowledged).
    pub fn append(&self, text: &str) -> Result<u64, StoreError> {
        if text.len() > 4096 || text.contains(['\n', '\r']) {
            return Err(StoreError::BadRecord);
        }
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let number = inner.last + 1;
        let line = line(self.format, number, text);
        let written = inner.file.write_all(line.as_bytes()).and_then(|()| inner.file.sync_data());
        written.map_err(|source| StoreError::Io { path: self.path.clone(), source })?;
        inner.last = number;
        inner.hash.update(format!("{number} {text}\n"));
        Ok(number)
    }

    /// What has been acknowledged so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Summary { last: inner.last, checksum: hex(&inner.hash.clone().finalize()), format: self.format }
    }

    /// Overwrites the first half of the file, as a broken version would.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn corrupt(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(&self.path)?;
        let half = (file.metadata()?.len() / 2).max(16);
        file.write_all(&vec![b'!'; usize::try_from(half).unwrap_or(16)])?;
        file.write_all(b"\n")?;
        file.sync_all()
    }
}

fn line(format: Format, number: u64, text: &str) -> String {
    match format {
        Format::V1 => format!("{number} {text}\n"),
        Format::V2 => format!("{}\n", serde_json::json!({ "n": number, "text": text })),
    }
}

fn render(format: Format, records: &[String]) -> Vec<u8> {
    let header = if format == Format::V2 { format!("{V2_HEADER}\n") } else { String::new() };
    (1..).zip(records).fold(header, |file, (number, text)| file + &line(format, number, text)).into_bytes()
}

/// The format and the texts of the records; no format when there is no complete line yet.
fn parse(bytes: &[u8]) -> Result<(Option<Format>, Vec<String>), StoreError> {
    if bytes.is_empty() {
        return Ok((None, Vec::new()));
    }
    let header = format!("{V2_HEADER}\n");
    let format = if bytes.starts_with(header.as_bytes()) { Format::V2 } else { Format::V1 };
    let skip = usize::from(format == Format::V2);
    let mut records = Vec::new();
    for (index, raw) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate().skip(skip) {
        let expected = records.len() as u64 + 1;
        let corrupt = || StoreError::Corrupt { line: index + 1, expected };
        let raw = std::str::from_utf8(raw).map_err(|_| corrupt())?.trim_end_matches('\n');
        let (number, text) = match format {
            Format::V1 => {
                let (number, text) = raw.split_once(' ').ok_or_else(corrupt)?;
                (number.parse().map_err(|_| corrupt())?, text.to_owned())
            }
            Format::V2 => {
                let record: V2Record = serde_json::from_str(raw).map_err(|_| corrupt())?;
                (record.n, record.text)
            }
        };
        if number != expected {
            return Err(corrupt());
        }
        records.push(text);
    }
    Ok((Some(format), records))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, policy: FormatPolicy) -> Store {
        Store::open(dir, policy).unwrap()
    }

    #[test]
    fn acknowledged_records_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), FormatPolicy::OnlyV1);
        assert_eq!(store.append("a").unwrap(), 1);
        assert_eq!(store.append("b c").unwrap(), 2);
        let before = store.summary();
        drop(store);
        assert_eq!(open(dir.path(), FormatPolicy::OnlyV1).summary(), before);
    }

    #[test]
    fn a_record_cut_short_is_dropped_and_its_number_used_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(RECORDS), "1 a\n2 b").unwrap();
        assert_eq!(open(dir.path(), FormatPolicy::OnlyV1).append("c").unwrap(), 2);
        assert_eq!(fs::read_to_string(dir.path().join(RECORDS)).unwrap(), "1 a\n2 c\n");
    }

    #[test]
    fn a_second_instance_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _first = open(dir.path(), FormatPolicy::OnlyV1);
        assert!(matches!(Store::open(dir.path(), FormatPolicy::OnlyV1), Err(StoreError::Locked(_))));
    }

    #[test]
    fn a_migration_keeps_the_records_and_locks_version_1_out() {
        let dir = tempfile::tempdir().unwrap();
        let v1 = open(dir.path(), FormatPolicy::OnlyV1);
        v1.append("a").unwrap();
        let before = v1.summary();
        drop(v1);
        let v2 = open(dir.path(), FormatPolicy::MigrateToV2);
        assert_eq!(v2.summary(), Summary { format: Format::V2, ..before });
        assert_eq!(v2.append("b \"quoted\"").unwrap(), 2);
        drop(v2);
        assert!(matches!(Store::open(dir.path(), FormatPolicy::OnlyV1), Err(StoreError::NewerFormat)));
        assert_eq!(open(dir.path(), FormatPolicy::Keep).summary().last, 2);
    }

    #[test]
    fn corrupted_data_is_noticed_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), FormatPolicy::Keep);
        for _ in 0..20 {
            store.append("x").unwrap();
        }
        store.corrupt().unwrap();
        drop(store);
        assert!(matches!(
            Store::open(dir.path(), FormatPolicy::OnlyV1),
            Err(StoreError::Corrupt { line: 1, expected: 1 })
        ));
    }

    #[test]
    fn a_record_of_several_lines_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), FormatPolicy::OnlyV1);
        assert!(matches!(store.append("a\nb"), Err(StoreError::BadRecord)));
        assert_eq!(store.summary().last, 0);
    }
}
