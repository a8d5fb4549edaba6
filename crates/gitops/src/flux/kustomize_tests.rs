//! Folders as people have them, and what is made of them.

use super::{Stop, Tree, build, is_harmless_patch, pieces, resolve};

const CLAIM: &str = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data, namespace: notes}\n";
const WEB: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: notes}\nspec:\n  template:\n    spec:\n      volumes:\n      - {name: v, persistentVolumeClaim: {claimName: data}}\n      - {name: c, configMap: {name: c}}\n---\napiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db, namespace: notes}\nspec:\n  template: {spec: {}}\n  volumeClaimTemplates:\n  - {metadata: {name: store}}\n";

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::default();
    tree.read.insert(String::new());
    tree.files.extend(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())));
    tree
}

/// Each object with what it mounts, or why it is not known.
fn seen(files: &[(&str, &str)], folder: &str) -> Result<Vec<String>, String> {
    let pieces =
        build(&tree(files), folder).and_then(|objects| pieces(&objects, None, false)).map_err(|stop| match stop {
            Stop::Needs(folder) => format!("needs {folder}"),
            Stop::Unknown(why) => why,
        })?;
    Ok(pieces.iter().map(|piece| format!("{} {:?} {:?}", piece.object, piece.claims, piece.claim_templates)).collect())
}

#[test]
fn without_a_kustomization_file_all_files_below_count() {
    let expected = [
        "PersistentVolumeClaim notes/data [] []",
        "Deployment notes/web [\"data\"] []",
        "StatefulSet notes/db [] [\"store\"]",
    ];
    let files = [("apps/notes/claim.yaml", CLAIM), ("apps/notes/deep/web.yml", WEB), ("apps/other/x.yaml", "kind: X")];
    assert_eq!(seen(&files, "apps/notes").unwrap(), expected);
}

#[test]
fn a_file_named_kustomization_counts_as_one_and_two_are_not_known() {
    let base = "resources: [used.yaml]";
    let mut files = vec![
        ("a/Kustomization", base),
        ("a/used.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: used}"),
        ("a/claim.yaml", CLAIM),
    ];
    assert_eq!(seen(&files, "a").unwrap(), ["Service used [] []"], "the claim is not among the resources");
    assert_eq!(seen(&files, "").unwrap(), ["Service used [] []"]);
    files.push(("a/kustomization.yaml", base));
    assert!(seen(&files, "a").unwrap_err().contains("more than one kustomization file"));
}

#[test]
fn folders_that_name_each_other_again_and_again_end_as_unknown() {
    let again = |name: &str| format!("resources: [{}]", vec![format!("../{name}"); 20].join(", "));
    let texts: Vec<(String, String)> =
        (0..12).map(|at| (format!("f{at}/kustomization.yaml"), again(&format!("f{}", at + 1)))).collect();
    let mut files: Vec<(&str, &str)> = texts.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    files.push(("f12/kustomization.yaml", "resources: []"));
    let why = seen(&files, "f0").unwrap_err();
    assert!(why.contains("again and again"), "{why}");
}

#[test]
fn what_kustomize_leaves_out_is_not_taken_for_delivered() {
    let local = CLAIM.replace("namespace: notes}", "annotations: {config.kubernetes.io/local-config: 'true'}}");
    assert!(seen(&[("a/claim.yaml", &local)], "a").unwrap_err().contains("local-config"));
}

#[test]
fn a_patch_that_replaces_what_holds_names_or_volumes_is_not_harmless() {
    for path in
        ["", "/spec", "/metadata", "/spec/template", "/spec/template/spec", "/spec/jobTemplate/spec/template/spec"]
    {
        assert!(!is_harmless_patch(&format!("- {{op: replace, path: '{path}', value: {{}}}}")), "{path}");
    }
    for path in [
        "/spec/replicas",
        "/metadata/annotations/x",
        "/spec/template/metadata",
        "/spec/template/spec/containers/0/image",
    ] {
        assert!(is_harmless_patch(&format!("- {{op: replace, path: '{path}', value: x}}")), "{path}");
        assert!(!is_harmless_patch(&format!("- {{op: move, from: '{path}', path: '{path}'}}")), "{path}");
    }
    for (merge, harmless) in [
        ("kind: Deployment\nspec: {template: {spec: {nodeSelector: null}}}", true),
        ("kind: Deployment\nspec: {template: {spec: null}}", false),
        ("kind: Deployment\nspec: null", false),
        ("kind: Deployment\nspec: {$retainKeys: [replicas]}", false),
        ("kind: Deployment\nspec: {replicas: 2}\n---\nkind: Deployment\nspec:", false),
        ("just words", false),
        ("a: [", false),
    ] {
        assert_eq!(is_harmless_patch(merge), harmless, "{merge}");
    }
}

#[test]
fn a_folder_with_a_kustomization_file_is_taken_as_that_says() {
    let files = [
        ("a/claim.yaml", CLAIM),
        ("a/inner/kustomization.yaml", "resources: [used.yaml]"),
        ("a/inner/used.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: used}"),
        ("a/inner/unused.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: unused}"),
    ];
    assert_eq!(seen(&files, "a").unwrap(), ["PersistentVolumeClaim notes/data [] []", "Service used [] []"]);
    assert_eq!(seen(&files, "a/inner").unwrap(), ["Service used [] []"]);
}

