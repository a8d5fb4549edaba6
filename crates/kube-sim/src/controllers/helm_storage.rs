//! Helm's own records of releases: Secrets of type `helm.sh/release.v1`.

use std::io::{Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::Value;

use super::Error;

/// One recorded release.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRelease {
    secret: String,
    body: Value,
}

impl StoredRelease {
    /// A record that is not stored yet, of a release in Helm's JSON.
    pub(super) fn new(body: Value) -> Self {
        let mut release = Self { secret: String::new(), body };
        release.secret = format!("sh.helm.release.v1.{}.v{}", release.name(), release.version());
        release
    }

    /// The release in Helm's JSON.
    pub(super) const fn body(&self) -> &Value {
        &self.body
    }

    /// A copy under another number, that is not stored yet.
    pub(super) fn with_version(&self, version: i64) -> Self {
        let mut body = self.body.clone();
        if let Some(body) = body.as_object_mut() {
            body.insert("version".to_owned(), version.into());
        }
        Self::new(body)
    }

    pub(super) fn set_info(&mut self, field: &str, value: impl Into<Value>) {
        if let Some(info) = self.body.get_mut("info").and_then(Value::as_object_mut) {
            info.insert(field.to_owned(), value.into());
        }
    }

    fn text(&self, path: &str) -> String {
        self.body.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Release name.
    #[must_use]
    pub fn name(&self) -> String {
        self.text("/name")
    }

    /// Namespace that the release is installed to.
    #[must_use]
    pub fn namespace(&self) -> String {
        self.text("/namespace")
    }

    /// Helm's revision number.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.body.get("version").and_then(Value::as_i64).unwrap_or(0)
    }

    /// `deployed`, `failed`, `superseded`, `pending-upgrade`, ...
    #[must_use]
    pub fn status(&self) -> String {
        self.text("/info/status")
    }

    /// Whether an action was (or is) in flight.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.status().starts_with("pending-")
    }

    /// A field of `Chart.yaml`, such as `name`, `version`, `appVersion`; empty when absent.
    #[must_use]
    pub fn chart(&self, field: &str) -> String {
        self.text(&format!("/chart/metadata/{field}"))
    }

    /// A field of the release's info, such as `first_deployed`; empty when absent.
    #[must_use]
    pub fn info(&self, field: &str) -> String {
        self.text(&format!("/info/{field}"))
    }

    /// The values that the user gave.
    #[must_use]
    pub fn config(&self) -> Value {
        match self.body.get("config") {
            Some(Value::Object(config)) => Value::Object(config.clone()),
            _ => Value::Object(serde_json::Map::new()),
        }
    }

    /// The rendered objects, as YAML documents.
    #[must_use]
    pub fn manifest(&self) -> String {
        self.text("/manifest")
    }
}

fn api(client: &Client, namespace: &str) -> Api<Secret> {
    Api::namespaced(client.clone(), namespace)
}

/// All recorded releases of that name, oldest first.
///
/// # Errors
/// [`Error::Api`], or [`Error::Helm`] when a record cannot be decoded.
pub async fn list(client: &Client, namespace: &str, name: &str) -> Result<Vec<StoredRelease>, Error> {
    let selector = ListParams::default().labels(&format!("owner=helm,name={name}"));
    let secrets = api(client, namespace).list(&selector).await?;
    let mut releases = secrets.items.into_iter().map(of_secret).collect::<Result<Vec<_>, _>>()?;
    releases.sort_by_key(StoredRelease::version);
    Ok(releases)
}

fn of_secret(secret: Secret) -> Result<StoredRelease, Error> {
    let name = secret.metadata.name.unwrap_or_default();
    let data = secret.data.and_then(|mut data| data.remove("release")).unwrap_or_default();
    match decode(&data.0) {
        Ok(body) => Ok(StoredRelease { secret: name, body }),
        Err(why) => Err(Error::Helm(format!(
            "release record {namespace}/{name}: {why}",
            namespace = secret.metadata.namespace.unwrap_or_default()
        ))),
    }
}

/// Marks a pending release as failed, as helm-controller does with one whose process is gone.
///
/// # Errors
/// [`Error::Api`], with a conflict when Helm wrote in the meantime.
pub async fn unlock(client: &Client, namespace: &str, release: &StoredRelease) -> Result<(), Error> {
    let mut unlocked = release.clone();
    unlocked.set_info("description", format!("Release unlocked from stale '{}' state", release.status()));
    unlocked.set_info("status", "failed");
    update(client, namespace, &unlocked).await
}

/// Stores a new record.
///
/// # Errors
/// [`Error::Api`], with a conflict when there is one of that number already.
pub(super) async fn create(
    client: &Client,
    namespace: &str,
    release: &StoredRelease,
    now: Timestamp,
) -> Result<(), Error> {
    let (name, version, status) = (release.name(), release.version().to_string(), release.status());
    let created = now.as_second().to_string();
    let labels = [
        ("createdAt", created),
        ("name", name),
        ("owner", "helm".to_owned()),
        ("status", status),
        ("version", version),
    ];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(release.secret.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
            ..ObjectMeta::default()
        },
        type_: Some("helm.sh/release.v1".to_owned()),
        data: Some([("release".to_owned(), encoded(release)?)].into()),
        ..Secret::default()
    };
    api(client, namespace).create(&PostParams::default(), &secret).await?;
    Ok(())
}

/// Stores what became of a record.
///
/// # Errors
/// [`Error::Api`], with a conflict when somebody else wrote in the meantime.
pub(super) async fn update(client: &Client, namespace: &str, release: &StoredRelease) -> Result<(), Error> {
    let api = api(client, namespace);
    let mut secret = api.get(&release.secret).await?;
    secret.data.get_or_insert_default().insert("release".to_owned(), encoded(release)?);
    secret.metadata.labels.get_or_insert_default().insert("status".to_owned(), release.status());
    api.replace(&release.secret, &PostParams::default(), &secret).await?;
    Ok(())
}

/// Removes a record.
///
/// # Errors
/// [`Error::Api`].
pub(super) async fn remove(client: &Client, namespace: &str, release: &StoredRelease) -> Result<(), Error> {
    match api(client, namespace).delete(&release.secret, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => Ok(result.map(drop)?),
    }
}

fn encoded(release: &StoredRelease) -> Result<ByteString, Error> {
    encode(&release.body).map(ByteString).map_err(|error| Error::Helm(error.to_string()))
}

fn decode(data: &[u8]) -> Result<Value, String> {
    let packed = STANDARD.decode(data).map_err(|error| error.to_string())?;
    let mut json = Vec::new();
    GzDecoder::new(packed.as_slice()).read_to_end(&mut json).map_err(|error| error.to_string())?;
    serde_json::from_slice(&json).map_err(|error| error.to_string())
}

fn encode(body: &Value) -> std::io::Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(body.to_string().as_bytes())?;
    Ok(STANDARD.encode(packed.finish()?).into_bytes())
}

#[cfg(test)]
pub(super) fn stored(version: i64, status: &str, chart_version: &str, config: &Value) -> StoredRelease {
    let body = serde_json::json!({
        "name": "notes", "namespace": "apps", "version": version, "config": config, "manifest": "",
        "info": { "status": status }, "chart": { "metadata": { "name": "notes", "version": chart_version } },
    });
    StoredRelease::new(body)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_survives_encoding() {
        let release = stored(3, "deployed", "1.2.0", &json!({ "a": 1 }));
        assert_eq!(decode(&encode(&release.body).unwrap()).unwrap(), release.body);
        assert_eq!((release.version(), release.chart("version").as_str()), (3, "1.2.0"));
    }
}
