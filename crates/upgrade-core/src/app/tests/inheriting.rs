//! What operations of one app leave to each other.

use serde_json::json;

use super::builders::{at, facts, rollback, upgrade_to};
use crate::Failure;
use crate::app::facts::AppFacts;
use crate::app::handover::{TakeOver, farthest, take_over};
use crate::app::inherit::{Healing, Operation, Settled, healing, settled};
use crate::app::{self, AppInputs, upgrade};
use crate::engine::{Cause, Entry, Journal, Outcome, Plan, StepState};
use crate::ports::ReclaimPolicy;

pub(super) struct Ended {
    plan: Plan,
    pub(super) journal: Journal,
    inputs: AppInputs,
}

impl Ended {
    pub(super) fn new(plan: Plan) -> Self {
        let inputs = serde_json::from_value(plan.inputs.clone()).unwrap();
        let journal = Journal::new(&plan, at(0));
        Self { plan, journal, inputs }
    }

    pub(super) fn with(mut self, step: &str, state: StepState, evidence: serde_json::Value) -> Self {
        self.journal.entries.push(Entry {
            step: step.into(),
            state,
            attempt: 1,
            begun: true,
            retry: false,
            intent: json!({}),
            evidence,
            began_at: at(0),
            started_at: at(0),
            finished_at: None,
            look_again: None,
            waiting_for: String::new(),
            error: None,
        });
        self
    }

    pub(super) fn operation(&self) -> Operation<'_> {
        Operation { plan: &self.plan, journal: &self.journal, inputs: &self.inputs }
    }
}

fn upgraded() -> Ended {
    Ended::new(upgrade::plan(&upgrade_to("1.1.0"), &facts()).unwrap())
}

/// A rollback that failed after its claim was moved to the restored volume.
fn moved() -> Ended {
    let (ask, facts) = rollback();
    let seen = json!({"volume": "pv-restored", "volumeUid": "uid-of-restored", "helperUid": "h", "policy": "Delete"});
    Ended::new(app::rollback::plan(&ask, &facts).unwrap())
        .with("protect/data", StepState::Done, json!({}))
        .with("restore/aside/data", StepState::Done, seen)
        .with("swap/delete/data", StepState::Done, json!({}))
}

#[test]
fn a_restored_volume_inherits_the_policy_of_the_one_it_replaced() {
    let earlier = moved();
    let mut ask = upgrade_to("1.1.0");
    ask.inherited = vec![earlier.operation().as_left()];
    let mut facts = facts();
    facts.claims[0].volume = "pv-restored".into();
    facts.claims[0].volume_uid = "uid-of-restored".into();
    facts.claims[0].reclaim_policy = ReclaimPolicy::Retain;
    let found = |facts: &AppFacts| upgrade::inputs(&ask, facts).claims[0].reclaim_policy;
    assert_eq!(found(&facts), ReclaimPolicy::Delete);
    // A volume that neither of them had is as it is found.
    facts.claims[0].volume_uid = "uid-of-another".into();
    assert_eq!(found(&facts), ReclaimPolicy::Retain);
}

#[test]
fn a_success_has_put_right_what_was_its_own_too_and_nothing_else() {
    let success = upgraded();
    let success = success.operation();
    let earlier = upgraded().with("snapshot/take/data", StepState::Leftover, json!({}));
    let judged = |step: &str| settled(&success, &earlier.operation(), step);
    let own = "suspend/kustomization/flux-system/notes";
    for step in [
        own,
        "stop/deployment/notes/notes",
        "protect/data",
        "commit/push/apps",
        "release/freeze/deployment/notes/notes",
    ] {
        assert_eq!(judged(step), Settled::Yes, "{step}");
    }
    // What was kept as a way back is its restore point's by now.
    let kept = upgraded().with("snapshot/take/data", StepState::Kept, json!({}));
    assert_eq!(settled(&success, &kept.operation(), "snapshot/take/data"), Settled::Yes);
    let others = [
        "suspend/kustomization/flux-system/other",
        "stop/deployment/notes/other",
        "protect/other",
        "snapshot/take/data",
    ];
    for step in others {
        assert_eq!(judged(step), Settled::No, "{step}");
    }
}

#[test]
fn a_replaced_volume_is_put_right_once_it_is_noted() {
    let mut success = upgraded();
    success.inputs.claims[0].volume_uid = "uid-of-restored".into();
    let earlier = moved();
    let judged = settled(&success.operation(), &earlier.operation(), "protect/data");
    assert!(matches!(&judged, Settled::ByNoting(volume) if volume.volume == "pv-data"), "{judged:?}");
    let noted = moved().with("finish/replaced", StepState::Done, json!({}));
    assert_eq!(settled(&success.operation(), &noted.operation(), "protect/data"), Settled::Yes);
    let never_moved = upgraded();
    assert_eq!(settled(&success.operation(), &never_moved.operation(), "protect/data"), Settled::No);
}

