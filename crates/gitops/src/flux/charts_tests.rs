//! What a HelmRelease would deliver, with the test in the place of Helm.

use std::sync::Mutex;

use upgrade_core::ports::{Piece, Rendering};
use windlass_helm::{ChartTemplates, HelmError, TemplateRequest};

use super::*;

const PATH: &str = "apps/notes/release.yaml";
/// The document of the fixture, as it stands in Git. A comment says what the line is the pin of.
const RELEASE: &str = "apiVersion: v1
kind: Namespace
metadata: {name: notes}
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: notes}
spec:
  interval: 5m
  chart:
    spec:
      chart: notes
      version: 1.1.0 # chart
      sourceRef: {kind: HelmRepository, name: charts}
  values:
    image:
      tag: '2.0' # image/notes
";

/// Helm, by the version of the chart.
struct Helm {
    charts: BTreeMap<&'static str, String>,
    asked: Mutex<Vec<TemplateRequest>>,
}

#[async_trait]
impl ChartTemplates for Helm {
    async fn template(&self, request: &TemplateRequest) -> Result<String, HelmError> {
        self.asked.lock().unwrap().push(request.clone());
        let found = self.charts.get(request.version.as_str()).cloned();
        found.ok_or_else(|| HelmError::TemplateFailed { why: "no such chart".into() })
    }
}

fn manifest(workload: &str, more: &str) -> String {
    format!(
        "---\n# Source: notes/templates/app.yaml\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {workload}}}\nspec:\n  \
         template: {{spec: {{volumes: [{{name: v, persistentVolumeClaim: {{claimName: data}}}}]}}}}\n{more}"
    )
}

struct Stage {
    world: World,
    helm: Arc<Helm>,
    git: BTreeMap<String, String>,
}

impl Stage {
    async fn new() -> Self {
        let claim = "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: cache, namespace: elsewhere}\n";
        let set = "---\napiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\nspec:\n  volumeClaimTemplates: [{metadata: {name: store}}]\n";
        let charts = BTreeMap::from([
            ("1.1.0", manifest("web", "")),
            ("1.2.0", manifest("web", &format!("{claim}{set}"))),
            ("1.3.0", manifest("front", "")),
            ("1.4.0", "- broken".to_owned()),
        ]);
        Self {
            world: World::new().await,
            helm: Arc::new(Helm { charts, asked: Mutex::default() }),
            git: BTreeMap::from([(PATH.to_owned(), RELEASE.to_owned())]),
        }
    }

    async fn render(&self, pins: &[PinValue]) -> Result<Rendering, Failure> {
        let git = Arc::new(Files(self.git.clone()));
        let renderer = FluxRenderer::new(self.world.server.client(), git, self.helm.clone());
        let at = [(repository("https://git.example.com/apps"), OURS.to_owned())];
        renderer.render(&app(), &release_object(), &at, pins).await
    }

    async fn to(&self, chart: &str) -> Result<Vec<Piece>, String> {
        let mut pins = release_pins();
        pins[0].value = chart.into();
        pins[1].value = "2.1".into();
        match self.render(&pins).await.unwrap().rendered {
            Rendered::Pieces(pieces) => Ok(pieces),
            Rendered::Unknown(why) => Err(why),
        }
    }

    async fn why(&self) -> String {
        self.to("1.2.0").await.unwrap_err()
    }

    /// Changes the live HelmRelease, as Git and its controller would.
    async fn spec(&self, spec: Value) {
        self.world.change(&release_object(), json!({ "spec": spec })).await;
    }
}

fn of(kind: &str, name: &str) -> ObjectRef {
    ObjectRef::new("apps", kind, "notes", name)
}

