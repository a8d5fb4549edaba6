//! Stand-in for Flux's helm-controller: HelmRelease.
//!
//! Knows chart templates and chart references, values and valuesFrom, dependencies, suspension, remediation and retry
//! strategies, force and reset requests, uninstall on deletion. Refuses drift detection, post-renderers and Helm tests with
//! `Ready=False`, reason `Unsupported`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::artifact::{Artifact, ArtifactStore, sha256};
use super::charts::{chart_metadata, chart_with_version};
use super::conditions::{self, At};
use super::drive::{Next, Related, drive, flux};
use super::flux_chart::{chart_api, ready_artifact};
use super::flux_objects::{
    FINALIZER, HelmReleaseSpec, RESET_AT, ValuesFrom, duration, merge_values, read, requested_at, set_finalizer, spec,
    status, write_status,
};
use super::helm_action::{AtomicRelease, Outcome};
use super::helm_backend::HelmBackend;
use super::helm_state::{Desired, reset_failures, takes_request};
use super::helm_status::{HelmReleaseStatus, values_digest};
use super::{Clock, Error};

const MANAGER: &str = "helm-controller";

/// What the helm stand-in needs.
#[derive(Clone)]
pub struct HelmContext {
    /// Client to the API server.
    pub client: Client,
    /// Where chart artifacts come from.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// What changes releases.
    pub helm: Arc<dyn HelmBackend>,
    /// The present time.
    pub clock: Clock,
    /// How often to look again at a dependency or source that is not ready.
    pub dependency_interval: Duration,
    /// Wait before a failed action is tried anew.
    pub retry: Duration,
}

impl HelmContext {
    pub(super) async fn write(&self, object: &DynamicObject, status: &HelmReleaseStatus) -> Result<(), Error> {
        write_status(&self.client, &resource(), object, MANAGER, status).await
    }
}

fn resource() -> ApiResource {
    flux("helm", "v2", "HelmRelease")
}

/// Reconciles HelmRelease objects until `stop` is cancelled; an action in flight is then dropped as in a crash.
pub async fn run(context: HelmContext, stop: CancellationToken) {
    let client = context.client.clone();
    let context = Arc::new(context);
    let sources =
        ["HelmChart", "OCIRepository"].map(|kind| Related::new(flux("source", "v1", kind), is_chart_of)).into();
    drive(&client, resource(), sources, stop, move |object| {
        let context = Arc::clone(&context);
        async move { reconcile(&context, &object).await }
    })
    .await;
}

fn is_chart_of(source: &DynamicObject, release: &DynamicObject) -> bool {
    let full = format!("{}/{}", source.namespace().unwrap_or_default(), source.name_any());
    let text = |path: &str| release.data.pointer(path).and_then(Value::as_str);
    let kind = source.types.as_ref().map(|types| types.kind.as_str());
    let referenced = text("/spec/chartRef/kind") == kind
        && text("/spec/chartRef/name") == Some(&source.name_any())
        && text("/spec/chartRef/namespace").is_none_or(|namespace| Some(namespace) == source.namespace().as_deref());
    referenced || (kind == Some("HelmChart") && text("/status/helmChart") == Some(&full))
}

/// What a reconcile leads to, with whether its generation counts as observed.
struct End {
    observed: bool,
    next: Result<Next, Error>,
}

impl End {
    const fn settled(next: Next) -> Self {
        Self { observed: true, next: Ok(next) }
    }

    const fn unsettled(next: Result<Next, Error>) -> Self {
        Self { observed: false, next }
    }
}

async fn reconcile(context: &HelmContext, seen: &DynamicObject) -> Result<Next, Error> {
    let namespace = seen.namespace().unwrap_or_default();
    let Some(object) = read(&context.client, &resource(), &namespace, &seen.name_any()).await? else {
        return Ok(Next::Wait);
    };
    let wanted: HelmReleaseSpec = spec(&object)?;
    let mut state: HelmReleaseStatus = status(&object)?;
    if object.metadata.deletion_timestamp.is_some() {
        return delete(context, &object, &wanted, &state).await;
    }
    if !object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        set_finalizer(&context.client, &resource(), &object, true).await?;
    }
    let end = if wanted.suspend {
        // Nothing is looked at, and yet the status says that the generation was observed.
        End::settled(Next::Wait)
    } else {
        release(context, &object, &wanted, &mut state).await
    };
    state.last_handled_reconcile_at = requested_at(&object).or(state.last_handled_reconcile_at);
    if end.observed {
        state.observed_generation = object.metadata.generation.unwrap_or(0);
    }
    context.write(&object, &state).await?;
    end.next
}

