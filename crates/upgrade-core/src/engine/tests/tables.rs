//! Every step state with every outcome, and the rules that one example shows best.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::world::{Fault, Warehouse, block_on, drive, plan};
use crate::Failure;
use crate::engine::{
    Cause, Course, Decision, Direction, Engine, EngineError, Entry, Facts, GuardState, Journal, MemoryStore,
    Observation, Outcome, Plan, PlanError, Step, StepState, Tick, decide, settle,
};
use crate::ports::{Clock, JournalStore};

const CALM: Facts = Facts { cancel: false, guard: GuardState::Held };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn journal(plan: &Plan, entries: &[(&str, StepState)]) -> Journal {
    let mut journal = Journal::new(plan, at(0));
    for (step, state) in entries {
        let step = plan.step(step).unwrap().1;
        journal.attempt(step, Direction::Do, at(0));
        journal.mark_begun(step, json!({}));
        let entry = journal.entry_mut(&step.id).unwrap();
        entry.state = *state;
        entry.error = Some(Failure::permanent("too-heavy", "x"));
    }
    journal
}

#[test]
fn each_state_of_a_step_has_its_next_decision() {
    use Direction::{Do, Undo};
    use StepState as S;
    let plan = plan(2, None);
    let failed = Failure::permanent("too-heavy", "x");
    let cause = Cause::StepFailed { step: "a".into(), failure: failed };
    let forward = [
        (None, Decision::Begin { step: 0, direction: Do }),
        (Some(S::Doing), Decision::Observe { step: 0, direction: Do }),
        (Some(S::Done), Decision::Begin { step: 1, direction: Do }),
        (Some(S::Failed), Decision::TurnBack(cause.clone())),
        (Some(S::Undoing), Decision::TurnBack(cause.clone())),
        (Some(S::Undone), Decision::TurnBack(cause.clone())),
        (Some(S::Leftover), Decision::TurnBack(cause.clone())),
    ];
    for (state, expected) in forward {
        let entries: Vec<_> = state.map(|state| ("a", state)).into_iter().collect();
        assert_eq!(decide(&plan, &journal(&plan, &entries), &CALM, at(1)), expected, "forward {state:?}");
    }
    let back = [
        (S::Doing, Decision::Begin { step: 0, direction: Undo }),
        (S::Done, Decision::Begin { step: 0, direction: Undo }),
        (S::Failed, Decision::Begin { step: 0, direction: Undo }),
        (S::Undoing, Decision::Observe { step: 0, direction: Undo }),
        (S::Undone, Decision::Close(Outcome::Undone(cause.clone()))),
        (S::Leftover, Decision::Close(Outcome::Undone(cause.clone()))),
    ];
    for (state, expected) in back {
        let mut journal = journal(&plan, &[("a", state)]);
        journal.course = Course::Back(cause.clone());
        assert_eq!(decide(&plan, &journal, &CALM, at(1)), expected, "back {state:?}");
        journal.outcome = Some(Outcome::Undone(cause.clone()));
        let healed = match state {
            S::Leftover => Decision::Begin { step: 0, direction: Undo },
            S::Undoing => Decision::Observe { step: 0, direction: Undo },
            _ => Decision::Rest(Outcome::Undone(cause.clone())),
        };
        assert_eq!(decide(&plan, &journal, &CALM, at(1)), healed, "ended {state:?}");
    }
}

#[test]
fn each_observation_has_its_effect_on_the_entry() {
    let plan = plan(1, None);
    let step = &plan.steps[0];
    let soon = || Failure::transient("busy", "x");
    let never = || Failure::permanent("too-heavy", "x");
    let early = 10;
    let late = 60;
    let cases = [
        (Observation::Done(json!(1)), early, StepState::Done, StepState::Undone),
        (Observation::Done(json!(1)), late, StepState::Done, StepState::Undone),
        (Observation::pending("x", 1000), early, StepState::Doing, StepState::Undoing),
        (Observation::pending("x", 1000), late, StepState::Failed, StepState::Leftover),
        (Observation::absent(), early, StepState::Doing, StepState::Undoing),
        (Observation::absent(), late, StepState::Failed, StepState::Leftover),
        (Observation::Failed(soon()), early, StepState::Doing, StepState::Undoing),
        (Observation::Failed(soon()), late, StepState::Failed, StepState::Leftover),
        (Observation::Failed(never()), early, StepState::Failed, StepState::Leftover),
    ];
    for (seen, now, done, undone) in cases {
        // In the warehouse both halves of a step have the same deadline.
        for (direction, expected) in [(Direction::Do, done), (Direction::Undo, undone)] {
            let mut journal = Journal::new(&plan, at(0));
            journal.attempt(step, direction, at(0));
            journal.mark_begun(step, json!({}));
            settle(&mut journal, step, direction, seen.clone(), at(now));
            let entry: &Entry = journal.entry("a").unwrap();
            assert_eq!(entry.state, expected, "{seen:?} {direction:?} at {now}");
        }
    }
}

