//! Tests two CNI networks that both use Bobbin's plugin. GC for one network frees only attachments of this network.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{Call, Sandbox, SingleNode};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::json;

use super::{CONVERGENCE_TIMEOUT, end};

/// Calls GC for a network twice, and lists these pods as valid. The second call frees all other attachments of the
/// network.
fn two_gcs(node: &SingleNode, network: &str, listed: &[&Sandbox]) -> Result<()> {
    let valid: Vec<_> = listed.iter().map(|pod| json!({"containerID": pod.container_id, "ifname": "eth0"})).collect();
    for _ in 0..2 {
        let call = Call { verb: "GC", ..Call::default() }.with("name", json!(network));
        node.call(&call.with("cni.dev/valid-attachments", json!(valid)))?.ok()?;
    }
    Ok(())
}

pub async fn gc(node: &mut SingleNode) -> Result<()> {
    let (first, second, third) = (node.sandbox()?, node.sandbox()?, node.sandbox()?);
    let add = |pod: &Sandbox, network: &str| node.call(&pod.call("ADD").with("name", json!(network)))?.ok();
    let result = add(&first, "net-a")?;
    let unlisted = add(&second, "net-b")?;
    let kept = add(&third, "net-b")?;
    two_gcs(node, "net-b", &[&second, &third])?;
    ensure!(
        first.addresses()?.len() == 2,
        "GC for the network net-b freed the attachment of a running pod in net-a; the end of the agent's log:\n{}",
        node.agent_log_tail()
    );
    node.call(&first.check(&result).with("name", json!("net-a")))?.ok().context("CHECK of the pod in net-a failed")?;
    node.call(&second.check(&unlisted).with("name", json!("net-b")))?.ok()?;
    // GC for net-b frees the attachments of net-b that the call does not list.
    two_gcs(node, "net-b", &[&third])?;
    wait_until("the agent has freed the attachment that GC did not list", CONVERGENCE_TIMEOUT, || async {
        let left = second.addresses()?.len();
        Ok(check(left == 0, || format!("{left} addresses")))
    })
    .await?;
    node.call(&third.check(&kept).with("name", json!("net-b")))?.ok()?;
    end(node, vec![first, second, third], &[]).await
}
