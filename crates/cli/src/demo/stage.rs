//! The stage: the cluster with the app on it, as its owner would have set it up.

use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use kube_sim::Identity;
use kube_sim::controllers::GitRemote;
use kube_sim::server::Listening;
use tokio::time::Instant;
use windlass_api::{ManagedApp, OperationStatus, UpgradeRequest};
use windlass_operator::lease;
use windlass_operator::manifests::NAMESPACE;
use windlass_playground::{Options, Playground, apply, digest, manifests};

use super::operator::OperatorProcess;

/// Namespace and name of everything of the app.
pub(super) const APP: &str = "notes";
/// The file that carries the version.
pub(super) const FILE: &str = "apps/notes/notes.yaml";
const OPERATOR: &str = "windlass";
/// A busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// Everything that is on it.
pub(super) struct Stage {
    // Dropped in this order: the operator talks to the server, and its files are in the playground's folder.
    pub(super) operator: OperatorProcess,
    pub(super) person: Listening,
    _operators_door: Listening,
    pub(super) repository: GitRemote,
    pub(super) playground: Playground,
    pub(super) client: Client,
    /// Records that the app has acknowledged.
    pub(super) acknowledged: u64,
    /// A hash of the volume's bytes before the version that overwrites them, and after its rollback.
    pub(super) bytes: Vec<String>,
}

