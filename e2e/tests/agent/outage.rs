//! Pods start and stop during network faults. Their assignments are written or deleted when the faults end.

use anyhow::{Result, ensure};
use bobbin_e2e::network::NetworkFault;
use bobbin_e2e::single_node::{SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::json;

use super::{add_pods, end, state_is_consistent};

pub async fn refused(node: &mut SingleNode) -> Result<()> {
    through(node, NetworkFault::Refuse).await
}

pub async fn black_hole(node: &mut SingleNode) -> Result<()> {
    through(node, NetworkFault::BlackHole).await
}

async fn through(node: &mut SingleNode, fault: NetworkFault) -> Result<()> {
    let mut pods = add_pods(node, 6)?;
    node.await_assignments(&super::ids(&pods), WAIT_TIMEOUT).await?;
    node.proxy.set(fault);
    for pod in pods.drain(..3) {
        node.del(&pod)?;
    }
    pods.extend(add_pods(node, 6)?);
    // These pods start and end during the outage, so nothing of them may remain.
    for pod in add_pods(node, 2)? {
        node.del(&pod)?;
    }
    // The outage also lasts over a restart of the agent.
    node.kill_agent();
    node.start_agent().await?;
    pods.extend(add_pods(node, 2)?);
    node.proxy.set(NetworkFault::None);
    state_is_consistent(node, &pods).await?;
    end(node, pods).await
}

pub async fn no_operator(node: &mut SingleNode) -> Result<()> {
    node.stop_operator();
    let pods = add_pods(node, 5)?;
    state_is_consistent(node, &pods).await?;
    let ended = end(node, pods).await;
    node.start_operator()?;
    ended
}

pub async fn lost_responses(node: &mut SingleNode) -> Result<()> {
    let mut pods = add_pods(node, 3)?;
    node.await_assignments(&super::ids(&pods), WAIT_TIMEOUT).await?;
    for _ in 0..3 {
        node.proxy.set(NetworkFault::DropResponses);
        pods.extend(add_pods(node, 2)?);
        node.del(&pods.remove(0))?;
        let short_lived = add_pods(node, 1)?;
        node.del(&short_lived[0])?;
        node.proxy.set(NetworkFault::None);
        state_is_consistent(node, &pods).await?;
    }
    end(node, pods).await
}

/// Makes the agent open several connections to the API server. While answers are lost no connection can be opened, so a
/// request without one would never arrive.
async fn open_connections(node: &mut SingleNode) -> Result<()> {
    let pods = (0..6).map(|_| node.sandbox()).collect::<Result<Vec<_>>>()?;
    let calls: Vec<_> = pods.iter().map(|pod| (pod.call("ADD"), node.plugin())).collect();
    let running: Vec<_> =
        calls.into_iter().map(|(call, plugin)| std::thread::spawn(move || plugin.call(&call))).collect();
    for call in running {
        let answer = call.join().map_err(|_| anyhow::anyhow!("the thread of the call panicked"))??;
        ensure!(answer.exit == 0, "{}", answer.stdout);
    }
    node.await_assignments(&super::ids(&pods), WAIT_TIMEOUT).await?;
    end(node, pods).await
}

pub async fn lost_claim(node: &mut SingleNode) -> Result<()> {
    open_connections(node).await?;
    // If the agent knows the pods before the pool exists, it claims no block ahead for them.
    let mut pods = Vec::new();
    for number in 0..4 {
        pods.push(node.kube_pod("default", &format!("lossy-{number}"), Some("lossy")).await?);
    }
    node.apply_pool("lossy", json!({"subnets": [{"ipv4": "10.68.0.0/24"}], "blockSizeBits": 1})).await?;
    node.await_free_blocks("lossy").await?;
    let mut added = Vec::new();
    for (number, pod) in pods.iter().enumerate() {
        // The second pod fills the block of two addresses, so the agent claims a spare block.
        let claims = number == 1;
        if claims {
            node.proxy.set(NetworkFault::DropResponses);
        }
        let (call, plugin) = (pod.call("ADD"), node.plugin());
        let running = std::thread::spawn(move || plugin.call(&call));
        if claims {
            wait_until("the API server has carried out the claim whose answer is lost", WAIT_TIMEOUT, || async {
                let blocks = node.own_blocks("lossy").await?.len();
                Ok(check(blocks == 2, || format!("{blocks} blocks")))
            })
            .await?;
            node.proxy.set(NetworkFault::None);
        }
        let answer = running.join().map_err(|_| anyhow::anyhow!("the thread of the call panicked"))??;
        if answer.exit == 0 {
            added.push(pod);
        } else {
            // Send the DEL that containerd sends after a failed ADD.
            node.del(pod)?;
        }
    }
    ensure!(
        node.agent_log().contains("the agent does not know whether its claim of a block succeeded"),
        "no claim's answer was lost"
    );
    node.check_no_duplicate(&added)?;
    let ids: Vec<&str> = added.iter().map(|pod| pod.container_id.as_str()).collect();
    node.await_assignments(&ids, super::CONVERGENCE_TIMEOUT).await?;
    wait_until(
        "table 119 has exactly the blocks that the node owns in the API",
        super::CONVERGENCE_TIMEOUT,
        || async {
            let mut claimed: Vec<String> = node
                .blocks()
                .await?
                .into_iter()
                .filter(|block| block.spec.node_name.is_some())
                .filter_map(|block| block.spec.ipv4)
                .collect();
            let mut exported: Vec<String> = node
                .table(119)?
                .into_iter()
                .map(|(dst, _)| dst)
                .filter(|dst| dst.contains('.'))
                .map(|dst| if dst.contains('/') { dst } else { format!("{dst}/32") })
                .collect();
            claimed.sort();
            exported.sort();
            Ok(check(claimed == exported, || format!("claimed {claimed:?}, exported {exported:?}")))
        },
    )
    .await?;
    for number in 0..pods.len() {
        node.delete_kube_pod("default", &format!("lossy-{number}")).await?;
    }
    end(node, pods).await
}
