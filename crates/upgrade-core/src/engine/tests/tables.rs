//! Every step state with every outcome, and the rules that one example shows best.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::world::{Fault, Warehouse, block_on, drive, plan};
use crate::Failure;
use crate::engine::{
    Cause, Course, Decision, Direction, Engine, EngineError, Entry, Facts, GuardState, Journal, MemoryStore,
    Observation, Outcome, Plan, PlanError, Signals, Step, StepState, Stretch, Tick, decide, settle,
};
use crate::ports::{Clock, JournalStore};

pub(super) const CALM: Facts = Facts { cancel: false, let_go: None, guard: GuardState::Held };

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

pub(super) fn journal(plan: &Plan, entries: &[(&str, StepState)]) -> Journal {
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
    let cancel = Facts { cancel: true, let_go: None, guard: GuardState::Held };
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
    let lost = Facts { cancel: true, let_go: None, guard: GuardState::Lost("lease".into()) };
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
            match engine.tick("op", Signals::default()).await.unwrap() {
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
    let steps = (0..300).map(|at| Step::new(at.to_string(), "x", json!({}), SignedDuration::from_secs(1))).collect();
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
        assert!(matches!(engine.tick("op", Signals::default()).await, Err(EngineError::NoPlan(_))));
        let foreign = Plan::new("shop", "op", json!({}), plan(1, None).steps).unwrap();
        store.save("op", &foreign, &Journal::new(&foreign, at(0)), None).await.unwrap();
        assert!(matches!(
            engine.tick("op", Signals::default()).await,
            Err(EngineError::Plan(PlanError::UnknownWorkflow { .. }))
        ));
    });
}

fn stretch(from: &str, to: &str, seconds: i64) -> Stretch {
    let (from, to) = (from.into(), to.into());
    Stretch { title: "lift them".into(), from, to, deadline: SignedDuration::from_secs(seconds) }
}

