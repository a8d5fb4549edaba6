//! What people read of an operation with `kubectl describe` and `kubectl events`.

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use windlass_api::ManagedApp;

use super::*;

/// An upgrade whose third step fails: it and the first are undone then, and the second cannot be.
async fn failing(cluster: &Cluster) -> UpgradeRequest {
    let client = cluster.server.client();
    let apps: Api<ManagedApp> = Api::namespaced(client.clone(), NS);
    let app = json!({
        "metadata": { "name": "notes" },
        "spec": { "delivery": { "flux": { "objects": [{ "kind": "Kustomization", "name": NS, "namespace": "flux-system" }] } } }
    });
    make(&apps, app).await;
    let spec = json!({ "subject": { "kind": "ManagedApp", "name": "notes" }, "target": { "components": { "image/notes": "1.1.0" } } });
    let requests: Api<UpgradeRequest> = Api::namespaced(client.clone(), NS);
    let request = make(&requests, json!({ "metadata": { "name": "up" }, "spec": spec })).await;

    let mut inputs = inputs("root");
    let claim = inputs["claims"][0].clone();
    let volumes: Api<PersistentVolume> = Api::all(client);
    inputs["claims"] = json!([]);
    let mut steps = Vec::new();
    for (name, policy, is_there) in [("kept", "Retain", true), ("unbound", "Delete", true), ("gone", "Delete", false)] {
        let mut claim = claim.clone();
        (claim["name"], claim["volume"], claim["reclaimPolicy"]) = (json!(name), json!(name), json!(policy));
        if is_there {
            let spec = json!({
                "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": policy,
                "csi": { "driver": "d", "volumeHandle": name }
            });
            let volume = make(&volumes, json!({ "metadata": { "name": name }, "spec": spec })).await;
            claim["volumeUid"] = json!(volume.uid());
        }
        inputs["claims"].as_array_mut().unwrap().push(claim);
        let step = AppStep::Protect { claim: name.into() }.to_value();
        let step = Step::new(format!("protect/{name}"), format!("keep {name}"), step, SignedDuration::from_mins(1));
        steps.push(step.undone_by(format!("let {name} go")));
    }
    let plan = Plan::new("app-upgrade", &request.uid().unwrap(), inputs, steps).unwrap();
    let journal = Journal::new(&plan, cluster.context.clock.now());
    let status = json!({ "status": { "plan": plan, "journal": journal } });
    requests.patch_status("up", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap()
}

/// Reconciles it to its end.
async fn run_through(cluster: &Cluster, context: &Arc<Context>) {
    let requests: Api<UpgradeRequest> = Api::namespaced(cluster.server.client(), NS);
    for _ in 0..20 {
        let request = requests.get("up").await.unwrap();
        if request.status.as_ref().is_some_and(|status| status.outcome.is_some()) {
            return;
        }
        reconcile(Arc::new(request), context.clone()).await.unwrap();
    }
    panic!("it does not end");
}

async fn events(cluster: &Cluster) -> Vec<Event> {
    Api::all(cluster.server.client()).list(&ListParams::default()).await.unwrap().items
}

/// `type reason: note`, of the events about one kind, sorted.
fn about(events: &[Event], kind: &str) -> Vec<String> {
    let about = events.iter().filter(|event| event.regarding.as_ref().unwrap().kind.as_deref() == Some(kind));
    let text = |text: &Option<String>| text.clone().unwrap();
    let mut lines: Vec<String> =
        about.map(|one| format!("{} {}: {}", text(&one.type_), text(&one.reason), text(&one.note))).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn every_step_is_told_once_on_the_request_and_on_the_app() {
    let cluster = cluster().await;
    let request = failing(&cluster).await;
    run_through(&cluster, &cluster.context).await;
    let events = events(&cluster).await;
    let told = about(&events, "UpgradeRequest");
    let begins = |line: &str| told.iter().filter(|told| told.starts_with(line)).count();
    for line in [
        "Normal StepDone: keep kept",
        "Normal StepDone: keep unbound",
        "Warning StepFailed: keep gone: ",
        "Normal StepUndone: let kept go",
        "Normal StepUndone: let gone go",
        "Warning StepLeftover: let unbound go: ",
        "Warning Failed: ",
    ] {
        assert_eq!(begins(line), 1, "{line} in {told:#?}");
    }
    assert_eq!(told.len(), 7, "{told:#?}");
    assert_eq!(about(&events, "ManagedApp"), told);
    for event in &events {
        let regarding = event.regarding.as_ref().unwrap();
        let (name, uid) = match regarding.kind.as_deref() {
            Some("UpgradeRequest") => ("up", request.uid()),
            _ => ("notes", regarding.uid.clone()),
        };
        assert_eq!((regarding.name.as_deref(), &regarding.uid), (Some(name), &uid));
        assert_eq!(regarding.api_version.as_deref(), Some("upgrades.windlass.dev/v1alpha1"));
        assert_eq!((event.namespace().as_deref(), regarding.namespace.as_deref()), (Some(NS), Some(NS)));
        assert_eq!(event.action.as_deref(), Some("Upgrade"));
        assert_eq!(event.reporting_controller.as_deref(), Some("windlass-operator"));
        assert_eq!(event.reporting_instance.as_deref(), Some("me"));
        assert!(event.event_time.is_some());
    }
}

#[tokio::test]
async fn what_an_instance_has_told_is_not_told_again_by_the_next_one() {
    let cluster = cluster().await;
    let request = failing(&cluster).await;
    run_through(&cluster, &cluster.context).await;
    let before = events(&cluster).await;
    assert!(!before.is_empty());

    // The same holder in the lease, so that it need not wait; another name in the events.
    let args = Args::parse_from(["windlass-operator", "--namespace", "default"]);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let client = cluster.server.client();
    let mut elector = Elector::new(client.clone(), "default", "me".into(), SignedDuration::from_secs(300), clock);
    let embedding = Embedding::of_this_process();
    let restarted = run::context(&args, &client, embedding, &elector, "it", &CancellationToken::new()).unwrap();
    elector.round().await;
    let restarted = Arc::new(restarted);
    let requests: Api<UpgradeRequest> = Api::namespaced(client, NS);
    reconcile(Arc::new(requests.get("up").await.unwrap()), restarted.clone()).await.unwrap();
    assert_eq!(events(&cluster).await, before);

    // As after a crash in the middle: it decides the same once more.
    let found = request.status.unwrap();
    let nothing = json!({ "plan": null, "journal": null, "outcome": null, "leftovers": null });
    for status in [nothing, json!({ "plan": found.plan, "journal": found.journal })] {
        let patch = Patch::Merge(json!({ "status": status }));
        requests.patch_status("up", &PatchParams::default(), &patch).await.unwrap();
    }
    run_through(&cluster, &restarted).await;
    assert_eq!(events(&cluster).await, before);
}
