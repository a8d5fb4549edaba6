//! Which request is followed, and for how long.

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
