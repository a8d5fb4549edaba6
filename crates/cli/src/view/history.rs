//! The requests of an app, newest first.

use jiff::Timestamp;

use super::apps::outcome_style;
use super::request::RequestView;
use crate::table::{Cell, Style, render};
use crate::text::{ago, took};

/// One line per request.
pub(crate) fn history(requests: &[RequestView], now: Timestamp, color: bool) -> String {
    let rows: Vec<Vec<Cell>> = requests
        .iter()
        .map(|request| {
            let state = match (request.outcome, &request.phase) {
                (Some(outcome), _) => Cell::styled(&format!("{outcome:?}"), outcome_style(outcome)),
                (None, Some(phase)) => Cell::styled(phase, Style::Busy),
                (None, None) => Cell::styled("not begun", Style::Dim),
            };
            let span = match (request.started_at, request.finished_at) {
                (Some(start), Some(end)) => took(end.duration_since(start)),
                _ => "-".into(),
            };
            vec![
                Cell::from(&request.request),
                request.asked.in_words().into(),
                state,
                ago(request.created_at, now).into(),
                span.into(),
                request.down_for.map_or_else(|| "-".into(), |down| took(down.as_signed())).into(),
                Cell::from(request.reason.as_deref().unwrap_or("-")),
            ]
        })
        .collect();
    render(&["REQUEST", "ASKED", "OUTCOME", "AGE", "TOOK", "STOPPED", "REASON"], &rows, color)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn requests_are_listed_one_a_line() {
        let requests = [&samples::running_upgrade(), &samples::failed_rollback()].map(RequestView::from);
        assert_eq!(
            history(&requests, samples::now(), false),
            "\
REQUEST                     ASKED                           OUTCOME        AGE   TOOK   STOPPED   REASON
upgrade/notes-2             chart=1.4.1                     Snapshotting   61s   -      -         CVE-2026-0001
rollback/notes-2-rollback   before notes-2, data restored   Failed         61s   50s    30s       -
"
        );
    }
}
