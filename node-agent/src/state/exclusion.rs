//! Excludes an address from allocation while a conflicting IPAssignment exists. Both the node's state and the checkpoint record the
//! exclusion.

use super::checkpoint::Checkpoint;
use super::{ConflictingAssignment, NodeState};

/// Excludes an address from allocation until its conflicting assignment is deleted. A restart does not end the exclusion. Returns true if
/// the conflict is new.
pub fn exclude(node_state: &NodeState, checkpoint: &Checkpoint, conflict: ConflictingAssignment) -> bool {
    if let Err(error) = checkpoint.keep_conflict(&conflict) {
        tracing::error!(pair = %conflict.pair, %error, "the agent could not save an address conflict in the checkpoint. After a restart, this node might allocate the address although another attachment has the address. Make sure that the agent can write to its run directory");
    }
    node_state.exclude(conflict)
}

/// Ends the exclusion of an address. The node may allocate the address again after the address has cooled down. Returns true if the address
/// was excluded.
pub fn end_exclusion(node_state: &NodeState, checkpoint: &Checkpoint, conflict: &ConflictingAssignment) -> bool {
    if let Err(error) = checkpoint.forget_conflict(conflict) {
        tracing::error!(pair = %conflict.pair, %error, "an address conflict is resolved, but the agent could not remove the conflict from the checkpoint. If the agent restarts, it allocates the address only after it has checked again that the conflict is gone");
    }
    node_state.end_exclusion(conflict.pair)
}
