//! One revision of a release, out of its storage.

use std::{fmt, io::Read as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use crate::{HelmError, SECRET_TYPE, secret_name};

/// How large a release may be when inflated, in bytes. Secrets hold 1 MiB, and manifests compress tenfold.
pub const DEFAULT_INFLATED_LIMIT: usize = 32 * 1024 * 1024;

/// What gzip starts with; very old releases were stored without it.
const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 0x08];

/// A release Secret as the API returns it, its data decoded once (as every typed client does).
#[derive(Clone, Copy)]
pub struct StoredSecret<'a> {
    /// The name of the Secret.
    pub name: &'a str,
    /// Its type.
    pub type_: Option<&'a str>,
    /// The bytes at [`PAYLOAD_KEY`](crate::PAYLOAD_KEY).
    pub payload: Option<&'a [u8]>,
}

impl StoredSecret<'_> {
    /// The release in the Secret.
    ///
    /// # Errors
    /// Everything [`decode`] refuses; a Secret of another type or without a payload; a name that does not fit the content.
    pub fn release(&self) -> Result<Release, HelmError> {
        let secret = || self.name.to_owned();
        match self.type_ {
            Some(SECRET_TYPE) => {}
            other => {
                return Err(HelmError::WrongType { secret: secret(), type_: other.unwrap_or_default().to_owned() });
            }
        }
        let payload = self.payload.ok_or_else(|| HelmError::NoPayload { secret: secret() })?;
        let release = decode(payload, DEFAULT_INFLATED_LIMIT)?;
        if self.name == secret_name(&release.name, release.revision) {
            Ok(release)
        } else {
            Err(HelmError::WrongName { secret: secret(), release: release.name, revision: release.revision })
        }
    }
}

/// Reads a payload: base64 of gzip of JSON, or base64 of JSON.
///
/// # Errors
/// What is not base64, gzip or the JSON of a release; what would be larger than `inflated_limit` bytes.
pub fn decode(payload: &[u8], inflated_limit: usize) -> Result<Release, HelmError> {
    let too_large = || HelmError::TooLarge { limit: inflated_limit };
    let bytes = STANDARD.decode(payload.trim_ascii()).map_err(|_| HelmError::NotBase64)?;
    let json = if bytes.starts_with(&GZIP_MAGIC) {
        let mut inflated = Vec::new();
        let limit = u64::try_from(inflated_limit).unwrap_or(u64::MAX).saturating_add(1);
        MultiGzDecoder::new(bytes.as_slice()).take(limit).read_to_end(&mut inflated).map_err(|_| HelmError::NotGzip)?;
        inflated
    } else {
        bytes
    };
    if json.len() > inflated_limit {
        return Err(too_large());
    }
    let stored: Stored = serde_json::from_slice(&json).map_err(|error| HelmError::NotRelease {
        problem: match error.classify() {
            serde_json::error::Category::Eof => "it ends too soon",
            serde_json::error::Category::Data => "a field is missing or has another type",
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => "it is not JSON",
        },
        line: error.line(),
        column: error.column(),
    })?;
    Ok(stored.into())
}

/// One revision of a release.
#[derive(Clone, PartialEq)]
pub struct Release {
    /// The name of the release.
    pub name: String,
    /// The namespace it is installed in; its objects may name others.
    pub namespace: String,
    /// The revision, from 1.
    pub revision: i64,
    /// How the revision stands.
    pub status: Status,
    /// What Helm says about it, for people.
    pub description: String,
    /// When the first revision was deployed.
    pub first_deployed: Option<Timestamp>,
    /// When this revision was deployed.
    pub last_deployed: Option<Timestamp>,
    /// The chart it was made from.
    pub chart: Chart,
    /// The values that were given, without the chart's own. May hold secrets.
    pub config: Value,
    /// The rendered objects, without hooks, as YAML documents. May hold secrets.
    pub manifest: String,
    /// The hooks.
    pub hooks: Vec<Hook>,
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Release")
            .field("name", &self.name)
            .field("namespace", &self.namespace)
            .field("revision", &self.revision)
            .field("status", &self.status)
            .field("chart", &self.chart)
            .finish_non_exhaustive()
    }
}

/// The chart that a revision was made from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Chart {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version of the app that it says it installs.
    #[serde(rename = "appVersion")]
    pub app_version: Option<String>,
}

/// An object that Helm applies by itself at some moments of an action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Hook {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its kind, mostly `Job`.
    #[serde(default)]
    pub kind: String,
    /// The moments: `pre-upgrade`, `post-install`, `test`, ...
    #[serde(default)]
    pub events: Vec<String>,
}

/// How a revision stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It is what runs.
    Deployed,
    /// A later revision replaced it.
    Superseded,
    /// It failed.
    Failed,
    /// It was uninstalled, and its history was kept.
    Uninstalled,
    /// It is being uninstalled, or that was cut off.
    Uninstalling,
    /// It is being installed, or that was cut off.
    PendingInstall,
    /// It is being upgraded to, or that was cut off.
    PendingUpgrade,
    /// It is being rolled back to, or that was cut off.
    PendingRollback,
    /// Helm does not know, or this crate does not know the word.
    #[serde(other)]
    Unknown,
}

impl Status {
    /// Whether Helm is at work on it, or was when it died.
    #[must_use]
    pub fn is_pending(self) -> bool {
        matches!(self, Self::PendingInstall | Self::PendingUpgrade | Self::PendingRollback | Self::Uninstalling)
    }
}

/// The revision with the highest number.
#[must_use]
pub fn newest(releases: &[Release]) -> Option<&Release> {
    releases.iter().max_by_key(|release| release.revision)
}

/// The newest revision that is deployed. After runs that crossed each other there may be several; Helm takes the newest, too.
#[must_use]
pub fn deployed(releases: &[Release]) -> Option<&Release> {
    releases.iter().filter(|release| release.status == Status::Deployed).max_by_key(|release| release.revision)
}

/// The part of Helm's JSON that is read.
#[derive(Deserialize)]
struct Stored {
    name: String,
    #[serde(default)]
    namespace: String,
    version: i64,
    info: Info,
    chart: StoredChart,
    #[serde(default)]
    config: Value,
    #[serde(default)]
    manifest: String,
    #[serde(default)]
    hooks: Option<Vec<Hook>>,
}

#[derive(Deserialize)]
struct Info {
    status: Status,
    #[serde(default)]
    description: String,
    #[serde(default, deserialize_with = "time")]
    first_deployed: Option<Timestamp>,
    #[serde(default, deserialize_with = "time")]
    last_deployed: Option<Timestamp>,
}

#[derive(Deserialize)]
struct StoredChart {
    metadata: Chart,
}

/// A time, for which Helm also writes an empty text.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(D::Error::custom),
    }
}

impl From<Stored> for Release {
    fn from(stored: Stored) -> Self {
        Self {
            name: stored.name,
            namespace: stored.namespace,
            revision: stored.version,
            status: stored.info.status,
            description: stored.info.description,
            first_deployed: stored.info.first_deployed,
            last_deployed: stored.info.last_deployed,
            chart: stored.chart.metadata,
            config: stored.config,
            manifest: stored.manifest,
            hooks: stored.hooks.unwrap_or_default(),
        }
    }
}
