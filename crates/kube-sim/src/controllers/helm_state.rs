//! What helm-controller makes of a release: its state, the next action, the bookkeeping. No I/O.
//!
//! Follows helm-controller 1.6: `DetermineReleaseState`, `actionForState`, `MustResetFailures`, `summarize`.

use std::time::Duration;

use super::charts::ChartMetadata;
use super::conditions::{At, Conditions};
use super::flux_objects::{ActionSpec, HelmReleaseSpec, duration};
use super::helm_status::{HelmReleaseStatus, Snapshot, digest_of};
use super::helm_storage::StoredRelease;

/// How many entries of the history are kept when none of them is a deployed one to keep up to.
const KEEP: usize = 5;

/// State of a release, as far as it decides what happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Absent,
    Locked,
    Unmanaged,
    OutOfSync,
    InSync,
    Failed,
}

/// What the release is compared with.
#[derive(Debug, Clone)]
pub(super) struct Desired {
    pub(super) chart: ChartMetadata,
    pub(super) config_digest: String,
}

/// # Errors
/// When the record has a status that nothing follows from.
pub(super) fn determine(
    last: Option<&StoredRelease>,
    history: &[Snapshot],
    desired: &Desired,
) -> Result<State, String> {
    let Some(last) = last else { return Ok(State::Absent) };
    if last.is_pending() {
        return Ok(State::Locked);
    }
    let status = last.status();
    let Some(current) = history.first() else {
        return Ok(if status == "uninstalled" { State::Absent } else { State::Unmanaged });
    };
    if current.digest != digest_of(last) {
        return Ok(State::Unmanaged);
    }
    match status.as_str() {
        "failed" => Ok(State::Failed),
        "uninstalled" => Ok(State::Absent),
        "deployed" => {
            let same = current.chart_name == desired.chart.name
                && current.chart_version == desired.chart.version
                && current.config_digest == desired.config_digest;
            Ok(if same { State::InSync } else { State::OutOfSync })
        }
        other => Err(format!("unable to determine state for release with status '{other}'")),
    }
}

/// A step towards the desired release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Unlock,
    Install,
    Upgrade,
    /// Back to this record.
    Rollback(i64),
    UninstallRemediation,
}

/// What kind a step is; within one reconcile each kind runs once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepKind {
    Unlock,
    Release,
    Remediate,
}

impl Step {
    pub(super) const fn kind(self) -> StepKind {
        match self {
            Self::Unlock => StepKind::Unlock,
            Self::Install | Self::Upgrade => StepKind::Release,
            Self::Rollback(_) | Self::UninstallRemediation => StepKind::Remediate,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unlock => "unlock",
            Self::Install => "install",
            Self::Upgrade => "upgrade",
            Self::Rollback(_) => "rollback",
            Self::UninstallRemediation => "uninstall",
        }
    }
}

/// What follows from a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// The release is as desired.
    Done,
    Run(Step),
    RetriesExceeded,
    MissingRollbackTarget,
}

/// The part of the spec that governs the release action attempted last.
pub(super) struct Active<'a> {
    spec: &'a ActionSpec,
    install: bool,
    failures: i64,
}

impl<'a> Active<'a> {
    pub(super) fn of(spec: &'a HelmReleaseSpec, status: &HelmReleaseStatus) -> Option<Self> {
        match status.last_attempted_release_action.as_deref() {
            Some("install") => Some(Self { spec: &spec.install, install: true, failures: status.install_failures }),
            Some("upgrade") => Some(Self { spec: &spec.upgrade, install: false, failures: status.upgrade_failures }),
            _ => None,
        }
    }

    /// The interval of the strategy `RetryOnFailure`; `None` with remediation.
    pub(super) fn retry_interval(&self) -> Option<Duration> {
        let strategy = self.spec.strategy.as_ref().filter(|strategy| strategy.name == "RetryOnFailure")?;
        Some(duration(strategy.retry_interval.as_deref(), Duration::from_secs(300)))
    }

    pub(super) const fn failures(&self) -> i64 {
        self.failures
    }

    pub(super) fn retries_exhausted(&self) -> bool {
        exhausted(self.spec, self.failures)
    }

