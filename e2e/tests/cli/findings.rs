//! Findings of `check` about waiting pods, foreign CNI configurations and a deleted Node.

use anyhow::{Result, ensure};
use bobbin_e2e::single_node::{NODE, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::agents::{AgentPod, attached, has};
use crate::{expect, kubectl_bobbin};

/// The pool of a pod does not exist, so the pod waits. `check` reports the pod until the test deletes the pod.
pub async fn waiting(node: &mut SingleNode) -> Result<()> {
    let agent = AgentPod::create(node, "bobbin-agent-waited").await?;
    let pod = node.kube_pod("default", "waiting", Some("absent-pool")).await?;
    node.call(&pod.call("ADD"))?.error()?;
    wait_until("check names the waiting pod", WAIT_TIMEOUT, || async {
        let found = kubectl_bobbin(node, &["check", "-o", "json"])?;
        let finding = has(&found.json()?["findings"], "kind", "PodWithoutNetwork").cloned().unwrap_or_default();
        let what = finding["what"].as_str().unwrap_or_default();
        let holds = finding["object"] == "pod default/waiting" && finding["since"].is_string();
        Ok(check(holds && what.contains("absent-pool") && found.code == 3, || format!("{found:?}")))
    })
    .await?;
    node.del(&pod)?;
    node.delete_kube_pod("default", "waiting").await?;
    let found = kubectl_bobbin(node, &["check", "-o", "json"])?;
    ensure!(has(&found.json()?["findings"], "kind", "PodWithoutNetwork").is_none(), "{found:?}");
    agent.delete(node).await
}

/// Another CNI plugin adds a configuration file to the node and later removes the file. The file's name sorts before
/// the name of Bobbin's file.
pub async fn shadowed(node: &mut SingleNode) -> Result<()> {
    let agent = AgentPod::create(node, "bobbin-agent-shadowed").await?;
    expect(&kubectl_bobbin(node, &["node", NODE])?, 0, "Mode:     run")?;
    let file = node.path("cni-conf").join("00-other.conflist");
    std::fs::write(&file, r#"{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "other"}]}"#)?;
    wait_until("check names the foreign CNI configuration", WAIT_TIMEOUT, || async {
        let found = kubectl_bobbin(node, &["check", "-o", "json"])?;
        let finding = has(&found.json()?["findings"], "kind", "CNIConfigShadowed").cloned().unwrap_or_default();
        let names_file = finding["what"].as_str().is_some_and(|what| what.contains("00-other.conflist"));
        let holds = finding["severity"] == "error" && finding["object"] == format!("Node {NODE}");
        Ok(check(holds && names_file && finding["since"].is_string() && found.code == 3, || format!("{found:?}")))
    })
    .await?;
    expect(&kubectl_bobbin(node, &["node", NODE])?, 0, "Install:  1 problem")?;
    node.kube_pod("default", "other-plugin", None).await?;
    expect(&kubectl_bobbin(node, &["explain", "other-plugin"])?, 3, "Node:     the CNI configuration")?;
    let status = json!({"status": {"phase": "Running", "podIP": "192.0.2.9", "podIPs": [{"ip": "192.0.2.9"}]}});
    let pods: Api<Pod> = Api::namespaced(node.client.clone(), "default");
    pods.patch_status("other-plugin", &PatchParams::default(), &Patch::Merge(status)).await?;
    let found = kubectl_bobbin(node, &["check", "-o", "json"])?;
    let finding = has(&found.json()?["findings"], "kind", "PodsOfAnotherPlugin").cloned().unwrap_or_default();
    let what = finding["what"].as_str().unwrap_or_default();
    ensure!(what.contains("default/other-plugin (192.0.2.9)") && finding["severity"] == "info", "{found:?}");
    node.delete_kube_pod("default", "other-plugin").await?;
    std::fs::remove_file(&file)?;
    wait_until("the foreign CNI configuration is no finding any more", WAIT_TIMEOUT, || async {
        let json = kubectl_bobbin(node, &["check", "-o", "json"])?.json()?;
        Ok(check(has(&json["findings"], "kind", "CNIConfigShadowed").is_none(), || json.to_string()))
    })
    .await?;
    expect(&kubectl_bobbin(node, &["node", NODE])?, 0, "Install:  in order")?;
    agent.delete(node).await
}

/// Deletes the Node and creates it again. While the Node is missing, the agent doubts that it owns its blocks.
pub async fn deleted(node: &mut SingleNode) -> Result<()> {
    let agent = AgentPod::create(node, "bobbin-agent-deleted").await?;
    let pods = [attached(node, "deleted", "10.91.22.0/28").await?];
    node.await_assignments_of(&pods).await?;
    Api::<Node>::all(node.client.clone()).delete(NODE, &DeleteParams::default()).await?;
    wait_until("check says once that the Node is deleted while its agent runs", WAIT_TIMEOUT, || async {
        let json = kubectl_bobbin(node, &["check", "-o", "json"])?.json()?;
        let finding = has(&json["findings"], "kind", "DeletedNode").cloned().unwrap_or_default();
        let has_agent = finding["what"].as_str().is_some_and(|what| what.contains("the node's agent still runs"));
        let is_only = has(&json["findings"], "kind", "BlockDoubted").is_none();
        Ok(check(has_agent && is_only && finding["object"] == format!("Node {NODE}"), || json.to_string()))
    })
    .await?;
    node.make_node().await?;
    wait_until("the agent uses its blocks again", WAIT_TIMEOUT, || async {
        let json = kubectl_bobbin(node, &["node", NODE, "-o", "json"])?.json()?;
        Ok(check(has(&json["blocks"], "state", "doubted").is_none(), || json.to_string()))
    })
    .await?;
    agent.delete(node).await?;
    node.remove_pods(pods.into()).await
}