/// Everything between the look at `suspend` and the final write of the status.
async fn release(
    context: &HelmContext,
    object: &DynamicObject,
    wanted: &HelmReleaseSpec,
    state: &mut HelmReleaseStatus,
) -> End {
    let generation = object.metadata.generation.unwrap_or(0);
    let at = At { now: (context.clock)(), generation };
    if let Some(what) = unsupported(object, wanted) {
        let why = format!("the stand-in does not know {what}");
        state.conditions.set(&at, "Ready", "False", "Unsupported", &why);
        state.conditions.stalled(&at, "Unsupported", &why);
        return End::settled(Next::Wait);
    }
    if let Err(error) = apply_chart_template(context, object, wanted, state).await {
        return End::unsettled(Err(error));
    }
    state.conditions.reconciling(&at, "Progressing", "Fulfilling prerequisites");
    if let Err(error) = context.write(object, state).await {
        return End::unsettled(Err(error));
    }
    let mut not_ready = |reason: &str, error: Error| {
        state.conditions.set(&at, "Ready", "False", reason, &error.to_string());
        End::unsettled(Err(error))
    };
    if let Err(error) = check_dependencies(context, object, wanted).await {
        return not_ready("DependencyNotReady", error);
    }
    let artifact = match source_artifact(context, object, wanted).await {
        Ok(artifact) => artifact,
        Err(error @ Error::Waiting { .. }) => return not_ready("SourceNotReady", error),
        Err(error) => return not_ready("ArtifactFailed", error),
    };
    let values = match compose_values(&context.client, object, wanted).await {
        Ok(values) => values,
        Err(error) => return not_ready("ValuesError", error),
    };
    let loaded = context.artifacts.get(&artifact.url).await.and_then(|chart| {
        if sha256(&chart) != artifact.digest {
            return Err(Error::Source(format!("digest of {} is not {}", artifact.url, artifact.digest)));
        }
        Ok((chart_metadata(&chart)?, chart))
    });
    let (metadata, chart) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return not_ready("ArtifactFailed", error),
    };
    if matches!(
        state.conditions.reason("Ready"),
        "DependencyNotReady" | "SourceNotReady" | "ArtifactFailed" | "ValuesError"
    ) {
        state.conditions.set(&at, "Ready", "Unknown", "Progressing", "reconciliation in progress");
    }
    attempt(context, object, wanted, state, artifact, Loaded { metadata, chart, values }).await
}

/// What the release is made from.
struct Loaded {
    metadata: super::ChartMetadata,
    chart: bytes::Bytes,
    values: Value,
}

async fn attempt(
    context: &HelmContext,
    object: &DynamicObject,
    wanted: &HelmReleaseSpec,
    state: &mut HelmReleaseStatus,
    artifact: Artifact,
    loaded: Loaded,
) -> End {
    let generation = object.metadata.generation.unwrap_or(0);
    let Loaded { mut metadata, mut chart, values } = loaded;
    state.last_attempted_revision_digest = artifact.revision.split_once('@').map(|(_, digest)| digest.to_owned());
    if let Some((_, hash)) = state.last_attempted_revision_digest.as_deref().and_then(|digest| digest.split_once(':')) {
        // The tag may be moved: a chart from an OCI artifact is a version of its own per digest.
        let version = format!("{}+{}", metadata.version, hash.chars().take(12).collect::<String>());
        match chart_with_version(&chart, &version) {
            Ok(changed) => (metadata.version, chart) = (version, changed.into()),
            Err(error) => return End::unsettled(Err(error)),
        }
    }
    let desired = Desired { chart: metadata, config_digest: values_digest(&values) };
    let (name, namespace) = target(object, wanted);
    state.storage_namespace = Some(namespace.clone());
    let requested = requested_at(object);
    let last_reconcile = state.last_handled_reconcile_at.clone();
    let reset = takes_request(
        object.annotations().get(RESET_AT),
        requested.as_ref(),
        last_reconcile.as_ref(),
        &mut state.last_handled_reset_at,
    );
    reset_failures(state, generation, &desired, reset);
    state.last_attempted_generation = Some(generation);
    state.last_attempted_revision = Some(desired.chart.version.clone());
    state.last_attempted_config_digest = Some(desired.config_digest.clone());
    let atomic =
        AtomicRelease { context, object, spec: wanted, name, namespace, chart, values, desired, last_reconcile };
    match atomic.reconcile(state).await {
        Ok(Outcome::Done) => End::settled(Next::After(duration(Some(&wanted.interval), Duration::from_secs(300)))),
        Ok(Outcome::Stalled) => End::settled(Next::Wait),
        Ok(Outcome::RetryAfter(interval)) => End::settled(Next::After(interval)),
        Ok(Outcome::Again) => End::unsettled(Ok(Next::After(context.retry))),
        Err(error) => {
            if state.conditions.is_true("Ready") {
                let at = At { now: (context.clock)(), generation };
                state.conditions.set(&at, "Ready", "False", "ReconcileError", &error.to_string());
            }
            End::unsettled(Err(error))
        }
    }
}

