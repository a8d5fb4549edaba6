//! Defaults of built-in kinds, and what the built-in admission plugins add on creation.

use super::json::{at, list_at, object_mut, remove, set, set_default, str_at};
use super::table::ResourceDef;
use base64::Engine as _;
use serde_json::{Value, json};

/// Fills in the defaults of a built-in object; called on every write.
pub(crate) fn apply(def: &ResourceDef, object: &mut Value) {
    match (def.group.as_str(), def.kind.as_str()) {
        ("", "Pod") => {
            set_default(object, &["spec", "enableServiceLinks"], true);
            set_default(object, &["spec", "preemptionPolicy"], "PreemptLowerPriority");
            set_default(object, &["spec", "priority"], 0);
            pod_spec(object, &["spec"], "Always");
        }
        ("", "PodTemplate") => pod_spec(object, &["template", "spec"], "Always"),
        ("apps", "Deployment") => {
            set_default(object, &["spec", "replicas"], 1);
            set_default(object, &["spec", "revisionHistoryLimit"], 10);
            set_default(object, &["spec", "progressDeadlineSeconds"], 600);
            set_default(object, &["spec", "strategy", "type"], "RollingUpdate");
            if str_at(object, &["spec", "strategy", "type"]) == "RollingUpdate" {
                set_default(object, &["spec", "strategy", "rollingUpdate", "maxSurge"], "25%");
                set_default(object, &["spec", "strategy", "rollingUpdate", "maxUnavailable"], "25%");
            }
            pod_spec(object, &["spec", "template", "spec"], "Always");
        }
        ("apps", "ReplicaSet") | ("", "ReplicationController") => {
            set_default(object, &["spec", "replicas"], 1);
            pod_spec(object, &["spec", "template", "spec"], "Always");
        }
        ("apps", "StatefulSet") => stateful_set(object),
        ("apps", "DaemonSet") => {
            set_default(object, &["spec", "revisionHistoryLimit"], 10);
            set_default(object, &["spec", "updateStrategy", "type"], "RollingUpdate");
            if str_at(object, &["spec", "updateStrategy", "type"]) == "RollingUpdate" {
                set_default(object, &["spec", "updateStrategy", "rollingUpdate", "maxSurge"], 0);
                set_default(object, &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"], 1);
            }
            pod_spec(object, &["spec", "template", "spec"], "Always");
        }
        ("batch", "Job") => job_spec(object, &["spec"]),
        ("batch", "CronJob") => {
            set_default(object, &["spec", "concurrencyPolicy"], "Allow");
            set_default(object, &["spec", "suspend"], false);
            set_default(object, &["spec", "successfulJobsHistoryLimit"], 3);
            set_default(object, &["spec", "failedJobsHistoryLimit"], 1);
            pod_spec(object, &["spec", "jobTemplate", "spec", "template", "spec"], "Never");
        }
        ("", "Service") => service(object),
        ("", "PersistentVolumeClaim") => {
            set_default(object, &["spec", "volumeMode"], "Filesystem");
            data_source(object);
        }
        ("", "PersistentVolume") => {
            set_default(object, &["spec", "persistentVolumeReclaimPolicy"], "Retain");
            set_default(object, &["spec", "volumeMode"], "Filesystem");
        }
        ("storage.k8s.io", "StorageClass") => {
            set_default(object, &["reclaimPolicy"], "Delete");
            set_default(object, &["volumeBindingMode"], "Immediate");
        }
        ("storage.k8s.io", "CSIDriver") => {
            set_default(object, &["spec", "attachRequired"], true);
            set_default(object, &["spec", "podInfoOnMount"], false);
            set_default(object, &["spec", "storageCapacity"], false);
            set_default(object, &["spec", "fsGroupPolicy"], "ReadWriteOnceWithFSType");
            set_default(object, &["spec", "requiresRepublish"], false);
            set_default(object, &["spec", "seLinuxMount"], false);
            set_default(object, &["spec", "volumeLifecycleModes"], json!(["Persistent"]));
        }
        ("", "Secret") => secret(object),
        ("", "Namespace") => {
            let name = str_at(object, &["metadata", "name"]).to_owned();
            set(object, &["metadata", "labels", "kubernetes.io/metadata.name"], name);
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => role_binding(object),
        ("autoscaling", "HorizontalPodAutoscaler") => set_default(object, &["spec", "minReplicas"], 1),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => super::crd::default(object),
        _ => {}
    }
}

/// What a real server makes of a claim's two data sources: what the old field could never name is dropped without a word, and
/// so is a source in another namespace; of what is left, each field mirrors the other. A claim whose source is dropped is
/// provisioned empty.
fn data_source(object: &mut Value) {
    if !str_at(object, &["spec", "dataSourceRef", "namespace"]).is_empty() {
        remove(object, &["spec", "dataSourceRef"]);
    }
    let (old, new) = (at(object, &["spec", "dataSource"]).clone(), at(object, &["spec", "dataSourceRef"]).clone());
    if old.is_null() && !new.is_null() {
        set(object, &["spec", "dataSource"], new);
    } else if !old.is_null() && new.is_null() {
        match (str_at(&old, &["apiGroup"]), str_at(&old, &["kind"])) {
            ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot") => {
                set(object, &["spec", "dataSourceRef"], old);
            }
            _ => {
                remove(object, &["spec", "dataSource"]);
            }
        }
    }
}

fn stateful_set(object: &mut Value) {
    set_default(object, &["spec", "replicas"], 1);
    set_default(object, &["spec", "revisionHistoryLimit"], 10);
    set_default(object, &["spec", "podManagementPolicy"], "OrderedReady");
    set_default(object, &["spec", "updateStrategy", "type"], "RollingUpdate");
    if str_at(object, &["spec", "updateStrategy", "type"]) == "RollingUpdate" {
        set_default(object, &["spec", "updateStrategy", "rollingUpdate", "partition"], 0);
    }
    for when in ["whenDeleted", "whenScaled"] {
        set_default(object, &["spec", "persistentVolumeClaimRetentionPolicy", when], "Retain");
    }
    if let Some(Value::Array(templates)) = object.get_mut("spec").and_then(|s| s.get_mut("volumeClaimTemplates")) {
        for template in templates {
            set(template, &["apiVersion"], "v1");
            set(template, &["kind"], "PersistentVolumeClaim");
            set_default(template, &["spec", "volumeMode"], "Filesystem");
            set_default(template, &["status", "phase"], "Pending");
        }
    }
    pod_spec(object, &["spec", "template", "spec"], "Always");
}

fn job_spec(object: &mut Value, path: &[&str]) {
    let mut spec = at(object, path).clone();
    set_default(&mut spec, &["backoffLimit"], 6);
    if at(&spec, &["completions"]).is_null() && at(&spec, &["parallelism"]).is_null() {
        set(&mut spec, &["completions"], 1);
    }
    set_default(&mut spec, &["parallelism"], 1);
    set_default(&mut spec, &["completionMode"], "NonIndexed");
    set_default(&mut spec, &["suspend"], false);
    set_default(&mut spec, &["manualSelector"], false);
    let replacement = if at(&spec, &["podFailurePolicy"]).is_null() { "TerminatingOrFailed" } else { "Failed" };
    set_default(&mut spec, &["podReplacementPolicy"], replacement);
    pod_spec(&mut spec, &["template", "spec"], "Always");
    set(object, path, spec);
}

fn service(object: &mut Value) {
    set_default(object, &["spec", "type"], "ClusterIP");
    set_default(object, &["spec", "sessionAffinity"], "None");
    if str_at(object, &["spec", "type"]) != "ExternalName" {
        set_default(object, &["spec", "internalTrafficPolicy"], "Cluster");
        set_default(object, &["spec", "ipFamilies"], json!(["IPv4"]));
        set_default(object, &["spec", "ipFamilyPolicy"], "SingleStack");
    }
    if let Some(Value::Array(ports)) = object.get_mut("spec").and_then(|s| s.get_mut("ports")) {
        for port in ports {
            set_default(port, &["protocol"], "TCP");
            let number = at(port, &["port"]).clone();
            set_default(port, &["targetPort"], number);
        }
    }
}

fn secret(object: &mut Value) {
    set_default(object, &["type"], "Opaque");
    if let Some(Value::Object(plain)) = remove(object, &["stringData"]) {
        let data = object_mut(object_mut(object).entry("data").or_insert(Value::Null));
        for (key, value) in plain {
            let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, Value::String(encoded));
        }
    }
}

