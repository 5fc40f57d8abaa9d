//! Another node has assignments for addresses of this node's block. If an ADD finds such an assignment before it
//! answers, the pod gets the next address. If the agent finds the assignment only after the answer, the pod keeps the
//! address until the pod ends. After the pod's end, the agent gives the address to no other pod.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_crds::{IPAssignment, IPAssignmentSpec};
use bobbin_e2e::network::NetworkFault;
use bobbin_e2e::single_node::{Sandbox, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use super::addresses;

/// The container ID in the other node's assignments.
const ELSEWHERE: &str = "elsewhere";

/// A block of this node, the node's pods in the block, and the block's addresses for which node n9 has assignments.
struct ForeignAssignments {
    pool: &'static str,
    pods: Vec<Sandbox>,
    assigned_elsewhere: Vec<String>,
    left: String,
}

impl ForeignAssignments {
    /// Creates assignments of node n9 for all addresses of the block except the first pod's address and one other.
    async fn claim(node: &SingleNode, pool: &'static str, third_octet: u8, bits: u8) -> Result<Self> {
        let spec = json!({
            "subnets": [{"ipv4": format!("10.90.{third_octet}.0/{}", 32 - bits)}], "blockSizeBits": bits, "cooldownSeconds": 0,
        });
        node.apply_pool(pool, spec).await?;
        node.await_free_blocks(pool).await?;
        let first = node.kube_pod("default", &format!("{pool}-0"), Some(pool)).await?;
        let held = addresses(&node.add(&first)?);
        let mut others: Vec<String> = (0..1_u8 << bits)
            .map(|last| format!("10.90.{third_octet}.{last}"))
            .filter(|ip| !held.contains(ip))
            .collect();
        let left =
            others.pop().context("the block must have two addresses or more, and a pod must have one of them")?;
        let wrong = Self { pool, pods: vec![first], assigned_elsewhere: others, left };
        for address in &wrong.assigned_elsewhere {
            wrong.create_assignment(node, address).await?;
        }
        Ok(wrong)
    }

    async fn create_assignment(&self, node: &SingleNode, address: &str) -> Result<()> {
        let spec: IPAssignmentSpec = serde_json::from_value(json!({
            "poolName": self.pool, "blockName": format!("{}-0", self.pool), "nodeName": "n9", "ipv4": address,
            "containerID": ELSEWHERE, "ifName": "eth0", "createdAt": "2026-01-01T00:00:00.000000Z", "bootID": "boot",
        }))?;
        assignments(node).create(&PostParams::default(), &IPAssignment::new(address, spec)).await?;
        Ok(())
    }

    async fn next_pod(&mut self, node: &SingleNode) -> Result<&Sandbox> {
        let pod = node.kube_pod("default", &format!("{}-{}", self.pool, self.pods.len()), Some(self.pool)).await?;
        self.pods.push(pod);
        self.pods.last().context("the list of pods is empty")
    }

    /// Deletes the pods, checks that node n9's assignments are unchanged, and then deletes these assignments.
    async fn end(self, node: &SingleNode) -> Result<()> {
        for pod in &self.pods {
            node.del(pod)?;
        }
        node.await_assignments(&vec![ELSEWHERE; self.assigned_elsewhere.len()], WAIT_TIMEOUT).await?;
        for address in &self.assigned_elsewhere {
            let assignment = assignments(node).get(address).await?;
            ensure!(
                assignment.spec.container_id == ELSEWHERE,
                "the assignment of {address} no longer names n9's container: {:?}",
                assignment.spec
            );
            assignments(node).delete(address, &DeleteParams::default()).await?;
        }
        for number in 0..self.pods.len() {
            node.delete_kube_pod("default", &format!("{}-{number}", self.pool)).await?;
        }
        drop(self.pods);
        node.await_empty().await
    }
}

fn assignments(node: &SingleNode) -> Api<IPAssignment> {
    Api::all(node.client.clone())
}

async fn with_flags(node: &mut SingleNode, flags: &[&str]) -> Result<()> {
    node.kill_agent();
    node.set_agent_flags(flags);
    node.start_agent().await
}

/// Waits until an event on the Node reports the duplicate address.
async fn reported(node: &SingleNode, address: &str) -> Result<()> {
    wait_until(&format!("an event on the node reports the duplicate {address}"), WAIT_TIMEOUT, || async {
        let messages = node.warnings("DuplicateAddress").await?;
        let found = messages.iter().any(|message| message.contains(address) && message.contains("n9"));
        Ok(check(found, || format!("{messages:?}")))
    })
    .await
}

pub async fn found_late(node: &mut SingleNode) -> Result<()> {
    with_flags(node, &["--confirm-wait=1ms", "--add-timeout=5s"]).await?;
    let mut wrong = ForeignAssignments::claim(node, "late", 1, 1).await?;
    let left = wrong.left.clone();
    wrong.create_assignment(node, &left).await?;
    wrong.assigned_elsewhere.push(left);
    let pod = wrong.next_pod(node).await?.call("ADD");
    node.proxy.set(NetworkFault::Delay(Duration::from_millis(300)));
    let got = addresses(&node.call(&pod)?.ok()?);
    node.proxy.set(NetworkFault::None);
    let [address] = got.as_slice() else { anyhow::bail!("the pod got the wrong addresses: {got:?}") };
    reported(node, address).await?;
    // The pod must keep its address. After the pod has ended, the agent must not assign the address to another pod.
    let runs = &wrong.pods[1];
    ensure!(runs.addresses()?.iter().any(|ip| ip.to_string() == *address), "the pod has lost {address}");
    node.del(runs)?;
    let pod = wrong.next_pod(node).await?;
    // The block's other address belongs to the first pod, so the new pod finds no free address.
    let error = node.call(&pod.call("ADD"))?.error()?;
    ensure!(error.code == 11 && error.text.contains("has no free address"), "{error:?}");
    with_flags(node, &[]).await?;
    wrong.end(node).await
}
