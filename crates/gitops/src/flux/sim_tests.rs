//! The delivery against an API server, with the test in the place of the Flux controllers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::{conditions, wait::await_condition};
use kube_sim::controllers::flux_crds;
use kube_sim::{Config, Identity, SimServer};
use serde_json::{Value, json};
use upgrade_core::Failure;
use upgrade_core::ports::{
    AppRef, Applied, CarrierKind, Delivery, DeliveryRole, Hold, ObjectRef, PinPart, PinValue, Rendered, Renderer,
    TemplateMatch,
};

use super::fixtures::{
    OLDER, OURS, apps_object, git_repository, helm_chart, helm_repository, kustomization, pin, release, release_object,
    release_pins, revision,
};
use super::live::{Live, Objects, REQUESTED_AT, known};
use super::{FluxDelivery, FluxOptions, FluxRenderer};

#[path = "charts_tests.rs"]
mod charts;
mod files;
mod plain;
mod strangers;

use files::{Files, repository};

/// How long each request takes.
const LATENCY: Duration = Duration::from_millis(10);

struct World {
    server: SimServer,
    delivery: FluxDelivery,
}

fn app() -> AppRef {
    AppRef { namespace: "notes".into(), name: "notes".into(), uid: "app".into() }
}

fn web() -> ObjectRef {
    ObjectRef::new("apps", "Deployment", "notes", "web")
}

fn hold(operation: &str, token: &str) -> Hold {
    let (operation, stage, token) = (operation.into(), "held".into(), token.into());
    Hold { operation, stage, as_found: None, token, take_over: Vec::new() }
}

impl World {
    /// The healthy app of the fixtures: a HelmRelease with a Deployment, under a Kustomization.
    async fn new() -> Self {
        let server = SimServer::new(Config { always_allow: true, latency: LATENCY, ..Config::default() });
        let delivery = FluxDelivery::new(server.client(), FluxOptions::default());
        let world = Self { server, delivery };
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(world.server.client());
        for name in ["notes", "flux-system"] {
            let namespace = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
            namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        }
        for definition in flux_crds() {
            world.define(definition).await;
        }
        for fixture in [release(), kustomization(), git_repository(), helm_chart(), helm_repository()] {
            world.create(&fixture).await;
        }
        let labels = json!({ "helm.toolkit.fluxcd.io/name": "notes", "helm.toolkit.fluxcd.io/namespace": "notes" });
        world.create(&deployment("2.0", &labels)).await;
        world.store_release(5, "deployed", "1.1.0", "2.0").await;
        world
    }

    fn api(&self, object: &ObjectRef) -> Api<DynamicObject> {
        Api::namespaced_with(self.server.client(), &object.namespace, &known(object).unwrap())
    }

    async fn define(&self, definition: CustomResourceDefinition) {
        let name = definition.metadata.name.clone().unwrap();
        let definitions: Api<CustomResourceDefinition> = Api::all(self.server.client());
        definitions.create(&PostParams::default(), &definition).await.unwrap();
        await_condition(definitions, &name, conditions::is_crd_established()).await.unwrap();
    }

    async fn create(&self, fixture: &Live) {
        let mut json = fixture.json.clone();
        let metadata = json["metadata"].as_object_mut().unwrap();
        metadata.remove("uid");
        metadata.remove("annotations");
        let object: DynamicObject = serde_json::from_value(json.clone()).unwrap();
        let made = self.api(&fixture.object).create(&PostParams::default(), &object).await.unwrap();
        // The fixtures are of generation 3; here it is what the server counts.
        let generation = made.metadata.generation;
        let mut status = json["status"].take();
        for field in ["observedGeneration", "lastAttemptedGeneration"] {
            if status.get(field).is_some() {
                status[field] = generation.into();
            }
        }
        self.status(&fixture.object, status).await;
    }

