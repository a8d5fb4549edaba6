//! [`Delivery`] for Flux: HelmReleases, Kustomizations and the Git sources above them.
//!
//! What to write and what a status means is decided by pure functions on objects as read (`hold`, `chain`, `applied`,
//! `release`, `template`, `pins`); here is only the reading and writing. Every read goes to the API server, because
//! what is decided on it may be destructive.

mod applied;
mod chain;
mod charts;
mod error;
#[cfg(test)]
mod fixtures;
mod hold;
mod inspect;
mod kustomize;
mod live;
mod pins;
mod plain;
mod release;
mod render;
mod revision;
#[cfg(test)]
mod sim_tests;
mod storage;
mod template;

use std::collections::BTreeSet;

use async_trait::async_trait;
use kube::Client;
use serde_json::json;
use upgrade_core::Failure;
use upgrade_core::ports::{
    AppRef, Applied, Carrier, CarrierKind, Delivery, DeliveryFacts, Hold, ObjectRef, PinValue, Suspension,
    TemplateMatch,
};
use upgrade_core::version::or_no_version;
use windlass_api::call::FIELD_MANAGER;
use windlass_api::foreign::{HelmRelease, KEPT_BY_US, Kustomization, RECONCILE, SourceReference};

use applied::{ManifestsReading, PinReading, Reading, ReleaseReading};
pub use error::FluxError;
pub use hold::HELD_BY;
use live::{HELM, KUSTOMIZE, Live, Objects, REQUESTED_AT, SOURCE};
use pins::{Own, Place};
pub use render::FluxRenderer;

/// How the delivery behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FluxOptions {
    /// Namespaces other than the app's own whose delivery objects may be used. Anybody who may create a `ManagedApp` could
    /// otherwise have us suspend objects of others.
    pub namespaces: BTreeSet<String>,
}

impl Default for FluxOptions {
    /// Allows `flux-system`, where the Kustomizations above an app usually are.
    fn default() -> Self {
        Self { namespaces: BTreeSet::from(["flux-system".to_owned()]) }
    }
}

/// What the pins carried, and what they shall carry.
#[derive(Clone, Copy)]
struct Changes<'p> {
    from: &'p [PinValue],
    to: &'p [PinValue],
}

/// Delivery through Flux.
///
/// Needs the rights to get and patch HelmReleases, Kustomizations and GitRepositories, to get HelmCharts and the workloads
/// (and to patch those for [`Delivery::freeze`]), and to get and list Secrets where Helm stores releases.
#[derive(Clone)]
pub struct FluxDelivery {
    objects: Objects,
    options: FluxOptions,
}

impl FluxDelivery {
    /// A delivery that speaks through `client`.
    #[must_use]
    pub fn new(client: Client, options: FluxOptions) -> Self {
        Self { objects: Objects { client }, options }
    }

    /// The own objects as read, with what they apply. One that is gone is an error: nothing can be said about the app.
    async fn own(&self, own: &[ObjectRef]) -> Result<Vec<(Live, Own)>, FluxError> {
        let mut found = Vec::with_capacity(own.len());
        for object in own {
            let live = self.objects.get(object).await?;
            let applies = match object.group.as_str() {
                KUSTOMIZE => {
                    let status = live.typed::<Kustomization>()?.status.unwrap_or_default();
                    pins::entries(status.inventory.as_ref())
                }
                HELM => Vec::new(),
                _ => {
                    let why = "only HelmReleases and Kustomizations of Flux deliver apps".to_owned();
                    return Err(FluxError::Unsupported { object: object.to_string(), why });
                }
            };
            found.push((live, Own { object: object.clone(), applies }));
        }
        Ok(found)
    }