impl Stage {
    pub(super) async fn set() -> anyhow::Result<Self> {
        let options = Options { seed: 1, epoch: jiff::Timestamp::now(), below: None, folder: None };
        let playground = Playground::start(options).await?;
        let server = playground.server();
        let person = server.listen_as(Identity::admin()).await?;
        let operators_door = server.listen_as(Identity::user(OPERATOR)).await?;
        let folder = playground.folder().to_owned();
        std::fs::write(folder.join("kubeconfig"), person.kubeconfig())?;
        let operators = folder.join("operator.kubeconfig");
        std::fs::write(&operators, operators_door.kubeconfig())?;
        let client = playground.client();

        let mut install: Vec<String> =
            windlass_api::crds().iter().map(serde_yaml_ng::to_string).collect::<Result<_, _>>()?;
        install.push(format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n"));
        let subject = serde_json::json!({"kind": "User", "name": OPERATOR, "apiGroup": "rbac.authorization.k8s.io"});
        for object in windlass_operator::rbac::rights_of(NAMESPACE, &subject) {
            install.push(serde_yaml_ng::to_string(&object)?);
        }
        apply(&client, "a-person", &install.join("---\n")).await.context("installing Windlass")?;

        let repository = playground.repository(APP)?;
        repository.commit(&[(FILE, Some(&manifests::deployment(APP, "1.0.0")))], "Add the app")?;
        let url = repository.url();
        let delivery = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {APP}}}\n---\n{}---\n{}",
            manifests::kustomization(APP, &url, "./apps/notes", None, None),
            managed_app(&url),
        );
        apply(&client, "a-person", &delivery).await.context("setting up the app")?;
        let mut operator = OperatorProcess::new(operators, &folder);
        operator.start()?;
        let stage = Self {
            operator,
            person,
            _operators_door: operators_door,
            repository,
            playground,
            client,
            acknowledged: 0,
            bytes: Vec::new(),
        };
        stage.runs("1.0.0").await?;
        stage.operator_leads().await?;
        Ok(stage)
    }

    /// Pods of the app that are ready, with their image.
    pub(super) async fn ready_pods(&self) -> anyhow::Result<Vec<(String, String)>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), APP);
        let found = pods.list(&ListParams::default()).await?;
        let ready = |pod: &Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            pod.metadata.deletion_timestamp.is_none()
                && conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
        };
        let image = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.clone());
        Ok(found.iter().filter(|pod| ready(pod)).map(|pod| (pod.name_any(), image(pod).unwrap_or_default())).collect())
    }

    /// Waits until one pod of that version is ready.
    pub(super) async fn runs(&self, version: &str) -> anyhow::Result<()> {
        until(&format!("version {version} to run"), || async {
            let pods = self.ready_pods().await?;
            Ok(pods.len() == 1 && pods.iter().all(|(_, image)| image.ends_with(&format!(":{version}"))))
        })
        .await
    }

    async fn operator_leads(&self) -> anyhow::Result<()> {
        let leases: Api<k8s_openapi::api::coordination::v1::Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        until("the operator to lead", || async { Ok(leases.get_opt(lease::NAME).await?.is_some()) }).await
    }

    /// Has the app acknowledge so many records.
    pub(super) async fn write(&mut self, count: u64) -> anyhow::Result<()> {
        let pods = self.ready_pods().await?;
        let (pod, _) = pods.first().context("no pod of the app is ready")?;
        for _ in 0..count {
            let number = self.playground.notes().append(APP, pod, "a record")?;
            if number != Some(self.acknowledged + 1) {
                bail!("record {} was acknowledged as {number:?}", self.acknowledged + 1);
            }
            self.acknowledged += 1;
        }
        Ok(())
    }

    /// The app's volume: its name, and its handle at the driver.
    pub(super) async fn volume(&self) -> anyhow::Result<(PersistentVolume, String)> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), APP);
        let found = claims.list(&ListParams::default()).await?.items;
        let [claim] = found.as_slice() else { bail!("{} claims", found.len()) };
        let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).context("the claim is not bound")?;
        let volume = Api::<PersistentVolume>::all(self.client.clone()).get(&name).await?;
        let handle = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref()).map(|csi| csi.volume_handle.clone());
        Ok((volume, handle.context("not a CSI volume")?))
    }

    /// Notes what is on the volume, while nobody writes.
    pub(super) async fn note_bytes(&mut self) -> anyhow::Result<()> {
        let (_, handle) = self.volume().await?;
        let folder = self.playground.driver().volume_folder(&handle).context("the volume has no folder")?;
        self.bytes.push(digest(&folder)?);
        Ok(())
    }

    /// The newest upgrade request's status.
    pub(super) async fn newest_upgrade(&self) -> anyhow::Result<Option<(String, OperationStatus)>> {
        let requests: Api<UpgradeRequest> = Api::namespaced(self.client.clone(), APP);
        let found = requests.list(&ListParams::default()).await?;
        let newest = found.into_iter().max_by_key(|one| (one.creation_timestamp().map(|at| at.0), one.name_any()));
        Ok(newest.map(|one| (one.name_any(), one.status.unwrap_or_default())))
    }
}

/// Asks again and again until the answer is yes.
pub(super) async fn until<F, Fut>(what: &str, ask: F) -> anyhow::Result<()>
where
    F: Fn() -> Fut,
    Fut: Future<Output = anyhow::Result<bool>>,
{
    let deadline = Instant::now() + PATIENCE;
    while !ask().await? {
        if Instant::now() > deadline {
            bail!("waited {} s for {what}", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn managed_app(url: &str) -> String {
    format!(
        r"apiVersion: upgrades.windlass.dev/v1alpha1
kind: ManagedApp
metadata: {{name: {APP}, namespace: {APP}}}
spec:
  delivery:
    flux:
      objects: [{{kind: Kustomization, name: {APP}, namespace: flux-system}}]
  git:
    repositories:
      - {{name: apps, url: '{url}', branch: main, paths: [apps/notes/]}}
    pins:
      - component: image/notes
        repository: apps
        path: {FILE}
        object: Deployment/notes
        field: spec.template.spec.containers[name=notes].image
        part: Tag
  health: {{timeout: 10s, soak: 1s}}
"
    )
}

/// The app's object.
pub(super) async fn managed(client: &Client) -> anyhow::Result<ManagedApp> {
    Ok(Api::namespaced(client.clone(), APP).get(APP).await?)
}