#[test]
fn a_cancel_turns_back_before_the_point_of_no_return_and_is_ignored_after_it() {
    let plan = plan(3, Some(1));
    let cancel = Facts { cancel: true, guard: GuardState::Held };
    let before = journal(&plan, &[("a", StepState::Done)]);
    assert_eq!(decide(&plan, &before, &cancel, at(1)), Decision::TurnBack(Cause::Cancelled));
    let after = journal(&plan, &[("a", StepState::Done), ("b", StepState::Doing)]);
    assert_eq!(decide(&plan, &after, &cancel, at(1)), Decision::Observe { step: 1, direction: Direction::Do });
}

#[test]
fn a_point_of_no_return_whose_preparation_failed_is_not_passed() {
    let plan = plan(2, Some(1));
    let mut journal = journal(&plan, &[("a", StepState::Done)]);
    journal.attempt(&plan.steps[1], Direction::Do, at(0));
    settle(&mut journal, &plan.steps[1], Direction::Do, Observation::Failed(Failure::permanent("gate", "x")), at(1));
    assert!(matches!(decide(&plan, &journal, &CALM, at(1)), Decision::TurnBack(_)));
}

#[test]
fn a_lost_guard_stops_every_effect_and_every_write() {
    let plan = plan(2, None);
    let lost = Facts { cancel: true, guard: GuardState::Lost("lease".into()) };
    for entries in [
        &[][..],
        &[("a", StepState::Doing)],
        &[("a", StepState::Failed)],
        &[("a", StepState::Done), ("b", StepState::Done)],
    ] {
        assert_eq!(
            decide(&plan, &journal(&plan, entries), &lost, at(1)),
            Decision::Halt("lease".into()),
            "{entries:?}"
        );
    }
}

#[test]
fn an_effect_whose_reply_was_lost_is_found_and_not_made_twice() {
    for fault in [Fault::ReplyLost, Fault::CrashAfterEffect, Fault::CrashBeforeEffect, Fault::Slow] {
        let warehouse = Warehouse::with(vec![fault]);
        let plan = plan(2, None);
        let journal = drive(&warehouse, &plan, None, 200);
        assert_eq!(journal.outcome, Some(Outcome::Succeeded), "{fault:?}");
        assert_eq!(warehouse.state.lock().unwrap().effects, ["+a", "+b"], "{fault:?}");
    }
}

#[test]
fn a_failure_undoes_newest_first_also_what_was_only_begun() {
    let warehouse = Warehouse::with(vec![Fault::None, Fault::None, Fault::Permanent]);
    let plan = plan(3, None);
    let journal = drive(&warehouse, &plan, None, 200);
    assert!(matches!(journal.outcome, Some(Outcome::Undone(Cause::StepFailed { ref step, .. })) if step == "c"));
    assert_eq!(warehouse.state.lock().unwrap().effects, ["+a", "+b", "-b", "-a"]);
    assert_eq!(journal.leftovers(&plan), []);
}

#[test]
fn an_undo_that_cannot_be_done_is_listed_and_heals_when_it_can() {
    let warehouse = Warehouse::with(vec![Fault::None, Fault::None, Fault::Permanent]);
    warehouse.state.lock().unwrap().stuck.insert("a".into());
    let plan = plan(3, None);
    let store = MemoryStore::default();
    block_on(async {
        store.save("op", &plan, &Journal::new(&plan, warehouse.now()), None).await.unwrap();
        let engine = Engine { store: &store, runner: &warehouse, guard: &warehouse, clock: &warehouse };
        let outcome = engine.run("op", &|| false).await.unwrap();
        assert!(matches!(outcome, Outcome::Undone(_)));
        let ended = store.load("op").await.unwrap().unwrap().journal;
        let left = ended.leftovers(&plan);
        assert_eq!(left.iter().map(|left| left.what.as_str()).collect::<Vec<_>>(), ["a lifted"]);
        assert!(left[0].retried && left[0].why.contains("stuck"), "{left:?}");
        warehouse.state.lock().unwrap().stuck.clear();
        for _ in 0..20 {
            match engine.tick("op", false).await.unwrap() {
                Tick::Ended(_, None) => break,
                Tick::Ended(_, Some(until)) | Tick::Wait(until) => {
                    warehouse.sleep(until.duration_since(warehouse.now())).await;
                }
                Tick::Progressed => {}
            }
        }
        let healed = store.load("op").await.unwrap().unwrap().journal;
        assert_eq!(healed.leftovers(&plan), []);
        assert_eq!(healed.outcome, ended.outcome, "healing does not rewrite how it ended");
    });
}

