//! Which request is followed, and for how long: also when nobody reads what is written.

use std::time::Duration;

use kube::api::DeleteParams;
use kube_sim::Identity;
use kube_sim::faults::{Fault, Faults, Matcher, Rule};

use super::*;

#[tokio::test(start_paused = true)]
async fn another_request_of_that_name_is_not_followed_in_its_place() {
    let server = server().await;
    let client = server.client();
    let api: Api<UpgradeRequest> = Api::default_namespaced(client.clone());
    let request: UpgradeRequest = from(json!({
        "apiVersion": "upgrades.windlass.dev/v1alpha1", "kind": "UpgradeRequest", "metadata": {"name": "up"},
        "spec": {"subject": {"kind": "ManagedApp", "name": "notes"}, "target": {"components": {"chart": "1.4.1"}}},
    }));
    api.create(&PostParams::default(), &request).await.unwrap();
    let faults = Faults::new(1);
    let late = Fault::Latency(Duration::from_secs(60));
    faults.add(Rule::new(Matcher::any().verb("list").resource("upgraderequests"), late));
    let through = faults.client(&server, Identity::admin());
    let replaced = async {
        // It was found by now, and is not watched yet.
        tokio::time::sleep(Duration::from_secs(30)).await;
        api.delete("up", &DeleteParams::default()).await.unwrap();
        api.create(&PostParams::default(), &request).await.unwrap();
        conclude_upgrade(&client, &json!({"outcome": "Succeeded", "message": "done"})).await;
    };
    let (ended, ()) = tokio::join!(windlass(&through, "wait up"), replaced);
    assert_eq!((ended.exit, ended.out.as_str()), (8, ""), "{}", ended.err);
    assert!(ended.err.contains("upgrade/up was deleted while it was followed"), "{}", ended.err);
}

/// A pipe whose reader leaves after some writes.
struct Pipe(usize);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(1).ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs a command whose output is read as often as that; what is written to standard error is in the result.
async fn read_only(client: &Client, line: &str, times: usize) -> Ended {
    let err = Written::default();
    let printer = Printer::new(Box::new(Pipe(times)), Box::new(err.clone()));
    let ended = windlass_in(client, line, |session| Session { printer, ..session }).await;
    Ended { err: err.text(), ..ended }
}

#[tokio::test(start_paused = true)]
async fn how_it_ended_is_told_also_when_nobody_reads_the_result() {
    for (format, times) in [("table", 0), ("yaml", 0), ("json", 0), ("json", 1)] {
        for (outcome, exit) in [("Succeeded", 0), ("Refused", 3), ("Undone", 4), ("NeedsRollback", 5)] {
            let client = cluster().await;
            operator(&client, 1).await;
            let status = json!({"outcome": outcome, "message": "so it went"});
            let line = format!("upgrade app notes --to 1.4.1 -o {format}");
            let (ended, ()) = tokio::join!(read_only(&client, &line, times), conclude_upgrade(&client, &status));
            assert_eq!(ended.exit, exit, "{format} {outcome}: {}", ended.err);
        }
    }
    let client = cluster().await;
    operator(&client, 1).await;
    for (outcome, exit) in [("Planned", 9), ("Refused", 3)] {
        let status = json!({"outcome": outcome, "message": "so it went", "plan": plan()});
        let line = "plan app notes --to 1.4.1 --exit-code";
        let (ended, ()) = tokio::join!(read_only(&client, line, 0), conclude_upgrade(&client, &status));
        assert_eq!(ended.exit, exit, "{outcome}: {}", ended.err);
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_goes_on_unread_is_not_taken_for_done() {
    let client = cluster().await;
    operator(&client, 1).await;
    let status = json!({"message": "waiting for somebody"});
    let line = "upgrade app notes --to 1.4.1 -o json";
    let (ended, ()) = tokio::join!(read_only(&client, line, 1), conclude_upgrade(&client, &status));
    assert_eq!(ended.exit, 8, "{}", ended.err);
    let name = first_upgrade(&client).await;
    let text = format!("upgrade/{name}: nobody reads the output any more; the operation goes on.\n");
    assert!(ended.err.contains(&text), "{}", ended.err);
    // What only reads has nothing else to say.
    assert_eq!(read_only(&client, "list", 0).await.exit, 0);
}
