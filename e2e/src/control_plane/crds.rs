//! Bobbin's custom resource definitions, installed on a control plane without the chart.

use std::time::Duration;

use anyhow::{Context, Result};
use bobbin_crds::manifest;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::PostParams;
use kube::runtime::wait::{await_condition, conditions};

/// How long the API server may take to establish a custom resource definition.
const ESTABLISHED_TIMEOUT: Duration = Duration::from_mins(1);

/// Installs the definitions that Bobbin generates from its Rust types, and waits until the API server has established them.
pub async fn install_crds(client: &kube::Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in manifest::all()? {
        let name = definition.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &definition)
            .await
            .with_context(|| format!("the API server refused the custom resource definition {name}"))?;
        let established = await_condition(api.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(ESTABLISHED_TIMEOUT, established).await.with_context(|| {
            format!("the API server did not establish the custom resource definition {name} in time")
        })??;
    }
    Ok(())
}
