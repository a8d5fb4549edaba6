//! The run log as a file: what ran on the node and when, one JSON object per line, so that a test can prove what did not.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use jiff::Timestamp;

pub use kube_sim::controllers::pods::{Entry, Event, PodRef, Run, RunHistory};

/// The log as the kubelet writes it.
#[derive(Debug)]
pub struct RunLog(Mutex<File>);

impl RunLog {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        Ok(Self(Mutex::new(file.with_context(|| format!("opening {}", path.display()))?)))
    }

    /// Appends the entry with the present time.
    pub(super) fn write(&self, entry: &Entry) {
        let entry = Entry { at_ms: Timestamp::now().as_millisecond(), ..entry.clone() };
        let written = serde_json::to_string(&entry).map_err(std::io::Error::other).and_then(|line| {
            let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(format!("{line}\n").as_bytes())
        });
        if let Err(error) = written {
            tracing::error!(%error, ?entry, "the run log cannot be written");
        }
    }
}

/// What the log at `path` says; a last line that is still being written is left out.
///
/// # Errors
/// When the file cannot be read or a complete line is not an entry.
pub fn read_run_log(path: &Path) -> anyhow::Result<RunHistory> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let complete = text.rfind('\n').map_or("", |end| text.split_at(end).0);
    let entries = complete.lines().map(serde_json::from_str).collect::<Result<Vec<Entry>, _>>();
    Ok(RunHistory::from_entries(entries.with_context(|| format!("reading {}", path.display()))?))
}
