//! Decides how a claim, a LIST response, a restart or a transition changes the proof that this node owns a block. Pure.

use super::block::BlockState;
use crate::cluster::freshness::Proof;

impl Proof {
    /// The proof of a block whose claim succeeded. `read` is the proof of a read that began before the claim. `had_finalizer` says whether
    /// the block may have had Bobbin's finalizer before the claim. `quiet` says whether the agent is in the quiet time after an outage.
    #[must_use]
    pub fn of_claim(read: Proof, had_finalizer: bool, quiet: bool) -> Proof {
        if quiet || had_finalizer { Proof::AssignmentsUnseen } else { read }
    }

    /// The proof of a block after a restart of the agent. `assignments_listed` comes from the checkpoint.
    #[must_use]
    pub fn restored(assignments_listed: bool) -> Proof {
        if assignments_listed { Proof::None } else { Proof::AssignmentsUnseen }
    }

    /// The proof of a block after the block has entered the state `next`.
    #[must_use]
    pub fn after(self, next: BlockState) -> Proof {
        match next {
            // Another node may now assign the block's addresses. If this node owns the block again, it must first list the assignments.
            BlockState::Lost => Proof::AssignmentsUnseen,
            BlockState::Doubted { .. } if self != Proof::AssignmentsUnseen => Proof::None,
            _ => self,
        }
    }

    /// The proof of a block after an answer of the API server gave the proof `found`. `assignments_listed` says whether the agent also
    /// listed the block's assignments. If it did not list them, a block with [`Proof::AssignmentsUnseen`] keeps this proof.
    #[must_use]
    pub fn confirmed(self, found: Proof, assignments_listed: bool) -> Proof {
        if assignments_listed || self != Proof::AssignmentsUnseen { found } else { self }
    }
}
