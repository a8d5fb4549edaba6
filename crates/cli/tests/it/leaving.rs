//! Ctrl-C and `kill`: a command leaves at once, and the operation goes on.

use std::process::Stdio;
use std::time::Duration;

use kube_sim::Identity;
use kube_sim::faults::{Fault, Faults, Matcher, Rule};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use windlass_cli::{Exit, Signals};

use super::*;

/// What is at once, in the test's time.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Runs a command, to which a signal is sent when `until` is over.
async fn interrupted(client: &Client, line: &str, signal: Exit, until: impl Future<Output = ()>) -> Ended {
    let (sender, signals) = Signals::sent();
    let kill = async {
        until.await;
        // What it does meanwhile, it does.
        tokio::time::sleep(Duration::from_secs(5)).await;
        sender.send(signal).unwrap();
        tokio::time::Instant::now()
    };
    let command = async {
        let ended = windlass_in(client, line, |session| Session { signals, ..session }).await;
        (ended, tokio::time::Instant::now())
    };
    let hour = Duration::from_secs(3600);
    let both = async { tokio::join!(command, kill) };
    let ((ended, left), sent) = tokio::time::timeout(hour, both).await.expect("it does not leave");
    assert!(left >= sent && left - sent < AT_ONCE, "it left {:?} later: {}", left - sent, ended.err);
    ended
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_told_to_end_detaches_and_says_how_to_go_on_watching() {
    for (signal, exit) in [(Exit::Interrupted, 130), (Exit::Terminated, 143)] {
        let client = cluster().await;
        operator(&client, 1).await;
        let ended =
            interrupted(&client, "upgrade app notes --to 1.4.1", signal, async { drop(first_upgrade(&client).await) })
                .await;
        let request = upgrades(&client).await.remove(0);
        let name = request.name_any();
        assert_eq!((ended.exit, ended.out.as_str()), (exit, ""));
        let text = format!(
            "upgrade/{name}: detached; the operation goes on.\n  follow it again: windlass wait upgrade/{name} -n default\n"
        );
        assert!(ended.err.contains(&text), "{}", ended.err);
        assert_eq!((request.spec.cancel, request.metadata.deletion_timestamp), (None, None));

        let again = interrupted(&client, &format!("wait {name} -o json"), signal, async {}).await;
        assert_eq!(again.exit, exit);
        let last: Value = serde_json::from_str(again.out.lines().last().unwrap()).unwrap();
        let expected = (json!("Detached"), json!(exit), json!(format!("windlass wait upgrade/{name} -n default")));
        assert_eq!((&last["kind"], &last["exitCode"], &last["followAgain"]), (&expected.0, &expected.1, &expected.2));
    }
}

/// A client whose requests to create an upgrade are executed, and their answers are not seen.
fn unanswered(server: &SimServer, fault: Fault) -> Client {
    let faults = Faults::new(1);
    faults.add(Rule::new(Matcher::any().verb("create").resource("upgraderequests"), fault));
    faults.client(server, Identity::admin())
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_told_to_end_before_the_answer_names_what_may_have_been_made() {
    for (signal, exit) in [(Exit::Interrupted, 130), (Exit::Terminated, 143)] {
        let server = server().await;
        let client = server.client();
        operator(&client, 1).await;
        let through = unanswered(&server, Fault::Hang);
        let made = async { drop(first_upgrade(&client).await) };
        let ended = interrupted(&through, "upgrade app notes --to 1.4.1 -o json", signal, made).await;
        let name = first_upgrade(&client).await;
        assert_eq!(ended.exit, exit, "{}", ended.err);
        let text = format!(
            "upgrade/{name}: detached before the answer came; it may have been made.\n  follow it again: windlass wait upgrade/{name} -n default\n"
        );
        assert!(ended.err.contains(&text), "{}", ended.err);
        let document: Value = serde_json::from_str(&ended.out).unwrap();
        assert_eq!((&document["kind"], &document["exitCode"]), (&json!("Detached"), &json!(exit)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_answer_was_lost_may_have_been_made_and_is_named() {
    for (line, exit) in [("upgrade app notes --to 1.4.1 -o json", 8), ("plan app notes --to 1.4.1 -o json", 1)] {
        let server = server().await;
        let client = server.client();
        operator(&client, 1).await;
        let ended = windlass(&unanswered(&server, Fault::LostReply), line).await;
        let name = first_upgrade(&client).await;
        assert_eq!(ended.exit, exit, "{line}: {}", ended.err);
        assert!(ended.err.contains(&format!(". upgrade/{name} may have been made all the same\n")), "{}", ended.err);
        let look = format!("windlass wait upgrade/{name} -n default");
        assert_eq!(ended.err.contains(&look), exit == 8, "{}", ended.err);
        let document: Value = serde_json::from_str(&ended.out).unwrap();
        assert_eq!((&document["kind"], &document["code"]), (&json!("Error"), &json!("request-maybe-made")));
    }
}

/// The client sends a request again whose answer was bad, and is told that it exists.
#[tokio::test(start_paused = true)]
async fn a_request_that_was_sent_twice_is_made_once() {
    let client = cluster().await;
    operator(&client, 1).await;
    // The clock stands still, so that both have one name.
    for _ in 0..2 {
        let made = windlass(&client, "upgrade app notes --to 1.4.1 --no-wait").await;
        assert_eq!(made.exit, 0, "{}", made.err);
    }
    let other = windlass(&client, "upgrade app notes --to 1.4.1 --no-wait --reason other").await;
    assert_eq!(other.exit, 0, "{}", other.err);
    let api: Api<UpgradeRequest> = Api::default_namespaced(client.clone());
    assert_eq!(api.list(&kube::api::ListParams::default()).await.unwrap().items.len(), 2);
}

/// An upgrade that failed, and whose rollback is at work.
async fn rolling_back(client: &Client) {
    let name = first_upgrade(client).await;
    let rollback: RollbackRequest = from(json!({
        "apiVersion": "upgrades.windlass.dev/v1alpha1", "kind": "RollbackRequest", "metadata": {"name": "back"},
        "spec": {"subject": {"kind": "ManagedApp", "name": "notes"}, "to": {"upgradeRequest": name}, "data": "Restore"},
    }));
    let api: Api<RollbackRequest> = Api::default_namespaced(client.clone());
    api.create(&PostParams::default(), &rollback).await.unwrap();
    conclude_upgrade(client, &json!({"outcome": "RolledBack", "message": "unhealthy", "rollback": "back"})).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_leaves_at_once_from_the_rollback_that_took_over() {
    let client = cluster().await;
    operator(&client, 1).await;
    let line = "upgrade app notes --to 1.4.1";
    let ended = interrupted(&client, line, Exit::Interrupted, rolling_back(&client)).await;
    assert_eq!(ended.exit, 130, "{}", ended.err);
    assert!(ended.err.contains("follow it again: windlass wait rollback/back -n default\n"), "{}", ended.err);
    let api: Api<RollbackRequest> = Api::default_namespaced(client.clone());
    assert_eq!(api.get("back").await.unwrap().spec.cancel, None);
}

#[tokio::test(start_paused = true)]
async fn a_command_leaves_at_once_while_it_looks_for_the_rollback_that_took_over() {
    let server = server().await;
    let client = server.client();
    operator(&client, 1).await;
    let faults = Faults::new(1);
    faults.add(Rule::new(Matcher::any().verb("get").resource("rollbackrequests"), Fault::Hang));
    let through = faults.client(&server, Identity::admin());
    let line = "upgrade app notes --to 1.4.1";
    let ended = interrupted(&through, line, Exit::Terminated, rolling_back(&client)).await;
    assert_eq!(ended.exit, 143, "{}", ended.err);
    assert!(!ended.err.contains("Following"), "{}", ended.err);
    let again = format!("windlass wait upgrade/{} -n default\n", first_upgrade(&client).await);
    assert!(ended.err.contains(&again), "{}", ended.err);
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_is_not_waited_for_leaves_no_request_unless_that_takes_long_too() {
    for hangs in [false, true] {
        let server = server().await;
        let client = server.client();
        operator(&client, 1).await;
        let faults = Faults::new(1);
        let (sender, signals) = Signals::sent();
        if hangs {
            faults.add(Rule::new(Matcher::any().verb("delete").resource("upgraderequests"), Fault::Hang));
        }
        let through = faults.client(&server, Identity::admin());
        let plan = windlass_in(&through, "plan app notes --to 1.4.1 -o json", |session| Session { signals, ..session });
        let kill = async {
            first_upgrade(&client).await;
            sender.send(Exit::Interrupted).unwrap();
            tokio::time::sleep(Duration::from_secs(5)).await;
            // Nobody may be there any more to take it.
            let _ = sender.send(Exit::Interrupted);
        };
        let both = async { tokio::join!(plan, kill) };
        let (ended, ()) = tokio::time::timeout(Duration::from_secs(3600), both).await.expect("it does not leave");
        assert_eq!(ended.exit, 130, "{}", ended.err);
        let document: Value = serde_json::from_str(&ended.out).unwrap();
        assert_eq!((&document["kind"], &document["exitCode"]), (&json!("Detached"), &json!(130)));
        assert_eq!(ended.err.contains("only planned and may be deleted."), hangs, "{}", ended.err);
        if !hangs {
            assert!(upgrades(&client).await.is_empty());
        }
    }
}

async fn kill(child: &Child, signal: &str) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().await.unwrap().success());
}

async fn code(child: &mut Child) -> Option<i32> {
    tokio::time::timeout(Duration::from_secs(60), child.wait()).await.expect("it does not end").unwrap().code()
}

#[tokio::test]
async fn the_program_takes_the_signals_of_its_process() {
    let server = server().await;
    let client = server.client();
    let door = server.listen_as(Identity::admin()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, door.kubeconfig()).unwrap();
    let request: UpgradeRequest = from(json!({
        "apiVersion": "upgrades.windlass.dev/v1alpha1", "kind": "UpgradeRequest", "metadata": {"name": "up"},
        "spec": {"subject": {"kind": "ManagedApp", "name": "notes"}, "target": {"components": {"chart": "1.4.1"}}},
    }));
    let api: Api<UpgradeRequest> = Api::default_namespaced(client);
    api.create(&PostParams::default(), &request).await.unwrap();
    let patch = Patch::Merge(json!({"status": {"message": "waiting for somebody"}}));
    api.patch_status("up", &PatchParams::default(), &patch).await.unwrap();
    for (signal, exit) in [("INT", 130), ("TERM", 143)] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_windlass"))
            .args(["wait", "up", "-n", "default"])
            .env("KUBECONFIG", &kubeconfig)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        // It follows by now.
        assert!(lines.next_line().await.unwrap().unwrap().ends_with("waiting for somebody"));
        kill(&child, signal).await;
        assert_eq!(code(&mut child).await, Some(exit));
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "upgrade/up: detached; the operation goes on.");
    }
    assert_eq!(api.get("up").await.unwrap().spec.cancel, None);
}

#[tokio::test]
async fn a_demo_that_is_told_to_end_leaves_nothing_behind() {
    for (signal, exit) in [("INT", 130), ("TERM", 143)] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_windlass"))
            .arg("demo")
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let begun = async {
            // The stage is set, and no command has been run on it.
            while !lines.next_line().await.unwrap().unwrap().contains("operator    a child process") {}
        };
        tokio::time::timeout(Duration::from_secs(120), begun).await.expect("the stage is not set");
        assert_ne!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        kill(&child, signal).await;
        assert_eq!(code(&mut child).await, Some(exit), "{signal}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{signal}");
    }
}
