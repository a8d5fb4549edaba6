//! What a person sees on a terminal while something goes on.

use super::*;

const CLEAR: &str = "\r\u{1b}[2K";

#[tokio::test(start_paused = true)]
async fn on_a_terminal_what_goes_on_is_one_line_that_is_replaced_and_gone_at_the_end() {
    let client = cluster().await;
    operator(&client, 1).await;
    let made = windlass(&client, "upgrade app notes --to 1.4.1 --no-wait").await;
    assert_eq!(made.exit, 0, "{}", made.err);
    let name = first_upgrade(&client).await;
    let line = format!("wait {name} --timeout 2m");
    let live = |session: Session| {
        let printer = session.printer.on_terminal(false, false, true);
        Session { printer, ..session }
    };
    let waiting = async {
        for message in ["waiting for UpgradeRequest a", "waiting for UpgradeRequest b"] {
            tokio::time::sleep(std::time::Duration::from_secs(50)).await;
            let api: Api<UpgradeRequest> = Api::default_namespaced(client.clone());
            let patch = Patch::Merge(json!({"status": {"message": message}}));
            api.patch_status(&name, &PatchParams::default(), &patch).await.unwrap();
        }
    };
    let (ended, ()) = tokio::join!(windlass_in(&client, &line, live), waiting);
    assert_eq!((ended.exit, ended.out.as_str()), (8, ""));
    let (shown, last) = ended.err.rsplit_once(CLEAR).unwrap();
    for waits in
        ["waiting for the operator to take it up", "waiting for UpgradeRequest a", "waiting for UpgradeRequest b"]
    {
        assert!(shown.matches(&format!("{CLEAR}\u{1b}[?7l{waits}\u{1b}[?7h")).count() > 10, "{waits}: {shown:?}");
    }
    assert!(!shown.contains('\n') && !shown.contains("still:"), "{shown:?}");
    assert!(last.starts_with(&format!("upgrade/{name}: not over after 2m")), "{last:?}");

    let plain = windlass(&client, &line).await;
    assert!(
        !plain.err.contains('\u{1b}') && plain.err.contains("still: waiting for UpgradeRequest b"),
        "{}",
        plain.err
    );
}

#[tokio::test(start_paused = true)]
async fn what_objects_say_cannot_move_the_cursor() {
    let client = cluster().await;
    operator(&client, 1).await;
    let apps: Api<ManagedApp> = Api::default_namespaced(client.clone());
    let running = async |current: Value| {
        let patch = Patch::Merge(json!({"status": {"current": current}}));
        apps.patch_status("notes", &PatchParams::default(), &patch).await.unwrap();
    };
    running(json!({"chart": "1.4.0\u{1b}[1A\u{1b}[2K"})).await;
    let asked = windlass_answering(&client, "upgrade app notes --to 1.4.1", Some("no\n")).await;
    assert!(asked.err.contains("Upgrade default/notes: chart 1.4.0 [1A [2K -> 1.4.1\n"), "{:?}", asked.err);
    for outcome in ["NothingToDo", "Refused", "Cancelled"] {
        let status = json!({"outcome": outcome, "message": "no-pins: \u{1b}[2Jnone"});
        let (planned, ()) =
            tokio::join!(windlass(&client, "plan app notes --to 1.4.1"), conclude_upgrade(&client, &status));
        assert!(planned.err.contains("no-pins:  [2Jnone\n"), "{:?}", planned.err);
    }
    running(json!({"image\u{1b}[2J": "2"})).await;
    let refused = windlass(&client, "upgrade app notes --to 1.4.1").await;
    assert!(refused.err.contains("notes has several components (chart, image [2J)"), "{:?}", refused.err);

    let api: Api<UpgradeRequest> = Api::default_namespaced(client.clone());
    let request: UpgradeRequest = from(json!({
        "apiVersion": "upgrades.windlass.dev/v1alpha1", "kind": "UpgradeRequest", "metadata": {"name": "up"},
        "spec": {"subject": {"kind": "ManagedApp", "name": "a"}, "target": {"components": {"chart": "1\u{1b}[2J"}}},
    }));
    api.create(&PostParams::default(), &request).await.unwrap();
    conclude_upgrade(&client, &json!({"outcome": "Failed", "message": "so \u{1b}[2J it went"})).await;
    let failed = windlass(&client, "wait up").await;
    assert!(failed.err.contains("Next: see what is left: windlass show app a -n default\n"), "{:?}", failed.err);
    assert!(!failed.err.contains('\u{1b}') && !failed.out.contains('\u{1b}'), "{:?} {:?}", failed.err, failed.out);
}
