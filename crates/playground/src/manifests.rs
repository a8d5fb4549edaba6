//! The app and its delivery, as their owners would write them.

/// A Deployment of the app with a claim, as one file of a repository. Its comments and its order are somebody's work.
#[must_use]
pub fn deployment(namespace: &str, version: &str) -> String {
    format!(
        r#"# The app {namespace}: its comments and its order are somebody's work.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: notes
  namespace: {namespace}
spec:
  strategy: {{type: Recreate}}
  selector:
    matchLabels: {{app: notes}}
  template:
    metadata:
      labels: {{app: notes}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: notes
          image: "{repository}:{version}"  # the version
          ports: [{{containerPort: 8080}}]
          env:
            - {{name: DATA_DIR, value: /data}}
          readinessProbe:
            httpGet: {{path: /healthz, port: 8080}}
            periodSeconds: 1
          volumeMounts:
            - {{name: data, mountPath: /data}}
      volumes:
        - name: data
          persistentVolumeClaim: {{claimName: notes-data}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: notes-data
  namespace: {namespace}
spec:
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 16Mi}}}}
"#,
        repository = crate::IMAGE_REPOSITORY,
    )
}

/// A GitRepository and a Kustomization of that name in `flux-system`, for the branch `main`. `waits` is how long the Kustomization
/// waits for what it has applied to be healthy, and so how long it cannot be suspended when it is not (30 s is the least that
/// kustomize-controller knows); `None`: it does not wait.
#[must_use]
pub fn kustomization(name: &str, url: &str, path: &str, secret: Option<&str>, waits: Option<&str>) -> String {
    let waits = waits.map(|timeout| format!("\n  wait: true\n  timeout: {timeout}")).unwrap_or_default();
    let secret = secret.map(|secret| format!("\n  secretRef: {{name: {secret}}}")).unwrap_or_default();
    format!(
        r"apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {{name: {name}, namespace: flux-system}}
spec:
  interval: 1m
  url: {url}
  ref: {{branch: main}}{secret}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {{name: {name}, namespace: flux-system}}
spec:
  interval: 1m
  path: {path}
  prune: true{waits}
  sourceRef: {{kind: GitRepository, name: {name}}}
"
    )
}
