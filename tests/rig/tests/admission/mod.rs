//! What a real API server makes of what is installed: which objects it admits, and what the operator may do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SelfSubjectRulesReview,
    SelfSubjectRulesReviewSpec,
};
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Client, Config, ResourceExt as _};
use windlass_operator::rbac::{RIGHTS, Right, Scope};
use windlass_playground::examples::{Example, files, put};
use windlass_rig::{ADMIN, Rig};

use super::wait_for;

/// Where the manifests install the operator.
const SYSTEM: &str = "windlass-system";
const OPERATOR: &str = "windlass-operator";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

fn examples(folder: &str) -> Vec<PathBuf> {
    files(&repository().join(folder)).unwrap()
}

async fn definitions_are_established(rig: &Rig) {
    let definitions = windlass_api::crds();
    let texts: Vec<String> = definitions.iter().map(|crd| serde_yaml_ng::to_string(crd).unwrap()).collect();
    rig.apply_yaml(&texts.join("---\n")).await.unwrap();
    let established = definitions.iter().map(|crd| async move {
        let kind = GroupVersionKind::gvk(&crd.spec.group, &crd.spec.versions[0].name, &crd.spec.names.kind);
        let api: Api<DynamicObject> = Api::all_with(rig.admin_client(), &ApiResource::from_gvk(&kind));
        wait_for(&format!("{} served", kind.kind), || async { api.list(&ListParams::default()).await.ok() }).await;
        let crds: Api<CustomResourceDefinition> = Api::all(rig.admin_client());
        let conditions = crds.get(&crd.name_any()).await.unwrap().status.unwrap().conditions.unwrap();
        assert!(conditions.iter().all(|condition| condition.type_ != "NonStructuralSchema"), "{conditions:?}");
    });
    futures::future::join_all(established).await;
}

