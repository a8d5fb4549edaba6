//! What a HelmRelease would deliver: the target's chart with the target's values, rendered by Helm.
//!
//! The target is the HelmRelease's document in Git with the pins set, and only counts when that document now says what the
//! live object says: then nothing between Git and the cluster (patches, variables) changes it.

use std::collections::BTreeSet;

use serde_json::Value;
use upgrade_core::ports::{AppRef, ObjectRef, Piece, PinValue, Rendered, Rendering, Repository};
use upgrade_core::{Coded as _, Failure};
use windlass_api::call::CallError;
use windlass_api::foreign::HelmRelease;
use windlass_helm::{Release, Status, TemplateRequest};

use super::error::FluxError;
use super::kustomize::{Stop, pieces};
use super::live::{HELM, Live};
use super::render::FluxRenderer;
use super::revision::is_exact;
use super::{chain, storage};

/// What of a HelmRelease decides which objects it makes, besides `spec.chart`.
const DECISIVE: [&str; 8] = [
    "chartRef",
    "kubeConfig",
    "postRenderers",
    "releaseName",
    "storageNamespace",
    "targetNamespace",
    "values",
    "valuesFrom",
];
/// What of those, and of `spec.chart.spec` and `spec.upgrade`, we do not do as Flux does it.
const UNKNOWN: [(&str, &str); 6] = [
    ("/chartRef", "its chart comes from chartRef"),
    ("/kubeConfig", "it goes to another cluster"),
    ("/postRenderers", "it has postRenderers"),
    ("/valuesFrom", "it has valuesFrom"),
    ("/chart/spec/valuesFiles", "it has valuesFiles"),
    ("/upgrade/preserveValues", "it keeps values of earlier releases"),
];
/// Where a pin may stand. The chart's version and the values are all that a target changes.
const PINNED: [&str; 2] = ["/chart/spec/version", "/values"];

impl FluxRenderer {
    /// What the release delivers now, and would deliver.
    pub(super) async fn release(
        &self,
        app: &AppRef,
        object: &ObjectRef,
        at: &[(Repository, String)],
        changes: &[PinValue],
    ) -> Result<Rendering, Failure> {
        let rendering = |delivered, rendered| Rendering { of: object.clone(), delivered, rendered };
        let live = self.objects.get(object).await?;
        let release: HelmRelease = live.typed()?;
        let stored = match storage::newest(&self.objects.client, object, &release).await {
            Ok(Some(stored)) if stored.status == Status::Deployed => stored,
            Ok(Some(stored)) => {
                let why = format!("its release {} is {:?}", stored.revision, stored.status);
                return Ok(rendering(Vec::new(), Rendered::Unknown(why)));
            }
            Ok(None) => return Ok(rendering(Vec::new(), Rendered::Unknown("Helm has no release of it".into()))),
            Err(error) if error.is_retryable() => return Err(error.into()),
            Err(error) => return Ok(rendering(Vec::new(), Rendered::Unknown(error.to_string()))),
        };
        let delivered = match objects(&stored.manifest, &stored.namespace) {
            Ok(pieces) => pieces.into_iter().map(|piece| piece.object).collect(),
            Err(why) => return Ok(rendering(Vec::new(), Rendered::Unknown(format!("its present release: {why}")))),
        };
        let rendered = match self.request(app, &live, &stored, at, changes).await? {
            Ok(request) => match self.charts.template(&request).await {
                Ok(manifest) => objects(&manifest, &request.namespace),
                Err(error) => Err(error.to_string()),
            },
            Err(why) => Err(why),
        };
        Ok(rendering(delivered, rendered.map_or_else(Rendered::Unknown, Rendered::Pieces)))
    }