    /// What a controller writes.
    async fn status(&self, object: &ObjectRef, status: Value) {
        let patch = Patch::Merge(json!({ "status": status }));
        self.api(object).patch_status(&object.name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// What a controller answers to the newest request, when it has nothing else to do.
    async fn answer(&self, object: &ObjectRef) {
        let live = self.read(object).await;
        let generation = live.json.pointer("/metadata/generation").cloned().unwrap();
        let status = json!({
            "lastHandledReconcileAt": live.annotation(REQUESTED_AT),
            "observedGeneration": generation,
            "lastAttemptedGeneration": generation
        });
        self.status(object, status).await;
    }

    async fn change(&self, object: &ObjectRef, patch: Value) {
        self.api(object).patch(&object.name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    async fn read(&self, object: &ObjectRef) -> Live {
        Objects { client: self.server.client() }.get(object).await.unwrap()
    }

    async fn uid(&self, object: &ObjectRef) -> String {
        self.read(object).await.uid().to_owned()
    }

    async fn store_release(&self, number: i64, status: &str, chart: &str, tag: &str) {
        let manifest = deployment(tag, &json!({})).json.to_string();
        self.store_manifest(number, status, (chart, tag), manifest).await;
    }

    async fn store_manifest(&self, number: i64, status: &str, (chart, tag): (&str, &str), manifest: String) {
        let release = json!({
            "name": "notes", "namespace": "notes", "version": number, "info": { "status": status },
            "chart": { "metadata": { "name": "notes", "version": chart } },
            "config": { "image": { "tag": tag } },
            "manifest": manifest,
            "hooks": [{ "name": "migrate", "kind": "Job", "events": ["pre-upgrade"] }]
        });
        let payload = base64::engine::general_purpose::STANDARD.encode(release.to_string());
        let secret = serde_json::from_value(json!({
            "metadata": { "name": format!("sh.helm.release.v1.notes.v{number}"), "labels": { "owner": "helm", "name": "notes" } },
            "type": "helm.sh/release.v1",
            "stringData": { "release": payload }
        }))
        .unwrap();
        let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(self.server.client(), "notes");
        secrets.create(&PostParams::default(), &secret).await.unwrap();
    }

    async fn template(&self, own: ObjectRef, pins: &[PinValue]) -> TemplateMatch {
        self.delivery.template(&[own], &web(), &[], pins, "op/start").await.unwrap()
    }
}

fn deployment(tag: &str, labels: &Value) -> Live {
    let app = json!({ "app": "web" });
    let json = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "web", "namespace": "notes", "labels": labels },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": app },
            "template": {
                "metadata": { "labels": app },
                "spec": { "containers": [{ "name": "web", "image": format!("ghcr.io/x/notes:{tag}") }] }
            }
        },
        "status": {}
    });
    Live { object: web(), json }
}

fn code(result: Result<(), Failure>) -> (String, bool) {
    let failure = result.unwrap_err();
    (failure.code, failure.retryable)
}

#[tokio::test(start_paused = true)]
async fn a_suspension_is_proven_by_the_token_and_leaves_no_trace_when_it_ends() {
    let world = World::new().await;
    let object = release_object();
    let uid = world.uid(&object).await;
    world.delivery.suspend(&object, &uid, &hold("op-1", "t-1")).await.unwrap();
    let held = world.delivery.suspension(&object).await.unwrap().unwrap();
    assert_eq!((held.suspend, held.held_by.as_deref()), (Some(true), Some("op-1")));
    assert_eq!((held.as_found, held.stage.as_deref()), (Some(None), Some("held")));
    assert_ne!(held.handled.as_deref(), Some("t-1"), "nobody has answered yet");

    world.answer(&object).await;
    assert_eq!(world.delivery.suspension(&object).await.unwrap().unwrap().handled.as_deref(), Some("t-1"));
    let before = world.read(&object).await.resource_version().to_owned();
    world.delivery.suspend(&object, &uid, &hold("op-1", "t-1")).await.unwrap();
    world.delivery.set_stage(&object, &uid, "op-1", "held").await.unwrap();
    assert_eq!(world.read(&object).await.resource_version(), before, "repeating writes nothing");

    world.delivery.set_stage(&object, &uid, "op-1", "committed").await.unwrap();
    assert_eq!(world.delivery.suspension(&object).await.unwrap().unwrap().stage.as_deref(), Some("committed"));

    world.delivery.resume(&object, &uid, "op-1", None, "t-2").await.unwrap();
    let free = world.read(&object).await;
    assert_eq!(free.json.pointer("/spec/suspend"), None);
    assert_eq!(free.json["metadata"]["annotations"], json!({ "reconcile.fluxcd.io/requestedAt": "t-2" }));
    let managers = free.json["metadata"]["managedFields"].as_array().unwrap();
    let ours: Vec<&Value> = managers.iter().filter(|entry| entry["manager"] == "windlass").collect();
    assert!(
        ours.iter().all(|entry| entry.pointer("/fieldsV1/f:spec").is_none()),
        "we own nothing of the spec: {ours:?}"
    );

    let before = free.resource_version().to_owned();
    world.delivery.resume(&object, &uid, "op-1", None, "t-2").await.unwrap();
    assert_eq!(world.read(&object).await.resource_version(), before, "repeating writes nothing");
}

