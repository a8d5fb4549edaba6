//! The examples of the repository, applied as a person would. The rig does the same with a real API server.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;

use super::*;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// The examples of one folder of the repository, in order of their names.
fn examples(folder: &str) -> Vec<PathBuf> {
    let folder = repository().join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

fn documents<T: serde::de::DeserializeOwned>(yaml: &str) -> Vec<T> {
    serde_yaml_ng::Deserializer::from_str(yaml).map(|document| T::deserialize(document).unwrap()).collect()
}

/// Creates an object, or puts it in the place of the one that has its name.
async fn put(client: &Client, namespace: &str, object: &DynamicObject) -> kube::Result<DynamicObject> {
    let kind = GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk(&kind));
    let mut object = object.clone();
    // Wherever it was meant to be.
    object.metadata.namespace = None;
    match api.get_opt(&object.name_any()).await? {
        None => api.create(&PostParams::default(), &object).await,
        Some(present) => {
            object.metadata.resource_version = present.metadata.resource_version;
            api.replace(&object.name_any(), &PostParams::default(), &object).await
        }
    }
}

/// Puts the objects of a file, in a namespace of its own. Those before the last must be taken; the last one is returned,
/// and what the server says of it.
async fn put_file(client: &Client, file: &Path) -> (DynamicObject, kube::Result<DynamicObject>) {
    let namespace = format!("of-{}", file.file_stem().unwrap().to_str().unwrap());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let made = from(json!({"metadata": {"name": namespace}}));
    namespaces.create(&PostParams::default(), &made).await.unwrap();
    let mut documents: Vec<DynamicObject> = documents(&std::fs::read_to_string(file).unwrap());
    let last = documents.pop().unwrap();
    for object in &documents {
        let answer = put(client, &namespace, object).await;
        assert!(answer.is_ok(), "{}: {answer:?}", file.display());
    }
    let answer = put(client, &namespace, &last).await;
    (last, answer)
}

#[tokio::test(start_paused = true)]
async fn good_examples_are_stored_as_written() {
    let client = cluster().await;
    // Those for people, too.
    for file in examples("crates/api/examples/good").into_iter().chain(examples("examples/notes")) {
        let (written, answer) = put_file(&client, &file).await;
        assert!(answer.is_ok(), "{}: {answer:?}", file.display());
        assert_eq!(answer.unwrap().data.get("spec"), written.data.get("spec"), "{}", file.display());
    }
}

#[tokio::test(start_paused = true)]
async fn bad_examples_are_refused_with_their_reason() {
    let client = cluster().await;
    let mut wrong = Vec::new();
    for file in examples("crates/api/examples/bad") {
        let text = std::fs::read_to_string(&file).unwrap();
        let expected = text.lines().next().unwrap().strip_prefix("# expect: ").unwrap().trim();
        match put_file(&client, &file).await.1 {
            Err(kube::Error::Api(status)) if status.code == 422 && status.message.contains(expected) => {}
            other => wrong.push(format!("{}: expected {expected:?}, got {other:#?}", file.display())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether everything that one value says is said by the other.
fn is_part(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|found| is_part(value, found)))
        }
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(part, whole)| is_part(part, whole))
        }
        _ => part == whole,
    }
}

#[test]
fn what_the_readme_shows_is_a_part_of_the_examples() {
    let read = |file: &Path| std::fs::read_to_string(file).unwrap();
    let readme = read(&repository().join("README.md"));
    let shown = readme.split("```yaml\n").skip(1).filter_map(|block| block.split("```").next());
    let shown: Vec<Value> = shown.flat_map(documents).collect();
    let kinds: Vec<_> = shown.iter().map(|object| object.get("kind").and_then(Value::as_str)).collect();
    assert_eq!(kinds, [Some("ManagedApp"), Some("UpgradeRequest")]);
    let whole: Vec<Value> = examples("examples/notes").iter().flat_map(|file| documents(&read(file))).collect();
    for object in shown {
        assert!(whole.iter().any(|example| is_part(&object, example)), "not in examples/notes: {object:#}");
    }
}