#[test]
fn a_shared_deadline_counts_from_the_first_step_and_ends_whichever_is_being_done() {
    use StepState as S;
    let plan = plan(4, None).bounded_by(stretch("b", "c", 30)).unwrap();
    let begin = |step| Decision::Begin { step, direction: Direction::Do };
    let look = |step| Decision::Observe { step, direction: Direction::Do };
    type Case<'a> = (&'a [(&'a str, S)], i64, Result<Decision, &'a str>);
    let cases: &[Case<'_>] = &[
        // Before it, and after it, time does not count.
        (&[("a", S::Doing)], 59, Ok(look(0))),
        (&[("a", S::Done)], 59, Ok(begin(1))),
        (&[("a", S::Done), ("b", S::Done), ("c", S::Done)], 59, Ok(begin(3))),
        (&[("a", S::Done), ("b", S::Done), ("c", S::Done), ("d", S::Doing)], 59, Ok(look(3))),
        (&[("a", S::Done), ("b", S::Doing)], 29, Ok(look(1))),
        (&[("a", S::Done), ("b", S::Doing)], 30, Err("b")),
        (&[("a", S::Done), ("b", S::Done)], 29, Ok(begin(2))),
        (&[("a", S::Done), ("b", S::Done)], 30, Err("c")),
        (&[("a", S::Done), ("b", S::Done), ("c", S::Doing)], 30, Err("c")),
    ];
    for (entries, now, expected) in cases {
        let seen = decide(&plan, &journal(&plan, entries), &CALM, at(*now));
        match expected {
            Ok(expected) => assert_eq!(seen, *expected, "{entries:?} at {now}"),
            Err(expected) => match seen {
                Decision::TurnBack(Cause::StepFailed { step, failure }) => {
                    assert_eq!((step.as_str(), failure.code.as_str()), (*expected, "deadline-exceeded"));
                    assert!(failure.message.starts_with("could not lift them within 30s: still "), "{failure}");
                }
                other => panic!("{other:?} for {entries:?} at {now}"),
            },
        }
    }
}

#[test]
fn nobody_sleeps_through_a_shared_deadline() {
    let plan = plan(2, None).bounded_by(stretch("a", "b", 30)).unwrap();
    let mut journal = journal(&plan, &[("a", StepState::Done), ("b", StepState::Doing)]);
    for (look_again, expected) in [(20, 20), (40, 30)] {
        journal.entry_mut("b").unwrap().look_again = Some(at(look_again));
        assert_eq!(decide(&plan, &journal, &CALM, at(10)), Decision::Wait { until: at(expected) });
    }
}

#[test]
fn waiting_is_written_once_however_often_it_is_looked_at() {
    let warehouse = Warehouse::with(vec![Fault::Slow]);
    let journal = drive(&warehouse, &plan(1, None), None, 100);
    assert_eq!(journal.outcome, Some(Outcome::Succeeded));
    let state = warehouse.state.lock().unwrap();
    assert!(state.now_in_seconds() >= 20, "it was not slow");
    // The new journal, the intent, what is waited for, the evidence, the end.
    assert_eq!(state.saves, 5);
}

#[test]
fn a_shared_deadline_after_the_point_of_no_return_fails_forward() {
    let plan = plan(2, Some(0)).bounded_by(stretch("a", "b", 30)).unwrap();
    let journal = journal(&plan, &[("a", StepState::Done), ("b", StepState::Doing)]);
    let seen = decide(&plan, &journal, &CALM, at(30));
    assert!(matches!(seen, Decision::Close(Outcome::Failed { ref step, .. }) if step == "b"), "{seen:?}");
}

#[test]
fn a_shared_deadline_must_name_steps_of_the_plan_in_order_and_is_part_of_what_is_sealed() {
    for (from, to) in [("b", "a"), ("x", "b"), ("a", "x")] {
        let refused = plan(2, None).bounded_by(stretch(from, to, 1));
        assert_eq!(refused, Err(PlanError::UnknownStretch { from: from.into(), to: to.into() }));
    }
    let mut bounded = plan(2, None).bounded_by(stretch("a", "b", 1)).unwrap();
    assert_eq!(bounded.verify(), Ok(()));
    bounded.stretches.clear();
    assert_eq!(bounded.verify(), Err(PlanError::Altered));
}

#[test]
fn what_is_let_go_puts_back_only_what_it_holds_outside_at_any_time() {
    use StepState as S;
    let lets_go = Facts { let_go: Some("the shelf burns".into()), ..CALM };
    let mut steps = plan(3, Some(1)).steps;
    steps[0].outside = true;
    steps[2].releases.push("a".into());
    let plan = Plan::new("warehouse", "op", json!({}), steps).unwrap();
    let why = "the shelf burns".to_owned();
    let undo = Decision::Begin { step: 0, direction: Direction::Undo };
    let ended = Decision::Close(Outcome::LetGo { why: why.clone() });
    let cases: &[(&[(&str, S)], Decision)] = &[
        (&[], ended.clone()),
        (&[("a", S::Doing)], undo.clone()),
        (&[("a", S::Failed)], undo.clone()),
        (&[("a", S::Undone)], ended.clone()),
        (&[("a", S::Leftover)], ended.clone()),
        (&[("a", S::Done), ("b", S::Doing)], undo.clone()),
        (&[("a", S::Done), ("b", S::Undoing)], undo.clone()),
        // What a later step has released already is nobody's any more.
        (&[("a", S::Done), ("b", S::Done), ("c", S::Done)], ended),
    ];
    for (entries, expected) in cases {
        let mut journal = journal(&plan, entries);
        assert_eq!(decide(&plan, &journal, &lets_go, at(1)), Decision::LetGo(why.clone()), "{entries:?}");
        journal.course = Course::LetGo { why: why.clone() };
        assert_eq!(decide(&plan, &journal, &lets_go, at(1)), *expected, "{entries:?}");
    }
    // Also when it had ended long before: what it has left outside is put back, and nothing else is tried again.
    let mut journal = journal(&plan, &[("a", S::Done), ("b", S::Leftover)]);
    let failed = Outcome::Failed { step: "b".into(), failure: Failure::permanent("too-heavy", "x") };
    journal.outcome = Some(failed.clone());
    assert_eq!(decide(&plan, &journal, &lets_go, at(1)), Decision::LetGo(why.clone()));
    journal.course = Course::LetGo { why: why.clone() };
    assert_eq!(decide(&plan, &journal, &lets_go, at(1)), undo);
    journal.entry_mut("a").unwrap().state = S::Undone;
    assert_eq!(decide(&plan, &journal, &lets_go, at(1)), Decision::Rest(failed));
    let left = journal.leftovers(&plan);
    assert_eq!((left.len(), left[0].why.as_str(), left[0].retried), (1, "the shelf burns", false));
}
