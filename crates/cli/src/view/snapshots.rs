//! The restore points of an app, newest first.

use jiff::Timestamp;
use kube::ResourceExt as _;
use serde::Serialize;
use windlass_api::{Components, Consistency, RestorePoint};

use crate::table::{Cell, Style, render};
use crate::text::{ago, components};

/// A restore point.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RestorePointView {
    name: String,
    namespace: String,
    app: String,
    taken_at: Option<Timestamp>,
    consistency: Consistency,
    components: Components,
    request: Option<String>,
    claims: Vec<ClaimView>,
    /// `None`: nobody has looked.
    usable: Option<bool>,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClaimView {
    name: String,
    snapshot: String,
    size: Option<String>,
}

impl From<&RestorePoint> for RestorePointView {
    fn from(point: &RestorePoint) -> Self {
        let status = point.status.clone().unwrap_or_default();
        let void = !point.spec.void.is_empty();
        Self {
            name: point.name_any(),
            namespace: point.namespace().unwrap_or_default(),
            app: point.spec.subject.name.clone(),
            taken_at: point.spec.taken_at,
            consistency: point.spec.consistency,
            components: point.spec.components.clone(),
            request: point.spec.request.clone(),
            claims: point
                .spec
                .data
                .iter()
                .map(|data| ClaimView {
                    name: data.claim.name.clone(),
                    snapshot: data.snapshot.clone(),
                    size: data.size.clone(),
                })
                .collect(),
            usable: if void { Some(false) } else { status.usable },
            reason: if void { point.spec.void.clone() } else { status.reason.unwrap_or_default() },
        }
    }
}

/// One line per restore point.
pub(crate) fn snapshots(points: &[RestorePointView], now: Timestamp, color: bool) -> String {
    let rows: Vec<Vec<Cell>> = points
        .iter()
        .map(|point| {
            let usable = match point.usable {
                Some(true) => Cell::styled("yes", Style::Good),
                Some(false) => Cell::styled("no", Style::Bad),
                None => Cell::styled("unknown", Style::Dim),
            };
            let claims: Vec<String> = point
                .claims
                .iter()
                .map(|claim| match &claim.size {
                    Some(size) => format!("{} ({size})", claim.name),
                    None => claim.name.clone(),
                })
                .collect();
            vec![
                Cell::from(&point.name),
                ago(point.taken_at, now).into(),
                format!("{:?}", point.consistency).into(),
                components(&point.components).into(),
                Cell::from(if claims.is_empty() { "-".to_owned() } else { claims.join(", ") }),
                usable,
                Cell::from(if point.reason.is_empty() { "-" } else { &point.reason }),
            ]
        })
        .collect();
    render(&["NAME", "TAKEN", "APP WAS", "COMPONENTS", "CLAIMS", "USABLE", "REASON"], &rows, color)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn restore_points_say_whether_they_can_be_used() {
        let points = samples::restore_points();
        let views: Vec<RestorePointView> = points.iter().map(RestorePointView::from).collect();
        assert_eq!(
            snapshots(&views, samples::now(), false),
            "\
NAME         TAKEN   APP WAS   COMPONENTS    CLAIMS               USABLE    REASON
notes-2f6c   2s      Stopped   chart=1.4.0   data-notes-0 (1Gi)   unknown   -
notes-3f6c   -       Stopped   chart=1.4.0   -                    no        the app was started again before the release
"
        );
    }
}
