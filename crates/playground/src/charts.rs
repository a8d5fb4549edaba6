//! The charts of the cluster, rendered as its Flux renders them.

use async_trait::async_trait;
use kube_sim::controllers::{ChartRegistry, HelmSim};
use windlass_helm::{ChartTemplates, HelmError, TemplateRequest};

/// [`ChartTemplates`] in this process, over the folders that stand for chart repositories.
pub(crate) struct Charts(pub(crate) ChartRegistry);

#[async_trait]
impl ChartTemplates for Charts {
    async fn template(&self, request: &TemplateRequest) -> Result<String, HelmError> {
        let failed = |why: String| HelmError::TemplateFailed { why };
        let TemplateRequest { release, namespace, chart, version, repository, values, .. } = request;
        let found = self.0.find(repository, chart, version).map_err(|error| failed(error.to_string()))?;
        HelmSim::template(release, namespace, found.1, values).map_err(failed)
    }
}
