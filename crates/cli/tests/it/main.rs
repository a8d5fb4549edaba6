//! The command against an API server in the process, as a person would use it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly, in their helper functions too")]

mod examples;
mod following;
mod leaving;
mod live;

use std::io::{Cursor, Write};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use clap::Parser as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt as _};
use kube_sim::{Config, SimServer};
use serde_json::{Value, json};
use upgrade_core::ports::Clock;
use windlass_api::{ManagedApp, RestorePoint, RollbackRequest, UpgradeRequest};
use windlass_cli::{Cli, Printer, Session, run};

/// What a command wrote to one stream.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// The time of every session, so that an age is what a test says and not what a busy machine makes of it.
fn now() -> Timestamp {
    "2026-12-01T12:00:00Z".parse().unwrap()
}

/// A clock that stands; what waits, waits by tokio's.
struct Standing;

#[async_trait]
impl Clock for Standing {
    fn now(&self) -> Timestamp {
        now()
    }

    async fn sleep(&self, duration: SignedDuration) {
        tokio::time::sleep(duration.try_into().unwrap()).await;
    }
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    exit: u8,
    out: String,
    err: String,
}

/// Runs a command line against the server, in a session that the caller may change.
async fn windlass_in(client: &Client, line: &str, change: impl FnOnce(Session) -> Session) -> Ended {
    let cli = Cli::try_parse_from(std::iter::once("windlass").chain(line.split_whitespace())).unwrap();
    let (out, err) = (Written::default(), Written::default());
    let session = Session::new(Printer::new(Box::new(out.clone()), Box::new(err.clone())));
    let (clock, client, user) = (Arc::new(Standing), Some(client.clone()), Some("jane".into()));
    let mut session = change(Session { clock, client, user, ..session });
    let exit = run(&cli, &mut session).await.code();
    Ended { exit, out: out.text(), err: err.text() }
}

/// The same; `answer` is what a person types when asked.
async fn windlass_answering(client: &Client, line: &str, answer: Option<&'static str>) -> Ended {
    let answers = answer.map(|answer| Box::new(Cursor::new(answer)) as _);
    windlass_in(client, line, |session| Session { answers, ..session }).await
}

async fn windlass(client: &Client, line: &str) -> Ended {
    windlass_answering(client, line, None).await
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

async fn cluster() -> Client {
    server().await.client()
}

/// A cluster with our kinds and one app.
async fn server() -> SimServer {
    let server = SimServer::new(Config { always_allow: true, ..Config::default() });
    let client = server.client();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in windlass_api::crds() {
        definitions.create(&PostParams::default(), &definition).await.unwrap();
        await_condition(definitions.clone(), &definition.name_any(), is_crd_established()).await.unwrap();
    }
    let apps: Api<ManagedApp> = Api::default_namespaced(client.clone());
    let app: ManagedApp = from(json!({
        "apiVersion": "upgrades.windlass.dev/v1alpha1", "kind": "ManagedApp", "metadata": {"name": "notes"},
        "spec": {"delivery": {"flux": {"objects": [{"kind": "HelmRelease", "name": "notes"}]}}},
    }));
    apps.create(&PostParams::default(), &app).await.unwrap();
    let status = json!({"status": {
        "current": {"chart": "1.4.0"},
        "blockedVersions": [
            {"component": "chart", "version": "1.3.9", "since": "2026-01-01T00:00:00Z", "reason": "bad", "request": "a"},
            {"component": "chart", "version": "1.3.8", "since": "2026-01-01T00:00:00Z", "reason": "bad", "request": "b"},
        ],
    }});
    apps.patch_status("notes", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    server
}

/// A lease as a live operator holds it (or held it, some seconds ago).
async fn operator(client: &Client, seconds_ago: i64) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "windlass-system");
    let renewed = now() - SignedDuration::from_secs(seconds_ago);
    let lease: Lease = from(json!({
        "metadata": {"name": "windlass-operator"},
        "spec": {"holderIdentity": "op_1", "leaseDurationSeconds": 15, "renewTime": format!("{renewed:.6}")},
    }));
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    let namespace = from(json!({"metadata": {"name": "windlass-system"}}));
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    leases.create(&PostParams::default(), &lease).await.unwrap();
}

