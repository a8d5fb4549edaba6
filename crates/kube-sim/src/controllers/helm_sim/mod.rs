//! [`HelmBackend`] without the helm binary: renders simple charts, applies them and keeps Helm's records, all in process.
//!
//! It does what Helm 4 does as a library of helm-controller: server-side apply that takes over the fields of others, a
//! record that is pending before anything happens, the previous release staying `deployed` when the next one fails. Charts
//! that use more than it knows are refused with file and line, never rendered wrong.

mod chart;
mod template;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::chart::{Rendered, annotation};
use super::helm_backend::{HelmBackend, ReleaseRequest};
use super::helm_storage::{self, StoredRelease};
use super::kstatus::{self, Status, Wait};
use super::objects::{Cluster, Manifest, ObjectId, manifests};
use super::{Clock, Error};

/// Field manager of everything that is applied.
const MANAGER: &str = "helm";
/// Between two looks at what is waited for.
const INTERVAL: Duration = Duration::from_secs(2);

/// Changes releases in process.
pub struct HelmSim {
    cluster: Cluster,
    clock: Clock,
}

/// One action on one release, from the new record on.
struct Action {
    /// `install`, `upgrade` or `rollback`.
    verb: &'static str,
    record: StoredRelease,
    /// The record whose objects are there now.
    current: Option<StoredRelease>,
    timeout: Duration,
    wait: bool,
    hooks: bool,
    done: String,
}

impl HelmSim {
    /// A backend that uses `client` for records and objects alike, and takes the times in records from `clock`.
    #[must_use]
    pub fn new(client: Client, clock: Clock) -> Self {
        Self { cluster: Cluster::new(client), clock }
    }

    /// The objects that a packed chart makes of values, without hooks: what an upgrade would put into the release's manifest.
    ///
    /// # Errors
    /// A sentence: what is wrong with the chart, or what of it is not known.
    pub fn template(name: &str, namespace: &str, chart: Vec<u8>, values: &Value) -> Result<String, String> {
        let request = ReleaseRequest {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            chart: chart.into(),
            values: values.clone(),
            timeout: Duration::ZERO,
            wait: false,
            hooks: false,
            create_namespace: false,
            max_history: 0,
            labels: BTreeMap::new(),
        };
        Ok(chart::render(&request)?.manifest)
    }

    fn client(&self) -> &Client {
        &self.cluster.client
    }

    async fn records(&self, namespace: &str, name: &str) -> Result<Vec<StoredRelease>, String> {
        let records = helm_storage::list(self.client(), namespace, name).await.map_err(text)?;
        if records.last().is_some_and(StoredRelease::is_pending) {
            return Err("another operation (install/upgrade/rollback) is in progress".to_owned());
        }
        Ok(records)
    }

    /// Carries out an action. Its record is pending until it has ended.
    async fn carry_out(&self, mut action: Action, records: &[StoredRelease], keep: u32) -> Result<(), String> {
        let namespace = action.record.namespace();
        self.trim(&namespace, records, keep).await?;
        helm_storage::create(self.client(), &namespace, &action.record, (self.clock)()).await.map_err(text)?;
        if let Err(why) = self.change_objects(&action).await {
            let title = capitalised(action.verb);
            action.record.set_info("description", format!("{title} \"{}\" failed: {why}", action.record.name()));
            action.record.set_info("status", "failed");
            if action.verb == "rollback" {
                self.supersede(&namespace, action.current.iter()).await?;
            }
            helm_storage::update(self.client(), &namespace, &action.record).await.map_err(text)?;
            return Err(why);
        }
        let replaced = |record: &&StoredRelease| {
            record.status() == "deployed" || (action.verb == "install" && record.status() == "uninstalled")
        };
        self.supersede(&namespace, records.iter().filter(replaced)).await?;
        action.record.set_info("description", action.done.clone());
        action.record.set_info("status", "deployed");
        helm_storage::update(self.client(), &namespace, &action.record).await.map_err(text)
    }

