//! Exit codes: what scripts may rely on.

use std::process::ExitCode;

use windlass_api::Outcome;

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, or nothing to do.
    Done,
    /// 1: something unexpected; the message says what state things are in.
    Unexpected,
    /// 2: the command line cannot be meant.
    Usage,
    /// 3: the preflight refused; nothing was changed.
    Refused,
    /// 4: it was not reached; everything is as it was before, and healthy.
    AsBefore,
    /// 5: it failed and was not put right: a person is needed.
    NotRecovered,
    /// 6: another operation works on the app, and waiting for it was not wanted.
    Busy,
    /// 8: the time was over before the end, an answer was lost, or nobody reads the output any more; the outcome is unknown.
    Unknown,
    /// 9: the plan would change something (`plan --exit-code`).
    ChangesPending,
    /// 130: detached by Ctrl-C; the operation goes on.
    Interrupted,
    /// 143: detached by a termination signal; the operation goes on.
    Terminated,
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::AsBefore => 4,
            Self::NotRecovered => 5,
            Self::Busy => 6,
            Self::Unknown => 8,
            Self::ChangesPending => 9,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// For a request that a person asked for.
    #[must_use]
    pub fn of_outcome(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded | Outcome::NothingToDo | Outcome::Planned => Self::Done,
            Outcome::Refused => Self::Refused,
            Outcome::Cancelled | Outcome::Undone => Self::AsBefore,
            // The rollback's own outcome says more, where it is known.
            Outcome::RolledBack | Outcome::NeedsRollback | Outcome::Failed => Self::NotRecovered,
        }
    }

    /// For an upgrade that failed, by the outcome of the rollback that took over.
    #[must_use]
    pub fn of_rollback_after_failure(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded | Outcome::NothingToDo => Self::AsBefore,
            _ => Self::NotRecovered,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_documented_exit_code() {
        let cases = [
            (Outcome::Succeeded, 0, 4),
            (Outcome::NothingToDo, 0, 4),
            (Outcome::Planned, 0, 5),
            (Outcome::Refused, 3, 5),
            (Outcome::Cancelled, 4, 5),
            (Outcome::Undone, 4, 5),
            (Outcome::RolledBack, 5, 5),
            (Outcome::NeedsRollback, 5, 5),
            (Outcome::Failed, 5, 5),
        ];
        for (outcome, asked, after_failure) in cases {
            assert_eq!(Exit::of_outcome(outcome).code(), asked, "{outcome:?}");
            assert_eq!(Exit::of_rollback_after_failure(outcome).code(), after_failure, "{outcome:?} of the rollback");
        }
    }
}
