//! One request, from its first sight to its end: queue, plan, tick, follow up.

mod ask;
mod finish;
mod handover;
mod start;
mod stuck;

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use upgrade_core::app::AppInputs;
use upgrade_core::app::inherit::{Healing, Operation, healing};
use upgrade_core::engine::{Engine, EngineError, Journal, Plan, Signals, Tick};
use upgrade_core::ports::{ActiveOperation, AppRef};
use upgrade_core::{Coded as _, Failure};
use windlass_api::ManagedApp;
use windlass_api::call::CallError;

use crate::context::{self, Context};
use crate::kinds::Request;
use crate::resolve;
use crate::store::{RequestStore, failed, record};

/// Why a reconcile is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// Something outside did not work.
    #[error("{} ({})", .0.message, .0.code)]
    Failed(#[from] Failure),
    /// The engine could not make its decision.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl ReconcileError {
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Failed(failure) => &failure.code,
            Self::Engine(error) => error.code(),
        }
    }
}

/// Most decisions of one operation before others get their turn.
const DECISIONS_A_TURN: usize = 64;
/// How often a request that waits for others looks again.
pub(crate) const QUEUE_PAUSE: Duration = Duration::from_secs(1);
/// How often an ended operation that has left something looks whether the others are done.
const HEALING_PAUSE: Duration = Duration::from_secs(5);

/// Everything about one request in one reconcile.
pub(crate) struct Turn<'a, K> {
    pub(crate) context: &'a Context,
    pub(crate) request: Arc<K>,
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) app: Option<ManagedApp>,
    /// Set when the namespace is being deleted: nothing can be put right in it any more.
    pub(crate) let_go: Option<String>,
}

/// Reconciles one request. Nothing is decided here about upgrading: the core plans, judges and decides.
pub(crate) async fn reconcile<K: Request>(request: Arc<K>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    if !context.leadership.is_held() || context.stopping.is_cancelled() {
        return Ok(Action::requeue(QUEUE_PAUSE));
    }
    let namespace = request.namespace().unwrap_or_default();
    let subject = &request.subject().name;
    // One decision at a time for each app: a rollback that takes over never meets a step of the upgrade in flight. What is read before
    // one's turn is what the turn before it has changed.
    let Some(_turn) = context.turn(&format!("{namespace}/{subject}")).await else {
        return Ok(Action::requeue(QUEUE_PAUSE));
    };
    // Decisions rest on what the server has, not on what the cache had.
    let api: Api<K> = Api::namespaced(context.client.clone(), &namespace);
    let name = request.name_any();
    let found =
        api.get_opt(&name).await.map_err(CallError::on::<K>("get", &namespace, &name)).map_err(|e| failed(&e))?;
    let Some(found) = found.filter(|found| found.uid() == request.uid()) else { return Ok(Action::await_change()) };
    let apps: Api<ManagedApp> = Api::namespaced(context.client.clone(), &namespace);
    let app = apps.get_opt(subject).await;
    let app = app.map_err(CallError::on::<ManagedApp>("get", &namespace, subject)).map_err(|e| failed(&e))?;
    let uid = found.uid().unwrap_or_default();
    // A namespace that goes has its objects deleted: without that there is nothing to ask.
    let let_go = match found.meta().deletion_timestamp {
        Some(_) => context::let_go(&context.client, &namespace).await?,
        None => None,
    };
    let turn = Turn { context: &context, request: Arc::new(found), uid, namespace, app, let_go };
    turn.take().await
}

