//! The environment of a container, and `$(NAME)` in its command line.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};
use kube::{Api, Client, ResourceExt};

/// Mount paths of a container and the directories they stand for.
pub type Mounts = BTreeMap<String, std::path::PathBuf>;

/// The variables of `container`, `base` first, later ones able to use earlier ones.
///
/// # Errors
/// A sentence naming the reference that could not be resolved.
pub async fn resolve(
    client: &Client,
    pod: &Pod,
    container: &Container,
    base: Vec<(String, String)>,
    mounts: &Mounts,
) -> Result<Vec<(String, String)>, String> {
    let namespace = pod.namespace().unwrap_or_default();
    let mut env: BTreeMap<String, String> = base.into_iter().collect();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.clone().unwrap_or_default();
        let data = if let Some(from) = &source.config_map_ref {
            config_map(client, &namespace, &from.name, from.optional.unwrap_or(false)).await?
        } else if let Some(from) = &source.secret_ref {
            secret(client, &namespace, &from.name, from.optional.unwrap_or(false)).await?
        } else {
            continue;
        };
        for (key, value) in data {
            env.insert(format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned());
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => Some(on_host(&expand(value, &env), mounts)),
            (None, Some(source)) => from_source(client, pod, source, &env).await?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            env.insert(variable.name.clone(), value);
        }
    }
    Ok(env.into_iter().collect())
}

async fn from_source(
    client: &Client,
    pod: &Pod,
    source: &EnvVarSource,
    env: &BTreeMap<String, String>,
) -> Result<Option<String>, String> {
    let namespace = pod.namespace().unwrap_or_default();
    let (data, kind, name, key, optional) = if let Some(from) = &source.field_ref {
        return field(pod, &from.field_path, env.get("POD_IP").map_or("", String::as_str)).map(Some);
    } else if let Some(from) = &source.config_map_key_ref {
        let optional = from.optional.unwrap_or(false);
        (config_map(client, &namespace, &from.name, optional).await?, "configmap", &from.name, &from.key, optional)
    } else if let Some(from) = &source.secret_key_ref {
        let optional = from.optional.unwrap_or(false);
        (secret(client, &namespace, &from.name, optional).await?, "secret", &from.name, &from.key, optional)
    } else {
        return Err("this kubelet knows fieldRef, configMapKeyRef and secretKeyRef only".to_owned());
    };
    match data.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional => Ok(None),
        None => Err(format!("couldn't find key {key} in {kind} {namespace}/{name}")),
    }
}

/// What the downward API says at `path`.
///
/// # Errors
/// When the field is not known.
pub fn field(pod: &Pod, path: &str, pod_ip: &str) -> Result<String, String> {
    let of_map = |map: &BTreeMap<String, String>, rest: &str| {
        let key = rest.trim_start_matches("['").trim_end_matches("']");
        map.get(key).cloned().unwrap_or_default()
    };
    let spec = pod.spec.as_ref();
    Ok(match path {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.podIP" | "status.podIPs" => pod_ip.to_owned(),
        "status.hostIP" => "127.0.0.1".to_owned(),
        other => {
            if let Some(rest) = other.strip_prefix("metadata.labels") {
                of_map(pod.labels(), rest)
            } else if let Some(rest) = other.strip_prefix("metadata.annotations") {
                of_map(pod.annotations(), rest)
            } else {
                return Err(format!("this kubelet does not know the field {other}"));
            }
        }
    })
}

/// The files of a config map; empty when it is missing and `optional`.
///
/// # Errors
/// A sentence saying that it is missing or cannot be read.
pub async fn config_map(
    client: &Client,
    namespace: &str,
    name: &str,
    optional: bool,
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    match api.get_opt(name).await.map_err(|error| error.to_string())? {
        None if optional => Ok(BTreeMap::new()),
        None => Err(format!("configmap \"{name}\" not found")),
        Some(map) => {
            let text = map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
            let binary = map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
            Ok(text.chain(binary).collect())
        }
    }
}

/// The files of a secret; empty when it is missing and `optional`.
///
/// # Errors
/// A sentence saying that it is missing or cannot be read.
pub async fn secret(
    client: &Client,
    namespace: &str,
    name: &str,
    optional: bool,
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match api.get_opt(name).await.map_err(|error| error.to_string())? {
        None if optional => Ok(BTreeMap::new()),
        None => Err(format!("secret \"{name}\" not found")),
        Some(secret) => Ok(secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()),
    }
}

/// `text` with `$(NAME)` replaced by the variable; `$$(NAME)` stays `$(NAME)`, unknown names stay as they are.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = from.strip_prefix("$$") {
            out.push('$');
            rest = after;
            continue;
        }
        let reference = from.strip_prefix("$(").and_then(|inner| inner.split_once(')'));
        if let Some((name, after)) = reference
            && let Some(value) = env.get(name)
        {
            out.push_str(value);
            rest = after;
        } else {
            out.push('$');
            rest = from.split_at(1).1;
        }
    }
    out + rest
}

/// `text` with the mount path it starts with replaced by the directory, when all of it is a path at or under one.
pub fn on_host(text: &str, mounts: &Mounts) -> String {
    let path = Path::new(text);
    let longest = mounts.iter().filter(|(mount, _)| path.starts_with(mount)).max_by_key(|(mount, _)| mount.len());
    match longest {
        Some((mount, directory)) => {
            let rest = path.strip_prefix(mount).unwrap_or(Path::new(""));
            if rest.as_os_str().is_empty() {
                directory.display().to_string()
            } else {
                directory.join(rest).display().to_string()
            }
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, expected) in
            [("x$(A)y", "x1y"), ("$$(A)", "$(A)"), ("$(B)", "$(B)"), ("$A $", "$A $"), ("$(A", "$(A")]
        {
            assert_eq!(expand(text, &env), expected);
        }
    }

    #[test]
    fn a_path_under_a_mount_becomes_the_real_one() {
        let mounts = Mounts::from([("/data".to_owned(), "/v/1".into()), ("/data/sub".to_owned(), "/v/2".into())]);
        for (text, expected) in [
            ("/data", "/v/1"),
            ("/data/a", "/v/1/a"),
            ("/data/sub/a", "/v/2/a"),
            ("/database", "/database"),
            ("cat /data", "cat /data"),
        ] {
            assert_eq!(on_host(text, &mounts), expected);
        }
    }
}