    /// Where every pin shows now, in the order of the pins; a pin of a kustomization file may show in several workloads.
    async fn show(&self, app: &AppRef, own: &[(Live, Own)], pins: &[PinValue]) -> Result<Vec<PinReading>, FluxError> {
        let owned: Vec<Own> = own.iter().map(|(_, owned)| owned.clone()).collect();
        let mut found = Vec::new();
        for PinValue { pin, value } in pins {
            let mut add = |object: &ObjectRef, shows: Option<String>| {
                let (component, wanted) = (pin.component.clone(), value.clone());
                found.push(PinReading { component, object: object.clone(), wanted, shows });
            };
            match pins::place(pin, &owned) {
                Place::Field { object, version, path, .. } => {
                    let read = own.iter().find(|(live, _)| live.object == object).map(|(live, _)| live.clone());
                    let live = match read {
                        Some(live) => Some(live),
                        None if pins::may_be_read(&object, app) => self.objects.find_any(&object, &version).await?,
                        None => None,
                    };
                    let value = live.as_ref().and_then(|live| pins::lookup(&live.json, &path));
                    add(&object, value.and_then(|value| pins::shown(value, pin.part)));
                }
                Place::Images { workloads, image, through } => {
                    let mut is_anywhere = false;
                    for workload in &workloads {
                        // What the same file brings into other namespaces belongs to neighbours.
                        if !pins::may_be_read(workload, app) {
                            continue;
                        }
                        let Some(live) = self.objects.find(workload).await? else { continue };
                        if let Some(shows) = pins::image_shown(&live, &image, pin.part, &pin.field) {
                            is_anywhere = true;
                            add(workload, shows);
                        }
                    }
                    if !is_anywhere {
                        add(&through, None);
                    }
                }
                Place::Nowhere => {
                    let (kind, name) = pin.object.split_once('/').unwrap_or(("", &pin.object));
                    add(&ObjectRef::new("", kind, &app.namespace, name), None);
                }
            }
        }
        Ok(found)
    }

    async fn do_template(
        &self,
        own: &[ObjectRef],
        workload: &ObjectRef,
        pins: Changes<'_>,
        asked: &str,
    ) -> Result<TemplateMatch, FluxError> {
        let pointer = pins::template_pointer(workload).ok_or_else(|| FluxError::Unsupported {
            object: workload.to_string(),
            why: "it has no pod template that we know".to_owned(),
        })?;
        let Some(live) = self.objects.find(workload).await? else {
            return Ok(TemplateMatch::Not(format!("{workload} does not exist")));
        };
        let named = [live.labelled(HELM, "HelmRelease"), live.labelled(KUSTOMIZE, "Kustomization")];
        let deliverer = named.into_iter().flatten().find(|object| own.contains(object));
        let deliverer = deliverer.ok_or_else(|| FluxError::NotDelivered { workload: workload.to_string() })?;
        let verdict = if deliverer.group == HELM {
            self.release_template(&deliverer, &live, pointer, pins.to).await?
        } else {
            // What it says about more than the pins is nowhere stored; who owns a field tells.
            self.manifests_template(own, &deliverer, &live, pins, asked).await?.map(|()| false)
        };
        let is_anybodys = chain::owners(&live, "suspend").any(|(manager, _)| manager != FIELD_MANAGER);
        Ok(match verdict {
            Ok(is_declared) => TemplateMatch::Target {
                keeps_suspended: live.suspend() == Some(true) && (is_declared || is_anybodys),
                resource_version: live.resource_version().to_owned(),
                replicas: live.json.pointer("/spec/replicas").and_then(serde_json::Value::as_i64).map_or(0, saturate),
            },
            Err(difference) => TemplateMatch::Not(difference),
        })
    }

    /// Whether the release's manifest suspends the workload, where its template is the wanted one.
    async fn release_template(
        &self,
        deliverer: &ObjectRef,
        workload: &Live,
        pointer: &str,
        pins: &[PinValue],
    ) -> Result<Result<bool, String>, FluxError> {
        let live = self.objects.get(deliverer).await?;
        let release: HelmRelease = live.typed()?;
        let Some(stored) = storage::newest(&self.objects.client, deliverer, &release).await? else {
            return Ok(Err(format!("Helm has no release of {deliverer}")));
        };
        Ok(release::is_asked_for(&stored, &live, &release, pins)
            .and_then(|()| release::has_template(&stored, workload, pointer))
            .map(|()| release::suspends(&stored, workload)))
    }