async fn good_examples_are_accepted_as_written(rig: &Rig) {
    // Those for people, too.
    let files = examples("crates/api/examples/good").into_iter().chain(examples("examples/notes"));
    let wrong = stream::iter(files).map(|file| async move {
        let Example { written, answer } = put(&rig.admin_client(), &file).await.unwrap();
        match answer {
            Ok(stored) if stored.data["spec"] == written.data["spec"] => None,
            other => Some(format!("{}: {other:#?}", file.display())),
        }
    });
    let wrong: Vec<String> = wrong.buffered(8).filter_map(|wrong| async { wrong }).collect().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn bad_examples_are_refused_with_a_reason(rig: &Rig) {
    let wrong = stream::iter(examples("crates/api/examples/bad")).map(|file| async move {
        let text = std::fs::read_to_string(&file).unwrap();
        let expected = text.lines().next().unwrap().strip_prefix("# expect: ").unwrap().trim();
        match put(&rig.admin_client(), &file).await.unwrap().answer {
            Err(kube::Error::Api(status)) if status.code == 422 && status.message.contains(expected) => None,
            other => Some(format!("{}: expected {expected:?}, got {other:#?}", file.display())),
        }
    });
    let wrong: Vec<String> = wrong.buffered(8).filter_map(|wrong| async { wrong }).collect().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Applies `deploy/manifests` as its kustomization lists it.
async fn install(rig: &Rig) {
    let folder = repository().join("deploy/manifests");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let kustomization: serde_yaml_ng::Value = serde_yaml_ng::from_str(&read("kustomization.yaml")).unwrap();
    let crds: Api<CustomResourceDefinition> = Api::all(rig.admin_client());
    let generations = async || {
        let found = crds.list(&ListParams::default()).await.unwrap().items.into_iter();
        found.map(|crd| (crd.name_any(), crd.metadata.generation)).collect::<Vec<_>>()
    };
    let before = generations().await;
    for file in kustomization["resources"].as_sequence().unwrap() {
        rig.apply_yaml(&read(file.as_str().unwrap())).await.unwrap();
    }
    assert_eq!(generations().await, before, "the definitions of the file are not those of the code");
}

/// A client with a token of a service account, as its pods have one.
async fn client_of(rig: &Rig, account: &str) -> Client {
    let accounts: Api<ServiceAccount> = Api::namespaced(rig.admin_client(), SYSTEM);
    // That of the namespace is made by a controller.
    wait_for(&format!("service account {account}"), || async { accounts.get_opt(account).await.unwrap() }).await;
    let answer = accounts.create_token_request(account, &PostParams::default(), &TokenRequest::default()).await;
    let token = answer.unwrap().status.unwrap().token.unwrap();
    let kubeconfig = Kubeconfig::read_from(rig.kubeconfig_for(ADMIN).unwrap()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
    Client::try_from(config).unwrap()
}

/// Group, resource and verb.
type Permission = (String, String, String);

fn permissions(group: &str, resource: &str, verbs: &[&str]) -> Vec<Permission> {
    verbs.iter().map(|&verb| (group.to_owned(), resource.to_owned(), verb.to_owned())).collect()
}

/// All that the API server says the owner of this client may do in a namespace.
async fn allowed(client: &Client, namespace: &str) -> BTreeSet<Permission> {
    let spec = SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) };
    let review = SelfSubjectRulesReview { spec, ..SelfSubjectRulesReview::default() };
    let reviews: Api<SelfSubjectRulesReview> = Api::all(client.clone());
    let status = reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap();
    assert!(!status.incomplete && status.evaluation_error.is_none(), "{status:?}");
    let mut found = BTreeSet::new();
    for rule in status.resource_rules {
        assert_eq!(rule.resource_names.unwrap_or_default(), Vec::<String>::new());
        let verbs: Vec<&str> = rule.verbs.iter().map(String::as_str).collect();
        for group in rule.api_groups.unwrap() {
            for resource in rule.resources.iter().flatten() {
                found.extend(permissions(&group, resource, &verbs));
            }
        }
    }
    found
}

fn table(is_meant: impl Fn(&Right) -> bool) -> BTreeSet<Permission> {
    let rights = RIGHTS.iter().filter(|right| is_meant(right));
    rights.flat_map(|right| permissions(right.group, right.resource, right.verbs)).collect()
}

async fn the_operator_has_the_rights_of_the_table_and_no_other(rig: &Rig, operator: &Client) {
    let anybody = client_of(rig, "default").await;
    for (namespace, expected) in [("default", table(|right| right.scope != Scope::Own)), (SYSTEM, table(|_| true))] {
        let of_anybody = allowed(&anybody, namespace).await;
        let own: BTreeSet<Permission> = allowed(operator, namespace).await.difference(&of_anybody).cloned().collect();
        let beyond: Vec<_> = own.difference(&expected).collect();
        let missing: Vec<_> = expected.difference(&own).collect();
        assert!(beyond.is_empty() && missing.is_empty(), "in {namespace}: beyond {beyond:?}, missing {missing:?}");
    }
}

async fn may(client: &Client, (verb, group, resource): (&str, &str, &str), namespace: &str) -> bool {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let attributes = ResourceAttributes {
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: Some(subresource.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

async fn the_operator_may_not_take_over_or_take_down(operator: &Client) {
    for question in [
        ("*", "*", "*"),
        ("delete", "apps", "deployments"),
        ("delete", "apps", "statefulsets"),
        ("update", "apps", "deployments"),
        ("create", "", "pods"),
        ("create", "", "pods/exec"),
        ("create", "", "pods/eviction"),
        ("create", "", "secrets"),
        ("patch", "", "secrets"),
        ("watch", "", "secrets"),
        ("create", "", "serviceaccounts/token"),
        ("impersonate", "", "users"),
        ("escalate", "rbac.authorization.k8s.io", "clusterroles"),
        ("bind", "rbac.authorization.k8s.io", "clusterroles"),
        ("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
        ("patch", "", "nodes"),
        ("delete", "", "nodes"),
        ("delete", "", "persistentvolumes"),
        ("delete", "", "namespaces"),
        // One by one, where a restore point says so, it may: else a copy whose snapshot somebody deleted would stay for ever.
        ("deletecollection", "snapshot.storage.k8s.io", "volumesnapshotcontents"),
        ("create", "snapshot.storage.k8s.io", "volumesnapshotcontents"),
        ("delete", "upgrades.windlass.dev", "managedapps"),
        ("delete", "helm.toolkit.fluxcd.io", "helmreleases"),
        ("update", "coordination.k8s.io", "leases"),
    ] {
        assert!(!may(operator, question, "default").await, "{question:?}");
    }
    assert!(may(operator, ("update", "coordination.k8s.io", "leases"), SYSTEM).await);
    // Apps may be in any namespace, so Git credentials and releases of Helm may be too.
    assert!(may(operator, ("get", "", "secrets"), "default").await);
}

async fn the_server_answers_as_it_reviews(operator: &Client) {
    let secrets: Api<Secret> = Api::namespaced(operator.clone(), "default");
    secrets.list(&ListParams::default()).await.unwrap();
    let deployments: Api<Deployment> = Api::namespaced(operator.clone(), SYSTEM);
    let refused = deployments.delete(OPERATOR, &DeleteParams::default()).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");
}

/// The namespace enforces the restricted standard, so that a pod that asks for more would never be made.
async fn the_pods_of_the_operator_are_admitted(rig: &Rig) {
    let deployments: Api<Deployment> = Api::namespaced(rig.admin_client(), SYSTEM);
    let replicas = deployments.get(OPERATOR).await.unwrap().spec.unwrap().replicas.unwrap();
    let pods: Api<Pod> = Api::namespaced(rig.admin_client(), SYSTEM);
    let selector = ListParams::default().labels(&format!("app.kubernetes.io/name={OPERATOR}"));
    wait_for("pods of the operator", || async {
        let made = pods.list(&selector).await.unwrap().items;
        (made.len() == usize::try_from(replicas).unwrap()).then_some(())
    })
    .await;
    let spaces: Api<Namespace> = Api::all(rig.admin_client());
    let labels = spaces.get(SYSTEM).await.unwrap().metadata.labels.unwrap();
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
}

/// Takes any rig; needs nothing but the API server and its controllers.
pub(crate) async fn what_is_installed_admits_and_allows_what_it_should(rig: &Rig) {
    definitions_are_established(rig).await;
    tokio::join!(good_examples_are_accepted_as_written(rig), bad_examples_are_refused_with_a_reason(rig));
    install(rig).await;
    let operator = client_of(rig, OPERATOR).await;
    the_operator_has_the_rights_of_the_table_and_no_other(rig, &operator).await;
    the_operator_may_not_take_over_or_take_down(&operator).await;
    the_server_answers_as_it_reviews(&operator).await;
    the_pods_of_the_operator_are_admitted(rig).await;
}