#[tokio::test(start_paused = true)]
async fn of_two_operations_at_once_exactly_one_holds_the_object() {
    let world = World::new().await;
    let object = apps_object();
    let uid = world.uid(&object).await;
    let (one, two) = (hold("op-1", "t-1"), hold("op-2", "t-2"));
    let (first, second) =
        tokio::join!(world.delivery.suspend(&object, &uid, &one), world.delivery.suspend(&object, &uid, &two));
    let holder = world.delivery.suspension(&object).await.unwrap().unwrap().held_by.unwrap();
    let (won, lost) = if holder == "op-1" { (first, second) } else { (second, first) };
    won.unwrap();
    assert_eq!(code(lost), ("held-by-other-operation".into(), false));
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_writes_in_between_does_not_stop_us() {
    let world = World::new().await;
    let object = release_object();
    let uid = world.uid(&object).await;
    let token = hold("op-1", "t-1");
    // Lands after our reading and before our writing.
    let in_between = async {
        tokio::time::sleep(LATENCY / 2).await;
        world.status(&object, json!({ "failures": 1 })).await;
    };
    let (suspended, ()) = tokio::join!(world.delivery.suspend(&object, &uid, &token), in_between);
    suspended.unwrap();
    let ours: Vec<u16> = world.server.audit().iter().filter(|e| e.manager == "windlass").map(|e| e.code).collect();
    assert_eq!(ours, [409, 200]);
    assert_eq!(world.delivery.suspension(&object).await.unwrap().unwrap().suspend, Some(true));
}

#[tokio::test(start_paused = true)]
async fn an_object_made_anew_is_not_the_one_that_was_planned_with() {
    let world = World::new().await;
    let object = release_object();
    let uid = world.uid(&object).await;
    world.api(&object).delete(&object.name, &DeleteParams::default()).await.unwrap();
    assert_eq!(world.delivery.suspension(&object).await.unwrap(), None);
    assert_eq!(code(world.delivery.suspend(&object, &uid, &hold("op-1", "t")).await).0, "object-replaced");
    world.create(&release()).await;
    assert_eq!(code(world.delivery.suspend(&object, &uid, &hold("op-1", "t")).await).0, "object-replaced");
    assert_eq!(code(world.delivery.resume(&object, &uid, "op-1", None, "t").await).0, "object-replaced");
    assert_eq!(world.read(&object).await.suspend(), None);
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_is_permanent_and_named() {
    let server = SimServer::new(Config::default());
    let nobody = Identity { name: "nobody".into(), groups: vec!["system:authenticated".into()] };
    let delivery = FluxDelivery::new(server.client_as(nobody), FluxOptions::default());
    let workload = web();
    let failure = delivery.freeze(&workload, "uid", true).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("api-forbidden", false));
    assert!(failure.hint.contains("`get` on `deployments.apps`"), "{}", failure.hint);
}

#[tokio::test(start_paused = true)]
async fn the_chain_is_told_roots_first_with_its_sources() {
    let world = World::new().await;
    let facts = world.delivery.inspect(&app(), &[release_object()]).await.unwrap();
    let chain: Vec<_> = facts.objects.iter().map(|facts| (facts.object.clone(), facts.role, facts.own)).collect();
    let (root, own) =
        ((apps_object(), DeliveryRole::Manifests, false), (release_object(), DeliveryRole::Release, true));
    assert_eq!(chain, [root, own]);
    assert_eq!(facts.objects.iter().flat_map(|facts| facts.refusals.clone()).collect::<Vec<_>>(), []);
    assert!(facts.objects[1].warnings[0].contains("Job/migrate"), "{:?}", facts.objects[1].warnings);
    assert_eq!(facts.sources.len(), 1);
    assert_eq!(facts.sources[0].commit.as_deref(), Some(OURS));
}

#[tokio::test(start_paused = true)]
async fn a_chain_with_holes_is_refused_and_not_an_error() {
    let world = World::new().await;
    let codes = async || {
        let facts = world.delivery.inspect(&app(), &[release_object()]).await.unwrap();
        let refusals = facts.objects.into_iter().flat_map(|facts| facts.refusals);
        refusals.map(|(code, _)| code).collect::<Vec<_>>()
    };
    let source = git_repository().object;
    world.api(&source).delete(&source.name, &DeleteParams::default()).await.unwrap();
    assert_eq!(codes().await, ["source-missing"]);
    world.api(&apps_object()).delete("apps", &DeleteParams::default()).await.unwrap();
    assert_eq!(codes().await, ["not-from-git"]);
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(world.server.client(), "notes");
    secrets.delete("sh.helm.release.v1.notes.v5", &DeleteParams::default()).await.unwrap();
    assert_eq!(codes().await, ["not-installed", "not-from-git"]);
}

#[tokio::test(start_paused = true)]
async fn kustomizations_in_a_circle_are_refused() {
    let world = World::new().await;
    let mut other = kustomization();
    other.object.name = "other".into();
    other.json["metadata"]["name"] = "other".into();
    world.create(&other).await;
    for (object, above) in [(&other.object, "apps"), (&apps_object(), "other")] {
        let labels = json!({ "kustomize.toolkit.fluxcd.io/name": above, "kustomize.toolkit.fluxcd.io/namespace": "flux-system" });
        world.change(object, json!({ "metadata": { "labels": labels } })).await;
    }
    let failure = world.delivery.inspect(&app(), &[release_object()]).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("delivery-cycle", false));
}

