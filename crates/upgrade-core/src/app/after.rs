//! What follows when an upgrade has failed after its release: roll back, or stop and ask.

use serde_json::Value;

use super::AppInputs;
use super::AutoRollback;
use super::build::id;
use super::inherit::Operation;
use crate::engine::{Journal, Outcome, Plan};
use crate::ports::{DeliveryRole, PodFact};

/// What is to be done after an operation has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowUp {
    /// Nothing: it succeeded, or was undone.
    Nothing,
    /// A rollback request with a deterministic name takes over.
    RollBack {
        /// Whether data is restored; `false` when no pod of the target can have been created, so that nothing has changed it.
        restore_data: bool,
        /// Whether acknowledged writes may be lost: said in the request.
        loses_writes: bool,
    },
    /// A person decides; what each choice would lose.
    Ask {
        /// For the condition's message.
        choices: String,
    },
}

/// Whether a pod of the target that has the data was ever created, and whether one was ever ready: from the journal and the pods of this moment.
/// When in doubt both are true, because then nothing is discarded unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Some pod of the target exists, existed, or may come by itself.
    pub created: bool,
    /// Some pod of the target was ready.
    pub served: bool,
}

/// Noted in the intent of a resume when somebody else had let the app go before, and something ran: nobody knows what it has acknowledged.
pub(super) const RAN: &str = "ran";

impl AppInputs {
    /// Whether a pod mounts one of the claims.
    pub fn has_data_of(&self, pod: &PodFact) -> bool {
        let names = self.claim_names();
        pod.claims.iter().any(|claim| names.contains(claim))
    }
}

/// Reads the sighting out of the journal and the pods that exist now.
pub fn sighting(plan: &Plan, journal: &Journal, inputs: &AppInputs, pods: &[PodFact]) -> Sighting {
    let soaked = journal.entry("verify/soak").is_some_and(|entry| entry.begun);
    let noted = journal.evidence("verify/healthy").get("served").and_then(Value::as_bool).unwrap_or(false);
    // What was acknowledged is on a volume: pods without one may run all the time, also through the release.
    let pods: Vec<&PodFact> = pods.iter().filter(|pod| inputs.has_data_of(pod)).collect();
    let released = journal.irrevocable(plan);
    // What was copied while it ran: the old version went on acknowledging until it was replaced.
    let online = released && !inputs.stopped && !inputs.claims.is_empty();
    let in_doubt = journal.entries.iter().any(|entry| entry.begun && entry.intent.get(RAN) == Some(&Value::Bool(true)));
    let served = soaked || noted || online || in_doubt || pods.iter().any(|pod| pod.served);
    let counted = inputs.workloads.iter().any(|workload| {
        let step = id("release/start", &workload.object);
        journal.entry(&step).is_some_and(|entry| entry.begun)
    });
    // From then on Flux may create pods by itself, where Git says how many: perhaps right after this look. Only what is kept from
    // being applied has none, until that ends. A release that is let go, perhaps by its parent, has never been kept from anything.
    let begun = |step: &str| journal.entry(step).is_some_and(|entry| entry.begun);
    let unfreezes = |step: &str| step.starts_with("release/unfreeze/");
    let frozen = plan.steps.iter().any(|step| unfreezes(&step.id));
    let releases = inputs.roots.iter().filter(|root| root.own && root.role == DeliveryRole::Release);
    let applied = !frozen
        || plan.steps.iter().any(|step| unfreezes(&step.id) && begun(&step.id))
        || releases.into_iter().any(|root| root.declared || begun(&id("release/resume", &root.object)));
    let created = released && (served || counted || applied || !pods.is_empty());
    Sighting { created, served }
}

/// Whether an upgrade's target may have acknowledged writes, by what its journal knows. Of one that is over nobody has looked since:
/// what was never ready then may have served for days.
pub fn may_have_served(upgrade: &Operation<'_>, over: bool) -> bool {
    let Operation { plan, journal, inputs } = *upgrade;
    let ended = matches!(journal.outcome, Some(Outcome::Failed { .. } | Outcome::Undone(_)));
    over || !ended || sighting(plan, journal, inputs, &[]).served
}

/// What the decision rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation<'a> {
    /// When the app wants to be rolled back unasked.
    pub policy: AutoRollback,
    /// What was seen of the target.
    pub seen: Sighting,
    /// Whether the operation has left a usable restore point with data.
    pub restorable: bool,
    /// When its copies were taken: for people.
    pub taken_at: &'a str,
    /// Whether a rollback was asked for already and has not begun: it is not asked for twice.
    pub refused: bool,
}

