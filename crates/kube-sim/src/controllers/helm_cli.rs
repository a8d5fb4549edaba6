//! [`HelmBackend`] over the real helm binary (version 4).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize as _;
use serde_json::Value;
use tokio::process::Command;

use super::helm_backend::{HelmBackend, ReleaseRequest};

const PLUGIN: &str = "origin-labels";
/// What Helm may need beyond its own timeout before it counts as hung.
const SLACK: Duration = Duration::from_secs(30);

/// Runs the helm binary, one process per action; a dropped action kills it.
#[derive(Debug, Clone)]
pub struct HelmCli {
    command: Vec<String>,
    kubeconfig: PathBuf,
    work: PathBuf,
}

impl HelmCli {
    /// `command` is helm, or a program that runs helm, with its first arguments. A dropped action kills it; that helm also
    /// ends when this process is killed is for the command to see to.
    ///
    /// `labeller` is a command that calls [`HelmCli::add_labels`] on its standard input with the `key=value` arguments it
    /// is given: Helm takes post-renderers only as plugins, which are programs. `work` is a folder for temporary files.
    ///
    /// # Errors
    /// When the plugin cannot be written below `work`.
    pub fn new(command: Vec<String>, kubeconfig: PathBuf, work: PathBuf, labeller: &[String]) -> std::io::Result<Self> {
        let plugin = work.join("plugins").join(PLUGIN);
        fs::create_dir_all(&plugin)?;
        fs::create_dir_all(work.join("actions"))?;
        let (labeller, args) = labeller.split_first().ok_or_else(|| std::io::Error::other("no labeller command"))?;
        let descriptor = serde_json::json!({
            "apiVersion": "v1", "type": "postrenderer/v1", "name": PLUGIN, "version": "0.1.0", "runtime": "subprocess",
            "runtimeConfig": { "platformCommand": [{ "command": labeller, "args": args }] },
        });
        // JSON is YAML.
        fs::write(plugin.join("plugin.yaml"), descriptor.to_string())?;
        Ok(Self { command, kubeconfig, work })
    }

    /// Adds labels to the metadata of every object in a stream of YAML documents.
    ///
    /// # Errors
    /// A sentence, when a document is not YAML.
    pub fn add_labels(manifests: &str, labels: &BTreeMap<String, String>) -> Result<String, String> {
        let mut out = String::new();
        for document in serde_yaml_ng::Deserializer::from_str(manifests) {
            let mut object = Value::deserialize(document).map_err(|error| format!("rendered manifest: {error}"))?;
            let Some(root) = object.as_object_mut() else { continue };
            let metadata = root.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
            if let Some(metadata) = metadata.as_object_mut() {
                let present = metadata.entry("labels").or_insert(Value::Null);
                if present.is_null() {
                    *present = Value::Object(serde_json::Map::new());
                }
                if let Some(present) = present.as_object_mut() {
                    present.extend(labels.iter().map(|(key, value)| (key.clone(), Value::from(value.clone()))));
                }
            }
            // As JSON: no string can be taken for something else by an older YAML parser.
            out.push_str(&format!("---\n{object}\n"));
        }
        Ok(out)
    }

    async fn run(&self, args: &[String], timeout: Duration) -> Result<(), String> {
        let (program, first) = self.command.split_first().ok_or_else(|| "no helm command".to_owned())?;
        let running = Command::new(program)
            .args(first)
            .args(args)
            .arg("--timeout")
            .arg(format!("{}ms", timeout.as_millis()))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HELM_PLUGINS", self.work.join("plugins"))
            .env("HELM_CACHE_HOME", self.work.join("cache"))
            .env("HELM_CONFIG_HOME", self.work.join("config"))
            .env("HELM_DATA_HOME", self.work.join("data"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(timeout + SLACK, running)
            .await
            .map_err(|_| format!("helm did not end within {:?}", timeout + SLACK))?
            .map_err(|error| format!("running {program}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        // Its log comes first.
        Err(said.rsplit_once("Error: ").map_or(&*said, |(_, error)| error).trim().to_owned())
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[async_trait]
impl HelmBackend for HelmCli {
    async fn release(&self, request: &ReleaseRequest) -> Result<(), String> {
        let action = self.work.join("actions").join(format!("{}.{}", request.namespace, request.name));
        fs::create_dir_all(&action).map_err(|error| error.to_string())?;
        let (chart, values) = (action.join("chart.tgz"), action.join("values.json"));
        let written = fs::write(&chart, &request.chart).and_then(|()| fs::write(&values, request.values.to_string()));
        written.map_err(|error| format!("{}: {error}", action.display()))?;
        let mut args: Vec<String> =
            ["upgrade", "--install", &request.name, &text(&chart), "--namespace", &request.namespace, "--values"]
                .map(str::to_owned)
                .into();
        args.extend([text(&values), "--history-max".to_owned(), request.max_history.to_string()]);
        args.extend(["--force-conflicts", "--post-renderer", PLUGIN].map(str::to_owned));
        for (key, value) in &request.labels {
            args.extend(["--post-renderer-args".to_owned(), format!("{key}={value}")]);
        }
        let wait = if request.wait { "--wait=watcher" } else { "--wait=hookOnly" };
        args.push(wait.to_owned());
        if !request.hooks {
            args.push("--no-hooks".to_owned());
        }
        if request.create_namespace {
            args.push("--create-namespace".to_owned());
        }
        self.run(&args, request.timeout).await
    }

    async fn rollback(&self, name: &str, namespace: &str, version: i64, timeout: Duration) -> Result<(), String> {
        let version = version.to_string();
        let args = ["rollback", name, &version, "--namespace", namespace, "--wait=watcher", "--force-conflicts"];
        self.run(&args.map(str::to_owned), timeout).await
    }

    async fn uninstall(
        &self,
        name: &str,
        namespace: &str,
        keep_history: bool,
        timeout: Duration,
    ) -> Result<(), String> {
        let mut args = ["uninstall", name, "--namespace", namespace, "--ignore-not-found"].map(str::to_owned).to_vec();
        if keep_history {
            args.push("--keep-history".to_owned());
        }
        self.run(&args, timeout).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_gets_the_labels_and_keeps_the_rest() {
        let manifests =
            "---\n# Source: a.yaml\nkind: A\nmetadata:\n  name: a\n  labels: {x: 'yes'}\n---\n---\nkind: B\n";
        let labels = BTreeMap::from([("o/name".to_owned(), "n".to_owned())]);
        assert_eq!(
            HelmCli::add_labels(manifests, &labels).unwrap(),
            "---\n{\"kind\":\"A\",\"metadata\":{\"name\":\"a\",\"labels\":{\"x\":\"yes\",\"o/name\":\"n\"}}}\n\
             ---\n{\"kind\":\"B\",\"metadata\":{\"labels\":{\"o/name\":\"n\"}}}\n"
        );
    }
}
