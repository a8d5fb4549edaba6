//! What is understood, and what is refused.

use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<Cli, String> {
    Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn common_flags_are_understood_before_and_after_the_verb() {
    let cli =
        parse("windlass -n a upgrade app notes --to chart=1.4.1,image/notes=2.0.1 -o json --timeout 10m").unwrap();
    assert_eq!((cli.common.namespace.as_deref(), cli.common.output), (Some("a"), OutputFormat::Json));
    let Verb::Upgrade { what: UpgradeWhat::App { upgrade, .. } } = cli.verb else { panic!("not an upgrade") };
    let to: Vec<_> = upgrade.to.iter().map(|to| (to.component.as_deref(), to.version.as_str())).collect();
    assert_eq!(to, [(Some("chart"), "1.4.1"), (Some("image/notes"), "2.0.1")]);
    assert_eq!(upgrade.asking.timeout, Some(Duration::from_mins(10)));
    assert!(parse("windlass list -n a -A").is_err());
}

#[test]
fn automatic_rollback_can_be_asked_for_with_and_without_a_word() {
    for (flag, expected) in [
        ("", None),
        ("--auto-rollback", Some(UpgradePolicy::Always)),
        ("--auto-rollback=never", Some(UpgradePolicy::Never)),
    ] {
        let cli = parse(&format!("windlass upgrade app notes --to 1 {flag}")).unwrap();
        let Verb::Upgrade { what: UpgradeWhat::App { upgrade, .. } } = cli.verb else { panic!("not an upgrade") };
        assert_eq!(upgrade.auto_rollback, expected);
    }
}

#[test]
fn a_plan_refuses_what_it_could_only_ignore() {
    for what in ["app notes --to 1", "rollback app notes"] {
        assert!(parse(&format!("windlass plan {what} --reason r --accept a --timeout 10m")).is_ok(), "{what}");
        for flag in ["--dry-run", "--yes", "--no-wait", "--no-queue"] {
            assert!(parse(&format!("windlass plan {what} {flag}")).is_err(), "{what} {flag}");
        }
    }
    for what in ["upgrade app notes --to 1", "rollback app notes"] {
        for flags in ["--dry-run --yes", "--yes --no-wait --no-queue"] {
            assert!(parse(&format!("windlass {what} {flags}")).is_ok(), "{what} {flags}");
        }
        for flag in ["--no-wait", "--no-queue"] {
            assert!(parse(&format!("windlass {what} --dry-run {flag}")).is_err(), "{what} {flag}");
        }
    }
}

#[test]
fn a_rollback_goes_to_one_place() {
    assert!(parse("windlass rollback app notes --to rp --to-request up").is_err());
    let cli = parse("windlass plan rollback app notes --data keep --exit-code").unwrap();
    assert!(matches!(cli.verb, Verb::Plan { what: PlanWhat::Rollback { .. }, exit_code: true }));
}

#[test]
fn requests_are_named_with_or_without_their_kind() {
    let kind = |text: &str| text.parse::<RequestArg>().map(|request| request.kind);
    assert_eq!(kind("notes-2"), Ok(None));
    assert_eq!(kind("upgrade/notes-2"), Ok(Some(OperationKind::UpgradeRequest)));
    assert_eq!(kind("rollbackrequests.upgrades.windlass.dev/notes-2"), Ok(Some(OperationKind::RollbackRequest)));
    for bad in ["pod/x", "upgrade/", "", "upgrade/a/b"] {
        assert!(kind(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_version_of_a_blocked_version_is_not_that_of_the_command() {
    let cli = parse("windlass unblock app notes --component chart --version 1.4.1").unwrap();
    let Verb::Unblock { blocked, .. } = cli.verb else { panic!("not an unblock") };
    assert_eq!(blocked, "1.4.1");
}
