//! What makes the driver misbehave: a file for the whole driver, parameters of classes for single volumes and snapshots.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::about;

/// The calls that rules can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CallName {
    /// A volume is made, empty or from a snapshot.
    CreateVolume,
    /// A volume and its bytes are removed.
    DeleteVolume,
    /// A snapshot is cut.
    CreateSnapshot,
    /// A snapshot is removed.
    DeleteSnapshot,
    /// Snapshots are looked up.
    ListSnapshots,
}

/// A gRPC status code other than OK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "these are the gRPC codes, named as in its specification")]
pub enum FailureCode {
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl FailureCode {
    /// Whether the call may still be going on, so that it must be repeated until its outcome is known.
    #[must_use]
    pub const fn may_go_on(self) -> bool {
        matches!(self, Self::Cancelled | Self::DeadlineExceeded | Self::Unavailable | Self::Aborted)
    }
}

impl fmt::Display for FailureCode {
    /// As the sidecars print it, which are written in Go.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("Canceled"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// An answer other than OK. Its text is what the sidecars write into events and statuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {code} desc = {message}")]
pub struct Refusal {
    /// What sort of refusal.
    pub code: FailureCode,
    /// What was wrong.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// One thing that goes wrong, or is slow.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// The call it is about.
    pub call: CallName,
    /// Only calls whose name or handle contains this; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matching: Option<String>,
    /// Only the first so many matching calls since the driver started; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u32>,
    /// Milliseconds to wait before anything else is done. The work goes on when the caller has given up.
    #[serde(default)]
    pub delay_ms: u64,
    /// Answer with this code and do nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<FailureCode>,
}

impl Rule {
    /// A rule that answers every `call` with `code`.
    #[must_use]
    pub fn fail(call: CallName, code: FailureCode) -> Self {
        Self { call, matching: None, first: None, delay_ms: 0, fail: Some(code) }
    }

    /// A rule that makes every `call` take `delay` longer.
    #[must_use]
    pub fn slow(call: CallName, delay: Duration) -> Self {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Self { call, matching: None, first: None, delay_ms, fail: None }
    }
}

/// The content of the control file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Control {
    /// The first rule that applies to a call counts.
    pub rules: Vec<Rule>,
    /// Snapshots are cut but reported as not ready to use.
    pub never_ready: bool,
    /// Deleting a volume deletes its snapshots too, as some real drivers do.
    pub delete_snapshots_with_volume: bool,
    /// Deleting a volume that has snapshots is refused, as other real drivers do.
    pub keep_volumes_with_snapshots: bool,
    /// Volume sizes are rounded up to a multiple of so many bytes.
    pub round_up_to: Option<i64>,
}

impl Control {
    /// Reads the control file; absent means well-behaved.
    ///
    /// # Errors
    /// When the file cannot be read or understood: a typing error must not look like good behaviour.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| about("reading", path, &error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(about("reading", path, &error)),
        }
    }

    /// Writes the control file in one step, so that no call sees half of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let unfinished = path.with_extension("json.new");
        std::fs::write(&unfinished, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(&unfinished, path).map_err(|error| about("writing", path, &error))
    }

    /// The same with what the parameters of a StorageClass or VolumeSnapshotClass add for this one call.
    ///
    /// Known: `delayMs`, `fail` (a gRPC code such as `UNAVAILABLE`), `neverReady`, `roundUpTo`, `deleteSnapshotsWithVolume`.
    pub(super) fn with_parameters(
        mut self,
        call: CallName,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Self, Refusal> {
        for (key, value) in parameters {
            match key.as_str() {
                "delayMs" => {
                    let rule = Rule::slow(call, Duration::from_millis(parse(key, value)?));
                    self.rules.push(rule);
                }
                "fail" => self.rules.insert(0, Rule::fail(call, parse(key, &format!("\"{value}\""))?)),
                "neverReady" => self.never_ready = parse(key, value)?,
                "roundUpTo" => self.round_up_to = Some(parse(key, value)?),
                "deleteSnapshotsWithVolume" => self.delete_snapshots_with_volume = parse(key, value)?,
                // What the sidecars add about the claim or the snapshot object.
                other if other.starts_with("csi.storage.k8s.io/") => {}
                other => return Err(unusable(format!("unknown parameter {other:?}"))),
            }
        }
        Ok(self)
    }

    /// The size a volume gets for the bytes asked for.
    pub(super) fn rounded(&self, bytes: i64) -> i64 {
        match self.round_up_to {
            Some(unit) if unit > 0 => bytes.saturating_add(unit - 1) / unit * unit,
            _ => bytes,
        }
    }
}

fn unusable(message: String) -> Refusal {
    Refusal::new(FailureCode::InvalidArgument, message)
}

fn parse<T: for<'de> Deserialize<'de>>(key: &str, value: &str) -> Result<T, Refusal> {
    serde_json::from_str(value).map_err(|error| unusable(format!("parameter {key}={value:?}: {error}")))
}

/// Counts the calls that each rule has already met.
#[derive(Debug, Default)]
pub(super) struct Met(HashMap<String, u32>);

impl Met {
    /// The delay and the failure that apply to this call.
    pub(super) fn apply(
        &mut self,
        control: &Control,
        call: CallName,
        subjects: &[&str],
    ) -> (Duration, Option<Refusal>) {
        for rule in control.rules.iter().filter(|rule| rule.call == call) {
            if let Some(part) = &rule.matching
                && !subjects.iter().any(|subject| subject.contains(part.as_str()))
            {
                continue;
            }
            if let Some(first) = rule.first {
                let count = self.0.entry(format!("{rule:?}")).or_default();
                *count += 1;
                if *count > first {
                    continue;
                }
            }
            let failure = rule
                .fail
                .map(|code| Refusal::new(code, format!("{call:?} fails because the rig's driver was told to")));
            return (Duration::from_millis(rule.delay_ms), failure);
        }
        (Duration::ZERO, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_for_the_first_calls_ends_by_itself() {
        let control: Control = serde_json::from_str(
            r#"{"rules": [{"call": "CreateVolume", "matching": "pvc-1", "first": 2, "fail": "RESOURCE_EXHAUSTED"}]}"#,
        )
        .unwrap();
        let mut met = Met::default();
        let mut code = |name: &str| met.apply(&control, CallName::CreateVolume, &[name]).1.map(|refusal| refusal.code);
        assert_eq!(code("pvc-2"), None);
        assert_eq!(code("pvc-1"), Some(FailureCode::ResourceExhausted));
        assert_eq!(code("pvc-1"), Some(FailureCode::ResourceExhausted));
        assert_eq!(code("pvc-1"), None);
    }

    #[test]
    fn an_unknown_class_parameter_is_refused() {
        let parameters = BTreeMap::from([("nevrReady".to_owned(), "true".to_owned())]);
        let refused = Control::default().with_parameters(CallName::CreateSnapshot, &parameters);
        assert_eq!(refused.unwrap_err().code, FailureCode::InvalidArgument);
    }

    #[test]
    fn sizes_are_rounded_up_never_down() {
        let control = Control { round_up_to: Some(1000), ..Control::default() };
        assert_eq!([control.rounded(1), control.rounded(1000), control.rounded(1001)], [1000, 1000, 2000]);
        assert_eq!(Control::default().rounded(7), 7);
    }
}
