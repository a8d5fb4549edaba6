//! Stand-in for Flux's source-controller: HelmChart, HelmRepository and OCIRepository over a [`ChartRegistry`].

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::api::{ApiResource, DynamicObject};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::artifact::{Artifact, sha256, unpack};
use super::charts::{ChartMetadata, ChartRegistry, chart_of_tree};
use super::conditions::{self, At, Conditions};
use super::drive::{Next, Related, drive, flux};
use super::flux_objects::{
    HelmChartSpec, RepositorySpec, api, describe, duration, read, requested_at, spec, status, write_status,
};
use super::flux_source::SourceContext;

const MANAGER: &str = "source-controller";
/// Flux's own interval default where a spec has none.
const INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SourceStatus {
    observed_generation: i64,
    last_handled_reconcile_at: Option<String>,
    artifact: Option<Artifact>,
    url: Option<String>,
    conditions: Conditions,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed_chart_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed_source_artifact_revision: Option<String>,
}

/// What a look at a source found.
struct Found {
    artifact: Artifact,
    reason: &'static str,
    message: String,
    chart: Option<ChartMetadata>,
    source_revision: Option<String>,
}

struct Charts {
    context: SourceContext,
    registry: ChartRegistry,
}

/// Reconciles HelmChart, HelmRepository and OCIRepository objects until `stop` is cancelled. Charts come from `registry` or
/// from the artifact of a GitRepository.
pub async fn run(context: SourceContext, registry: ChartRegistry, stop: CancellationToken) {
    let charts = Arc::new(Charts { context, registry });
    let kind = |kind: &'static str, related: Vec<Related>| {
        let (charts, stop) = (Arc::clone(&charts), stop.clone());
        let resource = flux("source", "v1", kind);
        async move {
            let client = charts.context.client.clone();
            drive(&client, resource.clone(), related, stop, move |object| {
                let (charts, resource) = (Arc::clone(&charts), resource.clone());
                async move { charts.reconcile(&resource, &object).await }
            })
            .await;
        }
    };
    let sources =
        ["GitRepository", "HelmRepository"].map(|kind| Related::new(flux("source", "v1", kind), is_source_of)).into();
    tokio::join!(kind("HelmChart", sources), kind("HelmRepository", Vec::new()), kind("OCIRepository", Vec::new()));
}

fn is_source_of(source: &DynamicObject, chart: &DynamicObject) -> bool {
    let reference = chart.data.get("spec").and_then(|spec| spec.get("sourceRef"));
    let text = |key: &str| reference.and_then(|reference| reference.get(key)).and_then(Value::as_str);
    let kind = source.types.as_ref().map(|types| types.kind.as_str());
    source.namespace() == chart.namespace() && text("name") == Some(&source.name_any()) && text("kind") == kind
}

impl Charts {
    async fn reconcile(&self, resource: &ApiResource, seen: &DynamicObject) -> Result<Next, Error> {
        let client = &self.context.client;
        let namespace = seen.namespace().unwrap_or_default();
        let Some(object) = read(client, resource, &namespace, &seen.name_any()).await? else {
            return Ok(Next::Wait);
        };
        let mut state: SourceStatus = status(&object)?;
        let generation = object.metadata.generation.unwrap_or(0);
        state.last_handled_reconcile_at = requested_at(&object).or(state.last_handled_reconcile_at);
        // `spec.suspend` and `spec.interval` are the same in all three kinds.
        let common: RepositorySpec = spec(&object)?;
        if common.suspend || object.metadata.deletion_timestamp.is_some() {
            state.observed_generation = generation;
            write_status(client, resource, &object, MANAGER, &state).await?;
            return Ok(Next::Wait);
        }
        let result = match resource.kind.as_str() {
            "HelmChart" => self.chart(&object, &state).await,
            "HelmRepository" => self.repository(&object, &common).await,
            _ => self.oci(&object, &common).await,
        };
        let at = At { now: (self.context.clock)(), generation };
        let done = match result {
            Ok(found) => {
                state.conditions.set(&at, "Ready", "True", found.reason, &found.message);
                state.conditions.set(&at, "ArtifactInStorage", "True", found.reason, &found.message);
                state.conditions.remove("FetchFailed");
                state.conditions.remove("Reconciling");
                state.url = Some(found.artifact.url.clone());
                // An unchanged revision keeps its artifact, so that consumers are not woken for nothing.
                if state.artifact.as_ref().is_none_or(|present| {
                    present.digest != found.artifact.digest || present.revision != found.artifact.revision
                }) {
                    tracing::info!(object = describe(&object), revision = found.artifact.revision, "new artifact");
                    state.artifact = Some(found.artifact);
                }
                state.observed_chart_name = found.chart.map(|chart| chart.name);
                state.observed_source_artifact_revision = found.source_revision;
                state.observed_generation = generation;
                Ok(Next::After(duration(Some(&common.interval), INTERVAL)))
            }
            Err(error) => {
                let reason = if resource.kind == "HelmChart" { "ChartPullError" } else { "Failed" };
                state.conditions.set(&at, "Ready", "False", reason, &error.to_string());
                state.conditions.set(&at, "FetchFailed", "True", reason, &error.to_string());
                state.conditions.reconciling(&at, "ProgressingWithRetry", &error.to_string());
                Err(error)
            }
        };
        write_status(client, resource, &object, MANAGER, &state).await?;
        done
    }

