//! Tests a node whose agent starts only after other nodes have assigned the node's addresses.

use std::time::Instant;

use anyhow::{Result, ensure};
use bobbin_e2e::bare_nodes::{BareNodes, WAIT_TIMEOUT};
use bobbin_e2e::control_plane::Revision;
use bobbin_e2e::wait::{check, wait_until};

use crate::fixture::{BLOCK_LEN, BLOCKS, MINUTE, Pods, await_outage, make_pool, restore};

/// The number of pods on the late node. They fill two blocks.
const LATE_PODS: usize = 2 * BLOCK_LEN;
/// The number of pods on the other nodes. They fill all blocks but one.
const OTHER_PODS: usize = (BLOCKS - 1) * BLOCK_LEN;

pub async fn reported(nodes: &mut BareNodes, revision: Revision) -> Result<()> {
    make_pool(nodes).await?;
    let snapshot = nodes.control_plane.save_snapshot()?;
    let mut late = Pods::default();
    late.add(nodes, 3, LATE_PODS)?;
    late.await_assignments(nodes, WAIT_TIMEOUT).await?;
    nodes.node_mut(3).kill_agent();
    let stopped = Instant::now();
    nodes.control_plane.stop();
    await_outage(stopped).await?;
    restore(nodes, &snapshot, revision).await?;

    // The restored API has no assignments of the late node's pods, so the other nodes assign the same addresses to
    // their own pods.
    let mut others = Pods::default();
    for number in 0..OTHER_PODS {
        others.add(nodes, 1 + number % 2, 1)?;
    }
    let taken: std::collections::BTreeSet<_> = others.addresses()?.into_values().flatten().collect();
    let twice: Vec<_> = late.addresses()?.into_values().flatten().filter(|address| taken.contains(address)).collect();
    ensure!(!twice.is_empty(), "the other nodes have assigned no address of the late node, so the test proves nothing");
    nodes.node_mut(3).start_agent().await?;
    let late_node = nodes.node(3);
    wait_until(
        "events of the late node name each duplicate address, and its metric counts the duplicates",
        MINUTE,
        || async {
            let events = nodes.events("DuplicateAddress").await?;
            let told =
                twice.iter().filter(|address| events.iter().any(|note| note.contains(&address.to_string()))).count();
            let counted = late_node.metric("bobbin_agent_duplicate_addresses_total")?;
            let right = told == twice.len() && counted >= twice.len() as f64;
            Ok(check(right, || {
                format!(
                    "events name {told} of {} duplicates, and the metric counts {counted}; the events are {events:?}",
                    twice.len()
                )
            }))
        },
    )
    .await?;
    others.0.append(&mut late.0);
    others.end(nodes).await
}
