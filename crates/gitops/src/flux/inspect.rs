//! Reads the chain above an app's own objects, and the sources beside it.

use upgrade_core::Coded;
use upgrade_core::ports::{AppRef, DeliveryFacts, DeliveryObject, ObjectRef, SourceFacts};
use windlass_api::foreign::{HelmRelease, Kustomization};

use super::error::FluxError;
use super::live::{HELM, Live};
use super::{FluxDelivery, chain, release, storage};

impl FluxDelivery {
    /// The chain above `own`, roots first, and the Git sources of all of it.
    pub(super) async fn do_inspect(&self, app: &AppRef, own: &[ObjectRef]) -> Result<DeliveryFacts, FluxError> {
        // Who may make an app would read with our rights what they may not read themselves.
        for named in own {
            self.must_be_allowed(app, named, "is in", &named.namespace)?;
        }
        let mut objects: Vec<DeliveryObject> = Vec::new();
        for named in own {
            let mut path: Vec<ObjectRef> = Vec::new();
            let mut next = Some(named.clone());
            // Up to the root; what another own object has led to is there already.
            while let Some(at) = next {
                if path.contains(&at) {
                    return Err(FluxError::Cycle { object: named.to_string(), again: at.to_string() });
                }
                let known = objects.iter().find(|known| known.object == at).map(|known| known.parent.clone());
                next = match known {
                    Some(parent) => parent,
                    None => {
                        let facts = self.look_at(app, &at, own.contains(&at)).await?;
                        let parent = facts.parent.clone();
                        objects.push(facts);
                        parent
                    }
                };
                path.push(at);
            }
        }
        let sources = self.look_at_sources(&mut objects).await?;
        Ok(DeliveryFacts { objects: roots_first(objects), sources })
    }

    fn is_allowed(&self, app: &AppRef, namespace: &str) -> bool {
        namespace == app.namespace || self.options.namespaces.contains(namespace)
    }

    fn must_be_allowed(
        &self,
        app: &AppRef,
        object: &ObjectRef,
        what: &'static str,
        namespace: &str,
    ) -> Result<(), FluxError> {
        if self.is_allowed(app, namespace) {
            return Ok(());
        }
        let (namespace, app) = (namespace.to_owned(), app.namespace.clone());
        Err(FluxError::NotAllowed { object: object.to_string(), what, namespace, app })
    }

    /// One object of the chain. A parent that does not exist is a refusal and no parent.
    async fn look_at(&self, app: &AppRef, object: &ObjectRef, own: bool) -> Result<DeliveryObject, FluxError> {
        let live = self.objects.get(object).await?;
        let mut facts = chain::facts(&live, own)?;
        let namespace = &object.namespace;
        if !self.is_allowed(app, namespace) {
            let why = format!("is in namespace {namespace}, which is not allowed for apps of {}", app.namespace);
            facts.refusals.push(("namespace-not-allowed".to_owned(), why));
        }
        if object.group == HELM {
            self.look_into_storage(app, &mut facts, &live).await?;
        }
        self.look_at_chart_source(&mut facts).await?;
        let parent = match &facts.parent {
            Some(parent) => self.objects.find(parent).await?,
            None => None,
        };
        let parent = parent.map(|live| live.typed::<Kustomization>()).transpose()?;
        facts.refusals.extend(chain::parent_refusals(&facts, parent.as_ref()));
        if parent.is_none() {
            facts.parent = None;
        }
        Ok(facts)
    }

    /// Where a release takes its chart from: suspended or gone, the target's chart would never come.
    async fn look_at_chart_source(&self, facts: &mut DeliveryObject) -> Result<(), FluxError> {
        let Some(source) = facts.source.as_ref().filter(|source| source.kind == "HelmRepository") else {
            return Ok(());
        };
        match self.objects.find(source).await? {
            Some(live) if live.suspend() == Some(true) => {
                let why = format!("takes its chart from {source}, which was suspended by somebody else");
                facts.refusals.push(("suspended-by-others".to_owned(), why));
            }
            Some(_) => {}
            None => {
                let why = format!("takes its chart from {source}, which does not exist");
                facts.refusals.push(("source-missing".to_owned(), why));
            }
        }
        Ok(())
    }

    async fn look_at_sources(&self, objects: &mut [DeliveryObject]) -> Result<Vec<SourceFacts>, FluxError> {
        let mut sources: Vec<SourceFacts> = Vec::new();
        for facts in objects {
            let Some(source) = facts.source.clone().filter(|source| source.kind == "GitRepository") else { continue };
            if sources.iter().any(|known| known.object == source) {
                continue;
            }
            match self.objects.find(&source).await? {
                Some(live) => sources.push(chain::source_facts(&live)?),
                None => {
                    let why = format!("takes content from {source}, which does not exist");
                    facts.refusals.push(("source-missing".to_owned(), why));
                }
            }
        }
        Ok(sources)
    }

    /// What is to be said about the newest stored release of a HelmRelease.
    async fn look_into_storage(&self, app: &AppRef, facts: &mut DeliveryObject, live: &Live) -> Result<(), FluxError> {
        let release: HelmRelease = live.typed()?;
        if let Some((namespace, _)) = release::storage(&live.object, &release) {
            self.must_be_allowed(app, &live.object, "stores its releases in", &namespace)?;
        }
        match storage::newest(&self.objects.client, &live.object, &release).await {
            Ok(Some(stored)) => {
                let hooks = release::hooks_before(&stored);
                if !hooks.is_empty() {
                    let hooks = hooks.join(", ");
                    facts
                        .warnings
                        .push(format!("has hooks that run before an upgrade, while the app may be stopped: {hooks}"));
                }
            }
            Ok(None) => {
                let why = "Helm has no release of it yet".to_owned();
                facts.refusals.push(("not-installed".to_owned(), why));
            }
            // Preflight tells everything that is wrong at once.
            Err(error) if !error.is_retryable() => {
                facts.refusals.push((error.code().to_owned(), error.to_string()));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn roots_first(objects: Vec<DeliveryObject>) -> Vec<DeliveryObject> {
    let parents: Vec<(ObjectRef, Option<ObjectRef>)> =
        objects.iter().map(|facts| (facts.object.clone(), facts.parent.clone())).collect();
    let parent_of =
        |at: &ObjectRef| parents.iter().find(|(object, _)| object == at).and_then(|(_, parent)| parent.as_ref());
    let mut objects = objects;
    // Stable, so that objects of one depth stay in the order in which the app names them.
    objects.sort_by_cached_key(|facts| std::iter::successors(facts.parent.as_ref(), |at| parent_of(at)).count());
    objects
}
