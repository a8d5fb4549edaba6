//! From a request and its neighbours to the core's question.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use upgrade_core::Failure;
use upgrade_core::app::after::may_have_served;
use upgrade_core::app::inherit::Operation;
use upgrade_core::app::{AppInputs, AppSpec, RollbackAsk, UpgradeAsk, rollback};
use upgrade_core::engine::{Journal, Plan};
use upgrade_core::ports::{ActiveOperation, RestorePointRecord};
use windlass_api::call::CallError;
use windlass_api::{Leftover, ManagedApp, OperationKind, Outcome, RollbackData, RollbackRequest, UpgradeRequest};

use super::{Turn, inputs_of};
use crate::kinds::{Either, Request};
use crate::resolve;
use crate::store::{failed, is_planned, record};

/// Marks rollbacks that nobody asked for by hand.
pub(crate) const AUTOMATIC: &str = "upgrades.windlass.dev/automatic";

/// What is asked of the core.
pub(super) enum Ask {
    Upgrade(Box<UpgradeAsk>),
    Rollback(Box<RollbackAsk>),
}

impl Ask {
    pub(super) fn spec(&self) -> &AppSpec {
        match self {
            Self::Upgrade(ask) => &ask.app,
            Self::Rollback(ask) => &ask.app,
        }
    }

    pub(super) fn point(&self) -> Option<&RestorePointRecord> {
        match self {
            Self::Upgrade(_) => None,
            Self::Rollback(ask) => ask.restore_data.then_some(&ask.restore_point),
        }
    }

    pub(super) fn targets(&self) -> Option<&BTreeMap<String, String>> {
        match self {
            Self::Upgrade(ask) => Some(&ask.targets),
            Self::Rollback(_) => None,
        }
    }

    pub(super) fn take_over(&self) -> &[String] {
        match self {
            Self::Upgrade(ask) => &ask.take_over,
            Self::Rollback(ask) => &ask.take_over,
        }
    }
}

/// Another request of the cluster, as far as it matters to this one.
pub(super) struct Other {
    pub(super) uid: String,
    pub(super) name: String,
    pub(super) same_app: bool,
    pub(super) is_upgrade: bool,
    /// Its status says how it ended.
    pub(super) over: bool,
    /// Whether plan and journal are stored, also if they cannot be read here.
    pub(super) planned: bool,
    pub(super) created: Option<Timestamp>,
    /// How it ended, by its status.
    pub(super) outcome: Option<Outcome>,
    /// The rollback that has taken it over, by its status.
    pub(super) rollback: Option<String>,
    /// What its status says to people.
    pub(super) message: String,
    /// What its status says it has left.
    pub(super) leftovers: Vec<Leftover>,
    pub(super) inputs: Option<AppInputs>,
    pub(super) record: Option<(Plan, Journal)>,
}

impl Other {
    fn leaves(&self) -> bool {
        !self.leftovers.is_empty()
    }

    pub(super) fn operation(&self) -> Option<Operation<'_>> {
        let ((plan, journal), inputs) = self.record.as_ref().zip(self.inputs.as_ref())?;
        Some(Operation { plan, journal, inputs })
    }

    /// Whether it is at work: it has a plan, and nobody has written yet how it ended.
    pub(super) fn is_at_work(&self) -> bool {
        self.planned && !self.over
    }

    pub(super) fn active(&self) -> ActiveOperation {
        let kind = if self.is_upgrade { OperationKind::UpgradeRequest } else { OperationKind::RollbackRequest };
        ActiveOperation { kind: kind.as_str().into(), name: self.name.clone(), uid: self.uid.clone() }
    }
}