    async fn supersede(&self, namespace: &str, records: impl Iterator<Item = &StoredRelease>) -> Result<(), String> {
        for record in records {
            let mut record = record.clone();
            record.set_info("status", "superseded");
            helm_storage::update(self.client(), namespace, &record).await.map_err(text)?;
        }
        Ok(())
    }

    /// Removes the oldest records, so that with a new one there are no more than `keep`; never the deployed one.
    async fn trim(&self, namespace: &str, records: &[StoredRelease], keep: u32) -> Result<(), String> {
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        let mut surplus = if keep == 0 { 0 } else { (records.len() + 1).saturating_sub(keep) };
        let deployed = deployed(records).map(StoredRelease::version);
        for record in records.iter().filter(|record| Some(record.version()) != deployed) {
            if surplus == 0 {
                break;
            }
            helm_storage::remove(self.client(), namespace, record).await.map_err(text)?;
            surplus -= 1;
        }
        Ok(())
    }

    async fn change_objects(&self, action: &Action) -> Result<(), String> {
        let Action { verb, record, timeout, .. } = action;
        let wanted = self.objects_of(record).await?;
        if action.hooks {
            self.run_hooks(record, &format!("pre-{verb}"), *timeout).await?;
        }
        for object in &wanted {
            self.apply(record, object).await?;
        }
        let before = match &action.current {
            Some(current) => self.objects_of(current).await?,
            None => Vec::new(),
        };
        let is_gone = |object: &&Manifest| !wanted.iter().any(|wanted| wanted.id == object.id);
        for object in before.iter().rev().filter(is_gone) {
            self.delete(object).await?;
        }
        if action.wait {
            let objects: Vec<_> = wanted.iter().map(|object| (object.id.clone(), object.version.clone())).collect();
            let how = Wait { interval: INTERVAL, timeout: *timeout, zero_is_done: true };
            kstatus::wait(&self.cluster, &self.clock, &objects, how).await?;
        }
        if action.hooks {
            self.run_hooks(record, &format!("post-{verb}"), *timeout).await?;
        }
        Ok(())
    }

    /// The objects of a record, each in its namespace.
    async fn objects_of(&self, record: &StoredRelease) -> Result<Vec<Manifest>, String> {
        let mut objects = manifests(&record.manifest())?;
        for object in &mut objects {
            self.place(object, &record.namespace()).await?;
        }
        Ok(objects)
    }

    async fn place(&self, object: &mut Manifest, namespace: &str) -> Result<(), String> {
        match self.cluster.is_namespaced(&object.gvk()).await.map_err(|error| error.to_string())? {
            Some(false) => object.set_namespace(None),
            Some(true) if object.id.namespace.is_empty() => object.set_namespace(Some(namespace)),
            Some(true) => {}
            None => {
                let (kind, version) = (&object.id.kind, &object.version);
                return Err(format!("resource mapping not found for kind \"{kind}\" in version \"{version}\""));
            }
        }
        Ok(())
    }

    async fn apply(&self, record: &StoredRelease, object: &Manifest) -> Result<(), String> {
        let mut object = object.clone();
        if let Some(labels) = object.metadata_map("labels") {
            labels.insert("app.kubernetes.io/managed-by".to_owned(), "Helm".into());
        }
        if let Some(annotations) = object.metadata_map("annotations") {
            annotations.insert("meta.helm.sh/release-name".to_owned(), record.name().into());
            annotations.insert("meta.helm.sh/release-namespace".to_owned(), record.namespace().into());
        }
        let api = self.api(&object.id, &object.version).await?;
        let params = PatchParams::apply(MANAGER).force();
        let applied = api.patch(&object.id.name, &params, &Patch::Apply(&object.body)).await;
        applied.map(drop).map_err(|error| format!("{} apply failed: {error}", object.id))
    }

    async fn api(&self, id: &ObjectId, version: &str) -> Result<Api<kube::api::DynamicObject>, String> {
        let gvk = kube::core::GroupVersionKind::gvk(&id.group, version, &id.kind);
        let api = self.cluster.api(&gvk, &id.namespace).await.map_err(|error| error.to_string())?;
        api.ok_or_else(|| format!("no matches for kind \"{}\" in version \"{version}\"", id.kind))
    }