    /// What to ask Helm for, or why it cannot be told.
    async fn request(
        &self,
        app: &AppRef,
        live: &Live,
        stored: &Release,
        at: &[(Repository, String)],
        changes: &[PinValue],
    ) -> Result<Result<TemplateRequest, String>, Failure> {
        let release: HelmRelease = live.typed()?;
        let wanted = match self.wanted(app, live, at, changes).await? {
            Ok(wanted) => wanted,
            Err(why) => return Ok(Err(why)),
        };
        let text = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let version = text("/chart/spec/version");
        if !is_exact(version) {
            return Ok(Err(format!("{version:?} is no exact version of its chart")));
        }
        let Some(chart) = &release.spec.chart else { return Ok(Err("it names no chart".into())) };
        let source = chain::source_object(&chart.spec.source_ref, &live.object.namespace);
        if source.kind != "HelmRepository" {
            return Ok(Err(format!("its chart comes from {source}, not from a HelmRepository")));
        }
        let Some(source) = self.objects.find(&source).await? else {
            return Ok(Err(format!("its chart comes from {source}, which does not exist")));
        };
        if let Err(why) = is_open(&source) {
            return Ok(Err(why));
        }
        let version_of = self.objects.client.apiserver_version().await;
        let kube = version_of.map_err(CallError::on_resource("get", "version", "", "")).map_err(FluxError::from)?;
        let target = release.spec.target_namespace.clone().unwrap_or_else(|| live.object.namespace.clone());
        if target != stored.namespace {
            return Ok(Err(format!("it is installed in {}, and asks for {target}", stored.namespace)));
        }
        Ok(Ok(TemplateRequest {
            release: stored.name.clone(),
            namespace: target,
            chart: text("/chart/spec/chart").to_owned(),
            version: version.to_owned(),
            repository: source.text("/spec/url").to_owned(),
            values: wanted
                .get("values")
                .filter(|values| !values.is_null())
                .cloned()
                .unwrap_or_else(|| Value::Object(serde_json::Map::new())),
            kube_version: kube.git_version,
        }))
    }

    /// The spec of the HelmRelease as Git would have it with the changes made, if Git decides it.
    async fn wanted(
        &self,
        app: &AppRef,
        live: &Live,
        at: &[(Repository, String)],
        changes: &[PinValue],
    ) -> Result<Result<Value, String>, Failure> {
        let none = Value::Null;
        let spec = live.json.get("spec").unwrap_or(&none);
        if let Err(why) = is_knowable(spec) {
            return Ok(Err(why));
        }
        let mut found = Vec::new();
        for (repository, commit) in at {
            let changes: Vec<PinValue> =
                changes.iter().filter(|change| change.pin.repository == repository.name).cloned().collect();
            let paths: BTreeSet<&str> = changes.iter().map(|change| change.pin.path.as_str()).collect();
            for path in paths {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                let mut texts = Vec::new();
                for changes in [&[][..], &changes] {
                    match self.git.files(app, repository, commit, folder, changes).await {
                        Ok(mut files) => texts.extend(files.remove(path)),
                        Err(failure) if failure.retryable => return Err(failure),
                        Err(failure) => return Ok(Err(failure.message)),
                    }
                }
                if let [before, after] = texts.as_slice() {
                    found.extend(specs(before, &live.object).into_iter().zip(specs(after, &live.object)));
                }
            }
        }
        let [(before, after)] = found.as_slice() else {
            let count = found.len();
            return Ok(Err(format!(
                "it stands {count} times in the files with pins, and once is needed to know what Git asks for"
            )));
        };
        Ok(agree(before, spec).and_then(|()| changes_only_pins(before, after)).map(|()| after.clone()))
    }
}

/// The specs of the documents in a file that are this HelmRelease.
fn specs(text: &str, object: &ObjectRef) -> Vec<Value> {
    let documents = windlass_helm::documents(text).into_iter().filter(|document| {
        let version = document.object.as_ref().and_then(|found| found.get("apiVersion")).and_then(Value::as_str);
        let is_flux = version.is_some_and(|version| version.split('/').next() == Some(HELM));
        let is_here = ["", object.namespace.as_str()].contains(&document.namespace());
        is_flux && is_here && document.kind() == object.kind && document.name() == object.name
    });
    documents.filter_map(|document| document.object?.get("spec").cloned()).collect()
}