/// Decides.
pub fn follow_up(outcome: &Outcome, situation: Situation<'_>) -> FollowUp {
    let Outcome::Failed { step, failure } = outcome else { return FollowUp::Nothing };
    let Situation { policy, seen, restorable, taken_at, refused } = situation;
    let restore_data = restorable && seen.created;
    // Until it is stopped it may still serve: who always goes back has taken that.
    let loses_writes = restore_data && (seen.served || policy == AutoRollback::Always);
    let roll_back = FollowUp::RollBack { restore_data, loses_writes };
    // Somebody else has changed the version meanwhile: going back would undo their decision.
    if failure.code == "superseded" {
        return FollowUp::Ask { choices: choices(restorable, seen, taken_at) };
    }
    // It ran, was verified and has soaked; what failed is only the tidying up after it.
    if step.starts_with("finish/") {
        let choices = choices(restorable, seen, taken_at);
        return FollowUp::Ask { choices: format!("The new version was verified and has soaked; {choices}") };
    }
    match policy {
        _ if refused => FollowUp::Ask { choices: choices(restorable, seen, taken_at) },
        AutoRollback::Always => roll_back,
        AutoRollback::IfNeverReady if !seen.served => roll_back,
        AutoRollback::IfNeverReady | AutoRollback::Never => {
            FollowUp::Ask { choices: choices(restorable, seen, taken_at) }
        }
    }
}

fn choices(restorable: bool, seen: Sighting, taken_at: &str) -> String {
    let restore = match (restorable, seen.served) {
        (false, _) => "there is no data to restore".to_owned(),
        (true, true) => format!("rolling back with data loses what was written since {taken_at}"),
        (true, false) => "rolling back with data loses nothing that was acknowledged by now".to_owned(),
    };
    format!(
        "{restore}; rolling back and keeping the data runs the old version on data that the new one may have changed; leaving it keeps the new version as it is"
    )
}

/// What a person is told who has to choose.
pub fn what_each_loses(situation: Situation<'_>) -> String {
    choices(situation.restorable, situation.seen, situation.taken_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Failure;

    fn at(policy: AutoRollback, seen: Sighting) -> Situation<'static> {
        Situation { policy, seen, restorable: true, taken_at: "now", refused: false }
    }

    fn failed(code: &str) -> Outcome {
        Outcome::Failed { step: "verify/healthy".into(), failure: Failure::permanent(code, "x") }
    }

    #[test]
    fn only_a_version_that_never_served_is_rolled_back_unasked_by_default() {
        let cases = [
            (AutoRollback::IfNeverReady, false, true),
            (AutoRollback::IfNeverReady, true, false),
            (AutoRollback::Always, true, true),
            (AutoRollback::Never, false, false),
        ];
        for (policy, served, rolls_back) in cases {
            let seen = Sighting { created: true, served };
            let next = follow_up(&failed("unhealthy"), at(policy, seen));
            assert_eq!(matches!(next, FollowUp::RollBack { .. }), rolls_back, "{policy:?} served={served}");
        }
    }

    #[test]
    fn who_always_goes_back_has_taken_what_is_written_until_the_stop() {
        let seen = Sighting { created: true, served: false };
        for (policy, loses_writes) in [(AutoRollback::Always, true), (AutoRollback::IfNeverReady, false)] {
            let next = follow_up(&failed("unhealthy"), at(policy, seen));
            assert_eq!(next, FollowUp::RollBack { restore_data: true, loses_writes }, "{policy:?}");
        }
    }

    #[test]
    fn data_is_left_alone_when_no_pod_of_the_target_was_created() {
        let seen = Sighting { created: false, served: false };
        let next = follow_up(&failed("deadline-exceeded"), at(AutoRollback::IfNeverReady, seen));
        assert_eq!(next, FollowUp::RollBack { restore_data: false, loses_writes: false });
    }

    #[test]
    fn a_superseded_version_is_never_rolled_back_unasked() {
        let seen = Sighting { created: true, served: false };
        let next = follow_up(&failed("superseded"), at(AutoRollback::Always, seen));
        assert!(matches!(next, FollowUp::Ask { .. }));
    }

    #[test]
    fn a_verified_version_is_never_rolled_back_unasked_for_what_failed_after_it() {
        let failure = Failure::permanent("app-gone", "x");
        let outcome = Outcome::Failed { step: "finish/record".into(), failure };
        for policy in [AutoRollback::Always, AutoRollback::IfNeverReady, AutoRollback::Never] {
            let seen = Sighting { created: true, served: false };
            assert!(matches!(follow_up(&outcome, at(policy, seen)), FollowUp::Ask { .. }), "{policy:?}");
        }
    }

    #[test]
    fn a_rollback_that_was_asked_for_and_has_not_begun_is_not_asked_for_again() {
        let seen = Sighting { created: true, served: false };
        for policy in [AutoRollback::Always, AutoRollback::IfNeverReady] {
            let next = follow_up(&failed("unhealthy"), Situation { refused: true, ..at(policy, seen) });
            assert!(matches!(next, FollowUp::Ask { .. }), "{policy:?}");
        }
    }

    #[test]
    fn nothing_follows_a_success_or_an_undo() {
        let seen = Sighting { created: true, served: true };
        assert_eq!(follow_up(&Outcome::Succeeded, at(AutoRollback::Always, seen)), FollowUp::Nothing);
    }
}
