//! Helm's own records of releases: Secrets of type `helm.sh/release.v1`.

use std::io::{Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, PostParams};
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
    let api = api(client, namespace);
    let mut secret = api.get(&release.secret).await?;
    let mut body = release.body.clone();
    let description = format!("Release unlocked from stale '{}' state", release.status());
    if let Some(info) = body.get_mut("info").and_then(Value::as_object_mut) {
        info.insert("status".to_owned(), "failed".into());
        info.insert("description".to_owned(), description.into());
    }
    let encoded = encode(&body).map_err(|error| Error::Helm(error.to_string()))?;
    secret.data.get_or_insert_default().insert("release".to_owned(), ByteString(encoded));
    secret.metadata.labels.get_or_insert_default().insert("status".to_owned(), "failed".to_owned());
    api.replace(&release.secret, &PostParams::default(), &secret).await?;
    Ok(())
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
    StoredRelease { secret: format!("sh.helm.release.v1.notes.v{version}"), body }
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
