//! The apps of the journeys, as their owners would write them.

use std::time::Duration;

use anyhow::Context;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use windlass_api::ManagedApp;
use windlass_playground::manifests::{deployment, kustomization};

use crate::outage::Outage;
use crate::repo::Repo;
use crate::world::{World, wait};

/// An app with its repository.
pub(crate) struct App {
    /// Namespace and name of everything of it.
    pub(crate) name: String,
    /// The Kustomization that applies its files, which it may share.
    pub(crate) kustomization: String,
    /// `spec.suspend` of that Kustomization as its owner left it: none is not `false`.
    pub(crate) suspend: Option<bool>,
    pub(crate) repo: Repo,
    /// The file that carries the version.
    pub(crate) path: String,
    /// Claims that hold its data.
    pub(crate) claims: Vec<String>,
    pub(crate) url: String,
    pub(crate) outage: Outage,
}

/// How an app differs from the ordinary one.
pub(crate) struct Shape {
    pub(crate) version: &'static str,
    pub(crate) soak: &'static str,
    pub(crate) timeout: &'static str,
    /// Snapshot class, where not the default.
    pub(crate) class: Option<&'static str>,
    pub(crate) snapshot_deadline: &'static str,
    /// `spec.upgrade` of the HelmRelease.
    pub(crate) helm_upgrade: &'static str,
    /// How long Helm waits for what it released.
    pub(crate) helm_timeout: &'static str,
    /// Whether the plain manifest says how many replicas there are: then whatever applies it starts pods.
    pub(crate) declares_replicas: bool,
    /// `spec.replicas` as the chart has it, if it does.
    pub(crate) chart_replicas: Option<usize>,
    /// For how many seconds version 4.0.0 serves before it turns unready.
    pub(crate) serves: Option<&'static str>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            version: "1.0.0",
            soak: "1s",
            timeout: "60s",
            class: None,
            snapshot_deadline: "60s",
            helm_upgrade: "{strategy: {name: RetryOnFailure}}",
            helm_timeout: "30s",
            declares_replicas: false,
            chart_replicas: None,
            serves: None,
        }
    }
}

/// The app's namespace, with the credentials of the Git host for Flux and for us.
fn namespace(world: &World, name: &str) -> String {
    let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
    let Some((user, token)) = world.estate.login() else { return namespace };
    format!(
        r"{namespace}---
apiVersion: v1
kind: Secret
metadata: {{name: {name}-git, namespace: flux-system}}
stringData: {{username: {user}, password: {token}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: git-write, namespace: {name}}}
stringData: {{username: {user}, password: {token}}}
"
    )
}

impl World {
    /// A Deployment with a claim, delivered by a Kustomization.
    pub(crate) async fn manifests_app(&self, name: &str, shape: Shape) -> anyhow::Result<App> {
        let path = "apps/notes/notes.yaml".to_owned();
        let mut text = deployment(name, shape.version);
        if let Some(seconds) = shape.serves {
            let first = "            - {name: DATA_DIR, value: /data}\n";
            let more = format!("{first}            - {{name: FAIL_AFTER_SECONDS, value: \"{seconds}\"}}\n");
            text = text.replace(first, &more);
        }
        if shape.declares_replicas {
            text = text.replacen("spec:\n  strategy", "spec:\n  replicas: 1\n  strategy", 1);
        }
        let files = vec![(path.clone(), text)];
        let app = self.deliver(name, path, files, vec!["notes-data".into()]).await?;
        let pins = json!([{
            "component": "image/notes", "repository": "apps", "path": app.path, "object": "Deployment/notes",
            "field": "spec.template.spec.containers[name=notes].image", "part": "Tag",
        }]);
        let delivery = json!([{"kind": "Kustomization", "name": name, "namespace": "flux-system"}]);
        self.manage(&app, &shape, delivery, pins).await?;
        self.wait_ready(name, shape.version, 1).await?;
        self.wait_delivered(name).await?;
        Ok(app)
    }

