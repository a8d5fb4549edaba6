//! Plain manifests: which template a workload has, and keeping it from being applied.

use windlass_api::call::patch_params;
use windlass_api::foreign::RECONCILE;

use super::*;

#[tokio::test(start_paused = true)]
async fn the_template_of_plain_manifests_is_told_by_its_pins() {
    let world = World::new().await;
    let labels = json!({ "metadata": { "labels": {
        "helm.toolkit.fluxcd.io/name": null,
        "kustomize.toolkit.fluxcd.io/name": "apps",
        "kustomize.toolkit.fluxcd.io/namespace": "flux-system"
    } } });
    world.change(&web(), labels).await;
    let image = |value: &str| {
        let mut pin = pin("image/notes", "Deployment/web", "spec.template.spec.containers[name=web].image", value);
        pin.pin.part = PinPart::Tag;
        pin
    };
    let kustomized = |value: &str| pin("image/notes", "#0", "images[name=notes].newTag", value);
    let template = async |from: &[PinValue], to: &[PinValue]| {
        world.delivery.template(&[apps_object()], &web(), from, to, "op/start").await.unwrap()
    };
    for (from, to, is_target) in [
        (vec![image("1.0")], vec![image("2.0")], true),
        (vec![image("1.0")], vec![image("2.1")], false),
        (vec![kustomized("1.0")], vec![kustomized("2.0")], true),
        (vec![kustomized("1.0")], vec![kustomized("2.1")], false),
        (vec![image("2.0"), kustomized("1.0")], vec![image("2.0"), kustomized("2.1")], false),
        // What does not change was there before, and proves nothing.
        (vec![image("2.0")], vec![image("2.0")], false),
        (vec![], vec![], false),
    ] {
        let found = template(&from, &to).await;
        assert_eq!(matches!(found, TemplateMatch::Target { .. }), is_target, "{to:?}: {found:?}");
    }
    // Without one that changes, the template is the target's when what there is was applied since it was asked for.
    world.status(&apps_object(), json!({ "lastHandledReconcileAt": "op/attempt/1" })).await;
    assert!(matches!(template(&[], &[]).await, TemplateMatch::Not(_)), "it may have passed a frozen workload over");
    world.delivery.poke(&apps_object(), "op/start/1").await.unwrap();
    assert!(matches!(template(&[], &[]).await, TemplateMatch::Not(_)), "nobody has answered yet");
    world.answer(&apps_object()).await;
    assert!(matches!(template(&[], &[]).await, TemplateMatch::Target { .. }));
    let substituted = pin("image/notes", "Kustomization/apps", "spec.postBuild.substitute.VERSION", "2.0");
    let substituted = std::slice::from_ref(&substituted);
    let TemplateMatch::Not(why) = template(&[], substituted).await else { panic!("the target") };
    assert!(why.contains("nothing that can be read"), "{why}");
    world.change(&apps_object(), json!({ "spec": { "postBuild": { "substitute": { "VERSION": "2.0" } } } })).await;
    let from = [PinValue { value: "1.0".into(), ..substituted[0].clone() }];
    assert!(matches!(template(&from, substituted).await, TemplateMatch::Not(_)), "not substituted yet");
    world.answer(&apps_object()).await;
    assert!(matches!(template(&from, substituted).await, TemplateMatch::Target { .. }));
    world.status(&apps_object(), json!({ "lastAttemptedRevision": revision(OLDER) })).await;
    assert!(matches!(template(&[], &[]).await, TemplateMatch::Not(_)));
    assert_eq!(world.delivery.attempted(&apps_object()).await.unwrap().as_deref(), Some(OLDER));
}

