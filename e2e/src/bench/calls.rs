//! What the agent asks of the API server, by the API server's own audit log: per ADD and DEL, and idle.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::Report;
use crate::control_plane::Entry;
use crate::lone_node::{AGENT_USER, LoneNode, PATIENCE};
use crate::until::{so, until};

/// One block of the pool has room for them, so that no claim is counted: claims are shared by a block's addresses.
const ATTACHMENTS: usize = 100;
/// How long an idle agent is watched.
const IDLE: Duration = Duration::from_mins(1);

fn of_agent(entry: &Entry) -> bool {
    entry.user.username == AGENT_USER && (entry.is_write() || entry.is_read())
}

/// Counts the calls of some ADDs and DELs.
pub async fn per_attachment(node: &LoneNode, report: &mut Report) -> Result<()> {
    node.apply_pool("counted", json!({"subnets": [{"ipv4": "10.66.0.0/16"}], "blockSizeBits": 8})).await?;
    let mut sandboxes = Vec::with_capacity(ATTACHMENTS);
    for number in 0..=ATTACHMENTS {
        sandboxes.push(node.kube_pod("default", &format!("counted-{number}"), Some("counted")).await?);
    }
    // The first has the block claimed.
    let first = sandboxes.remove(0);
    node.add(&first)?;
    let audit = node.control_plane.audit();
    for (verb, what) in [("ADD", "create"), ("DEL", "delete")] {
        let mark = audit.mark();
        for pod in &sandboxes {
            node.call(&pod.call(verb))?.ok()?;
        }
        let records = |one: &Entry| of_agent(one) && one.resource() == "ipassignments" && one.verb == what;
        until("the API server has counted the records", PATIENCE, || async {
            let seen = audit.calls(mark, records)?.len();
            Ok(so(seen >= ATTACHMENTS, || format!("{seen} of {ATTACHMENTS}")))
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

/// Counts the calls of an agent that has nothing to do.
pub async fn idle(node: &LoneNode, report: &mut Report) -> Result<()> {
    eprintln!("bench: an idle agent, {} s", IDLE.as_secs());
    let audit = node.control_plane.audit();
    let mark = audit.mark();
    tokio::time::sleep(IDLE).await;
    let calls = audit.calls(mark, of_agent)?.len();
    report.idle_calls = Some(calls as f64 * 3600.0 / IDLE.as_secs_f64());
    Ok(())
}
