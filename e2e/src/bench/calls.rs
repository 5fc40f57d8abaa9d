//! Counts the agent's API calls per ADD and per DEL in the API server's audit log.

use anyhow::Result;
use serde_json::json;

use super::Report;
use crate::control_plane::Entry;
use crate::single_node::{AGENT_USER, SingleNode, WAIT_TIMEOUT};
use crate::wait::{check, wait_until};

/// The number of attachments. All of them fit into one block of the pool, so the agent claims no second block.
const ATTACHMENTS: usize = 100;

fn of_agent(entry: &Entry) -> bool {
    entry.user.username == AGENT_USER && (entry.is_write() || entry.is_read())
}

/// Counts the agent's API calls during a hundred ADDs, and then during a hundred DELs.
pub async fn per_attachment(node: &SingleNode, report: &mut Report) -> Result<()> {
    node.apply_pool("counted", json!({"subnets": [{"ipv4": "10.66.0.0/16"}], "blockSizeBits": 8})).await?;
    let mut sandboxes = Vec::with_capacity(ATTACHMENTS);
    for number in 0..=ATTACHMENTS {
        sandboxes.push(node.kube_pod("default", &format!("counted-{number}"), Some("counted")).await?);
    }
    // The first ADD makes the agent claim the block.
    let first = sandboxes.remove(0);
    node.add(&first)?;
    // The agent may write the assignment after the ADD has returned. Wait for this write, so that it does not count for
    // a later ADD.
    node.await_assignments(&[&first.container_id], WAIT_TIMEOUT).await?;
    let audit = node.control_plane.audit();
    for (verb, what) in [("ADD", "create"), ("DEL", "delete")] {
        let mark = audit.mark();
        for pod in &sandboxes {
            node.call(&pod.call(verb))?.ok()?;
        }
        let of_assignments = |one: &Entry| of_agent(one) && one.resource() == "ipassignments" && one.verb == what;
        wait_until("the audit log contains the write of every assignment", WAIT_TIMEOUT, || async {
            let seen = audit.calls(mark, of_assignments)?.len();
            Ok(check(seen >= ATTACHMENTS, || format!("the audit log has {seen} of {ATTACHMENTS} writes")))
        })
        .await?;
        let calls = audit.calls(mark, of_agent)?;
        let share = |count: usize| count as f64 / ATTACHMENTS as f64;
        let (writes, reads) =
            (calls.iter().filter(|one| one.is_write()).count(), calls.iter().filter(|one| one.is_read()).count());
        report.calls.push((verb, share(writes), share(reads)));
    }
    node.del(&first)
}
