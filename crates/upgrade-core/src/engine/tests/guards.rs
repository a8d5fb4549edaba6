//! What was lost after the decision stops the effect that was decided on.

use super::world::{Fault, Warehouse, drive, plan};
use crate::engine::Outcome;

#[test]
fn a_guard_that_goes_while_a_step_is_prepared_stops_its_effect() {
    use Fault::{CrashBeforeEffect, None, Permanent};
    let cases: &[(&[Fault], usize, &[&str])] = &[
        (&[], 0, &["+a", "+b", "+c"]),
        (&[], 2, &["+a", "+b", "+c"]),
        // The intent is old: it is judged again, and the guard goes meanwhile.
        (&[CrashBeforeEffect], 1, &["+a", "+b", "+c"]),
        // c was never lifted, so that only b and a are put down.
        (&[None, None, Permanent], 4, &["+a", "+b", "-b", "-a"]),
        (&[None, None, Permanent, CrashBeforeEffect], 5, &["+a", "+b", "-b", "-a"]),
    ];
    for (script, at, effects) in cases {
        let warehouse = Warehouse::with(script.to_vec());
        warehouse.state.lock().unwrap().guard_goes_at = Some(*at);
        // An effect without the guard is a panic there.
        let journal = drive(&warehouse, &plan(3, Option::None), Option::None, 200);
        let state = warehouse.state.lock().unwrap();
        assert_eq!(state.halts, 1, "{script:?} at {at}");
        assert_eq!(state.effects, *effects, "{script:?} at {at}");
        assert_eq!(journal.outcome == Some(Outcome::Succeeded), effects.len() == 3, "{script:?} at {at}");
    }
}
