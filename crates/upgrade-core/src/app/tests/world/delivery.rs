//! The delivery port, over the model: what the chain, the carriers and the release of the app look like.

use async_trait::async_trait;

use super::super::builders::{bootstrapped, deployment, kustomization};
use super::flux::{Source, bootstrap};
use super::{State, World};
use crate::Failure;
use crate::ports::{
    AppRef, Applied, Carrier, CarrierKind, Delivery, DeliveryFacts, DeliveryObject, DeliveryRole, Hold, ObjectRef,
    PinValue, Readiness, SourceFacts, Suspension, TemplateMatch,
};

impl State {
    fn delivery_facts(&self) -> DeliveryFacts {
        let objects = self.objects.iter().enumerate().map(|(at, one)| DeliveryObject {
            object: one.object.clone(),
            uid: one.uid.clone(),
            role: one.role,
            own: at == 1,
            parent: if at == 1 { Some(kustomization("root")) } else { self.setup.bootstrap.then(|| bootstrap().1) },
            source: (one.role == DeliveryRole::Manifests).then(Source::object),
            suspend: one.suspend,
            suspend_declared: at == 1 && self.setup.declares_suspend,
            held_by: one.held_by.clone(),
            held_as_found: one.hold_as_found,
            readiness: Readiness::Ready,
            live: Vec::new(),
            refusals: Vec::new(),
            warnings: Vec::new(),
        });
        let source = SourceFacts {
            object: Source::object(),
            uid: "uid-of-source".into(),
            url: "https://git.test/team/apps".into(),
            branch: Some("main".into()),
            verifies: false,
            suspend: None,
            commit: Some(self.source.artifact.clone()),
            readiness: Readiness::Ready,
        };
        let facts = DeliveryFacts { objects: objects.collect(), sources: vec![source] };
        if self.setup.bootstrap { bootstrapped(facts) } else { facts }
    }

    fn carriers(&self, sources: &[ObjectRef], pins: &[PinValue]) -> Vec<Carrier> {
        let artifacts = sources.iter().map(|source| Carrier {
            kind: CarrierKind::Artifact,
            object: source.clone(),
            component: String::new(),
            shows: Some(if *source == bootstrap().0 { bootstrap().2 } else { self.source.artifact.clone() }),
        });
        let (object, shows) = if self.setup.release || self.setup.substitutes {
            (self.objects[1].object.clone(), self.objects[1].spec.clone())
        } else {
            (deployment(), self.deployment.version.clone())
        };
        let live = pins.iter().map(|pin| Carrier {
            kind: CarrierKind::LiveSpec,
            object: object.clone(),
            component: pin.pin.component.clone(),
            shows: Some(shows.clone()),
        });
        artifacts.chain(live).collect()
    }

    fn applied(&self, pins: &[PinValue], contains: &[String]) -> Applied {
        let own = &self.objects[1];
        let wanted = &pins[0].value;
        let has_ours = |commit: &String| contains.contains(commit);
        let carried = if own.role == DeliveryRole::Release { &self.objects[0] } else { own };
        let missing = if own.suspend == Some(true) {
            "it is suspended"
        } else if !own.has_answered() {
            "it has not answered"
        } else if !has_ours(&self.source.artifact) || !has_ours(&carried.attempted) || !has_ours(&carried.applied) {
            "our commit is not applied"
        } else if own.role == DeliveryRole::Release && own.applied != *wanted || self.deployment.version != *wanted {
            "the release is another"
        } else {
            return Applied::Done { evidence: format!("applied {}", own.applied), neighbours: Vec::new() };
        };
        Applied::Pending(missing.into())
    }
}

#[async_trait]
impl Delivery for World {
    async fn inspect(&self, _: &AppRef, _: &[ObjectRef]) -> Result<DeliveryFacts, Failure> {
        self.call("delivery.inspect", |state| Ok(state.delivery_facts())).await
    }

    async fn suspend(&self, object: &ObjectRef, uid: &str, hold: &Hold) -> Result<(), Failure> {
        self.call("delivery.suspend", |state| state.object(object)?.suspend(uid, hold)).await
    }

    async fn set_stage(&self, object: &ObjectRef, _: &str, operation: &str, stage: &str) -> Result<(), Failure> {
        self.call("delivery.set_stage", |state| state.object(object)?.set_stage(operation, stage)).await
    }

    async fn suspension(&self, object: &ObjectRef) -> Result<Option<Suspension>, Failure> {
        self.call("delivery.suspension", |state| {
            if *object == Source::object() {
                return Ok(Some(state.source.suspension()));
            }
            Ok(Some(state.object(object)?.suspension()))
        })
        .await
    }

    async fn resume(
        &self,
        object: &ObjectRef,
        _: &str,
        operation: &str,
        as_found: Option<bool>,
        token: &str,
    ) -> Result<(), Failure> {
        self.call("delivery.resume", |state| {
            if state.objects[1].object == *object {
                state.note_release(operation);
            }
            state.object(object)?.resume(operation, as_found, token)
        })
        .await
    }

    async fn poke(&self, object: &ObjectRef, token: &str) -> Result<(), Failure> {
        self.call("delivery.poke", |state| state.poke(object, token)).await
    }

    async fn carriers(
        &self,
        _: &AppRef,
        _: &[ObjectRef],
        sources: &[ObjectRef],
        pins: &[PinValue],
    ) -> Result<Vec<Carrier>, Failure> {
        self.call("delivery.carriers", |state| Ok(state.carriers(sources, pins))).await
    }

    async fn attempted(&self, object: &ObjectRef) -> Result<Option<String>, Failure> {
        self.call("delivery.attempted", |state| {
            if state.setup.bootstrap && *object == bootstrap().1 {
                return Ok(Some(bootstrap().2));
            }
            Ok(Some(state.object(object)?.attempted.clone()))
        })
        .await
    }

    async fn freeze(&self, _: &ObjectRef, _: &str, frozen: bool) -> Result<(), Failure> {
        self.call("delivery.freeze", |state| {
            // A change of a Deployment's annotations makes a new generation of it.
            state.deployment.revision += u64::from(state.deployment.frozen != frozen);
            state.deployment.frozen = frozen;
            Ok(())
        })
        .await
    }

    async fn is_frozen(&self, _: &ObjectRef) -> Result<bool, Failure> {
        self.call("delivery.is_frozen", |state| Ok(state.deployment.frozen)).await
    }

    async fn template(
        &self,
        _: &[ObjectRef],
        workload: &ObjectRef,
        _: &[PinValue],
        pins: &[PinValue],
        asked: &str,
    ) -> Result<TemplateMatch, Failure> {
        self.call("delivery.template", |state| {
            let now = state.workload_state(workload);
            let keeps_suspended = state.cron.as_ref().is_some_and(|cron| cron.is_declared);
            // What is substituted is proven by an answer only.
            let own = &state.objects[1];
            let is_proven = !state.setup.substitutes || own.spec == pins[0].value && own.has_handled(asked);
            Ok(if state.deployment.version == pins[0].value && is_proven {
                TemplateMatch::Target {
                    resource_version: now.resource_version,
                    replicas: now.replicas,
                    keeps_suspended,
                }
            } else {
                TemplateMatch::Not(state.deployment.version.clone())
            })
        })
        .await
    }

    async fn applied(
        &self,
        _: &AppRef,
        _: &[ObjectRef],
        pins: &[PinValue],
        contains: &[String],
    ) -> Result<Applied, Failure> {
        self.call("delivery.applied", |state| Ok(state.applied(pins, contains))).await
    }
}