    /// Deletes an object, unless it is marked to be kept. One that is gone is no error.
    async fn delete(&self, object: &Manifest) -> Result<(), String> {
        if annotation(object, "helm.sh/resource-policy") == Some("keep") {
            return Ok(());
        }
        let api = self.api(&object.id, &object.version).await?;
        match api.delete(&object.id.name, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(drop).map_err(|error| format!("failed to delete {}: {error}", object.id)),
        }
    }

    async fn wait_until_gone(&self, object: &Manifest, deadline: Instant) -> Result<(), String> {
        loop {
            let (status, _) = kstatus::look(&self.cluster, &self.clock, &object.id, &object.version).await;
            if status == Status::NotFound {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("timeout waiting for: [{} status: '{status}']", object.id));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Runs the hooks of a moment one after the other, and waits for those that are Jobs.
    async fn run_hooks(&self, record: &StoredRelease, event: &str, timeout: Duration) -> Result<(), String> {
        let hooks = record.body().get("hooks").and_then(Value::as_array).cloned().unwrap_or_default();
        let has = |hook: &Value, field: &str, wanted: &str| {
            let list = hook.get(field).and_then(Value::as_array);
            list.is_some_and(|list| list.iter().any(|one| one == wanted))
        };
        let text = |hook: &Value, field: &str| hook.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut due: Vec<&Value> = hooks.iter().filter(|hook| has(hook, "events", event)).collect();
        due.sort_by_key(|hook| {
            (hook.get("weight").and_then(Value::as_i64).unwrap_or(0), text(hook, "kind"), text(hook, "name"))
        });
        let mut ran = Vec::new();
        for hook in due {
            let deadline = Instant::now() + timeout;
            let mut object = Manifest::new(serde_json::from_str(&text(hook, "manifest")).map_err(|e| e.to_string())?)?;
            self.place(&mut object, &record.namespace()).await?;
            if has(hook, "delete_policies", "before-hook-creation") {
                self.delete(&object).await?;
                self.wait_until_gone(&object, deadline).await?;
            }
            self.apply(record, &object).await?;
            let is_job = (object.id.group.as_str(), object.id.kind.as_str()) == ("batch", "Job");
            let how = Wait { interval: INTERVAL, timeout, zero_is_done: false };
            let target = [(object.id.clone(), object.version.clone())];
            if is_job && let Err(why) = kstatus::wait(&self.cluster, &self.clock, &target, how).await {
                if has(hook, "delete_policies", "hook-failed") {
                    self.delete(&object).await?;
                }
                return Err(format!("{event} hooks failed: 1 error occurred:\n\t* {why}\n\n"));
            }
            if has(hook, "delete_policies", "hook-succeeded") {
                ran.push(object);
            }
        }
        for object in ran {
            self.delete(&object).await?;
        }
        Ok(())
    }

    async fn create_namespace(&self, name: &str) -> Result<(), String> {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([("name".to_owned(), name.to_owned())].into()),
            ..ObjectMeta::default()
        };
        let namespace = Namespace { metadata, ..Namespace::default() };
        match Api::<Namespace>::all(self.client().clone()).create(&PostParams::default(), &namespace).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            result => result.map(drop).map_err(|error| format!("creating the namespace: {error}")),
        }
    }

    fn new_record(
        &self,
        request: &ReleaseRequest,
        rendered: &Rendered,
        records: &[StoredRelease],
        verb: &str,
    ) -> StoredRelease {
        let now = (self.clock)().to_string();
        let is_install = verb == "install";
        let first = if is_install { None } else { records.last().map(|last| last.info("first_deployed")) };
        let description = if is_install { "Initial install underway" } else { "Preparing upgrade" };
        StoredRelease::new(json!({
            "name": request.name, "namespace": request.namespace, "version": next_version(records),
            "info": {
                "first_deployed": first.unwrap_or_else(|| now.clone()), "last_deployed": now, "deleted": "",
                "description": description, "status": format!("pending-{verb}"),
            },
            "chart": rendered.chart, "config": request.values, "manifest": rendered.manifest, "hooks": rendered.hooks,
            "apply_method": "ssa",
        }))
    }
}