fn role_binding(object: &mut Value) {
    set_default(object, &["roleRef", "apiGroup"], "rbac.authorization.k8s.io");
    if let Some(Value::Array(subjects)) = object.get_mut("subjects") {
        for subject in subjects {
            let group = if str_at(subject, &["kind"]) == "ServiceAccount" { "" } else { "rbac.authorization.k8s.io" };
            if !group.is_empty() {
                set_default(subject, &["apiGroup"], group);
            }
        }
    }
}

fn pod_spec(object: &mut Value, path: &[&str], restart: &str) {
    if !at(object, path).is_object() {
        return;
    }
    let mut spec = at(object, path).clone();
    set_default(&mut spec, &["restartPolicy"], restart);
    set_default(&mut spec, &["dnsPolicy"], "ClusterFirst");
    set_default(&mut spec, &["terminationGracePeriodSeconds"], 30);
    set_default(&mut spec, &["schedulerName"], "default-scheduler");
    set_default(&mut spec, &["securityContext"], json!({}));
    let account = str_at(&spec, &["serviceAccountName"]).to_owned();
    if !account.is_empty() {
        set(&mut spec, &["serviceAccount"], account);
    }
    for list in ["containers", "initContainers"] {
        if let Some(Value::Array(containers)) = spec.get_mut(list) {
            containers.iter_mut().for_each(container);
        }
    }
    if let Some(Value::Array(volumes)) = spec.get_mut("volumes") {
        for volume in volumes {
            for source in ["secret", "configMap", "projected", "downwardAPI"] {
                if at(volume, &[source]).is_object() {
                    set_default(volume, &[source, "defaultMode"], 420);
                }
            }
            if at(volume, &["hostPath"]).is_object() {
                set_default(volume, &["hostPath", "type"], "");
            }
        }
    }
    set(object, path, spec);
}

