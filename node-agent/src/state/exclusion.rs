//! Excludes addresses from allocation while a conflicting IPAssignment exists, in the node's state and in the checkpoint.

use super::checkpoint::Checkpoint;
use super::{ConflictingAssignment, NodeState};

/// Excludes an address from allocation until its conflicting assignment is gone, also across restarts. Returns true if the conflict is new.
pub fn exclude(node_state: &NodeState, checkpoint: &Checkpoint, conflict: ConflictingAssignment) -> bool {
    if let Err(error) = checkpoint.keep_conflict(&conflict) {
        tracing::error!(pair = %conflict.pair, %error, "the checkpoint of an address conflict could not be written: after a restart this node might allocate an address that another attachment has");
    }
    node_state.exclude(conflict)
}

/// Ends an exclusion: the address may be allocated again after its cool-down. Returns true if the address was excluded.
pub fn end_exclusion(node_state: &NodeState, checkpoint: &Checkpoint, conflict: &ConflictingAssignment) -> bool {
    if let Err(error) = checkpoint.forget_conflict(conflict) {
        tracing::error!(pair = %conflict.pair, %error, "an address conflict is resolved, but its checkpoint could not be removed. After a restart the agent allocates the address only once it has confirmed that the conflict is gone");
    }
    node_state.end_exclusion(conflict.pair)
}
