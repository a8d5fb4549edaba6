//! Who says what becomes of an upgrade that a rollback takes over.

use super::inherit::Operation;
use crate::engine::Outcome;

/// How far a rollback is that has begun to take over an upgrade which had failed, the least far first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TakeOver {
    /// It was undone: the upgrade is as it was, and a person decides.
    GivenBack,
    /// It may still be undone: the upgrade is not over.
    Pending,
    /// There is no way back to the upgrade.
    Made,
}

/// Judges it. `over` is whether the rollback's request is: only then it has let go of the app.
pub fn take_over(rollback: &Operation<'_>, over: bool) -> TakeOver {
    match &rollback.journal.outcome {
        _ if rollback.journal.irrevocable(rollback.plan) => TakeOver::Made,
        Some(Outcome::Succeeded | Outcome::Failed { .. }) => TakeOver::Made,
        Some(Outcome::Undone(_) | Outcome::LetGo { .. }) if over => TakeOver::GivenBack,
        Some(Outcome::Undone(_) | Outcome::LetGo { .. }) | None => TakeOver::Pending,
    }
}

/// Of the rollbacks of its app, each with whether its request is over, the one that says what becomes of an upgrade: of those that have
/// taken it over the one that is farthest, and of equals the first.
pub fn farthest<'a, T>(
    upgrade: &str,
    rollbacks: impl IntoIterator<Item = (T, Operation<'a>, bool)>,
) -> Option<(T, TakeOver)> {
    let mut found: Option<(T, TakeOver)> = None;
    for (which, rollback, over) in rollbacks {
        let taken = take_over(&rollback, over);
        let took_it = rollback.inputs.take_over.iter().any(|one| one == upgrade);
        if took_it && found.as_ref().is_none_or(|(_, earlier)| taken > *earlier) {
            found = Some((which, taken));
        }
    }
    found
}

/// Judges a rollback that had begun to take an upgrade over and is not there any more. `succeeded` is whether the app says of it that it
/// did; of any other nobody knows how far it came, and nobody has watched the upgrade meanwhile.
pub fn gone(succeeded: bool) -> TakeOver {
    if succeeded { TakeOver::Made } else { TakeOver::GivenBack }
}

/// What is seen of the request that rolls a failed upgrade back by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Successor {
    /// It was never made.
    Unmade,
    /// It was made and deleted.
    Deleted,
    /// What has its name was made by somebody else, or for another upgrade.
    NotOurs,
    /// It is there, and nothing is known of it yet.
    Waiting,
    /// Its plan is stored: it has begun.
    Begun,
    /// It is over without a plan.
    Ended {
        /// How and why, for people.
        how: String,
    },
}

/// What becomes of an upgrade that has failed, and that no rollback of a person's has taken over or may still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The automatic rollback has it.
    RolledBack,
    /// The automatic rollback is there: what it makes of the upgrade is not known yet.
    Wait,
    /// No rollback was made: whether one follows is to be decided.
    Decide,
    /// A rollback was made and has not begun, or was undone: it is not made twice, a person decides.
    Ask {
        /// For people.
        why: String,
    },
}

/// Decides it. `undone` says which rollback was undone, if one was.
pub fn fate(undone: Option<String>, name: &str, successor: Successor) -> Fate {
    let begins_not = |why: String| Fate::Ask { why: format!("rollback {name} has not begun, because {why}") };
    match (undone, successor) {
        (Some(why), _) => Fate::Ask { why },
        (None, Successor::Unmade) => Fate::Decide,
        (None, Successor::Deleted) => begins_not("it was deleted".into()),
        (None, Successor::NotOurs) => begins_not("its name is taken".into()),
        (None, Successor::Waiting) => Fate::Wait,
        // Also one whose record cannot be read here: nobody can say that it was undone.
        (None, Successor::Begun) => Fate::RolledBack,
        (None, Successor::Ended { how }) => begins_not(format!("it ended as {how}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_that_is_gone_has_taken_over_only_if_the_app_says_that_it_succeeded() {
        assert_eq!(gone(true), TakeOver::Made);
        assert_eq!(gone(false), TakeOver::GivenBack);
    }

    #[test]
    fn a_failed_upgrade_is_left_to_a_person_unless_its_rollback_has_begun_or_still_may() {
        let ask = |why: &str| Fate::Ask { why: format!("rollback up-rollback has not begun, because {why}") };
        let refused = Successor::Ended { how: "Refused: suspended-by-others".into() };
        let cases = [
            (Successor::Unmade, Fate::Decide),
            (Successor::Deleted, ask("it was deleted")),
            (Successor::NotOurs, ask("its name is taken")),
            (Successor::Waiting, Fate::Wait),
            (Successor::Begun, Fate::RolledBack),
            (refused, ask("it ended as Refused: suspended-by-others")),
        ];
        for (successor, expected) in cases {
            assert_eq!(fate(None, "up-rollback", successor.clone()), expected, "{successor:?}");
            let undone = fate(Some("rollback back was undone".into()), "up-rollback", successor.clone());
            assert_eq!(undone, Fate::Ask { why: "rollback back was undone".into() }, "{successor:?}");
        }
    }
}