    /// Plain manifests are nowhere stored as rendered: the pins of the workload must show. Where none of them changes, what they
    /// show was there before, and its Kustomization must have applied what there is since it was asked.
    async fn manifests_template(
        &self,
        own: &[ObjectRef],
        deliverer: &ObjectRef,
        workload: &Live,
        pins: Changes<'_>,
        asked: &str,
    ) -> Result<Result<(), String>, FluxError> {
        if chain::is_frozen(workload) {
            return Ok(Err(format!("{} is kept from being applied", workload.object)));
        }
        let own = self.own(own).await?;
        let owned: Vec<Own> = own.iter().map(|(_, owned)| owned.clone()).collect();
        let kustomization = own.iter().map(|(live, _)| live).find(|live| live.object == *deliverer);
        let Some(kustomization) = kustomization else {
            return Err(FluxError::NotDelivered { workload: workload.object.to_string() });
        };
        let mut is_proven = false;
        for wanted in pins.to {
            let PinValue { pin, value } = wanted;
            let shown_in =
                |live: &Live, path| pins::lookup(&live.json, path).and_then(|found| pins::shown(found, pin.part));
            let (shows, is_its_own) = match pins::place(pin, &owned) {
                Place::Field { object, path, .. } if object == workload.object => (shown_in(workload, &path), true),
                // What is substituted or patched in stands in the Kustomization, and in the workload only when that is applied.
                Place::Field { object, path, .. } if object == *deliverer => (shown_in(kustomization, &path), false),
                Place::Images { workloads, image, .. } if workloads.contains(&workload.object) => {
                    match pins::image_shown(workload, &image, pin.part, &pin.field) {
                        Some(shows) => (shows, true),
                        None => continue,
                    }
                }
                _ => continue,
            };
            if shows.as_ref() != Some(value) {
                let object = if is_its_own { &workload.object } else { deliverer };
                let shows = shows.as_deref().map_or("nothing that can be read", or_no_version);
                return Ok(Err(format!("{object} shows {shows} for {}, not {value}", pin.component)));
            }
            is_proven |= is_its_own && pins.from.iter().any(|before| before.pin == *pin && before.value != *value);
        }
        if is_proven {
            return Ok(Ok(()));
        }
        let typed: Kustomization = kustomization.typed()?;
        let source = self.git_source(&typed.spec.source_ref, &deliverer.namespace).await?;
        let fetched = source.map(|live| live.text("/status/artifact/revision").to_owned());
        Ok(plain::has_applied(deliverer, &typed, fetched.as_deref(), asked))
    }

    async fn git_source(&self, reference: &SourceReference, namespace: &str) -> Result<Option<Live>, FluxError> {
        if reference.kind != "GitRepository" {
            return Ok(None);
        }
        self.objects.find(&chain::source_object(reference, namespace)).await
    }

    async fn manifests_reading(&self, live: &Live, own: bool, carries: bool) -> Result<ManifestsReading, FluxError> {
        let kustomization: Kustomization = live.typed()?;
        let source = self.git_source(&kustomization.spec.source_ref, &live.object.namespace).await?;
        let source = source.map(|live| live.typed()).transpose()?;
        Ok(ManifestsReading { object: live.object.clone(), kustomization, source, own, carries })
    }

    async fn release_reading(&self, live: &Live, pins: &[PinValue]) -> Result<ReleaseReading, FluxError> {
        let release: HelmRelease = live.typed()?;
        let named = release.status.as_ref().and_then(|status| status.helm_chart.as_deref());
        let chart = match named.and_then(|named| named.split_once('/')) {
            Some((namespace, name)) => self.objects.find(&ObjectRef::new(SOURCE, "HelmChart", namespace, name)).await?,
            None => None,
        };
        Ok(ReleaseReading {
            object: live.object.clone(),
            chart: chart.map(|chart| chart.typed()).transpose()?,
            chart_version: release::wanted_chart_version(&live.object, &release, pins),
            release,
        })
    }

    async fn do_applied(
        &self,
        app: &AppRef,
        own: &[ObjectRef],
        pins: &[PinValue],
        contains: &[String],
    ) -> Result<Applied, FluxError> {
        let own = self.own(own).await?;
        let owned: Vec<Own> = own.iter().map(|(_, owned)| owned.clone()).collect();
        let places: Vec<Place> = pins.iter().map(|pin| pins::place(&pin.pin, &owned)).collect();
        let mut reading = Reading { pins: self.show(app, &own, pins).await?, ..Reading::default() };
        let mut parents: Vec<ObjectRef> = Vec::new();
        for (live, owned) in &own {
            let carries = places.iter().any(|place| place.through() == Some(&owned.object));
            if live.object.group == KUSTOMIZE {
                reading.manifests.push(self.manifests_reading(live, true, carries).await?);
                continue;
            }
            reading.releases.push(self.release_reading(live, pins).await?);
            if !carries {
                continue;
            }
            match chain::parent(live) {
                Some(parent) => parents.push(parent),
                None => return Ok(Applied::Pending(format!("nothing applies {} from Git", live.object))),
            }
        }
        for parent in parents {
            if let Some(known) = reading.manifests.iter_mut().find(|known| known.object == parent) {
                known.carries = true;
                continue;
            }
            let Some(live) = self.objects.find(&parent).await? else {
                return Ok(Applied::Pending(format!("{parent} does not exist")));
            };
            reading.manifests.push(self.manifests_reading(&live, false, true).await?);
        }
        Ok(applied::applied(&reading, contains))
    }
}

