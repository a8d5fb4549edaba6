//! Files with examples of objects, tried on a server.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use serde::Deserialize;

/// The files of a folder, in order of their names.
///
/// # Errors
/// When the folder cannot be read, or is empty.
pub fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = listed.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>()?;
    files.sort();
    anyhow::ensure!(!files.is_empty(), "{} is empty", folder.display());
    Ok(files)
}

/// One example: what it is about is the last object of its file, those before it are what that needs.
#[derive(Debug)]
pub struct Example {
    /// The last object, as written.
    pub written: DynamicObject,
    /// What the server says of it, or has stored.
    pub answer: kube::Result<DynamicObject>,
}

/// Puts the objects of a file one after the other into a new namespace of their own, called after folder and file, wherever they say
/// that they are meant to be.
///
/// # Errors
/// When the file holds no objects, or the server refuses one before the last.
pub async fn put(client: &Client, file: &Path) -> anyhow::Result<Example> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let documents = serde_yaml_ng::Deserializer::from_str(&text).map(DynamicObject::deserialize);
    let mut documents = documents.collect::<Result<Vec<_>, _>>().with_context(|| file.display().to_string())?;
    let written = documents.pop().with_context(|| format!("{} holds no object", file.display()))?;
    let word = |of: Option<&OsStr>| of.unwrap_or_default().to_string_lossy().into_owned();
    let name = format!("{}-{}", word(file.parent().and_then(Path::file_name)), word(file.file_stem()));
    let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() }).await?;
    for object in &documents {
        put_object(client, &name, object).await?.with_context(|| file.display().to_string())?;
    }
    let answer = put_object(client, &name, &written).await?;
    Ok(Example { written, answer })
}

/// Creates an object, or puts it in the place of the one that has its name.
async fn put_object(
    client: &Client,
    namespace: &str,
    object: &DynamicObject,
) -> anyhow::Result<kube::Result<DynamicObject>> {
    let types = object.types.as_ref().context("an object has no apiVersion and kind")?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let mut object = object.clone();
    object.metadata.namespace = None;
    let present = api.get_opt(&object.name_any()).await?;
    Ok(match present {
        None => api.create(&PostParams::default(), &object).await,
        Some(present) => {
            object.metadata.resource_version = present.metadata.resource_version;
            api.replace(&object.name_any(), &PostParams::default(), &object).await
        }
    })
}
