//! The files of `deploy/manifests` and the pages of `docs` about the operator, written from the code that they must agree with.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use clap::ValueEnum as _;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{rbac, reference};

/// Where the operator is installed, unless somebody chooses another place.
pub const NAMESPACE: &str = "windlass-system";
/// The name of everything that there is one of.
const NAME: &str = "windlass-operator";
/// The default of `--listen`.
const PORT: u16 = 8080;
const GIT_CACHE: &str = "/var/cache/windlass-git";

/// One generated text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The custom resource definitions.
    Crds,
    /// The namespace, the service account and its rights.
    Rbac,
    /// The Deployment, and the Service of its metrics.
    Operator,
    /// What makes one installation of the other files, for `kubectl apply -k`.
    Kustomization,
    /// The table of rights as Markdown.
    Rights,
    /// The fields of the objects as Markdown.
    Objects,
    /// The metrics as Markdown.
    Metrics,
}

impl Part {
    /// The parts that are objects of a cluster, in the order in which they can be applied.
    const OBJECTS: [Self; 3] = [Self::Crds, Self::Rbac, Self::Operator];

    /// The name of its file.
    const fn file(self) -> &'static str {
        match self {
            Self::Crds => "crds.yaml",
            Self::Rbac => "rbac.yaml",
            Self::Operator => "operator.yaml",
            Self::Kustomization => "kustomization.yaml",
            Self::Rights => "rights.md",
            Self::Objects => "objects.md",
            Self::Metrics => "metrics.md",
        }
    }
}

/// Writes one part to stdout, or all objects as one stream for `kubectl apply -f -`.
///
/// # Errors
/// When a part cannot be written as YAML, or stdout is closed.
pub(crate) fn print(part: Option<Part>) -> anyhow::Result<()> {
    let text = match part {
        Some(part) => text(part)?,
        None => Part::OBJECTS.into_iter().map(text).collect::<anyhow::Result<Vec<_>>>()?.join("---\n"),
    };
    std::io::stdout().write_all(text.as_bytes()).context("writing the manifests")
}

/// Writes every part as a file of `folder`.
///
/// # Errors
/// When a part cannot be written as YAML, or its file cannot be written.
pub(crate) fn write(folder: &Path) -> anyhow::Result<()> {
    for &part in Part::value_variants() {
        let path = folder.join(part.file());
        std::fs::write(&path, text(part)?).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// One part.
///
/// # Errors
/// When it cannot be written as YAML.
fn text(part: Part) -> anyhow::Result<String> {
    match part {
        Part::Crds => stream(&windlass_api::crds()),
        Part::Rbac => stream(&rbac_objects()),
        Part::Operator => stream(&[deployment(), service()]),
        Part::Kustomization => stream(&[json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": Part::OBJECTS.map(Part::file),
        })]),
        Part::Rights => Ok(reference::rights()),
        Part::Objects => Ok(windlass_api::reference()),
        Part::Metrics => reference::metrics(),
    }
}

fn stream<T: Serialize>(documents: &[T]) -> anyhow::Result<String> {
    let texts: Result<Vec<String>, _> = documents.iter().map(serde_yaml_ng::to_string).collect();
    Ok(texts.context("writing YAML")?.join("---\n"))
}

fn rbac_objects() -> Vec<Value> {
    let mut objects = vec![
        json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }),
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
        }),
    ];
    let subject = json!({"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE});
    objects.extend(rbac::rights_of(NAMESPACE, &subject));
    objects
}

fn labels() -> Value {
    json!({"app.kubernetes.io/name": NAME})
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels()},
        "spec": {
            // One works, the other takes over when its node is lost.
            "replicas": 2,
            "selector": {"matchLabels": labels()},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": labels()}, "spec": pod()},
        },
    })
}

fn pod() -> Value {
    let from_field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let probe = |path: &str, period: u16| json!({"httpGet": {"path": path, "port": "http"}, "periodSeconds": period});
    json!({
        "serviceAccountName": NAME,
        "enableServiceLinks": false,
        // It stops at the next safe point, within seconds; what was cut off is taken up from its journal.
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels()},
        }],
        "containers": [{
            "name": "operator",
            "image": concat!("ghcr.io/windlass-dev/windlass-operator:", env!("CARGO_PKG_VERSION")),
            "env": [
                {"name": "POD_NAME", "valueFrom": from_field("metadata.name")},
                {"name": "POD_NAMESPACE", "valueFrom": from_field("metadata.namespace")},
                {"name": "WINDLASS_GIT_CACHE", "value": GIT_CACHE},
            ],
            "ports": [{"name": "http", "containerPort": PORT}],
            "livenessProbe": probe("/livez", 10),
            "readinessProbe": probe("/readyz", 5),
            "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "git-cache", "mountPath": GIT_CACHE},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }],
        "volumes": [
            {"name": "git-cache", "emptyDir": {"sizeLimit": "4Gi"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
        ],
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "windlass-operator-metrics", "namespace": NAMESPACE, "labels": labels()},
        "spec": {"selector": labels(), "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]},
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::Args;

    #[test]
    fn the_deployment_sets_only_variables_that_the_operator_reads() {
        let command = Args::command();
        let known: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str()).collect();
        let pod = pod();
        let set = pod["containers"][0]["env"].as_array().unwrap();
        assert!(set.iter().all(|variable| known.contains(&variable["name"].as_str().unwrap())), "{set:?} of {known:?}");
    }

    #[test]
    fn the_probed_port_is_the_one_that_is_listened_on() {
        assert_eq!(Args::try_parse_from(["windlass-operator"]).unwrap().listen.map(|at| at.port()), Some(PORT));
    }

    #[test]
    fn a_pod_writes_only_to_volumes_of_its_own() {
        let pod = pod();
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
        let mounted: Vec<&Value> = mounts.iter().map(|mount| &mount["name"]).collect();
        let volumes: Vec<&Value> = pod["volumes"].as_array().unwrap().iter().map(|volume| &volume["name"]).collect();
        assert_eq!(mounted, volumes);
        assert!(mounts.iter().any(|mount| mount["mountPath"] == GIT_CACHE));
    }
}