#[tokio::test(start_paused = true)]
async fn a_frozen_workload_is_marked_and_never_the_target() {
    let world = World::new().await;
    let uid = world.uid(&web()).await;
    for frozen in [true, true, false, false] {
        world.delivery.freeze(&web(), &uid, frozen).await.unwrap();
        assert_eq!(world.delivery.is_frozen(&web()).await.unwrap(), frozen);
    }
    assert_eq!(world.read(&web()).await.json.pointer("/metadata/annotations"), None);
    assert_eq!(code(world.delivery.freeze(&web(), "other", true).await).0, "object-replaced");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_froze_is_neither_frozen_by_us_nor_thawed() {
    let world = World::new().await;
    let uid = world.uid(&web()).await;
    for (kind, value) in [("annotations", "disabled"), ("annotations", "Disabled"), ("labels", "disabled")] {
        let mark = |value: Option<&str>| json!({ "metadata": { kind: { RECONCILE: value } } });
        world.change(&web(), mark(Some(value))).await;
        assert!(!world.delivery.is_frozen(&web()).await.unwrap(), "not by us");
        assert_eq!(code(world.delivery.freeze(&web(), &uid, true).await), ("frozen".to_owned(), false));
        world.delivery.freeze(&web(), &uid, false).await.unwrap();
        let left = world.read(&web()).await;
        let left = left.json["metadata"][kind].get(RECONCILE).and_then(Value::as_str);
        assert_eq!(left, Some(value), "what they wrote stays");
        world.change(&web(), mark(None)).await;
    }
}

fn cron_job(labels: &Value, suspend: Option<bool>) -> Live {
    let object = ObjectRef::new("batch", "CronJob", "notes", "backup");
    let pod = json!({ "restartPolicy": "Never", "containers": [{ "name": "backup", "image": "ghcr.io/x/backup:1" }] });
    let mut json = json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": { "name": "backup", "namespace": "notes", "labels": labels },
        "spec": { "schedule": "0 3 * * *", "jobTemplate": { "spec": { "template": { "spec": pod } } } },
        "status": {}
    });
    if let Some(suspend) = suspend {
        json["spec"]["suspend"] = suspend.into();
    }
    Live { object, json }
}

impl World {
    /// What stopping a CronJob writes.
    async fn stop(&self, cron: &ObjectRef) {
        let patch = Patch::Merge(json!({ "spec": { "suspend": true } }));
        self.api(cron).patch(&cron.name, &patch_params(), &patch).await.unwrap();
    }

    async fn keeps_suspended(&self, own: ObjectRef, cron: &ObjectRef) -> bool {
        match self.delivery.template(&[own], cron, &[], &[], "op/start").await.unwrap() {
            TemplateMatch::Target { keeps_suspended, .. } => keeps_suspended,
            TemplateMatch::Not(why) => panic!("not the target: {why}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cron_job_is_kept_suspended_by_whoever_else_owns_that() {
    let world = World::new().await;
    let labels =
        json!({ "kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system" });
    let fixture = cron_job(&labels, None);
    world.create(&fixture).await;
    world.delivery.poke(&apps_object(), "op/start/1").await.unwrap();
    world.answer(&apps_object()).await;
    let cron = &fixture.object;
    assert!(!world.keeps_suspended(apps_object(), cron).await, "it is not suspended");
    world.stop(cron).await;
    assert!(!world.keeps_suspended(apps_object(), cron).await, "we did that alone");
    let applied = Patch::Apply(cron_job(&labels, Some(true)).json);
    let params = PatchParams::apply("kustomize-controller").force();
    world.api(cron).patch(&cron.name, &params, &applied).await.unwrap();
    assert!(world.keeps_suspended(apps_object(), cron).await, "its manifest says so, too");
    world.change(cron, json!({ "spec": { "suspend": false } })).await;
    assert!(!world.keeps_suspended(apps_object(), cron).await, "somebody lets it run");
    world.change(cron, json!({ "spec": { "suspend": true } })).await;
    assert!(world.keeps_suspended(apps_object(), cron).await, "and has changed their mind");
}

#[tokio::test(start_paused = true)]
async fn a_cron_job_is_kept_suspended_by_the_manifest_of_its_release() {
    let labels = json!({ "helm.toolkit.fluxcd.io/name": "notes", "helm.toolkit.fluxcd.io/namespace": "notes" });
    for (declared, keeps) in [(None, false), (Some(false), false), (Some(true), true)] {
        let world = World::new().await;
        let fixture = cron_job(&labels, None);
        world.create(&fixture).await;
        world.stop(&fixture.object).await;
        let manifest = cron_job(&json!({}), declared).json.to_string();
        world.store_manifest(6, "deployed", ("1.1.0", "2.0"), manifest).await;
        assert_eq!(world.keeps_suspended(release_object(), &fixture.object).await, keeps, "{declared:?}");
    }
}
