//! Asks the API server for every right of the table.

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use upgrade_core::Failure;
use upgrade_core::ports::{AppRef, Rights};
use windlass_api::call::CallError;

use crate::rbac::{RIGHTS, Right, Scope};
use crate::store::failed;

/// Reviews of this process's own rights.
#[derive(Clone)]
pub(crate) struct OwnRights {
    client: Client,
}

impl OwnRights {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    async fn lacks(&self, right: &Right, verb: &str, namespace: &str) -> Result<bool, Failure> {
        let (resource, subresource) = right.resource.split_once('/').unwrap_or((right.resource, ""));
        let attributes = ResourceAttributes {
            group: Some(right.group.into()),
            resource: Some(resource.into()),
            subresource: Some(subresource.into()).filter(|text: &String| !text.is_empty()),
            verb: Some(verb.into()),
            namespace: Some(namespace.into()).filter(|text: &String| !text.is_empty()),
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await;
        let answer =
            answer.map_err(CallError::on::<SelfSubjectAccessReview>("create", "", "")).map_err(|e| failed(&e))?;
        Ok(!answer.status.is_some_and(|status| status.allowed))
    }

    /// Names the right if it is missing.
    async fn ask(
        self,
        right: &'static Right,
        verb: &'static str,
        namespace: String,
    ) -> Result<Option<String>, Failure> {
        let lacks = self.lacks(right, verb, &namespace).await?;
        let place = if namespace.is_empty() { "the cluster".to_owned() } else { namespace };
        Ok(lacks.then(|| format!("{verb} {} in {place}", right.resource)))
    }
}

#[async_trait]
impl Rights for OwnRights {
    async fn missing(&self, app: &AppRef, namespaces: &[String]) -> Result<Vec<String>, Failure> {
        let mut questions: Vec<(&'static Right, &'static str, String)> = Vec::new();
        for right in RIGHTS {
            let wanted: Vec<String> = match right.scope {
                Scope::App => vec![app.namespace.clone()],
                Scope::Delivery => namespaces.to_vec(),
                Scope::Cluster => vec![String::new()],
                Scope::Own => Vec::new(),
            };
            for namespace in wanted {
                questions.extend(right.verbs.iter().map(|verb| (right, *verb, namespace.clone())));
            }
        }
        let mut asked = Vec::new();
        for (right, verb, namespace) in questions {
            asked.push(self.clone().ask(right, verb, namespace));
        }
        let answers: Vec<Result<Option<String>, Failure>> = stream::iter(asked).buffered(16).collect().await;
        let found: Result<Vec<Option<String>>, Failure> = answers.into_iter().collect();
        Ok(found?.into_iter().flatten().collect())
    }
}