impl<K: Request> Turn<'_, K> {
    async fn take(&self) -> Result<Action, ReconcileError> {
        let status = self.request.status().cloned().unwrap_or_default();
        let over = status.outcome.is_some();
        if over && status.leftovers.is_empty() {
            self.drop_finalizer().await?;
            return Ok(Action::await_change());
        }
        let record = match record(&*self.request) {
            Ok(record) => record,
            Err(failure) => return self.stuck(failure.into()).await,
        };
        match record {
            None if over => {
                self.drop_finalizer().await?;
                Ok(Action::await_change())
            }
            None => self.start().await,
            Some((plan, journal)) if over && self.let_go.is_none() => match self.healing(&plan, &journal).await? {
                Healing::Now => self.drive(over).await,
                Healing::Later => Ok(Action::requeue(HEALING_PAUSE)),
                Healing::Never => Ok(Action::await_change()),
            },
            Some((plan, journal)) => {
                if !over
                    && journal.outcome.is_none()
                    && journal.irrevocable(&plan)
                    && let Some(given_way) = self.give_way(&plan, &journal).await?
                {
                    return Ok(given_way);
                }
                self.drive(over).await
            }
        }
    }

    /// Whether what this ended operation had to leave may be undone now.
    async fn healing(&self, plan: &Plan, journal: &Journal) -> Result<Healing, Failure> {
        // One that gave way in the middle of its course has nothing to undo: the rollback has it.
        let Some(inputs) = inputs_of(plan).filter(|_| journal.outcome.is_some()) else { return Ok(Healing::Never) };
        let others = self.others_of_app().await?;
        if others.iter().any(|other| other.is_at_work() && other.operation().is_none()) {
            return Ok(Healing::Later);
        }
        let mine = Operation { plan, journal, inputs: &inputs };
        Ok(healing(&mine, others.iter().filter_map(|other| Some((other.operation()?, other.over)))))
    }

    async fn drive(&self, over: bool) -> Result<Action, ReconcileError> {
        let store = RequestStore::new(self.context.client.clone(), &*self.request);
        let engine = Engine {
            store: &store,
            runner: &self.context.runner,
            guard: &*self.context.leadership,
            clock: &*self.context.clock,
        };
        for decision in 0..DECISIONS_A_TURN {
            if self.context.stopping.is_cancelled() {
                return Ok(Action::requeue(QUEUE_PAUSE));
            }
            let signals = Signals { cancel: store.is_cancelled(), let_go: self.let_go.clone() };
            let tick = engine.tick(&self.uid, signals).await;
            if let Some((plan, before, after)) = store.take_change() {
                self.context.metrics.decisions.inc();
                self.context.events.publish_changes(&*self.request, self.app.as_ref(), &plan, &before, &after).await;
            }
            let tick = match tick {
                Ok(tick) => tick,
                Err(error) => return self.stuck(error.into()).await,
            };
            match tick {
                Tick::Progressed => {}
                Tick::Wait(until) => return Ok(self.again_at(until)),
                Tick::Ended(_, Some(until)) if over => return Ok(self.again_at(until)),
                // What is left in a namespace that goes must not keep it from going.
                Tick::Ended(_, None) if over && self.let_go.is_some() => {
                    // The request has been written to in this turn, unless this was its first decision.
                    if decision > 0 {
                        return Ok(Action::requeue(Duration::ZERO));
                    }
                    self.drop_finalizer().await?;
                    return Ok(Action::await_change());
                }
                // Nothing is retried by itself any more: what is left is listed, and a person or a later operation acts.
                Tick::Ended(_, None) if over => return Ok(Action::await_change()),
                Tick::Ended(outcome, next) => {
                    if let Some(later) = self.conclude(&store, &outcome).await? {
                        return Ok(later);
                    }
                    return Ok(next.map_or_else(|| Action::requeue(Duration::ZERO), |until| self.again_at(until)));
                }
            }
        }
        Ok(Action::requeue(Duration::ZERO))
    }

    fn again_at(&self, until: jiff::Timestamp) -> Action {
        let pause = until.duration_since(self.context.clock.now());
        Action::requeue(pause.try_into().unwrap_or_default())
    }

    pub(crate) fn me(&self) -> ActiveOperation {
        ActiveOperation { kind: K::KIND.as_str().into(), name: self.request.name_any(), uid: self.uid.clone() }
    }

    pub(crate) fn app_ref(&self) -> Option<AppRef> {
        self.app.as_ref().map(resolve::app_ref)
    }
}

/// The app's inputs in a plan of ours; `None` in any other.
pub(crate) fn inputs_of(plan: &Plan) -> Option<AppInputs> {
    serde_json::from_value(plan.inputs.clone()).ok()
}
