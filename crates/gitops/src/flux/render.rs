//! [`Renderer`] for Flux: the files of a Kustomization, read from Git and put together without kustomize, and the chart of a
//! HelmRelease, rendered by Helm (`charts`).

use std::sync::Arc;

use async_trait::async_trait;
use kube::Client;
use serde_json::Value;
use upgrade_core::Failure;
use upgrade_core::app::facts::fetches;
use upgrade_core::ports::{AppRef, GitManager, ObjectRef, Piece, PinValue, Rendered, Renderer, Rendering, Repository};
use windlass_api::foreign::Kustomization;
use windlass_helm::ChartTemplates;

use super::kustomize::{Stop, Tree, build, is_harmless_patch, pieces, resolve};
use super::live::{HELM, Live, Objects, SOURCE};
use super::{chain, pins};

/// How many folders of a repository are read for one object.
const MAX_FOLDERS: usize = 32;

/// Renders what Flux would apply.
#[derive(Clone)]
pub struct FluxRenderer {
    pub(super) objects: Objects,
    pub(super) git: Arc<dyn GitManager>,
    pub(super) charts: Arc<dyn ChartTemplates>,
}

impl FluxRenderer {
    /// Reads Flux's objects through `client` and files through `git`, and renders charts by `charts`.
    #[must_use]
    pub fn new(client: Client, git: Arc<dyn GitManager>, charts: Arc<dyn ChartTemplates>) -> Self {
        Self { objects: Objects { client }, git, charts }
    }

    async fn pieces(
        &self,
        app: &AppRef,
        live: &Live,
        kustomization: &Kustomization,
        at: &[(Repository, String)],
        changes: &[PinValue],
    ) -> Result<Result<Vec<Piece>, String>, Failure> {
        let spec = &kustomization.spec;
        let source = chain::source_object(&spec.source_ref, &live.object.namespace);
        if source.kind != "GitRepository" {
            return Ok(Err(format!("it takes its files from {source}, not from Git")));
        }
        let fetched = match self.objects.find(&source).await? {
            Some(source) if source.object.group == SOURCE => Some(chain::source_facts(&source)?),
            _ => None,
        };
        let is_fetched = |one: &Repository| fetched.as_ref().is_some_and(|source| fetches(source, one));
        let Some((repository, commit)) = at.iter().find(|(repository, _)| is_fetched(repository)) else {
            return Ok(Err(format!("no repository of the app is the one that {source} reads")));
        };
        if let Err(why) = is_knowable(live) {
            return Ok(Err(why));
        }
        let Some(folder) = resolve("", spec.path.as_deref().unwrap_or_default()) else {
            return Ok(Err("spec.path leads out of the repository".into()));
        };
        let mut tree = Tree::default();
        for _ in 0..MAX_FOLDERS {
            let (at, namespace) = (folder.clone(), spec.target_namespace.clone());
            let substitutes = spec.post_build.is_some();
            // Files of any size that somebody wrote: not on a thread that others wait for.
            let building = tokio::task::spawn_blocking(move || {
                let built = build(&tree, &at).and_then(|objects| pieces(&objects, namespace.as_deref(), substitutes));
                (tree, built)
            });
            let Ok((read, built)) = building.await else {
                return Ok(Err("putting its files together was interrupted".into()));
            };
            tree = read;
            match built {
                Ok(pieces) => return Ok(Ok(pieces)),
                Err(Stop::Unknown(why)) => return Ok(Err(why)),
                Err(Stop::Needs(folder)) => match self.git.files(app, repository, commit, &folder, changes).await {
                    Ok(files) => {
                        tree.files.extend(files);
                        tree.read.insert(folder);
                    }
                    Err(failure) if failure.retryable => return Err(failure),
                    Err(failure) => return Ok(Err(failure.message)),
                },
            }
        }
        Ok(Err(format!("it is put together from more than {MAX_FOLDERS} folders")))
    }
}

/// Whether the object itself adds nothing that could change names or volumes.
fn is_knowable(live: &Live) -> Result<(), String> {
    for field in ["components", "namePrefix", "nameSuffix"] {
        let value = live.json.pointer("/spec").and_then(|spec| spec.get(field));
        if value.is_some_and(|value| value.as_array().is_none_or(|items| !items.is_empty())) {
            return Err(format!("{} has spec.{field}", live.object));
        }
    }
    let patches = live.json.pointer("/spec/patches").and_then(Value::as_array).into_iter().flatten();
    for patch in patches {
        let text = patch.get("patch").and_then(Value::as_str).unwrap_or("$patch");
        if !is_harmless_patch(text) {
            return Err(format!("{} has spec.patches that may change names or volumes", live.object));
        }
    }
    Ok(())
}

#[async_trait]
impl Renderer for FluxRenderer {
    async fn render(
        &self,
        app: &AppRef,
        object: &ObjectRef,
        at: &[(Repository, String)],
        changes: &[PinValue],
    ) -> Result<Rendering, Failure> {
        if object.group == HELM {
            return self.release(app, object, at, changes).await;
        }
        let live = self.objects.get(object).await?;
        let kustomization: Kustomization = live.typed()?;
        let inventory = kustomization.status.as_ref().and_then(|status| status.inventory.as_ref());
        if inventory.is_none() {
            let rendered = Rendered::Unknown("it does not say yet what it has applied".to_owned());
            return Ok(Rendering { of: object.clone(), delivered: Vec::new(), rendered });
        }
        let delivered = pins::entries(inventory).into_iter().map(|(object, _)| object).collect();
        let rendered = match self.pieces(app, &live, &kustomization, at, changes).await? {
            Ok(pieces) => Rendered::Pieces(pieces),
            Err(why) => Rendered::Unknown(why),
        };
        Ok(Rendering { of: object.clone(), delivered, rendered })
    }
}
