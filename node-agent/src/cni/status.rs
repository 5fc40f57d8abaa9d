//! STATUS: could an ADD be served? A full or missing pool is no reason to say no: the runtime would take the whole node out of service.

use bobbin_cni_wire::{CniError, code};

use crate::agent::Agent;

/// Fails only until the agent has once been ready since boot.
///
/// # Errors
/// Code 50.
pub fn status(agent: &Agent) -> Result<(), CniError> {
    if agent.run_dir.was_ready() {
        return Ok(());
    }
    Err(CniError::new(
        code::NOT_AVAILABLE,
        format!(
            "the agent of node {} has not been ready since boot: it waits to see its Node and its blocks at the API server; see: kubectl logs of the bobbin-agent pod on this node",
            agent.args.node_name
        ),
    ))
}