#[test]
fn what_a_later_step_releases_is_no_leftover() {
    let hold =
        Step::new("hold", "hold", json!({}), SignedDuration::from_secs(1)).undone_by("let go").holding("the door");
    let release = Step::new("release", "release", json!({}), SignedDuration::from_secs(1)).releasing("hold");
    let plan = Plan::new("warehouse", "op", json!({}), vec![hold, release]).unwrap();
    let held = journal(&plan, &[("hold", StepState::Done)]);
    assert_eq!(held.leftovers(&plan).len(), 1);
    let released = journal(&plan, &[("hold", StepState::Done), ("release", StepState::Done)]);
    assert_eq!(released.leftovers(&plan), []);
}

#[test]
fn a_plan_that_was_altered_or_made_by_another_engine_is_not_continued() {
    let good = plan(1, None);
    let mut altered = good.clone();
    altered.steps[0].title.push('!');
    assert_eq!(altered.verify(), Err(PlanError::Altered));
    let mut other = good.clone();
    other.plan_version = 99;
    assert_eq!(other.verify(), Err(PlanError::UnknownVersion { found: 99 }));
    let json = serde_json::to_string(&good).unwrap();
    let back: Plan = serde_json::from_str(&json).unwrap();
    assert_eq!(back.verify(), Ok(()));
}

#[test]
fn a_plan_survives_a_store_that_drops_nulls() {
    let with_nulls = json!({"a": null, "b": [{"c": null, "d": 1}]});
    let mut plan = Plan::new("warehouse", "op", with_nulls, plan(1, None).steps).unwrap();
    plan.inputs = json!({"b": [{"d": 1}]});
    assert_eq!(plan.verify(), Ok(()));
}

#[test]
fn a_plan_that_could_outgrow_its_store_is_refused_up_front() {
    let steps = (0..100).map(|at| Step::new(at.to_string(), "x", json!({}), SignedDuration::from_secs(1))).collect();
    assert!(matches!(Plan::new("warehouse", "op", json!({}), steps), Err(PlanError::TooLarge { .. })));
    let twice = vec![
        Step::new("a", "x", json!({}), SignedDuration::ZERO),
        Step::new("a", "x", json!({}), SignedDuration::ZERO),
    ];
    assert_eq!(Plan::new("warehouse", "op", json!({}), twice), Err(PlanError::DuplicateStep("a".into())));
}

#[test]
fn a_second_writer_is_refused_and_nothing_is_lost() {
    let plan = plan(1, None);
    let store = MemoryStore::default();
    block_on(async {
        let journal = Journal::new(&plan, at(0));
        let first = store.save("op", &plan, &journal, None).await.unwrap();
        store.save("op", &plan, &journal, Some(first.clone())).await.unwrap();
        assert!(store.save("op", &plan, &journal, Some(first)).await.is_err());
        assert!(store.save("op", &plan, &journal, None).await.is_err());
    });
}

#[test]
fn an_unknown_operation_or_workflow_is_an_error_that_says_so() {
    let warehouse = Warehouse::default();
    let store = MemoryStore::default();
    block_on(async {
        let engine = Engine { store: &store, runner: &warehouse, guard: &warehouse, clock: &warehouse };
        assert!(matches!(engine.tick("op", false).await, Err(EngineError::NoPlan(_))));
        let foreign = Plan::new("shop", "op", json!({}), plan(1, None).steps).unwrap();
        store.save("op", &foreign, &Journal::new(&foreign, at(0)), None).await.unwrap();
        assert!(matches!(engine.tick("op", false).await, Err(EngineError::Plan(PlanError::UnknownWorkflow { .. }))));
    });
}
