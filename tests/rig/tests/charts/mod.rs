//! The real helm renders a chart that is served over HTTP, as the operator has it do before an upgrade.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use windlass_helm::{ChartTemplates as _, HelmCli, HelmError, TemplateRequest, documents};
use windlass_rig::{Binaries, ChartServer};

use crate::rig_is_built;

const STATEFULSET: &str = r#"apiVersion: apps/v1
kind: StatefulSet
metadata: {name: {{ .Release.Name }}, labels: {upgrade: "{{ .Release.IsUpgrade }}", kube: {{ .Capabilities.KubeVersion.Version }}}}
spec:
  template: {spec: {containers: [{name: notes, image: "notes:{{ required "no tag" .Values.image.tag }}"}]}}
  volumeClaimTemplates: [{metadata: {name: data}}{{ if .Values.cache }}, {metadata: {name: cache}}{{ end }}]
"#;
const HOOK: &str =
    "apiVersion: batch/v1\nkind: Job\nmetadata: {name: migrate, annotations: {helm.sh/hook: pre-upgrade}}\n";

fn publish(folder: &Path, version: &str, cache: bool) {
    let chart = folder.join(version);
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    std::fs::write(chart.join("Chart.yaml"), format!("apiVersion: v2\nname: notes\nversion: {version}\n")).unwrap();
    std::fs::write(chart.join("values.yaml"), format!("cache: {cache}\nimage: {{}}\n")).unwrap();
    std::fs::write(chart.join("templates/statefulset.yaml"), STATEFULSET).unwrap();
    std::fs::write(chart.join("templates/hook.yaml"), HOOK).unwrap();
}

#[tokio::test]
async fn the_real_helm_renders_a_chart_of_a_repository_without_its_hooks() {
    if !rig_is_built() {
        return;
    }
    let root = TempDir::new().unwrap();
    let server = ChartServer::start(root.path()).await.unwrap();
    for (version, cache) in [("1.0.0", false), ("1.1.0-rc.1", true)] {
        publish(&server.folder("stable"), version, cache);
    }
    let helm = HelmCli::new(&Binaries::locate().unwrap().helm());
    let request = |version: &str, values| TemplateRequest {
        release: "notes".into(),
        namespace: "apps".into(),
        chart: "notes".into(),
        version: version.into(),
        repository: server.url("stable"),
        values,
        kube_version: "v1.36.3".into(),
    };
    let tag = json!({ "image": { "tag": "geheim" } });
    for (version, templates) in [("1.0.0", json!(["data"])), ("1.1.0-rc.1", json!(["data", "cache"]))] {
        let printed = helm.template(&request(version, tag.clone())).await.unwrap();
        let objects = documents(&printed);
        assert_eq!(objects.len(), 1, "{printed}");
        let object = objects[0].object.clone().unwrap();
        assert_eq!(object["metadata"]["labels"], json!({ "upgrade": "true", "kube": "v1.36.3" }));
        assert_eq!(object.pointer("/spec/template/spec/containers/0/image").unwrap(), "notes:geheim");
        let claims = object["spec"]["volumeClaimTemplates"].as_array().unwrap();
        assert_eq!(json!(claims.iter().map(|claim| &claim["metadata"]["name"]).collect::<Vec<_>>()), templates);
    }
    let why = |result: Result<String, HelmError>| match result.unwrap_err() {
        HelmError::TemplateFailed { why } => why,
        error => panic!("{error}"),
    };
    let missing = why(helm.template(&request("9.9.9", tag.clone())).await);
    assert!(missing.contains("chart \"notes\" version \"9.9.9\" not found"), "{missing}");
    let broken = why(helm.template(&request("1.0.0", json!({}))).await);
    assert!(broken.contains("notes/templates/statefulset.yaml:5"), "{broken}");
    let nowhere = TemplateRequest { repository: server.url("nowhere"), ..request("1.0.0", tag) };
    assert!(why(helm.template(&nowhere).await).contains("not a valid chart repository"));
}
