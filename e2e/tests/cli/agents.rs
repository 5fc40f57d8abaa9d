//! The commands that ask the agents: `node` and `check`.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bobbin_crds::IPAssignment;
use bobbin_e2e::chart;
use bobbin_e2e::control_plane::NetnsForward;
use bobbin_e2e::single_node::{NODE, Sandbox, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::{HOST_ADDRESS, METRICS, expect, kubectl_bobbin, kubectl_bobbin_as};

const NAMESPACE: &str = "bobbin-system";
/// The labels that the chart gives to the agents' pods.
const LABELS: [(&str, &str); 2] = [("app.kubernetes.io/name", "bobbin"), ("app.kubernetes.io/component", "agent")];

/// The agent's pod in the API. Connections to its address reach the running agent.
pub struct AgentPod {
    name: String,
    _forward: NetnsForward,
}

impl AgentPod {
    /// Creates a pod like those of the chart's DaemonSet. The API server reaches the agent's port at the pod's address.
    pub async fn create(node: &SingleNode, name: &str) -> Result<AgentPod> {
        let inside: SocketAddr = METRICS.parse()?;
        let forward = NetnsForward::open_at(HOST_ADDRESS.parse()?, &node.namespace.path(), inside)?;
        let port = forward.outside().port();
        let owner = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "bobbin-agent", "uid": "bobbin-agent", "controller": true});
        create_pod(node, NAMESPACE, name, port, json!([owner])).await?;
        let pods: Api<Pod> = Api::namespaced(node.client.clone(), NAMESPACE);
        let status = json!({"status": {
            "phase": "Running", "hostIP": HOST_ADDRESS, "podIP": HOST_ADDRESS, "podIPs": [{"ip": HOST_ADDRESS}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(AgentPod { name: name.to_owned(), _forward: forward })
    }

    pub async fn delete(self, node: &SingleNode) -> Result<()> {
        node.delete_kube_pod(NAMESPACE, &self.name).await
    }
}

/// Creates a pod with the labels of the agents' pods.
async fn create_pod(node: &SingleNode, namespace: &str, name: &str, port: u16, owners: Value) -> Result<()> {
    let labels: std::collections::BTreeMap<_, _> = LABELS.into();
    let pod = json!({
        "metadata": {"name": name, "labels": labels, "ownerReferences": owners},
        "spec": {"nodeName": NODE, "hostNetwork": true, "tolerations": [{"operator": "Exists"}], "containers": [
            {"name": "agent", "image": "none", "ports": [{"name": "health", "containerPort": port}]}]},
    });
    let pods: Api<Pod> = Api::namespaced(node.client.clone(), namespace);
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    Ok(())
}

/// A pod with an address, of a pool with this name.
pub async fn attached(node: &SingleNode, name: &str, subnet: &str) -> Result<Sandbox> {
    node.apply_pool(name, json!({"subnets": [{"ipv4": subnet}], "blockSizeBits": 2})).await?;
    node.await_free_blocks(name).await?;
    let pod = node.kube_pod("default", name, Some(name)).await?;
    node.add(&pod)?;
    Ok(pod)
}

pub fn has<'a>(list: &'a Value, field: &str, value: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|one| one[field] == value)
}

pub async fn shows(node: &mut SingleNode) -> Result<()> {
    let agent = AgentPod::create(node, "bobbin-agent-shown").await?;
    let pods = [attached(node, "shown", "10.91.20.0/28").await?];
    node.await_assignments_of(&pods).await?;
    let json = kubectl_bobbin(node, &["node", NODE, "-o", "json"])?.json()?;
    let attachment = has(&json["attachments"], "containerID", &pods[0].container_id)
        .with_context(|| format!("the attachment is missing: {json}"))?;
    ensure!(
        attachment["podName"] == "shown"
            && attachment["podNamespace"] == "default"
            && attachment["state"] == "running"
            && attachment["interface"] == "eth0"
            && attachment["ipv4"].as_str().is_some_and(|address| address.starts_with("10.91.20.")),
        "{attachment}"
    );
    let block = has(&json["blocks"], "name", attachment["block"].as_str().unwrap_or_default())
        .with_context(|| format!("the block is missing: {json}"))?;
    ensure!(block["state"] == "serving" && block["exported"] == true && block["assigned"] == 1, "{block}");
    ensure!(json["node"] == NODE && json["pod"] == "bobbin-system/bobbin-agent-shown", "{json}");
    ensure!(json["api"]["healthy"] == true && json["resync"]["succeeded"].is_string(), "{json}");
    expect(&kubectl_bobbin(node, &["node", NODE, "-o", "yaml"])?, 0, "podName: shown")?;
    let table = kubectl_bobbin(node, &["node", NODE])?;
    expect(&table, 0, "default/shown")?;
    expect(
        &kubectl_bobbin(node, &["node", NODE, "-o", "wide", "--bobbin-namespace", NAMESPACE])?,
        0,
        &pods[0].container_id,
    )?;
    // On the node itself, the command asks the agent's socket. It needs neither a kubeconfig nor the agent's pod.
    let socket = format!("--socket={}", node.run_dir().join("health.sock").display());
    expect(&kubectl_bobbin(node, &["node", &socket, "--kubeconfig=/absent"])?, 0, "default/shown")?;
    let failed = node.kube_pod("default", "unserved", Some("absent-pool")).await?;
    node.call(&failed.call("ADD"))?.error()?;
    // Repeat the command, because requests within a second share one answer of the agent. The first answer may be older
    // than the ADD.
    wait_until("node shows the error of the ADD", WAIT_TIMEOUT, || async {
        let json = kubectl_bobbin(node, &["node", NODE, "-o", "json"])?.json()?;
        let error = has(&json["errors"], "podName", "unserved").cloned().unwrap_or_default();
        let is_named = error["error"].as_str().is_some_and(|text| text.contains("absent-pool"));
        Ok(check(error["verb"] == "ADD" && is_named, || json.to_string()))
    })
    .await?;
    node.del(&failed)?;
    node.delete_kube_pod("default", "unserved").await?;
    let json = kubectl_bobbin(node, &["node", NODE, "-o", "json"])?.json()?;
    let watches = json["api"]["watches"].as_array().context("no watches")?;
    ensure!(watches.len() == 6 && watches.iter().all(|watch| watch["synced"] == true), "{watches:?}");
    ensure!(json["blocks"].as_array().into_iter().flatten().all(|block| block["since"].is_string()), "{json}");
    agent.delete(node).await?;
    node.remove_pods(pods.into()).await
}

pub async fn refused(node: &mut SingleNode) -> Result<()> {
    expect(&kubectl_bobbin(node, &["node", NODE])?, 1, &format!("node {NODE} has no agent"))?;
    expect(&kubectl_bobbin(node, &["node", "nope"])?, 1, "Node nope does not exist")?;
    expect(&kubectl_bobbin(node, &["node"])?, 2, "required")?;
    expect(&kubectl_bobbin(node, &["node", "--socket=/absent"])?, 1, "no agent answers at /absent")?;
    // This pod has the labels of an agent, but no DaemonSet owns the pod.
    create_pod(node, NAMESPACE, "impostor", 1, json!([])).await?;
    expect(&kubectl_bobbin(node, &["node", NODE])?, 1, "no pod of a DaemonSet there matches the label selector")?;
    node.delete_kube_pod(NAMESPACE, "impostor").await?;
    let agent = AgentPod::create(node, "bobbin-agent-refused").await?;
    expect(&kubectl_bobbin(node, &["node", NODE, "--bobbin-namespace=default"])?, 1, "in namespace default")?;
    let token = reader(node).await?;
    expect(&kubectl_bobbin_as(node, &token, &["node", NODE])?, 1, "the right to get pods/proxy")?;
    expect(&kubectl_bobbin_as(node, &token, &["check"])?, 1, "the right to get pods/proxy")?;
    node.kill_agent();
    expect(
        &kubectl_bobbin(node, &["node", NODE])?,
        1,
        "can't reach the agent in Pod bobbin-system/bobbin-agent-refused",
    )?;
    node.start_agent().await?;
    agent.delete(node).await
}

/// The token of a user who may list everything, but may not use the pod proxy.
async fn reader(node: &SingleNode) -> Result<String> {
    let made = PostParams::default();
    let accounts: Api<ServiceAccount> = Api::namespaced(node.client.clone(), NAMESPACE);
    accounts.create(&made, &serde_json::from_value(json!({"metadata": {"name": "reader"}}))?).await?;
    let role = json!({"metadata": {"name": "reader"}, "rules": [
        {"apiGroups": ["", "bobbin.dev"], "resources": ["*"], "verbs": ["list"]}]});
    Api::<ClusterRole>::all(node.client.clone()).create(&made, &serde_json::from_value(role)?).await?;
    let binding = json!({"metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": NAMESPACE}]});
    Api::<ClusterRoleBinding>::all(node.client.clone()).create(&made, &serde_json::from_value(binding)?).await?;
    chart::token(&node.client, NAMESPACE, "reader", None).await
}

