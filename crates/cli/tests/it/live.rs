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
