//! The examples of the repository, applied as a person would. The rig does the same with a real API server.

use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use windlass_playground::examples::{files, put};

use super::*;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

fn examples(folder: &str) -> Vec<PathBuf> {
    files(&repository().join(folder)).unwrap()
}

fn documents(yaml: &str) -> Vec<Value> {
    serde_yaml_ng::Deserializer::from_str(yaml).map(|document| Value::deserialize(document).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn good_examples_are_stored_as_written() {
    let client = cluster().await;
    // Those for people, too.
    for file in examples("crates/api/examples/good").into_iter().chain(examples("examples/notes")) {
        let example = put(&client, &file).await.unwrap();
        assert!(example.answer.is_ok(), "{}: {example:?}", file.display());
        assert_eq!(example.answer.unwrap().data["spec"], example.written.data["spec"], "{}", file.display());
    }
}

#[tokio::test(start_paused = true)]
async fn bad_examples_are_refused_with_their_reason() {
    let client = cluster().await;
    let mut wrong = Vec::new();
    for file in examples("crates/api/examples/bad") {
        let text = std::fs::read_to_string(&file).unwrap();
        let expected = text.lines().next().unwrap().strip_prefix("# expect: ").unwrap().trim();
        match put(&client, &file).await.unwrap().answer {
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
