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

/// The number of pods on the node. By default, a kubelet runs fewer pods.
const MANY_PODS: usize = 250;
/// The number of addresses in a block of the pool `default`.
const BLOCK_LEN: usize = 32;
/// How many pods end during the outage in the test with many pods.
const DELS_DURING_OUTAGE: usize = 20;
/// After an outage, the agent must write all assignments to the API within this time.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);
/// The delay of each answer of a slow API server.
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
    // Restart the agent while the API server is still unreachable.
    node.kill_agent();
    node.start_agent().await?;
    pods.extend(add_pods(node, 2)?);
    node.proxy.set(NetworkFault::None);
    state_is_consistent(node, &pods).await?;
    node.remove_pods(pods).await
}

/// An agent with many pods restarts during an outage. It serves all calls that need no API server.
pub async fn many_pods(node: &mut SingleNode) -> Result<()> {
    let mut pods = Vec::new();
    for _ in 0..MANY_PODS {
        let pod = node.sandbox()?;
        // An earlier test caused an outage. A quiet time follows each outage, and newly claimed blocks serve only after
        // it ends. So repeat the ADD like a runtime.
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
    ensure!(free > 0, "the node must have a free address when the outage begins");
    node.proxy.set(NetworkFault::BlackHole);
    node.kill_agent();
    node.start_agent().await?;
    // During the outage, the agent can assign each free address to a pod.
    pods.extend(add_pods(node, free)?);
    let refused = node.sandbox()?;
    let error = node.call(&refused.call("ADD"))?.error()?;
    ensure!(error.code == 11, "{error:?}");
    node.del(&refused)?;
    // During the outage every DEL succeeds, and the next ADD can use the address.
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
    await_end_of_quiet_time(node).await?;
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

/// Repeats an ADD until it ends without waiting for the API server. Every ADD waits during the quiet time, which
/// follows an outage of an earlier test. The caller must make the proxy delay each answer by [`SLOW_ANSWER`]. Otherwise
/// this function can't notice the wait.
async fn await_end_of_quiet_time(node: &SingleNode) -> Result<()> {
    wait_until("an ADD does not wait for the API server", CONVERGENCE_TIMEOUT, || async move {
        let probe = node.sandbox()?;
        let answer = node.call(&probe.call("ADD"))?;
        node.del(&probe)?;
        let waited = answer.exit != 0 || answer.took >= SLOW_ANSWER;
        Ok(check(!waited, || format!("it took {} ms: {}", answer.took.as_millis(), answer.stdout)))
    })
    .await
}

/// The claimed block still has the finalizer of its last owner, so other nodes may have assignments in the block. An
/// ADD must wait until the API server has confirmed its assignment, even if this takes longer than `--confirm-wait`.
pub async fn slow_first_confirmation(node: &mut SingleNode) -> Result<()> {
    node.apply_pool("released", json!({"subnets": [{"ipv4": "10.70.9.0/31"}], "blockSizeBits": 1})).await?;
    node.await_free_blocks("released").await?;
    // An earlier test caused an outage. A quiet time follows each outage, and newly claimed blocks serve only after it ends.
    // So first wait until a pod of another pool gets an address.
    node.apply_pool("probed", json!({"subnets": [{"ipv4": "10.70.10.0/31"}], "blockSizeBits": 1})).await?;
    node.await_free_blocks("probed").await?;
    let (probe, reader) = (node.kube_pod("default", "probe", Some("probed")).await?, &*node);
    let probe = &probe;
    wait_until("a newly claimed block serves", CONVERGENCE_TIMEOUT, || async move {
        let answer = reader.call(&probe.call("ADD"))?;
        reader.del(probe)?;
        Ok(check(answer.exit == 0, || answer.stdout.clone()))
    })
    .await?;
    node.delete_kube_pod("default", "probe").await?;
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
    ensure!(
        answer.took >= claim_and_confirmation,
        "the ADD took only {:?}, so it did not wait for its confirmation",
        answer.took
    );
    node.delete_kube_pod("default", "late-confirmation").await?;
    node.remove_pods(vec![pod]).await
}

/// Without an operator, pods start as long as the nodes have blocks or find free blocks. After that, the error of an
/// ADD tells the user to check the operator. It names no other remedy, because a new subnet would not help.
pub async fn no_operator(node: &mut SingleNode) -> Result<()> {
    const BLOCKS: usize = 64;
    node.apply_pool("uncreated", json!({"subnets": [{"ipv4": "10.70.11.0/26"}], "blockSizeBits": 0})).await?;
    node.await_free_blocks("uncreated").await?;
    node.stop_operator();
    let mut pods = add_pods(node, 5)?;
    let refused = loop {
        ensure!(pods.len() < BLOCKS, "the operator created all {BLOCKS} blocks without demand");
        pods.push(node.kube_pod("default", &format!("uncreated-{}", pods.len()), Some("uncreated")).await?);
        let answer = node.call(&pods[pods.len() - 1].call("ADD"))?;
        if answer.exit != 0 {
            break answer.error()?;
        }
    };
    ensure!(refused.code == 11 && refused.text.contains("check that bobbin-operator is running"), "{refused:?}");
    if let Some(waiting) = pods.pop() {
        node.del(&waiting)?;
    }
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

/// Makes the agent open several connections to the API server. While answers are lost, the agent can open no
/// connection, so each request needs a connection that is already open.
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
    // The pods exist before the pool, so the agent claims no block for them before their ADDs.
    let mut pods = Vec::new();
    for number in 0..4 {
        pods.push(node.kube_pod("default", &format!("lossy-{number}"), Some("lossy")).await?);
    }
    node.apply_pool("lossy", json!({"subnets": [{"ipv4": "10.68.0.0/24"}], "blockSizeBits": 1})).await?;
    node.await_free_blocks("lossy").await?;
    let mut added = Vec::new();
    for (number, pod) in pods.iter().enumerate() {
        // The second pod takes the last address of its block, so the agent claims a spare block.
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
        "the test lost no answer to a claim"
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
        Ok(check(claimed == exported, || format!("the node owns the blocks {claimed:?} and exports {exported:?}")))
    })
    .await?;
    for number in 0..pods.len() {
        node.delete_kube_pod("default", &format!("lossy-{number}")).await?;
    }
    node.remove_pods(pods).await
}
