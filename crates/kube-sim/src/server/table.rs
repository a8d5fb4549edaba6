//! The table of kinds: what the server knows of every resource, built in or defined by a CustomResourceDefinition.

use super::crd::CrdVersion;
use super::shape::{self, Shape};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where objects of a resource are kept: (group, plural). All versions of a kind share it.
pub(crate) type StorageKey = (String, String);

/// Paths of the scale subresource inside the object.
#[derive(Debug, Clone)]
pub(crate) struct ScalePaths {
    pub(crate) spec: String,
    pub(crate) status: String,
    pub(crate) selector: Option<String>,
}

/// How objects of a resource are checked and pruned.
#[derive(Clone)]
pub(crate) enum Source {
    /// By decoding into the type of `k8s-openapi` and back.
    Builtin { shape: &'static shape::TypeDef, decode: fn(Value) -> Result<Value, String> },
    /// By the structural schema of a CustomResourceDefinition.
    Crd(Arc<CrdVersion>),
}

/// Name, verbs, kind, and the group version of the kind if it is not the resource's own.
type Subresource = (&'static str, &'static [&'static str], String, Option<(&'static str, &'static str)>);

/// One resource in one version.
#[derive(Clone)]
pub(crate) struct ResourceDef {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) has_status: bool,
    pub(crate) has_generation: bool,
    pub(crate) scale: Option<ScalePaths>,
    pub(crate) storage: StorageKey,
    pub(crate) source: Source,
}

impl ResourceDef {
    /// `deployments.apps`, or `pods` for the core group.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    pub(crate) fn is_crd(&self) -> bool {
        matches!(self.source, Source::Crd(_))
    }

    pub(crate) fn shape(&self) -> Shape<'_> {
        match &self.source {
            Source::Builtin { shape, .. } => Shape::of_type(shape),
            Source::Crd(version) => Shape::of_schema(&version.schema),
        }
    }

    /// Reviews are answered, never kept.
    pub(crate) fn is_virtual(&self) -> bool {
        self.group == "authorization.k8s.io" || self.group == "authentication.k8s.io"
    }

    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        if self.is_virtual() {
            &["create"]
        } else {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        }
    }

    pub(crate) fn subresources(&self) -> Vec<Subresource> {
        const RW: &[&str] = &["get", "patch", "update"];
        let mut found = Vec::new();
        if self.has_status {
            found.push(("status", RW, self.kind.clone(), None));
        }
        if self.scale.is_some() {
            found.push(("scale", RW, "Scale".to_owned(), Some(("autoscaling", "v1"))));
        }
        if self.is("", "pods") {
            found.push(("binding", &["create"], "Binding".to_owned(), None));
            found.push(("eviction", &["create"], "Eviction".to_owned(), Some(("policy", "v1"))));
            found.push(("log", &["get"], "Pod".to_owned(), None));
            found.push(("ephemeralcontainers", RW, "Pod".to_owned(), None));
        }
        if self.is("", "serviceaccounts") {
            found.push(("token", &["create"], "TokenRequest".to_owned(), Some(("authentication.k8s.io", "v1"))));
        }
        if self.is("", "namespaces") {
            found.push(("finalize", &["update"], "Namespace".to_owned(), None));
        }
        found
    }
}

/// All resources, by (group, version, plural).
#[derive(Clone, Default)]
pub(crate) struct Registry {
    defs: BTreeMap<(String, String, String), Arc<ResourceDef>>,
    /// Group versions in the order they became known, which discovery keeps.
    order: Vec<(String, String)>,
}

impl Registry {
    pub(crate) fn insert(&mut self, def: ResourceDef) {
        let gv = (def.group.clone(), def.version.clone());
        if !self.order.contains(&gv) {
            self.order.push(gv);
        }
        self.defs.insert((def.group.clone(), def.version.clone(), def.plural.clone()), Arc::new(def));
    }

