use serde_json::json;

use super::*;

fn files(list: &[(&str, &str)]) -> Files {
    let file = |content: &str| Packed::File { content: content.as_bytes().to_vec(), executable: false };
    list.iter().map(|(path, content)| ((*path).to_owned(), file(content))).collect()
}

fn config(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n")
}

fn spec(value: Value) -> KustomizationSpec {
    serde_json::from_value(value).unwrap()
}

fn names(files: &Files, path: &str) -> Vec<String> {
    let folder = folder(files, path).unwrap();
    build(files, &folder, &spec(json!({}))).unwrap().iter().map(|object| object.id.to_string()).collect()
}

fn refused(files: &Files, spec_: Value) -> BuildError {
    build(files, &folder(files, ".").unwrap(), &spec(spec_)).unwrap_err()
}

#[test]
fn a_plain_folder_is_read_with_all_folders_below() {
    let (a, b, c) = (config("a"), config("b"), config("c"));
    let files = files(&[
        ("apps/notes/b/b.yml", &b),
        ("apps/notes/a.yaml", &a),
        ("apps/notes/readme.md", "x"),
        ("apps/notes2/c.yaml", &c),
    ]);
    assert_eq!(names(&files, "./apps/notes"), ["ConfigMap/a", "ConfigMap/b"]);
    assert_eq!(folder(&files, "apps/no"), None);
    assert_eq!(folder(&files, "../x"), None);
}

#[test]
fn a_file_of_kustomize_says_what_belongs_to_it() {
    let (a, b, c) = (config("a"), config("b"), config("c"));
    let files = files(&[
        ("base/b.yaml", &b),
        ("base/kustomization.yaml", "resources: [b.yaml]\n"),
        ("one/a.yaml", &a),
        ("one/left-out.yaml", &c),
        ("one/kustomization.yaml", "resources: [a.yaml, ../base]\nnamespace: apps\n"),
    ]);
    assert_eq!(names(&files, "one"), ["ConfigMap/apps/a", "ConfigMap/apps/b"]);
    assert_eq!(names(&files, ""), ["ConfigMap/b", "ConfigMap/apps/a", "ConfigMap/apps/b"]);
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let a = config("a");
    let overlay = |content: &str| files(&[("kustomization.yaml", content), ("a.yaml", &a)]);
    let unsupported = |what: &str| BuildError::Unsupported(what.to_owned());
    assert_eq!(
        refused(&overlay("resources: [a.yaml]\npatches: []\n"), json!({})),
        unsupported("patches in kustomization.yaml")
    );
    assert_eq!(
        refused(&overlay("resources: [https://example.com/a.yaml]\n"), json!({})),
        unsupported("the remote resource https://example.com/a.yaml in kustomization.yaml")
    );
    assert!(matches!(refused(&overlay("resources: [b.yaml]\n"), json!({})), BuildError::Failed(_)));
    assert!(matches!(refused(&overlay("resources: [a.yaml, a.yaml]\n"), json!({})), BuildError::Failed(_)));
    let namespace = files(&[("a.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n")]);
    let moved = refused(&namespace, json!({ "targetNamespace": "b" }));
    assert_eq!(moved, unsupported("a namespace for Namespace/a"));
    let secret = format!("{}sops: {{}}\n", config("a"));
    let BuildError::Failed(why) = refused(&files(&[("a.yaml", &secret)]), json!({})) else { panic!("built") };
    assert!(why.contains("SOPS"), "{why}");
}

#[test]
fn images_are_changed_where_containers_have_them() {
    let change = |name: &str, rest: Value| {
        let mut image = json!({ "name": name });
        image.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        serde_json::from_value::<Image>(image).unwrap()
    };
    let tag = [change("registry.test:5000/notes", json!({ "newTag": "2.0" }))];
    assert_eq!(changed_image("registry.test:5000/notes:1.0", &tag).as_deref(), Some("registry.test:5000/notes:2.0"));
    assert_eq!(changed_image("registry.test:5000/notes", &tag).as_deref(), Some("registry.test:5000/notes:2.0"));
    assert_eq!(changed_image("other/notes:1.0", &tag), None);
    let name = [change("notes", json!({ "newName": "mirror/notes" }))];
    assert_eq!(changed_image("notes:1.0@sha256:ab", &name).as_deref(), Some("mirror/notes:1.0@sha256:ab"));
    let digest = [change("notes", json!({ "digest": "sha256:cd" }))];
    assert_eq!(changed_image("notes:1.0", &digest).as_deref(), Some("notes@sha256:cd"));
    let mut pod = json!({ "spec": { "containers": [{ "image": "notes:1" }], "other": { "image": "notes:1" } } });
    change_images(&mut pod, &[change("notes", json!({ "newTag": "2" }))]);
    assert_eq!(pod, json!({ "spec": { "containers": [{ "image": "notes:2" }], "other": { "image": "notes:1" } } }));
}

#[test]
fn variables_are_substituted_and_bare_numbers_stay_numbers() {
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {n: '${n}', d: '${m:=x}', e: 'a${none}b', k: '$${n}'}\n";
    let files = files(&[("a.yaml", yaml)]);
    let built = build(&files, "", &spec(json!({ "postBuild": { "substitute": { "n": "3" } } }))).unwrap();
    assert_eq!(built[0].body["data"], json!({ "n": 3, "d": "x", "e": "ab", "k": "${n}" }));
    let other = json!({ "postBuild": { "substitute": { "n": "3" } } });
    let odd = super::tests::files(&[("a.yaml", &yaml.replace("${none}", "${n^^}"))]);
    assert_eq!(refused(&odd, other), BuildError::Unsupported("the substitution ${n^^} in ConfigMap/a".to_owned()));
}
