//! HTTP checks, against every ready address of a Service.
//!
//! The addresses are asked one by one and directly, as the kubelet does, because a request through the Service would only
//! say that one of its pods answers. A redirect counts as an answer and is not followed; bodies are not read.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use reqwest::redirect::Policy;
use upgrade_core::ports::HttpCheck;
use windlass_api::call::CallError;

use crate::Error;

/// At most this many addresses are asked per check, the first in their order.
const ADDRESSES: usize = 16;

/// A client that neither follows redirects nor uses a proxy: both would ask somebody else.
///
/// # Errors
/// When the process has chosen no TLS provider: reqwest, which always sets TLS up, would panic.
pub fn client() -> Result<reqwest::Client, Error> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        return Err(Error::NoTlsProvider);
    }
    reqwest::Client::builder().redirect(Policy::none()).no_proxy().build().map_err(Error::HttpClient)
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Good(String),
    Waiting(String),
}

/// Makes one check.
pub(crate) async fn check(
    client: &Client,
    http: &reqwest::Client,
    namespace: &str,
    check: &HttpCheck,
) -> Result<Answer, Error> {
    let name = &check.service;
    let service = Api::<Service>::namespaced(client.clone(), namespace).get_opt(name).await;
    let Some(service) = service.map_err(CallError::on::<Service>("get", namespace, name))? else {
        return Ok(Answer::Waiting(format!("service {namespace}/{name} does not exist")));
    };
    let of_it = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace).list(&of_it).await;
    let slices = slices.map_err(CallError::on::<EndpointSlice>("list", namespace, ""))?.items;
    let addresses = match addresses(&service, &slices, check.port) {
        Ok(addresses) => addresses,
        Err(why) => return Ok(Answer::Waiting(format!("service {namespace}/{name}: {why}"))),
    };
    let timeout = std::time::Duration::try_from(check.timeout).unwrap_or_default();
    for (address, port) in &addresses {
        let url = url(*address, *port, &check.path);
        let status = match http.get(&url).timeout(timeout).send().await {
            Ok(response) => response.status(),
            Err(error) => return Ok(Answer::Waiting(format!("{url} of service {name}: {}", cause(&error)))),
        };
        if !(status.is_success() || status.is_redirection()) {
            return Ok(Answer::Waiting(format!("{url} of service {name} answers {status}")));
        }
    }
    let count = addresses.len();
    Ok(Answer::Good(format!("{name}:{}{} answers on {count} addresses", check.port, check.path)))
}

/// The ready addresses behind a port of a Service.
fn addresses(service: &Service, slices: &[EndpointSlice], port: u16) -> Result<Vec<(IpAddr, u16)>, String> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let found = ports.iter().find(|candidate| candidate.port == i32::from(port));
    let wanted = found.ok_or_else(|| format!("it has no port {port}"))?.name.clone().unwrap_or_default();
    let mut addresses = Vec::new();
    for slice in slices {
        let ports = slice.ports.as_deref().unwrap_or_default();
        let target = ports.iter().find(|candidate| candidate.name.clone().unwrap_or_default() == wanted);
        let Some(target) = target.and_then(|target| u16::try_from(target.port?).ok()) else { continue };
        for endpoint in slice.endpoints.as_deref().unwrap_or_default() {
            // By the API's definition an endpoint that does not say is ready.
            if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true) {
                addresses.extend(endpoint.addresses.iter().filter_map(|address| Some((address.parse().ok()?, target))));
            }
        }
    }
    addresses.sort();
    addresses.dedup();
    addresses.truncate(ADDRESSES);
    if addresses.is_empty() { Err("it has no ready address".into()) } else { Ok(addresses) }
}

fn url(address: IpAddr, port: u16, path: &str) -> String {
    // SocketAddr knows the brackets of IPv6.
    format!("http://{}{path}", std::net::SocketAddr::new(address, port))
}

/// The innermost cause: what reqwest itself says is only that there was an error.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn only_ready_addresses_behind_the_named_port_are_asked() {
        let service: Service = from_value(json!({
            "metadata": { "name": "notes" },
            "spec": { "ports": [{ "name": "web", "port": 80, "targetPort": 8080 }, { "name": "metrics", "port": 9090 }] }
        }))
        .unwrap();
        let slice = |endpoints: serde_json::Value| -> EndpointSlice {
            from_value(json!({
                "addressType": "IPv4", "metadata": { "name": "s" }, "endpoints": endpoints,
                "ports": [{ "name": "metrics", "port": 9090 }, { "name": "web", "port": 8080 }]
            }))
            .unwrap()
        };
        let slices = [slice(json!([
            { "addresses": ["10.0.0.2"], "conditions": { "ready": true } },
            { "addresses": ["10.0.0.1"] },
            { "addresses": ["10.0.0.3"], "conditions": { "ready": false } }
        ]))];
        let seen: Vec<String> =
            addresses(&service, &slices, 80).unwrap().iter().map(|(ip, port)| format!("{ip}:{port}")).collect();
        assert_eq!(seen, ["10.0.0.1:8080", "10.0.0.2:8080"]);
        assert!(addresses(&service, &slices, 81).unwrap_err().contains("no port 81"));
        assert!(addresses(&service, &[slice(json!([]))], 80).unwrap_err().contains("no ready address"));
    }

    #[test]
    fn addresses_of_both_families_make_urls() {
        assert_eq!(url("10.0.0.1".parse().unwrap(), 80, "/healthz"), "http://10.0.0.1:80/healthz");
        assert_eq!(url("fd00::1".parse().unwrap(), 80, "/"), "http://[fd00::1]:80/");
    }
}