#[test]
fn an_ended_operation_heals_only_while_nobody_else_is_at_work_on_the_same_things() {
    let undone = |step: &str| {
        let mut ended = upgraded().with(step, StepState::Leftover, json!({}));
        ended.journal.outcome = Some(Outcome::Undone(Cause::Cancelled));
        ended
    };
    let stopped = undone("stop/deployment/notes/notes");
    let copied = undone("snapshot/take/data");
    let (mut ask, facts) = rollback();
    ask.take_over = vec![stopped.plan.operation.clone()];
    let other = Ended::new(app::rollback::plan(&ask, &facts).unwrap());
    assert_eq!(healing(&stopped.operation(), []), Healing::Now);
    assert_eq!(healing(&stopped.operation(), [(other.operation(), false)]), Healing::Later);
    assert_eq!(healing(&stopped.operation(), [(other.operation(), true)]), Healing::Now);
    // From then on a stopped app and a suspension are the other's, but nobody else deletes its copies.
    let passed = other.with("swap/delete/data", StepState::Doing, json!({}));
    for over in [false, true] {
        assert_eq!(healing(&stopped.operation(), [(passed.operation(), over)]), Healing::Never);
    }
    assert_eq!(healing(&copied.operation(), [(passed.operation(), true)]), Healing::Now);
}

#[test]
fn requests_that_roll_back_are_not_called_alike_for_two_upgrades_of_one_name() {
    let name = app::rollback::request_name;
    assert_eq!(name("to-1.1.0", "0f1e2d3c-op"), "to-1.1.0-0f1e2d3c-rollback");
    let long = "n".repeat(63);
    let names =
        [name(&long, "0f1e2d3c-op"), name(&long, "1f1e2d3c-op"), name(&format!("{}m", &long[1..]), "0f1e2d3c-op")];
    assert!(names.iter().all(|name| name.len() <= 63), "{names:?}");
    assert!(names[0] != names[1] && names[0] != names[2], "{names:?}");
}

#[test]
fn an_upgrade_is_not_taken_over_for_good_while_its_rollback_may_be_undone() {
    let (ask, facts) = rollback();
    let begun =
        || Ended::new(app::rollback::plan(&ask, &facts).unwrap()).with("protect/data", StepState::Done, json!({}));
    let ends = |mut rollback: Ended, outcome: Outcome| {
        rollback.journal.outcome = Some(outcome);
        rollback
    };
    let failure = || Failure::permanent("served-meanwhile", "x");
    let undone = || Outcome::Undone(Cause::StepFailed { step: "stop/wait".into(), failure: failure() });
    let cases = [
        (begun(), false, TakeOver::Pending),
        (ends(begun(), undone()), false, TakeOver::Pending),
        (ends(begun(), undone()), true, TakeOver::GivenBack),
        (ends(begun(), Outcome::Undone(Cause::Cancelled)), true, TakeOver::GivenBack),
        (moved(), false, TakeOver::Made),
        (ends(moved(), Outcome::Failed { step: "verify/healthy".into(), failure: failure() }), true, TakeOver::Made),
        (ends(moved(), Outcome::Succeeded), true, TakeOver::Made),
    ];
    for (at, (rollback, over, expected)) in cases.iter().enumerate() {
        assert_eq!(take_over(&rollback.operation(), *over), *expected, "case {at}");
    }
}

#[test]
fn of_several_rollbacks_the_one_that_is_farthest_says_what_becomes_of_the_upgrade() {
    let upgrade = upgraded().plan.operation;
    let taking = |taken: &str| {
        let (mut ask, facts) = rollback();
        ask.take_over = vec![taken.to_owned()];
        Ended::new(app::rollback::plan(&ask, &facts).unwrap())
    };
    let begun = taking(&upgrade);
    let mut undone = taking(&upgrade);
    undone.journal.outcome = Some(Outcome::Undone(Cause::Cancelled));
    let made = taking(&upgrade).with("swap/delete/data", StepState::Done, json!({}));
    let of_another = taking("another").with("swap/delete/data", StepState::Done, json!({}));
    let cases: [(&[(&Ended, bool)], _); 6] = [
        (&[], None),
        (&[(&of_another, false)], None),
        (&[(&undone, true)], Some((0, TakeOver::GivenBack))),
        (&[(&undone, true), (&begun, false)], Some((1, TakeOver::Pending))),
        (&[(&begun, false), (&made, false), (&undone, true)], Some((1, TakeOver::Made))),
        (&[(&begun, false), (&undone, false)], Some((0, TakeOver::Pending))),
    ];
    for (at, (rollbacks, expected)) in cases.into_iter().enumerate() {
        let rollbacks = rollbacks.iter().enumerate().map(|(at, (one, over))| (at, one.operation(), *over));
        assert_eq!(farthest(&upgrade, rollbacks), expected, "case {at}");
    }
}