#[allow(clippy::needless_pass_by_value, reason = "as `map_err` wants it")]
fn text(error: Error) -> String {
    error.to_string()
}

fn capitalised(verb: &str) -> String {
    let mut letters = verb.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn next_version(records: &[StoredRelease]) -> i64 {
    records.last().map_or(0, StoredRelease::version) + 1
}

fn deployed(records: &[StoredRelease]) -> Option<&StoredRelease> {
    records.iter().rev().find(|record| record.status() == "deployed")
}

#[async_trait]
impl HelmBackend for HelmSim {
    async fn release(&self, request: &ReleaseRequest) -> Result<(), String> {
        let ReleaseRequest { name, namespace, timeout, wait, hooks, .. } = request;
        let records = self.records(namespace, name).await?;
        let last = records.last();
        let verb = if last.is_none_or(|last| last.status() == "uninstalled") { "install" } else { "upgrade" };
        let rendered = chart::render(request)?;
        if verb == "install" && request.create_namespace {
            self.create_namespace(namespace).await?;
        }
        let record = self.new_record(request, &rendered, &records, verb);
        // Without a release that ever went well, the failed one is what is there.
        let current = if verb == "install" { None } else { deployed(&records).or(last).cloned() };
        let done = format!("{} complete", capitalised(verb));
        let action = Action { verb, record, current, timeout: *timeout, wait: *wait, hooks: *hooks, done };
        self.carry_out(action, &records, request.max_history).await
    }

    async fn rollback(&self, name: &str, namespace: &str, version: i64, timeout: Duration) -> Result<(), String> {
        let records = self.records(namespace, name).await?;
        let target = records.iter().find(|record| record.version() == version);
        let target = target.ok_or_else(|| format!("release has no {version} version"))?;
        let mut record = target.with_version(next_version(&records));
        let done = format!("Rollback to {version}");
        record.set_info("status", "pending-rollback");
        record.set_info("description", done.clone());
        record.set_info("last_deployed", (self.clock)().to_string());
        let current = records.last().cloned();
        let action = Action { verb: "rollback", record, current, timeout, wait: true, hooks: true, done };
        self.carry_out(action, &records, 0).await
    }

    async fn uninstall(
        &self,
        name: &str,
        namespace: &str,
        keep_history: bool,
        timeout: Duration,
    ) -> Result<(), String> {
        let records = helm_storage::list(self.client(), namespace, name).await.map_err(text)?;
        let Some(last) = records.last() else { return Ok(()) };
        if last.status() != "uninstalled" {
            let mut record = last.clone();
            record.set_info("deleted", (self.clock)().to_string());
            record.set_info("description", "Deletion in progress (or silently failed)");
            record.set_info("status", "uninstalling");
            helm_storage::update(self.client(), namespace, &record).await.map_err(text)?;
            self.run_hooks(&record, "pre-delete", timeout).await?;
            let mut objects = self.objects_of(&record).await?;
            objects.reverse();
            objects.retain(|object| annotation(object, "helm.sh/resource-policy") != Some("keep"));
            for object in &objects {
                self.delete(object).await?;
            }
            let deadline = Instant::now() + timeout;
            for object in &objects {
                self.wait_until_gone(object, deadline).await?;
            }
            self.run_hooks(&record, "post-delete", timeout).await?;
            record.set_info("description", "Uninstallation complete");
            record.set_info("status", "uninstalled");
            helm_storage::update(self.client(), namespace, &record).await.map_err(text)?;
        }
        if !keep_history {
            for record in &records {
                helm_storage::remove(self.client(), namespace, record).await.map_err(text)?;
            }
        }
        Ok(())
    }
}