    async fn chart(&self, object: &DynamicObject, state: &SourceStatus) -> Result<Found, Error> {
        let wanted: HelmChartSpec = spec(object)?;
        let namespace = object.namespace().unwrap_or_default();
        let (kind, name) = (wanted.source_ref.kind.as_str(), wanted.source_ref.name.as_str());
        let source = read(&self.context.client, &flux("source", "v1", kind), &namespace, name).await?;
        let source = source.ok_or_else(|| Error::Source(format!("failed to get source: {kind} '{name}' not found")))?;
        let version = wanted.version.as_deref().filter(|version| *version != "*").unwrap_or("");
        let (metadata, packed, source_revision) = match kind {
            "HelmRepository" => {
                let repository: RepositorySpec = spec(&source)?;
                let (metadata, packed) = self.registry.find(&repository.url, &wanted.chart, version)?;
                (metadata, packed, None)
            }
            "GitRepository" => {
                let artifact: Option<Artifact> = status::<SourceStatus>(&source)?.artifact;
                let artifact = artifact
                    .ok_or_else(|| Error::Source(format!("no artifact available for {kind} source '{name}'")))?;
                let archive = self.context.artifacts.get(&artifact.url).await?;
                let files = unpack(&archive).map_err(|error| Error::Source(error.to_string()))?;
                let (metadata, packed) = chart_of_tree(&files, &wanted.chart)?;
                (metadata, packed, Some(artifact.revision))
            }
            other => return Err(Error::Source(format!("the stand-in takes no charts from a {other}"))),
        };
        let mut revision = metadata.version.clone();
        if wanted.reconcile_strategy.as_deref() == Some("Revision")
            && let Some(hash) = source_revision.as_ref().and_then(|revision| revision.rsplit(':').next())
        {
            revision = format!("{revision}+{}", hash.chars().take(12).collect::<String>());
        }
        let verb = if source_revision.is_some() { "packaged" } else { "pulled" };
        let message = format!("{verb} '{}' chart with version '{revision}'", metadata.name);
        let reason = if source_revision.is_some() { "ChartPackageSucceeded" } else { "ChartPullSucceeded" };
        let artifact = match &state.artifact {
            Some(present) if present.revision == revision && present.digest == sha256(&packed) => present.clone(),
            _ => {
                let path = format!("helmchart/{namespace}/{}/{}-{revision}.tgz", object.name_any(), metadata.name);
                self.store(path, revision, packed).await?
            }
        };
        Ok(Found { artifact, reason, message, chart: Some(metadata), source_revision })
    }

    async fn repository(&self, object: &DynamicObject, wanted: &RepositorySpec) -> Result<Found, Error> {
        self.registry.folder(&wanted.url)?;
        // Consumers read the folder itself; the artifact only says that the repository is there.
        let index = wanted.url.as_bytes().to_vec();
        let revision = sha256(&index);
        let message = format!("stored artifact: revision '{revision}'");
        let path = format!("helmrepository/{}/{}/index.txt", object.namespace().unwrap_or_default(), object.name_any());
        let artifact = self.store(path, revision, index).await?;
        Ok(Found { artifact, reason: "Succeeded", message, chart: None, source_revision: None })
    }

    async fn oci(&self, object: &DynamicObject, wanted: &RepositorySpec) -> Result<Found, Error> {
        let (parent, name) = wanted.url.rsplit_once('/').unwrap_or((&wanted.url, ""));
        let reference = wanted.reference.clone().unwrap_or_default();
        if reference.digest.is_some() {
            return Err(Error::Source("the stand-in does not know spec.ref.digest".to_owned()));
        }
        let version = reference.tag.or(reference.semver).unwrap_or_default();
        let (metadata, packed) = self.registry.find(parent, name, &version)?;
        let revision = format!("{}@{}", metadata.version, sha256(&packed));
        let message = format!("stored artifact for digest '{revision}'");
        let path = format!(
            "ocirepository/{}/{}/{name}-{}.tgz",
            object.namespace().unwrap_or_default(),
            object.name_any(),
            metadata.version
        );
        let artifact = self.store(path, revision, packed).await?;
        Ok(Found { artifact, reason: "Succeeded", message, chart: None, source_revision: None })
    }

    async fn store(&self, path: String, revision: String, content: Vec<u8>) -> Result<Artifact, Error> {
        Artifact::store(&*self.context.artifacts, path, revision, content, (self.context.clock)()).await
    }
}

/// Whether a source object is ready to be used: an artifact, and not a failed look at the present generation.
pub(super) fn ready_artifact(source: &DynamicObject) -> Result<Artifact, String> {
    let state = source.data.get("status");
    let observed = state.and_then(|state| state.get("observedGeneration")).and_then(Value::as_i64);
    let artifact = state.and_then(|state| state.get("artifact")).cloned();
    let artifact = artifact.and_then(|artifact| serde_json::from_value::<Artifact>(artifact).ok());
    let described = || {
        let kind = source.types.as_ref().map_or("source", |types| types.kind.as_str());
        format!("{kind} '{}/{}' is not ready", source.namespace().unwrap_or_default(), source.name_any())
    };
    if observed != source.metadata.generation {
        return Err(format!("{}: latest generation of object has not been reconciled", described()));
    }
    if !conditions::is_true(state, "Ready") {
        let message = conditions::find(state, "Ready").and_then(|ready| ready.get("message")).and_then(Value::as_str);
        return Err(format!("{}: {}", described(), message.unwrap_or("no condition")));
    }
    artifact.ok_or_else(|| format!("{}: does not have an artifact", described()))
}

/// The API of HelmChart objects.
pub(super) fn chart_api(client: &kube::Client, namespace: &str) -> kube::Api<DynamicObject> {
    api(client, &flux("source", "v1", "HelmChart"), namespace)
}
