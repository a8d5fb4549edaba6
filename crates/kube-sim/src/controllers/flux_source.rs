//! Stand-in for Flux's source-controller: GitRepository. Charts are in [`super::flux_chart`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::{Client, ResourceExt};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::artifact::{Artifact, ArtifactStore};
use super::conditions::{At, Conditions};
use super::drive::{Next, drive, flux};
use super::flux_objects::{GitRepositorySpec, describe, duration, read, requested_at, spec, status, write_status};
use super::git_fetch::{self, BasicAuth, Fetched};
use super::{Clock, Error};

const MANAGER: &str = "source-controller";

/// What the source stand-ins need.
#[derive(Clone)]
pub struct SourceContext {
    /// Client to the API server.
    pub client: Client,
    /// Where artifacts go.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// Folder for the fetched repositories; kept between runs or not, as the caller likes.
    pub cache: PathBuf,
    /// The present time.
    pub clock: Clock,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GitRepositoryStatus {
    observed_generation: i64,
    last_handled_reconcile_at: Option<String>,
    artifact: Option<Artifact>,
    conditions: Conditions,
}

/// Reconciles GitRepository objects until `stop` is cancelled.
///
/// A fetch happens at the interval, when the spec changes, and on request. When it fails, `Ready` turns False and the old
/// artifact stays. A suspended object only acknowledges requests.
pub async fn run(context: SourceContext, stop: CancellationToken) {
    let resource = flux("source", "v1", "GitRepository");
    let client = context.client.clone();
    let context = Arc::new(context);
    drive(&client, resource.clone(), Vec::new(), stop, move |object| {
        let (context, resource) = (Arc::clone(&context), resource.clone());
        async move { reconcile(&context, &resource, &object).await }
    })
    .await;
}

async fn reconcile(context: &SourceContext, resource: &ApiResource, seen: &DynamicObject) -> Result<Next, Error> {
    let namespace = seen.namespace().unwrap_or_default();
    let Some(object) = read(&context.client, resource, &namespace, &seen.name_any()).await? else {
        return Ok(Next::Wait);
    };
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Wait);
    }
    let wanted: GitRepositorySpec = spec(&object)?;
    let mut state: GitRepositoryStatus = status(&object)?;
    let generation = object.metadata.generation.unwrap_or(0);
    state.last_handled_reconcile_at = requested_at(&object).or(state.last_handled_reconcile_at);
    if wanted.suspend {
        state.observed_generation = generation;
        write_status(&context.client, resource, &object, MANAGER, &state).await?;
        return Ok(Next::Wait);
    }
    let result = refresh(context, &object, &wanted, state.artifact.clone()).await;
    let at = At { now: (context.clock)(), generation };
    match &result {
        Ok(artifact) => {
            let message = format!("stored artifact for revision '{}'", artifact.revision);
            state.conditions.set(&at, "Ready", "True", "Succeeded", &message);
            state.conditions.set(&at, "ArtifactInStorage", "True", "Succeeded", &message);
            state.conditions.remove("FetchFailed");
            state.conditions.remove("Reconciling");
            state.artifact = Some(artifact.clone());
            state.observed_generation = generation;
        }
        Err(error) => {
            let (reason, message) = ("GitOperationFailed", error.to_string());
            state.conditions.set(&at, "Ready", "False", reason, &message);
            state.conditions.set(&at, "FetchFailed", "True", reason, &message);
            state.conditions.reconciling(&at, "ProgressingWithRetry", &message);
        }
    }
    write_status(&context.client, resource, &object, MANAGER, &state).await?;
    result.map(|_| Next::After(duration(Some(&wanted.interval), Duration::from_secs(60))))
}

/// Fetches the reference; the artifact is made anew only when the revision is another one.
async fn refresh(
    context: &SourceContext,
    object: &DynamicObject,
    wanted: &GitRepositorySpec,
    present: Option<Artifact>,
) -> Result<Artifact, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let auth = match &wanted.secret_ref {
        Some(secret) => Some(basic_auth(&context.client, &namespace, &secret.name).await?),
        None => None,
    };
    // By UID, so that a repository of the same name but another URL or history starts afresh.
    let cache = context.cache.join(format!("{}.git", object.uid().unwrap_or_default()));
    let (url, reference) = (wanted.url.clone(), wanted.reference.clone());
    let fetching = tokio::task::spawn_blocking(move || git_fetch::fetch(&cache, &url, &reference, auth.as_ref()));
    let limit = duration(wanted.timeout.as_deref(), Duration::from_secs(60));
    let failed = |why: String| Error::Source(format!("failed to checkout and determine revision: {why}"));
    let fetched = match tokio::time::timeout(limit, fetching).await {
        Ok(Ok(result)) => result.map_err(failed)?,
        Ok(Err(panicked)) => return Err(failed(panicked.to_string())),
        Err(_) => return Err(failed(format!("no answer within {limit:?}"))),
    };
    let Fetched { revision, commit, archive } = fetched;
    if let Some(present) = present.filter(|present| present.revision == revision)
        && context.artifacts.get(&present.url).await.is_ok()
    {
        return Ok(present);
    }
    tracing::info!(object = describe(object), revision, "new artifact");
    let path = format!("gitrepository/{namespace}/{}/{commit}.tar.gz", object.name_any());
    Artifact::store(&*context.artifacts, path, revision, archive, (context.clock)()).await
}

async fn basic_auth(client: &Client, namespace: &str, name: &str) -> Result<BasicAuth, Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = secrets.get_opt(name).await?;
    let secret =
        secret.ok_or_else(|| Error::Source(format!("failed to get secret '{namespace}/{name}': not found")))?;
    let data = secret.data.unwrap_or_default();
    let text = |key: &str| {
        let bytes = data.get(key).map(|value| value.0.clone());
        bytes.and_then(|bytes| String::from_utf8(bytes).ok())
    };
    match (text("username"), text("password")) {
        (Some(user), Some(password)) => Ok((user, password)),
        _ => Err(Error::Source(format!("secret '{namespace}/{name}' has no 'username' and 'password'"))),
    }
}
