//! Pods start and stop during network faults. Their assignments are written or deleted when the faults end.

use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_crds::AddressBlock;
use bobbin_e2e::network::NetworkFault;
use bobbin_e2e::single_node::{CONVERGENCE_TIMEOUT, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{add_pods, state_is_consistent};

/// The pods of a node, as many as a kubelet starts by default with room to spare.
const MANY_PODS: usize = 250;
/// The addresses of a block of the pool `default`.
const BLOCK_LEN: usize = 32;
/// How many pods end during the outage of a node with many pods.
const DELS_DURING_OUTAGE: usize = 20;
/// How long the agent may take to write everything after an outage.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);
/// How late each answer of a slow API server is.
const SLOW_ANSWER: Duration = Duration::from_millis(700);

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
    node.remove_pods(pods).await
}

/// With many pods, the agent restarts during an outage and serves all that the node can serve without the API server.
pub async fn many_pods(node: &mut SingleNode) -> Result<()> {
    let mut pods = Vec::new();
    for _ in 0..MANY_PODS {
        let pod = node.sandbox()?;
        // After an outage that an earlier test caused, a claimed block serves only after the quiet time. A runtime repeats the ADD.
        wait_until("the pod gets an address", CONVERGENCE_TIMEOUT, || async {
            let answer = node.call(&pod.call("ADD"))?;
            Ok(check(answer.exit == 0, || answer.stdout.clone()))
        })
        .await?;
        pods.push(pod);
    }
    node.await_assignments(&super::ids(&pods), WAIT_TIMEOUT).await?;
    let owned: usize = node.own_blocks("default").await?.len() * BLOCK_LEN;
    let free = owned - MANY_PODS;
    ensure!(free > 0, "the node has no free address when the outage begins");
    node.proxy.set(NetworkFault::BlackHole);
    node.kill_agent();
    node.start_agent().await?;
    // Each free address serves a pod, although the API server is silent.
    pods.extend(add_pods(node, free)?);
    let refused = node.sandbox()?;
    let error = node.call(&refused.call("ADD"))?.error()?;
    ensure!(error.code == 11, "{error:?}");
    node.del(&refused)?;
    // Every DEL succeeds, and its address serves the next pod.
    for _ in 0..DELS_DURING_OUTAGE {
        node.del(&pods.remove(0))?;
        pods.extend(add_pods(node, 1)?);
    }
    node.proxy.set(NetworkFault::None);
    node.await_assignments(&super::ids(&pods), CATCH_UP_TIMEOUT).await?;
    state_is_consistent(node, &pods).await?;
    node.remove_pods(pods).await
}

/// Each answer of the API server takes longer than an ADD waits for a confirmation.
pub async fn slow(node: &mut SingleNode) -> Result<()> {
    let mut pods = add_pods(node, 3)?;
    node.await_assignments(&super::ids(&pods), WAIT_TIMEOUT).await?;
    node.proxy.set(NetworkFault::Delay(SLOW_ANSWER));
    // An outage that an earlier test caused has a quiet time, in which every ADD waits for the API server.
    let reader = &*node;
    wait_until("an ADD does not wait for the API server", CONVERGENCE_TIMEOUT, || async move {
        let probe = reader.sandbox()?;
        let answer = reader.call(&probe.call("ADD"))?;
        reader.del(&probe)?;
        let waited = answer.exit != 0 || answer.took >= SLOW_ANSWER;
        Ok(check(!waited, || format!("it took {} ms: {}", answer.took.as_millis(), answer.stdout)))
    })
    .await?;
    for _ in 0..2 {
        node.del(&pods.remove(0))?;
        pods.extend(add_pods(node, BLOCK_LEN)?);
    }
    // The agent also starts with a slow API server.
    node.kill_agent();
    node.start_agent().await?;
    pods.extend(add_pods(node, 3)?);
    node.check_no_duplicate(&pods.iter().collect::<Vec<_>>())?;
    node.await_assignments_of(&pods).await?;
    node.proxy.set(NetworkFault::None);
    state_is_consistent(node, &pods).await?;
    node.remove_pods(pods).await
}

/// A claimed block still has the finalizer of its last owner, so other nodes may have assignments in the block. An ADD needs its
/// confirmation, which takes longer than `--confirm-wait`.
pub async fn slow_first_confirmation(node: &mut SingleNode) -> Result<()> {
    node.apply_pool("released", json!({"subnets": [{"ipv4": "10.70.9.0/31"}], "blockSizeBits": 1})).await?;
    node.await_free_blocks("released").await?;
    node.stop_operator();
    let finalizer = json!({"metadata": {"finalizers": ["bobbin.dev/in-use"]}});
    let blocks: Api<AddressBlock> = Api::all(node.client.clone());
    blocks.patch("released-0", &PatchParams::default(), &Patch::Merge(finalizer)).await?;
    let pod = node.kube_pod("default", "late-confirmation", Some("released")).await?;
    node.proxy.set(NetworkFault::Delay(SLOW_ANSWER));
    let answer = node.call(&pod.call("ADD"))?;
    node.proxy.set(NetworkFault::None);
    node.start_operator()?;
    answer.ok()?;
    let claim_and_confirmation = SLOW_ANSWER * 2;
    ensure!(answer.took >= claim_and_confirmation, "the ADD took {:?}: it waited for no confirmation", answer.took);
    node.delete_kube_pod("default", "late-confirmation").await?;
    node.remove_pods(vec![pod]).await
}

pub async fn no_operator(node: &mut SingleNode) -> Result<()> {
    node.stop_operator();
    let pods = add_pods(node, 5)?;
    state_is_consistent(node, &pods).await?;
    let ended = node.remove_pods(pods).await;
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
    node.remove_pods(pods).await
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
    node.remove_pods(pods).await
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
    node.await_assignments(&ids, CONVERGENCE_TIMEOUT).await?;
    wait_until("table 119 has exactly the blocks that the node owns in the API", CONVERGENCE_TIMEOUT, || async {
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
    })
    .await?;
    for number in 0..pods.len() {
        node.delete_kube_pod("default", &format!("lossy-{number}")).await?;
    }
    node.remove_pods(pods).await
}