    /// A StatefulSet of two with claim templates, delivered by a HelmRelease below a Kustomization; the chart omits `replicas`
    /// unless asked.
    pub(crate) async fn release_app(&self, name: &str, shape: Shape) -> anyhow::Result<App> {
        self.publish_charts(name, shape.chart_replicas)?;
        let path = "apps/notes/release.yaml".to_owned();
        let release = format!(
            r#"apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata:
  name: charts
  namespace: {name}
spec:
  interval: 1m
  url: {charts}
---
# The release. Chart and image move together.
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata:
  name: notes
  namespace: {name}
spec:
  interval: 1m
  timeout: {timeout}
  chart:
    spec:
      chart: notes
      version: {version} # the chart
      sourceRef: {{kind: HelmRepository, name: charts}}
  upgrade: {upgrade}
  values:
    image:
      repository: registry.test/notes
      tag: "{version}"  # the image
"#,
            charts = self.estate.chart_url(name),
            version = shape.version,
            timeout = shape.helm_timeout,
            upgrade = shape.helm_upgrade,
        );
        let files = vec![(path.clone(), release)];
        let claims = vec!["data-notes-0".to_owned(), "data-notes-1".to_owned()];
        let mut app = self.deliver(name, path, files, claims).await?;
        let releases = self.dynamic("helm.toolkit.fluxcd.io", "v2", "HelmRelease", name).await?;
        app.outage.watch(releases, "HelmRelease", "notes");
        let pin = |component: &str, field: &str| json!({"component": component, "repository": "apps", "path": app.path, "object": "HelmRelease/notes", "field": field});
        let pins = json!([pin("chart", "spec.chart.spec.version"), pin("image/notes", "spec.values.image.tag")]);
        self.wait_statefulset(name).await?;
        self.manage(&app, &shape, json!([{"kind": "HelmRelease", "name": "notes"}]), pins).await?;
        self.wait_ready(name, shape.version, 2).await?;
        self.wait_delivered(name).await?;
        Ok(app)
    }

    /// Two apps in namespaces of their own, delivered by one Kustomization from one repository.
    pub(crate) async fn neighbours(&self, one: &str, other: &str, shape: Shape) -> anyhow::Result<(App, App)> {
        let file = |name: &str| format!("apps/notes/{name}.yaml");
        let files = [one, other].map(|name| (file(name), deployment(name, "1.0.0"))).to_vec();
        self.apply(&namespace(self, other)).await?;
        let first = self.deliver(one, file(one), files, vec!["notes-data".into()]).await?;
        let clone = Repo::clone(&self.estate.repository(one).await?)?;
        let second = App {
            name: other.into(),
            kustomization: one.into(),
            suspend: None,
            repo: clone,
            path: file(other),
            claims: vec!["notes-data".into()],
            url: first.url.clone(),
            outage: self.watched(one).await?,
        };
        for app in [&first, &second] {
            let pins = json!([{
                "component": "image/notes", "repository": "apps", "path": app.path,
                "object": format!("Deployment/{}/notes", app.name), "field": "spec.template.spec.containers[name=notes].image", "part": "Tag",
            }]);
            let delivery = json!([{"kind": "Kustomization", "name": one, "namespace": "flux-system"}]);
            self.manage(app, &shape, delivery, pins).await?;
            self.wait_ready(&app.name, "1.0.0", 1).await?;
        }
        self.wait_delivered(one).await?;
        Ok((first, second))
    }

    /// The chart omits `replicas`, so that somebody has to have scaled it to two.
    async fn wait_statefulset(&self, namespace: &str) -> anyhow::Result<()> {
        let api = self.dynamic("apps", "v1", "StatefulSet", namespace).await?;
        wait("the StatefulSet", Duration::from_secs(60), || async { Ok(api.get_opt("notes").await?.is_some()) })
            .await?;
        let scale = Patch::Merge(json!({"spec": {"replicas": 2}}));
        api.patch_scale("notes", &PatchParams::default(), &scale).await?;
        Ok(())
    }

    /// The charts of the app. That of 1.2.0 takes its time until it is ready, longer than Helm may be told to wait; that of
    /// 5.0.0 has one claim template more, and that of 6.0.0 another name for the StatefulSet.
    fn publish_charts(&self, name: &str, replicas: Option<usize>) -> anyhow::Result<()> {
        let replicas = replicas.map_or_else(String::new, |count| format!("  replicas: {count}\n"));
        let template = STATEFULSET.replace("  serviceName:", &format!("{replicas}  serviceName:"));
        let url = self.estate.chart_url(name);
        let folder = self.estate.charts().join(url.split_once("://").map_or(&*url, |(_, folder)| folder));
        for version in ["1.0.0", "1.1.0", "1.2.0", "2.0.0", "3.0.0", "4.0.0", "5.0.0", "6.0.0"] {
            let chart = folder.join(format!("notes-{version}"));
            std::fs::create_dir_all(chart.join("templates"))?;
            std::fs::write(chart.join("Chart.yaml"), format!("apiVersion: v2\nname: notes\nversion: {version}\n"))?;
            std::fs::write(chart.join("values.yaml"), "image: {repository: registry.test/notes, tag: 1.0.0}\n")?;
            let delay = if version == "1.2.0" { "8" } else { "0" };
            let template = template.replace("initialDelaySeconds: 0", &format!("initialDelaySeconds: {delay}"));
            let template = match version {
                "5.0.0" => format!("{template}{CACHE}"),
                "6.0.0" => template.replacen("name: notes", "name: renamed", 1),
                _ => template,
            };
            std::fs::write(chart.join("templates/statefulset.yaml"), template)?;
        }
        Ok(())
    }

