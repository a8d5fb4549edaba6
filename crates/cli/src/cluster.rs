//! The cluster a command talks to, and reads that say what is missing.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use windlass_api::call::CallError;
use windlass_api::{ManagedApp, RestorePoint, RollbackRequest, UpgradeRequest};

use crate::error::CliError;
use crate::{Common, Session};

/// A kind of object that commands read.
pub(crate) trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static
{
}

impl Kind for ManagedApp {}
impl Kind for UpgradeRequest {}
impl Kind for RollbackRequest {}
impl Kind for RestorePoint {}

/// A client and the namespace that is meant.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Cluster {
    /// By the flags, the environment and the kubeconfig, as kubectl finds it.
    pub(crate) async fn connect(session: &Session, common: &Common) -> Result<Self, CliError> {
        let (client, default_namespace) = match &session.client {
            Some(client) => (client.clone(), "default".to_owned()),
            None => {
                let config = config(common).await?;
                let namespace = config.default_namespace.clone();
                let client = Client::try_from(config).map_err(|error| CliError::Kubeconfig(error.to_string()))?;
                (client, namespace)
            }
        };
        Ok(Self { client, namespace: common.namespace.clone().unwrap_or(default_namespace) })
    }

    /// The objects of this kind in the namespace.
    pub(crate) fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// One object, if it is there.
    pub(crate) async fn find<K: Kind>(&self, name: &str) -> Result<Option<K>, CliError> {
        Ok(self.api().get_opt(name).await.map_err(CallError::on::<K>("get", &self.namespace, name))?)
    }

    /// One object, which must be there.
    pub(crate) async fn get<K: Kind>(&self, name: &str, hint: &str) -> Result<K, CliError> {
        self.find(name).await?.ok_or_else(|| CliError::NotFound {
            what: format!("{} {name}", K::kind(&())),
            namespace: self.namespace.clone(),
            hint: hint.to_owned(),
        })
    }

    /// The app, which must be there.
    pub(crate) async fn app(&self, session: &Session, name: &str) -> Result<ManagedApp, CliError> {
        self.get(name, &format!("list the apps: {} list -A", session.program)).await
    }

    /// All objects of this kind in the namespace, or in all namespaces.
    pub(crate) async fn list<K: Kind>(&self, everywhere: bool) -> Result<Vec<K>, CliError> {
        let api = if everywhere { Api::all(self.client.clone()) } else { self.api() };
        let namespace = if everywhere { "" } else { &self.namespace };
        let list = api.list(&ListParams::default()).await;
        Ok(list.map_err(CallError::on::<K>("list", namespace, ""))?.items)
    }
}

async fn config(common: &Common) -> Result<Config, CliError> {
    let refused = |error: &dyn std::error::Error| CliError::Kubeconfig(error.to_string());
    let options = KubeConfigOptions { context: common.context.clone(), ..KubeConfigOptions::default() };
    match &common.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|error| refused(&error))?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(|error| refused(&error))
        }
        None if common.context.is_some() => Config::from_kubeconfig(&options).await.map_err(|error| refused(&error)),
        None => Config::infer().await.map_err(|error| refused(&error)),
    }
}