    fn remediates_last_failure(&self) -> bool {
        let remediation = self.spec.remediation.as_ref();
        let retries = remediation.map_or(0, |remediation| remediation.retries);
        remediation.and_then(|remediation| remediation.remediate_last_failure).unwrap_or(!self.install && retries > 0)
    }

    pub(super) fn uninstalls(&self) -> bool {
        let strategy = self.spec.remediation.as_ref().and_then(|remediation| remediation.strategy.as_deref());
        self.install || strategy == Some("uninstall")
    }

    pub(super) fn uninstalls_after_upgrade(&self) -> bool {
        !self.install && self.uninstalls()
    }
}

fn exhausted(spec: &ActionSpec, failures: i64) -> bool {
    let retries = spec.remediation.as_ref().map_or(0, |remediation| remediation.retries);
    retries >= 0 && failures > retries
}

/// The next step for `state`. `forced` says that a one-off action was asked for. Trims the history as a side effect.
pub(super) fn decide(
    state: &State,
    spec: &HelmReleaseSpec,
    status: &mut HelmReleaseStatus,
    stored: &[StoredRelease],
    forced: bool,
) -> Decision {
    let active = Active::of(spec, status);
    let retrying = active.as_ref().is_some_and(|active| active.retry_interval().is_some());
    match state {
        State::Locked => Decision::Run(Step::Unlock),
        State::Absent if exhausted(&spec.install, status.install_failures) && !forced => Decision::RetriesExceeded,
        State::Absent => Decision::Run(Step::Install),
        State::Unmanaged => {
            status.history.clear();
            Decision::Run(Step::Upgrade)
        }
        State::OutOfSync if exhausted(&spec.upgrade, status.upgrade_failures) && !forced => Decision::RetriesExceeded,
        State::OutOfSync => Decision::Run(Step::Upgrade),
        State::InSync => {
            if retrying {
                status.history.truncate(KEEP);
            } else {
                trim(&mut status.history);
            }
            if forced { Decision::Run(Step::Upgrade) } else { Decision::Done }
        }
        State::Failed => {
            let Some(active) = active.filter(|active| !retrying && active.failures > 0 && !forced) else {
                return Decision::Run(Step::Upgrade);
            };
            if active.retries_exhausted() && !active.remediates_last_failure() {
                return Decision::RetriesExceeded;
            }
            let uninstalls = active.uninstalls();
            trim(&mut status.history);
            if uninstalls {
                return Decision::Run(Step::UninstallRemediation);
            }
            let target = previous(&status.history).and_then(|index| status.history.get(index));
            match target {
                Some(target) if stored.iter().any(|release| release.version() == target.version) => {
                    Decision::Run(Step::Rollback(target.version))
                }
                _ => Decision::MissingRollbackTarget,
            }
        }
    }
}

/// Where in the history the last release before the current one is that was deployed.
fn previous(history: &[Snapshot]) -> Option<usize> {
    let deployed = |snapshot: &Snapshot| matches!(snapshot.status.as_str(), "deployed" | "superseded");
    history.iter().skip(1).position(deployed).map(|index| index + 1)
}

fn trim(history: &mut Vec<Snapshot>) {
    let keep = previous(history).map_or(KEEP, |index| index + 1);
    history.truncate(keep);
}

/// Takes what the action left in Helm's records into the history; returns whether it left a new record.
pub(super) fn record(status: &mut HelmReleaseStatus, stored: &[StoredRelease], last_before: i64, action: &str) -> bool {
    let oci_digest = status.last_attempted_revision_digest.clone();
    let mut new = false;
    for release in stored {
        let fresh = Snapshot::of(release);
        if let Some(known) = status.history.iter_mut().find(|known| known.version == fresh.version) {
            *known = Snapshot { action: known.action.take(), oci_digest: known.oci_digest.take(), ..fresh };
        } else if fresh.version > last_before {
            new = true;
            status
                .history
                .insert(0, Snapshot { action: Some(action.to_owned()), oci_digest: oci_digest.clone(), ..fresh });
        }
    }
    new
}

/// Resets the failure counters when what is attempted is not what failed. `reset` says that it was asked for.
pub(super) fn reset_failures(status: &mut HelmReleaseStatus, generation: i64, desired: &Desired, reset: bool) {
    let other_config = status.last_attempted_config_digest.as_ref().is_some_and(|last| *last != desired.config_digest);
    let changed = status.last_attempted_generation != Some(generation)
        || status.last_attempted_revision.as_deref() != Some(&desired.chart.version)
        || other_config;
    if changed || reset {
        (status.failures, status.install_failures, status.upgrade_failures) = (0, 0, 0);
    }
}

