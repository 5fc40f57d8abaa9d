//! Tests addresses of this node's block for which the second node, `n9`, has an assignment.

use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_e2e::api_proxy::{Fault, FaultGuard, Selector};
use bobbin_e2e::control_plane::Entry;
use bobbin_e2e::network::NetworkFault;
use bobbin_e2e::single_node::{AGENT_USER, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::json;

use super::fixture::{PoolFixture, READS, answered, await_checkpointed, await_node_warning, delete_assignment};
use super::{scaled_timeout, with_flags};

/// Creates a pool of two addresses. This node's first pod has one address, and node `n9` has an assignment of the other
/// address.
async fn one_assigned_elsewhere(
    node: &mut SingleNode,
    pool: &'static str,
    third: u8,
) -> Result<(PoolFixture, std::net::IpAddr)> {
    with_flags(node, &["--confirm-wait=5s"]).await?;
    let mut fixture = PoolFixture::create(node, pool, third, 31, 1, json!({})).await?;
    fixture.add(node).await?;
    let taken = fixture.address(0)?;
    let assigned_elsewhere = fixture.block(node, 0).await?.assign_to_other_node(node, pool, &[taken], 0).await?[0];
    let next = fixture.pod(node).await?;
    await_checkpointed(node, &fixture.name_of(next)).await?;
    let held = restart_unproven(node).await?;
    let error = node.call(&fixture.pods[next].call("ADD"))?.error()?;
    drop(held);
    ensure!(error.code == 11, "{error:?}");
    node.del(&fixture.pods[next])?;
    await_node_warning(node, &[&assigned_elsewhere.to_string(), "n9"]).await?;
    Ok((fixture, assigned_elsewhere))
}

/// Restarts the agent and holds its reads of blocks, so that no read proves that the node owns its blocks. While the
/// caller keeps the returned guard, each ADD waits until the API server has created the ADD's assignment.
async fn restart_unproven(node: &mut SingleNode) -> Result<FaultGuard> {
    let held = node.api()?.inject(Selector::verbs(READS).of("addressblocks"), Fault::HoldRequest);
    node.kill_agent();
    node.start_agent_only()?;
    node.await_agent(WAIT_TIMEOUT).await?;
    Ok(held)
}

pub async fn comes_back(node: &mut SingleNode) -> Result<()> {
    let (fixture, assigned_elsewhere) = one_assigned_elsewhere(node, "comes-back", 41).await?;
    delete_assignment(node, assigned_elsewhere).await?;
    // The agent's watch does not report that another node's assignment is gone. The agent finds out when it reads the
    // assignments of excluded addresses, once a minute.
    let within = scaled_timeout(Duration::from_mins(2));
    wait_until("a repeated ADD gets the address", within, || async {
        let answer = node.call(&fixture.pods[1].call("ADD"))?;
        if answer.exit != 0 {
            node.del(&fixture.pods[1])?;
        }
        Ok(check(answered(&answer)? == Some(assigned_elsewhere), || answer.stdout.clone()))
    })
    .await?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

pub async fn after_restart(node: &mut SingleNode) -> Result<()> {
    let (fixture, assigned_elsewhere) = one_assigned_elsewhere(node, "stays-away", 42).await?;
    node.kill_agent();
    node.proxy.set(NetworkFault::Refuse);
    node.start_agent().await?;
    let answer = node.call(&fixture.pods[1].call("ADD"))?;
    ensure!(
        answered(&answer)?.is_none(),
        "after a restart the ADD got {assigned_elsewhere}, although n9 has an assignment of this address"
    );
    node.proxy.set(NetworkFault::None);
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

pub async fn passes_over_many(node: &mut SingleNode) -> Result<()> {
    with_flags(node, &["--confirm-wait=5s"]).await?;
    let mut fixture = PoolFixture::create(node, "many", 96, 27, 5, json!({})).await?;
    fixture.add(node).await?;
    let taken = fixture.address(0)?;
    let block = fixture.block(node, 0).await?;
    // Of the 32 addresses in the block, one stays free.
    let assigned_elsewhere = block.assign_to_other_node(node, "many", &[taken], 1).await?;
    ensure!(assigned_elsewhere.len() == 30, "{assigned_elsewhere:?}");
    let next = fixture.pod(node).await?;
    await_checkpointed(node, &fixture.name_of(next)).await?;
    let held = restart_unproven(node).await?;
    let audit = node.control_plane.audit();
    let mark = audit.mark();
    let got = answered(&node.call(&fixture.pods[next].call("ADD"))?)?;
    ensure!(
        got.is_some_and(|got| got != taken && !assigned_elsewhere.contains(&got)),
        "the ADD did not get the free address, but {got:?}"
    );
    drop(held);
    // For each address that node n9 has assigned, the agent sends at most one create and two reads. Then it excludes
    // the address.
    let creates = audit.calls(mark, |entry| of_assignments(entry) && entry.verb == "create")?.len();
    let reads = audit.calls(mark, |entry| of_assignments(entry) && entry.verb == "get")?.len();
    ensure!(
        creates <= 31 && reads <= 62,
        "the ADD cost too many calls: {creates} creates and {reads} reads of assignments"
    );
    for address in assigned_elsewhere {
        delete_assignment(node, address).await?;
    }
    await_no_exclusion(node).await?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

pub async fn one_list(node: &mut SingleNode) -> Result<()> {
    let mut fixture = PoolFixture::create(node, "one-list", 99, 27, 5, json!({})).await?;
    fixture.add(node).await?;
    let taken = fixture.address(0)?;
    // Of the 32 addresses in the block, three stay free.
    let assigned_elsewhere = fixture.block(node, 0).await?.assign_to_other_node(node, "one-list", &[taken], 3).await?;
    let audit = node.control_plane.audit();
    let mark = audit.mark();
    let next = fixture.pod(node).await?;
    // The ADD finds a conflict. It may fail or succeed, because the agent may find the conflict after the answer.
    let _ = node.call(&fixture.pods[next].call("ADD"))?;
    wait_until("the agent has excluded every address for which n9 has an assignment", WAIT_TIMEOUT, || async {
        let excluded = std::fs::read_dir(node.run_dir().join("conflicts"))?.count();
        Ok(check(excluded == assigned_elsewhere.len(), || format!("{excluded} of {}", assigned_elsewhere.len())))
    })
    .await?;
    let creates = audit.calls(mark, |entry| of_assignments(entry) && entry.verb == "create")?.len();
    ensure!(
        creates < assigned_elsewhere.len() / 2,
        "the agent sent {creates} creates for {} conflicting addresses, although it can list the assignments",
        assigned_elsewhere.len()
    );
    for address in assigned_elsewhere {
        delete_assignment(node, address).await?;
    }
    await_no_exclusion(node).await?;
    fixture.end(node).await
}

/// Whether an audit entry is an API call of the agent for assignments.
fn of_assignments(entry: &Entry) -> bool {
    entry.user.username == AGENT_USER && entry.resource() == "ipassignments"
}

async fn await_no_exclusion(node: &SingleNode) -> Result<()> {
    wait_until("the agent excludes no address", scaled_timeout(Duration::from_mins(3)), || async {
        let excluded = std::fs::read_dir(node.run_dir().join("conflicts"))?.count();
        Ok(check(excluded == 0, || format!("{excluded} addresses")))
    })
    .await
}