    async fn deliver(
        &self,
        name: &str,
        path: String,
        files: Vec<(String, String)>,
        claims: Vec<String>,
    ) -> anyhow::Result<App> {
        let remote = self.estate.repository(name).await?;
        let repo = Repo::create(&remote, &files)?;
        self.apply(&namespace(self, name)).await?;
        let secret = self.estate.login().map(|_| format!("{name}-git"));
        self.apply(&kustomization(name, &remote.url, "./apps/notes", secret.as_deref(), Some("30s"))).await?;
        let outage = self.watched(name).await?;
        let kustomization = name.into();
        Ok(App { name: name.into(), kustomization, suspend: None, repo, path, claims, url: remote.url, outage })
    }

    /// Measures from now on how long this Kustomization is suspended.
    async fn watched(&self, kustomization: &str) -> anyhow::Result<Outage> {
        let mut outage = Outage::default();
        let api = self.dynamic("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "flux-system").await?;
        outage.watch(api, "Kustomization", kustomization);
        Ok(outage)
    }

    async fn manage(
        &self,
        app: &App,
        shape: &Shape,
        delivery: serde_json::Value,
        pins: serde_json::Value,
    ) -> anyhow::Result<()> {
        let manifest = json!({
            "apiVersion": "upgrades.windlass.dev/v1alpha1", "kind": "ManagedApp",
            "metadata": {"name": "notes", "namespace": app.name},
            "spec": {
                "delivery": {"flux": {"objects": delivery}},
                "git": {
                    "repositories": [{
                        "name": "apps", "url": app.url, "branch": "main", "paths": ["apps/notes/"],
                        "secretRef": self.estate.login().map(|_| json!({"name": "git-write"})),
                    }],
                    "pins": pins,
                },
                "snapshots": {"className": shape.class, "deadline": shape.snapshot_deadline},
                "health": {"timeout": shape.timeout, "soak": shape.soak},
            },
        });
        let managed: ManagedApp = serde_json::from_value(manifest).context("the ManagedApp")?;
        self.apply(&serde_yaml_ng::to_string(&managed)?).await
    }

    /// Writes `spec.suspend: false` on the app's Kustomization, as a person would. Nothing applies that object from Git, so it stays.
    pub(crate) async fn write_suspend_false(&self, app: &mut App) -> anyhow::Result<()> {
        let api = self.dynamic("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "flux-system").await?;
        let patch = Patch::Merge(json!({"spec": {"suspend": false}}));
        api.patch(&app.kustomization, &PatchParams::default(), &patch).await?;
        app.suspend = Some(false);
        let name = app.kustomization.clone();
        // It is Ready by a look at the spec of before.
        wait("the Kustomization to be looked at again", Duration::from_secs(60), || async {
            let seen = self.field(&api, &name, "/status/observedGeneration").await?;
            Ok(seen.is_number() && seen == self.field(&api, &name, "/metadata/generation").await?)
        })
        .await?;
        self.wait_delivered(&name).await
    }

    /// Waits until the Kustomization is Ready: a person would not begin before.
    async fn wait_delivered(&self, name: &str) -> anyhow::Result<()> {
        let api = self.dynamic("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "flux-system").await?;
        wait("the Kustomization to be Ready", Duration::from_secs(60), || async {
            let conditions = self.field(&api, name, "/status/conditions").await?;
            let ready = |one: &serde_json::Value| one["type"] == "Ready" && one["status"] == "True";
            Ok(conditions.as_array().is_some_and(|all| all.iter().any(ready)))
        })
        .await
    }
}

/// One claim template more.
const CACHE: &str = "    - metadata: {name: cache}
      spec:
        accessModes: [ReadWriteOnce]
        resources: {requests: {storage: 16Mi}}
";

const STATEFULSET: &str = r#"apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: notes
spec:
  serviceName: notes
  podManagementPolicy: Parallel
  selector:
    matchLabels: {app: notes}
  template:
    metadata:
      labels: {app: notes}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: notes
          image: "{{ .Values.image.repository }}:{{ .Values.image.tag }}"
          ports: [{containerPort: 8080}]
          env:
            - {name: DATA_DIR, value: /data}
          readinessProbe:
            httpGet: {path: /healthz, port: 8080}
            initialDelaySeconds: 0
            periodSeconds: 1
          volumeMounts:
            - {name: data, mountPath: /data}
  volumeClaimTemplates:
    - metadata:
        name: data
      spec:
        accessModes: [ReadWriteOnce]
        resources: {requests: {storage: 16Mi}}
"#;
