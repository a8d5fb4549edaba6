//! Apps: one line each, or one in full.

use jiff::Timestamp;
use kube::ResourceExt as _;
use serde::Serialize;
use windlass_api::{Components, ManagedApp, Outcome, READY, condition};

use crate::request::RequestRef;
use crate::table::{Cell, Style, fields, render};
use crate::text::{ago, clean, components, instant};

/// One app.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppView {
    namespace: String,
    name: String,
    current: Components,
    active: Option<Active>,
    last: Option<Last>,
    ready: Ready,
    pins: Vec<PinView>,
    delivery: Vec<String>,
    blocked: Vec<Blocked>,
    restore_points: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Active {
    request: String,
    since: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Last {
    request: String,
    outcome: Outcome,
    finished_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct PinView {
    component: String,
    repository: String,
    path: String,
    object: String,
    field: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blocked {
    component: String,
    version: String,
    since: Timestamp,
    reason: String,
    request: String,
}

impl From<&ManagedApp> for AppView {
    fn from(app: &ManagedApp) -> Self {
        let status = app.status.clone().unwrap_or_default();
        let named = |kind, name: &str| RequestRef { kind, name: name.to_owned() }.to_string();
        let ready = condition(&status.conditions, READY);
        let own = app.namespace().unwrap_or_default();
        let objects = app.spec.delivery.flux.iter().flat_map(|flux| &flux.objects);
        Self {
            delivery: objects
                .map(|object| {
                    let namespace = object.namespace.as_deref().unwrap_or(&own);
                    format!("{} {namespace}/{}", object.kind.as_str(), object.name)
                })
                .collect(),
            namespace: own.clone(),
            name: app.name_any(),
            current: status.current,
            active: status
                .active_operation
                .map(|active| Active { request: named(active.kind, &active.name), since: active.since }),
            last: status.last_operation.map(|last| Last {
                request: named(last.kind, &last.name),
                outcome: last.outcome,
                finished_at: last.finished_at,
                message: last.message,
            }),
            ready: Ready {
                status: ready.map_or_else(|| "Unknown".into(), |ready| ready.status.clone()),
                reason: ready.map(|ready| ready.reason.clone()).unwrap_or_default(),
                message: ready.map(|ready| ready.message.clone()).unwrap_or_default(),
            },
            pins: app
                .spec
                .git
                .pins
                .iter()
                .map(|pin| PinView {
                    component: pin.component.clone(),
                    repository: pin.repository.clone(),
                    path: pin.path.as_str().to_owned(),
                    object: pin.object.clone(),
                    field: pin.field.clone(),
                })
                .collect(),
            blocked: status
                .blocked_versions
                .into_iter()
                .map(|blocked| Blocked {
                    component: blocked.component,
                    version: blocked.version,
                    since: blocked.since,
                    reason: blocked.reason,
                    request: blocked.request,
                })
                .collect(),
            restore_points: status.restore_points,
        }
    }
}

impl AppView {
    /// What lists are sorted by.
    pub(crate) fn id(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

/// The names of an app's components: those of its pins and those it runs.
pub(crate) fn component_names(app: &ManagedApp) -> Vec<String> {
    let pinned = app.spec.git.pins.iter().map(|pin| pin.component.clone());
    let running = app.status.iter().flat_map(|status| status.current.keys().cloned());
    let mut names: Vec<String> = pinned.chain(running).collect();
    names.sort();
    names.dedup();
    names
}

/// The operation that is at work on the app.
pub(crate) fn active(app: &ManagedApp) -> Option<RequestRef> {
    let active = app.status.as_ref()?.active_operation.as_ref()?;
    Some(RequestRef { kind: active.kind, name: active.name.clone() })
}

fn ready_style(status: &str) -> Style {
    match status {
        "True" => Style::Good,
        "False" => Style::Bad,
        _ => Style::Dim,
    }
}

/// The colour of an outcome.
pub(crate) fn outcome_style(outcome: Outcome) -> Style {
    match outcome {
        Outcome::Succeeded => Style::Good,
        Outcome::NothingToDo | Outcome::Planned | Outcome::Cancelled => Style::Dim,
        Outcome::Refused | Outcome::Undone | Outcome::RolledBack => Style::Busy,
        Outcome::NeedsRollback | Outcome::Failed => Style::Bad,
    }
}

/// One line per app.
pub(crate) fn list(apps: &[AppView], everywhere: bool, now: Timestamp, color: bool) -> String {
    let mut titles = vec!["NAME", "CURRENT", "ACTIVE", "LAST", "READY"];
    if everywhere {
        titles.insert(0, "NAMESPACE");
    }
    let rows: Vec<Vec<Cell>> = apps
        .iter()
        .map(|app| {
            let last = app.last.as_ref().map_or_else(
                || "-".into(),
                |last| {
                    let text = format!("{:?} ({} ago)", last.outcome, ago(Some(last.finished_at), now));
                    Cell::styled(&text, outcome_style(last.outcome))
                },
            );
            let active =
                app.active.as_ref().map_or_else(|| "-".into(), |active| Cell::styled(&active.request, Style::Busy));
            let mut row = vec![
                Cell::from(&app.name),
                components(&app.current).into(),
                active,
                last,
                Cell::styled(&app.ready.status, ready_style(&app.ready.status)),
            ];
            if everywhere {
                row.insert(0, Cell::from(&app.namespace));
            }
            row
        })
        .collect();
    render(&titles, &rows, color)
}

/// One app in full.
pub(crate) fn show(app: &AppView, now: Timestamp, color: bool, program: &str) -> String {
    let ready = match (app.ready.reason.as_str(), app.ready.message.as_str()) {
        ("", "") => app.ready.status.clone(),
        (reason, "") => format!("{} ({reason})", app.ready.status),
        (reason, message) => format!("{} ({reason}): {message}", app.ready.status),
    };
    let active = app.active.as_ref();
    let mut text = fields(&[
        ("App", format!("{}/{}", app.namespace, app.name)),
        ("Delivered by", app.delivery.join(", ")),
        ("Ready", ready),
        (
            "Active",
            active.map(|active| format!("{} for {}", active.request, ago(Some(active.since), now))).unwrap_or_default(),
        ),
        (
            "Last",
            app.last
                .as_ref()
                .map(|last| format!("{}: {:?} {} ago", last.request, last.outcome, ago(Some(last.finished_at), now)))
                .unwrap_or_default(),
        ),
        ("Message", app.last.as_ref().and_then(|last| last.message.clone()).unwrap_or_default()),
        ("Restore points", app.restore_points.map(|number| number.to_string()).unwrap_or_default()),
    ]);
    let mut rows: Vec<Vec<Cell>> = app
        .pins
        .iter()
        .map(|pin| {
            let version = app.current.get(&pin.component).map_or("-", String::as_str);
            let place = format!("{}: {} {} {}", pin.repository, pin.path, pin.object, pin.field);
            vec![Cell::from(&pin.component), version.into(), place.into()]
        })
        .collect();
    let unpinned = app.current.iter().filter(|(component, _)| !app.pins.iter().any(|pin| pin.component == **component));
    rows.extend(unpinned.map(|(component, version)| vec![Cell::from(component), version.into(), "-".into()]));
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&render(&["COMPONENT", "VERSION", "WRITTEN IN"], &rows, color));
    }
    if !app.blocked.is_empty() {
        let rows: Vec<Vec<Cell>> = app
            .blocked
            .iter()
            .map(|blocked| {
                vec![
                    Cell::from(format!("{} {}", blocked.component, blocked.version)),
                    instant(blocked.since).into(),
                    Cell::from(&blocked.request),
                    Cell::from(&blocked.reason),
                ]
            })
            .collect();
        text.push('\n');
        text.push_str(&render(&["BLOCKED", "SINCE", "BY", "REASON"], &rows, color));
    }
    if let Some(active) = active {
        text.push_str(&format!("\nFollow it: {program} wait {} -n {}\n", clean(&active.request), app.namespace));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn apps_are_listed_one_a_line() {
        let apps = [AppView::from(&samples::app()), AppView::from(&samples::bare_app())];
        assert_eq!(
            list(&apps, true, samples::now(), false),
            "\
NAMESPACE   NAME    CURRENT                          ACTIVE            LAST                 READY
notes       notes   chart=1.4.0, image/notes=2.0.0   upgrade/notes-2   Succeeded (2h ago)   False
other       bare    -                                -                 -                    Unknown
"
        );
    }

    #[test]
    fn an_app_is_shown_with_what_it_runs_and_what_is_blocked() {
        assert_eq!(
            show(&AppView::from(&samples::app()), samples::now(), false, "windlass"),
            "\
App:           notes/notes
Delivered by:  HelmRelease notes/notes
Ready:         False (Upgrading): on its way
Active:        upgrade/notes-2 for 60s
Last:          upgrade/notes-1: Succeeded 2h ago
Message:       done

COMPONENT     VERSION   WRITTEN IN
chart         1.4.0     apps: apps/notes/release.yaml HelmRelease/notes spec.chart.spec.version
image/notes   2.0.0     -

BLOCKED       SINCE                  BY        REASON
chart 1.3.9   2026-11-19T14:30:00Z   notes-0   pods crashed

Follow it: windlass wait upgrade/notes-2 -n notes
"
        );
    }

    #[test]
    fn an_app_nobody_has_looked_at_is_unknown_and_not_ready() {
        let view = serde_json::to_value(AppView::from(&samples::bare_app())).unwrap();
        assert_eq!(view["ready"], serde_json::json!({"status": "Unknown"}));
        assert_eq!(view["last"], serde_json::Value::Null);
    }
}
