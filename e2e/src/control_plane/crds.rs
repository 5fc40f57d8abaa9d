//! Bobbin's custom resource definitions: installs them without the chart, and waits until the API server serves them.

use std::time::Duration;

use anyhow::{Context, Result};
use bobbin_crds::manifest;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};

use crate::wait::{check, wait_until};

/// How long the API server may take until it serves a custom resource.
const SERVED_TIMEOUT: Duration = Duration::from_mins(1);

/// Installs the definitions that Bobbin generates from its Rust types, and waits until the API server serves them.
pub async fn install_crds(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in manifest::all()? {
        let name = definition.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &definition)
            .await
            .with_context(|| format!("the API server refused the custom resource definition {name}"))?;
    }
    await_served(client).await
}

/// Waits until the API server serves Bobbin's custom resources.
pub async fn await_served(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in manifest::all()? {
        let name = definition.metadata.name.clone().unwrap_or_default();
        let established = await_condition(api.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(SERVED_TIMEOUT, established).await.with_context(|| {
            format!("the API server did not establish the custom resource definition {name} in time")
        })??;
        // After the definition is established, the API server may answer 429 for a moment, because it still prepares the
        // storage of the resource.
        let kind = GroupVersionKind::gvk("bobbin.dev", "v1beta1", &definition.spec.names.kind);
        let objects: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
        wait_until(&format!("the API server lists the resource {name}"), SERVED_TIMEOUT, || async {
            let answer = objects.list(&ListParams::default().limit(1)).await;
            Ok(check(answer.is_ok(), || format!("{answer:?}")))
        })
        .await?;
    }
    Ok(())
}