impl<K: Request> Turn<'_, K> {
    /// Every other request of the cluster, oldest first.
    pub(super) async fn others(&self) -> Result<Vec<Other>, Failure> {
        let mut others = self.others_of::<UpgradeRequest>("").await?;
        others.extend(self.others_of::<RollbackRequest>("").await?);
        others.sort_by_key(|other| other.created);
        Ok(others)
    }

    /// Every other request of the app, oldest first.
    pub(super) async fn others_of_app(&self) -> Result<Vec<Other>, Failure> {
        let mut others = self.others_of::<UpgradeRequest>(&self.namespace).await?;
        others.extend(self.others_of::<RollbackRequest>(&self.namespace).await?);
        others.retain(|other| other.same_app);
        others.sort_by_key(|other| other.created);
        Ok(others)
    }

    async fn others_of<R: Request>(&self, namespace: &str) -> Result<Vec<Other>, Failure> {
        let client = self.context.client.clone();
        let api: Api<R> = if namespace.is_empty() { Api::all(client) } else { Api::namespaced(client, namespace) };
        let found = api.list(&ListParams::default()).await;
        let found = found.map_err(CallError::on::<R>("list", namespace, "")).map_err(|error| failed(&error))?;
        Ok(found
            .into_iter()
            .filter(|request| request.uid().as_deref() != Some(self.uid.as_str()))
            .map(|request| {
                // A record that cannot be read is nobody's to take over; its own reconcile says so.
                let record = record(&request).unwrap_or_default();
                let status = request.status().cloned().unwrap_or_default();
                Other {
                    uid: request.uid().unwrap_or_default(),
                    name: request.name_any(),
                    same_app: request.namespace().as_deref() == Some(self.namespace.as_str())
                        && request.subject().name == self.request.subject().name,
                    is_upgrade: matches!(request.either(), Either::Upgrade(_)),
                    over: status.outcome.is_some(),
                    planned: is_planned(&status),
                    created: request.creation_timestamp().map(|at| at.0),
                    outcome: status.outcome,
                    rollback: status.rollback,
                    message: status.message.unwrap_or_default(),
                    leftovers: status.leftovers,
                    inputs: record.as_ref().and_then(|(plan, _)| inputs_of(plan)),
                    record,
                }
            })
            .collect())
    }

    /// A rollback may take over from an upgrade of its app that has passed its point of no return.
    pub(super) fn superseded(&self, others: &[Other]) -> Option<String> {
        if !matches!(self.request.either(), Either::Rollback(_)) {
            return None;
        }
        let passed = |other: &&Other| {
            other.record.as_ref().is_some_and(|(plan, journal)| journal.irrevocable(plan)) && !other.over
        };
        others.iter().filter(|other| other.same_app && other.is_upgrade).find(passed).map(|other| other.uid.clone())
    }

    pub(super) async fn ask(&self, app: &ManagedApp, others: &[Other]) -> Result<Ask, Failure> {
        let mut spec = resolve::app_spec(app);
        let superseded = self.superseded(others);
        let ours = |other: &&Other| other.same_app && (other.over || superseded.as_ref() == Some(&other.uid));
        let take_over: Vec<String> = others.iter().filter(ours).map(|other| other.uid.clone()).collect();
        match self.request.either() {
            Either::Upgrade(request) => {
                if let Some(policy) = request.spec.auto_rollback {
                    spec.auto_rollback = resolve::auto_rollback(policy);
                }
                spec.versions.accepted_claim_changes.clone_from(&request.spec.accept);
                let inherited = others.iter().filter(ours).filter(|other| other.leaves());
                Ok(Ask::Upgrade(Box::new(UpgradeAsk {
                    operation: self.uid.clone(),
                    name: request.name_any(),
                    app: spec,
                    targets: request.spec.target.components.clone(),
                    reason: request.spec.reason.clone().unwrap_or_default(),
                    inherited: inherited.filter_map(|other| Some(other.operation()?.as_left())).collect(),
                    take_over,
                })))
            }
            Either::Rollback(request) => {
                let from = request.spec.to.upgrade_request.as_deref();
                let upgrade =
                    others.iter().find(|other| other.same_app && other.is_upgrade && Some(other.name.as_str()) == from);
                if let Some(name) = from.filter(|_| upgrade.is_none()) {
                    let message = format!("there is no upgrade request {name} of this app that has begun");
                    return Err(Failure::permanent("upgrade-not-found", message));
                }
                spec.versions.accepted_claim_changes.clone_from(&request.spec.accept);
                let point = self.point(&spec, request, upgrade).await?;
                let automatic = request.labels().get(AUTOMATIC).is_some_and(|value| value == "true");
                let only_from = upgrade.filter(|_| automatic).and_then(|other| other.inputs.as_ref());
                let inherits = |other: &&Other| {
                    other.leaves() || superseded.as_ref() == Some(&other.uid) || Some(other.name.as_str()) == from
                };
                let inherited = others.iter().filter(ours).filter(inherits);
                let taken_for = others.iter().find(|other| other.same_app && other.uid == point.operation);
                Ok(Ask::Rollback(Box::new(RollbackAsk {
                    operation: self.uid.clone(),
                    name: request.name_any(),
                    restore_data: request.spec.data == RollbackData::Restore,
                    acknowledged_loss_since: request.spec.acknowledge_loss_since,
                    loses_writes: upgrade
                        .and_then(|other| Some((other.operation()?, other.over)))
                        .is_none_or(|(upgrade, over)| may_have_served(&upgrade, over)),
                    block: true,
                    reason: request.spec.reason.clone().unwrap_or_default(),
                    only_from: only_from.map(|inputs| inputs.to.clone()).unwrap_or_default(),
                    inherited: inherited.filter_map(|other| Some(other.operation()?.as_left())).collect(),
                    before: taken_for.and_then(|other| other.inputs.clone()),
                    take_over,
                    restore_point: point,
                    app: spec,
                })))
            }
        }
    }

    async fn point(
        &self,
        spec: &AppSpec,
        request: &RollbackRequest,
        upgrade: Option<&Other>,
    ) -> Result<RestorePointRecord, Failure> {
        let inputs = upgrade.and_then(|other| other.inputs.as_ref().map(|inputs| (other, inputs)));
        let name = match (&request.spec.to.restore_point, inputs) {
            (Some(name), _) => name.clone(),
            (None, Some((_, inputs))) if !inputs.restore_point.is_empty() => inputs.restore_point.clone(),
            (None, Some((other, inputs))) => {
                let now = self.context.clock.now();
                return Ok(rollback::versions_before(inputs, &other.uid, now));
            }
            (None, None) => return Err(Failure::permanent("restore-point-not-found", "no restore point is named")),
        };
        let found = self.context.ports.restore_points.get(&spec.app, &name).await?;
        match (found, inputs) {
            (Some(point), _) => Ok(point),
            // The upgrade failed before it had one: its versions are known all the same.
            (None, Some((other, inputs))) if request.spec.data == RollbackData::Keep => {
                Ok(rollback::versions_before(inputs, &other.uid, self.context.clock.now()))
            }
            (None, _) => {
                Err(Failure::permanent("restore-point-not-found", format!("there is no restore point {name}"))
                    .with_hint("list them: windlass snapshots"))
            }
        }
    }
}
