//! CHECK compares the container's network with the result of ADD. CHECK changes nothing.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bobbin_cni_wire::{CniError, NetConf, code};
use bobbin_ipam::AttachmentKey;

use super::call_record;
use crate::agent::Agent;

/// Compares the kernel and the runtime's `prevResult` with the result of ADD.
///
/// # Errors
/// If the agent does not know the attachment, can't check it, or finds that it differs from the result of ADD. The error names each
/// difference.
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
            format!("the agent of node {node} does not know attachment {key}; the runtime must call DEL and ADD"),
        )
    })?;
    call_record::note_attachment(&attachment, &agent.network.host_if(key));
    let netns = netns.ok_or_else(|| {
        CniError::new(
            code::INVALID_ENVIRONMENT,
            format!("CHECK of {key} got no network namespace; the runtime must set CNI_NETNS to the container's network namespace"),
        )
    })?;
    if let Some(previous) = &conf.prev_result {
        for address in attachment.pair.addresses() {
            if !previous.ips.iter().any(|ip| ip.address.addr() == address) {
                return Err(failed(format!(
                    "attachment {key} has address {address}, but the runtime's prevResult does not contain this address; the runtime must call DEL and ADD"
                )));
            }
        }
    }
    let wiring = agent.wiring(key, attachment.pair);
    let misses = agent.network.check(&wiring, netns).await.map_err(|error| {
        CniError::new(
            code::KERNEL_REFUSED,
            format!("the agent of node {node} could not check attachment {key}: {error}"),
        )
    })?;
    if misses.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = misses.iter().map(ToString::to_string).collect();
    Err(failed(format!(
        "attachment {key} on node {node} differs from the result of ADD: {}. The agent repairs only the node's side. If the difference is in the container's network namespace, recreate the pod",
        named.join(", ")
    )))
}
