//! STATUS reports whether the agent can carry out an ADD. A full or missing pool is no error, because an error makes the whole node
//! NotReady.

use bobbin_cni_wire::{CniError, code};

use crate::agent::Agent;

/// Returns an error if the agent has never been ready since the node booted.
///
/// # Errors
/// Code 50 if the agent has never been ready since the node booted.
pub fn status(agent: &Agent) -> Result<(), CniError> {
    if agent.run_dir.was_ready() {
        return Ok(());
    }
    Err(CniError::new(
        code::NOT_AVAILABLE,
        format!(
            "the agent of node {} has not been ready since the node booted, because the agent has not read its Node and its blocks yet. See the log of the bobbin-agent pod on this node",
            agent.args.node_name
        ),
    ))
}
