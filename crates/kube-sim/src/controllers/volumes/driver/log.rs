//! The call log: proof of what the driver was asked, in which order, and what it answered.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::control::CallName;

/// One finished call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallRecord {
    /// When the call arrived, milliseconds since 1970.
    pub at_ms: i64,
    /// When it was answered, milliseconds since 1970.
    pub answered_ms: i64,
    /// The call.
    pub call: CallName,
    /// Handle of the volume made, deleted or cut; empty if none is named.
    pub volume: String,
    /// Handle of the snapshot made, deleted, looked up or restored from; empty if none is named.
    pub snapshot: String,
    /// `OK`, or the gRPC code.
    pub result: String,
    /// What the answer said beyond that.
    pub message: String,
}

/// Appends records; a line is written with one write, so readers never see halves of two.
#[derive(Debug)]
pub(super) struct CallLog(Mutex<File>);

impl CallLog {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(Mutex::new(file.map_err(|error| super::about("opening", path, &error))?)))
    }

    pub(super) fn write(&self, record: &CallRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)?;
        Ok(())
    }
}
