//! When a step that is under way is looked at again, tried again or waited for.

use jiff::SignedDuration;
use serde_json::json;

use super::tables::{CALM, at, journal};
use super::world::plan;
use crate::Failure;
use crate::engine::{
    Cause, Course, Decision, Direction, Journal, Observation, Outcome, Plan, Step, StepState, decide, settle,
};

#[test]
fn a_step_under_way_is_waited_for_tried_again_or_looked_at() {
    #[derive(Debug, Clone, Copy)]
    enum Next {
        Wait,
        Begin,
        Look,
    }
    use Next::{Begin, Look, Wait};
    let now = at(4);
    // Not to be looked at before this second, whether another try is worth it, whether an effect may exist.
    let cases = [
        (None, false, true, Look),
        (None, true, true, Begin),
        (None, false, false, Begin),
        (None, true, false, Begin),
        (Some(5), false, true, Wait),
        (Some(5), true, true, Wait),
        (Some(5), false, false, Wait),
        (Some(5), true, false, Wait),
        // Due to the second, and long due.
        (Some(4), false, true, Look),
        (Some(4), true, true, Begin),
        (Some(3), false, true, Look),
        (Some(3), true, false, Begin),
    ];
    let plan = plan(2, None);
    for (look_again, retry, begun, next) in cases {
        for direction in [Direction::Do, Direction::Undo] {
            let mut journal = journal(&plan, &[("a", StepState::Doing)]);
            let entry = journal.entry_mut("a").unwrap();
            (entry.look_again, entry.retry, entry.begun) = (look_again.map(at), retry, begun);
            let expected = match next {
                // What was never begun has nothing to undo.
                _ if direction == Direction::Undo && !begun => Decision::Close(Outcome::Undone(Cause::Cancelled)),
                Wait => Decision::Wait { until: at(5) },
                Begin => Decision::Begin { step: 0, direction },
                Look => Decision::Observe { step: 0, direction },
            };
            let about = format!("{look_again:?} retry {retry} begun {begun} {direction:?}");
            if direction == Direction::Undo {
                entry.state = StepState::Undoing;
                journal.course = Course::Back(Cause::Cancelled);
            }
            assert_eq!(decide(&plan, &journal, &CALM, now), expected, "{about}");
            if direction == Direction::Undo {
                // After the end it is the same.
                let ended = Outcome::Undone(Cause::Cancelled);
                journal.outcome = Some(ended.clone());
                let expected = if begun { expected } else { Decision::Rest(ended) };
                assert_eq!(decide(&plan, &journal, &CALM, now), expected, "{about} after the end");
            }
        }
    }
}

#[test]
fn a_pause_that_a_clock_which_was_ahead_has_written_is_not_slept_through() {
    let plan = plan(2, None);
    // Seconds it is ahead, and whether it is believed.
    for (ahead, believed) in [(30, true), (31, false), (3600, false)] {
        let mut journal = journal(&plan, &[("a", StepState::Doing)]);
        journal.entry_mut("a").unwrap().look_again = Some(at(4 + ahead));
        let wait = Decision::Wait { until: at(4 + ahead) };
        let look = Decision::Observe { step: 0, direction: Direction::Do };
        assert_eq!(decide(&plan, &journal, &CALM, at(4)), if believed { wait.clone() } else { look }, "{ahead}");
        let entry = journal.entry_mut("a").unwrap();
        entry.state = StepState::Leftover;
        journal.course = Course::Back(Cause::Cancelled);
        journal.outcome = Some(Outcome::Undone(Cause::Cancelled));
        let again = Decision::Begin { step: 0, direction: Direction::Undo };
        assert_eq!(decide(&plan, &journal, &CALM, at(4)), if believed { wait } else { again }, "{ahead} at the end");
    }
    // Nor is one that long ever written.
    assert_eq!(pause_after(1, 0, Observation::pending("a", 3_600_000)), SignedDuration::from_secs(30));
}