    pub(crate) fn remove_resource(&mut self, group: &str, plural: &str) {
        self.defs.retain(|(g, _, p), _| g != group || p != plural);
        let defs = &self.defs;
        self.order.retain(|(g, v)| defs.keys().any(|(dg, dv, _)| dg == g && dv == v));
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<ResourceDef>> {
        self.defs.get(&(group.to_owned(), version.to_owned(), plural.to_owned())).cloned()
    }

    /// Any version of a resource.
    pub(crate) fn find_resource(&self, group: &str, plural: &str) -> Option<Arc<ResourceDef>> {
        self.defs.values().find(|d| d.group == group && d.plural == plural).cloned()
    }

    pub(crate) fn find_kind(&self, group: &str, kind: &str) -> Option<Arc<ResourceDef>> {
        self.defs.values().find(|d| d.group == group && d.kind == kind).cloned()
    }

    pub(crate) fn group_versions(&self) -> &[(String, String)] {
        &self.order
    }

    pub(crate) fn in_group_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<ResourceDef>> + 'a {
        self.defs.values().filter(move |d| d.group == group && d.version == version)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<ResourceDef>> {
        self.defs.values()
    }
}

fn decode<T: serde::de::DeserializeOwned + serde::Serialize>(value: Value) -> Result<Value, String> {
    let typed: T = serde_json::from_value(value).map_err(|e| e.to_string())?;
    serde_json::to_value(typed).map_err(|e| e.to_string())
}

/// Flags of a row: `n` namespaced, `s` status subresource, `g` generation, `x` scale.
fn row<T: serde::de::DeserializeOwned + serde::Serialize>(
    registry: &mut Registry,
    gv: &str,
    kind: &str,
    plural: &str,
    short: &str,
    flags: &str,
) {
    let (group, version) = gv.split_once('/').unwrap_or(("", gv));
    let scale = flags.contains('x').then(|| ScalePaths {
        spec: ".spec.replicas".to_owned(),
        status: ".status.replicas".to_owned(),
        selector: None,
    });
    let storage = if plural == "events" {
        ("events.k8s.io".to_owned(), plural.to_owned())
    } else {
        (group.to_owned(), plural.to_owned())
    };
    let in_all = matches!(
        plural,
        "pods"
            | "services"
            | "replicationcontrollers"
            | "deployments"
            | "replicasets"
            | "statefulsets"
            | "daemonsets"
            | "jobs"
            | "cronjobs"
            | "horizontalpodautoscalers"
    );
    registry.insert(ResourceDef {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        short_names: short.split_whitespace().map(str::to_owned).collect(),
        categories: if in_all { vec!["all".to_owned()] } else { Vec::new() },
        namespaced: flags.contains('n'),
        has_status: flags.contains('s'),
        has_generation: flags.contains('g'),
        scale,
        storage,
        source: Source::Builtin { shape: shape::type_def(kind), decode: decode::<T> },
    });
}

/// The built-in kinds.
pub(crate) fn builtin() -> Registry {
    use k8s_openapi::api::{
        admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authn,
        authorization::v1 as authz, autoscaling::v2 as autoscaling, batch::v1 as batch,
        coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events,
        networking::v1 as networking, node::v1 as node, policy::v1 as policy, rbac::v1 as rbac,
        scheduling::v1 as scheduling, storage::v1 as storage,
    };
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as ext;

    let mut r = Registry::default();
    let r = &mut r;
    row::<core::ConfigMap>(r, "v1", "ConfigMap", "configmaps", "cm", "n");
    row::<core::Endpoints>(r, "v1", "Endpoints", "endpoints", "ep", "n");
    row::<core::Event>(r, "v1", "Event", "events", "ev", "n");
    row::<core::LimitRange>(r, "v1", "LimitRange", "limitranges", "limits", "n");
    row::<core::Namespace>(r, "v1", "Namespace", "namespaces", "ns", "s");
    row::<core::Node>(r, "v1", "Node", "nodes", "no", "s");
    row::<core::PersistentVolumeClaim>(r, "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", "ns");
    row::<core::PersistentVolume>(r, "v1", "PersistentVolume", "persistentvolumes", "pv", "s");
    row::<core::Pod>(r, "v1", "Pod", "pods", "po", "nsg");
    row::<core::PodTemplate>(r, "v1", "PodTemplate", "podtemplates", "", "ng");
    row::<core::ReplicationController>(r, "v1", "ReplicationController", "replicationcontrollers", "rc", "nsgx");
    row::<core::ResourceQuota>(r, "v1", "ResourceQuota", "resourcequotas", "quota", "ns");
    row::<core::Secret>(r, "v1", "Secret", "secrets", "", "n");
    row::<core::Service>(r, "v1", "Service", "services", "svc", "ns");
    row::<core::ServiceAccount>(r, "v1", "ServiceAccount", "serviceaccounts", "sa", "n");
    row::<admission::MutatingWebhookConfiguration>(
        r,
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        "",
        "g",
    );
    row::<admission::ValidatingWebhookConfiguration>(
        r,
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        "",
        "g",
    );
    row::<ext::CustomResourceDefinition>(
        r,
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "crd crds",
        "sg",
    );
    row::<apps::ControllerRevision>(r, "apps/v1", "ControllerRevision", "controllerrevisions", "", "n");
    row::<apps::DaemonSet>(r, "apps/v1", "DaemonSet", "daemonsets", "ds", "nsg");
    row::<apps::Deployment>(r, "apps/v1", "Deployment", "deployments", "deploy", "nsgx");
    row::<apps::ReplicaSet>(r, "apps/v1", "ReplicaSet", "replicasets", "rs", "nsgx");
    row::<apps::StatefulSet>(r, "apps/v1", "StatefulSet", "statefulsets", "sts", "nsgx");
    row::<authn::TokenReview>(r, "authentication.k8s.io/v1", "TokenReview", "tokenreviews", "", "");
    row::<authz::LocalSubjectAccessReview>(
        r,
        "authorization.k8s.io/v1",
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        "",
        "n",
    );
    row::<authz::SelfSubjectAccessReview>(
        r,
        "authorization.k8s.io/v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "",
        "",
    );
    row::<authz::SelfSubjectRulesReview>(
        r,
        "authorization.k8s.io/v1",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        "",
        "",
    );
    row::<authz::SubjectAccessReview>(
        r,
        "authorization.k8s.io/v1",
        "SubjectAccessReview",
        "subjectaccessreviews",
        "",
        "",
    );
    row::<autoscaling::HorizontalPodAutoscaler>(
        r,
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "hpa",
        "ns",
    );
    row::<batch::CronJob>(r, "batch/v1", "CronJob", "cronjobs", "cj", "nsg");
    row::<batch::Job>(r, "batch/v1", "Job", "jobs", "", "nsg");
    row::<coordination::Lease>(r, "coordination.k8s.io/v1", "Lease", "leases", "", "n");
    row::<discovery::EndpointSlice>(r, "discovery.k8s.io/v1", "EndpointSlice", "endpointslices", "", "ng");
    row::<events::Event>(r, "events.k8s.io/v1", "Event", "events", "ev", "n");
    row::<networking::Ingress>(r, "networking.k8s.io/v1", "Ingress", "ingresses", "ing", "nsg");
    row::<networking::IngressClass>(r, "networking.k8s.io/v1", "IngressClass", "ingressclasses", "", "g");
    row::<networking::NetworkPolicy>(r, "networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", "netpol", "ng");
    row::<node::RuntimeClass>(r, "node.k8s.io/v1", "RuntimeClass", "runtimeclasses", "", "");
    row::<policy::PodDisruptionBudget>(r, "policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", "nsg");
    row::<rbac::ClusterRole>(r, "rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", "", "");
    row::<rbac::ClusterRoleBinding>(
        r,
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        "",
        "",
    );
    row::<rbac::Role>(r, "rbac.authorization.k8s.io/v1", "Role", "roles", "", "n");
    row::<rbac::RoleBinding>(r, "rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", "", "n");
    row::<scheduling::PriorityClass>(r, "scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", "pc", "g");
    row::<storage::CSIDriver>(r, "storage.k8s.io/v1", "CSIDriver", "csidrivers", "", "");
    row::<storage::CSINode>(r, "storage.k8s.io/v1", "CSINode", "csinodes", "", "");
    row::<storage::CSIStorageCapacity>(r, "storage.k8s.io/v1", "CSIStorageCapacity", "csistoragecapacities", "", "n");
    row::<storage::StorageClass>(r, "storage.k8s.io/v1", "StorageClass", "storageclasses", "sc", "");
    row::<storage::VolumeAttachment>(r, "storage.k8s.io/v1", "VolumeAttachment", "volumeattachments", "", "s");
    r.clone()
}
