//! Small changes that people make in passing, each of which can be taken back.

use std::time::Duration;

use anyhow::{Context, ensure};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, ResourceExt};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::estate::OPERATOR_USER;
use crate::fixture::App;
use crate::world::{World, wait};

/// An object of an app.
#[derive(Debug, Clone, Copy)]
pub(super) enum On {
    Kustomization,
    GitRepository,
    HelmRelease,
    ManagedApp,
    StatefulSet,
    Claim,
}

/// What somebody does. In texts, `$app` stands for the app's name, `$driver` and `$handle` for its first volume.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// A merge patch.
    Patch(On, Value),
    /// A merge patch of the status.
    Status(On, Value),
    /// Fields of the spec are applied, as if they stood in Git.
    Declare(On, Value),
    /// One value of the spec, also inside of a list; `$other` is the URL of another repository.
    Set(On, &'static str, &'static str),
    /// Objects are made.
    Make(&'static str),
    /// Objects are made and deleted, and somebody's finalizer holds them.
    Doom(&'static str),
    /// The first text is replaced by the second in the app's file, and pushed.
    Push(&'static str, &'static str),
    /// The operator loses a right.
    TakeRight { group: &'static str, resource: &'static str, verb: &'static str },
    /// Another operator's object becomes the controller of the app's first claim.
    Adopt,
    /// Nothing but patience: until the condition Ready has this status, for the newest spec.
    Until(On, &'static str),
}

/// How a change is taken back.
pub(super) enum Undo {
    Patch(On, Value),
    Status(On, Value),
    Withdraw(On),
    Delete(String),
    Release(String),
    Push(String),
    Rights(Value, Change),
    Disown(String),
    Nothing,
}

/// A repository that no source reads.
pub(super) const OTHER: &str = "j07other";

const ROLE: &str = "windlass-operator";

impl World {
    async fn on(&self, app: &App, on: On) -> anyhow::Result<(Api<DynamicObject>, String)> {
        let (own, flux) = (app.name.as_str(), "flux-system");
        let (group, version, kind, namespace, name) = match on {
            On::Kustomization => ("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", flux, own),
            On::GitRepository => ("source.toolkit.fluxcd.io", "v1", "GitRepository", flux, own),
            On::HelmRelease => ("helm.toolkit.fluxcd.io", "v2", "HelmRelease", own, "notes"),
            On::ManagedApp => (windlass_api::GROUP, windlass_api::VERSION, "ManagedApp", own, "notes"),
            On::StatefulSet => ("apps", "v1", "StatefulSet", own, "notes"),
            On::Claim => ("", "v1", "PersistentVolumeClaim", own, app.claims[0].as_str()),
        };
        Ok((self.dynamic(group, version, kind, namespace).await?, name.to_owned()))
    }

    /// The object as it is now; `Null` when it is not there.
    pub(super) async fn look(&self, app: &App, on: On) -> anyhow::Result<Value> {
        let (api, name) = self.on(app, on).await?;
        Ok(serde_json::to_value(api.get_opt(&name).await?)?)
    }

    async fn patch(&self, app: &App, on: On, patch: &Value) -> anyhow::Result<()> {
        let (api, name) = self.on(app, on).await?;
        let params = PatchParams { field_manager: Some("a-person".into()), ..PatchParams::default() };
        api.patch(&name, &params, &Patch::Merge(patch)).await.with_context(|| format!("changing {on:?}"))?;
        Ok(())
    }

    async fn patch_status(&self, app: &App, on: On, patch: &Value) -> anyhow::Result<()> {
        let (api, name) = self.on(app, on).await?;
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Applies this spec and nothing else; what was applied before and is not in it goes.
    async fn declare(&self, app: &App, on: On, spec: Option<&Value>) -> anyhow::Result<()> {
        let (api, name) = self.on(app, on).await?;
        let found = api.get(&name).await?;
        let mut object = json!({"apiVersion": found.types.as_ref().map(|types| &types.api_version),
            "kind": found.types.as_ref().map(|types| &types.kind), "metadata": {"name": name}});
        if let Some(spec) = spec {
            object["spec"] = spec.clone();
        }
        let params = PatchParams::apply("what-git-says").force();
        api.patch(&name, &params, &Patch::Apply(object)).await.with_context(|| format!("declaring {on:?}"))?;
        Ok(())
    }

    /// Waits until the condition Ready has this status, for the newest spec.
    pub(super) async fn until(&self, app: &App, on: On, ready: &str) -> anyhow::Result<()> {
        wait(&format!("Ready={ready} of {on:?} of {}", app.name), Duration::from_secs(60), || async {
            let object = self.look(app, on).await?;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            Ok(conditions.iter().any(|one| {
                one["type"] == "Ready"
                    && one["status"] == ready
                    && one["observedGeneration"] == object["metadata"]["generation"]
            }))
        })
        .await
    }

    /// Makes a change; says how to take it back.
    pub(super) async fn make(&self, app: &App, change: &Change) -> anyhow::Result<Undo> {
        match change {
            Change::Patch(on, patch) => {
                let undo = Undo::Patch(*on, reverse(patch, &self.look(app, *on).await?));
                self.patch(app, *on, patch).await?;
                Ok(undo)
            }
            Change::Status(on, patch) => {
                let undo = Undo::Status(*on, reverse(patch, &self.look(app, *on).await?));
                self.patch_status(app, *on, patch).await?;
                Ok(undo)
            }
            Change::Declare(on, spec) => {
                self.declare(app, *on, Some(spec)).await?;
                Ok(Undo::Withdraw(*on))
            }
            Change::Set(on, pointer, value) => {
                let before = self.look(app, *on).await?;
                let mut after = before.clone();
                let other = self.estate.repository(OTHER).await?.url;
                let (parent, key) = pointer.rsplit_once('/').context("not a pointer")?;
                after.pointer_mut(parent).with_context(|| format!("no {parent}"))?[key] =
                    value.replace("$other", &other).into();
                self.patch(app, *on, &json!({"spec": after["spec"]})).await?;
                Ok(Undo::Patch(*on, json!({"spec": before["spec"]})))
            }
            Change::Doom(yaml) => {
                let yaml = yaml.replace("$app", &app.name);
                self.apply(&yaml).await?;
                for (api, name) in self.described(&yaml).await? {
                    api.delete(&name, &DeleteParams::background()).await?;
                }
                Ok(Undo::Release(yaml))
            }
            Change::Make(yaml) => {
                let volume = self.volume_of(&app.name, &app.claims[0]).await?;
                let csi = volume.spec.and_then(|spec| spec.csi).context("no CSI volume")?;
                let yaml = yaml.replace("$app", &app.name).replace("$driver", &csi.driver);
                let yaml = yaml.replace("$handle", &csi.volume_handle);
                self.apply(&yaml).await?;
                Ok(Undo::Delete(yaml))
            }
            Change::Push(from, to) => {
                let text = app.repo.read(&app.path)?;
                let changed = text.replacen(from, to, 1);
                ensure!(changed != text, "{from:?} is not in {}", app.path);
                app.repo.push(&[(app.path.clone(), changed)], "Change something in passing")?;
                Ok(Undo::Push(text))
            }
            Change::TakeRight { group, resource, verb } => {
                let roles = self.roles();
                let mut role = serde_json::to_value(roles.get(ROLE).await?)?;
                let rules = role["rules"].take();
                let mut fewer = rules.clone();
                for rule in fewer.as_array_mut().into_iter().flatten() {
                    if rule["apiGroups"] == json!([group]) && rule["resources"] == json!([resource]) {
                        rule["verbs"].as_array_mut().context("no verbs")?.retain(|one| one != verb);
                    }
                }
                ensure!(fewer != rules, "nobody has the right to {verb} {resource}");
                self.set_rules(&fewer).await?;
                self.wait_right(change, &app.name, false).await?;
                Ok(Undo::Rights(rules, change.clone()))
            }
            Change::Adopt => {
                let yaml =
                    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: database, namespace: {}}}\n", app.name);
                self.apply(&yaml).await?;
                let owner = self.dynamic("", "v1", "ConfigMap", &app.name).await?.get("database").await?;
                let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "database", "uid": owner.uid(), "controller": true});
                self.patch(app, On::Claim, &json!({"metadata": {"ownerReferences": [owner]}})).await?;
                Ok(Undo::Disown(yaml))
            }
            Change::Until(on, ready) => {
                self.until(app, *on, ready).await?;
                Ok(Undo::Nothing)
            }
        }
    }

    /// Takes it back.
    pub(super) async fn take_back(&self, app: &App, undo: Undo) -> anyhow::Result<()> {
        match undo {
            Undo::Patch(on, patch) => self.patch(app, on, &patch).await,
            Undo::Status(on, patch) => self.patch_status(app, on, &patch).await,
            Undo::Withdraw(on) => self.declare(app, on, None).await,
            Undo::Delete(yaml) => self.delete(&yaml).await,
            Undo::Release(yaml) => {
                for (api, name) in self.described(&yaml).await? {
                    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                    api.patch(&name, &PatchParams::default(), &patch).await?;
                    self.gone(&api, &name).await?;
                }
                Ok(())
            }
            Undo::Push(text) => app.repo.push(&[(app.path.clone(), text)], "Take it back"),
            Undo::Rights(rules, change) => {
                self.set_rules(&rules).await?;
                self.wait_right(&change, &app.name, true).await
            }
            Undo::Disown(owner) => {
                // First the claim: whose owner is gone goes with it.
                self.patch(app, On::Claim, &json!({"metadata": {"ownerReferences": null}})).await?;
                self.delete(&owner).await
            }
            Undo::Nothing => Ok(()),
        }
    }

    /// Deletes what `yaml` describes, the last first, and waits until it is gone.
    async fn delete(&self, yaml: &str) -> anyhow::Result<()> {
        for (api, name) in self.described(yaml).await?.into_iter().rev() {
            api.delete(&name, &DeleteParams::background()).await?;
            self.gone(&api, &name).await?;
        }
        Ok(())
    }

    async fn gone(&self, api: &Api<DynamicObject>, name: &str) -> anyhow::Result<()> {
        wait(&format!("{} to be gone", api.resource_url()), Duration::from_secs(60), || async {
            Ok(api.get_opt(name).await?.is_none())
        })
        .await
    }

    /// Where the objects are that `yaml` describes.
    async fn described(&self, yaml: &str) -> anyhow::Result<Vec<(Api<DynamicObject>, String)>> {
        let mut found = Vec::new();
        for document in serde_yaml_ng::Deserializer::from_str(yaml) {
            let object = DynamicObject::deserialize(document)?;
            let types = object.types.clone().context("an object has no kind")?;
            let (resource, capabilities) = pinned_kind(&self.client, &GroupVersionKind::try_from(&types)?).await?;
            let api: Api<DynamicObject> = match capabilities.scope {
                Scope::Cluster => Api::all_with(self.client.clone(), &resource),
                Scope::Namespaced => {
                    let namespace = object.namespace().context("an object has no namespace")?;
                    Api::namespaced_with(self.client.clone(), &namespace, &resource)
                }
            };
            found.push((api, object.name_any()));
        }
        Ok(found)
    }

    fn roles(&self) -> Api<k8s_openapi::api::rbac::v1::ClusterRole> {
        Api::all(self.client.clone())
    }

    async fn set_rules(&self, rules: &Value) -> anyhow::Result<()> {
        self.roles().patch(ROLE, &PatchParams::default(), &Patch::Merge(json!({"rules": rules}))).await?;
        Ok(())
    }

    /// Waits until the API server judges by the changed role.
    async fn wait_right(&self, change: &Change, namespace: &str, granted: bool) -> anyhow::Result<()> {
        let Change::TakeRight { group, resource, verb } = change else { return Ok(()) };
        let review = json!({"spec": {
            "user": OPERATOR_USER,
            "resourceAttributes": {"group": group, "resource": resource, "verb": verb, "namespace": namespace},
        }});
        let review: k8s_openapi::api::authorization::v1::SubjectAccessReview = serde_json::from_value(review)?;
        let api: Api<k8s_openapi::api::authorization::v1::SubjectAccessReview> = Api::all(self.client.clone());
        wait("the changed rights", Duration::from_secs(60), || async {
            let answer = api.create(&PostParams::default(), &review).await?;
            Ok(answer.status.is_some_and(|status| status.allowed) == granted)
        })
        .await
    }
}

/// The merge patch that takes `patch` back, for an object that was `before`.
fn reverse(patch: &Value, before: &Value) -> Value {
    match (patch, before) {
        (Value::Object(fields), Value::Object(had)) => {
            let back =
                fields.iter().map(|(key, value)| (key.clone(), reverse(value, had.get(key).unwrap_or(&Value::Null))));
            Value::Object(back.collect::<Map<_, _>>())
        }
        (_, before) => before.clone(),
    }
}