/// Release name and namespace.
fn target(object: &DynamicObject, wanted: &HelmReleaseSpec) -> (String, String) {
    let own = object.namespace().unwrap_or_default();
    let namespace = wanted.target_namespace.clone().unwrap_or(own);
    let name = wanted.release_name.clone().unwrap_or_else(|| match &wanted.target_namespace {
        Some(namespace) => format!("{namespace}-{}", object.name_any()),
        None => object.name_any(),
    });
    if name.len() <= 53 {
        return (name, namespace);
    }
    let hash = sha256(name.as_bytes());
    let short: String = hash.trim_start_matches("sha256:").chars().take(12).collect();
    (format!("{}-{short}", name.chars().take(40).collect::<String>()), namespace)
}

fn unsupported(object: &DynamicObject, wanted: &HelmReleaseSpec) -> Option<&'static str> {
    let storage = wanted.storage_namespace.as_ref();
    let is = |value: &Option<Value>, path: &str, off: &Value| {
        value.as_ref().and_then(|value| value.pointer(path)).is_some_and(|value| value != off)
    };
    if is(&wanted.drift_detection, "/mode", &json!("disabled")) {
        Some("spec.driftDetection")
    } else if wanted.post_renderers.as_ref().and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
        Some("spec.postRenderers")
    } else if is(&wanted.test, "/enable", &json!(false)) {
        Some("spec.test")
    } else if storage.is_some_and(|storage| *storage != target(object, wanted).1) {
        Some("spec.storageNamespace other than the target namespace")
    } else {
        None
    }
}

/// Makes the HelmChart of the chart template what the template says.
async fn apply_chart_template(
    context: &HelmContext,
    object: &DynamicObject,
    wanted: &HelmReleaseSpec,
    state: &mut HelmReleaseStatus,
) -> Result<(), Error> {
    let Some(template) = &wanted.chart else { return Ok(()) };
    let own = object.namespace().unwrap_or_default();
    let namespace = template.spec.source_ref.namespace.clone().unwrap_or_else(|| own.clone());
    let name = format!("{own}-{}", object.name_any());
    let group = "helm.toolkit.fluxcd.io";
    let chart = json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "HelmChart",
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": { format!("{group}/name"): object.name_any(), format!("{group}/namespace"): own },
        },
        "spec": {
            "chart": template.spec.chart,
            "version": template.spec.version.as_deref().unwrap_or("*"),
            "sourceRef": { "kind": template.spec.source_ref.kind, "name": template.spec.source_ref.name },
            "interval": template.spec.interval.as_ref().unwrap_or(&wanted.interval),
            "reconcileStrategy": template.spec.reconcile_strategy.as_deref().unwrap_or("ChartVersion"),
        },
    });
    let charts = chart_api(&context.client, &namespace);
    charts.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(chart)).await?;
    state.helm_chart = Some(format!("{namespace}/{name}"));
    Ok(())
}

async fn check_dependencies(
    context: &HelmContext,
    object: &DynamicObject,
    wanted: &HelmReleaseSpec,
) -> Result<(), Error> {
    for dependency in &wanted.depends_on {
        let namespace = dependency.namespace.clone().or_else(|| object.namespace()).unwrap_or_default();
        let found = read(&context.client, &resource(), &namespace, &dependency.name).await?;
        let ready = found.is_some_and(|found| {
            let state = found.data.get("status");
            let observed = state.and_then(|state| state.get("observedGeneration")).and_then(Value::as_i64);
            observed == found.metadata.generation && conditions::is_true(state, "Ready")
        });
        if !ready {
            let what = format!("dependency '{namespace}/{}' is not ready", dependency.name);
            return Err(Error::Waiting { what, again: context.dependency_interval });
        }
    }
    Ok(())
}

