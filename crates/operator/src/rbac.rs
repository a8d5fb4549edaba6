//! The one table of rights: manifests are generated from it, and preflight asks the API server for each of them.

use serde_json::{Value, json};

/// The name of the roles and of their bindings.
const NAME: &str = "windlass-operator";

/// What may be done to one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resource, with `/subresource` where one is meant.
    pub resource: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// Where it is needed.
    pub scope: Scope,
    /// Why, for `docs/rbac.md`.
    pub why: &'static str,
}

/// Where a right is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In the namespaces of the apps.
    App,
    /// In the namespaces of the apps and of what delivers them.
    Delivery,
    /// For objects without a namespace.
    Cluster,
    /// In the operator's own namespace.
    Own,
}

const OURS: &str = "upgrades.windlass.dev";

const fn right(
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    scope: Scope,
    why: &'static str,
) -> Right {
    Right { group, resource, verbs, scope, why }
}

/// Every right of the operator, and no other.
pub const RIGHTS: &[Right] = &[
    right(OURS, "managedapps", &["get", "list", "watch"], Scope::App, "the apps"),
    right(OURS, "managedapps/status", &["patch"], Scope::App, "who works on an app, what is blocked"),
    right(
        OURS,
        "upgraderequests",
        &["get", "list", "watch", "patch"],
        Scope::App,
        "requests; patch is for our finalizer",
    ),
    right(OURS, "upgraderequests/status", &["patch"], Scope::App, "plan, journal and result"),
    right(
        OURS,
        "rollbackrequests",
        &["get", "list", "watch", "create", "patch"],
        Scope::App,
        "requests; create is for automatic rollbacks",
    ),
    right(OURS, "rollbackrequests/status", &["patch"], Scope::App, "plan, journal and result"),
    right(
        OURS,
        "restorepoints",
        &["get", "list", "watch", "create", "patch", "delete"],
        Scope::App,
        "restore points; patch is for our finalizer and for voiding, delete for retention",
    ),
    right(OURS, "restorepoints/status", &["patch"], Scope::App, "whether a restore point is usable"),
    right(
        "",
        "secrets",
        &["get", "list"],
        Scope::App,
        "Git credentials that an app names, and the releases that Helm stores",
    ),
    right(
        "",
        "namespaces",
        &["get"],
        Scope::Cluster,
        "whether one is being deleted, so that what is held outside is let go",
    ),
    right("", "services", &["get"], Scope::App, "HTTP checks"),
    right("discovery.k8s.io", "endpointslices", &["list"], Scope::App, "HTTP checks"),
    right(
        "",
        "pods",
        &["get", "list", "delete"],
        Scope::App,
        "who mounts a claim; delete is for ended pods that keep a claim",
    ),
    right(
        "",
        "persistentvolumeclaims",
        &["get", "list", "create", "delete"],
        Scope::App,
        "restoring: helper claims, and the swap",
    ),
    right("", "persistentvolumes", &["get", "list", "patch"], Scope::Cluster, "reclaim policies and reservations"),
    right("", "nodes", &["list"], Scope::Cluster, "whether a volume is still mounted"),
    right("storage.k8s.io", "volumeattachments", &["list"], Scope::Cluster, "whether a volume is still attached"),
    right("storage.k8s.io", "storageclasses", &["get"], Scope::Cluster, "whether a restored claim binds without a pod"),
    right("snapshot.storage.k8s.io", "volumesnapshots", &["get", "list", "create", "delete"], Scope::App, "snapshots"),
    right(
        "snapshot.storage.k8s.io",
        "volumesnapshotcontents",
        &["get", "list", "patch", "delete"],
        Scope::Cluster,
        "proving snapshots, and keeping them; delete is for copies whose snapshot somebody else deleted",
    ),
    right(
        "snapshot.storage.k8s.io",
        "volumesnapshotclasses",
        &["get", "list"],
        Scope::Cluster,
        "which class fits a driver",
    ),
    right(
        "apps",
        "deployments",
        &["get", "list", "patch"],
        Scope::App,
        "workloads; patch is for the mark that keeps them from being applied",
    ),
    right("apps", "statefulsets", &["get", "list", "patch"], Scope::App, "as deployments"),
    right("apps", "replicasets", &["get", "list", "patch"], Scope::App, "as deployments"),
    right("apps", "daemonsets", &["get", "list"], Scope::App, "reported: they cannot be stopped"),
    right("apps", "deployments/scale", &["patch"], Scope::App, "stopping and putting back"),
    right("apps", "statefulsets/scale", &["patch"], Scope::App, "stopping and putting back"),
    right("apps", "replicasets/scale", &["patch"], Scope::App, "stopping and putting back"),
    right("batch", "jobs", &["get", "list"], Scope::App, "reported: they cannot be stopped"),
    right("batch", "cronjobs", &["get", "list", "patch"], Scope::App, "suspending"),
    right("autoscaling", "horizontalpodautoscalers", &["list"], Scope::App, "warnings"),
    right("keda.sh", "scaledobjects", &["list"], Scope::App, "refusing what scales up again by itself"),
    right(
        "helm.toolkit.fluxcd.io",
        "helmreleases",
        &["get", "list", "patch"],
        Scope::Delivery,
        "suspending and resuming",
    ),
    right(
        "kustomize.toolkit.fluxcd.io",
        "kustomizations",
        &["get", "list", "patch"],
        Scope::Delivery,
        "suspending and resuming",
    ),
    right(
        "source.toolkit.fluxcd.io",
        "gitrepositories",
        &["get", "patch"],
        Scope::Delivery,
        "what was fetched; patch is for asking it to fetch now",
    ),
    right(
        "source.toolkit.fluxcd.io",
        "helmrepositories",
        &["get", "patch"],
        Scope::Delivery,
        "where charts come from, and asking it to look for new ones now",
    ),
    right("source.toolkit.fluxcd.io", "helmcharts", &["get"], Scope::Delivery, "which chart was fetched"),
    right("events.k8s.io", "events", &["create"], Scope::App, "one event for each step"),
    right("coordination.k8s.io", "leases", &["get", "create", "update"], Scope::Own, "leader election"),
];

fn rules(rights: impl Iterator<Item = &'static Right>) -> Vec<Value> {
    rights
        .map(|right| json!({"apiGroups": [right.group], "resources": [right.resource], "verbs": right.verbs}))
        .collect()
}

/// What gives `subject` (of a binding) the rights of the table, and no others: the ClusterRole for everything but the lease, the Role
/// for the lease in the operator's own namespace, and a binding of each.
pub fn rights_of(namespace: &str, subject: &Value) -> [Value; 4] {
    let cluster = RIGHTS.iter().filter(|right| right.scope != Scope::Own);
    let own = RIGHTS.iter().filter(|right| right.scope == Scope::Own);
    let reference = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": NAME});
    [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": NAME},
            "rules": rules(cluster),
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": NAME},
            "subjects": [subject],
            "roleRef": reference("ClusterRole"),
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": NAME, "namespace": namespace},
            "rules": rules(own),
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": NAME, "namespace": namespace},
            "subjects": [subject],
            "roleRef": reference("Role"),
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_right_is_a_wildcard_and_none_is_given_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for right in RIGHTS {
            assert!(
                !right.group.contains('*') && !right.resource.contains('*') && !right.verbs.contains(&"*"),
                "{right:?}"
            );
            assert!(seen.insert((right.group, right.resource)), "{right:?} twice");
            assert!(!right.why.is_empty());
        }
    }
}
