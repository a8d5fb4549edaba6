//! The merge shape of objects: which lists are maps, which are sets, which values are atomic.
//!
//! Server-side apply and strategic merge patches need it. Built-in kinds have a table here; custom resources bring
//! `x-kubernetes-list-type` and its relatives in their schema. What the table does not name has Kubernetes' default:
//! maps are granular, lists are atomic.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// How the items of a list are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListKind {
    Atomic,
    Set,
    Map(Vec<String>),
}

#[derive(Debug)]
pub(crate) struct FieldDef {
    list: ListKind,
    atomic_map: bool,
    /// Strategic merge patches merge this list although server-side apply replaces it.
    patch_merge_key: Option<String>,
    type_name: Option<String>,
    /// A Go struct without `omitempty`: part of the empty object, so creating it does not own the node itself.
    always_present: bool,
}

/// Fields of one type that do not have the default shape.
#[derive(Debug, Default)]
pub(crate) struct TypeDef {
    fields: BTreeMap<String, FieldDef>,
}

/// A node of the shape while walking down a value.
#[derive(Clone, Copy)]
pub(crate) enum Shape<'a> {
    /// Nothing known: granular maps, atomic lists.
    Any,
    Type(&'static TypeDef),
    Field(&'static FieldDef),
    Schema(&'a Value),
}

// `field=[key]Type` keyed list, `field=set`, `field=atomic`, `field=~[key]Type` keyed for strategic merge only,
// `field=Type` struct, `field={}Type` map of structs, trailing `!` present in the empty object.
const TABLE: &str = "
ObjectMeta finalizers=set ownerReferences=[uid]OwnerReference managedFields=atomic
OwnerReference
LabelSelector
ConfigMap metadata=ObjectMeta!
Endpoints metadata=ObjectMeta!
Event metadata=ObjectMeta! involvedObject=ObjectReference! regarding=ObjectReference
LimitRange metadata=ObjectMeta! spec=Any!
Namespace metadata=ObjectMeta! spec=Any! status=Conditions!
Node metadata=ObjectMeta! spec=NodeSpec! status=NodeStatus!
NodeSpec podCIDRs=set taints=~[key]
NodeStatus addresses=[type] conditions=[type]
PersistentVolumeClaim metadata=ObjectMeta! spec=PersistentVolumeClaimSpec! status=Conditions!
PersistentVolumeClaimSpec selector=atomic dataSource=atomic resources=Any!
PersistentVolume metadata=ObjectMeta! spec=PersistentVolumeSpec! status=Any!
PersistentVolumeSpec nodeAffinity=NodeAffinityHolder
NodeAffinityHolder required=atomic
Pod metadata=ObjectMeta! spec=PodSpec! status=PodStatus!
PodStatus conditions=[type] podIPs=[ip] hostIPs=~[ip] resourceClaimStatuses=[name]
PodTemplate metadata=ObjectMeta! template=PodTemplateSpec!
PodTemplateSpec metadata=ObjectMeta! spec=PodSpec!
PodSpec containers=[name]Container! initContainers=[name]Container ephemeralContainers=[name]Container volumes=[name]Volume imagePullSecrets=[name] hostAliases=[ip] topologySpreadConstraints=[topologyKey,whenUnsatisfiable]TopologySpread resourceClaims=[name] schedulingGates=[name] nodeSelector=atomic affinity=Affinity
TopologySpread labelSelector=atomic
Affinity nodeAffinity=NodeAffinity
NodeAffinity requiredDuringSchedulingIgnoredDuringExecution=atomic
Container env=[name]EnvVar ports=[containerPort,protocol] volumeMounts=[mountPath] volumeDevices=[devicePath] resources=Resources!
Resources claims=[name]
EnvVar valueFrom=EnvVarSource
EnvVarSource fieldRef=atomic resourceFieldRef=atomic configMapKeyRef=atomic secretKeyRef=atomic
Volume csi=CSIVolume projected=Projected
CSIVolume nodePublishSecretRef=atomic
Projected sources=atomic
ReplicationController metadata=ObjectMeta! spec=ReplicationControllerSpec! status=Conditions!
ReplicationControllerSpec selector=atomic template=PodTemplateSpec
ResourceQuota metadata=ObjectMeta! spec=ResourceQuotaSpec! status=Any!
ResourceQuotaSpec scopeSelector=atomic
Secret metadata=ObjectMeta!
Service metadata=ObjectMeta! spec=ServiceSpec! status=ServiceStatus!
ServiceSpec ports=[port,protocol] selector=atomic
ServiceStatus conditions=[type] loadBalancer=Any!
ServiceAccount metadata=ObjectMeta! secrets=[name]
MutatingWebhookConfiguration metadata=ObjectMeta! webhooks=[name]Webhook
ValidatingWebhookConfiguration metadata=ObjectMeta! webhooks=[name]Webhook
Webhook namespaceSelector=atomic objectSelector=atomic matchConditions=[name] clientConfig=Any!
CustomResourceDefinition metadata=ObjectMeta! spec=CrdSpec! status=CrdStatus!
CrdSpec names=Any! versions=~[]
CrdStatus conditions=[type] acceptedNames=Any!
ControllerRevision metadata=ObjectMeta!
Deployment metadata=ObjectMeta! spec=DeploymentSpec! status=Conditions!
DeploymentSpec selector=atomic strategy=Any! template=PodTemplateSpec!
Conditions conditions=[type]
DaemonSet metadata=ObjectMeta! spec=DaemonSetSpec! status=Conditions!
DaemonSetSpec selector=atomic updateStrategy=Any! template=PodTemplateSpec!
ReplicaSet metadata=ObjectMeta! spec=ReplicaSetSpec! status=Conditions!
ReplicaSetSpec selector=atomic template=PodTemplateSpec!
StatefulSet metadata=ObjectMeta! spec=StatefulSetSpec! status=Conditions!
StatefulSetSpec selector=atomic updateStrategy=Any! template=PodTemplateSpec!
HorizontalPodAutoscaler metadata=ObjectMeta! spec=HpaSpec! status=HpaStatus!
HpaSpec scaleTargetRef=Any!
HpaStatus conditions=[type]
CronJob metadata=ObjectMeta! spec=CronJobSpec! status=CronJobStatus!
CronJobSpec jobTemplate=JobTemplateSpec!
CronJobStatus active=atomic
JobTemplateSpec metadata=ObjectMeta! spec=JobSpec!
Job metadata=ObjectMeta! spec=JobSpec! status=JobStatus!
JobSpec selector=atomic template=PodTemplateSpec!
JobStatus conditions=~[type]
Lease metadata=ObjectMeta! spec=Any!
EndpointSlice metadata=ObjectMeta!
Ingress metadata=ObjectMeta! spec=IngressSpec! status=Any!
IngressSpec defaultBackend=IngressBackend
IngressBackend resource=atomic
IngressClass metadata=ObjectMeta! spec=Any!
NetworkPolicy metadata=ObjectMeta! spec=NetworkPolicySpec!
NetworkPolicySpec podSelector=atomic
RuntimeClass metadata=ObjectMeta!
PodDisruptionBudget metadata=ObjectMeta! spec=PdbSpec! status=PdbStatus!
PdbSpec selector=atomic
PdbStatus conditions=[type]
ClusterRole metadata=ObjectMeta! aggregationRule=Any
ClusterRoleBinding metadata=ObjectMeta! roleRef=atomic
Role metadata=ObjectMeta!
RoleBinding metadata=ObjectMeta! roleRef=atomic
PriorityClass metadata=ObjectMeta!
CSIDriver metadata=ObjectMeta! spec=CsiDriverSpec!
CsiDriverSpec volumeLifecycleModes=set
CSINode metadata=ObjectMeta! spec=CsiNodeSpec!
CsiNodeSpec drivers=[name]
CSIStorageCapacity metadata=ObjectMeta! nodeTopology=atomic
StorageClass metadata=ObjectMeta!
VolumeAttachment metadata=ObjectMeta! spec=Any! status=Any!
Scale metadata=ObjectMeta! spec=Any! status=Any!
ObjectReference
";

static TYPES: LazyLock<BTreeMap<String, TypeDef>> = LazyLock::new(|| {
    let mut types = BTreeMap::new();
    for line in TABLE.lines().filter(|l| !l.is_empty()) {
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { continue };
        let fields = words.filter_map(|w| w.split_once('=')).map(|(f, rest)| (f.to_owned(), parse_field(rest)));
        types.insert(name.to_owned(), TypeDef { fields: fields.collect() });
    }
    types
});

static NO_FIELDS: TypeDef = TypeDef { fields: BTreeMap::new() };

fn parse_field(text: &str) -> FieldDef {
    let (text, always_present) = text.strip_suffix('!').map_or((text, false), |t| (t, true));
    let (text, patch_only) = text.strip_prefix('~').map_or((text, false), |t| (t, true));
    let mut def =
        FieldDef { list: ListKind::Atomic, atomic_map: false, patch_merge_key: None, type_name: None, always_present };
    let type_name = if let Some((keys, item)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        let keys: Vec<String> = keys.split(',').filter(|k| !k.is_empty()).map(str::to_owned).collect();
        def.patch_merge_key = keys.first().cloned();
        if !patch_only {
            def.list = ListKind::Map(keys);
        }
        item
    } else if text == "set" {
        def.list = ListKind::Set;
        ""
    } else if text == "atomic" {
        def.atomic_map = true;
        ""
    } else {
        text
    };
    def.type_name = (!type_name.is_empty()).then(|| type_name.to_owned());
    def
}

/// The shape of a built-in type; one without special fields if the table does not name it.
pub(crate) fn type_def(name: &str) -> &'static TypeDef {
    TYPES.get(name).unwrap_or(&NO_FIELDS)
}

impl TypeDef {
    /// The object that Go's zero value of this type serialises to.
    pub(crate) fn empty_object(&self) -> Value {
        let mut map = Map::new();
        for (name, field) in self.fields.iter().filter(|(_, f)| f.always_present) {
            let value = match (&field.list, &field.type_name) {
                (ListKind::Atomic, Some(type_name)) => type_def(type_name).empty_object(),
                _ => Value::Null,
            };
            map.insert(name.clone(), value);
        }
        Value::Object(map)
    }
}

impl<'a> Shape<'a> {
    pub(crate) fn of_type(def: &'static TypeDef) -> Self {
        Self::Type(def)
    }

    pub(crate) fn of_schema(schema: &'a Value) -> Self {
        Self::Schema(schema)
    }

    /// The shape of a member of a map. The root of every object has a built-in `metadata`.
    pub(crate) fn field(self, name: &str) -> Self {
        match self {
            Self::Any => Self::Any,
            Self::Type(def) => def.fields.get(name).map_or(Self::Any, Self::Field),
            Self::Field(field) => field.type_name.as_deref().map_or(Self::Any, |t| Self::Type(type_def(t)).field(name)),
            Self::Schema(schema) => match schema.get("properties").and_then(|p| p.get(name)) {
                Some(found) => Self::Schema(found),
                None => schema.get("additionalProperties").filter(|a| a.is_object()).map_or(Self::Any, Self::Schema),
            },
        }
    }

    /// False for members that a custom resource's schema does not name one by one.
    pub(crate) fn declares(self, name: &str) -> bool {
        match self {
            Self::Schema(schema) => schema.get("properties").is_some_and(|p| p.get(name).is_some()),
            _ => true,
        }
    }

    /// The shape of an item of a list.
    pub(crate) fn item(self) -> Self {
        match self {
            Self::Field(field) => field.type_name.as_deref().map_or(Self::Any, |t| Self::Type(type_def(t))),
            Self::Schema(schema) => schema.get("items").map_or(Self::Any, Self::Schema),
            _ => Self::Any,
        }
    }

    /// The shape of the field `metadata` of a root object.
    pub(crate) fn metadata() -> Self {
        Self::Type(type_def("ObjectMeta"))
    }

    pub(crate) fn list_kind(self) -> ListKind {
        match self {
            Self::Field(field) => field.list.clone(),
            Self::Schema(schema) => match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                Some("set") => ListKind::Set,
                Some("map") => ListKind::Map(
                    super::json::list_at(schema, &["x-kubernetes-list-map-keys"])
                        .iter()
                        .filter_map(|k| k.as_str().map(str::to_owned))
                        .collect(),
                ),
                _ => ListKind::Atomic,
            },
            _ => ListKind::Atomic,
        }
    }

    /// The key by which a strategic merge patch tells items apart; `None` replaces the list.
    pub(crate) fn patch_merge_key(self) -> Option<String> {
        match self {
            Self::Field(field) => field.patch_merge_key.clone(),
            _ => None,
        }
    }

    /// A list of plain values that a strategic merge patch merges.
    pub(crate) fn merges_values(self) -> bool {
        matches!(self, Self::Field(field) if field.list == ListKind::Set)
    }

    pub(crate) fn is_atomic_map(self) -> bool {
        match self {
            Self::Field(field) => field.atomic_map,
            Self::Schema(schema) => schema.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic"),
            _ => false,
        }
    }

    /// The default of a key of a keyed list, for example `TCP` for `protocol`.
    pub(crate) fn key_default(self, key: &str) -> Option<Value> {
        match self {
            Self::Schema(schema) => schema.get("items")?.get("properties")?.get(key)?.get("default").cloned(),
            _ if key == "protocol" => Some(Value::from("TCP")),
            _ => None,
        }
    }
}