async fn source_artifact(
    context: &HelmContext,
    object: &DynamicObject,
    wanted: &HelmReleaseSpec,
) -> Result<Artifact, Error> {
    let own = object.namespace().unwrap_or_default();
    let (kind, namespace, name) = match (&wanted.chart_ref, &wanted.chart) {
        (Some(reference), None) => {
            (reference.kind.clone(), reference.namespace.clone().unwrap_or(own), reference.name.clone())
        }
        (None, Some(template)) => (
            "HelmChart".to_owned(),
            template.spec.source_ref.namespace.clone().unwrap_or_else(|| own.clone()),
            format!("{own}-{}", object.name_any()),
        ),
        _ => return Err(Error::Source("invalid Chart reference: give either spec.chart or spec.chartRef".to_owned())),
    };
    let source = read(&context.client, &flux("source", "v1", &kind), &namespace, &name).await?;
    let source = source
        .ok_or_else(|| Error::Source(format!("could not get Source object: {kind} '{namespace}/{name}' not found")))?;
    ready_artifact(&source).map_err(|what| Error::Waiting { what, again: context.dependency_interval })
}

async fn compose_values(client: &Client, object: &DynamicObject, wanted: &HelmReleaseSpec) -> Result<Value, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let mut values = json!({});
    for from in &wanted.values_from {
        if let Some(text) = referenced_values(client, &namespace, from).await? {
            values = merge_values(values, placed(from, &text)?);
        }
    }
    let own = wanted.values.clone().unwrap_or_default();
    Ok(if own.is_null() { values } else { merge_values(values, own) })
}

async fn referenced_values(client: &Client, namespace: &str, from: &ValuesFrom) -> Result<Option<String>, Error> {
    let key = from.values_key.as_deref().unwrap_or("values.yaml");
    let text = match from.kind.as_str() {
        "ConfigMap" => {
            let map = Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(&from.name).await?;
            map.and_then(|map| map.data).and_then(|mut data| data.remove(key))
        }
        "Secret" => {
            let secret = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(&from.name).await?;
            let bytes = secret.and_then(|secret| secret.data).and_then(|mut data| data.remove(key));
            bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())
        }
        other => return Err(Error::Source(format!("unsupported ValuesReference kind '{other}'"))),
    };
    match text {
        None if !from.optional => {
            let what = format!("{} '{namespace}/{}'", from.kind, from.name);
            Err(Error::Source(format!("could not find values key '{key}' in {what}")))
        }
        text => Ok(text),
    }
}

/// The referenced text as values: parsed, or as one value at the target path.
fn placed(from: &ValuesFrom, text: &str) -> Result<Value, Error> {
    let parsed: Value = serde_yaml_ng::from_str(text)
        .map_err(|error| Error::Source(format!("values of {} '{}': {error}", from.kind, from.name)))?;
    let Some(path) = &from.target_path else {
        return Ok(if parsed.is_null() { json!({}) } else { parsed });
    };
    Ok(path.rsplit('.').fold(parsed, |value, key| json!({ key: value })))
}

async fn delete(
    context: &HelmContext,
    object: &DynamicObject,
    wanted: &HelmReleaseSpec,
    state: &HelmReleaseStatus,
) -> Result<Next, Error> {
    // A suspended object goes without its release being uninstalled.
    if !wanted.suspend {
        let (name, namespace) = target(object, wanted);
        if !super::helm_storage::list(&context.client, &namespace, &name).await?.is_empty() {
            let timeout = duration(wanted.uninstall.timeout.as_deref(), Duration::from_secs(300));
            context.helm.uninstall(&name, &namespace, false, timeout).await.map_err(Error::Helm)?;
        }
        if let Some((namespace, name)) = state.helm_chart.as_ref().and_then(|full| full.split_once('/')) {
            match chart_api(&context.client, namespace).delete(name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                result => drop(result?),
            }
        }
    }
    set_finalizer(&context.client, &resource(), object, false).await?;
    Ok(Next::Wait)
}