#[tokio::test(start_paused = true)]
async fn carriers_show_what_each_place_has_now() {
    let world = World::new().await;
    let source = git_repository().object;
    let own = [release_object()];
    let mut pins = release_pins();
    pins.push(pin("image/x", "Deployment/unknown", "spec.x", "1"));
    let carriers = world.delivery.carriers(&app(), &own, &[source], &pins).await.unwrap();
    let shown: Vec<_> = carriers.iter().map(|carrier| (carrier.kind, carrier.shows.as_deref())).collect();
    assert_eq!(
        shown,
        [
            (CarrierKind::Artifact, Some(OURS)),
            (CarrierKind::LiveSpec, Some("1.1.0")),
            (CarrierKind::LiveSpec, Some("2.0")),
            (CarrierKind::LiveSpec, None)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_template_of_a_release_is_the_newest_stored_ones() {
    let world = World::new().await;
    let own = release_object();
    let TemplateMatch::Target { resource_version, replicas, .. } = world.template(own.clone(), &release_pins()).await
    else {
        panic!("not the target")
    };
    assert_eq!(resource_version, world.read(&web()).await.resource_version());
    assert_eq!(replicas, 2);
    // A newer release in progress, before its template is on the live object.
    world.store_release(10, "pending-upgrade", "1.1.0", "2.0").await;
    world.change(&web(), json!({ "spec": { "template": { "metadata": { "annotations": { "old": "1" } } } } })).await;
    assert!(matches!(world.template(own.clone(), &release_pins()).await, TemplateMatch::Target { .. }));
    world.store_release(11, "pending-upgrade", "1.0.0", "2.0").await;
    let TemplateMatch::Not(why) = world.template(own.clone(), &release_pins()).await else { panic!("the target") };
    assert!(why.contains("is of chart 1.0.0"), "{why}");
    let failure = world.delivery.template(&[apps_object()], &web(), &[], &[], "op/start").await.unwrap_err();
    assert_eq!(failure.code, "workload-not-delivered");
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_applied_when_every_object_has_answered() {
    let world = World::new().await;
    let own = [release_object()];
    let applied = async || world.delivery.applied(&app(), &own, &release_pins(), &[OURS.into()]).await.unwrap();
    assert!(matches!(applied().await, Applied::Done { .. }), "{:?}", applied().await);
    let objects = [git_repository().object, apps_object(), release_object()];
    for object in &objects {
        world.delivery.poke(object, "t-7").await.unwrap();
        let Applied::Pending(missing) = applied().await else { panic!("{object} has not answered") };
        assert!(missing.contains("has not answered the newest request"), "{missing}");
        world.answer(object).await;
        assert!(matches!(applied().await, Applied::Done { .. }));
    }
    let other = world.delivery.applied(&app(), &own, &release_pins(), &[OLDER.into()]).await.unwrap();
    assert!(matches!(other, Applied::Pending(_)));
}

#[tokio::test(start_paused = true)]
async fn poking_what_is_not_there_says_so() {
    let world = World::new().await;
    let gone = ObjectRef { name: "gone".into(), ..release_object() };
    assert_eq!(code(world.delivery.poke(&gone, "t").await), ("object-gone".into(), false));
    let unknown = ObjectRef::new("example.com", "Thing", "notes", "x");
    assert_eq!(code(world.delivery.poke(&unknown, "t").await).0, "delivery-unsupported");
}

#[tokio::test(start_paused = true)]
async fn a_chart_source_that_is_suspended_or_gone_is_refused() {
    let world = World::new().await;
    let codes = async || {
        let facts = world.delivery.inspect(&app(), &[release_object()]).await.unwrap();
        let release = facts.objects.into_iter().find(|object| object.own).unwrap();
        release.refusals.into_iter().map(|(code, _)| code).collect::<Vec<_>>()
    };
    assert_eq!(codes().await, [""; 0]);
    let charts = helm_repository().object;
    world.change(&charts, json!({ "spec": { "suspend": true } })).await;
    assert_eq!(codes().await, ["suspended-by-others"]);
    world.api(&charts).delete(&charts.name, &DeleteParams::default()).await.unwrap();
    assert_eq!(codes().await, ["source-missing"]);
}

#[tokio::test(start_paused = true)]
async fn a_kustomization_is_rendered_from_the_repository_that_its_source_reads() {
    let world = World::new().await;
    world.change(&apps_object(), json!({ "spec": { "path": "./apps" } })).await;
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data, namespace: notes}\n";
    let files = BTreeMap::from([
        ("apps/kustomization.yaml".to_owned(), "resources: [../base/claim.yaml]".to_owned()),
        ("base/claim.yaml".to_owned(), claim.to_owned()),
    ]);
    let helm = Arc::new(windlass_helm::HelmCli::new("/nowhere/helm".as_ref()));
    let renderer = FluxRenderer::new(world.server.client(), Arc::new(Files(files)), helm);
    let render = async |object: ObjectRef, url: &str| {
        renderer.render(&app(), &object, &[(repository(url), OURS.to_owned())], &[]).await.unwrap()
    };
    let unknown = |rendered: Rendered| match rendered {
        Rendered::Unknown(why) => why,
        Rendered::Pieces(pieces) => panic!("{pieces:?}"),
    };
    let found = render(apps_object(), "https://git.example.com/apps.git").await;
    assert_eq!(found.delivered, [release_object(), web()]);
    let Rendered::Pieces(pieces) = found.rendered else { panic!("{:?}", found.rendered) };
    assert_eq!(pieces[0].object, ObjectRef::new("", "PersistentVolumeClaim", "notes", "data"));

    let elsewhere = render(apps_object(), "https://git.example.com/other.git").await;
    assert!(unknown(elsewhere.rendered).contains("no repository of the app"));
    for (spec, why) in [
        (json!({ "components": ["../x"] }), "spec.components"),
        (json!({ "components": null, "namePrefix": "x-" }), "spec.namePrefix"),
        (json!({ "namePrefix": null, "patches": [{ "patch": "$patch: delete" }] }), "spec.patches"),
        (json!({ "patches": null, "path": "../x" }), "out of the repository"),
    ] {
        world.change(&apps_object(), json!({ "spec": spec })).await;
        let found = unknown(render(apps_object(), "https://git.example.com/apps").await.rendered);
        assert!(found.contains(why), "{found}");
    }
}
