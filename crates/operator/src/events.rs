//! One event for each change of a step, on the request and on its app.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::{Api, Client, Resource};
use sha2::{Digest as _, Sha256};
use upgrade_core::engine::{Journal, Plan, StepState};
use upgrade_core::ports::Clock;
use windlass_api::call::post_params;

use crate::kinds::Request;
use windlass_api::ManagedApp;

/// Publishes events. A lost event loses nothing: the journal has everything. An event that is published again, as after a crash,
/// has the same name and is refused by the server as a duplicate.
#[derive(Clone)]
pub(crate) struct Events {
    client: Client,
    instance: String,
    clock: Arc<dyn Clock>,
}

impl Events {
    pub(crate) fn new(client: Client, instance: &str, clock: Arc<dyn Clock>) -> Self {
        Self { client, instance: instance.into(), clock }
    }

    /// Publishes one event about both.
    pub(crate) async fn publish<K: Request>(
        &self,
        request: &K,
        app: Option<&ManagedApp>,
        warning: bool,
        reason: &str,
        note: &str,
    ) {
        let operation = request.meta().uid.clone().unwrap_or_default();
        let mut about = vec![request.object_ref(&())];
        about.extend(app.map(|app| app.object_ref(&())));
        for reference in about {
            let namespace = reference.namespace.clone().unwrap_or_default();
            let event = Event {
                metadata: ObjectMeta {
                    name: Some(name(&reference, &[&operation, reason, note])),
                    namespace: Some(namespace.clone()),
                    ..ObjectMeta::default()
                },
                event_time: Some(MicroTime(self.clock.now())),
                type_: Some(if warning { "Warning" } else { "Normal" }.into()),
                reason: Some(reason.into()),
                note: Some(note.chars().take(1000).collect()),
                action: Some("Upgrade".into()),
                reporting_controller: Some("windlass-operator".into()),
                reporting_instance: Some(self.instance.chars().take(128).collect()),
                regarding: Some(reference),
                ..Event::default()
            };
            let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
            match api.create(&post_params(), &event).await {
                Err(error) if !matches!(&error, kube::Error::Api(status) if status.code == 409) => {
                    tracing::debug!(%error, reason, "an event was not published");
                }
                _ => {}
            }
        }
    }

    /// Publishes what has changed between two journals of one plan.
    pub(crate) async fn publish_changes<K: Request>(
        &self,
        request: &K,
        app: Option<&ManagedApp>,
        plan: &Plan,
        before: &Journal,
        after: &Journal,
    ) {
        for entry in &after.entries {
            let earlier = before.entry(&entry.step).map(|entry| entry.state);
            if earlier == Some(entry.state) {
                continue;
            }
            let Some((_, step)) = plan.step(&entry.step) else { continue };
            let undo = step.undo.clone().unwrap_or_default();
            let error = entry.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            let (warning, reason, note) = match entry.state {
                StepState::Done => (false, "StepDone", step.title.clone()),
                StepState::Failed => (true, "StepFailed", format!("{}{error}", step.title)),
                StepState::Undone => (false, "StepUndone", undo),
                StepState::Leftover | StepState::Kept => (true, "StepLeftover", format!("{undo}{error}")),
                StepState::Doing | StepState::Undoing => continue,
            };
            self.publish(request, app, warning, reason, &note).await;
        }
    }
}

/// The object's name, and a hash of what makes this event itself and no other.
fn name(reference: &ObjectReference, content: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in content.iter().copied().chain([reference.uid.as_deref().unwrap_or_default()]) {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let digest: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let head: String = reference.name.as_deref().unwrap_or_default().chars().take(200).collect();
    format!("{head}.{digest}")
}