#[tokio::test(start_paused = true)]
async fn the_chart_of_the_target_is_rendered_with_the_values_of_the_target() {
    let stage = Stage::new().await;
    let pieces = stage.to("1.2.0").await.unwrap();
    let asked = stage.helm.asked.lock().unwrap().pop().unwrap();
    assert_eq!((asked.release.as_str(), asked.namespace.as_str()), ("notes", "notes"));
    assert_eq!((asked.chart.as_str(), asked.version.as_str()), ("notes", "1.2.0"));
    assert_eq!(
        (asked.repository.as_str(), asked.values),
        ("https://charts.example.com", json!({ "image": { "tag": "2.1" } }))
    );
    assert!(asked.kube_version.starts_with("v1."), "{}", asked.kube_version);
    let seen: Vec<_> = pieces.into_iter().map(|piece| (piece.object, piece.claims, piece.claim_templates)).collect();
    let claim = ObjectRef::new("", "PersistentVolumeClaim", "elsewhere", "cache");
    let expected = [
        (of("Deployment", "web"), vec!["data".to_owned()], Vec::new()),
        (claim, Vec::new(), Vec::new()),
        (of("StatefulSet", "db"), Vec::new(), vec!["store".to_owned()]),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn a_workload_that_the_chart_renames_is_missing_beside_what_the_last_release_has() {
    let stage = Stage::new().await;
    let mut pins = release_pins();
    pins[0].value = "1.3.0".into();
    let rendering = stage.render(&pins).await.unwrap();
    assert_eq!(rendering.delivered, [web()], "what Helm has stored of the newest release");
    let Rendered::Pieces(pieces) = rendering.rendered else { panic!("{:?}", rendering.rendered) };
    assert_eq!(pieces.iter().map(|piece| piece.object.clone()).collect::<Vec<_>>(), [of("Deployment", "front")]);
}

#[tokio::test(start_paused = true)]
async fn what_decides_the_release_besides_its_document_makes_it_unknown() {
    for (spec, why) in [
        (json!({ "valuesFrom": [{ "kind": "ConfigMap", "name": "values" }] }), "it has valuesFrom"),
        (json!({ "postRenderers": [{ "kustomize": { "patches": [{ "patch": "x" }] } }] }), "it has postRenderers"),
        (json!({ "chart": null, "chartRef": { "kind": "OCIRepository", "name": "x" } }), "chartRef"),
        (json!({ "chart": { "spec": { "valuesFiles": ["prod.yaml"] } } }), "valuesFiles"),
        (json!({ "upgrade": { "preserveValues": true } }), "values of earlier releases"),
        (json!({ "values": { "image": { "tag": "1.9" } } }), "spec.values is not in the cluster"),
        (json!({ "values": { "more": 1 } }), "spec.values is not in the cluster"),
        (json!({ "chart": { "spec": { "version": "1.0.0" } } }), "spec.chart.spec.version is not in the cluster"),
        (json!({ "releaseName": "other" }), "spec.releaseName is not in the cluster"),
        (json!({ "targetNamespace": "other" }), "spec.targetNamespace is not in the cluster"),
        (json!({ "chart": { "spec": { "sourceRef": { "name": "other" } } } }), "sourceRef is not in the cluster"),
    ] {
        let stage = Stage::new().await;
        stage.spec(spec.clone()).await;
        let found = stage.why().await;
        assert!(found.contains(why), "{spec}: {found}");
        assert!(stage.helm.asked.lock().unwrap().is_empty(), "{spec}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_document_in_git_has_to_be_the_one_that_says_it() {
    let mut stage = Stage::new().await;
    let document = stage.git[PATH].clone();
    for (text, why) in [
        (document.replace("{name: notes}\nspec", "{name: other}\nspec"), "0 times"),
        (document.replace("{name: notes}\nspec", "{name: notes, namespace: other}\nspec"), "0 times"),
        (format!("{document}---\n{}", document.split_once("---\n").unwrap().1), "2 times"),
        // A variable, or an overlay, puts in something else.
        (document.replace("version: 1.1.0", "version: ${version}"), "spec.chart.spec.version"),
        (document.replace("'2.0' # image/notes", "'${tag}'"), "spec.values"),
        (document.replace("  values:", "  releaseName: notes # image/notes\n  values:"), "a pin changes more"),
    ] {
        stage.git.insert(PATH.into(), text.clone());
        if why.contains("pin") {
            stage.spec(json!({ "releaseName": "notes" })).await;
        }
        let found = stage.why().await;
        assert!(found.contains(why), "{text}: {found}");
    }
    stage.spec(json!({ "releaseName": null })).await;
    stage.git.insert(PATH.into(), document);
    stage.to("1.2.0").await.unwrap();
    let elsewhere = [pin("image/notes", "ConfigMap/values", "data.tag", "2.1")].map(|mut pin| {
        pin.pin.path = "apps/notes/values.yaml".into();
        pin
    });
    let Rendered::Unknown(why) = stage.render(&elsewhere).await.unwrap().rendered else { panic!("known") };
    assert!(why.contains("0 times"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_repository_that_is_not_open_to_all_is_unknown() {
    for (spec, why) in [
        (json!({ "secretRef": { "name": "x" } }), "spec.secretRef"),
        (json!({ "certSecretRef": { "name": "x" } }), "spec.certSecretRef"),
        (json!({ "passCredentials": true }), "spec.passCredentials"),
        (json!({ "provider": "aws" }), "credentials of aws"),
        (json!({ "insecure": true }), "spec.insecure"),
    ] {
        let stage = Stage::new().await;
        stage.world.change(&helm_repository().object, json!({ "spec": spec })).await;
        let found = stage.why().await;
        assert!(found.contains(why), "{spec}: {found}");
    }
    let stage = Stage::new().await;
    let charts = helm_repository().object;
    stage.world.api(&charts).delete(&charts.name, &DeleteParams::default()).await.unwrap();
    assert!(stage.why().await.contains("does not exist"));
    let mut stage = Stage::new().await;
    stage.spec(json!({ "chart": { "spec": { "sourceRef": { "kind": "GitRepository" } } } })).await;
    let git = stage.git[PATH].replace("kind: HelmRepository", "kind: GitRepository");
    stage.git.insert(PATH.into(), git);
    assert!(stage.why().await.contains("not from a HelmRepository"));
}

#[tokio::test(start_paused = true)]
async fn helm_that_fails_and_a_release_that_is_not_deployed_are_unknown_and_no_error() {
    let stage = Stage::new().await;
    assert!(stage.to("9.9.9").await.unwrap_err().contains("no such chart"));
    assert!(stage.to("1.4.0").await.unwrap_err().contains("a document that cannot be read"));
    assert!(stage.to(">=1.0.0").await.unwrap_err().contains("no exact version"));
    stage.world.store_release(6, "failed", "1.2.0", "2.0").await;
    assert!(stage.why().await.contains("its release 6 is Failed"));
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(stage.world.server.client(), "notes");
    for number in [5, 6] {
        secrets.delete(&format!("sh.helm.release.v1.notes.v{number}"), &DeleteParams::default()).await.unwrap();
    }
    assert!(stage.why().await.contains("no release"));
}