async fn upgrades(client: &Client) -> Vec<UpgradeRequest> {
    let api: Api<UpgradeRequest> = Api::default_namespaced(client.clone());
    api.list(&ListParams::default()).await.unwrap().items
}

/// The name of the first request that appears.
async fn first_upgrade(client: &Client) -> String {
    loop {
        if let Some(request) = upgrades(client).await.first() {
            return request.name_any();
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Plays the operator: writes this status to the first request that appears.
async fn conclude_upgrade(client: &Client, status: &Value) {
    let name = first_upgrade(client).await;
    let api: Api<UpgradeRequest> = Api::default_namespaced(client.clone());
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status(&name, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn apps_are_listed_and_shown() {
    let client = cluster().await;
    let listed = windlass(&client, "list -A").await;
    assert_eq!(
        (listed.exit, listed.out.as_str()),
        (
            0,
            "NAMESPACE   NAME    CURRENT       ACTIVE   LAST   READY\ndefault     notes   chart=1.4.0   -        -      Unknown\n"
        )
    );
    let shown = windlass(&client, "show app notes -o json").await;
    let document: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!((&document["kind"], &document["current"]["chart"]), (&json!("App"), &json!("1.4.0")));
    let shown = windlass(&client, "show app notes -o yaml").await;
    assert!(shown.out.starts_with("apiVersion: cli.windlass.dev/v1\nkind: App\n"), "{}", shown.out);
    assert_eq!(serde_yaml_ng::from_str::<Value>(&shown.out).unwrap(), document);
    let empty = windlass(&client, "list -n elsewhere").await;
    assert_eq!((empty.exit, empty.out.as_str()), (0, ""));
    let missing = windlass(&client, "show app other").await;
    assert_eq!(missing.exit, 1);
    assert!(missing.err.contains("there is no ManagedApp other in namespace default"), "{}", missing.err);
}

#[tokio::test(start_paused = true)]
async fn without_a_live_operator_nothing_is_made() {
    let client = cluster().await;
    let none = windlass(&client, "upgrade app notes --to 1.4.1 --no-wait -o json").await;
    assert_eq!(none.exit, 1);
    let document: Value = serde_json::from_str(&none.out).unwrap();
    assert_eq!((&document["kind"], &document["code"]), (&json!("Error"), &json!("no-operator")));
    operator(&client, 60).await;
    for line in ["upgrade app notes --to 1.4.1", "plan app notes --to 1.4.1"] {
        let stale = windlass(&client, line).await;
        assert_eq!(stale.exit, 1, "{line}");
        assert!(stale.err.contains("op_1 has not renewed lease windlass-operator for 60s"), "{}", stale.err);
    }
    assert!(upgrades(&client).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_made_followed_and_cancelled() {
    let client = cluster().await;
    operator(&client, 1).await;
    let made = windlass(&client, "upgrade app notes --to 1.4.1 --reason CVE --no-wait").await;
    assert_eq!(made.exit, 0, "{}", made.err);
    let request = upgrades(&client).await.remove(0);
    let name = request.name_any();
    assert_eq!(made.out, format!("upgrade/{name} created\n"));
    assert!(name.starts_with("notes-1-4-1-"), "{name}");
    assert_eq!(request.spec.target.components["chart"], "1.4.1");
    assert_eq!((request.spec.reason.as_deref(), request.spec.requested_by.as_deref()), (Some("CVE"), Some("jane")));

    let waited = windlass(&client, &format!("wait {name} --timeout 5s")).await;
    assert_eq!(waited.exit, 8);
    assert!(waited.err.contains(&format!("windlass wait upgrade/{name} -n default")), "{}", waited.err);

    let cancelled = windlass(&client, &format!("cancel upgrade/{name}")).await;
    assert_eq!((cancelled.exit, cancelled.out), (0, format!("upgrade/{name} cancelled\n")));
    assert!(upgrades(&client).await.remove(0).spec.cancel());
    let again = windlass(&client, &format!("cancel {name}")).await;
    assert_eq!(again.out, format!("upgrade/{name} was cancelled already\n"));
    let history = windlass(&client, "history app notes").await;
    assert!(history.out.contains(&format!("upgrade/{name}   chart=1.4.1   not begun")), "{}", history.out);
}

#[tokio::test(start_paused = true)]
async fn the_exit_code_says_how_it_ended() {
    for (outcome, exit) in [("Succeeded", 0), ("Refused", 3), ("Undone", 4), ("NeedsRollback", 5)] {
        let client = cluster().await;
        operator(&client, 1).await;
        let status = json!({"outcome": outcome, "message": "so it went"});
        let (ended, ()) = tokio::join!(
            windlass(&client, "upgrade app notes --to chart=1.4.1 -o json"),
            conclude_upgrade(&client, &status)
        );
        assert_eq!(ended.exit, exit, "{outcome}: {}", ended.err);
        let last: Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
        assert_eq!((&last["kind"], &last["request"]["outcome"]), (&json!("Result"), &json!(outcome)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_was_rolled_back_is_followed_into_its_rollback() {
    let choose = "Next: choose: windlass rollback app notes";
    let look = "Next: see what is left: windlass show app notes";
    for (outcome, exit, next) in [("Succeeded", 4, ""), ("Failed", 5, look), ("Undone", 5, choose)] {
        let client = cluster().await;
        operator(&client, 1).await;
        let play = async {
            let name = first_upgrade(&client).await;
            let rolled_back =
                json!({"outcome": "RolledBack", "message": "unhealthy", "rollback": format!("{name}-rollback")});
            let api: Api<RollbackRequest> = Api::default_namespaced(client.clone());
            let rollback: RollbackRequest = from(json!({
                "apiVersion": "upgrades.windlass.dev/v1alpha1", "kind": "RollbackRequest",
                "metadata": {"name": format!("{name}-rollback")},
                "spec": {"subject": {"kind": "ManagedApp", "name": "notes"}, "to": {"upgradeRequest": name}, "data": "Restore"},
            }));
            api.create(&PostParams::default(), &rollback).await.unwrap();
            conclude_upgrade(&client, &rolled_back).await;
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            let patch = Patch::Merge(json!({"status": {"outcome": outcome, "message": "so it went"}}));
            api.patch_status(&rollback.name_any(), &PatchParams::default(), &patch).await.unwrap();
        };
        let (ended, ()) = tokio::join!(windlass(&client, "upgrade app notes --to 1.4.1"), play);
        assert_eq!(ended.exit, exit, "{}", ended.err);
        assert!(ended.err.contains(next) && ended.err.contains("Next:") != next.is_empty(), "{}", ended.err);
        assert!(ended.err.contains("Following rollback/notes-1-4-1-"), "{}", ended.err);
        assert!(ended.out.contains("-rollback\n"), "{}", ended.out);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_failed_before_its_release_is_not_said_to_need_a_rollback() {
    let client = cluster().await;
    operator(&client, 1).await;
    let status = json!({"outcome": "Failed", "message": "cancelled; not everything is as it was found"});
    let (ended, ()) =
        tokio::join!(windlass(&client, "upgrade app notes --to 1.4.1"), conclude_upgrade(&client, &status));
    assert_eq!(ended.exit, 5, "{}", ended.err);
    assert!(ended.err.contains("Next: see what is left"), "{}", ended.err);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_of_an_earlier_upgrade_of_that_name_is_not_followed() {
    let client = cluster().await;
    operator(&client, 1).await;
    let play = async {
        let name = first_upgrade(&client).await;
        let api: Api<RollbackRequest> = Api::default_namespaced(client.clone());
        let old: RollbackRequest = from(json!({
            "apiVersion": "upgrades.windlass.dev/v1alpha1", "kind": "RollbackRequest", "metadata": {"name": "old"},
            "spec": {"subject": {"kind": "ManagedApp", "name": "notes"}, "to": {"upgradeRequest": name}, "data": "Restore"},
        }));
        api.create(&PostParams::default(), &old).await.unwrap();
        let ended = Patch::Merge(json!({"status": {"outcome": "Succeeded", "message": "done"}}));
        api.patch_status("old", &PatchParams::default(), &ended).await.unwrap();
        conclude_upgrade(&client, &json!({"outcome": "RolledBack", "rollback": "new", "message": "unhealthy"})).await;
    };
    let (ended, ()) = tokio::join!(windlass(&client, "upgrade app notes --to 1.4.1"), play);
    assert_eq!(ended.exit, 8, "{}", ended.err);
    assert!(!ended.err.contains("Following"), "{}", ended.err);
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_shown_and_its_request_is_gone() {
    let client = cluster().await;
    operator(&client, 1).await;
    let status =
        json!({"outcome": "Refused", "message": "downgrade: chart 1.3 is older than 1.4.0 (roll back); no-pins: none"});
    let (ended, _) =
        tokio::join!(windlass(&client, "plan app notes --to 1.3.0 --exit-code"), conclude_upgrade(&client, &status));
    assert_eq!(ended.exit, 3);
    assert!(
        ended.err.contains("  - downgrade: chart 1.3 is older than 1.4.0 (roll back)\n  - no-pins: none\n"),
        "{}",
        ended.err
    );
    assert!(upgrades(&client).await.is_empty());

    let planned = json!({"outcome": "Planned", "message": "1 step; nothing was changed", "plan": plan()});
    let (ended, _) =
        tokio::join!(windlass(&client, "plan app notes --to 1.4.1 --exit-code"), conclude_upgrade(&client, &planned));
    assert_eq!(ended.exit, 9, "{}", ended.err);
    assert!(ended.out.contains("1   push the commit   1m       point of no return"), "{}", ended.out);
    assert!(upgrades(&client).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_only_called_refused_when_it_was() {
    let client = cluster().await;
    operator(&client, 1).await;
    for (outcome, said, exit) in [
        ("Refused", "Refused; nothing was changed:\n  - so it went\n", 3),
        ("NothingToDo", "Nothing to do: so it went\n", 0),
        ("Cancelled", "No plan: Cancelled: so it went\n", 4),
    ] {
        let status = json!({"outcome": outcome, "message": "so it went"});
        let (ended, ()) =
            tokio::join!(windlass(&client, "plan app notes --to 1.4.1"), conclude_upgrade(&client, &status));
        assert_eq!((ended.exit, ended.err.as_str()), (exit, said));
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_is_not_made_in_time_is_a_document_too() {
    let client = cluster().await;
    operator(&client, 1).await;
    for format in ["json", "yaml"] {
        let ended = windlass(&client, &format!("plan app notes --to 1.4.1 --timeout 5s -o {format}")).await;
        assert_eq!(ended.exit, 8, "{}", ended.err);
        let document: Value = serde_yaml_ng::from_str(&ended.out).unwrap();
        let found = ["kind", "exitCode", "reason", "followAgain"].map(|field| document[field].clone());
        assert_eq!(found, [json!("Detached"), json!(8), json!("no plan after 5s"), Value::Null]);
        assert!(upgrades(&client).await.is_empty());
    }
    assert_eq!(windlass(&client, "plan app notes --to 1.4.1 --timeout 5s").await.out, "");
}

fn plan() -> Value {
    use upgrade_core::engine::{Plan, Step};
    let step =
        Step::new("commit/push/apps", "push the commit", Value::Null, SignedDuration::from_mins(1)).irrevocable();
    serde_json::to_value(Plan::new("app-upgrade", "u", json!({}), vec![step]).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_rollback_states_the_loss_and_asks() {
    let client = cluster().await;
    operator(&client, 1).await;
    let points: Api<RestorePoint> = Api::default_namespaced(client.clone());
    let text = include_str!("../../../api/examples/good/restore-point.yaml");
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    let point: RestorePoint = serde::Deserialize::deserialize(documents.into_iter().next().unwrap()).unwrap();
    points.create(&PostParams::default(), &point).await.unwrap();
    let rollbacks: Api<RollbackRequest> = Api::default_namespaced(client.clone());
    let made = async || rollbacks.list(&ListParams::default()).await.unwrap().items;

    let line = "rollback app notes --to notes-2f6c --no-wait";
    for (answer, exit) in [(None, 2), (Some("no\n"), 1), (Some(""), 1)] {
        let ended = windlass_answering(&client, line, answer).await;
        assert_eq!(ended.exit, exit, "{}", ended.err);
        assert!(ended.err.contains("EVERYTHING WRITTEN SINCE 2026-11-20T14:29:58Z"), "{}", ended.err);
        assert!(made().await.is_empty());
    }
    // --yes has read nothing: the operator is who refuses a loss that nobody has named.
    assert_eq!(windlass(&client, &format!("{line} --yes")).await.exit, 0);
    assert_eq!(made().await.remove(0).spec.acknowledge_loss_since, None);
    rollbacks.delete_collection(&Default::default(), &ListParams::default()).await.unwrap();
    assert_eq!(windlass_answering(&client, line, Some("yes\n")).await.exit, 0);
    assert_eq!(made().await.remove(0).spec.acknowledge_loss_since, point.spec.taken_at);

    let unnamed = windlass(&client, "rollback app notes --yes").await;
    assert_eq!(unnamed.exit, 2);
    assert!(unnamed.err.contains("no upgrade of it has begun"), "{}", unnamed.err);
    let snapshots = windlass(&client, "snapshots notes").await;
    assert!(snapshots.out.contains("notes-2f6c"), "{}", snapshots.out);
}

#[tokio::test(start_paused = true)]
async fn another_operation_is_not_waited_for_when_that_is_not_wanted() {
    let client = cluster().await;
    operator(&client, 1).await;
    let apps: Api<ManagedApp> = Api::default_namespaced(client.clone());
    let status = json!({"status": {"activeOperation":
        {"kind": "UpgradeRequest", "name": "notes-1", "uid": "u", "since": "2026-01-01T00:00:00Z"}}});
    apps.patch_status("notes", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let busy = windlass(&client, "upgrade app notes --to 1.4.1 --no-queue").await;
    assert_eq!(busy.exit, 6);
    assert!(busy.err.contains("windlass wait upgrade/notes-1"), "{}", busy.err);
    assert!(upgrades(&client).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_blocked_version_is_allowed_again() {
    let client = cluster().await;
    let line = "unblock app notes --component chart --version 1.3.9";
    let first = windlass(&client, line).await;
    assert_eq!((first.exit, first.out.as_str()), (0, "chart 1.3.9 may be chosen for notes again\n"));
    let apps: Api<ManagedApp> = Api::default_namespaced(client.clone());
    let status = apps.get("notes").await.unwrap().status.unwrap();
    let blocked: Vec<String> = status.blocked_versions.into_iter().map(|blocked| blocked.version).collect();
    assert_eq!((blocked, status.current.len()), (vec!["1.3.8".to_owned()], 1));
    assert_eq!(windlass(&client, line).await.out, "chart 1.3.9 is not blocked for notes\n");
    let document: Value = serde_json::from_str(&windlass(&client, &format!("{line} -o json")).await.out).unwrap();
    assert_eq!((&document["kind"], &document["unblocked"]), (&json!("Unblocked"), &json!(false)));
}

#[tokio::test]
async fn what_needs_no_cluster_works_without_one() {
    let client = SimServer::default().client();
    let crds = windlass(&client, "crd").await;
    assert_eq!(serde_yaml_ng::Deserializer::from_str(&crds.out).count(), 4);
    assert!(windlass(&client, "explain no-operator").await.out.contains("What to do"));
    assert_eq!(windlass(&client, "explain what").await.exit, 2);
    assert!(windlass(&client, "completions bash").await.out.contains("_windlass"));
}
