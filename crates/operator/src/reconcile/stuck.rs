//! A request whose record cannot be continued here: said where people and tools look, not in the log alone.

use std::time::Duration;

use kube::runtime::controller::Action;
use serde_json::json;
use upgrade_core::engine::EngineError;
use upgrade_core::{Coded as _, Failure};

use super::{ReconcileError, Turn};
use crate::conditions::{self, Said};
use crate::kinds::Request;
use crate::metrics::Code;

/// How often it is looked whether the record can be continued after all: another version of the operator may have repaired it.
const PAUSE: Duration = Duration::from_secs(30);

/// Whether trying again changes nothing.
fn is_final(error: &ReconcileError) -> bool {
    match error {
        ReconcileError::Failed(failure) => !failure.retryable,
        ReconcileError::Engine(EngineError::GuardLost(_)) => false,
        ReconcileError::Engine(error) => !error.is_retryable(),
    }
}

fn hint(error: &ReconcileError) -> String {
    match error {
        ReconcileError::Failed(failure) => failure.hint.clone(),
        ReconcileError::Engine(error) => error.hint(),
    }
}

impl<K: Request> Turn<'_, K> {
    /// What is done about an error of the record or the engine. The operation stays as it is: suspended, scaled, and the app's.
    pub(super) async fn stuck(&self, error: ReconcileError) -> Result<Action, ReconcileError> {
        if !is_final(&error) || self.is_over() {
            return Err(error);
        }
        if self.let_go.is_some() {
            // There is nothing to be read and nothing to be put right in a namespace that goes.
            self.drop_finalizer().await?;
            return Ok(Action::await_change());
        }
        let hint = hint(&error);
        let message = format!(
            "{error} ({}). It is not continued: what it suspended and scaled stays as it is. {hint}",
            error.code()
        );
        self.context.metrics.errors.get_or_create(&Code { code: error.code().into() }).inc();
        let known = self.request.status().and_then(|status| status.message.as_deref());
        if known != Some(message.as_str()) {
            tracing::error!(kind = K::KIND.as_str(), name = self.me().name, code = error.code(), %error, "stuck");
            self.say_stuck(&message).await?;
        }
        Ok(Action::requeue(PAUSE))
    }

    async fn say_stuck(&self, message: &str) -> Result<(), Failure> {
        let generation = self.request.meta().generation;
        let said = Said { reason: "Stuck", message, generation, now: self.context.clock.now() };
        let conditions = conditions::stalled(&self.conditions(), said);
        if let Some(app) = self.app_ref().filter(|_| !self.request.is_dry_run()) {
            self.context.apps.set_ready(&app, false, "OperationStuck", message).await?;
        }
        self.context.events.publish(&*self.request, self.app.as_ref(), true, "Stuck", message).await;
        // Last: by the message it is known that all of this was said.
        let fields = json!({
            "phase": "Stuck", "message": message, "conditions": conditions, "observedGeneration": generation,
        });
        self.patch_status(fields).await
    }

    fn is_over(&self) -> bool {
        self.request.status().is_some_and(|status| status.outcome.is_some())
    }
}
