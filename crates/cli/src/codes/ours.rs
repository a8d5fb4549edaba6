//! Errors of this command.

use super::Row;

pub(super) const CODES: &[Row] = &[
    (
        "app-busy",
        "Another operation works on the app, and --no-queue was given.",
        "Wait for it, or leave --no-queue out: requests wait for their turn.",
    ),
    ("app-not-named", "The app was given as something else than one name.", "Write NAME or `app NAME`."),
    (
        "cannot-start",
        "The process could not set itself up.",
        "See the message: a limit of the machine is the usual reason.",
    ),
    (
        "cannot-write-output",
        "Standard output or standard error could not be written.",
        "Check where the output goes; the operation itself is not touched by this.",
    ),
    (
        "component-not-named",
        "A version was given alone, and the app has several components or none that is known.",
        "Write COMPONENT=VERSION.",
    ),
    ("component-twice", "One component was given two versions.", "Name each component once."),
    (
        "declined",
        "The question was not answered with yes.",
        "Nothing was changed; repeat the command when you are sure.",
    ),
    (
        "demo-failed",
        "The demo on the simulated cluster did not go as it should, or one of its checks failed.",
        "Nothing of yours was touched. Please report it with what was printed.",
    ),
    ("no-cluster", "No kubeconfig describes a cluster that can be used.", "Set --kubeconfig, --context or KUBECONFIG."),
    (
        "no-operator",
        "No operator holds a lease that is being renewed, so a request would only lie there.",
        "Start the operator, or say where it runs with --operator-namespace.",
    ),
    (
        "not-confirmed",
        "Something may be lost, and there is no terminal to ask on.",
        "Read what is said to be lost, and repeat the command with --yes.",
    ),
    ("not-found", "The object is not there, in this namespace.", "Check the name and the namespace (-n)."),
    (
        "operator-unknown",
        "The operator's lease could not be read, so whether there is one cannot be told.",
        "Ask for the right to get leases in the operator's namespace.",
    ),
    (
        "plan-unreadable",
        "The plan was made by another version of Windlass, or is not one.",
        "Use the command of the operator's version.",
    ),
    ("request-ambiguous", "An upgrade and a rollback have this name.", "Write upgrade/NAME or rollback/NAME."),
    (
        "request-gone",
        "The request was deleted while it was followed.",
        "Look at the app: `show app` says how the last operation ended.",
    ),
    (
        "request-maybe-made",
        "The answer to the creation of a request was lost, so whether it is there cannot be told.",
        "Look before you repeat it: `windlass wait NAME` or `windlass history APP`.",
    ),
    (
        "rollback-target-not-named",
        "The last operation of the app is not an upgrade that could be taken back.",
        "Name an upgrade (--to-request) or a restore point (--to).",
    ),
    ("unknown-code", "`explain` was asked about something that is not a code.", "List all codes: `windlass explain`."),
];