pub async fn compares(node: &mut SingleNode) -> Result<()> {
    let agent = AgentPod::create(node, "bobbin-agent-checked").await?;
    let pods = [attached(node, "checked", "10.91.21.0/28").await?];
    node.await_assignments_of(&pods).await?;
    wait_until("check finds nothing on a healthy node", WAIT_TIMEOUT, || async {
        let found = kubectl_bobbin(node, &["check"])?;
        Ok(check(found.code == 0 && found.out.contains("nothing is wrong; 1 agent answered"), || format!("{found:?}")))
    })
    .await?;
    // The pod of the foreign assignment exists, so the agent keeps the assignment.
    let unattached = node.kube_pod("default", "unattached", Some("checked")).await?;
    let own = node.assignments().await?.into_iter().next().context("no assignment")?;
    let foreign = foreign(node, &own, &node.kube_pod_uid("default", "unattached").await?).await?;
    let found = kubectl_bobbin(node, &["check", "-o", "json"])?;
    let json = found.json()?;
    let finding =
        has(&json["findings"], "kind", "AssignmentWithoutAttachment").with_context(|| format!("{found:?}"))?;
    ensure!(
        found.code == 3
            && finding["object"] == format!("IPAssignment {foreign}")
            && finding["since"].is_string()
            && finding["you"].is_string(),
        "{found:?}"
    );
    expect(&kubectl_bobbin(node, &["check", NODE])?, 3, &foreign)?;
    expect(&kubectl_bobbin(node, &["check", "no-such-node"])?, 1, "Node no-such-node does not exist")?;
    let link = node.attachments()?.into_values().next().context("the pod has no link")?.link;
    node.namespace.ip(&format!("link del {link}"))?;
    wait_until("the agent finds that the attachment is broken", WAIT_TIMEOUT, || async {
        let view = kubectl_bobbin(node, &["node", NODE, "-o", "json"])?.json()?;
        Ok(check(view["attachments"][0]["state"] == "broken", || view["attachments"].to_string()))
    })
    .await?;
    expect(&kubectl_bobbin(node, &["check", "-o", "yaml"])?, 3, "BrokenAttachment")?;
    Api::<IPAssignment>::all(node.client.clone()).delete(&foreign, &DeleteParams::default()).await?;
    node.kill_agent();
    expect(&kubectl_bobbin(node, &["check"])?, 3, "the check can't see the node's attachments and blocks")?;
    node.start_agent().await?;
    node.del(&unattached)?;
    agent.delete(node).await?;
    node.remove_pods(pods.into()).await
}

/// Creates an assignment of another address in the block of `own`. No attachment has this address. Returns the
/// assignment's name.
async fn foreign(node: &SingleNode, own: &IPAssignment, uid: &str) -> Result<String> {
    let blocks = node.blocks().await?;
    let block = blocks.iter().find(|one| one.metadata.name.as_deref() == Some(&own.spec.block_name));
    let range: ipnet::Ipv4Net = block.and_then(|one| one.spec.ipv4.as_deref()).context("no block")?.parse()?;
    let taken = own.spec.ipv4.clone().unwrap_or_default();
    // `hosts` leaves out the first and the last address of the block, although pods can have them.
    let free = range.hosts().map(|one| one.to_string()).find(|one| *one != taken).context("the block is full")?;
    let mut assignment = own.clone();
    assignment.metadata = kube::api::ObjectMeta { name: Some(free.clone()), ..Default::default() };
    assignment.spec.ipv4 = Some(free.clone());
    assignment.spec.container_id = "f".repeat(64);
    assignment.spec.pod_name = Some("unattached".to_owned());
    assignment.spec.pod_uid = Some(uid.to_owned());
    Api::<IPAssignment>::all(node.client.clone()).create(&PostParams::default(), &assignment).await?;
    Ok(free)
}
