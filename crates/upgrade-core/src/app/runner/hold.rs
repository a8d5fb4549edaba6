//! Suspending delivery objects and letting them go.

use serde_json::{Value, json};

use super::{Work, gone, replaced};
use crate::Failure;
use crate::app::after::RAN;
use crate::app::{Root, rollback, stage};
use crate::engine::{Direction, Observation, StepState};
use crate::ports::{Hold, ObjectRef};

impl Work<'_> {
    fn root(&self, object: &ObjectRef) -> Result<&Root, Failure> {
        self.inputs.root(object).ok_or_else(|| super::not_planned("delivery object", &object.name))
    }

    pub(super) async fn prepare_hold(&self, object: &ObjectRef, direction: Direction) -> Result<Value, Failure> {
        let root = self.root(object)?;
        if direction == Direction::Do {
            let found = self.ports.delivery.suspension(object).await?.ok_or_else(|| gone(object))?;
            if found.uid != root.uid {
                return Err(replaced(object));
            }
            let holder = found.held_by.as_deref();
            let mine = holder == Some(&self.cx.plan.operation)
                || holder.is_some_and(|holder| self.inputs.take_over.iter().any(|other| other == holder));
            if let Some(holder) = holder.filter(|_| !mine) {
                // Two apps under one root take turns: the other operation ends, one way or the other.
                return Err(Failure::transient("held-by-other-operation", format!("{object} is held by {holder}"))
                    .with_hint("wait until that operation has ended"));
            }
            if found.suspend == Some(true) && !mine {
                return Err(Failure::permanent(
                    "suspended-by-others",
                    format!("{object} was suspended by somebody else"),
                ));
            }
        }
        Ok(json!({"uid": root.uid, "token": self.cx.token()}))
    }

    pub(super) async fn suspend(&self, object: &ObjectRef) -> Result<(), Failure> {
        let root = self.root(object)?;
        let hold = Hold {
            operation: self.cx.plan.operation.clone(),
            stage: self.first_stage(object).into(),
            as_found: root.as_found,
            token: self.intended("token").unwrap_or_else(|| self.cx.token()),
            take_over: self.inputs.take_over.clone(),
        };
        self.ports.delivery.suspend(object, &root.uid, &hold).await
    }

    pub(super) async fn is_suspended(&self, object: &ObjectRef) -> Result<Observation, Failure> {
        let found = self.ports.delivery.suspension(object).await?.ok_or_else(|| gone(object))?;
        let ours = found.held_by.as_deref() == Some(self.cx.plan.operation.as_str()) && found.suspend == Some(true);
        if !ours {
            return Ok(Observation::absent());
        }
        let token = self.intended("token").unwrap_or_default();
        if found.handled.as_deref() == Some(token.as_str()) {
            return Ok(Observation::Done(json!({"barrier": token, "uid": found.uid})));
        }
        if found.requested.as_deref() != Some(token.as_str()) {
            // A person has asked for something in between; ours would never be answered.
            return Ok(Observation::absent());
        }
        Ok(Observation::pending(format!("the controller of {object} to confirm that nothing is in flight"), 100))
    }

    /// Ends our suspension, at the end of a release or as an undo.
    pub(super) async fn resume(&self, object: &ObjectRef) -> Result<(), Failure> {
        let root = self.root(object)?;
        let token = self.intended("token").unwrap_or_else(|| self.cx.token());
        self.ports.delivery.resume(object, &root.uid, &self.cx.plan.operation, root.as_found, &token).await
    }

    pub(super) async fn prepare_resume(&self, object: &ObjectRef) -> Result<Value, Failure> {
        let root = self.root(object)?;
        let intent = json!({"uid": root.uid, "token": self.cx.token()});
        if !self.is_released_by_others().await? {
            self.gate().await?;
            return Ok(intent);
        }
        self.claims_are_the_planned_ones(true).await?;
        // Of what ran, nobody knows which version it was, nor what it has acknowledged.
        let ran = self.has_run().await?.is_some();
        Ok(json!({"uid": root.uid, "token": self.cx.token(), RAN: ran}))
    }

    pub(super) async fn is_resumed(&self, object: &ObjectRef) -> Result<Observation, Failure> {
        let found = self.ports.delivery.suspension(object).await?.ok_or_else(|| gone(object))?;
        if found.held_by.as_deref() == Some(self.cx.plan.operation.as_str()) {
            return Ok(Observation::absent());
        }
        Ok(Observation::Done(json!({"uid": found.uid})))
    }

    /// The undo of a suspension: never while a version shows that the data does not belong to.
    pub(super) async fn is_let_go(&self, object: &ObjectRef) -> Result<Observation, Failure> {
        let Some(found) = self.ports.delivery.suspension(object).await? else {
            return Ok(Observation::Done(json!({"gone": true})));
        };
        if found.held_by.as_deref() != Some(self.cx.plan.operation.as_str()) {
            return Ok(Observation::Done(json!({"held": false})));
        }
        let committed = self.inputs.repositories.iter().any(|one| self.begun(&format!("commit/push/{}", one.name)));
        let adopted = self.inputs.root(object).is_some_and(|root| root.adopted);
        // When the namespace goes, so does the data: there is none left that a version could be the wrong one for.
        if (committed || adopted) && self.cx.journal.let_go().is_none() {
            if let Some(late) = self.inputs.repositories.iter().find(|one| self.may_still_land(&one.name)) {
                let what = format!("a push that {} has never answered, and that may still land", late.name);
                return Ok(Observation::pending(what, 1000));
            }
            let foreign = if adopted { &self.inputs.from } else { &self.inputs.to };
            if let Some(shows) = self.carrier_showing(foreign).await? {
                return Ok(Observation::pending(
                    format!("{shows}, which the data does not belong to, to go away"),
                    1000,
                ));
            }
            if let Some(waits) = self.still_applies(object).await? {
                return Ok(waits);
            }
        }
        Ok(Observation::absent())
    }

    /// What is written on an object when it is suspended, and again once a commit is undone. A rollback finds Git and data apart,
    /// and so may an operation that takes over the hold of another.
    pub(super) fn first_stage(&self, object: &ObjectRef) -> &'static str {
        if self.cx.plan.workflow == rollback::WORKFLOW {
            stage::RESTORING
        } else if self.inputs.root(object).is_some_and(|root| root.adopted) {
            stage::COMMITTING
        } else {
            stage::HELD
        }
    }

    /// The undo of a stage: not before the commit is undone and shows nowhere, or the object would be let go with it.
    pub(super) async fn has_first_stage(&self, object: &ObjectRef) -> Result<Observation, Failure> {
        let seen = self.has_stage(object, self.first_stage(object)).await?;
        if !matches!(seen, Observation::Done(_)) {
            self.commit_is_undone()?;
        }
        Ok(seen)
    }

    /// Else a leftover at once: what is undone after it must not wait.
    pub(super) fn commit_is_undone(&self) -> Result<(), Failure> {
        let mut commits = self.cx.journal.entries.iter().filter(|entry| entry.step.starts_with("commit/"));
        match commits.find(|entry| entry.begun && entry.state != StepState::Undone) {
            Some(open) => Err(Failure::permanent("commit-not-undone", format!("{} is not undone yet", open.step))
                .with_hint("it is undone when the commit is")),
            None => Ok(()),
        }
    }

    pub(super) async fn set_stage(&self, object: &ObjectRef, stage: &str) -> Result<(), Failure> {
        let root = self.root(object)?;
        self.ports.delivery.set_stage(object, &root.uid, &self.cx.plan.operation, stage).await
    }

    pub(super) async fn has_stage(&self, object: &ObjectRef, stage: &str) -> Result<Observation, Failure> {
        let found = self.ports.delivery.suspension(object).await?.ok_or_else(|| gone(object))?;
        if found.held_by.as_deref() != Some(self.cx.plan.operation.as_str()) {
            if self.cx.direction == Direction::Undo {
                return Ok(Observation::Done(json!({"held": false})));
            }
            return Err(Failure::permanent("hold-lost", format!("the suspension of {object} is not ours any more"))
                .with_hint("find out who resumed it"));
        }
        Ok(if found.stage.as_deref() == Some(stage) {
            Observation::Done(json!({"stage": stage}))
        } else {
            Observation::absent()
        })
    }
}