#[test]
fn what_may_be_needed_stays_and_is_not_tried_again() {
    let plan = plan(2, None);
    let mut journal = journal(&plan, &[("a", StepState::Done), ("b", StepState::Done)]);
    let (step, why) = (&plan.steps[1], Failure::permanent("needed", "it is the only one"));
    journal.course = Course::Back(Cause::Cancelled);
    journal.attempt(step, Direction::Undo, at(1));
    settle(&mut journal, step, Direction::Undo, Observation::Kept(why), at(1));
    assert_eq!(journal.entry("b").unwrap().state, StepState::Kept);
    // What is undone after it is undone all the same.
    let next = Decision::Begin { step: 0, direction: Direction::Undo };
    assert_eq!(decide(&plan, &journal, &CALM, at(1)), next);
    journal.entry_mut("a").unwrap().state = StepState::Undone;
    let ended = Outcome::Undone(Cause::Cancelled);
    assert_eq!(decide(&plan, &journal, &CALM, at(1)), Decision::Close(ended.clone()));
    journal.outcome = Some(ended.clone());
    assert_eq!(decide(&plan, &journal, &CALM, at(100_000)), Decision::Rest(ended));
    let left = journal.leftovers(&plan);
    assert_eq!((left.len(), left[0].retried, left[0].why.as_str()), (1, false, "it is the only one"));
}

#[test]
fn a_leftover_is_waited_for_until_it_is_due() {
    let plan = plan(2, None);
    let ended = Outcome::Undone(Cause::Cancelled);
    let retry = |step| Decision::Begin { step, direction: Direction::Undo };
    let cases = [
        (Some(9), Some(7), Decision::Wait { until: at(7) }),
        (Some(7), Some(9), Decision::Wait { until: at(7) }),
        // The newest that is due goes first, also past one that is not.
        (Some(9), Some(4), retry(1)),
        (Some(4), Some(9), retry(0)),
        (Some(4), Some(4), retry(1)),
        (None, None, retry(1)),
    ];
    for (first, second, expected) in cases {
        let mut journal = journal(&plan, &[("a", StepState::Leftover), ("b", StepState::Leftover)]);
        journal.entry_mut("a").unwrap().look_again = first.map(at);
        journal.entry_mut("b").unwrap().look_again = second.map(at);
        journal.course = Course::Back(Cause::Cancelled);
        journal.outcome = Some(ended.clone());
        assert_eq!(decide(&plan, &journal, &CALM, at(4)), expected, "{first:?} {second:?}");
    }
}

/// One step that has an hour, first tried at 0, and what one observation at a later second makes of it.
fn pause_after(attempt: u32, waited: i64, seen: Observation) -> SignedDuration {
    let step = Step::new("a", "lift a", json!({}), SignedDuration::from_hours(1));
    let plan = Plan::new("warehouse", "op", json!({}), vec![step.clone()]).unwrap();
    let mut journal = Journal::new(&plan, at(0));
    journal.attempt(&step, Direction::Do, at(0));
    journal.mark_begun(&step, json!({}));
    journal.entry_mut("a").unwrap().attempt = attempt;
    settle(&mut journal, &step, Direction::Do, seen, at(waited));
    let entry = journal.entry("a").unwrap();
    assert_eq!(entry.state, StepState::Doing);
    entry.look_again.unwrap().duration_since(at(waited))
}

#[test]
fn the_pause_between_attempts_doubles_up_to_half_a_minute() {
    let cases = [
        (0, 500),
        (1, 500),
        (2, 1000),
        (3, 2000),
        (4, 4000),
        (5, 8000),
        (6, 16_000),
        (7, 30_000),
        (8, 30_000),
        (1000, 30_000),
        (u32::MAX, 30_000),
    ];
    for (attempt, millis) in cases {
        let pause = pause_after(attempt, 1, Observation::Failed(Failure::transient("busy", "x")));
        assert_eq!(pause, SignedDuration::from_millis(millis), "attempt {attempt}");
    }
}

#[test]
fn what_takes_long_is_looked_at_less_often_and_never_sooner_than_asked() {
    // Seconds it was waited for, milliseconds asked for, milliseconds until the next look.
    let cases = [
        (0, 200, 200),
        (0, 1000, 1000),
        (4, 200, 200),
        (5, 200, 250),
        (10, 200, 500),
        (10, 1000, 1000),
        (60, 1000, 3000),
        (100, 1000, 5000),
        (3000, 1000, 5000),
        (3000, 20_000, 20_000),
    ];
    for (waited, asked, millis) in cases {
        let pause = pause_after(1, waited, Observation::pending("a", asked));
        assert_eq!(pause, SignedDuration::from_millis(millis), "{asked} asked after {waited} s");
    }
    for (waited, millis) in [(0, 200), (10, 500), (3000, 5000)] {
        assert_eq!(pause_after(1, waited, Observation::absent()), SignedDuration::from_millis(millis), "{waited} s");
    }
}