/// Whether the spec says everything by itself.
fn is_knowable(spec: &Value) -> Result<(), String> {
    match UNKNOWN.iter().find(|(pointer, _)| !is_nothing(spec.pointer(pointer))) {
        Some((_, why)) => Err((*why).to_owned()),
        None => Ok(()),
    }
}

/// Whether Git and the cluster say the same.
fn agree(git: &Value, live: &Value) -> Result<(), String> {
    let differs = |what: &str| Err(format!("spec.{what} is not in the cluster what its document in Git says"));
    if let Some(field) = DECISIVE.iter().find(|field| !is_same(git.get(**field), live.get(**field))) {
        return differs(field);
    }
    for pointer in ["/upgrade/preserveValues", "/chart/spec/chart", "/chart/spec/version", "/chart/spec/valuesFiles"] {
        if !is_same(git.pointer(pointer), live.pointer(pointer)) {
            return differs(&pointer.trim_start_matches('/').replace('/', "."));
        }
    }
    let source =
        |spec: &Value, field: &str| spec.pointer("/chart/spec/sourceRef").and_then(|source| source.get(field)).cloned();
    match ["kind", "name", "namespace"].into_iter().find(|field| source(git, field) != source(live, field)) {
        Some(_) => differs("chart.spec.sourceRef"),
        None => Ok(()),
    }
}

/// Whether the pins change nothing that decides more than the version and the values.
fn changes_only_pins(before: &Value, after: &Value) -> Result<(), String> {
    let mut after = after.clone();
    for pointer in PINNED {
        if let (Some(was), Some(is)) = (before.pointer(pointer), after.pointer_mut(pointer)) {
            *is = was.clone();
        }
    }
    agree(before, &after).map_err(|_| "a pin changes more of it than the chart's version and the values".to_owned())
}

/// Whether two fields say the same. The API server leaves out what is empty, and writes numbers in its own way.
fn is_same(one: Option<&Value>, other: Option<&Value>) -> bool {
    let both = one.zip(other);
    (is_nothing(one) && is_nothing(other)) || both.is_some_and(|(one, other)| is_equal(one, other))
}

fn is_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|found| is_equal(value, found)))
        }
        (one, other) => one == other,
    }
}

fn is_nothing(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Bool(true) | Value::Number(_)) => false,
    }
}

/// Whether a HelmRepository gives its charts to anybody.
fn is_open(source: &Live) -> Result<(), String> {
    for field in ["secretRef", "certSecretRef", "proxySecretRef", "passCredentials", "insecure"] {
        if !is_nothing(source.json.pointer("/spec").and_then(|spec| spec.get(field))) {
            return Err(format!("its chart comes from {}, which has spec.{field}", source.object));
        }
    }
    match source.text("/spec/provider") {
        "" | "generic" => Ok(()),
        provider => Err(format!("its chart comes from {}, which needs credentials of {provider}", source.object)),
    }
}

/// The objects of a release's manifest.
fn objects(manifest: &str, namespace: &str) -> Result<Vec<Piece>, String> {
    let mut objects = Vec::new();
    for document in windlass_helm::documents(manifest) {
        let Some(mut object) = document.object else {
            return Err("its manifest has a document that cannot be read".to_owned());
        };
        // Helm puts what names no namespace into that of the release. What has none in the cluster is no claim and no workload.
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
            && is_nothing(metadata.get("namespace"))
        {
            metadata.insert("namespace".into(), namespace.into());
        }
        objects.push(object);
    }
    pieces(&objects, None, false).map_err(|stop| match stop {
        Stop::Unknown(why) => why,
        Stop::Needs(folder) => format!("it needs {folder}"),
    })
}