/// Whether a request by `annotation` counts: it must equal the reconcile request and be new. Notes it as handled.
pub(super) fn takes_request(
    annotation: Option<&String>,
    requested_at: Option<&String>,
    last_reconcile: Option<&String>,
    last_handled: &mut Option<String>,
) -> bool {
    let Some(request) = annotation else { return false };
    let before = last_handled.replace(request.clone());
    Some(request) == requested_at && last_reconcile != requested_at && before.as_ref() != Some(request)
}

/// Derives Ready from Remediated and Released, and ends a stall when all is well.
pub(super) fn summarize(conditions: &mut Conditions, at: &At) {
    let Some(source) = conditions.get("Remediated").or_else(|| conditions.get("Released")).cloned() else { return };
    let status = if source.type_ == "Remediated" { "False" } else { source.status.as_str() };
    if status == "True" {
        conditions.remove("Stalled");
    }
    conditions.set(at, "Ready", status, &source.reason, &source.message);
}

#[cfg(test)]
mod tests {
    use super::super::flux_objects::{RemediationSpec, StrategySpec};
    use super::super::helm_storage::stored;
    use serde_json::json;

    use super::super::helm_status::values_digest;
    use super::*;

    fn desired(version: &str) -> Desired {
        let chart = ChartMetadata { name: "notes".into(), version: version.into(), app_version: None };
        Desired { chart, config_digest: values_digest(&json!({})) }
    }

    fn with_history(releases: &[StoredRelease]) -> HelmReleaseStatus {
        let mut status = HelmReleaseStatus::default();
        record(&mut status, releases, 0, "upgrade");
        status
    }

    fn remediating(retries: i64, last: Option<bool>, strategy: Option<&str>) -> HelmReleaseSpec {
        let remediation =
            RemediationSpec { retries, remediate_last_failure: last, strategy: strategy.map(str::to_owned) };
        let upgrade = ActionSpec { remediation: Some(remediation), ..ActionSpec::default() };
        HelmReleaseSpec { upgrade, ..HelmReleaseSpec::default() }
    }

    #[test]
    fn the_state_follows_from_the_record_and_what_was_seen_before() {
        let v1 = stored(1, "deployed", "1.0.0", &json!({}));
        let seen = with_history(std::slice::from_ref(&v1)).history;
        let rolled_back_by_hand = stored(2, "deployed", "0.9.0", &json!({}));
        let other_values = Desired { config_digest: values_digest(&json!({ "a": 1 })), ..desired("1.0.0") };
        let cases = [
            (None, vec![], desired("1.0.0"), State::Absent),
            (Some(&v1), vec![], desired("1.0.0"), State::Unmanaged),
            (Some(&v1), seen.clone(), desired("1.0.0"), State::InSync),
            (Some(&v1), seen.clone(), desired("1.1.0"), State::OutOfSync),
            (Some(&v1), seen.clone(), other_values, State::OutOfSync),
            (Some(&rolled_back_by_hand), seen.clone(), desired("1.0.0"), State::Unmanaged),
        ];
        for (last, history, desired, expected) in cases {
            assert_eq!(determine(last, &history, &desired), Ok(expected));
        }
        let pending = stored(2, "pending-upgrade", "1.1.0", &json!({}));
        assert_eq!(determine(Some(&pending), &seen, &desired("1.1.0")), Ok(State::Locked));
    }

    #[test]
    fn a_failed_upgrade_is_remediated_as_the_spec_says() {
        let releases = [stored(1, "deployed", "1.0.0", &json!({})), stored(2, "failed", "1.1.0", &json!({}))];
        let cases = [
            (HelmReleaseSpec::default(), 1, Decision::RetriesExceeded),
            (HelmReleaseSpec::default(), 0, Decision::Run(Step::Upgrade)),
            (remediating(2, None, None), 1, Decision::Run(Step::Rollback(1))),
            (remediating(2, None, None), 3, Decision::Run(Step::Rollback(1))),
            (remediating(2, Some(false), None), 3, Decision::RetriesExceeded),
            (remediating(-1, None, None), 99, Decision::Run(Step::Rollback(1))),
            (remediating(1, None, Some("uninstall")), 1, Decision::Run(Step::UninstallRemediation)),
        ];
        for (spec, failures, expected) in cases {
            let mut status = with_history(&releases);
            status.last_attempted_release_action = Some("upgrade".into());
            status.upgrade_failures = failures;
            assert_eq!(decide(&State::Failed, &spec, &mut status, &releases, false), expected, "{spec:?} {failures}");
            assert_eq!(
                decide(&State::Failed, &spec, &mut status, &releases, true),
                Decision::Run(Step::Upgrade),
                "forced"
            );
        }
    }