fn container(container: &mut Value) {
    let image = str_at(container, &["image"]);
    let last = image.rsplit('/').next().unwrap_or_default();
    let latest = !image.contains('@') && (last.ends_with(":latest") || !last.contains(':'));
    set_default(container, &["imagePullPolicy"], if latest { "Always" } else { "IfNotPresent" });
    set_default(container, &["resources"], json!({}));
    set_default(container, &["terminationMessagePath"], "/dev/termination-log");
    set_default(container, &["terminationMessagePolicy"], "File");
    let limits = at(container, &["resources", "limits"]).clone();
    if let Value::Object(limits) = limits {
        for (resource, amount) in limits {
            set_default(container, &["resources", "requests", &resource], amount);
        }
    }
    if let Some(Value::Array(ports)) = container.get_mut("ports") {
        ports.iter_mut().for_each(|port| set_default(port, &["protocol"], "TCP"));
    }
    if let Some(Value::Array(env)) = container.get_mut("env") {
        for variable in env {
            if at(variable, &["valueFrom", "fieldRef"]).is_object() {
                set_default(variable, &["valueFrom", "fieldRef", "apiVersion"], "v1");
            }
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if at(container, &[probe]).is_object() {
            set_default(container, &[probe, "timeoutSeconds"], 1);
            set_default(container, &[probe, "periodSeconds"], 10);
            set_default(container, &[probe, "successThreshold"], 1);
            set_default(container, &[probe, "failureThreshold"], 3);
            if at(container, &[probe, "httpGet"]).is_object() {
                set_default(container, &[probe, "httpGet", "path"], "/");
                set_default(container, &[probe, "httpGet", "scheme"], "HTTP");
            }
        }
    }
}

/// What is added when an object is created, once its uid is known.
pub(crate) fn on_create(
    def: &ResourceDef,
    object: &mut Value,
    default_class: Option<&str>,
    cluster_ip: impl FnOnce() -> String,
) {
    match (def.group.as_str(), def.kind.as_str()) {
        ("", "Pod") => {
            set(object, &["status"], json!({"phase": "Pending", "qosClass": qos_class(at(object, &["spec"]))}));
        }
        ("", "Namespace") => {
            set(object, &["spec", "finalizers"], json!(["kubernetes"]));
            set(object, &["status"], json!({"phase": "Active"}));
        }
        ("", "PersistentVolumeClaim") => {
            set(object, &["status"], json!({"phase": "Pending"}));
            add_finalizer(object, "kubernetes.io/pvc-protection");
            let asks_for_none = at(object, &["spec", "storageClassName"]).is_null()
                && at(object, &["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]).is_null();
            if let (true, Some(class)) = (asks_for_none, default_class) {
                set(object, &["spec", "storageClassName"], class);
            }
        }
        ("", "PersistentVolume") => {
            set(object, &["status"], json!({"phase": "Pending"}));
            add_finalizer(object, "kubernetes.io/pv-protection");
        }
        ("", "Service") => {
            let wants_ip = matches!(str_at(object, &["spec", "type"]), "ClusterIP" | "NodePort" | "LoadBalancer");
            if wants_ip && str_at(object, &["spec", "clusterIP"]).is_empty() {
                set(object, &["spec", "clusterIP"], cluster_ip());
            }
            let ip = str_at(object, &["spec", "clusterIP"]).to_owned();
            if !ip.is_empty() {
                set_default(object, &["spec", "clusterIPs"], json!([ip]));
            }
            set(object, &["status"], json!({"loadBalancer": {}}));
        }
        ("batch", "Job") if at(object, &["spec", "manualSelector"]) != true => {
            let (name, uid) =
                (str_at(object, &["metadata", "name"]).to_owned(), str_at(object, &["metadata", "uid"]).to_owned());
            set(object, &["spec", "selector", "matchLabels", "batch.kubernetes.io/controller-uid"], uid.clone());
            for (label, value) in [
                ("batch.kubernetes.io/controller-uid", &uid),
                ("batch.kubernetes.io/job-name", &name),
                ("controller-uid", &uid),
                ("job-name", &name),
            ] {
                set(object, &["spec", "template", "metadata", "labels", label], value.clone());
            }
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            add_finalizer(object, "customresourcecleanup.apiextensions.k8s.io");
        }
        _ => {}
    }
}

pub(crate) fn add_finalizer(object: &mut Value, finalizer: &str) {
    let mut finalizers = list_at(object, &["metadata", "finalizers"]).to_vec();
    if !finalizers.iter().any(|f| f == finalizer) {
        finalizers.push(json!(finalizer));
    }
    set(object, &["metadata", "finalizers"], finalizers);
}

fn qos_class(spec: &Value) -> &'static str {
    let mut any = false;
    let mut all_guaranteed = true;
    for container in list_at(spec, &["containers"]).iter().chain(list_at(spec, &["initContainers"])) {
        let (requests, limits) = (at(container, &["resources", "requests"]), at(container, &["resources", "limits"]));
        any |= requests.is_object() || limits.is_object();
        all_guaranteed &= ["cpu", "memory"].iter().all(|r| {
            limits.get(*r).is_some()
                && requests.get(*r).unwrap_or(&Value::Null) == limits.get(*r).unwrap_or(&Value::Null)
        });
    }
    match (any, all_guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
