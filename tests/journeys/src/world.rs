//! The world of the journeys: an estate, the product installed on it as a person would, and ways to look at everything.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser as _;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt, discovery};
use serde_json::Value;
use tokio::time::Instant;
use windlass_cli::{Cli, Exit, Printer, Session};

use crate::estate::{Estate, OPERATOR_USER, Operator, SYSTEM};

/// Everything.
pub(crate) struct World {
    pub(crate) estate: Box<dyn Estate>,
    pub(crate) client: Client,
}

impl World {
    /// Installs the product and starts its operator.
    pub(crate) async fn install(estate: Box<dyn Estate>) -> anyhow::Result<Self> {
        let world = Self { client: estate.client(), estate };
        let crds: Vec<String> = windlass_api::crds().iter().map(serde_yaml_ng::to_string).collect::<Result<_, _>>()?;
        world.apply(&crds.join("---\n")).await.context("applying our CRDs")?;
        world.apply(&install_yaml()?).await.context("installing the operator's rights")?;
        world.operator().start()?;
        wait("the operator to be ready", Duration::from_secs(30), || async { Ok(world.operator().is_ready().await) })
            .await?;
        Ok(world)
    }

    pub(crate) fn operator(&self) -> &dyn Operator {
        self.estate.operator()
    }

    /// Applies YAML documents as a person would.
    pub(crate) async fn apply(&self, yaml: &str) -> anyhow::Result<()> {
        windlass_playground::apply(&self.client, "a-person", yaml).await
    }

    /// Objects of any kind.
    pub(crate) async fn dynamic(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        namespace: &str,
    ) -> anyhow::Result<Api<DynamicObject>> {
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let (resource, _) = discovery::pinned_kind(&self.client, &gvk).await?;
        Ok(Api::namespaced_with(self.client.clone(), namespace, &resource))
    }

    pub(crate) async fn volume_of(&self, namespace: &str, claim: &str) -> anyhow::Result<PersistentVolume> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let found = claims.get(claim).await?;
        let name = found.spec.and_then(|spec| spec.volume_name).context("the claim is not bound")?;
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        Ok(volumes.get(&name).await?)
    }

    /// Pods of the app that are ready, with their image.
    pub(crate) async fn ready_pods(&self, namespace: &str) -> anyhow::Result<Vec<(String, String)>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let found = pods.list(&ListParams::default()).await?;
        Ok(found
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter(|pod| {
                let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
                conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True")
            })
            .map(|pod| {
                let image = pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.clone());
                (pod.name_any(), image.unwrap_or_default())
            })
            .collect())
    }

    pub(crate) async fn wait_ready(&self, namespace: &str, tag: &str, pods: usize) -> anyhow::Result<()> {
        wait(&format!("{pods} ready pods of {tag} in {namespace}"), Duration::from_secs(60), || async {
            let ready = self.ready_pods(namespace).await?;
            Ok(ready.len() == pods && ready.iter().all(|(_, image)| image.ends_with(&format!(":{tag}"))))
        })
        .await
    }

    /// The command `windlass` as a person calls it: how it ended, and what it printed.
    pub(crate) async fn windlass(&self, line: &str) -> anyhow::Result<(Exit, String)> {
        let cli = Cli::try_parse_from(std::iter::once("windlass").chain(line.split_whitespace()))?;
        let printed = Printed::default();
        let mut session = Session::new(Printer::new(Box::new(printed.clone()), Box::new(printed.clone())));
        session.client = Some(self.client.clone());
        session.clock = self.estate.clock();
        let exit = windlass_cli::run(&cli, &mut session).await;
        let text = printed.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok((exit, String::from_utf8(text)?))
    }

    /// A field of an object as JSON; `Null` when either is missing.
    pub(crate) async fn field(&self, api: &Api<DynamicObject>, name: &str, pointer: &str) -> anyhow::Result<Value> {
        let Some(found) = api.get_opt(name).await? else { return Ok(Value::Null) };
        Ok(serde_json::to_value(&found)?.pointer(pointer).cloned().unwrap_or_default())
    }

    /// What helps to understand a failure.
    pub(crate) async fn explain(&self) {
        let log = self.operator().log_tail(6);
        println!("--- the operator's last lines\n{log}");
        for kind in ["UpgradeRequest", "RollbackRequest"] {
            let gvk = GroupVersionKind::gvk(windlass_api::GROUP, windlass_api::VERSION, kind);
            let Ok((resource, _)) = discovery::pinned_kind(&self.client, &gvk).await else { continue };
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            let Ok(found) = api.list(&ListParams::default()).await else { continue };
            for request in found {
                let status = request.data.get("status").cloned().unwrap_or_default();
                println!(
                    "--- {kind} {}/{}: {} {} {}",
                    request.namespace().unwrap_or_default(),
                    request.name_any(),
                    status["phase"],
                    status["message"],
                    status["leftovers"],
                );
            }
        }
    }
}

/// What a command has printed.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What `deploy/manifests` installs, for the rig's user in place of a service account.
fn install_yaml() -> anyhow::Result<String> {
    let namespace = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}});
    let subject = serde_json::json!({"kind": "User", "name": OPERATOR_USER, "apiGroup": "rbac.authorization.k8s.io"});
    let rights = windlass_operator::rbac::rights_of(SYSTEM, &subject);
    let texts: Vec<String> =
        std::iter::once(&namespace).chain(&rights).map(serde_yaml_ng::to_string).collect::<Result<_, _>>()?;
    Ok(texts.join("---\n"))
}

/// Asks again and again until the answer is yes. Errors: it was not yes in time, or asking failed to the end.
pub(crate) async fn wait<F, Fut>(what: &str, patience: Duration, ask: F) -> anyhow::Result<()>
where
    F: Fn() -> Fut,
    Fut: Future<Output = anyhow::Result<bool>>,
{
    let began = Instant::now();
    loop {
        let last = match ask().await {
            Ok(true) => return Ok(()),
            Ok(false) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if began.elapsed() > patience {
            bail!("waited {:.0} s for {what}{last}", patience.as_secs_f64());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
