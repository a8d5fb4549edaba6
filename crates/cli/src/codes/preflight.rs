//! Refusals: why an operation does not begin.

use super::Row;

pub(super) const CODES: &[Row] = &[
    (
        "accept-unknown",
        "spec.accept names a change that this operation does not bring: a name with a typo accepts nothing.",
        "Take the name out, or correct it: the message lists what can be accepted.",
    ),
    (
        "app-overlaps",
        "Two ManagedApps of one namespace name the same delivery object, and would undo each other's work.",
        "Let one ManagedApp stand for it.",
    ),
    (
        "chart-source-unsupported",
        "The chart comes from a Bucket, which cannot be asked to look for the new version.",
        "Take the chart from a HelmRepository.",
    ),
    (
        "claim-made-anew",
        "A claim was made anew since it was copied, by a restore or by hand: restoring replaces what was written to it since.",
        "If that is meant, accept it by the name that the message gives: --accept restore-again/CLAIM/UID.",
    ),
    (
        "claim-not-in-restore-point",
        "The restore point has no copy of a claim that stays mounted: the older version would start on newer data.",
        "If that is meant, accept it by name: --accept keep-claim/CLAIM. Or keep all data: --data keep.",
    ),
    (
        "claim-of-another-app",
        "Another ManagedApp names the same claim: restoring it would change that app's data.",
        "Separate the apps' claims, or take the claim out of the other app's spec.snapshots.claims.",
    ),
    (
        "claims-would-change",
        "The target drops, adds or renames claims: dropped ones take their data along, added ones have no copy.",
        "If that is meant, accept each by its name: --accept drop-claim/NAME or add-claim/NAME.",
    ),
    (
        "drift-detection",
        "The HelmRelease corrects drift and Git declares its spec.suspend, so its parent may start the old version on the data.",
        "Turn drift detection off, or take spec.suspend out of Git.",
    ),
    (
        "message-template",
        "The template of commit messages has a placeholder that nothing is known for.",
        "Use {app}, {namespace}, {components}, {from}, {to}, {reason} and {request} only.",
    ),
    (
        "rendering-unknown",
        "What a Kustomization would deliver cannot be told, so a dropped claim or a renamed workload would not be seen.",
        "Look at the change yourself, then accept it by name: --accept unrendered/Kustomization/NAME.",
    ),
    (
        "workloads-would-change",
        "The target removes or renames a workload that mounts claims: it is stopped and could not be put back.",
        "If that is meant, accept it by name: --accept remove-workload/KIND/NAME. It stays at 0 replicas.",
    ),
    (
        "app-gone",
        "The ManagedApp was deleted, or replaced by another of the same name.",
        "Make it again, then make a new request.",
    ),
    (
        "autoscaler-from-zero",
        "An autoscaler may start the app again while it has to be stopped.",
        "Pause the autoscaler, or let it not scale from zero.",
    ),
    (
        "bare-pod",
        "A pod without a controller mounts a claim of the app: once stopped, nothing would start it again.",
        "Run it by a Deployment, StatefulSet or Job, or delete it.",
    ),
    (
        "branch-not-the-source",
        "The branch that would be written is not the one that is delivered.",
        "Name the branch of the app's GitRepository in spec.git.repositories.",
    ),
    (
        "cannot-stop",
        "Something that mounts a claim of the app cannot be stopped.",
        "Let a kind that can be scaled to zero mount it, or use snapshots.consistency: Online.",
    ),
    (
        "chart-name-change",
        "The target is another chart, not another version of the same one.",
        "Change the chart by hand; Windlass changes versions only.",
    ),
    (
        "chart-ref",
        "The HelmRelease takes its chart by chartRef, whose version is written elsewhere.",
        "Use spec.chart with an exact version.",
    ),
    ("claim-missing", "A claim that the app's spec names is not there.", "Correct spec.snapshots.claims."),
    (
        "claim-not-bound",
        "A claim is not bound to a volume, so there is nothing to copy.",
        "Wait until it is bound, or remove it.",
    ),
    (
        "claim-on-other-volume",
        "A claim is on another volume than before.",
        "Find out who replaced it before you go on.",
    ),
    ("claim-terminating", "A claim is being deleted.", "Let the deletion end, or find out who asked for it."),
    ("constraint-malformed", "spec.policy.constraint is not a version range.", "Correct it, for example `>=1.2 <2`."),
    (
        "daemon-set",
        "A DaemonSet mounts a claim of the app; it cannot be scaled to zero.",
        "Let another kind of workload mount it.",
    ),
    (
        "delivery-cycle",
        "The delivery objects above the app lead in a circle.",
        "Correct the labels or dependencies of the Kustomizations.",
    ),
    (
        "delivery-unsupported",
        "The app is delivered by something that cannot be gated.",
        "Deliver it by a HelmRelease or a Kustomization from Git.",
    ),
    (
        "downgrade",
        "The target is older than what runs. Old code on newer data is not safe.",
        "Use `rollback`: it brings the data of the older version back too.",
    ),
    (
        "force-annotation",
        "A claim carries an annotation that lets its delivery replace it by force.",
        "Remove the annotation: a claim that is replaced loses its data.",
    ),
    (
        "foreign-consumer",
        "Something that the app does not deliver mounts one of its claims.",
        "Stop it, or let the app's delivery objects deliver it.",
    ),
    (
        "held-by-other-operation",
        "Another operation holds a delivery object of the app.",
        "Find its request by the UID in the message. Wait until it has ended; one that has ended has left it suspended: see its leftovers.",
    ),
    (
        "image-policy-marker",
        "Flux image automation writes the version, by an $imagepolicy marker.",
        "Remove the marker, or let image automation do the upgrades.",
    ),
    (
        "live-differs-from-git",
        "Git says one version, and the cluster runs another.",
        "Let the delivery settle, or find out who changed it.",
    ),
    (
        "loss-not-acknowledged",
        "The version has served, or may have since its upgrade ended: restoring loses writes that it acknowledged.",
        "Name the time: --acknowledge-loss-since TIME, or keep the data: --data keep.",
    ),
    (
        "namespace-not-allowed",
        "A delivery object, or what Helm stores of it, is in a namespace that the operator may not touch.",
        "Add it to the operator's --shared-namespaces, or move the object.",
    ),
    (
        "no-git-source",
        "No Git source was found above the app.",
        "Deliver it from a GitRepository: only that can be gated.",
    ),
    ("no-pins", "The app does not say where its versions are written.", "Name the scalars in spec.git.pins."),
    (
        "not-csi",
        "A volume is not provided by a CSI driver, so it cannot be snapshotted.",
        "Move the data to a CSI volume.",
    ),
    ("not-from-git", "An object's version does not come from Git.", "Deliver it from a GitRepository."),
    (
        "not-installed",
        "Helm has no release of a HelmRelease yet, so there is nothing to upgrade.",
        "Wait until helm-controller has installed it; see its status.",
    ),
    ("nothing-to-do", "Git already carries these versions.", "Nothing needs to be done."),
    (
        "nothing-to-watch",
        "No workload of the app is meant to run and can be judged: all are at 0 replicas, or CronJobs, Jobs or pods by themselves, or of a kind that is not known here. Then nothing would tell whether the target is healthy.",
        "Let one of its Deployments, StatefulSets, ReplicaSets or DaemonSets run, then make a new request.",
    ),
    (
        "object-not-named",
        "The app does not name a delivery object any more that delivered it: a rollback would not hold it.",
        "Name it again in spec.delivery.flux.objects, or accept it by name: --accept leave-object/KIND/NAME.",
    ),
    ("oci-source", "The app is delivered from an OCI artifact, not from Git.", "Deliver it from a GitRepository."),
    (
        "outside-constraint",
        "The target lies outside of spec.policy.constraint.",
        "Choose another version, or change the constraint.",
    ),
    (
        "owned-by-operator",
        "Another operator owns a workload or claim, and would fight against a stop.",
        "Upgrade that app by its own operator.",
    ),
    (
        "parent-not-ready",
        "Something that the app is delivered by is not ready.",
        "Repair it first: its own failure would look like the app's.",
    ),
    (
        "parent-unsupported",
        "Something above the app is not a kind that can be gated.",
        "See the message for the object; deliver the app without it.",
    ),
    (
        "pin-not-named",
        "The restore point knows a version that the app does not name a pin for any more: it would not go back.",
        "Name the pin again in spec.git.pins, or accept it by name: --accept leave-pin/COMPONENT.",
    ),
    (
        "pin-not-recorded",
        "The restore point does not know the version of a component.",
        "Put this component's version back in Git by hand.",
    ),
    (
        "readiness-unknown",
        "A delivery object does not say whether it is ready.",
        "Wait until its controller has looked at it.",
    ),
    (
        "release-target-change",
        "The HelmRelease would become another release, or one in another namespace.",
        "Change the target by hand; Windlass changes versions only.",
    ),
    (
        "remediation-rollback",
        "The HelmRelease rolls failures back by itself, on data of the new version.",
        "Use the strategy RetryOnFailure; Windlass rolls back, with the data.",
    ),
    (
        "remediation-uninstall",
        "The HelmRelease uninstalls on failure.",
        "Use the strategy RetryOnFailure; Windlass rolls back, with the data.",
    ),
    ("remote-cluster", "The app is delivered into another cluster.", "Run Windlass in that cluster."),
    (
        "repository-not-the-source",
        "No source of the app reads the repository that would be written.",
        "Name the repository that the app's GitRepository reads.",
    ),
    (
        "restore-point-not-found",
        "There is no restore point of that name, or none is named.",
        "List them: `windlass snapshots APP`.",
    ),
    (
        "restore-point-void",
        "The data of the restore point was overtaken: restoring it would lose writes nobody counted.",
        "Choose another one: `windlass snapshots APP`.",
    ),
    (
        "rights-missing",
        "The operator lacks rights that the operation will need.",
        "Apply the RBAC manifests of this version of Windlass.",
    ),
    ("running-job", "A Job that mounts a claim of the app is running.", "Wait until it has ended."),
    ("shared-handle", "Two volumes name the same storage: restoring one would change the other.", "Separate them."),
    (
        "snapshot-gone",
        "A snapshot of the restore point is gone.",
        "Choose another restore point: `windlass snapshots APP`.",
    ),
    (
        "snapshot-not-usable",
        "A snapshot of the restore point is not what was taken, or not ready.",
        "Choose another restore point: `windlass snapshots APP`.",
    ),
    (
        "sops-file",
        "The file is encrypted with SOPS: a change would break its signature.",
        "Move the version into a file that is not encrypted.",
    ),
    ("source-missing", "The source that a delivery object names is not there.", "Correct its sourceRef."),
    ("source-not-a-branch", "The source follows a tag, a range or a commit.", "Let it follow a branch."),
    (
        "source-verifies",
        "The source accepts signed commits only, and Windlass cannot sign here.",
        "Turn spec.verify off, or upgrade by hand.",
    ),
    (
        "source-without-artifact",
        "The source has not fetched anything yet.",
        "Wait until it has fetched once; see its status.",
    ),
    (
        "suspended-by-others",
        "Somebody else has suspended a delivery object or source.",
        "Find out why, and resume it: `flux resume`.",
    ),
    (
        "unknown-component",
        "No pin carries the version of that component.",
        "Name one of the app's components: `windlass show app APP`.",
    ),
    ("unknown-delivery", "What delivers a workload cannot be told.", "Deliver it by the app's own delivery objects."),
    ("unready-snapshot", "A snapshot of the app's claims by somebody else is not ready yet.", "Wait for it."),
    ("upgrade-not-found", "There is no upgrade of that name that has begun.", "See `windlass history APP`."),
    (
        "values-from",
        "The version may come from valuesFrom, outside of the file that is changed.",
        "Write it into spec.values.",
    ),
    (
        "version-blocked",
        "The version was rolled back before.",
        "Once the reason is gone: `windlass unblock APP --component C --version V`.",
    ),
    ("version-commit", "The version is a commit, which has no order.", "Choose a semantic version."),
    ("version-date", "The version is a date, which cannot be compared with the others.", "Choose a semantic version."),
    ("version-empty", "The version is empty.", "Name one."),
    ("version-incomplete", "The version has fewer than three numbers.", "Write all three, as in 1.4.0."),
    ("version-malformed", "The version cannot be read.", "Write it as in 1.4.0 or 1.4.0-rc.1."),
    ("version-moving-tag", "The tag moves without a commit, like `latest`.", "Choose an exact version."),
    (
        "version-not-semver",
        "The version cannot be compared with the one that runs.",
        "Choose a tag that is a semantic version.",
    ),
    (
        "version-range",
        "A range was found where an exact version is needed: it moves without a commit.",
        "Pin an exact version.",
    ),
    ("version-skipped", "The version is in spec.policy.skip.", "Choose another one, or take it off that list."),
    (
        "version-through-parent",
        "An object of the app gets its version from a Kustomization of the app above it, so it could be let go with the version of before.",
        "Let each delivery object of the app name its own version, and pin it there.",
    ),
    ("version-too-long", "The version is longer than any real one.", "Check what was pasted."),
    ("range-empty", "The range is empty.", "Write one, for example `>=1.2 <2`."),
    ("range-malformed", "The range cannot be read.", "Write one, for example `>=1.2 <2`."),
    ("range-too-long", "The range is too long.", "Write a shorter one."),
    ("range-too-many-alternatives", "The range has too many alternatives.", "Write fewer."),
    (
        "when-scaled-delete",
        "The StatefulSet deletes its claims when it is scaled down.",
        "Set persistentVolumeClaimRetentionPolicy.whenScaled to Retain.",
    ),
    (
        "workload-not-delivered",
        "A workload is not delivered by what the app names.",
        "Name its delivery object in spec.delivery.",
    ),
    (
        "pin-not-live",
        "No live object shows the version that a pin carries, so whether it arrived could not be told.",
        "Name the field that the live object takes its version from.",
    ),
    (
        "pin-without-container",
        "No container of the app has an image that an image/NAME pin is the version of, so the app's health could not be told.",
        "Call the component image/REPOSITORY, by the last part of the image's repository, or pin the container's own image.",
    ),
    (
        "image-differs-from-pin",
        "A container does not have the tag that its pin carries in Git, so the app would never count as healthy.",
        "Let the delivery settle; a tag that the chart changes (a v before it) cannot be an image pin.",
    ),
    ("frozen", "An object is marked so that Git does not reach it.", "Remove the mark that the message names."),
    (
        "force",
        "A Kustomization or claim is delivered by force: what cannot be changed would be deleted and made anew.",
        "Turn force off.",
    ),
    (
        "keda",
        "KEDA may start the app again while it has to be stopped, and is not paused.",
        "Annotate the ScaledObject with autoscaling.keda.sh/paused: \"true\".",
    ),
];