fn saturate(replicas: i64) -> i32 {
    i32::try_from(replicas).unwrap_or(i32::MAX)
}

#[async_trait]
impl Delivery for FluxDelivery {
    async fn inspect(&self, app: &AppRef, own: &[ObjectRef]) -> Result<DeliveryFacts, Failure> {
        Ok(self.do_inspect(app, own).await?)
    }

    async fn suspend(&self, object: &ObjectRef, uid: &str, hold: &Hold) -> Result<(), Failure> {
        Ok(self.objects.edit(object, uid, |live| hold::suspend(live, hold)).await?)
    }

    async fn set_stage(&self, object: &ObjectRef, uid: &str, operation: &str, stage: &str) -> Result<(), Failure> {
        Ok(self.objects.edit(object, uid, |live| hold::set_stage(live, operation, stage)).await?)
    }

    async fn suspension(&self, object: &ObjectRef) -> Result<Option<Suspension>, Failure> {
        Ok(self.objects.find(object).await?.as_ref().map(hold::suspension))
    }

    async fn resume(
        &self,
        object: &ObjectRef,
        uid: &str,
        operation: &str,
        as_found: Option<bool>,
        token: &str,
    ) -> Result<(), Failure> {
        Ok(self.objects.edit(object, uid, |live| hold::resume(live, operation, as_found, token)).await?)
    }

    async fn poke(&self, object: &ObjectRef, token: &str) -> Result<(), Failure> {
        let live = self.objects.get(object).await?;
        if plain::is_asked(&live, token) {
            return Ok(());
        }
        // Right whatever the object is by now.
        let patch = json!({ "metadata": { "annotations": { REQUESTED_AT: token } } });
        Ok(self.objects.merge(object, &patch).await?)
    }

    async fn carriers(
        &self,
        app: &AppRef,
        own: &[ObjectRef],
        sources: &[ObjectRef],
        pins: &[PinValue],
    ) -> Result<Vec<Carrier>, Failure> {
        let mut carriers = Vec::new();
        for source in sources {
            let live = self.objects.find(source).await?;
            let shows = live.and_then(|live| revision::commit(live.text("/status/artifact/revision")));
            carriers.push(Carrier {
                kind: CarrierKind::Artifact,
                object: source.clone(),
                component: String::new(),
                shows,
            });
        }
        let own = self.own(own).await?;
        let shown = self.show(app, &own, pins).await?;
        carriers.extend(shown.into_iter().map(|PinReading { component, object, shows, .. }| Carrier {
            kind: CarrierKind::LiveSpec,
            object,
            component,
            shows,
        }));
        Ok(carriers)
    }

    async fn attempted(&self, object: &ObjectRef) -> Result<Option<String>, Failure> {
        let live = self.objects.get(object).await?;
        Ok(revision::commit(live.text("/status/lastAttemptedRevision")))
    }

    async fn freeze(&self, workload: &ObjectRef, uid: &str, frozen: bool) -> Result<(), Failure> {
        let decide = |live: &Live| {
            let others = chain::kept_by_others(live).filter(|_| frozen);
            if let Some(mark) = others {
                return Err(FluxError::KeptByOthers { object: workload.to_string(), mark });
            }
            let (value, ours) = (frozen.then_some(chain::DISABLED), frozen.then_some("true"));
            let is_ours = live.annotation(KEPT_BY_US).is_some();
            let is_there = if frozen { is_ours && chain::is_frozen(live) } else { !is_ours };
            Ok((!is_there).then(|| json!({ "metadata": { "annotations": { RECONCILE: value, KEPT_BY_US: ours } } })))
        };
        Ok(self.objects.edit(workload, uid, decide).await?)
    }

    async fn is_frozen(&self, workload: &ObjectRef) -> Result<bool, Failure> {
        let live = self.objects.get(workload).await?;
        Ok(live.annotation(KEPT_BY_US).is_some() && chain::is_frozen(&live))
    }

    async fn template(
        &self,
        own: &[ObjectRef],
        workload: &ObjectRef,
        from: &[PinValue],
        to: &[PinValue],
        asked: &str,
    ) -> Result<TemplateMatch, Failure> {
        Ok(self.do_template(own, workload, Changes { from, to }, asked).await?)
    }

    async fn applied(
        &self,
        app: &AppRef,
        own: &[ObjectRef],
        pins: &[PinValue],
        contains: &[String],
    ) -> Result<Applied, Failure> {
        Ok(self.do_applied(app, own, pins, contains).await?)
    }
}