    #[test]
    fn retrying_never_gives_up() {
        let releases = [stored(1, "failed", "1.0.0", &json!({}))];
        let strategy = StrategySpec { name: "RetryOnFailure".into(), retry_interval: Some("1s".into()) };
        let upgrade = ActionSpec { strategy: Some(strategy), ..ActionSpec::default() };
        let spec = HelmReleaseSpec { upgrade, ..HelmReleaseSpec::default() };
        let mut status = with_history(&releases);
        (status.last_attempted_release_action, status.upgrade_failures) = (Some("upgrade".into()), 50);
        assert_eq!(decide(&State::Failed, &spec, &mut status, &releases, false), Decision::Run(Step::Upgrade));
    }

    #[test]
    fn a_rollback_needs_a_record_to_go_back_to() {
        let releases = [stored(2, "failed", "1.1.0", &json!({}))];
        let mut status = with_history(&releases);
        (status.last_attempted_release_action, status.upgrade_failures) = (Some("upgrade".into()), 1);
        let decision = decide(&State::Failed, &remediating(3, None, None), &mut status, &releases, false);
        assert_eq!(decision, Decision::MissingRollbackTarget);
    }

    #[test]
    fn the_history_is_newest_first_and_follows_the_records() {
        let mut status = with_history(&[stored(1, "deployed", "1.0.0", &json!({}))]);
        let after = [stored(1, "superseded", "1.0.0", &json!({})), stored(2, "deployed", "1.1.0", &json!({}))];
        assert!(record(&mut status, &after, 1, "upgrade"));
        let seen: Vec<_> = status.history.iter().map(|entry| (entry.version, entry.status.as_str())).collect();
        assert_eq!(seen, [(2, "deployed"), (1, "superseded")]);
        assert!(!record(&mut status, &after, 2, "upgrade"));
    }

    #[test]
    fn counters_are_reset_by_anything_new() {
        let attempted = || HelmReleaseStatus {
            last_attempted_generation: Some(2),
            last_attempted_revision: Some("1.1.0".into()),
            last_attempted_config_digest: Some(values_digest(&json!({}))),
            upgrade_failures: 3,
            ..HelmReleaseStatus::default()
        };
        for (generation, version, reset, left) in
            [(2, "1.1.0", false, 3), (3, "1.1.0", false, 0), (2, "1.2.0", false, 0), (2, "1.1.0", true, 0)]
        {
            let mut status = attempted();
            reset_failures(&mut status, generation, &desired(version), reset);
            assert_eq!(status.upgrade_failures, left);
        }
    }

    #[test]
    fn a_force_request_counts_once_and_only_with_its_reconcile_request() {
        let token = |text: &str| Some(text.to_owned());
        let mut handled = None;
        assert!(!takes_request(token("a").as_ref(), token("b").as_ref(), None, &mut handled));
        assert!(takes_request(token("b").as_ref(), token("b").as_ref(), token("a").as_ref(), &mut handled));
        assert!(!takes_request(token("b").as_ref(), token("b").as_ref(), token("a").as_ref(), &mut handled));
        assert_eq!(handled.as_deref(), Some("b"));
    }

    #[test]
    fn a_remediated_release_is_not_ready() {
        let at = At { now: jiff::Timestamp::UNIX_EPOCH, generation: 1 };
        let mut conditions = Conditions::default();
        conditions.set(&at, "Released", "False", "UpgradeFailed", "");
        conditions.set(&at, "Remediated", "True", "RollbackSucceeded", "");
        summarize(&mut conditions, &at);
        assert_eq!(conditions.reason("Ready"), "RollbackSucceeded");
        assert!(!conditions.is_true("Ready"));
    }
}
