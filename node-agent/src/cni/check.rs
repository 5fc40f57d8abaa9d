//! CHECK: is the container's network as ADD left it? Changes nothing.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bobbin_cni_wire::{CniError, NetConf, code};
use bobbin_ipam::AttachmentKey;

use crate::agent::Agent;

/// Compares the kernel, and the runtime's `prevResult`, with what ADD made.
///
/// # Errors
/// Each miss by name.
pub async fn check(
    agent: &Arc<Agent>,
    key: &AttachmentKey,
    conf: &NetConf,
    netns: Option<OwnedFd>,
) -> Result<(), CniError> {
    let failed = |msg: String| CniError::new(code::CHECK_FAILED, msg);
    let node = &agent.args.node_name;
    let attachment = agent.node_state.attachment(key).ok_or_else(|| {
        CniError::new(
            code::CONTAINER_UNKNOWN,
            format!("attachment {key} is unknown to the agent of node {node}: the runtime must DEL and ADD it"),
        )
    })?;
    let netns = netns.ok_or_else(|| {
        CniError::new(
            code::INVALID_ENVIRONMENT,
            format!("CHECK of {key} needs the container's network namespace in CNI_NETNS"),
        )
    })?;
    if let Some(previous) = &conf.prev_result {
        for address in attachment.pair.addresses() {
            if !previous.ips.iter().any(|ip| ip.address.addr() == address) {
                return Err(failed(format!(
                    "attachment {key} has address {address}, which the runtime's prevResult does not name: the runtime must DEL and ADD it"
                )));
            }
        }
    }
    let wiring = agent.wiring(key, attachment.pair);
    let misses = agent.network.check(&wiring, netns).await.map_err(|error| {
        CniError::new(code::KERNEL_REFUSED, format!("attachment {key} on node {node} could not be checked: {error}"))
    })?;
    if misses.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = misses.iter().map(ToString::to_string).collect();
    Err(failed(format!(
        "attachment {key} on node {node} is not as ADD left it: {}; the host's part is repaired by the agent, for the container's part recreate the pod",
        named.join(", ")
    )))
}
