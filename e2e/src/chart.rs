//! Applies the chart to a control plane without nodes, and gets tokens of the chart's service accounts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use xtask::programs::Programs;

use crate::control_plane::{ControlPlane, await_served};

/// Prepares a `helm template` command for the chart.
pub fn template(namespace: &str) -> Result<Command> {
    template_of(&directory(), namespace)
}

/// Prepares a `helm template` command for a copy of the chart.
pub fn template_of(chart: &Path, namespace: &str) -> Result<Command> {
    let mut helm = Command::new(Programs::find()?.path("helm")?);
    // Leave out the pod of `helm test`, because the API server would refuse it. The pod needs the ServiceAccount `default`,
    // which a controller manager creates, and the control plane has no controller manager.
    helm.args(["template", "--skip-tests", "bobbin"]).arg(chart);
    helm.args(["--namespace", namespace, "--kube-version", "1.34.0"]).stdin(Stdio::null());
    Ok(helm)
}

/// The directory of the chart.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/bobbin")
}

/// Creates the namespace, runs `helm template | kubectl apply`, and waits until the custom resources are served. Fails
/// if the API server refuses an object of the chart. After this function returns, the API server may need a moment
/// before it enforces the chart's policies.
pub async fn apply(control_plane: &ControlPlane, namespace: &str) -> Result<()> {
    let admin = control_plane.client().await?;
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    let namespaces: Api<Namespace> = Api::all(admin.clone());
    namespaces.patch(namespace, &PatchParams::apply("test"), &Patch::Apply(object)).await?;
    let programs = Programs::find()?;
    let rendered = control_plane.directory().join("chart.yaml");
    let helm = template(namespace)?.output()?;
    ensure!(helm.status.success(), "helm template failed: {}", String::from_utf8_lossy(&helm.stderr));
    std::fs::write(&rendered, &helm.stdout)?;
    let kubectl = Command::new(programs.path("kubectl")?)
        .arg("--kubeconfig")
        .arg(control_plane.admin_kubeconfig()?)
        .args(["apply", "--server-side", "-f"])
        .arg(&rendered)
        .stdin(Stdio::null())
        .output()?;
    let words = String::from_utf8_lossy(&kubectl.stderr);
    ensure!(kubectl.status.success(), "the API server did not admit the chart: {words}");
    ensure!(!words.contains("Warning"), "the API server admitted the chart with a warning: {words}");
    await_served(&admin).await
}

/// Gets a token of a service account from the API server. If `pod` is given, the token is bound to that pod, like the
/// tokens that a kubelet mounts into pods.
pub async fn token(admin: &Client, namespace: &str, account: &str, pod: Option<&Pod>) -> Result<String> {
    let bound = pod.map(|pod| BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    });
    let spec = TokenRequestSpec { audiences: Vec::new(), bound_object_ref: bound, expiration_seconds: Some(3600) };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let api: Api<ServiceAccount> = Api::namespaced(admin.clone(), namespace);
    let answer = api.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(answer.status.context("the API server answered a token request without a token")?.token)
}
