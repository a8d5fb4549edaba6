//! Whatever happens, in whatever order: the rules hold and the operation ends.

use proptest::prelude::*;

use jiff::SignedDuration;

use super::world::{Fault, Warehouse, drive, drive_with, plan};
use crate::engine::{Outcome, Plan, Signals, StepState, Stretch};

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        2 => Just(Fault::CrashAfterEffect),
        2 => Just(Fault::CrashBeforeEffect),
        2 => Just(Fault::Transient),
        1 => Just(Fault::Permanent),
        1 => Just(Fault::Slow),
        2 => Just(Fault::ReplyLost),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_operation_ends_and_leaves_all_or_nothing(
        script in proptest::collection::vec(fault(), 0..24),
        crates in 1_usize..6,
        irrevocable in proptest::option::of(0_usize..6),
        cancel in proptest::option::of(0_usize..20),
        guard_lost in any::<bool>(),
        guard_goes_at in proptest::option::of(0_usize..16),
    ) {
        let irrevocable = irrevocable.filter(|at| *at < crates);
        let plan = plan(crates, irrevocable);
        let warehouse = Warehouse::with(script);
        {
            let mut state = warehouse.state.lock().unwrap();
            (state.guard_lost, state.guard_goes_at) = (guard_lost, guard_goes_at);
        }
        let journal = drive(&warehouse, &plan, cancel, 2000);
        let state = warehouse.state.lock().unwrap();
        let leftovers = journal.leftovers(&plan);
        match journal.outcome.clone() {
            None => prop_assert!(false, "it never ended: {journal:?}"),
            Some(Outcome::Succeeded) => {
                prop_assert_eq!(state.lifted.len(), crates);
            }
            Some(Outcome::Undone(_)) => {
                // Everything that is still lifted is listed, and nothing else is.
                let listed: Vec<&str> = leftovers.iter().map(|left| left.step.as_str()).collect();
                for id in &state.lifted {
                    prop_assert!(listed.contains(&id.as_str()), "{id} is left and not listed");
                }
                // After the point of no return nothing is undone.
                prop_assert!(irrevocable.is_none_or(|at| journal.entry(&plan.steps[at].id).is_none_or(|entry| !entry.begun)));
            }
            Some(Outcome::LetGo { .. }) => prop_assert!(false, "nobody asked for it"),
            Some(Outcome::Failed { .. }) => {
                prop_assert!(irrevocable.is_some_and(|at| journal.entry(&plan.steps[at].id).is_some_and(|entry| entry.begun)));
                prop_assert!(!state.effects.iter().any(|effect| effect.starts_with('-')), "undone after the point of no return");
            }
        }
        // Undoing goes newest first; what could not be undone then is undone when it can be.
        let undone = state.effects.iter().filter_map(|effect| effect.strip_prefix('-'));
        let in_time: Vec<&str> = undone.filter(|step| !state.left_over.contains(*step)).collect();
        prop_assert!(in_time.windows(2).all(|pair| pair[0] > pair[1]), "{:?}", state.effects);
        prop_assert!(journal.entries.iter().all(|entry| entry.begun || entry.state != StepState::Done));
    }

    #[test]
    fn the_same_script_gives_the_same_journal(script in proptest::collection::vec(fault(), 0..16)) {
        let plan = plan(4, Some(2));
        let first = drive(&Warehouse::with(script.clone()), &plan, None, 2000);
        let second = drive(&Warehouse::with(script), &plan, None, 2000);
        prop_assert_eq!(first, second);
    }

    /// What the bounds of a record count on.
    #[test]
    fn one_step_at_most_is_left_unfinished_without_an_undo_and_what_is_done_has_no_error(
        script in proptest::collection::vec(fault(), 0..24),
        undone in proptest::collection::vec(any::<bool>(), 5),
        irrevocable in proptest::option::of(0_usize..5),
        cancel in proptest::option::of(0_usize..20),
    ) {
        let mut steps = plan(5, irrevocable).steps;
        for (step, _) in steps.iter_mut().zip(&undone).filter(|(_, undone)| !**undone) {
            step.undo = None;
        }
        let plan = Plan::new("warehouse", "op", serde_json::json!({}), steps).unwrap();
        let journal = drive(&Warehouse::with(script), &plan, cancel, 2000);
        prop_assert!(journal.outcome.is_some(), "it never ended");
        let (done, unfinished): (Vec<_>, Vec<_>) =
            journal.entries.iter().partition(|entry| entry.state == StepState::Done);
        prop_assert!(done.iter().all(|entry| entry.error.is_none() && entry.waiting_for.is_empty()));
        let stays = |id: &str| plan.step(id).is_some_and(|(_, step)| step.undo.is_none());
        prop_assert!(unfinished.iter().filter(|entry| stays(&entry.step)).count() <= 1, "{unfinished:?}");
    }

    #[test]
    fn nothing_of_a_stretch_is_done_after_its_time(
        script in proptest::collection::vec(fault(), 0..24),
        seconds in 1_i64..90,
        from in 0_usize..3,
        length in 0_usize..3,
    ) {
        let bare = plan(5, Some(4));
        let title = "lift them".into();
        let (from, to) = (bare.steps[from].id.clone(), bare.steps[from + length].id.clone());
        let deadline = SignedDuration::from_secs(seconds);
        let plan = bare.bounded_by(Stretch { title, from: from.clone(), to: to.clone(), deadline }).unwrap();
        let warehouse = Warehouse::with(script);
        let journal = drive(&warehouse, &plan, None, 2000);
        prop_assert!(journal.outcome.is_some(), "it never ended");
        let inside = |id: &String| from <= *id && *id <= to;
        if let Some(first) = journal.entry(&from).filter(|_| journal.outcome == Some(Outcome::Succeeded)) {
            for entry in journal.entries.iter().filter(|entry| inside(&entry.step)) {
                let took = entry.finished_at.unwrap().duration_since(first.started_at);
                prop_assert!(took < deadline, "{} took until {took:#} of {deadline:#}", entry.step);
            }
        }
    }

    #[test]
    fn what_is_let_go_leaves_nothing_outside_and_touches_nothing_else(
        script in proptest::collection::vec(fault(), 0..24),
        outside in proptest::collection::vec(any::<bool>(), 5),
        irrevocable in proptest::option::of(0_usize..5),
        at in 0_usize..20,
    ) {
        let mut steps = plan(5, irrevocable).steps;
        for (step, outside) in steps.iter_mut().zip(&outside) {
            step.outside = *outside;
        }
        let plan = Plan::new("warehouse", "op", serde_json::json!({}), steps).unwrap();
        let warehouse = Warehouse::with(script);
        let signals = |tick| Signals { cancel: false, let_go: (tick >= at).then(|| "it burns".into()) };
        let journal = drive_with(&warehouse, &plan, signals, 2000);
        prop_assert!(journal.outcome.is_some(), "it never ended");
        let state = warehouse.state.lock().unwrap();
        let listed: Vec<String> = journal.leftovers(&plan).into_iter().map(|left| left.step).collect();
        for step in plan.steps.iter().filter(|_| journal.let_go().is_some()) {
            if state.lifted.contains(&step.id) {
                prop_assert!(!step.outside, "{} is left outside", step.id);
                prop_assert!(listed.contains(&step.id), "{} is left and not listed", step.id);
            }
        }
        if matches!(journal.outcome, Some(Outcome::LetGo { .. })) && at == 0 {
            prop_assert!(state.effects.is_empty(), "{:?}", state.effects);
        }
    }
}