#[test]
fn resources_are_followed_through_the_repository_and_namespaces_put_on() {
    let overlay = "kind: Kustomization\nnamespace: prod\nresources: [../base]\nimages: [{name: web, newTag: '2'}]\npatches:\n- {path: size.yaml}\n";
    let files = [
        ("base/kustomization.yml", "resources: [claim.yaml, web.yaml]"),
        ("base/claim.yaml", CLAIM),
        ("base/web.yaml", WEB),
        ("prod/kustomization.yaml", overlay),
        ("prod/size.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 3}"),
    ];
    let seen = seen(&files, "prod").unwrap();
    assert_eq!(seen[0], "PersistentVolumeClaim prod/data [] []");
    assert_eq!(seen.len(), 3);
}

#[test]
fn what_may_change_names_or_volumes_is_unknown_and_says_why() {
    for (kustomization, why) in [
        ("resources: [claim.yaml]\nnamePrefix: x-", "a/kustomization.yaml has namePrefix"),
        ("resources: [claim.yaml]\ncomponents: [../c]", "a/kustomization.yaml has components"),
        ("resources: [claim.yaml]\nhelmCharts: [{name: x}]", "a/kustomization.yaml has helmCharts"),
        ("resources: [claim.yaml]\nsomethingNew: [1]", "a/kustomization.yaml has somethingNew"),
        ("resources: ['https://github.com/x/y?ref=v1']", "from elsewhere"),
        ("resources: [../../x]", "outside of the repository"),
        ("resources: [missing.yaml]", "a/missing.yaml does not exist"),
        ("resources: [nowhere]", "a/nowhere has no kustomization.yaml"),
        ("resources: [../a]", "in a circle"),
        ("resources: [claim.yaml]\npatches: [{patch: '$patch: delete'}]", "may change names or volumes"),
        ("resources: [claim.yaml]\npatches: [{patch: 'x', options: {allowNameChange: true}}]", "may change names"),
        ("resources: [claim.yaml]\npatches: [{path: gone.yaml}]", "cannot be read"),
        ("resources: {a: b}", "resources that cannot be read"),
        ("a: [", "cannot be read"),
    ] {
        let files = [("a/kustomization.yaml", kustomization), ("a/claim.yaml", CLAIM)];
        let found = seen(&files, "a").unwrap_err();
        assert!(found.contains(why), "{kustomization}: {found}");
    }
    assert!(seen(&[("b/x.yaml", CLAIM)], "a").unwrap_err().contains("nothing in a"));
    assert!(seen(&[("a/x.yaml", "- list")], "a").unwrap_err().contains("cannot be read"));
}

#[test]
fn patches_that_touch_volumes_are_told_from_those_that_do_not() {
    for (patch, harmless) in [
        ("spec: {replicas: 2}", true),
        ("- {op: replace, path: /spec/template/spec/containers/0/image, value: x}", true),
        ("spec: {template: {spec: {volumes: [{name: v}]}}}", false),
        ("kind: PersistentVolumeClaim\nspec: {}", false),
        ("- {op: replace, path: /metadata/name, value: x}", false),
        ("- {op: remove, path: /spec/template/spec/volumes/0}", false),
        ("$patch: delete", false),
    ] {
        assert_eq!(is_harmless_patch(patch), harmless, "{patch}");
    }
}

#[test]
fn a_folder_that_was_not_read_is_asked_for_and_names_with_variables_are_unknown() {
    let mut partly = tree(&[("prod/kustomization.yaml", "resources: [../base]")]);
    partly.read = ["prod".to_owned()].into();
    assert_eq!(build(&partly, "prod"), Err(Stop::Needs("base".into())));
    let objects =
        build(&tree(&[("a/x.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: 'a-${env}'}")]), "a").unwrap();
    assert_eq!(pieces(&objects, Some("n"), false).unwrap()[0].object.namespace, "n");
    assert!(matches!(pieces(&objects, None, true), Err(Stop::Unknown(_))));
}

#[test]
fn paths_stay_inside_the_repository() {
    for (folder, path, expected) in [
        ("", "./apps/notes/", Some("apps/notes")),
        ("a/b", "../c", Some("a/c")),
        ("a", "../..", None),
        ("a", ".", Some("a")),
    ] {
        assert_eq!(resolve(folder, path).as_deref(), expected, "{folder} {path}");
    }
}

#[test]
fn a_file_whose_aliases_stand_for_gigabytes_is_not_known() {
    let bomb = format!("a: &a [{}]\nb: [{}]\n", vec!["0"; 10_000].join(","), vec!["*a"; 5_000].join(","));
    let why = seen(&[("apps/bomb.yaml", &bomb)], "apps").unwrap_err();
    assert!(why.contains("cannot be read"), "{why}");
    assert!(!is_harmless_patch(&bomb));
}

#[test]
fn merge_keys_are_merged() {
    let web = "apiVersion: v1\nkind: Pod\nmetadata: &meta {name: web, namespace: notes}\nx-pod: &pod\n  volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]\nspec: {<<: *pod, containers: []}\n";
    assert_eq!(seen(&[("apps/web.yaml", web)], "apps").unwrap(), ["Pod notes/web [\"data\"] []"]);
}
