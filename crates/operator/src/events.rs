//! One event for each change of a step, on the request and on its app.

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use upgrade_core::engine::{Journal, Plan, StepState};

use crate::kinds::Request;
use windlass_api::ManagedApp;

/// Publishes events. A lost event loses nothing: the journal has everything.
#[derive(Clone)]
pub(crate) struct Events {
    recorder: Recorder,
}

impl Events {
    pub(crate) fn new(client: Client, instance: &str) -> Self {
        let reporter = Reporter { controller: "windlass-operator".into(), instance: Some(instance.into()) };
        Self { recorder: Recorder::new(client, reporter) }
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
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.into(),
            note: Some(note.chars().take(1000).collect()),
            action: "Upgrade".into(),
            secondary: None,
        };
        let mut about = vec![request.object_ref(&())];
        about.extend(app.map(|app| app.object_ref(&())));
        for reference in about {
            if let Err(error) = self.recorder.publish(&event, &reference).await {
                tracing::debug!(%error, reason, "an event was not published");
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
                StepState::Leftover => (true, "StepLeftover", format!("{undo}{error}")),
                StepState::Doing | StepState::Undoing => continue,
            };
            self.publish(request, app, warning, reason, &note).await;
        }
    }
}
